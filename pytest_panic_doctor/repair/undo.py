"""Taking repairs back: one transaction a repair, which is itself a repair and can be undone."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pytest_panic_doctor.repair import journal as journals
from pytest_panic_doctor.repair.errors import RepairError, RepairRefused
from pytest_panic_doctor.repair.gate import DoctorLock
from pytest_panic_doctor.repair.journal import Intent, Journal, Layout, Repair
from pytest_panic_doctor.repair.preflight import settle
from pytest_panic_doctor.repair.rows import Table, as_json, quoted, table_digests, writable
from pytest_panic_doctor.repair.settle import Change, changes, tables_of
from pytest_panic_doctor.repair.transaction import PATIENCE, Step, Transactor

SHOWN = 20
"""Row ids that a refusal names at most."""


@dataclass(frozen=True, slots=True)
class Part:
    """What one step of the repair did to one table, and where it is undone."""

    step: int
    table: Table
    layout: Layout | None
    changes: list[Change]


def repairs(database: Path) -> list[Repair]:
    """All repairs that the journal knows, newest first; those that never took place are left out."""
    return journals.read(database, "status IN ('applied', 'undone')")


def undo(
    database: Path,
    which: int | str,
    *,
    patience: float = PATIENCE,
    connection: type[sqlite3.Connection] = sqlite3.Connection,
) -> list[Repair]:
    """Undo the repair with that id, or with `"all"` each that is not undone, newest first; returns the undos.

    Rows come back byte for byte and, unless it is taken by now, with their rowid. Takes the doctor lock itself. Raises
    RepairRefused, with the repair at hand not undone at all, where its rows have changed since, naming table and ids;
    RepairFailed as a `Writer` does. With "all", the undos before that one stand, and the sentence says so.
    """
    with DoctorLock(database):
        settle(database)
        transactor = Transactor(database, lambda: True, spill=True, patience=patience, connection=connection)
        done: list[Repair] = []
        try:
            for repair in _chosen(database, which):
                number = transactor.run(f"of repair {repair.id}", partial(_undo, repair), _detach)
                done += journals.read(database, "id = ?", (number,))
        except RepairError as error:
            if not done:
                raise
            ids = ", ".join(str(each.undoes) for each in done)
            raise type(error)(f"{error} Undone before that: {ids}.") from error
        finally:
            transactor.close()
        return done


def _chosen(database: Path, which: int | str) -> list[Repair]:
    if which == "all":
        return journals.read(database, "status = 'applied' AND undoes IS NULL")
    if not str(which).isdecimal():
        raise RepairRefused(f"--doctor-undo {which}: an id is a number, or «all»; without one, the repairs are listed.")
    found = journals.read(database, "id = ?", (int(which),))
    if not found:
        raise RepairRefused(f"There is no repair {which} in {journals.path_of(database)}: --doctor-undo lists them.")
    if found[0].status != "applied":
        state = "undone already" if found[0].status == "undone" else "never applied"
        raise RepairRefused(f"Repair {which} was {state}: --doctor-undo lists what can be undone.")
    return found


def _detach(database: sqlite3.Connection) -> None:
    """What is attached is locked by BEGIN IMMEDIATE too, and the journal must be written before it is read here."""
    if any(row[1] == "journal" for row in database.execute("PRAGMA database_list").fetchall()):
        database.execute("DETACH journal")


def _undo(repair: Repair, step: Step) -> int:
    journal = step.journal
    parts = list(_parts(journal, step.database, repair))
    for part in parts:
        _check_columns(part)
        _check_rows(journal, part)
    number = step.begin(Intent("undo", repair.rule, repair.subject, "undo", repair.id))
    moved = [_record(step, part) for part in parts]
    step.secure()
    step.database.execute("ATTACH ? AS journal", (f"{journals.path_of(journal.database).as_uri()}?mode=ro",))
    for part, rows in zip(parts, moved, strict=True):
        _apply(step, part, rows)
    for part in parts:
        _verify(step, part.table)
    return number


def _parts(journal: Journal, database: sqlite3.Connection, repair: Repair) -> Iterator[Part]:
    """What the repair did, last first."""
    steps = journal.connection.execute(
        "SELECT id FROM steps WHERE repair = ? AND status = 'applied' ORDER BY id DESC", (repair.id,)
    ).fetchall()
    for (step,) in steps:
        for name in tables_of(journal, step):
            table = writable(database, name)
            by_layout: dict[int | None, list[Change]] = {}
            for change in changes(journal, step, name):
                by_layout.setdefault(change.layout, []).append(change)
            for number, found in by_layout.items():
                yield Part(step, table, journal.layout(number) if number is not None else None, found)


def _check_columns(part: Part) -> None:
    if part.layout is not None and part.layout.columns != part.table.columns:
        raise RepairRefused(
            f"Table {part.table.name} has other columns than when it was repaired: "
            "bring its schema back, then undo, then migrate again."
        )


def _check_rows(journal: Journal, part: Part) -> None:
    """Raise RepairRefused unless every row is as the repair left it."""
    left = [change for change in part.changes if change.after is not None]
    now = journal.digests_now(part.table, [change.present for change in left if change.present is not None])
    changed = [change for change in left if change.present is None or now[change.present] != change.after]
    changed += [change for change in part.changes if change.after is None and change.present is not None]
    if changed:
        raise _refusal(journal, part, [change.id for change in changed], "have changed since")
    removed = [change for change in part.changes if change.after is None]
    if removed:
        assert part.layout is not None
        for columns in _unique(journal.connection, part.table):
            taken = _taken(journal, part, part.layout, columns)
            if taken:
                reason = f"cannot come back: other rows have their {', '.join(columns)} now,"
                raise _refusal(journal, part, taken, reason)


def _unique(connection: sqlite3.Connection, table: Table) -> list[list[str]]:
    """The columns of each UNIQUE constraint."""
    found = []
    for _, index, unique, _, partial_ in connection.execute(f"PRAGMA db.index_list({table.quoted})").fetchall():
        columns = [row[2] for row in connection.execute(f"PRAGMA db.index_info({quoted(index)})")]
        if unique and not partial_ and None not in columns:
            found.append([str(column) for column in columns])
    return found


def _taken(journal: Journal, part: Part, layout: Layout, columns: list[str]) -> list[int]:
    same = " AND ".join(f"t.{quoted(column)} = b.{quoted(column)}" for column in columns)
    rows = journal.connection.execute(
        f"SELECT c.id FROM changes c JOIN {quoted(layout.images)} b ON b.doctor_step = c.step AND b.doctor_row = c.row"
        f" WHERE c.step = ? AND c.table_name = ? AND c.layout = ?"
        f" AND EXISTS (SELECT 1 FROM db.{part.table.quoted} t WHERE {same})",
        (part.step, part.table.name, layout.id),
    )
    return [row[0] for row in rows]


def _refusal(journal: Journal, part: Part, found: list[int], reason: str) -> RepairRefused:
    keys = journal.connection.execute(
        "SELECT key FROM changes WHERE id IN (SELECT value FROM json_each(?)) ORDER BY id", (as_json(found[:SHOWN]),)
    )
    ids = ", ".join(str(row[0]) for row in keys)
    later = journal.connection.execute(
        "SELECT max(s.repair) FROM changes c JOIN changes o ON o.table_name = c.table_name AND o.key = c.key"
        " JOIN steps s ON s.id = o.step JOIN repairs r ON r.id = s.repair"
        " WHERE c.id IN (SELECT value FROM json_each(?)) AND s.id > c.step AND s.status = 'applied'"
        " AND r.status = 'applied'",
        (as_json(found[:SHOWN]),),
    ).fetchone()[0]
    remedy = (
        f"undo repair {later} first" if later is not None else "nothing was undone; put them back as they were first"
    )
    shown = f" (showing {SHOWN})" if len(found) > SHOWN else ""
    return RepairRefused(f"{len(found):,} rows of {part.table.name} {reason} {ids}{shown}: {remedy}.")


def _record(step: Step, part: Part) -> dict[int, int]:
    """Record what the undo does to a part; returns the new rowids of rows whose own are taken by now."""
    assert step.number is not None
    gone = [change for change in part.changes if change.after is None]
    here = [change.present for change in part.changes if change.after is not None and change.present is not None]
    if here:
        step.keep(part.table, here)
    if part.layout is None:
        return {}
    hashes = dict(step.journal.image_digests(part.step, part.layout))
    if here:
        step.journal.changed(
            step.number,
            part.table.name,
            ((change.present, hashes[change.row]) for change in part.changes if change.present is not None),
        )
    moved = _moved(step.journal, part, [change.row for change in gone])
    step.journal.connection.executemany(
        "INSERT INTO changes (step, table_name, row, key, after, bytes)"
        " SELECT ?1, table_name, ?2, key, ?3, bytes FROM changes WHERE id = ?4",
        ((step.number, moved.get(change.row, change.row), hashes[change.row], change.id) for change in gone),
    )
    return moved


def _moved(journal: Journal, part: Part, rows: list[int]) -> dict[int, int]:
    table = part.table
    taken = journal.connection.execute(
        f"SELECT {table.rowid} FROM db.{table.quoted}"
        f" WHERE {table.rowid} IN (SELECT value FROM json_each(?)) ORDER BY 1",
        (as_json(rows),),
    ).fetchall()
    if not taken:
        return {}
    highest = journal.connection.execute(f"SELECT max({table.rowid}) FROM db.{table.quoted}").fetchone()[0]
    start = max(int(highest), journal.highest_row(table.name)) + 1
    return {row: start + position for position, (row,) in enumerate(taken)}


def _apply(step: Step, part: Part, moved: dict[int, int]) -> None:
    added = [change.present for change in part.changes if change.layout is None and change.present is not None]
    if added:
        step.remove(part.table, added)
    if part.layout is None:
        return
    database, table, images = step.database, part.table, quoted(part.layout.images)
    for change in part.changes:
        if change.after is not None:
            database.execute(
                f"UPDATE OR ABORT main.{table.quoted} SET ({table.column_list}) = (SELECT {table.column_list}"
                f" FROM journal.{images} WHERE doctor_step = ? AND doctor_row = ?) WHERE {table.rowid} = ?",
                (part.step, change.row, change.present),
            )
    gone = [change.row for change in part.changes if change.after is None and change.row not in moved]
    source = f"{table.column_list} FROM journal.{images} WHERE doctor_step = :step AND doctor_row"
    target = f"INSERT OR ABORT INTO main.{table.quoted} ({table.rowid}, {table.column_list})"
    database.execute(
        f"{target} SELECT doctor_row, {source} IN (SELECT value FROM json_each(:rows)) ORDER BY doctor_row",
        {"step": part.step, "rows": as_json(gone)},
    )
    database.executemany(
        f"{target} SELECT :new, {source} = :row",
        ({"step": part.step, "row": row, "new": new} for row, new in moved.items()),
    )


def _verify(step: Step, table: Table) -> None:
    """Read the rows back before the commit: what is restored must be what was recorded, to the byte."""
    assert step.number is not None
    recorded = dict(
        step.journal.connection.execute(
            "SELECT row, after FROM changes WHERE step = ? AND table_name = ? AND after IS NOT NULL",
            (step.number, table.name),
        ).fetchall()
    )
    if table_digests(step.database, table, recorded) != recorded:
        raise sqlite3.IntegrityError(f"rows of {table.name} did not come back as they were")
