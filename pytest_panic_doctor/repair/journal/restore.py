"""Restores the rows of one repair byte by byte, in one transaction.

Nothing is written before the record of the repair and the digest of every before-image are verified. Each row shows by
its digest whether the repair was made on this version of the file: a row as before the repair needs no undo, a row as
after it is restored, and for any other row the undo is refused by name.
"""

from __future__ import annotations

import sqlite3
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from pytest_panic_doctor.database.schema import quote
from pytest_panic_doctor.formatting import plural
from pytest_panic_doctor.repair.journal import journal_schema, verification
from pytest_panic_doctor.repair.journal.errors import RepairRefused
from pytest_panic_doctor.repair.journal.journal import Journal
from pytest_panic_doctor.repair.journal.journal_schema import Layout, change_batches
from pytest_panic_doctor.repair.journal.locks import resolve
from pytest_panic_doctor.repair.journal.recovery import RecordedChange, State, changes, states, tables_of
from pytest_panic_doctor.repair.journal.repair_record import Intent, Repair
from pytest_panic_doctor.repair.journal.tables import Table, as_json, check_name, table_digests, writable
from pytest_panic_doctor.repair.journal.transaction import Step, free_rows
from pytest_panic_doctor.repair.journal.undo_order import blocking, newest_on
from pytest_panic_doctor.repair.journal.verification import RECORDS_SHOWN, list_ids


class NothingToRestore(RepairRefused):
    """Nothing of a repair can be restored: the file has none of its changes, or the journal no intact row.

    An undo of all repairs reports this and continues with the next repair.
    """


@dataclass(frozen=True, slots=True)
class TableChanges:
    """The changes of one step to one table; only rowids, so that a million rows take a few megabytes.

    Attributes:
        step: The step.
        table: The table.
        layout: The layout of the before-images; None if the step added the rows.
        gone: The rowids of the rows that the step removed.
        left: The rowids that the changed or added rows had.
        present: The rowids that they have now, in the same order.
    """

    step: int
    table: Table
    layout: Layout | None
    gone: array[int]
    left: array[int]
    present: array[int]


@dataclass
class SortedRows:
    """The rows of a repair, by what an undo does with them.

    Attributes:
        parts: The rows to restore.
        before: The number of rows that are as before the repair.
        stay: The names of the rows that are left as they are.
    """

    parts: list[TableChanges] = field(default_factory=list)
    before: int = 0
    stay: list[str] = field(default_factory=list)


def detach(database: sqlite3.Connection) -> None:
    """Detach the journal: BEGIN IMMEDIATE would lock it too, and it is written before it is read here."""
    if any(row[1] == "journal" for row in database.execute("PRAGMA database_list").fetchall()):
        database.execute("DETACH journal")


def restore_rows(repair: Repair, session: str, intact: bool, stay: list[str], step: Step) -> int:
    """Restore the rows of a repair; the work of one transaction.

    Args:
        repair: The repair.
        session: The id under which the undo is recorded.
        intact: Whether to restore only the rows whose before-images are intact.
        stay: Receives the names of the rows that are not restored.
        step: The transaction.

    Returns:
        The id of the undo.

    Raises:
        RepairRefused: A before-image is damaged or a row has changed, and `intact` is false.
        NothingToRestore: No row can be restored.
    """
    journal = step.journal
    damage = verification.repair(journal, repair.id)
    if damage and not intact:
        raise RepairRefused(damage.sentence(repair.id))
    found = _sort(journal, step.database, repair, damage.changes, intact)
    stay[:] = [*damage.ids, *found.stay]
    if not found.parts:
        if stay:
            raise NothingToRestore(
                f"Of repair {repair.id} nothing can be put back: {plural(len(stay), 'row')} ({list_ids(stay)})."
            )
        raise NothingToRestore(
            f"Repair {repair.id} ({repair.rule}) is not in {resolve(journal.database).name} as it is now: "
            "its rows are as "
            "they were before it, as in an older copy; there was nothing to undo."
        )
    number = step.begin(Intent(session, repair.rule, repair.subject, "undo", repair.id))
    moved = [_record(step, part) for part in found.parts]
    step.commit_journal()
    step.database.execute("ATTACH ? AS journal", (f"{journal.path.as_uri()}?mode=ro",))
    for part, rows in zip(found.parts, moved, strict=True):
        _apply(step, part, rows)
    for table in {part.table.name: part.table for part in found.parts}.values():
        _verify(step, table)
    return number


def _sort(journal: Journal, database: sqlite3.Connection, repair: Repair, bad: set[int], intact: bool) -> SortedRows:
    """Sort all rows of a repair by their present state.

    Raises:
        RepairRefused: A row cannot be restored, and `intact` is false.
    """
    result = SortedRows()
    for table, layout, found in _found(journal, database, repair, bad):
        _check_columns(table, layout)
        known = list(zip(found, states(journal, table, found), strict=True))
        result.before += sum(state is State.BEFORE for _, state in known)
        other = [change for change, state in known if state is State.OTHER]
        if other and not intact:
            have, otherwise = (
                ("has", "put it back as it was") if len(other) == 1 else ("have", "put them back as they were")
            )
            ids = [change.id for change in other]
            raise _refusal(journal, repair, table, ids, f"{have} changed since the repair", otherwise)
        result.stay += [f"{table.name} {key}" for key in _keys(journal, [change.id for change in other])]
        after = [change for change, state in known if state is State.AFTER]
        _check_place(journal, repair, table, layout, after)
        if after:
            result.parts.append(_part(table, layout, after))
    return result


def _check_place(
    journal: Journal, repair: Repair, table: Table, layout: Layout | None, found: list[RecordedChange]
) -> None:
    """Check that no later repair depends on these rows, and that no other rows have taken their unique values.

    Raises:
        RepairRefused: A repair or a row is in the way.
    """
    if (later := blocking(journal.connection, repair.id, [change.id for change in found])) is not None:
        raise RepairRefused(
            f"Repair {later} depends on rows of {table.name} that repair {repair.id} changed: "
            f"undo repair {later} first."
        )
    gone = [change for change in found if change.after is None]
    if gone and layout is not None:
        for columns in _unique(journal.connection, table):
            taken = _unique_conflicts(journal, table, layout, gone, columns)
            if taken:
                names = " and ".join(name for name, _ in columns)
                reason = f"cannot come back, for other rows have the same {names} now"
                raise _refusal(journal, repair, table, taken, reason, "take those away")


def _found(
    journal: Journal, database: sqlite3.Connection, repair: Repair, bad: set[int]
) -> Iterator[tuple[Table, Layout | None, list[RecordedChange]]]:
    """Yield the changes of a repair, the last step first, without the changes that are `bad`."""
    steps = journal.connection.execute(
        "SELECT id FROM steps WHERE repair = ? AND status NOT IN ('intended', 'abandoned') ORDER BY id DESC",
        (repair.id,),
    ).fetchall()
    for (step,) in steps:
        for name in tables_of(journal, step):
            check_name(name)
            if bad and _all_bad(journal, step, name, bad):
                continue
            table = writable(database, name)
            for found in changes(journal, step, table):
                sound = [change for change in found if change.id not in bad]
                for number in sorted({change.layout or 0 for change in sound}):
                    some = [change for change in sound if (change.layout or 0) == number]
                    yield table, journal_schema.layout_of(journal.connection, number) if number else None, some


def _all_bad(journal: Journal, step: int, table: str, bad: set[int]) -> bool:
    rows = journal.connection.execute("SELECT id FROM changes WHERE step = ? AND table_name = ?", (step, table))
    return all(row[0] in bad for row in rows)


def _part(table: Table, layout: Layout | None, found: list[RecordedChange]) -> TableChanges:
    left = [change for change in found if change.after is not None]
    return TableChanges(
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
            "restore its schema, then undo, then migrate again."
        )


def _unique(connection: sqlite3.Connection, table: Table) -> list[list[tuple[str, str]]]:
    """Return (column, collation) of the columns of each UNIQUE constraint."""
    found = []
    for _, index, unique, _, partial_ in connection.execute(f"PRAGMA db.index_list({table.quoted})").fetchall():
        rows = connection.execute(f"PRAGMA db.index_xinfo({quote(index)})")
        columns = [(row[2], str(row[4])) for row in rows if row[5]]
        if unique and not partial_ and None not in [name for name, _ in columns]:
            found.append([(str(name), collation) for name, collation in columns])
    return found


def _unique_conflicts(
    journal: Journal, table: Table, layout: Layout, gone: list[RecordedChange], columns: list[tuple[str, str]]
) -> list[int]:
    """Return the changes whose rows would violate a UNIQUE constraint, under its own collations."""
    same = " AND ".join(f"t.{quote(name)} = b.{quote(name)} COLLATE {quote(how)}" for name, how in columns)
    rows = journal.connection.execute(
        f"SELECT c.id FROM json_each(?) j JOIN changes c ON c.id = j.value"
        f" JOIN {layout.source} b ON b.{layout.step} = c.step AND b.{layout.row} = c.row"
        f" WHERE EXISTS (SELECT 1 FROM db.{table.quoted} t WHERE {same})",
        (as_json(change.id for change in gone),),
    )
    return [row[0] for row in rows]


def _refusal(
    journal: Journal, repair: Repair, table: Table, found: list[int], reason: str, otherwise: str
) -> RepairRefused:
    later = newest_on(journal.connection, repair.id, found[:RECORDS_SHOWN])
    remedy = f"undo repair {later} first" if later is not None else f"{otherwise} first; nothing was undone"
    ids = list_ids(_keys(journal, found[:RECORDS_SHOWN]), len(found))
    return RepairRefused(f"{plural(len(found), 'row')} of {table.name} {reason} ({ids}): {remedy}.")


def _keys(journal: Journal, found: list[int]) -> list[str]:
    """Return the ids of the rows of some changes."""
    rows = journal.connection.execute(
        "SELECT key FROM changes WHERE id IN (SELECT value FROM json_each(?)) ORDER BY id", (as_json(found),)
    )
    return [str(row[0]) for row in rows]


def _record(step: Step, part: TableChanges) -> dict[int, int]:
    """Record what the undo does to a part.

    Returns:
        The new rowids of rows whose old rowid is taken, by the old one.
    """
    assert step.number is not None
    journal, table = step.journal, part.table
    if part.present:
        step.save_before_images(table, list(part.present))
    if part.layout is None:
        return {}
    hashes = dict(
        journal.connection.execute(
            "SELECT row, before FROM changes WHERE step = ? AND table_name = ?"
            " AND row IN (SELECT value FROM json_each(?))",
            (part.step, table.name, as_json([*part.gone, *part.left])),
        )
    )
    journal.changed(
        step.number, table.name, ((now, hashes[row]) for row, now in zip(part.left, part.present, strict=True))
    )
    moved = _new_rowids(journal, table, part.gone)
    journal.connection.executemany(
        "INSERT INTO changes (step, table_name, row, key, after, bytes)"
        " SELECT ?, table_name, ?, key, ?, bytes FROM changes WHERE step = ? AND table_name = ? AND row = ?",
        ((step.number, moved.get(row, row), hashes[row], part.step, table.name, row) for row in part.gone),
    )
    return moved


def _new_rowids(journal: Journal, table: Table, rows: Iterable[int]) -> dict[int, int]:
    taken = journal.connection.execute(
        f"SELECT {table.rowid} FROM db.{table.quoted}"
        f" WHERE {table.rowid} IN (SELECT value FROM json_each(?)) ORDER BY 1",
        (as_json(rows),),
    ).fetchall()
    if not taken:
        return {}
    free = free_rows(journal, table, len(taken))
    return {row: new for (row,), new in zip(taken, free, strict=True)}


def _apply(step: Step, part: TableChanges, moved: dict[int, int]) -> None:
    database, table = step.database, part.table
    if part.layout is None:
        step.remove(table, list(part.present))
        return
    layout, images = part.layout, part.layout.source
    for row, now in zip(part.left, part.present, strict=True):
        database.execute(
            f"UPDATE OR ABORT main.{table.quoted} SET ({table.column_list}) = (SELECT {table.column_list}"
            f" FROM journal.{images} WHERE {layout.step} = ? AND {layout.row} = ?) WHERE {table.rowid} = ?",
            (part.step, row, now),
        )
    gone = [row for row in part.gone if row not in moved]
    source = f"{table.column_list} FROM journal.{images} WHERE {layout.step} = :step AND {layout.row}"
    target = f"INSERT OR ABORT INTO main.{table.quoted} ({table.rowid}, {table.column_list})"
    database.execute(
        f"{target} SELECT {layout.row}, {source} IN (SELECT value FROM json_each(:rows)) ORDER BY {layout.row}",
        {"step": part.step, "rows": as_json(gone)},
    )
    database.executemany(
        f"{target} SELECT :new, {source} = :row",
        ({"step": part.step, "row": row, "new": new} for row, new in moved.items()),
    )


def _row_and_digest(_: int, row: int, after: bytes) -> tuple[int, bytes]:
    return row, after


def _verify(step: Step, table: Table) -> None:
    """Read the restored rows before the commit and compare them with their digests.

    Raises:
        sqlite3.IntegrityError: A row differs.
    """
    where, parameters = "step = ? AND table_name = ? AND after IS NOT NULL", (step.number, table.name)
    for recorded in change_batches(step.journal.connection, _row_and_digest, "row, after", where, parameters):
        hashes = dict(recorded)
        if table_digests(step.database, table, hashes) != hashes:
            raise sqlite3.IntegrityError(f"rows of {table.name} did not come back as they were")
