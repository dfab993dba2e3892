"""A row is its content: recovery and undo tell rows by their digests, whatever ids and rowids other programs reuse."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_panic_doctor.database.subject import Rows, Subject
from pytest_panic_doctor.repair import RepairError, RepairRefused, Writer, recover, repairs, undo
from pytest_panic_doctor.repair.journal import journal_schema

if TYPE_CHECKING:
    from small_database import SmallDatabase

REPOSITORY = Path(__file__).parents[2]
ORPHAN = f"{2:04x}{3:028x}"
DIAGRAM = f"{5:04x}{0:028x}"
ADDED = "f" * 32
ORPHANS = Rows("run", "SELECT :id AS id", {"id": ORPHAN})


def killed(small_database: SmallDatabase, kind: str, point: str) -> None:
    """A repair that is begun and dies of SIGKILL before the database's COMMIT, or before the mark."""
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("killed_process.py")), str(small_database.path), kind, point],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr


RUN = (
    "INSERT INTO run (rowid, id, network, seed, max_length, initial_prompt, experiment_id) VALUES (?, ?, ?, 3, 6, ?, ?)"
)


def test_another_row_with_the_id_of_a_removed_one(small_database: SmallDatabase) -> None:
    before = small_database.dump()
    killed(small_database, "remove", "mark")
    small_database.do(RUN, 4, ORPHAN, "[]", "not the row that was removed", "x")
    assert len(recover(small_database.path)) == 1
    small_database.check_nothing_lost(before)
    now = small_database.dump()
    with pytest.raises(RepairRefused, match=rf"1 row of run has changed since the repair \({ORPHAN}\): put it back"):
        undo(small_database.path, "all")
    assert small_database.dump() == now
    small_database.do("DELETE FROM run WHERE id = ?", ORPHAN)
    undo(small_database.path, "all")
    assert small_database.dump() == before


def test_another_row_with_the_rowid_of_a_removed_one(small_database: SmallDatabase) -> None:
    before = small_database.dump()
    killed(small_database, "remove", "mark")
    small_database.do(RUN, 4, "another", "[]", "a prompt", "x")
    recover(small_database.path)
    small_database.check_nothing_lost(before)
    undo(small_database.path, "all")
    assert {data for _, data in before["run"]} < {data for _, data in small_database.dump()["run"]}


def test_the_same_row_again(small_database: SmallDatabase) -> None:
    """Put back by another program, to the byte: the database has it, and nothing else is lost."""
    before = small_database.dump()
    killed(small_database, "remove", "mark")
    small_database.do(RUN, 40, ORPHAN, '["a"]', "a prompt", f"{1:04x}{99:028x}")
    recover(small_database.path)
    small_database.check_nothing_lost(before)
    undo(small_database.path, "all")
    assert {t: {data for _, data in rows} for t, rows in small_database.dump().items()} == {
        t: {data for _, data in rows} for t, rows in before.items()
    }


@pytest.mark.parametrize("kind", ["remove", "change", "add", "batch"])
@pytest.mark.parametrize("point", ["commit", "mark"])
def test_killed_between_two_commits(small_database: SmallDatabase, kind: str, point: str) -> None:
    before = small_database.dump()
    killed(small_database, kind, point)
    small_database.check_nothing_lost(before)
    assert len(recover(small_database.path)) == (point == "mark") * (4 if kind == "batch" else 1)
    small_database.check_nothing_lost(before)
    assert (small_database.dump() == before) is (point == "commit")
    undo(small_database.path, "all")
    assert small_database.dump() == before


CHANGED = "UPDATE persistencediagram SET completed_at = 'another' WHERE id = ?"
MEANWHILE = {
    "remove": ("UPDATE run SET seed = 99 WHERE id = ?", ORPHAN),
    "change": (CHANGED, DIAGRAM),
    "add": (
        "INSERT INTO persistencediagram VALUES (?, 't', NULL, x'00', 'another', 'Nomic')",
        ADDED,
    ),
}


@pytest.mark.parametrize("kind", MEANWHILE)
def test_changed_by_another_before_a_repair_that_never_was(small_database: SmallDatabase, kind: str) -> None:
    """The images stay in the journal, which cannot know; what the other program wrote is not touched."""
    before = small_database.dump()
    killed(small_database, kind, "commit")
    small_database.do(*MEANWHILE[kind])
    now = small_database.dump()
    recover(small_database.path)
    small_database.check_nothing_lost(before)
    try:
        undo(small_database.path, "all")
    except RepairRefused as error:
        assert "has changed since the repair" in str(error)  # noqa: PT017
    assert small_database.dump() == now


def test_a_change_that_another_program_changed_again(small_database: SmallDatabase) -> None:
    before = small_database.dump()
    killed(small_database, "change", "mark")
    small_database.do(CHANGED, DIAGRAM)
    recover(small_database.path)
    small_database.check_nothing_lost(before)
    with pytest.raises(RepairRefused, match=rf"1 row of persistencediagram has changed .*{DIAGRAM}"):
        undo(small_database.path, "all")


# --- what the journal has become


def repaired(small_database: SmallDatabase) -> Path:
    """A database with repairs of each kind; returns the journal."""
    with closing(Writer(small_database.path, "s", lambda: True)) as writer:
        writer.quarantine("orphan-run", Subject(), ORPHANS)
        values = {"diagram_data": b"recomputed"}
        writer.update("diagram-valid", Subject(), "persistencediagram", DIAGRAM, values, lambda _: True)
    return small_database.path.with_name(f"{small_database.path.stem}.doctor.sqlite")


@pytest.mark.parametrize(
    ("table", "column", "value"),
    [
        ("run", "seed", "4"),
        ("run", "seed", "'3'"),
        ("run", "initial_prompt", "'b prompt'"),
        ("embedding", "vector", "zeroblob(3072)"),
        ("invocation", "output_image_data", "NULL"),
    ],
)
def test_a_before_image_that_is_another_now(small_database: SmallDatabase, table: str, column: str, value: str) -> None:
    before = small_database.dump()
    journal = repaired(small_database)
    with closing(sqlite3.connect(journal)) as db, db:
        (images,) = db.execute("SELECT images FROM layouts WHERE table_name = ?", (table,)).fetchone()
        rows = f"FROM {images} WHERE {column} IS NOT NULL ORDER BY doctor_row DESC LIMIT 1"
        (row,) = db.execute(f"SELECT id {rows}").fetchone()
        db.execute(f"UPDATE {images} SET {column} = {value} WHERE id = ?", (row,))
    now = small_database.dump()
    with pytest.raises(
        RepairRefused, match=rf"damaged in 1 of the 20 rows .* \({table} {row}\).*--doctor-undo 1:intact"
    ):
        undo(small_database.path, 1)
    assert small_database.dump() == now
    notes: list[str] = []
    undo(small_database.path, "1:intact", note=notes.append)
    assert notes == [f"repair 1: 1 row not put back ({table} {row})"]
    undo(small_database.path, 2)
    after = small_database.dump()
    assert [t for t in before if after[t] != before[t]] == [table]
    assert len(after[table]) == len(before[table]) - 1
    assert set(after[table]) < set(before[table])


def test_a_repair_without_an_intact_row_keeps_no_other_from_being_undone(small_database: SmallDatabase) -> None:
    before = small_database.dump()
    with closing(sqlite3.connect(repaired(small_database))) as db, db:
        (images,) = db.execute("SELECT images FROM layouts WHERE table_name = 'persistencediagram'").fetchone()
        db.execute(f"UPDATE {images} SET diagram_data = x'00' WHERE id = ?", (DIAGRAM,))
    notes: list[str] = []
    done = undo(small_database.path, "all:intact", note=notes.append)
    assert [each.undoes for each in done] == [1]
    assert notes == [f"Of repair 2 nothing can be put back: 1 row (persistencediagram {DIAGRAM})."]
    after = small_database.dump()
    assert [table for table in before if after[table] != before[table]] == ["persistencediagram"]


RECORDS = {
    "a change's key": "UPDATE changes SET key = 'x' WHERE id = 3",
    "a change's rowid": "UPDATE changes SET row = row + 1000 WHERE id = 3",
    "a change's step": "UPDATE changes SET step = 2 WHERE id = 3",
    "a change's table": "UPDATE changes SET table_name = 'runs' WHERE id = 3",
    "a change's layout": "UPDATE changes SET layout = 1 WHERE id = 20",
    "a change's digest": "UPDATE changes SET before = zeroblob(32) WHERE id = 3",
    "a change that is gone": "DELETE FROM changes WHERE id = 3",
    "a step's repair": "UPDATE steps SET repair = 2 WHERE id = 1",
    "a step's state": "PRAGMA ignore_check_constraints = 1; UPDATE steps SET status = 'appliee' WHERE id = 1",
    "a repair's state": "PRAGMA ignore_check_constraints = 1; UPDATE repairs SET status = 'bpplied' WHERE id = 1",
    "a repair's rule": "UPDATE repairs SET rule = 'orphan-ru' WHERE id = 1",
    "a repair's count": "UPDATE repairs SET rows = 21 WHERE id = 1",
    "a layout": "UPDATE layouts SET columns = replace(columns, 'seed', 'sead')",
    "a layout that is no JSON": "UPDATE layouts SET columns = substr(columns, 2)",
}


@pytest.mark.parametrize("case", RECORDS)
def test_a_record_that_is_another_now(small_database: SmallDatabase, case: str) -> None:
    """Nothing is undone, and with `:intact` nothing wrong."""
    before = small_database.dump()
    with closing(sqlite3.connect(repaired(small_database))) as db:
        db.executescript(RECORDS[case])
    now = small_database.dump()
    for which in (1, "all"):
        with pytest.raises(RepairRefused, match=r"The journal is damaged in .*(repair [12]|step 1)"):
            undo(small_database.path, which)
    assert small_database.dump()["run"] == now["run"]
    try:
        undo(small_database.path, "all:intact")
    except RepairError as error:
        assert "\n" not in str(error)  # noqa: PT017
    after = small_database.dump()
    for table, rows in after.items():
        assert set(rows) <= set(before[table]) | set(now[table])


def as_version_1(journal: Path) -> None:
    """The journal as a doctor of before the digests wrote it."""
    with closing(sqlite3.connect(journal, isolation_level=None)) as db:
        columns = {"repairs": "seal", "steps": "seal", "layouts": "seal", "changes": "before"}
        for table, column in columns.items():
            db.execute(f"ALTER TABLE {table} DROP COLUMN {column}")
        db.execute("DROP TABLE witnesses")
        db.execute("UPDATE schema_version SET version = 1")
        made = dict(db.execute("SELECT name, sql FROM sqlite_master").fetchall())
        with closing(sqlite3.connect(":memory:")) as old:
            old.executescript(journal_schema.SCHEMA_1)
            wanted = old.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL").fetchall()
        assert {name: " ".join(made[name].split()) for name, _ in wanted} == {n: " ".join(s.split()) for n, s in wanted}


def test_a_journal_of_version_1(small_database: SmallDatabase) -> None:
    before = small_database.dump()
    journal = repaired(small_database)
    as_version_1(journal)
    assert [each.id for each in repairs(small_database.path)] == [2, 1]
    undo(small_database.path, 2)
    with closing(sqlite3.connect(journal)) as db:
        assert db.execute("SELECT count(*) FROM changes WHERE layout IS NOT NULL AND before IS NULL").fetchone() == (0,)
        assert db.execute("SELECT version FROM schema_version").fetchone() == (2,)
    undo(small_database.path, 1)
    assert small_database.dump() == before


def test_an_interrupted_repair_in_a_journal_of_version_1(small_database: SmallDatabase) -> None:
    before = small_database.dump()
    killed(small_database, "remove", "mark")
    as_version_1(small_database.path.with_name("trajectory_data.doctor.sqlite"))
    assert recover(small_database.path) == [1]
    undo(small_database.path, "all")
    assert small_database.dump() == before


# --- tables of any kind


def table(small_database: SmallDatabase, definition: str, *statements: str) -> None:
    with closing(small_database.connect()) as db:
        db.execute(definition)
        for statement in statements:
            db.execute(statement)


@pytest.mark.parametrize("name", ["doctor_step", "doctor_row", "DOCTOR_STEP", "doctor_step_", "rowid", "step"])
def test_a_column_named_like_the_journals_own(small_database: SmallDatabase, name: str) -> None:
    table(
        small_database,
        f"CREATE TABLE odd (id TEXT PRIMARY KEY, {name}, doctor_row_)",
        "INSERT INTO odd VALUES ('a', 1, 2)",
    )
    before = small_database.dump()
    with closing(Writer(small_database.path, "s", lambda: True)) as writer:
        writer.update("r", Subject(), "odd", "a", {name: 3}, lambda _: True)
        writer.quarantine("r", Subject(), Rows("odd", "SELECT id FROM odd"))
    assert small_database.values("SELECT count(*) FROM odd") == [0]
    undo(small_database.path, "all")
    assert small_database.dump() == before


@pytest.mark.parametrize("name", ['we"ird', "we'ird", "we\"ir'd", "with blank", "semi;colon"])
def test_an_index_of_any_name(small_database: SmallDatabase, name: str) -> None:
    escaped = name.replace('"', '""')
    table(
        small_database,
        "CREATE TABLE odd (id TEXT, a)",
        f'CREATE UNIQUE INDEX "{escaped}" ON odd (id)',
        "INSERT INTO odd VALUES ('a', 1), ('b', 2)",
    )
    before = small_database.dump()
    with closing(Writer(small_database.path, "s", lambda: True)) as writer:
        writer.quarantine("r", Subject(), Rows("odd", "SELECT id FROM odd WHERE a = 1"))
    undo(small_database.path, "all")
    assert small_database.dump() == before


@pytest.mark.parametrize(("collation", "other"), [("NOCASE", "AA"), ("RTRIM", "aa  ")])
def test_ids_that_only_a_collation_calls_equal(small_database: SmallDatabase, collation: str, other: str) -> None:
    """The one is taken and comes back beside the other; what names a row by its id alone is refused."""
    definition = f"CREATE TABLE odd (id TEXT COLLATE {collation}, a)"
    table(
        small_database,
        definition,
        "CREATE UNIQUE INDEX odd_id ON odd (id COLLATE BINARY)",
        "INSERT INTO odd VALUES ('aa', 1)",
    )
    small_database.do("INSERT INTO odd VALUES (?, 2)", other)
    rows = Rows("odd", "SELECT id FROM odd WHERE a = 1")
    with closing(Writer(small_database.path, "s", lambda: True)) as writer:
        with pytest.raises(RepairError, match="several rows with the id aa"):
            writer.update("r", Subject(), "odd", "aa", {"a": 3}, lambda _: True)
        before = small_database.dump()
        writer.quarantine("r", Subject(), rows)
    assert small_database.values("SELECT a FROM odd") == [2]
    undo(small_database.path, "all")
    assert small_database.dump() == before


LAST = 2**63 - 1


def test_the_last_rowid_of_all(small_database: SmallDatabase) -> None:
    small_database.do("UPDATE persistencediagram SET rowid = ? WHERE rowid = 4", LAST)
    before = small_database.dump()
    new: dict[str, int | float | str | bytes | None] = {
        "id": ADDED,
        "started_at": "t",
        "run_id": "r",
        "embedding_model": "NomicVision",
        "diagram_data": b"computed",
    }
    with closing(Writer(small_database.path, "s", lambda: True)) as writer:
        assert writer.insert("r", Subject(), "persistencediagram", new, lambda _: True) is not None
        writer.quarantine("r", Subject(), Rows("persistencediagram", "SELECT id FROM persistencediagram"))
        assert writer.insert("r", Subject(), "persistencediagram", new | {"id": "e" * 32}, lambda _: True) is not None
    undo(small_database.path, "all")
    assert small_database.dump() == before
    with closing(Writer(small_database.path, "s", lambda: True)) as writer:
        last = f"SELECT id FROM persistencediagram WHERE rowid = {LAST}"
        writer.quarantine("r", Subject(), Rows("persistencediagram", last))
        small_database.do(
            "INSERT INTO persistencediagram (rowid, id, started_at, run_id, embedding_model)"
            " VALUES (?, 'x', 't', 'r', 'm')",
            LAST,
        )
    undo(small_database.path, "all")
    assert {data for _, data in before["persistencediagram"]} < {
        data for _, data in small_database.dump()["persistencediagram"]
    }
