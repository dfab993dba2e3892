"""`--doctor-run` and `-k` by run: everything that concerns it, and nothing about others."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from databases import Built, build, dump, uid
from defects import plant
from embedders import HOOK
from pytest_runs import Doctor, findings, items

from pytest_panic_doctor.database.spelling import dashed
from pytest_panic_doctor.errors import BadOption
from pytest_panic_doctor.examination.examination import Examination
from pytest_panic_doctor.examination.opening import from_database
from pytest_panic_doctor.examination.run_selection import meant, unique_prefix
from pytest_panic_doctor.examination.settings import Settings
from pytest_panic_doctor.rules.base import Scope

APPLE, PENGUIN, YEAH = uid(2, 0), uid(2, 1), "f" * 32
LABELS = {
    APPLE: "a red apple: FluxDev → Moondream",
    PENGUIN: "a penguin, by a campfire: FluxDev → Moondream",
    YEAH: "yeah: SDXLTurbo → BLIP2",
    "fade" + "0" * 28: "yeah: FluxDev → Moondream",
    "fade" + "0" * 27 + "1": "a pear: FluxDev → Moondream",
}


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """Two runs, the second of a penguin; each has lost an image, and the second a text too."""
    built = build(tmp_path_factory.mktemp("runs") / "x.sqlite")
    with built.open() as db:
        db.execute("UPDATE run SET initial_prompt = 'a penguin at home' WHERE id = ?", (built.run(1),))
        lost = "UPDATE invocation SET output_image_data = NULL, output_text = NULL WHERE run_id = ? AND sequence_number"
        db.execute(f"{lost} = 0", (built.run(0),))
        db.execute(f"{lost} IN (0, 1)", (built.run(1),))
        db.execute("UPDATE invocation SET seed = 77 WHERE run_id = ?", (built.run(0),))
    return built


def examined(built: Built, *runs: str) -> Examination:
    """The examination of some runs."""
    return from_database(Settings(built.path, runs=runs))


@pytest.mark.parametrize(
    ("text", "run"),
    [
        (PENGUIN, PENGUIN),
        (dashed(PENGUIN).upper(), PENGUIN),
        ("ff", YEAH),
        ("Penguin", PENGUIN),
        ("moondream APPLE", APPLE),
        ("yeah BLIP2", YEAH),
        ("yeah: FluxDev → Moondream", "fade" + "0" * 28),
        ("by a campfire: FluxDev → Moondream", PENGUIN),
    ],
)
def test_a_run_is_named_by_its_id_the_beginning_of_it_or_its_words(text: str, run: str) -> None:
    assert meant(text, LABELS) == run


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "yeah",
            " could be any of 2 runs: ffffffff (yeah: SDXLTurbo → BLIP2), fade0000-* (yeah: FluxDev → Moondream); give",
        ),
        ("fade0000-", " could be any of 2 runs: *"),
        (
            "pengiun campfire",
            ": the database has no such run: the nearest * (a penguin, by a campfire: FluxDev → Moondream)*",
        ),
        ("#", ": the database has no such run: it has 5 runs: *(a red apple: FluxDev → Moondream), *"),
    ],
)
def test_an_unclear_or_unknown_run_is_one_sentence_with_the_candidates(text: str, expected: str) -> None:
    with pytest.raises(BadOption) as caught:
        meant(text, LABELS)
    pytest.LineMatcher([str(caught.value)]).fnmatch_lines([f"--doctor-run {text}{expected}*"])
    assert "\n" not in str(caught.value)


def test_an_id_is_shortened_as_far_as_it_stays_unique() -> None:
    ids = sorted(LABELS)
    for run in ids:
        short = unique_prefix(run, ids)
        assert meant(short, LABELS) == run
        assert not short.endswith("-")


def test_a_run_has_its_own_items_and_those_of_its_experiment(database: Built) -> None:
    whole, one = from_database(Settings(database.path)), examined(database, "penguin")
    assert one.settings.runs == (database.run(1),)
    names = {entry.name for entry in one.entries()}
    about = {
        entry.name
        for entry in whole.entries()
        if entry.subject.run == database.run(1) or (entry.subject.experiment and not entry.subject.run)
    }
    assert names == about
    assert {one.rules[entry.rule].scope for entry in one.entries()} == set(Scope) - {Scope.DATABASE, Scope.RUN}
    named = from_database(Settings(database.path, runs=("penguin",), rules=("orphan-run", "invocation-seed")))
    assert [entry.rule for entry in named.entries()] == ["orphan-run", "invocation-seed"]


def test_findings_are_reduced_to_the_run(database: Built) -> None:
    one = examined(database, "penguin")
    examiner = one.examiner()
    outcomes = {entry.rule: examiner.examine(one.rules[entry.rule], entry.subject) for entry in one.entries()}
    (found,) = outcomes["invocation-output"].findings
    assert (found.count, len(found.ids), found.runs) == (2, 2, {database.run(1): 2})
    assert found.rows is not None
    with closing(sqlite3.connect(database.path)) as db:
        rows = {row for (row,) in db.execute(found.rows.sql, found.rows.params)}
    assert rows == set(found.ids)
    seed = outcomes["invocation-seed"]
    assert (seed.status, seed.findings, seed.accepted_by) == ("passed", (), "run")
    assert [each.runs for each in seed.accepted] == [{database.run(0): 12}]
    assert seed.note == "1 finding about other runs"
    one.database.close()


def test_a_finding_of_an_experiment_names_its_runs(database: Built) -> None:
    whole = from_database(Settings(database.path))
    examiner = whole.examiner()
    rule = whole.rules["invocation-output"]
    entry = next(entry for entry in whole.entries() if entry.rule == rule.id)
    (found,) = examiner.examine(rule, entry.subject).findings
    assert found.runs == {database.run(1): 2, database.run(0): 1}
    assert found.as_dict()["runs"] == dict(found.runs)
    whole.database.close()


def test_a_repair_stays_within_the_run(run_doctor: Doctor, sick: Built, pytester: pytest.Pytester) -> None:
    """Rows of other runs are neither quarantined nor embedded, though they are findings of the same items."""
    pytester.makeconftest(HOOK)
    with sick.open() as db:
        lost = (
            "(SELECT e.id FROM embedding e JOIN invocation i ON i.id = e.invocation_id WHERE embedding_model = 'Nomic' "
        )
        lost += "AND i.sequence_number = 1)"
        assert db.execute(f"UPDATE embedding SET vector = NULL WHERE id IN {lost}").rowcount > 1
    plant(sick, "diagram_null")
    before = dump(sick.path)
    result = run_doctor("--doctor-fix", "--doctor-run", "pear", "--doctor-report=r.json")
    assert result.ret == 0, result.stdout.str()
    result.stdout.fnmatch_lines([f"doctor: only run {dashed(sick.run(1))}  *: *→*"])
    with closing(sqlite3.connect(sick.path)) as db:
        query = "SELECT i.run_id FROM embedding e JOIN invocation i ON i.id = e.invocation_id WHERE e.vector IS NULL"
        left = {run for (run,) in db.execute(query)}
    assert left
    assert sick.run(1) not in left
    report = json.loads((pytester.path / "r.json").read_text())
    assert report["doctor"]["settings"]["runs"] == [sick.run(1)]
    changed = [table for table, rows in dump(sick.path).items() if rows != before[table]]
    assert changed == ["embedding"]


@pytest.mark.parametrize("option", ["-k", "--doctor-run"])
def test_everything_about_the_penguin_is_found(
    run_doctor: Doctor, pytester: pytest.Pytester, shared_data: Path, option: str
) -> None:
    result = run_doctor(
        option, "penguin", "--doctor-report=r.json", database=str(shared_data / "reference-sick.sqlite")
    )
    assert result.ret == 1
    penguin = "06b0517101d57dc1b84c1c285b64bd6c"
    about = {
        name.split("[")[0]
        for name, item in items(pytester.path / "r.json").items()
        for each in findings(item)
        if penguin in (each["run"], *each.get("runs", {}))  # type: ignore[misc]
    }
    assert about == {"invocation-sequence", "invocation-chain", "diagram-missing"}


def test_no_baseline_is_written_of_a_run(run_doctor: Doctor, sick: Built) -> None:
    assert sick.path.exists()
    result = run_doctor("--doctor-run=apple", "--doctor-baseline=k.json", "--doctor-baseline-write")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: --doctor-baseline-write accepts * leave out --doctor-run"])
    assert run_doctor("--doctor-run= ").ret == pytest.ExitCode.USAGE_ERROR
