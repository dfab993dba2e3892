"""Interrupted repairs, settled by looking at the rows: the database has the last word, not the journal's status."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass

from pytest_panic_doctor.repair.journal import Journal
from pytest_panic_doctor.repair.rows import Table, describe, quoted, tables

TOGETHER = 5_000
"""Changes that are in memory at a time."""


@dataclass(frozen=True, slots=True)
class Change:
    """One row that a step changes; `present` is the rowid at which the database has it now, None where it has not.

    `layout` None: the step adds it. `after` None: the step removes it.
    """

    id: int
    step: int
    table: str
    row: int
    layout: int | None
    after: bytes | None
    present: int | None


def changes(journal: Journal, step: int, table: str) -> Iterator[list[Change]]:
    """The changes of one step to one table, each with where its row is now, in lists of bounded length.

    A row is looked for by its id and not by its rowid: VACUUM may renumber rowids, and SQLite gives the rowid of a row
    that was removed to the next one that is added.
    """
    name, last = quoted(table), 0
    while True:
        found = [
            Change(*row)
            for row in journal.connection.execute(
                f"SELECT c.id, c.step, c.table_name, c.row, c.layout, c.after, coalesce("
                f" (SELECT t.rowid FROM db.{name} t WHERE t.rowid = c.row AND t.id IS c.key),"
                f" (SELECT t.rowid FROM db.{name} t WHERE t.id = c.key))"
                " FROM changes c WHERE c.step = ? AND c.table_name = ? AND c.id > ? ORDER BY c.id LIMIT ?",
                (step, table, last, TOGETHER),
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


def settle_open_steps(journal: Journal) -> list[int]:
    """Settle every step that is neither applied nor abandoned, and return those that turned out to be applied.

    The caller holds the gate, so that none of them can still be on its way.
    """
    return [step for step in journal.open_steps() if _settle(journal, step)]


def _settle(journal: Journal, step: int) -> bool:
    """Keep the records of the rows that the step did change, forget the others; whether any is left."""
    journal.begin()
    try:
        left = 0
        known = tables(journal.connection, "db")
        for name in tables_of(journal, step):
            if name not in known:  # dropped since, with whatever the step left in it
                left += 1
                continue
            table = describe(journal.connection, name, "db")
            for change, done in _verdicts(journal, step, table):
                if done:
                    left += 1
                else:
                    journal.forget(step, change.id)
        if left:
            journal.mark_applied(step)
        else:
            journal.mark_abandoned(step)
        journal.secure()
    except BaseException:
        if journal.connection.in_transaction:
            journal.connection.execute("ROLLBACK")
        raise
    return left > 0


def _verdicts(journal: Journal, step: int, table: Table) -> Iterator[tuple[Change, bool]]:
    for found in changes(journal, step, table.name):
        updated = [change for change in found if change.layout is not None and change.after is not None]
        present = journal.digests_now(table, [change.present for change in updated if change.present is not None])
        before: dict[tuple[int | None, int], bytes] = {}
        for number in {change.layout for change in updated if change.layout is not None}:
            rows = [change.row for change in updated if change.layout == number]
            images = journal.image_digests(step, journal.layout(number), rows)
            before.update(((number, row), digest) for row, digest in images)
        for change in found:
            if change.after is None:
                yield change, change.present is None
            elif change.layout is None:
                yield change, change.present is not None
            else:
                # Neither before nor after: another program changed it since. Keep the record, an undo will refuse it.
                now = present.get(change.present) if change.present is not None else None
                yield change, now == change.after or now != before[change.layout, change.row]


def rolled_back(connection: sqlite3.Connection) -> bool:
    """Roll back whatever is open on `connection`; False where not even that worked, so that it must be closed."""
    try:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
    except sqlite3.Error:
        return False
    return True
