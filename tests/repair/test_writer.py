"""Quarantine, update and insert: what they take with them, what they ask first, and whom they keep waiting."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_panic_doctor.database.subject import Rows, Subject
from pytest_panic_doctor.repair import RepairFailed, RepairRefused, Writer, repairs, undo
from pytest_panic_doctor.repair.journal import selection, transaction
from pytest_panic_doctor.repair.journal.locks import CONTENDED, UNCONTENDED, WriteLock, WritePacing, next_pause

if TYPE_CHECKING:
    from small_database import SmallDatabase

ORPHAN = f"{2:04x}{3:028x}"
ALL_RUNS = Rows("run", "SELECT id FROM run")
ORPHANS = Rows(
    "run",
    "SELECT id FROM run r WHERE NOT EXISTS (SELECT 1 FROM experimentconfig e WHERE e.id = r.experiment_id);",
)
DIAGRAM = f"{5:04x}{0:028x}"


def ids(kind: int, *numbers: int) -> set[str]:
    return {f"{kind:04x}{number:028x}" for number in numbers}


def small(monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    for bound in ("FIRST_ROWS", "MIN_ROWS", "MAX_ROWS"):
        monkeypatch.setattr(selection, bound, rows)


def test_run_goes_with_all_that_hangs_on_it(small_database: SmallDatabase, writer: Writer) -> None:
    before = small_database.dump()
    repair = writer.quarantine("orphan-run", Subject(), ORPHANS)
    after = small_database.dump()
    gone = {table: len(rows) - len(after[table]) for table, rows in before.items() if len(rows) != len(after[table])}
    assert gone == {"run": 1, "invocation": 6, "embedding": 6, "embeddingcluster": 6, "persistencediagram": 1}
    assert not small_database.orphans()
    assert repair is not None
    assert (repair.rows, repair.verb, repair.status, repair.session) == (20, "quarantine", "applied", "session 1")
    assert repair.bytes > 6 * 3072 + 3 * 9_000 + 700
    small_database.check_nothing_lost(before)


def test_nothing_goes_where_a_row_that_hangs_on_it_shares_its_id(small_database: SmallDatabase, writer: Writer) -> None:
    small_database.do("ALTER TABLE embedding RENAME TO old")
    small_database.do("CREATE TABLE embedding AS SELECT * FROM old")
    taken = f"{4:04x}{1:028x}"
    of_orphan = "SELECT min(e.rowid) FROM invocation i JOIN embedding e ON e.invocation_id = i.id WHERE i.run_id = ?"
    small_database.do(f"UPDATE embedding SET id = ? WHERE rowid = ({of_orphan})", taken, ORPHAN)
    before = small_database.dump()
    with pytest.raises(RepairFailed, match=rf"Table embedding has several rows with the id {taken}"):
        writer.quarantine("orphan-run", Subject(), ORPHANS)
    assert small_database.dump() == before
    assert repairs(small_database.path) == []


def test_medoid_takes_the_assignments_that_name_it(small_database: SmallDatabase, writer: Writer) -> None:
    medoid = f"{4:04x}{1:028x}"
    named = set(
        small_database.values("SELECT id FROM embeddingcluster WHERE ? IN (embedding_id, medoid_embedding_id)", medoid)
    )
    assert len(named) > 5
    left = set(small_database.values("SELECT id FROM embeddingcluster")) - named
    repair = writer.quarantine("embedding-type", Subject(), Rows("embedding", "SELECT :id AS id", {"id": medoid}))
    assert repair is not None
    assert repair.rows == 1 + len(named)
    assert set(small_database.values("SELECT id FROM embeddingcluster")) == left
    assert not small_database.orphans() - {("run", ORPHAN)}


def test_clustering_takes_its_assignments(small_database: SmallDatabase, writer: Writer) -> None:
    writer.quarantine("r", Subject(), Rows("clusteringresult", "SELECT id FROM clusteringresult"))
    assert small_database.values("SELECT count(*) FROM embeddingcluster") == [0]
    assert small_database.values("SELECT count(*) FROM embedding") == [30]


def test_successor_stays(small_database: SmallDatabase, writer: Writer) -> None:
    """`input_invocation_id` is no reference along which a quarantine goes."""
    writer.quarantine(
        "r", Subject(), Rows("invocation", "SELECT id FROM invocation WHERE id = :id", {"id": f"{3:04x}{4:028x}"})
    )
    assert set(small_database.values("SELECT id FROM invocation")) == ids(3, *range(1, 31)) - ids(3, 4)
    assert set(small_database.values("SELECT id FROM embedding")) == ids(4, *range(1, 31)) - ids(4, 4)


@pytest.mark.parametrize("rows", [1, 2, 7, 1000])
def test_no_state_in_between_has_a_new_orphan(
    small_database: SmallDatabase, monkeypatch: pytest.MonkeyPatch, rows: int
) -> None:
    small(monkeypatch, rows)
    known, seen = small_database.orphans(), []

    class Watched(sqlite3.Connection):
        def execute(self, sql: str, parameters: object = (), /) -> sqlite3.Cursor:
            result = super().execute(sql, parameters)  # type: ignore[arg-type]
            if sql == "COMMIT":
                seen.append(small_database.orphans() - known)
            return result

    with closing(Writer(small_database.path, "s", lambda: True, connection=Watched)) as writer:
        repair = writer.quarantine("r", Subject(), ALL_RUNS)
    assert repair is not None
    assert (repair.rows, repair.status) == (98, "applied")
    assert not any(seen)
    assert len(seen) > 3 * 98 // rows
    assert [found.id for found in repairs(small_database.path)] == [repair.id]


def test_bytes_bound_a_transaction(writer: Writer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Images are megabytes, so rows alone would be no bound."""
    monkeypatch.setattr(selection, "MAX_BYTES", 20_000)
    taken = []
    keep = transaction.Step.save_before_images

    def watched(step: transaction.Step, table: object, rowids: list[int]) -> None:
        taken.append((step.number, getattr(table, "name", ""), len(rowids)))
        keep(step, table, rowids)  # type: ignore[arg-type]

    monkeypatch.setattr(transaction.Step, "save_before_images", watched)
    writer.quarantine("r", Subject(), ALL_RUNS)
    per_step: dict[int | None, int] = {}
    for number, table, count in taken:
        per_step[number] = per_step.get(number, 0) + count * (9_000 if table == "invocation" else 0)
    assert len(per_step) > 10
    assert max(per_step.values()) <= 9_000 * 6  # at most two images and four texts


def test_progress(writer: Writer, monkeypatch: pytest.MonkeyPatch) -> None:
    small(monkeypatch, 40)
    told: list[tuple[int, int]] = []
    writer.quarantine("r", Subject(), Rows("embedding", "SELECT id FROM embedding"), lambda *at: told.append(at))
    assert told[-1] == (30, 30)
    assert [done for done, _ in told] == sorted(done for done, _ in told)


def test_nothing_found_writes_nothing(small_database: SmallDatabase, writer: Writer) -> None:
    before = small_database.path.read_bytes()
    assert writer.quarantine("r", Subject(), Rows("run", "SELECT id FROM run WHERE 0")) is None
    assert small_database.path.read_bytes() == before
    assert not small_database.path.with_name("trajectory_data.doctor.sqlite").exists()


WINDOW = (
    "SELECT id FROM (SELECT id, row_number() OVER (PARTITION BY run_id ORDER BY sequence_number) AS n FROM invocation)"
    " WHERE n > 2"
)


@pytest.mark.parametrize("sql", ["SELECT id FROM invocation WHERE sequence_number >= 2", WINDOW])
@pytest.mark.parametrize("quick", [0.2, -1.0])
def test_rows_are_looked_up_again_in_each_transaction(
    small_database: SmallDatabase, monkeypatch: pytest.MonkeyPatch, sql: str, quick: float
) -> None:
    """While a quarantine is under way, somebody repairs some of its offenders, and they stay."""
    small(monkeypatch, 6)
    monkeypatch.setattr(selection, "QUICK", quick)
    spared = f"{3:04x}{30:028x}"

    def meddle(done: int, _: int) -> None:
        if done < 20:
            small_database.do("UPDATE invocation SET sequence_number = -1 WHERE id = ?", spared)

    with closing(Writer(small_database.path, "s", lambda: True)) as writer:
        writer.quarantine("r", Subject(), Rows("invocation", sql), meddle)
    left = small_database.values("SELECT id FROM invocation WHERE sequence_number NOT IN (0, 1)")
    assert left == [spared]


def test_slow_query_is_not_run_inside_while_others_write(
    small_database: SmallDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A query that takes long is asked before the transaction, and again if somebody wrote in between."""
    monkeypatch.setattr(selection, "QUICK", -1.0)
    inside: list[str] = []

    class Meddled(sqlite3.Connection):
        left = 3

        def execute(self, sql: str, parameters: object = (), /) -> sqlite3.Cursor:
            if sql == "BEGIN IMMEDIATE" and "invocation" not in inside and Meddled.left:
                Meddled.left -= 1
                small_database.do("UPDATE experimentconfig SET max_length = max_length + 1")
            if "doctor_offender" in sql and self.in_transaction:
                inside.append(sql)
            return super().execute(sql, parameters)  # type: ignore[arg-type]

    with closing(Writer(small_database.path, "s", lambda: True, connection=Meddled)) as writer:
        repair = writer.quarantine("r", Subject(), ORPHANS)
    assert repair is not None
    assert repair.rows == 20
    assert not inside
    assert Meddled.left == 0


def test_id_that_names_two_rows(small_database: SmallDatabase, writer: Writer) -> None:
    small_database.do("CREATE TABLE other (id, what)")
    small_database.do("INSERT INTO other VALUES ('a', 'sick'), ('a', 'healthy'), (NULL, 'sick'), ('b', 'sick')")
    sick = Rows("other", "SELECT id FROM other WHERE what = 'sick'")
    with pytest.raises(RepairFailed, match="2 ids"):
        writer.quarantine("r", Subject(), Rows("other", "SELECT id FROM other WHERE what = 'sick' AND id IS NOT NULL"))
    small_database.do("UPDATE other SET id = 'c' WHERE what = 'healthy'")
    repair = writer.quarantine("r", Subject(), sick)
    assert repair is not None
    assert repair.rows == 2
    assert small_database.values("SELECT what FROM other ORDER BY id") == ["sick", "healthy"]


def test_trigger_is_refused(small_database: SmallDatabase, writer: Writer) -> None:
    small_database.do("CREATE TRIGGER greedy AFTER DELETE ON embedding BEGIN DELETE FROM persistencediagram; END")
    before = small_database.dump()
    with pytest.raises(RepairRefused, match="Table embedding has the trigger greedy"):
        writer.quarantine("orphan-run", Subject(), ORPHANS)
    assert small_database.dump() == before


def test_declared_cascade_does_nothing(small_database: SmallDatabase, writer: Writer) -> None:
    """Foreign keys stay off, whatever the SQLite library was compiled with: only what is journalled goes.

    Runs declare that they refer to experiments, so they go along, with their before-images.
    """
    small_database.do("UPDATE run SET experiment_id = ?", f"{1:04x}{1:028x}")
    before = small_database.dump()
    repair = writer.quarantine("r", Subject(), Rows("experimentconfig", "SELECT id FROM experimentconfig"))
    assert repair is not None
    assert repair.rows == sum(map(len, before.values())) - sum(map(len, small_database.dump().values()))
    assert small_database.values("SELECT count(*) FROM run") == [0]
    undo(small_database.path, "all")
    assert small_database.dump() == before


def test_view_and_missing_table(small_database: SmallDatabase, writer: Writer) -> None:
    small_database.do("CREATE VIEW seen AS SELECT * FROM run")
    for table in ("seen", "nowhere"):
        with pytest.raises(RepairRefused, match=f"not an ordinary table {table}"):
            writer.quarantine("r", Subject(), Rows(table, f"SELECT id FROM {table}"))


def test_older_file_without_clusters(small_database: SmallDatabase, writer: Writer) -> None:
    small_database.do("DROP TABLE embeddingcluster")
    small_database.do("DROP TABLE clusteringresult")
    repair = writer.quarantine("orphan-run", Subject(), ORPHANS)
    assert repair is not None
    assert repair.rows == 14


def test_update_is_guarded_inside_the_transaction(small_database: SmallDatabase, writer: Writer) -> None:
    before = small_database.dump()
    inside: list[bool] = []

    def guard(db: sqlite3.Connection) -> bool:
        inside.append(db.in_transaction)
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            db.execute("DELETE FROM run")
        return False

    assert writer.update("r", Subject(), "persistencediagram", DIAGRAM, {"diagram_data": b"x"}, guard) is None
    assert inside == [True]
    assert small_database.dump() == before
    assert writer.update("r", Subject(), "persistencediagram", "nobody", {"diagram_data": b"x"}, lambda _: True) is None
    repair = writer.update(
        "r", Subject(), "persistencediagram", DIAGRAM, {"diagram_data": b"x", "completed_at": None}, lambda _: True
    )
    assert repair is not None
    assert (repair.verb, repair.rows) == ("update", 1)
    assert small_database.values("SELECT diagram_data FROM persistencediagram WHERE id = ?", DIAGRAM) == [b"x"]
    assert len(repairs(small_database.path)) == 1


def test_insert_is_guarded(small_database: SmallDatabase, writer: Writer) -> None:
    values = {"id": "f" * 32, "started_at": "t", "run_id": ORPHAN, "embedding_model": "M", "diagram_data": None}
    assert writer.insert("r", Subject(), "persistencediagram", values, lambda _: False) is None
    repair = writer.insert("r", Subject(), "persistencediagram", values, lambda _: True)
    assert repair is not None
    assert (repair.verb, repair.rows) == ("insert", 1)
    assert small_database.values("SELECT embedding_model FROM persistencediagram WHERE id = ?", "f" * 32) == ["M"]
    with pytest.raises(RepairFailed, match=r"UNIQUE constraint failed: persistencediagram.id"):
        writer.insert("r", Subject(), "persistencediagram", values, lambda _: True)


def test_bad_values(writer: Writer) -> None:
    with pytest.raises(RepairRefused, match="no column colour"):
        writer.update("r", Subject(), "run", ORPHAN, {"colour": 1}, lambda _: True)
    with pytest.raises(RepairRefused, match="is never changed"):
        writer.update("r", Subject(), "run", ORPHAN, {"id": "x"}, lambda _: True)
    with pytest.raises(RepairRefused, match="without an id"):
        writer.insert("r", Subject(), "run", {"seed": 1}, lambda _: True)


def test_repaired_within_a_subject(small_database: SmallDatabase, writer: Writer) -> None:
    narrow, wide = Subject("e1", "r1", "Nomic"), Subject("e1", None, "Nomic")
    for number, subject in enumerate([narrow, Subject("e1", "r2", "JinaClip"), Subject("e2", "r3", "Nomic"), wide]):
        diagram = f"{5:04x}{number:028x}"
        writer.update("diagram-valid", subject, "persistencediagram", diagram, {"diagram_data": b"x"}, lambda _: True)

    def found(subject: Subject, rule: str = "diagram-valid") -> list[int]:
        return [repair.id for repair in writer.repaired(rule, subject)]

    assert found(narrow) == [1]
    assert found(wide) == [4, 1]
    assert found(Subject("e1")) == [4, 2, 1]
    assert found(Subject()) == [4, 3, 2, 1]
    assert found(Subject(), "other") == []
    with closing(Writer(small_database.path, "session 2", lambda: True)) as other:
        assert other.repaired("diagram-valid", Subject()) == []
    undo(small_database.path, 1)
    assert found(wide) == [4]


def test_worker_without_a_controller_writes_nothing(small_database: SmallDatabase) -> None:
    before = small_database.dump()
    with (
        closing(Writer(small_database.path, "s", lambda: False)) as writer,
        pytest.raises(RepairFailed, match="the doctor that asked for it is gone"),
    ):
        writer.quarantine("orphan-run", Subject(), ORPHANS)
    assert small_database.dump() == before
    assert not small_database.path.with_name("trajectory_data.doctor.sqlite").exists()


def test_controller_dies_before_the_commit(small_database: SmallDatabase) -> None:
    before = small_database.dump()
    answers = iter([True, False])
    with (
        closing(Writer(small_database.path, "s", lambda: next(answers))) as writer,
        pytest.raises(RepairFailed, match="is gone"),
    ):
        writer.quarantine("orphan-run", Subject(), ORPHANS)
    assert small_database.dump() == before
    assert repairs(small_database.path) == []
    small_database.journal_agrees()


def test_controller_dies_between_batches(small_database: SmallDatabase, monkeypatch: pytest.MonkeyPatch) -> None:
    small(monkeypatch, 6)
    before = small_database.dump()
    answers = iter([True] * 4 + [False] * 9)
    with (
        closing(Writer(small_database.path, "s", lambda: next(answers))) as writer,
        pytest.raises(RepairFailed, match=r"is gone; run again. Before that, 12 rows were quarantined as repair 1"),
    ):
        writer.quarantine("orphan-run", Subject(), ORPHANS)
    small_database.check_nothing_lost(before)
    assert [repair.rows for repair in undo(small_database.path, 1)] == [12]
    assert small_database.dump() == before


def test_lost_worker_is_settled_by_the_next_one(
    small_database: SmallDatabase, writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that dies between the two commits leaves an open step; the same rows must not be journalled twice."""

    class Dies(sqlite3.Connection):
        commits = 0

        def execute(self, sql: str, parameters: object = (), /) -> sqlite3.Cursor:
            if sql == "COMMIT":
                Dies.commits += 1
                if Dies.commits == 3:  # the journal's making, its step, and now the database
                    raise KeyboardInterrupt
            return super().execute(sql, parameters)  # type: ignore[arg-type]

    lost = Writer(small_database.path, "s", lambda: True, connection=Dies)
    monkeypatch.setattr(lost._transactor, "_committed_after_all", lambda _: False)
    before = small_database.dump()
    with pytest.raises(KeyboardInterrupt):
        lost.quarantine("orphan-run", Subject(), ORPHANS)
    lost._transactor._close_connections()
    repair = writer.quarantine("orphan-run", Subject(), ORPHANS)
    assert repair is not None
    assert [(each.id, each.rows) for each in repairs(small_database.path)] == [(repair.id, 20)]
    undo(small_database.path, "all")
    assert small_database.dump() == before


@pytest.mark.parametrize("journal_mode", ["delete", "wal"])
def test_other_program_is_waited_for(make: Callable[..., SmallDatabase], tmp_path: Path, journal_mode: str) -> None:
    small_database = make(tmp_path / "t.sqlite", journal_mode=journal_mode)
    other = sqlite3.connect(small_database.path, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    other.execute("UPDATE experimentconfig SET max_length = 77")
    threading.Timer(0.7, lambda: other.execute("COMMIT")).start()
    with closing(Writer(small_database.path, "s", lambda: True)) as writer, closing(other):
        assert writer.quarantine("orphan-run", Subject(), ORPHANS) is not None
    assert small_database.values("SELECT max_length FROM experimentconfig") == [77]


def test_other_program_that_never_ends(small_database: SmallDatabase) -> None:
    before = small_database.dump()
    with (
        closing(small_database.connect()) as other,
        closing(Writer(small_database.path, "s", lambda: True, patience=0.6)) as writer,
    ):
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(
            RepairFailed, match="Table run could not be written: another program kept the database locked"
        ):
            writer.quarantine("orphan-run", Subject(), ORPHANS)
        other.execute("ROLLBACK")
    assert small_database.dump() == before


def test_reader_that_never_ends(small_database: SmallDatabase) -> None:
    """In rollback journal mode a reader keeps a commit out: the step is taken back, and nothing is recorded."""
    before = small_database.dump()
    with (
        closing(small_database.connect()) as other,
        closing(Writer(small_database.path, "s", lambda: True, patience=0.6)) as writer,
    ):
        reading = other.execute("SELECT * FROM run")
        reading.fetchone()
        with pytest.raises(RepairFailed, match="Table run could not be written: another program"):
            writer.quarantine("orphan-run", Subject(), ORPHANS)
        reading.close()
    assert small_database.dump() == before
    assert repairs(small_database.path) == []
    small_database.journal_agrees()


def test_gate_is_free_while_another_program_blocks(small_database: SmallDatabase) -> None:
    """The workers of a doctor take turns at waiting; none keeps the gate while it cannot write."""
    writer = Writer(small_database.path, "s", lambda: True, patience=120)
    with closing(small_database.connect()) as other, closing(writer):
        other.execute("BEGIN IMMEDIATE")
        thread = threading.Thread(target=writer.quarantine, args=("orphan-run", Subject(), ORPHANS))
        thread.start()
        write_lock = WriteLock(small_database.path)
        for _ in range(2):
            time.sleep(0.1)
            with write_lock.held("run", time.monotonic() + 30):
                assert thread.is_alive()
        other.execute("ROLLBACK")
        thread.join()
    assert [repair.rows for repair in repairs(small_database.path)] == [20]


def test_gate_that_is_never_free(small_database: SmallDatabase) -> None:
    with (
        WriteLock(small_database.path).held("run", 0),
        closing(Writer(small_database.path, "s", lambda: True, patience=0.2)) as writer,
        pytest.raises(RepairFailed, match="Table run could not be written: the doctor's other workers"),
    ):
        writer.quarantine("orphan-run", Subject(), ORPHANS)


@pytest.mark.parametrize("manners", [UNCONTENDED, CONTENDED])
def test_pause_gives_others_their_turn(manners: WritePacing) -> None:
    assert next_pause(100.0, 99.0, 50.0, manners) == (0.0, 100.0)  # idle for longer than a turn: that was one
    assert next_pause(100.0, 99.99, 99.95, manners) == (0.0, 99.95)  # a burst that may go on
    wait, rested = next_pause(100.0, 99.99, 99.5, manners)  # a burst that is over
    assert wait > 0.2  # two attempts of SQLite's busy handler
    assert rested == 100.0 + wait
    assert next_pause(5.0, 99.99, 99.5, manners) == (0.0, 5.0)  # another boot's clock


def test_turns_follow_who_is_there(
    small_database: SmallDatabase, writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Alone the doctor writes for longer at a time; from the first row of another program on it is in company again."""
    turns: list[float] = []
    run = f"{2:04x}{0:028x}"
    with closing(small_database.connect()) as other:

        def sleep(seconds: float) -> None:
            turns.append(seconds)
            if len(turns) == 3:
                other.execute("UPDATE run SET seed = seed + 1")

        monkeypatch.setattr("pytest_panic_doctor.repair.journal.transaction.time.sleep", sleep)
        seed = 0
        while len(turns) < 4:
            seed += 1
            writer.update("r", Subject(), "run", run, {"seed": seed}, lambda _: True)
    assert turns == [CONTENDED.yield_for, UNCONTENDED.yield_for, UNCONTENDED.yield_for, CONTENDED.yield_for]


def test_connections_leave_no_persistent_trace(make: Callable[..., SmallDatabase], tmp_path: Path) -> None:
    for mode in ("delete", "wal", "truncate"):
        small_database = make(tmp_path / f"{mode}.sqlite", journal_mode=mode)
        schema = small_database.schema()
        with closing(Writer(small_database.path, "s", lambda: True)) as writer:
            writer.quarantine("orphan-run", Subject(), ORPHANS)
        undo(small_database.path, "all")
        assert small_database.schema() == schema
