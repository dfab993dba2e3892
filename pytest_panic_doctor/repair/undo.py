"""Taking repairs back: one transaction a repair, which is itself a repair and can be undone."""

from __future__ import annotations

import sqlite3
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pytest_panic_doctor.repair import journal as journals
from pytest_panic_doctor.repair.errors import RepairError, RepairRefused
from pytest_panic_doctor.repair.gate import DoctorLock
from pytest_panic_doctor.repair.journal import Intent, Journal, Layout, Repair
from pytest_panic_doctor.repair.preflight import settle
from pytest_panic_doctor.repair.rows import MAX_ROWID, Table, as_json, quoted, table_digests, writable
from pytest_panic_doctor.repair.settle import TOGETHER, Change, changes, tables_of
from pytest_panic_doctor.repair.transaction import PATIENCE, Step, Transactor

SHOWN = 20
"""Row ids that a refusal names at most."""


@dataclass(frozen=True, slots=True)
class Part:
    """Some of what one step of the repair did to one table; only rowids, so that a million rows are a few megabytes.

    `gone` are the rows that it removed. `left` are those that it changed or, where `layout` is None, added, and
    `present` is where each of them is now.
    """

    step: int
    table: Table
    layout: Layout | None
    gone: array[int]
    left: array[int]
    present: array[int]


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
    found = journals.read(database, "id = ?", (int(which),)) if int(which) <= MAX_ROWID else []
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
    journal, parts = step.journal, []
    for table, layout, found in _found(journal, step.database, repair):
        _check_columns(table, layout)
        _check_rows(journal, table, layout, found)
        parts.append(_part(table, layout, found))
    number = step.begin(Intent("undo", repair.rule, repair.subject, "undo", repair.id))
    moved = [_record(step, part) for part in parts]
    step.secure()
    step.database.execute("ATTACH ? AS journal", (f"{journals.path_of(journal.database).as_uri()}?mode=ro",))
    for part, rows in zip(parts, moved, strict=True):
        _apply(step, part, rows)
    for table in {part.table.name: part.table for part in parts}.values():
        _verify(step, table)
    return number


def _found(
    journal: Journal, database: sqlite3.Connection, repair: Repair
) -> Iterator[tuple[Table, Layout | None, list[Change]]]:
    """What the repair did, its last step first."""
    steps = journal.connection.execute(
        "SELECT id FROM steps WHERE repair = ? AND status = 'applied' ORDER BY id DESC", (repair.id,)
    ).fetchall()
    for (step,) in steps:
        for name in tables_of(journal, step):
            table = writable(database, name)
            for found in changes(journal, step, name):
                for number in sorted({change.layout or 0 for change in found}):
                    some = [change for change in found if (change.layout or 0) == number]
                    yield table, journal.layout(number) if number else None, some


def _part(table: Table, layout: Layout | None, found: list[Change]) -> Part:
    left = [change for change in found if change.after is not None]
    return Part(
        found[0].step,
        table,
        layout,
        array("q", (change.row for change in found if change.after is None)),
        array("q", (change.row for change in left)),
        array("q", (change.present for change in left if change.present is not None)),
    )


def _check_columns(table: Table, layout: Layout | None) -> None:
    if layout is not None and layout.columns != table.columns:
        raise RepairRefused(
            f"Table {table.name} has other columns than when it was repaired: "
            "bring its schema back, then undo, then migrate again."
        )


def _check_rows(journal: Journal, table: Table, layout: Layout | None, found: list[Change]) -> None:
    """Raise RepairRefused unless every row is as the repair left it, and what it removed has its place still."""
    left = [change for change in found if change.after is not None]
    gone = [change for change in found if change.after is None]
    now = journal.digests_now(table, [change.present for change in left if change.present is not None])
    changed = [change for change in left if change.present is None or now[change.present] != change.after]
    changed += [change for change in gone if change.present is not None]
    if changed:
        have, otherwise = (
            ("has", "put it back as it was") if len(changed) == 1 else ("have", "put them back as they were")
        )
        ids = [change.id for change in changed]
        raise _refusal(journal, table, ids, f"{have} changed since the repair", otherwise)
    if gone and layout is not None:
        for columns in _unique(journal.connection, table):
            taken = _taken(journal, table, layout, gone, columns)
            if taken:
                reason = f"cannot come back, for other rows have the same {' and '.join(columns)} now"
                raise _refusal(journal, table, taken, reason, "take those away")


def _unique(connection: sqlite3.Connection, table: Table) -> list[list[str]]:
    """The columns of each UNIQUE constraint."""
    found = []
    for _, index, unique, _, partial_ in connection.execute(f"PRAGMA db.index_list({table.quoted})").fetchall():
        columns = [row[2] for row in connection.execute(f"PRAGMA db.index_info({quoted(index)})")]
        if unique and not partial_ and None not in columns:
            found.append([str(column) for column in columns])
    return found


def _taken(journal: Journal, table: Table, layout: Layout, gone: list[Change], columns: list[str]) -> list[int]:
    """The changes whose rows would break that UNIQUE constraint."""
    same = " AND ".join(f"t.{quoted(column)} = b.{quoted(column)}" for column in columns)
    rows = journal.connection.execute(
        f"SELECT c.id FROM json_each(?) j JOIN changes c ON c.id = j.value"
        f" JOIN {quoted(layout.images)} b ON b.doctor_step = c.step AND b.doctor_row = c.row"
        f" WHERE EXISTS (SELECT 1 FROM db.{table.quoted} t WHERE {same})",
        (as_json(change.id for change in gone),),
    )
    return [row[0] for row in rows]


def _refusal(journal: Journal, table: Table, found: list[int], reason: str, otherwise: str) -> RepairRefused:
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
    what = "1 row" if len(found) == 1 else f"{len(found):,} rows"
    remedy = f"undo repair {later} first" if later is not None else f"{otherwise} first; nothing was undone"
    more = f" and {len(found) - SHOWN:,} more" if len(found) > SHOWN else ""
    return RepairRefused(f"{what} of {table.name} {reason} ({ids}{more}): {remedy}.")


def _record(step: Step, part: Part) -> dict[int, int]:
    """Record what the undo does to a part; returns the new rowids of rows whose own are taken by now."""
    assert step.number is not None
    journal, table = step.journal, part.table
    if part.present:
        step.keep(table, list(part.present))
    if part.layout is None:
        return {}
    hashes = dict(journal.image_digests(part.step, part.layout, [*part.gone, *part.left]))
    journal.changed(
        step.number, table.name, ((now, hashes[row]) for row, now in zip(part.left, part.present, strict=True))
    )
    moved = _moved(journal, table, part.gone)
    journal.connection.executemany(
        "INSERT INTO changes (step, table_name, row, key, after, bytes)"
        " SELECT ?, table_name, ?, key, ?, bytes FROM changes WHERE step = ? AND table_name = ? AND row = ?",
        ((step.number, moved.get(row, row), hashes[row], part.step, table.name, row) for row in part.gone),
    )
    return moved


def _moved(journal: Journal, table: Table, rows: Iterable[int]) -> dict[int, int]:
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
    database, table = step.database, part.table
    if part.layout is None:
        step.remove(table, list(part.present))
        return
    images = quoted(part.layout.images)
    for row, now in zip(part.left, part.present, strict=True):
        database.execute(
            f"UPDATE OR ABORT main.{table.quoted} SET ({table.column_list}) = (SELECT {table.column_list}"
            f" FROM journal.{images} WHERE doctor_step = ? AND doctor_row = ?) WHERE {table.rowid} = ?",
            (part.step, row, now),
        )
    gone = [row for row in part.gone if row not in moved]
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
    last = 0
    while True:
        recorded = step.journal.connection.execute(
            "SELECT id, row, after FROM changes WHERE step = ? AND table_name = ? AND after IS NOT NULL AND id > ?"
            " ORDER BY id LIMIT ?",
            (step.number, table.name, last, TOGETHER),
        ).fetchall()
        if not recorded:
            return
        hashes = {row: after for _, row, after in recorded}
        if table_digests(step.database, table, hashes) != hashes:
            raise sqlite3.IntegrityError(f"rows of {table.name} did not come back as they were")
        last = recorded[-1][0]
