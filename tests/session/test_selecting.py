"""What a selection leaves out is not repaired, and what is said of it."""

from __future__ import annotations

import json
import re
import shlex
import sys

import pytest
from databases import RULES, Built, build, dump, uid
from defects import plant
from embedders import HOOK
from pytest_runs import CTRL_C, Doctor, outcomes

from pytest_panic_doctor.database.spelling import dashed
from pytest_panic_doctor.repair.journal.undo import repairs


@pytest.mark.parametrize(("how", "mode"), [("-k", ()), ("-m", ("-n0",)), ("node", ("-n2",))])
def test_only_rules_of_chosen_items_are_repaired(
    run_doctor: Doctor, sick: Built, how: str, mode: tuple[str, ...], pytester: pytest.Pytester
) -> None:
    pytester.makeconftest(HOOK)
    plant(sick, "diagram_null", "embedding_gone")
    before = dump(sick.path)
    name = f"diagram-missing[{dashed(sick.run())}-Nomic]"
    args = {"-k": ["-k", "diagram-missing"], "-m": ["-m", "diagram-missing"], "node": [f"x.sqlite::{name}"]}[how]
    result = run_doctor("--doctor-fix", *args, *mode)
    assert result.ret == 1
    result.stdout.fnmatch_lines(
        ["  not repaired: the point cloud is blocked: *", "*blocked by embedding-missing: run that rule too"]
    )
    assert dump(sick.path) == before
    assert "undo:" not in result.stdout.str()
    more = {"-k": "or embedding-missing", "-m": "or embedding-missing", "node": ""}[how]
    wider = ["x.sqlite::embedding-missing", *args] if how == "node" else [how, f"{args[1]} {more}"]
    result = run_doctor("--doctor-fix", *wider, "--doctor-report=r.json", *mode)
    assert result.ret == 0, result.stdout.str()
    assert outcomes(pytester.path / "r.json")[name] == "fixed"
    result.stdout.fnmatch_lines(["undo: * -m pytest --doctor-db x.sqlite --doctor-undo"])


def test_one_of_several_diagrams_is_not_computed_in_vain(run_doctor: Doctor, pytester: pytest.Pytester) -> None:
    built = build(pytester.path / "x.sqlite", older=True)
    plant(built, "diagram_twice", "diagram_stale")
    before = dump(built.path)
    result = run_doctor("--doctor-fix", "-k", "diagram-current")
    text = " ".join(result.stdout.str().split())
    assert re.search(r"not repaired: .* 1 \(diagram-duplicate\); blocked by diagram-duplicate: run that rule too", text)
    assert dump(built.path) == before
    assert run_doctor("--doctor-fix", "-k", "diagram-current or diagram-duplicate").ret == 0


def test_what_was_repaired_on_the_way_is_said(run_doctor: Doctor, sick: Built, pytester: pytest.Pytester) -> None:
    pytester.makeconftest(
        CTRL_C + "def pytest_collection_modifyitems(items):\n"
        "    items.sort(key=lambda item: 'diagram-missing' not in item.name)\n"
    )
    plant(sick, "text_model_on_an_image")
    result = run_doctor("--doctor-fix", str(sick.path))
    result.stdout.fnmatch_lines(
        [
            "also done    embedding-type        quarantined 1 row: 1 embedding (repair 1)",
            "undo: * -m pytest --doctor-db x.sqlite --doctor-undo",
        ]
    )
    assert [each.rule for each in repairs(sick.path)] == ["embedding-type"]


def test_what_is_left_is_said_as_it_is(run_doctor: Doctor, sick: Built, mode: tuple[str, ...]) -> None:
    plant(sick, "vector_null")
    with sick.open() as db:
        db.execute("UPDATE persistencediagram SET diagram_data = NULL")
    result = run_doctor("--doctor-fix", "-k", f"diagram-missing and {dashed(sick.run())} and not Vision", *mode)
    result.stdout.fnmatch_lines(
        [
            "doctor: at most 4 diagrams to compute, 24 points, *",
            "1 diagram of 6 points not computed: the items above say why",
            "3 diagrams of 18 points also missing: this command did not choose them",
        ]
    )
    assert "the same command" not in result.stdout.str()


@pytest.mark.parametrize(
    "args",
    [
        ["-k", "diagram-missing and not Vision"],
        ["-m", "diagram-missing"],
        ["-n2", "-m", "diagram-missing"],
        [f"x.sqlite::diagram-missing[{dashed(uid(2, 0))}-Nomic]"],
        ["--doctor-rule", "diagram-missing"],
        ["--doctor-experiment", dashed(uid(1, 0))],
    ],
    ids=lambda args: " ".join(args)[:30],
)
def test_the_next_command_keeps_the_selection(run_doctor: Doctor, sick: Built, args: list[str]) -> None:
    plant(sick, "diagram_null", "embedding_of_lost_invocation")
    result = run_doctor(*args)
    kept = [arg for arg in args if arg != "-n2"]
    for step in (["--doctor-plan"], ["--doctor-fix", "-n", "2"]):
        command = shlex.split(
            [line for line in result.outlines if line.startswith("next: ")][-1].removeprefix("next: ")
        )
        assert command == [sys.executable, "-m", "pytest", "--doctor-db", "x.sqlite", *step, *kept]
        result = run_doctor(*command[5:])
    assert result.ret == 0


def test_what_an_ini_file_chooses_is_not_said_again(run_doctor: Doctor, sick: Built, pytester: pytest.Pytester) -> None:
    pytester.makeini("[pytest]\naddopts = -m 'not slow'\nmarkers = slow")
    plant(sick, "diagram_null")
    run_doctor().stdout.fnmatch_lines(["next: * -m pytest --doctor-db x.sqlite --doctor-plan"])


def test_a_blocked_item_proposes_no_repair_that_cannot_help(
    run_doctor: Doctor, sick: Built, pytester: pytest.Pytester
) -> None:
    plant(sick, "vector_null", "diagram_null")
    result = run_doctor("--doctor-report=r.html", "--doctor-report=r.json")
    result.stdout.fnmatch_lines(["  blocked by embedding-vector: repair that first"])
    items = json.loads((pytester.path / "r.json").read_text())["items"]
    found = {item["rule"]: [each.get("blocked_by") for each in item["findings"]] for item in items if item["findings"]}
    assert found == {"embedding-vector": [None], "diagram-missing": [["embedding-vector"]]}
    assert "next: " not in result.stdout.str()
    planned = run_doctor("--doctor-plan").stdout.str()
    assert "would stay" in planned
    assert "next: " not in planned
    assert "--doctor-backup" not in planned, "nothing would be written"
    pytester.makeconftest(HOOK)
    result = run_doctor(str(sick.path))
    result.stdout.fnmatch_lines(["next: * -m pytest --doctor-db x.sqlite --doctor-plan"])
    result = run_doctor("--doctor-plan", str(sick.path))
    result.stdout.fnmatch_lines_random(
        [
            "would fix    embedding-vector      embed 1 output by your hook, if it knows the",
            "               model",
            "would stay   diagram-missing       1 item: blocked, unless the embedding hook",
            "               helps: 1 of 6 vectors *",
            "plan         embed 1 output by your hook, whose time is not known",
            "             stays sick: diagram-missing (1 item)",
            "next: * -m pytest --doctor-db x.sqlite --doctor-fix -n 2",
        ]
    )
    assert max(len(line) for line in result.outlines if line.startswith(("would ", "plan ", "    "))) <= 80
    assert "needs an embedding hook" not in result.stdout.str()
    assert run_doctor("--doctor-fix", str(sick.path)).ret == 0


def test_a_damaged_file_is_not_offered_a_repair(run_doctor: Doctor, sick: Built) -> None:
    plant(sick, "diagram_null")
    with sick.path.open("r+b") as file:
        file.seek(5 * 4096 + 8)
        file.write(b"\xff" * 4000)
    result = run_doctor()
    assert result.ret == 1
    assert "--doctor-plan" not in result.stdout.str()


def test_a_prompt_and_a_network_are_found(run_doctor: Doctor, pytester: pytest.Pytester) -> None:
    built = build(pytester.path / "x.sqlite")
    with built.open() as db:
        db.execute("UPDATE run SET initial_prompt = 'a penguin at home' WHERE id = ?", (built.run(1),))
    found = [line for line in run_doctor("--co", "-q", "-k", "Penguin and fluxdev").outlines if "::" in line]
    assert found
    diagrams = [line for line in found if "::diagram-" in line and "-model[" not in line]
    assert len(diagrams) > 1
    assert all(dashed(built.run(1)) in line for line in diagrams)
    assert f"x.sqlite::invocation-chain[{dashed(built.experiment)}]" in found
    whole = [line for line in run_doctor("--co", "-q", "-k", "an and apple and not diagram").outlines if "::" in line]
    assert f"x.sqlite::experiment-config[{dashed(built.experiment)}]" in whole


@pytest.mark.parametrize("args", [["-x"], ["-x", "-n2"], ["--maxfail=1"], ["exit"]], ids=" ".join)
def test_what_was_not_reached_is_never_healthy(
    run_doctor: Doctor, sick: Built, pytester: pytest.Pytester, args: list[str]
) -> None:
    plant(sick, "embedding_of_lost_invocation")
    if args == ["exit"]:
        args = [str(sick.path)]
        pytester.makeconftest(
            "def pytest_doctor_outcome(item):\n    if item['outcome'] == 'failed':\n        raise KeyboardInterrupt\n"
        )
    if "-n2" in args:
        # Two workers could be through with so few items before they hear that one failed.
        pytester.makeconftest("import time\ndef pytest_runtest_setup(item):\n    time.sleep(0.1)\n")
    result = run_doctor(*args, "--doctor-report=r.json", "--doctor-report=r.html")
    report = json.loads((pytester.path / "r.json").read_text())
    rules = report["doctor"]["rules"]
    ended = {item["rule"] for item in report["items"]}
    assert len(ended) < RULES, "all rules were reached"
    assert rules["sick"] == 1
    assert rules["not examined"] >= RULES - len(ended)
    assert sum(rules.values()) == RULES
    result.stdout.fnmatch_lines(
        [
            "not examined * of * not reached",
            f"{RULES} rules: {rules['healthy']} healthy, 1 sick, {rules['not examined']} not examined",
        ]
    )


def test_collecting_alone_reaches_nothing_and_says_nothing(run_doctor: Doctor, sick: Built) -> None:
    assert sick.path.exists()
    assert "not reached" not in run_doctor("--collect-only", "-q").stdout.str()


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["-m", "orphan-embeding"], "doctor: -m orphan-embeding chose no item: did you mean orphan-embedding?"),
        (["-m", "orphan_embeding", "-n2"], "doctor: -m orphan_embeding chose no item: did you mean orphan-embedding?"),
        (["-k", "diagram-mising"], "doctor: -k diagram-mising chose no item: did you mean diagram-missing?"),
        (["-k", "zebra"], "doctor: -k zebra chose no item: --doctor-rules lists the rules"),
    ],
)
def test_a_rule_that_is_misspelt_is_hinted_at(run_doctor: Doctor, sick: Built, args: list[str], said: str) -> None:
    assert sick.path.exists()
    result = run_doctor(*args)
    assert result.ret == pytest.ExitCode.NO_TESTS_COLLECTED
    result.stdout.fnmatch_lines([said])


def test_a_database_without_an_option_is_hinted_at(run_doctor: Doctor, sick: Built, pytester: pytest.Pytester) -> None:
    hint = "doctor: to examine this database, type * -m pytest --doctor-db x.sqlite"
    assert sick.path.exists()
    for args in (["x.sqlite"], ["x.sqlite::orphan-run"]):
        result = run_doctor(*args, database=None)
        assert result.ret == pytest.ExitCode.USAGE_ERROR
        result.stdout.fnmatch_lines([hint])
    assert (
        "doctor" not in run_doctor("--co", "x.txt", database=None).stdout.str().split("plugins:")[1].split("\n", 1)[1]
    )
    pytester.makeconftest(
        "import pytest\n"
        "class Other(pytest.Item):\n    def runtest(self):\n        pass\n"
        "class File(pytest.File):\n"
        "    def collect(self):\n        yield Other.from_parent(self, name='other')\n"
        "def pytest_collect_file(file_path, parent):\n"
        "    if file_path.suffix == '.sqlite':\n        return File.from_parent(parent, path=file_path)\n"
    )
    result = run_doctor("x.sqlite", database=None)
    assert result.ret == 0
    result.stdout.no_fnmatch_line(hint)
