"""Errors of a repair that did not happen; the text is one sentence, with the value and what to do."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

from pytest_panic_doctor.errors import DoctorError


class RepairError(DoctorError):
    """A repair that did not happen.

    Attributes:
        blocked_by: The rules that must be healthy first.
    """

    def __init__(self, sentence: str, blocked_by: Iterable[str] = ()) -> None:
        """Keep the message, and the rules that it names as the reason."""
        super().__init__(sentence)
        self.blocked_by = tuple(blocked_by)


class RepairRefused(RepairError):
    """A repair that was not begun, because the state of the file, the journal or another process does not allow it."""


class RepairFailed(RepairError):
    """A repair that was begun and rolled back: database and journal agree."""


def primary_code(error: sqlite3.Error) -> int:
    """Return SQLite's primary result code (https://sqlite.org/rescode.html), 1 if the error has no code."""
    code: int = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
    return code & 0xFF


def is_busy(error: sqlite3.Error) -> bool:
    """Return whether another connection holds a lock, so that another attempt can succeed."""
    return primary_code(error) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def sentence(table: str, error: sqlite3.Error, patience: float) -> str:
    """Describe an SQLite error that ended a repair.

    Args:
        table: The table that was to be written.
        error: The error.
        patience: Seconds for which the lock was waited for.
    """
    code = primary_code(error)
    if is_busy(error):
        return (
            f"Table {table} could not be written: another program kept the database locked for {patience:.0f} s; "
            "let it finish, then run again."
        )
    what = {
        sqlite3.SQLITE_FULL: "the disk is full; make room, then run again",
        sqlite3.SQLITE_IOERR: f"the disk gave an I/O error ({error}); check it, then run again",
        sqlite3.SQLITE_READONLY: f"the file is read-only ({error}); make it writable, then run again",
        sqlite3.SQLITE_CORRUPT: f"the file is damaged ({error}); restore it from a backup",
        sqlite3.SQLITE_NOTADB: f"the file is damaged ({error}); restore it from a backup",
    }.get(code, f"SQLite says «{error}»; nothing of this step was kept")
    return f"Table {table} could not be written: {what}."
