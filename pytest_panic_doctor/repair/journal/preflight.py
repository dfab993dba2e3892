"""Checks before a session's first repair that a database may be written, and checkpoints it after the last."""

from __future__ import annotations

import shutil
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from pytest_panic_doctor.database import integrity
from pytest_panic_doctor.database.connection import Unreadable
from pytest_panic_doctor.database.files import is_writable
from pytest_panic_doctor.database.interrupts import allow_interrupts, reraise_interrupts
from pytest_panic_doctor.repair.journal import identity, verification
from pytest_panic_doctor.repair.journal.errors import RepairFailed, RepairRefused, is_busy
from pytest_panic_doctor.repair.journal.journal import Journal
from pytest_panic_doctor.repair.journal.locks import ATTEMPT_TIMEOUT, LOCK_TIMEOUT, WriteLock, resolve
from pytest_panic_doctor.repair.journal.opening import connect
from pytest_panic_doctor.repair.journal.reading import check_version, exists
from pytest_panic_doctor.repair.journal.recovery import recover_open_steps
from pytest_panic_doctor.repair.journal.tables import as_json

MARGIN = 64 * 2**20
"""Bytes that stay free for SQLite's rollback journal or WAL and for other programs."""

ROLLED_BACK = "another program died while it wrote: SQLite rolled back what it had not committed"
"""The warning if opening the file for writing rolled back a write of another program."""

WAL_RESET = ((3, 7, 0), (3, 51, 2))
"""The first and the last version of SQLite with the WAL-reset race."""


def preflight(database: Path, needed_bytes: int) -> list[str]:
    """Check that a database may be written.

    A hot journal, left by a program that died while it wrote, is rolled back by SQLite. The file is not changed
    otherwise.

    Args:
        database: The path of the database.
        needed_bytes: What the journal and the results will need.

    Returns:
        Warnings, one sentence each.

    Raises:
        RepairRefused: The file or its folder cannot be written, the disk is too full, SQLite's integrity_check finds a
            problem, a trigger could change rows that the journal does not know, another program keeps the file locked,
            or the journal belongs to another database or a newer version.
    """
    path = resolve(database)
    if not path.is_file():
        raise RepairRefused(f"There is no database at {database}: name one with --doctor-db PATH.")
    if not is_writable(path):
        raise RepairRefused(f"{path} is not writable: make it so, or examine it without --doctor-fix.")
    if not is_writable(path.parent):
        raise RepairRefused(
            f"The directory {path.parent} is not writable, and the journal has its place there: make it so."
        )
    check_room(path, needed_bytes)
    _check_journal(database)
    hot = Path(f"{path}-journal")
    before = hot.exists()
    try:
        with reraise_interrupts():
            warnings = _look(path)
        return [ROLLED_BACK, *warnings] if before and not hot.exists() else warnings
    except sqlite3.Error as error:
        if is_busy(error):
            raise RepairRefused(
                f"{path} is locked by another program: wait until that has ended, or stop it, and try again."
            ) from error
        raise RepairRefused(f"{path} cannot be written by SQLite ({error}): restore it from a backup.") from error


def check_room(path: Path, needed: int) -> None:
    """Check that the disk has room for a repair.

    Args:
        path: A file on the disk.
        needed: The bytes that the repair needs; a margin is added.

    Raises:
        RepairRefused: The disk is too full.
    """
    free = shutil.disk_usage(path.parent).free
    if free < needed + MARGIN:
        raise RepairRefused(
            f"The disk of {path.parent} has {free:,} bytes free, and the repair needs {needed + MARGIN:,}: make room."
        )


def _look(path: Path) -> list[str]:
    with closing(connect(path)) as connection:
        allow_interrupts(connection)
        trigger = connection.execute("SELECT name, tbl_name FROM sqlite_master WHERE type = 'trigger'").fetchone()
        if trigger is not None:
            raise RepairRefused(
                f"Table {trigger[1]} has the trigger {trigger[0]}, which could change rows that the journal does not "
                "know: drop it, then run again."
            )
        if problems := integrity.check_file(connection).problems:
            if problems[0].is_unsupported:
                raise RepairRefused(f"{path} is not written to: {problems[0]}: {integrity.REMOVE}.")
            more = f" and {len(problems) - 1:,} more" if len(problems) > 1 else ""
            raise RepairRefused(
                f"{path} is damaged (SQLite's check says: {problems[0]}{more}), and is not written to: "
                f"{integrity.RESTORE}."
            )
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("ROLLBACK")
        return _warnings(connection)


def _warnings(connection: sqlite3.Connection) -> list[str]:
    mode = connection.execute("PRAGMA journal_mode").fetchone()[0]
    if mode == "wal" and WAL_RESET[0] <= sqlite3.sqlite_version_info <= WAL_RESET[1]:
        return [
            f"SQLite {sqlite3.sqlite_version} can corrupt a WAL database when two programs write or checkpoint at the "
            "same moment (fixed in 3.51.3): let no other program write while the doctor repairs."
        ]
    return []


def _check_journal(database: Path) -> None:
    """Check that the journal can be read, before the first before-image is written to it."""
    if not exists(database):
        identity.check_left_behind(database)
        return
    path = identity.journal_path(database)
    if path.is_file() and not is_writable(path):
        raise RepairRefused(f"The journal {path} is not writable: make it so, or move it away.")
    try:
        with closing(connect(path)) as connection:
            check_version(connection, database)
        wrong = verification.structure(database)
    except sqlite3.Error as error:
        if is_busy(error):
            raise RepairRefused(
                f"The journal {path} is locked by another program: wait until that has ended, then run again."
            ) from error
        raise RepairRefused(
            f"The journal {path} cannot be read by SQLite ({error}), though the database may be whole: "
            "restore the journal from a backup, or move it away, then run again."
        ) from error
    if wrong:
        raise RepairRefused(
            f"The journal {path} is damaged ({wrong}), though the database may be whole: restore the journal from a "
            "backup, take back what it still has with --doctor-undo all:intact, or move it away, then run again."
        )
    identity.check_owner(database)


def recover(database: Path) -> list[int]:
    """Complete or abandon the steps that an interrupted session left open.

    Nothing is written if there is no journal, or no open step.

    Returns:
        The ids of the repairs that turned out to be applied.

    Raises:
        RepairRefused: The journal cannot be used.
        RepairFailed: Another program keeps the file locked.
    """
    if not exists(database):
        return []
    with _writing(database) as connection:
        journal = Journal(database, connection.execute("PRAGMA encoding").fetchone()[0])
        try:
            journal.record_witnesses()
            steps = recover_open_steps(journal)
            rows = journal.connection.execute(
                "SELECT DISTINCT repair FROM steps WHERE id IN (SELECT value FROM json_each(?)) ORDER BY 1",
                (as_json(steps),),
            )
            return [row[0] for row in rows]
        finally:
            journal.close()


def roll_back_hot_journal(database: Path) -> None:
    """Open the file for writing once, so that SQLite rolls back what a dead program left.

    Raises:
        Unreadable: SQLite cannot roll it back, so no program can read the file.
    """
    try:
        with _writing(database):
            pass
    except RepairFailed as failure:
        raise Unreadable(
            f"{database} has a hot journal, left by an unfinished write, and SQLite cannot roll it back now "
            f"({failure.__cause__ or failure}): make room on its disk, then run again"
        ) from failure


def finish(database: Path) -> None:
    """Checkpoint a WAL database after the last repair; its journal mode stays as it is.

    What readers still use stays in the WAL, which is safe.

    Raises:
        RepairFailed: Another program keeps the file locked.
    """
    with _writing(database) as connection:
        if connection.execute("PRAGMA journal_mode").fetchone()[0] == "wal":
            # A passive checkpoint keeps nobody waiting; truncating does, so it gets the little that is left, and no
            # time.
            connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
            connection.execute(f"PRAGMA busy_timeout = {int(ATTEMPT_TIMEOUT * 1000)}").fetchall()
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


@contextmanager
def _writing(database: Path) -> Iterator[sqlite3.Connection]:
    """Open the database for writing, so that SQLite recovers it, and hold the write lock."""
    path = resolve(database)
    with WriteLock(database).held("(any)", time.monotonic() + LOCK_TIMEOUT):
        try:
            with closing(connect(path)) as connection:
                connection.execute("PRAGMA synchronous = FULL")
                connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
                yield connection
        except sqlite3.Error as error:
            raise RepairFailed(
                f"{path} and its journal could not be combined: SQLite says «{error}»; run again."
            ) from error
