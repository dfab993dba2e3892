"""Diagrams of small clouds: computed in the worker, several of the next items together, written in one transaction."""

from __future__ import annotations

import sqlite3
import struct
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
from databases import MODELS, Built, build, dump, uid
from repair_item import fix_file

from pytest_panic_doctor.compute.budget import Budget
from pytest_panic_doctor.compute.process import Child
from pytest_panic_doctor.compute.small_clouds import SMALL_CLOUD, SmallFirst, compute_in_process
from pytest_panic_doctor.compute.task import Task
from pytest_panic_doctor.database import clouds
from pytest_panic_doctor.database.connection import Database, SharedMemo
from pytest_panic_doctor.database.subject import Subject
from pytest_panic_doctor.examination.examiner import RepairResult, SubjectFindings
from pytest_panic_doctor.examination.outcome import Outcome
from pytest_panic_doctor.repair import Writer, batch, repairs, undo
from pytest_panic_doctor.repair.journal import writer
from pytest_panic_doctor.repair.journal.repair_record import Repair
from pytest_panic_doctor.repair.journal.writer import Change
from pytest_panic_doctor.repair.recompute import RepairContext, claimed
from pytest_panic_doctor.repair.repairer import DatabaseRepairer
from pytest_panic_doctor.rules.base import Finding, Rule, RuleContext
from pytest_panic_doctor.rules.embedding import stored_width

RUNS = 4
ALL = RUNS * len(MODELS)


@pytest.fixture
def runner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SmallFirst]:
    """One that may start no child."""
    monkeypatch.setattr(Child, "__init__", lambda *_: pytest.fail("a child was started"))
    with SmallFirst(budget=Budget(tmp_path / "budget", 4_000_000_000)) as made:
        yield made


@pytest.fixture
def sick(tmp_path: Path) -> Built:
    """Every diagram is NULL."""
    built = build(tmp_path / "x.sqlite", older=True, runs=RUNS)
    with built.open() as db:
        db.execute("UPDATE persistencediagram SET diagram_data = NULL")
    return built


@pytest.fixture
def together(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many changes were to be written at a time; a transaction may take as long as it likes."""
    monkeypatch.setattr(writer, "TARGET", 60.0)
    sizes: list[int] = []
    write = Writer.write

    def counted(self: Writer, changes: Sequence[Change]) -> list[Repair | None]:
        sizes.append(len(changes))
        return write(self, changes)

    monkeypatch.setattr(Writer, "write", counted)
    return sizes


def transactions(path: Path) -> int:
    """SQLite's counter of the transactions that changed a file in rollback mode."""
    return int(struct.unpack(">I", path.read_bytes()[24:28])[0])


def of_missing(outcomes: dict[str, list[Outcome]]) -> list[str]:
    return [outcome.status for outcome in outcomes["diagram-missing"]]


@pytest.mark.parametrize("order", [1, -1])
def test_all_in_one_transaction_and_each_says_what_was_done(
    sick: Built, runner: SmallFirst, together: list[int], order: int
) -> None:
    before, count = dump(sick.path), transactions(sick.path)
    outcomes = fix_file(sick.path, runner, order)
    assert together == [ALL]
    assert transactions(sick.path) == count + 1
    assert of_missing(outcomes) == ["fixed"] * ALL
    for outcome in outcomes["diagram-missing"]:
        assert [finding.message for finding in outcome.findings] == ["the diagram of 6 points is NULL"]
        assert outcome.note.startswith("computed from 6 points, 6 of them distinct: ")
        assert outcome.measures["engine"] == "native"
    assert {outcome.status for outcome in outcomes["diagram-current"]} == {"passed"}
    done = repairs(sick.path)
    assert [(each.rule, each.rows) for each in done] == [("diagram-missing", 1)] * ALL
    assert len({each.subject for each in done}) == ALL
    undo(sick.path, str(done[0].id))
    assert sum(row[4] is None for row in dump(sick.path)["persistencediagram"]) == 1
    undo(sick.path, "all")
    assert dump(sick.path) == before


def test_no_more_than_so_many(
    sick: Built, runner: SmallFirst, together: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch, "MOST", 3)
    assert of_missing(fix_file(sick.path, runner)) == ["fixed"] * ALL
    assert together == [3, 3, 2]


def test_none_from_an_incomplete_cloud(sick: Built, runner: SmallFirst) -> None:
    """It is left to its own item, which says why; those behind it are not."""
    with sick.open() as db:
        db.execute("DELETE FROM embedding WHERE id = ?", (sick.embedding(3, 1),))
    outcomes = fix_file(sick.path, runner)
    assert sorted(of_missing(outcomes)) == ["failed"] + ["fixed"] * (ALL - 1)
    (failed,) = [each for each in outcomes["diagram-missing"] if each.status == "failed"]
    assert "1 of 6 invocations has no embedding (embedding-missing)" in failed.note
    assert len([each for each in repairs(sick.path) if each.rule == "diagram-missing"]) == ALL - 1


def test_embeddings_are_repaired_by_their_own_items_first(sick: Built, runner: SmallFirst) -> None:
    """Of two embeddings that are equal one goes, before the diagram of its run is computed."""
    with sick.open() as db:
        row = db.execute("SELECT * FROM embedding WHERE id = ?", (sick.embedding(5, 2),)).fetchone()
        newer = ("f" * 32, row[1], "2099-01-01 00:00:00.000001", *row[3:])
        db.execute("INSERT INTO embedding VALUES (?, ?, ?, ?, ?, ?)", newer)
    outcomes = fix_file(sick.path, runner)
    assert of_missing(outcomes) == ["fixed"] * ALL
    assert {outcome.status for outcome in outcomes["diagram-current"]} == {"passed"}
    rules = [each.rule for each in repairs(sick.path)]
    assert sorted(set(rules)) == ["diagram-missing", "embedding-duplicate"]
    quarantined = next(each for each in repairs(sick.path) if each.rule == "embedding-duplicate")
    computed = next(
        each for each in repairs(sick.path) if each.subject == Subject(sick.experiment, sick.run(2), "Nomic")
    )
    assert (computed.rule, quarantined.id < computed.id) == ("diagram-missing", True)


def test_what_another_worker_computes_is_left_to_it(sick: Built, runner: SmallFirst, together: list[int]) -> None:
    taken = claimed(Subject(sick.experiment, sick.run(1), "Nomic"))
    assert of_missing(fix_file(sick.path, runner, taken=[taken])) == ["fixed"] * ALL
    assert together == [ALL - 1, 1]


def test_what_another_worker_has_computed_meanwhile_is_told_by_it(
    sick: Built, runner: SmallFirst, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A check found it sick; when its claim is free, it is healthy, and what was done is known."""
    told: list[RepairResult] = []
    operate = DatabaseRepairer.repair

    def twice(
        self: DatabaseRepairer,
        rule: Rule,
        subject: Subject,
        found: tuple[Finding, ...],
        later: Iterable[SubjectFindings] = (),
    ) -> RepairResult:
        others = list(later)
        done = operate(self, rule, subject, found, others)
        told.extend(operate(self, rule, *other) for other in others)
        return done

    monkeypatch.setattr(DatabaseRepairer, "repair", twice)
    fix_file(sick.path, runner)
    assert [(each.note[:22], each.measures["points"]) for each in told] == [("computed from 6 points", 6)] * (ALL - 1)


def test_a_cloud_that_changes_meanwhile_is_computed_anew(
    sick: Built, runner: SmallFirst, together: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its guard says no within the transaction; the others are written."""
    write = Writer.write

    def changed(self: Writer, changes: Sequence[Change]) -> list[Repair | None]:
        if not together:
            with sick.open() as db:
                vector = np.full(8, 0.5, "<f4").tobytes()
                db.execute("UPDATE embedding SET vector = ? WHERE id = ?", (vector, sick.embedding(5, 2)))
        return write(self, changes)

    monkeypatch.setattr(Writer, "write", changed)
    outcomes = fix_file(sick.path, runner)
    assert of_missing(outcomes) == ["fixed"] * ALL
    assert {outcome.status for outcome in outcomes["diagram-current"]} == {"passed"}
    assert together == [ALL, 1]


def test_one_that_the_database_refuses_takes_nobody_along(sick: Built, runner: SmallFirst) -> None:
    """A CHECK that one row would break: it fails by name, and all others are repaired."""
    with sick.open() as db:
        db.execute(
            "CREATE UNIQUE INDEX one_payload ON persistencediagram (run_id, embedding_model) "
            f"WHERE diagram_data IS NOT NULL AND run_id = '{sick.run(1)}' AND embedding_model = 'Nomic'"
        )
        db.execute("CREATE TABLE other (x)")
        # An expression that SQLite cannot evaluate for that row: its index refuses the row, whoever writes it.
        db.execute(
            "CREATE INDEX refused ON persistencediagram (json(CASE WHEN diagram_data IS NOT NULL AND "
            f"run_id = '{sick.run(1)}' AND embedding_model = 'Nomic' THEN 'no JSON' ELSE '1' END))"
        )
    outcomes = fix_file(sick.path, runner)
    assert sorted(of_missing(outcomes)) == ["failed"] + ["fixed"] * (ALL - 1)
    (failed,) = [each for each in outcomes["diagram-missing"] if each.status == "failed"]
    assert "malformed JSON" in failed.note


@pytest.mark.parametrize("points", [SMALL_CLOUD, SMALL_CLOUD + 1])
def test_what_is_not_small_gets_a_child(points: int) -> None:
    cloud = np.cumsum(np.random.default_rng(0).standard_normal((points, 3)), axis=0).astype(np.float32)
    assert (compute_in_process(Task(cloud)) is not None) is (points == SMALL_CLOUD)


def test_what_reaches_a_limit_gets_a_child() -> None:
    """Near-equidistant points, whose H2 takes for ever; and any, where hardly any time is given."""
    cloud = np.random.default_rng(0).standard_normal((200, 768)).astype(np.float32)
    cloud /= np.linalg.norm(cloud, axis=1)[:, None]
    assert compute_in_process(Task(cloud)) is None
    assert compute_in_process(Task(cloud[:60]), timeout=1e-9) is None


def test_other_engines_get_a_child(tmp_path: Path) -> None:
    cloud = Task(np.eye(5, dtype=np.float32))
    high = Task(np.eye(5, dtype=np.float32), max_dim=3)
    budget = Budget(tmp_path, 4_000_000_000)
    with SmallFirst(budget=budget) as native, SmallFirst("giotto-ph", budget=budget) as other:
        assert native.compute_small(cloud)
        assert not native.compute_small(high)
        assert not other.compute_small(cloud)
        assert other.compute(cloud).engine == "giotto-ph"
    assert budget.finished() == 2


def test_a_width_is_found_once_as_long_as_nobody_writes(sick: Built, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    find = clouds.vector_width

    def counted(db: sqlite3.Connection, experiment: str, model: str) -> int:
        asked.append(model)
        return find(db, experiment, model)

    monkeypatch.setattr(clouds, "vector_width", counted)
    memo = SharedMemo()

    def width_of(db: sqlite3.Connection, model: str) -> int:
        return stored_width(RuleContext(db, "", Subject(sick.experiment, None, model), {}, memo.of(db)))

    with sick.open() as db, sick.open() as other:
        assert [width_of(db, model) for model in (*MODELS, *MODELS)] == [8] * 4
        assert asked == MODELS
        other.execute("UPDATE embedding SET vector = substr(vector, 1, 16)")
        assert width_of(db, MODELS[0]) == 4


def test_a_diagram_is_not_written_if_an_output_without_embedding_was_added(sick: Built) -> None:
    """The points are those that were seen, so that only the cloud itself tells that one is missing now."""
    subject = Subject(sick.experiment, sick.run(), "Nomic")
    with closing(Database(sick.path)) as database, closing(Writer(sick.path, "session", lambda: True)) as writing:
        context = RepairContext(database, writing, {"Nomic": "TEXT"})
        seen = context.snapshot(subject)
        computed = compute_in_process(seen.task(2))
        assert computed
        with sick.open() as db:
            db.execute(
                "INSERT INTO invocation SELECT ?, started_at, completed_at, model, type, seed, run_id, 99, id, "
                "output_text, output_image_data FROM invocation WHERE id = ?",
                (uid(3, 999), sick.invocation(1)),
            )
        assert context.snapshot(subject).before == seen.before
        assert not context.write("diagram-missing", seen.before, datetime.now(), computed)
    assert repairs(sick.path) == []
