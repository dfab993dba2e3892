"""What a repair says when it does not happen: always one sentence, with the value and what to do."""

from __future__ import annotations

import sqlite3

from pytest_panic_doctor.errors import DoctorError


class RepairError(DoctorError):
    """A repair that did not happen; `str()` of it is one sentence for a person."""


class RepairRefused(RepairError):
    """Nothing was begun: the state of the file, of the journal or of another process forbids it."""


class RepairFailed(RepairError):
    """Something was begun and rolled back: database and journal agree."""


def primary_code(error: sqlite3.Error) -> int:
    """SQLite's primary result code of `error` (https://sqlite.org/rescode.html), 1 where it has none."""
    code: int = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
    return code & 0xFF


def is_busy(error: sqlite3.Error) -> bool:
    """Whether another connection stood in the way, so that trying again can succeed."""
    return primary_code(error) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def sentence(table: str, error: sqlite3.Error, patience: float) -> str:
    """One sentence for an SQLite error that ended a repair of `table`; `patience` in seconds."""
    code = primary_code(error)
    if is_busy(error):
        return (
            f"Table {table} could not be written: another program kept the database locked for {patience:.0f} s; "
            "let it finish, then run again."
        )
    if code == sqlite3.SQLITE_FULL:
        return f"Table {table} could not be written: the disk is full; make room, then run again."
    if code == sqlite3.SQLITE_IOERR:
        return f"Table {table} could not be written: the disk gave an I/O error ({error}); check it, then run again."
    if code == sqlite3.SQLITE_READONLY:
        return f"Table {table} could not be written: the file is read-only ({error}); make it writable, then run again."
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return f"Table {table} could not be written: the file is damaged ({error}); restore it from a backup."
    return f"Table {table} could not be written: SQLite says «{error}»; nothing of this step was kept."
