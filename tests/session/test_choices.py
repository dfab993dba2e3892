"""Severity, baseline, sample, budget and the outcome listener, in real pytest runs."""

from __future__ import annotations

import json

import pytest
from databases import RULES, Built, build, dump
from defects import plant
from pytest_runs import CTRL_C, Doctor, items, outcomes

from pytest_panic_doctor.database.subject import Subject
from pytest_panic_doctor.examination.manifest import Entry
from pytest_panic_doctor.examination.settings import Part
from pytest_panic_doctor.examination.sharding import sampled


def severity(pytester: pytest.Pytester, *lines: str) -> None:
    listed = "".join(f"\n    {line}" for line in lines)
    (pytester.path / "pytest.ini").write_text(f"[pytest]\ndoctor_severity ={listed}\n")


def test_a_warned_rule_passes_with_a_warning(run_doctor: Doctor, sick: Built, pytester: pytest.Pytester) -> None:
    plant(sick, "embedding_of_lost_invocation", "embedding_gone")
    severity(pytester, "orphan-embedding: warn", "embedding-missing: warn <= 1", "diagram-current: warn")
    result = run_doctor("--doctor-report=r.json", "--doctor-report=r.html", "--junitxml=j.xml")
    assert result.ret == 0, result.stdout.str()
    result.stdout.fnmatch_lines(
        [
            "warned       orphan-embedding      1 of 1 item warned",
            "warning      embedding-missing *Nomic*: 1 of * has no*",
            "* rules: * healthy, 3 warned*",
        ]
    )
    report = json.loads((pytester.path / "r.json").read_text())
    assert report["doctor"]["rules"]["warned"] == 3
    (orphan,) = [item for item in report["items"] if item["rule"] == "orphan-embedding"]
    assert (orphan["outcome"], orphan["findings"], orphan["by"]) == ("passed", [], "severity")
    assert orphan["accepted"][0]["count"] == 1
    assert "a warning by doctor_severity" in (pytester.path / "j.xml").read_text()


def test_over_its_threshold_it_fails(run_doctor: Doctor, sick: Built, pytester: pytest.Pytester) -> None:
    plant(sick, "embedding_gone")
    severity(pytester, "embedding-missing: warn <= 0")
    assert run_doctor("--doctor-rule=embedding-missing").ret == 1


def test_a_rule_that_is_off_has_no_item_unless_it_is_named(
    run_doctor: Doctor, sick: Built, pytester: pytest.Pytester
) -> None:
    plant(sick, "embedding_of_lost_invocation")
    severity(pytester, "orphan-embedding: off")
    result = run_doctor("--doctor-report=r.json")
    assert result.ret == 0
    result.stdout.fnmatch_lines([f"doctor: {RULES - 1} rules, * items, 1 more switched off by doctor_severity"])
    assert "orphan-embedding" not in {item["rule"] for item in items(pytester.path / "r.json").values()}
    assert run_doctor("--doctor-rule=orphan-embedding").ret == 1


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("orphan-embeding: warn", "*orphan-embeding: there is no such rule: did you mean orphan-embedding?*"),
        ("orphan-embedding: maybe", "*is not a severity: give RULE: error, warn, off or warn <= COUNT*"),
    ],
)
@pytest.mark.usefixtures("sick")
def test_a_bad_severity_is_one_sentence(run_doctor: Doctor, pytester: pytest.Pytester, line: str, said: str) -> None:
    severity(pytester, line)
    result = run_doctor()
    assert result.ret == 4
    result.stderr.fnmatch_lines([said])
    assert "Traceback" not in result.stderr.str()


def test_a_baseline_accepts_what_is_known_and_nothing_else(
    run_doctor: Doctor, sick: Built, pytester: pytest.Pytester, mode: tuple[str, ...]
) -> None:
    plant(sick, "embedding_of_lost_invocation", "diagram_of_lost_run")
    before = dump(sick.path)
    written = run_doctor("--doctor-baseline=known.json", "--doctor-baseline-write", *mode)
    assert written.ret == 0, written.stdout.str()
    written.stdout.fnmatch_lines(["baseline     2 findings written to known.json"])
    file = (pytester.path / "known.json").read_bytes()
    assert run_doctor("--doctor-baseline=known.json").ret == 0
    assert dump(sick.path) == before

    with sick.open() as db:
        db.execute("DELETE FROM persistencediagram WHERE run_id NOT IN (SELECT id FROM run)")
    plant(sick, "embedding_gone")
    result = run_doctor("--doctor-baseline=known.json", "--doctor-report=r.json", *mode)
    assert result.ret == 1
    assert outcomes(pytester.path / "r.json")["orphan-embedding"] == "passed"
    result.stdout.fnmatch_lines(
        [
            "sick         embedding-missing *",
            "warned       orphan-embedding *",
            "baseline     2 new, 1 known, 1 healed",
            "healed       orphan-diagram: persistencediagram *",
        ]
    )
    assert json.loads((pytester.path / "r.json").read_text())["doctor"]["baseline"]["new"] == 2
    assert (pytester.path / "known.json").read_bytes() == file


def test_a_narrow_look_keeps_what_it_did_not_look_at(
    run_doctor: Doctor, sick: Built, pytester: pytest.Pytester
) -> None:
    plant(sick, "embedding_of_lost_invocation", "diagram_of_lost_run")
    run_doctor("--doctor-baseline=known.json", "--doctor-baseline-write")
    file = (pytester.path / "known.json").read_bytes()
    result = run_doctor("--doctor-baseline=known.json", "--doctor-baseline-write", "--doctor-rule=orphan-embedding")
    result.stdout.fnmatch_lines(["baseline     0 new, 1 known, 0 healed, 1 not looked at"])
    assert (pytester.path / "known.json").read_bytes() == file
    result = run_doctor("--doctor-baseline=known.json", "--doctor-baseline-write", "-k", "orphan-diagram")
    assert (pytester.path / "known.json").read_bytes() == file


def test_what_has_healed_is_offered_to_be_forgotten(run_doctor: Doctor, sick: Built, pytester: pytest.Pytester) -> None:
    plant(sick, "embedding_of_lost_invocation")
    run_doctor("--doctor-baseline=known.json", "--doctor-baseline-write")
    assert run_doctor("--doctor-baseline=known.json", "--doctor-fix").ret == 0
    result = run_doctor("--doctor-baseline=known.json")
    result.stdout.fnmatch_lines(
        [
            "baseline     0 new, 0 known, 1 healed",
            "next: * -m pytest --doctor-db x.sqlite --doctor-baseline known.json --doctor-baseline-write",
        ]
    )
    run_doctor("--doctor-baseline=known.json", "--doctor-baseline-write")
    assert json.loads((pytester.path / "known.json").read_text())["accepted"] == []


def test_an_examination_that_did_not_end_writes_none(
    run_doctor: Doctor, sick: Built, pytester: pytest.Pytester
) -> None:
    plant(sick, "embedding_of_lost_invocation")
    (pytester.path / "conftest.py").write_text(CTRL_C)
    result = run_doctor("--doctor-baseline=known.json", "--doctor-baseline-write", str(sick.path))
    assert result.ret == 2
    result.stdout.fnmatch_lines(["doctor: the baseline was not written: *"])
    assert not (pytester.path / "known.json").exists()


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--doctor-baseline=nope.json"], "*nope.json does not exist: add --doctor-baseline-write to write it*"),
        (["--doctor-baseline=x.sqlite"], "*x.sqlite is not a baseline*"),
        (["--doctor-baseline-write"], "*needs the file to write: give --doctor-baseline FILE with it*"),
        (["--doctor-sample=4/3"], "*--doctor-sample 4/3 is not a part: give K/N*"),
        (["--doctor-sample=banana"], "*--doctor-sample banana is not a part: give K/N*"),
        (["--doctor-budget=banana"], "*--doctor-budget banana is not a time: give one such as 90s, 20m or 1h30m*"),
        (["--doctor-budget=0"], "*--doctor-budget 0 is not a time*"),
    ],
)
@pytest.mark.usefixtures("sick")
def test_a_bad_choice_is_one_sentence(run_doctor: Doctor, args: list[str], said: str) -> None:
    result = run_doctor(*args)
    assert result.ret == 4
    result.stderr.fnmatch_lines([said])
    assert "Traceback" not in result.stdout.str() + result.stderr.str()


def test_samples_are_disjoint_and_complete(run_doctor: Doctor, pytester: pytest.Pytester) -> None:
    build(pytester.path / "x.sqlite", runs=12)
    run_doctor("--doctor-deep", "--doctor-report=all.json")
    everything = items(pytester.path / "all.json")
    parts = []
    for night in (1, 2, 3):
        result = run_doctor(f"--doctor-sample={night}/3", f"--doctor-report={night}.json")
        result.stdout.fnmatch_lines([f"doctor: sample {night} of 3: * items of expensive rules"])
        parts.append(set(items(pytester.path / f"{night}.json")))
    cheap = parts[0] & parts[1] & parts[2]
    dear = [part - cheap for part in parts]
    assert set().union(*parts) == set(everything)
    assert sum(map(len, dear)) == len(set().union(*dear))
    assert all(dear)
    assert {everything[each]["rule"] for each in set().union(*dear)} == {
        "embedding-vector",
        "embedding-exact",
        "diagram-valid",
        "diagram-current",
        "diagram-exact",
    }


def test_after_its_time_no_item_is_begun(run_doctor: Doctor, sick: Built, pytester: pytest.Pytester) -> None:
    (pytester.path / "conftest.py").write_text(
        "import time\n"
        "from pytest_panic_doctor import Scope, rule\n"
        "@rule('slow', scope=Scope.DATABASE, description='it takes long')\n"
        "def slow(context):\n    time.sleep(3)\n    return ()\n"
        "def pytest_doctor_rules():\n    return [slow]\n"
    )
    plant(sick, "diagram_null")
    result = run_doctor("--doctor-budget=2s", "--doctor-report=r.json", str(sick.path))
    assert result.ret == 0
    result.stdout.fnmatch_lines(["doctor: no item is started after 2 s", "not examined * rules: * items not started"])
    found = items(pytester.path / "r.json")
    begun = [item for item in found.values() if not item.get("late")]
    late = [item for item in found.values() if item.get("late")]
    assert all(item["outcome"] == "skipped" and "--doctor-budget" in str(item["note"]) for item in late)
    assert begun
    assert len(begun) + len(late) == len(found)
    assert {item["outcome"] for item in begun} == {"passed"}


def test_a_listener_hears_of_each_item_once(
    run_doctor: Doctor, sick: Built, pytester: pytest.Pytester, mode: tuple[str, ...]
) -> None:
    plant(sick, "embedding_of_lost_invocation")
    (pytester.path / "conftest.py").write_text(
        "import json\n"
        "def pytest_doctor_outcome(item):\n"
        "    with open('heard.jsonl', 'a') as file:\n"
        "        file.write(json.dumps(item) + '\\n')\n"
    )
    run_doctor("--doctor-report=r.json", *mode, str(sick.path))
    heard = [json.loads(line) for line in (pytester.path / "heard.jsonl").read_text().splitlines()]
    assert heard == json.loads((pytester.path / "r.json").read_text())["items"]
    assert {item["outcome"] for item in heard} == {"passed", "failed"}


def test_the_sample_depends_on_the_subject_alone() -> None:
    entries = [Entry(rule, Subject("e", f"{run}", "Nomic"), "") for run in range(2000) for rule in ("a", "b")]
    parts = [[sampled(entry, Part(part, 7)) for entry in entries] for part in range(1, 8)]
    assert all(sum(column) == 1 for column in zip(*parts, strict=True))
    assert all(part[::2] == part[1::2] for part in parts)
    assert all(0.8 < sum(part) * 7 / len(entries) < 1.2 for part in parts)


@pytest.mark.parametrize("how", ["--doctor-rule=diagram-valid", "off"])
def test_a_rule_that_was_left_out_is_not_repaired_on_the_way(
    run_doctor: Doctor, sick: Built, pytester: pytest.Pytester, how: str
) -> None:
    plant(sick, "diagram_null", "text_model_on_an_image")
    with sick.open() as db:
        db.execute("UPDATE persistencediagram SET diagram_data = x'00' WHERE diagram_data IS NOT NULL")
    before = len(dump(sick.path)["embedding"])
    if how == "off":
        severity(pytester, "embedding-type: off")
    result = run_doctor("--doctor-fix", *([] if how == "off" else [how]))
    result.stdout.fnmatch_lines(["fixed        diagram-valid *"])
    assert len(dump(sick.path)["embedding"]) == before
