"""Interrupted repairs, settled by looking at the rows: the database has the last word, not the journal's status.

What a row is, is told by the digest of its content and never by its id or rowid alone: another program may have given
them to another row. A record goes only where the database has the row as it was before; in doubt it stays.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

from pytest_panic_doctor.repair.journal import seals
from pytest_panic_doctor.repair.journal.journal import Journal
from pytest_panic_doctor.repair.journal.seals import SEAL_BATCH
from pytest_panic_doctor.repair.journal.tables import Table, describe, tables


class State(Enum):
    """What a row is now, beside what a step meant to make of it."""

    BEFORE = "as before the step"
    AFTER = "as the step leaves it"
    OTHER = "neither"


@dataclass(frozen=True, slots=True)
class Change:
    """One row that a step changes; `present` is the rowid at which the database has it now, None where it has not.

    `before` None: the step adds it. `after` None: the step removes it.
    """

    id: int
    step: int
    table: str
    row: int
    layout: int | None
    before: bytes | None
    after: bytes | None
    present: int | None


def changes(journal: Journal, step: int, table: Table) -> Iterator[list[Change]]:
    """The changes of one step to one table, each with where its row is now, in lists of bounded length.

    A row is looked for by its id and not by its rowid: VACUUM may renumber rowids, and SQLite gives the rowid of a row
    that was removed to the next one that is added. Ids are compared to the byte, whatever collation the column has; the
    comparison without COLLATE is there for its index.
    """
    name, rowid, last = table.quoted, f"t.{table.rowid}", 0
    same = "t.id = c.key AND t.id = c.key COLLATE BINARY"
    while True:
        found = [
            Change(*row)
            for row in journal.connection.execute(
                f"SELECT c.id, c.step, c.table_name, c.row, c.layout, c.before, c.after, coalesce("
                f" (SELECT {rowid} FROM db.{name} t WHERE {rowid} = c.row AND t.id IS c.key COLLATE BINARY),"
                f" (SELECT {rowid} FROM db.{name} t WHERE {same}))"
                " FROM changes c WHERE c.step = ? AND c.table_name = ? AND c.id > ? ORDER BY c.id LIMIT ?",
                (step, table.name, last, SEAL_BATCH),
            )
        ]
        if not found:
            return
        yield found
        last = found[-1].id


def tables_of(journal: Journal, step: int) -> list[str]:
    """The tables that a step changes."""
    rows = journal.connection.execute("SELECT DISTINCT table_name FROM changes WHERE step = ? ORDER BY 1", (step,))
    return [row[0] for row in rows]


def states(journal: Journal, table: Table, found: list[Change]) -> list[State]:
    """What each row is now, told by its digest."""
    now = journal.digests_now(table, [change.present for change in found if change.present is not None])
    known = []
    for change in found:
        digest = None if change.present is None else now.get(change.present)
        known.append(
            State.AFTER if digest == change.after else State.BEFORE if digest == change.before else State.OTHER
        )
    return known


def recover_open_steps(journal: Journal) -> list[int]:
    """Settle every step that is neither applied nor abandoned, and return those that turned out to be applied.

    The caller holds the gate, so that none of them can still be on its way.
    """
    return [step for step in journal.open_steps() if _recover_step(journal, step)]


def _recover_step(journal: Journal, step: int) -> bool:
    """Whether the step took place: forget what the database has as it was, keep every other record."""
    journal.begin()
    try:
        whole = seals.step_seal(journal.connection, step) == seals.sealed(journal.connection, step)
        seen = dict.fromkeys(State, 0)
        known = tables(journal.connection, "db")
        for name in tables_of(journal, step):
            if name not in known:  # dropped since, with whatever the step left in it
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
    except BaseException:
        if journal.connection.in_transaction:
            journal.connection.execute("ROLLBACK")
        raise
    return applied


def try_rollback(connection: sqlite3.Connection) -> bool:
    """Roll back whatever is open on `connection`; False where not even that worked, so that it must be closed."""
    try:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
    except sqlite3.Error:
        return False
    return True
