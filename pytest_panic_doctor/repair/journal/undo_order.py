"""Decides which repair must be undone first: two repairs of one row are undone newest first."""

from __future__ import annotations

import sqlite3

from pytest_panic_doctor.repair.journal.tables import as_json

LATER = (
    "SELECT DISTINCT r.id FROM json_each(:changes) j JOIN changes c ON c.id = j.value"
    " JOIN changes o ON o.table_name = c.table_name AND o.row = c.row AND o.key IS c.key AND o.step > c.step"
    " JOIN steps s ON s.id = o.step AND s.status = 'applied' JOIN repairs r ON r.id = s.repair"
    " WHERE r.status = 'applied' AND (:any OR o.after IS c.after)"
)
"""Selects the applied repairs with later changes of the same rows: with any, or those that left a row as it is now."""


def blocking(connection: sqlite3.Connection, repair: int, changes: list[int]) -> int | None:
    """Return the newest later repair that left one of these rows as it is now, None if there is none.

    Args:
        connection: The journal.
        repair: The repair to undo.
        changes: Its changes whose rows are as it left them. A later repair that changed them again is not in this file.
    """
    return _newest(connection, repair, changes, any_change=False)


def newest_on(connection: sqlite3.Connection, repair: int, changes: list[int]) -> int | None:
    """Return the newest applied repair after this one that changed one of these rows, None if there is none."""
    return _newest(connection, repair, changes, any_change=True)


def _newest(connection: sqlite3.Connection, repair: int, changes: list[int], *, any_change: bool) -> int | None:
    """Return the newest of these repairs; an undo cancels its repair, and the undo of an undo restores it.

    A repair that is older than this one never stands in its way: this one was made after it, also if both were undone
    and the older one was redone first.
    """
    found = [row[0] for row in connection.execute(LATER, {"changes": as_json(changes), "any": any_change})]
    own = _root(connection, repair)[0]
    roots = {_root(connection, each) for each in found}
    return max((number for number, status in roots if status == "applied" and number > own), default=None)


def _root(connection: sqlite3.Connection, repair: int) -> tuple[int, str]:
    """Return the first repair of a chain of undos, and its status."""
    while True:
        undoes, status = connection.execute("SELECT undoes, status FROM repairs WHERE id = ?", (repair,)).fetchone()
        if undoes is None:
            return repair, status
        repair = undoes
