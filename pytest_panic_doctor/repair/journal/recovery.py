"""Recovers after a crash: each open step of the journal is found to be committed or not, and marked so.

The rows in the database decide, not the journal's status. A row is identified by the digest of its content, never by
its id or rowid alone, which another program may have given to another row. A record is deleted only if the database has
the row as it was before; in doubt it is kept.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

from pytest_panic_doctor.repair.journal import journal_schema
from pytest_panic_doctor.repair.journal.journal import Journal
from pytest_panic_doctor.repair.journal.journal_schema import change_batches
from pytest_panic_doctor.repair.journal.opening import transaction
from pytest_panic_doctor.repair.journal.tables import Table, describe, tables


class State(Enum):
    """The present state of a row that a step changes."""

    BEFORE = "as before the step"
    AFTER = "as the step leaves it"
    OTHER = "neither"


@dataclass(frozen=True, slots=True)
class RecordedChange:
    """One row that a step changes.

    Attributes:
        id: The number of the record.
        step: The step.
        table: The name of the table.
        row: The rowid that it had.
        layout: The layout of its before-image; None if the step adds the row.
        before: The digest before the step; None if the step adds the row.
        after: The digest after the step; None if the step removes the row.
        present: The rowid that it has now; None if the database does not have it.
    """

    id: int
    step: int
    table: str
    row: int
    layout: int | None
    before: bytes | None
    after: bytes | None
    present: int | None


def changes(journal: Journal, step: int, table: Table) -> Iterator[list[RecordedChange]]:
    """Yield the changes of one step to one table, in lists of at most `SEAL_BATCH`.

    The present row is found by its id, not by its rowid: VACUUM may renumber rowids, and SQLite reuses the rowid of a
    removed row. Ids are compared byte by byte under every collation of the column; the comparison without COLLATE makes
    SQLite use the index.
    """
    name, rowid = table.quoted, f"t.{table.rowid}"
    same = "t.id = c.key AND t.id = c.key COLLATE BINARY"
    columns = (
        "c.step, c.table_name, c.row, c.layout, c.before, c.after, coalesce("
        f" (SELECT {rowid} FROM db.{name} t WHERE {rowid} = c.row AND t.id IS c.key COLLATE BINARY),"
        f" (SELECT {rowid} FROM db.{name} t WHERE {same}))"
    )
    where = "c.step = ? AND c.table_name = ?"
    return change_batches(journal.connection, RecordedChange, columns, where, (step, table.name))


def tables_of(journal: Journal, step: int) -> list[str]:
    """Return the names of the tables that a step changes."""
    rows = journal.connection.execute("SELECT DISTINCT table_name FROM changes WHERE step = ? ORDER BY 1", (step,))
    return [row[0] for row in rows]


def states(journal: Journal, table: Table, found: list[RecordedChange]) -> list[State]:
    """Return the present state of each row, according to its digest."""
    now = journal.digests_now(table, [change.present for change in found if change.present is not None])
    known = []
    for change in found:
        digest = None if change.present is None else now.get(change.present)
        known.append(
            State.AFTER if digest == change.after else State.BEFORE if digest == change.before else State.OTHER
        )
    return known


def recover_open_steps(journal: Journal) -> list[int]:
    """Recover every step that is neither applied nor abandoned.

    The caller holds the write lock, so no open step can be in progress.

    Returns:
        The steps that turned out to be applied.
    """
    return [step for step in journal.open_steps() if _recover_step(journal, step)]


def _recover_step(journal: Journal, step: int) -> bool:
    """Return whether a step was applied; drop the records of rows that are unchanged, keep all others."""
    with transaction(journal.connection):
        whole = journal_schema.step_seal(journal.connection, step) == journal_schema.sealed(journal.connection, step)
        seen = dict.fromkeys(State, 0)
        known = tables(journal.connection, "db")
        for name in tables_of(journal, step):
            if name not in known:  # the table was dropped later
                seen[State.OTHER] += 1
                continue
            table = describe(journal.connection, name, "db")
            for found in changes(journal, step, table):
                for change, state in zip(found, states(journal, table, found), strict=True):
                    seen[state] += 1
                    if state is State.BEFORE and whole:
                        journal.drop_change(step, change.id)
        # The transaction was one: rows that are neither were changed since by others, and the rest tells what it did.
        # Of a damaged record nothing goes, and an undo will refuse it by name.
        applied = bool(not whole or seen[State.AFTER] or (seen[State.OTHER] and not seen[State.BEFORE]))
        if applied:
            journal.mark_applied(step)
        else:
            journal.mark_abandoned(step)
        journal.commit_step(*([step] if whole else []))
    return applied


def try_rollback(connection: sqlite3.Connection) -> bool:
    """Roll back an open transaction; return False if that failed, and the connection must be closed."""
    try:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
    except sqlite3.Error:
        return False
    return True
