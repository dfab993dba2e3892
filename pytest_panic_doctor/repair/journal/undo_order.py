"""Which repair stands on which: two that changed one row are undone newest first."""

from __future__ import annotations

import sqlite3

from pytest_panic_doctor.repair.journal.tables import as_json

LATER = (
    " FROM json_each(:changes) j JOIN changes c ON c.id = j.value"
    " JOIN changes o ON o.table_name = c.table_name AND o.row = c.row AND o.key IS c.key AND o.step > c.step"
    " JOIN steps s ON s.id = o.step AND s.status = 'applied' JOIN repairs r ON r.id = s.repair"
)


def blocking(connection: sqlite3.Connection, repair: int, changes: list[int]) -> int | None:
    """The newest repair after this one that left one of these rows as it is now; None where none did.

    The rows are as `repair` left them: a later repair that made something else of them is not in this file.
    """
    rows = connection.execute(
        f"SELECT DISTINCT r.id {LATER} WHERE r.status = 'applied' AND o.after IS c.after", {"changes": as_json(changes)}
    )
    return _newest(connection, repair, [row[0] for row in rows])


def newest_on(connection: sqlite3.Connection, repair: int, changes: list[int]) -> int | None:
    """The newest repair after this one that changed one of these rows and is in force; None where none is."""
    rows = connection.execute(f"SELECT DISTINCT r.id {LATER} WHERE r.status = 'applied'", {"changes": as_json(changes)})
    return _newest(connection, repair, [row[0] for row in rows])


def _newest(connection: sqlite3.Connection, repair: int, found: list[int]) -> int | None:
    """An undo and what it undid come to nothing together; the undo of an undo is the repair again."""
    own = _root(connection, repair)[0]
    roots = {_root(connection, each) for each in found}
    return max((number for number, status in roots if status == "applied" and number != own), default=None)


def _root(connection: sqlite3.Connection, repair: int) -> tuple[int, str]:
    """The repair at the beginning of a chain of undos, and its status."""
    while True:
        undoes, status = connection.execute("SELECT undoes, status FROM repairs WHERE id = ?", (repair,)).fetchone()
        if undoes is None:
            return repair, status
        repair = undoes
