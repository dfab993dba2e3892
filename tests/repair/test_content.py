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
from pytest_panic_doctor.repair import RepairError, RepairRefused, Writer, repairs, settle, undo
from pytest_panic_doctor.repair.journal import seals

if TYPE_CHECKING:
    from small_database import Patient

REPOSITORY = Path(__file__).parents[2]
ORPHAN = f"{2:04x}{3:028x}"
DIAGRAM = f"{5:04x}{0:028x}"
ADDED = "f" * 32
ORPHANS = Rows("run", "SELECT :id AS id", {"id": ORPHAN})


def killed(patient: Patient, kind: str, point: str) -> None:
    """A repair that is begun and dies of SIGKILL before the database's COMMIT, or before the mark."""
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("killed_process.py")), str(patient.path), kind, point],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr


RUN = (
    "INSERT INTO run (rowid, id, network, seed, max_length, initial_prompt, experiment_id) VALUES (?, ?, ?, 3, 6, ?, ?)"
)


def test_another_row_with_the_id_of_a_removed_one(patient: Patient) -> None:
    before = patient.dump()
    killed(patient, "remove", "mark")
    patient.do(RUN, 4, ORPHAN, "[]", "not the row that was removed", "x")
    assert len(settle(patient.path)) == 1
    patient.check_nothing_lost(before)
    now = patient.dump()
    with pytest.raises(RepairRefused, match=rf"1 row of run has changed since the repair \({ORPHAN}\): put it back"):
        undo(patient.path, "all")
    assert patient.dump() == now
    patient.do("DELETE FROM run WHERE id = ?", ORPHAN)
    undo(patient.path, "all")
    assert patient.dump() == before


def test_another_row_with_the_rowid_of_a_removed_one(patient: Patient) -> None:
    before = patient.dump()
    killed(patient, "remove", "mark")
    patient.do(RUN, 4, "another", "[]", "a prompt", "x")
    settle(patient.path)
    patient.check_nothing_lost(before)
    undo(patient.path, "all")
    assert {data for _, data in before["run"]} < {data for _, data in patient.dump()["run"]}


def test_the_same_row_again(patient: Patient) -> None:
    """Put back by another program, to the byte: the database has it, and nothing else is lost."""
    before = patient.dump()
    killed(patient, "remove", "mark")
    patient.do(RUN, 40, ORPHAN, '["a"]', "a prompt", f"{1:04x}{99:028x}")
    settle(patient.path)
    patient.check_nothing_lost(before)
    undo(patient.path, "all")
    assert {t: {data for _, data in rows} for t, rows in patient.dump().items()} == {
        t: {data for _, data in rows} for t, rows in before.items()
    }


@pytest.mark.parametrize("kind", ["remove", "change", "add", "batch"])
@pytest.mark.parametrize("point", ["commit", "mark"])
def test_killed_between_two_commits(patient: Patient, kind: str, point: str) -> None:
    before = patient.dump()
    killed(patient, kind, point)
    patient.check_nothing_lost(before)
    assert len(settle(patient.path)) == (point == "mark") * (4 if kind == "batch" else 1)
    patient.check_nothing_lost(before)
    assert (patient.dump() == before) is (point == "commit")
    undo(patient.path, "all")
    assert patient.dump() == before


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
def test_changed_by_another_before_a_repair_that_never_was(patient: Patient, kind: str) -> None:
    """The images stay in the journal, which cannot know; what the other program wrote is not touched."""
    before = patient.dump()
    killed(patient, kind, "commit")
    patient.do(*MEANWHILE[kind])
    now = patient.dump()
    settle(patient.path)
    patient.check_nothing_lost(before)
    try:
        undo(patient.path, "all")
    except RepairRefused as error:
        assert "has changed since the repair" in str(error)  # noqa: PT017
    assert patient.dump() == now


def test_a_change_that_another_program_changed_again(patient: Patient) -> None:
    before = patient.dump()
    killed(patient, "change", "mark")
    patient.do(CHANGED, DIAGRAM)
    settle(patient.path)
    patient.check_nothing_lost(before)
    with pytest.raises(RepairRefused, match=rf"1 row of persistencediagram has changed .*{DIAGRAM}"):
        undo(patient.path, "all")


# --- what the journal has become


def repaired(patient: Patient) -> Path:
    """A database with repairs of each kind; returns the journal."""
    with closing(Writer(patient.path, "s", lambda: True)) as writer:
        writer.quarantine("orphan-run", Subject(), ORPHANS)
        values = {"diagram_data": b"recomputed"}
        writer.update("diagram-valid", Subject(), "persistencediagram", DIAGRAM, values, lambda _: True)
    return patient.path.with_name(f"{patient.path.stem}.doctor.sqlite")


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
def test_a_before_image_that_is_another_now(patient: Patient, table: str, column: str, value: str) -> None:
    before = patient.dump()
    journal = repaired(patient)
    with closing(sqlite3.connect(journal)) as db, db:
        (images,) = db.execute("SELECT images FROM layouts WHERE table_name = ?", (table,)).fetchone()
        rows = f"FROM {images} WHERE {column} IS NOT NULL ORDER BY doctor_row DESC LIMIT 1"
        (row,) = db.execute(f"SELECT id {rows}").fetchone()
        db.execute(f"UPDATE {images} SET {column} = {value} WHERE id = ?", (row,))
    now = patient.dump()
    with pytest.raises(
        RepairRefused, match=rf"damaged in 1 of the 20 rows .* \({table} {row}\).*--doctor-undo 1:intact"
    ):
        undo(patient.path, 1)
    assert patient.dump() == now
    notes: list[str] = []
    undo(patient.path, "1:intact", note=notes.append)
    assert notes == [f"repair 1: 1 row not put back ({table} {row})"]
    undo(patient.path, 2)
    after = patient.dump()
    assert [t for t in before if after[t] != before[t]] == [table]
    assert len(after[table]) == len(before[table]) - 1
    assert set(after[table]) < set(before[table])


def test_a_repair_without_an_intact_row_keeps_no_other_from_being_undone(patient: Patient) -> None:
    before = patient.dump()
    with closing(sqlite3.connect(repaired(patient))) as db, db:
        (images,) = db.execute("SELECT images FROM layouts WHERE table_name = 'persistencediagram'").fetchone()
        db.execute(f"UPDATE {images} SET diagram_data = x'00' WHERE id = ?", (DIAGRAM,))
    notes: list[str] = []
    done = undo(patient.path, "all:intact", note=notes.append)
    assert [each.undoes for each in done] == [1]
    assert notes == [f"Of repair 2 nothing can be put back: 1 row (persistencediagram {DIAGRAM})."]
    after = patient.dump()
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
def test_a_record_that_is_another_now(patient: Patient, case: str) -> None:
    """Nothing is undone, and with `:intact` nothing wrong."""
    before = patient.dump()
    with closing(sqlite3.connect(repaired(patient))) as db:
        db.executescript(RECORDS[case])
    now = patient.dump()
    for which in (1, "all"):
        with pytest.raises(RepairRefused, match=r"The journal is damaged in .*(repair [12]|step 1)"):
            undo(patient.path, which)
    assert patient.dump()["run"] == now["run"]
    try:
        undo(patient.path, "all:intact")
    except RepairError as error:
        assert "\n" not in str(error)  # noqa: PT017
    after = patient.dump()
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
            old.executescript(seals.SCHEMA_1)
            wanted = old.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL").fetchall()
        assert {name: " ".join(made[name].split()) for name, _ in wanted} == {n: " ".join(s.split()) for n, s in wanted}


def test_a_journal_of_version_1(patient: Patient) -> None:
    before = patient.dump()
    journal = repaired(patient)
    as_version_1(journal)
    assert [each.id for each in repairs(patient.path)] == [2, 1]
    undo(patient.path, 2)
    with closing(sqlite3.connect(journal)) as db:
        assert db.execute("SELECT count(*) FROM changes WHERE layout IS NOT NULL AND before IS NULL").fetchone() == (0,)
        assert db.execute("SELECT version FROM schema_version").fetchone() == (2,)
    undo(patient.path, 1)
    assert patient.dump() == before


def test_an_interrupted_repair_in_a_journal_of_version_1(patient: Patient) -> None:
    before = patient.dump()
    killed(patient, "remove", "mark")
    as_version_1(patient.path.with_name("trajectory_data.doctor.sqlite"))
    assert settle(patient.path) == [1]
    undo(patient.path, "all")
    assert patient.dump() == before


# --- tables of any kind


def table(patient: Patient, definition: str, *statements: str) -> None:
    with closing(patient.connect()) as db:
        db.execute(definition)
        for statement in statements:
            db.execute(statement)


@pytest.mark.parametrize("name", ["doctor_step", "doctor_row", "DOCTOR_STEP", "doctor_step_", "rowid", "step"])
def test_a_column_named_like_the_journals_own(patient: Patient, name: str) -> None:
    table(patient, f"CREATE TABLE odd (id TEXT PRIMARY KEY, {name}, doctor_row_)", "INSERT INTO odd VALUES ('a', 1, 2)")
    before = patient.dump()
    with closing(Writer(patient.path, "s", lambda: True)) as writer:
        writer.update("r", Subject(), "odd", "a", {name: 3}, lambda _: True)
        writer.quarantine("r", Subject(), Rows("odd", "SELECT id FROM odd"))
    assert patient.values("SELECT count(*) FROM odd") == [0]
    undo(patient.path, "all")
    assert patient.dump() == before


@pytest.mark.parametrize("name", ['we"ird', "we'ird", "we\"ir'd", "with blank", "semi;colon"])
def test_an_index_of_any_name(patient: Patient, name: str) -> None:
    escaped = name.replace('"', '""')
    table(
        patient,
        "CREATE TABLE odd (id TEXT, a)",
        f'CREATE UNIQUE INDEX "{escaped}" ON odd (id)',
        "INSERT INTO odd VALUES ('a', 1), ('b', 2)",
    )
    before = patient.dump()
    with closing(Writer(patient.path, "s", lambda: True)) as writer:
        writer.quarantine("r", Subject(), Rows("odd", "SELECT id FROM odd WHERE a = 1"))
    undo(patient.path, "all")
    assert patient.dump() == before


@pytest.mark.parametrize(("collation", "other"), [("NOCASE", "AA"), ("RTRIM", "aa  ")])
def test_ids_that_only_a_collation_calls_equal(patient: Patient, collation: str, other: str) -> None:
    """The one is taken and comes back beside the other; what names a row by its id alone is refused."""
    definition = f"CREATE TABLE odd (id TEXT COLLATE {collation}, a)"
    table(
        patient, definition, "CREATE UNIQUE INDEX odd_id ON odd (id COLLATE BINARY)", "INSERT INTO odd VALUES ('aa', 1)"
    )
    patient.do("INSERT INTO odd VALUES (?, 2)", other)
    rows = Rows("odd", "SELECT id FROM odd WHERE a = 1")
    with closing(Writer(patient.path, "s", lambda: True)) as writer:
        with pytest.raises(RepairError, match="several rows with the id aa"):
            writer.update("r", Subject(), "odd", "aa", {"a": 3}, lambda _: True)
        before = patient.dump()
        writer.quarantine("r", Subject(), rows)
    assert patient.values("SELECT a FROM odd") == [2]
    undo(patient.path, "all")
    assert patient.dump() == before


LAST = 2**63 - 1


def test_the_last_rowid_of_all(patient: Patient) -> None:
    patient.do("UPDATE persistencediagram SET rowid = ? WHERE rowid = 4", LAST)
    before = patient.dump()
    new: dict[str, int | float | str | bytes | None] = {
        "id": ADDED,
        "started_at": "t",
        "run_id": "r",
        "embedding_model": "NomicVision",
        "diagram_data": b"computed",
    }
    with closing(Writer(patient.path, "s", lambda: True)) as writer:
        assert writer.insert("r", Subject(), "persistencediagram", new, lambda _: True) is not None
        writer.quarantine("r", Subject(), Rows("persistencediagram", "SELECT id FROM persistencediagram"))
        assert writer.insert("r", Subject(), "persistencediagram", new | {"id": "e" * 32}, lambda _: True) is not None
    undo(patient.path, "all")
    assert patient.dump() == before
    with closing(Writer(patient.path, "s", lambda: True)) as writer:
        last = f"SELECT id FROM persistencediagram WHERE rowid = {LAST}"
        writer.quarantine("r", Subject(), Rows("persistencediagram", last))
        patient.do(
            "INSERT INTO persistencediagram (rowid, id, started_at, run_id, embedding_model)"
            " VALUES (?, 'x', 't', 'r', 'm')",
            LAST,
        )
    undo(patient.path, "all")
    assert {data for _, data in before["persistencediagram"]} < {
        data for _, data in patient.dump()["persistencediagram"]
    }
