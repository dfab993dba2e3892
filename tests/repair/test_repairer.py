"""The surgeon on every kind of repairable damage, in one process: healed, each row kept, undone byte for byte."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from databases import build, dump
from defects import DAMAGES
from elixir_databases import CASES, NOTHING_THERE, build_for
from repair_item import fix_file

from pytest_panic_doctor.compute.budget import Budget
from pytest_panic_doctor.compute.runner import DiagramRunner
from pytest_panic_doctor.database.shared_folder import SharedFolder
from pytest_panic_doctor.database.subject import Subject
from pytest_panic_doctor.examination.examiner import RepairResult
from pytest_panic_doctor.examination.outcome import Outcome
from pytest_panic_doctor.repair.journal.undo import repairs, undo
from pytest_panic_doctor.repair.result_store import ResultStore
from pytest_panic_doctor.rules import registry
from pytest_panic_doctor.rules.base import Finding

RULES = registry()
REPAIRABLE = {name: damage for name, damage in DAMAGES.items() if damage.repairable}


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DiagramRunner]:
    """One warm child for all tests."""
    with DiagramRunner(budget=Budget(tmp_path_factory.mktemp("budget"), 4_000_000_000)) as made:
        yield made


def words(outcomes: dict[str, list[Outcome]]) -> dict[str, list[str]]:
    return {rule: sorted(outcome.status for outcome in found) for rule, found in sorted(outcomes.items())}


@pytest.mark.parametrize(("generation", "name"), [case for case in CASES if case[1] in REPAIRABLE])
def test_it_heals_in_any_order_and_comes_back(
    tmp_path: Path, runner: DiagramRunner, generation: str, name: str
) -> None:
    damage = REPAIRABLE[name]
    found = {}
    for order in (1, -1):
        built = build_for(damage, tmp_path / f"{order}.sqlite", generation)
        with built.open() as db:
            damage.plant(db, built)
        before = dump(built.path)
        found[order] = words(fix_file(built.path, runner, order, deep=[damage.rule]))
        assert "fixed" in found[order][damage.rule]
        assert not any("failed" in each for each in found[order].values())
        after = dump(built.path)
        with built.open() as db:
            assert db.execute("PRAGMA foreign_key_check").fetchall() == []
        again = words(fix_file(built.path, runner, order, deep=[damage.rule]))
        assert {rule for rule, each in again.items() if set(each) & {"failed", "skipped"}} <= (
            set() if generation == "python" else NOTHING_THERE
        )
        assert dump(built.path) == after
        undo(built.path, "all")
        assert dump(built.path) == before
    assert found[1] == found[-1]


@pytest.mark.parametrize(
    ("name", "rule"), [("diagram_null", "diagram-missing"), ("embedding_twice", "embedding-duplicate")]
)
def test_what_another_item_settled_is_said_as_if_it_had_not(
    tmp_path: Path, runner: DiagramRunner, name: str, rule: str
) -> None:
    """Against the order, the item of a later rule repairs it: the findings and the measures are those of this rule."""
    said = []
    for order in (1, -1):
        built = build(tmp_path / f"{order}.sqlite", older=True)
        with built.open() as db:
            DAMAGES[name].plant(db, built)
        (fixed,) = [each for each in fix_file(built.path, runner, order)[rule] if each.status == "fixed"]
        found = [(finding.message, finding.ids, finding.count) for finding in fixed.findings]
        said.append((found, fixed.note, set(fixed.measures)))
    assert said[0] == said[1]
    assert len(said[0][0]) == 1
    assert ("peak_memory" in said[0][2]) == (rule == "diagram-missing")


def test_settled_is_found_within_a_subject(tmp_path: Path) -> None:
    store = ResultStore(SharedFolder(tmp_path))
    finding = Finding("r", "it is torn", "e", "1", "a-b", "embedding", ("x",), 1)
    store.save("r", Subject("e", "1", "a-b"), RepairResult("first", {"points": 6}, (finding,)))
    store.save("r", Subject("e", "2", "b"), RepairResult("second"))
    store.save("r", Subject("e", "2", "B/[*]"), RepairResult("third"))
    assert list(store.find("r", Subject("e", "1", "a-b"))) == [RepairResult("first", {"points": 6}, (finding,))]
    assert [each.note for each in store.find("r", Subject("e", None, "b"))] == ["second"]
    assert [each.note for each in store.find("r", Subject("e", None, "B/[*]"))] == ["third"]
    assert len(list(store.find("r", Subject()))) == 3
    assert list(store.find("other", Subject())) == []


def test_all_damage_together_heals_in_any_order(tmp_path: Path, runner: DiagramRunner) -> None:
    names = (
        "run_of_lost_experiment",
        "invocation_of_lost_run",
        "embedding_of_lost_invocation",
        "assignment_of_lost_medoid",
        "diagram_stale",  # before the embedding is doubled: of two that differ, nothing says which is right
        "embedding_twice",
        "diagram_of_an_unused_model",
        "diagram_twice_and_the_newer_stale",
    )
    rows, found = [], []
    for order in (1, -1):
        built = build(tmp_path / f"{order}.sqlite", older=True)
        with built.open() as db:
            for number, name in enumerate(names):
                DAMAGES[name].plant(db, built)
                for table in ("run", "invocation", "embedding", "embeddingcluster", "persistencediagram"):
                    db.execute(f"UPDATE {table} SET id = ? WHERE id = ?", (f"{number:032x}", "f" * 32))
        found.append(words(fix_file(built.path, runner, order)))
        state = dump(built.path)
        rows.append({table: [row[1] for row in state[table]] for table in state})
    assert rows[0] == rows[1]
    assert found[0] == found[1]
    assert not any("failed" in each for each in found[0].values())


def test_a_quarantined_run_takes_what_hangs_on_it(tmp_path: Path, runner: DiagramRunner) -> None:
    """Which has to be allowed where the run is whole: then it is its experiment that is lost."""
    built = build(tmp_path / "x.sqlite")
    with built.open() as db:
        db.execute("UPDATE run SET experiment_id = 'lost' WHERE id = ?", (built.run(),))
    fix_file(built.path, runner, most="100%")
    state = dump(built.path)
    assert {table: len(state[table]) for table in ("run", "invocation", "embedding", "persistencediagram")} == {
        "run": 1,
        "invocation": 12,
        "embedding": 12,
        "persistencediagram": 2,
    }
    assert len(state["embeddingcluster"]) == 0
    assert [repair.rule for repair in repairs(built.path)] == ["orphan-run"]


@pytest.mark.parametrize(
    ("script", "rule", "said"),
    [
        (
            "INSERT INTO persistencediagram SELECT x'00ff', started_at, completed_at, diagram_data, run_id, "
            "embedding_model FROM persistencediagram LIMIT 1",
            "diagram-duplicate",
            "which is not a text",
        ),
        (
            "ALTER TABLE persistencediagram RENAME TO old; CREATE TABLE persistencediagram AS SELECT * FROM old; "
            "UPDATE persistencediagram SET id = NULL, diagram_data = NULL WHERE rowid = 1",
            "diagram-missing",
            "a diagram has no id",
        ),
    ],
    ids=["blob", "NULL"],
)
def test_a_row_that_cannot_be_named_is_left_with_a_sentence(
    tmp_path: Path, runner: DiagramRunner, script: str, rule: str, said: str
) -> None:
    built = build(tmp_path / "x.sqlite")
    with built.open() as db:
        db.executescript(script)
    before = dump(built.path)
    outcomes = fix_file(built.path, runner)
    assert [said in outcome.note for outcome in outcomes[rule] if outcome.status == "failed"] == [True]
    assert dump(built.path) == before


def test_an_embedding_model_of_any_name_is_repaired(tmp_path: Path, runner: DiagramRunner) -> None:
    built = build(tmp_path / "x.sqlite")
    name = "模型" * 100
    with built.open() as db:
        db.execute("UPDATE embedding SET embedding_model = ? WHERE embedding_model = 'Nomic'", (name,))
        db.execute("UPDATE experimentconfig SET embedding_models = ?", (json.dumps([name]),))
        db.execute("DELETE FROM persistencediagram")
    outcomes = fix_file(built.path, runner, text_models=[name])
    assert words(outcomes)["diagram-missing"] == ["fixed", "fixed"]
