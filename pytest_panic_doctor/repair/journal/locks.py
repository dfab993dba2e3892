"""Locks: one repairing session for each database, and one write transaction at a time among its workers.

Both are `flock` locks through filelock, so the kernel frees them when their holder dies.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout

from pytest_panic_doctor.database.files import create_like
from pytest_panic_doctor.repair.journal.errors import RepairFailed, RepairRefused

LOCK_TIMEOUT = 60.0
"""Seconds that a step waits in total for other programs and other workers before it fails."""
ATTEMPT_TIMEOUT = 0.4
"""Seconds that one attempt waits for a lock; longer would keep other programs waiting."""

RETRY_DELAY = (0.02, 0.1)
"""Shortest and longest pause between two attempts, in seconds."""


@dataclass(frozen=True, slots=True)
class WritePacing:
    """How long the plugin writes before it yields the database to other programs, in seconds."""

    write_for: float
    """How long transactions may follow one another."""
    yield_for: float
    """How long a pause lasts: at least two attempts, since SQLite's busy handler sleeps up to 100 ms between them."""


UNCONTENDED = WritePacing(0.25, 0.22)
"""No other program wrote in the last pause: one that starts now waits for one burst at most."""
CONTENDED = WritePacing(0.1, 0.4)
"""Other programs are writing: write in short bursts and yield long enough for four of their lock attempts."""


def resolve(database: Path) -> Path:
    """Return the real path of a database, so that two names of one file share a lock and a journal."""
    return database.resolve()


def doctor_file(database: Path, ending: str = "") -> Path:
    """Return the path of a file of this plugin beside a database: its journal, or a lock.

    `a.sqlite` has `a.doctor.sqlite` and `a.doctor.lock`; `a.db` has `a.doctor.db` and `a.doctor.db.lock`. Two databases
    of one folder never share a file.

    Args:
        database: The path of the database.
        ending: The suffix of a lock file; empty for the journal.
    """
    path = resolve(database)
    suffix = path.suffix if not ending else "" if path.suffix == ".sqlite" else path.suffix or "."
    return path.with_name(f"{path.stem}.doctor{suffix}{ending}")


def check_one_link(database: Path) -> None:
    """Check that the file has only one name.

    SQLite's rollback journal stands beside one of the names. What a dead program left there is not rolled back if the
    file is opened by another name, and later overwrites what was written (https://sqlite.org/howtocorrupt.html, 2.5).

    Raises:
        RepairRefused: The file has several hard links.
    """
    path = resolve(database)
    if path.is_file() and (links := path.stat().st_nlink) > 1:
        raise RepairRefused(
            f"{path} is one of {links} hard links to the same file, and SQLite may damage a file that is written under "
            "two names: make it a copy of its own, or a symbolic link, then run again."
        )


def lock_failure(path: Path, error: OSError) -> str:
    """Describe why a lock file cannot be used, and what to do."""
    if path.is_symlink():
        return f"{path} is a symbolic link, which is not followed: delete it"
    if path.exists():
        return (
            f"{path} cannot be opened by this user ({error.strerror}): make it writable for who shares the database, "
            "or delete it where no doctor runs"
        )
    return f"{path} cannot be made ({error.strerror}): make its directory writable"


class RepairLock:
    """The right to repair one database, held by one process from `acquire` until `release` or its death."""

    def __init__(self, database: Path) -> None:
        """Store the path of the lock; it is not acquired yet."""
        self._database = database
        self.path = doctor_file(database, ".lock")
        self._lock = FileLock(self.path)

    def acquire(self) -> RepairLock:
        """Acquire the lock without waiting.

        Raises:
            RepairRefused: Another process holds it; the text names its pid, its host and its start.
        """
        if not self.path.parent.is_dir():  # filelock would make it
            raise RepairRefused(f"There is no directory {self.path.parent}: name a database with --doctor-db PATH.")
        check_one_link(self._database)
        holder = self._holder()
        try:
            create_like(self.path, resolve(self._database))
            self._lock.acquire(timeout=0)
        except Timeout:
            raise RepairRefused(
                f"Another doctor is repairing this database ({holder or 'it does not say who'}): "
                "wait until it has ended, then run again."
            ) from None
        except OSError as error:
            raise RepairRefused(f"The lock file {lock_failure(self.path, error)}.") from error
        record = {
            "pid": os.getpid(),
            "since": datetime.now(UTC).isoformat(sep=" ", timespec="seconds"),
            "host": socket.gethostname(),
        }
        try:
            self.path.write_text(json.dumps(record) + "\n", encoding="utf-8")
        except OSError as error:
            self.release()
            raise RepairRefused(
                f"The lock file {self.path} cannot be written ({error.strerror}): make room for it, then run again."
            ) from error
        return self

    def _holder(self) -> str:
        try:
            record = json.loads(self.path.read_text(encoding="utf-8"))
            return f"pid {record['pid']} on {record['host']}, since {record['since']}"
        except (OSError, ValueError, KeyError, TypeError):
            return ""

    def release(self) -> None:
        """Release the lock. The file stays: if it were deleted, two processes could lock two files of one name."""
        self._lock.release()

    def __enter__(self) -> RepairLock:
        """Acquire the lock."""
        return self.acquire()

    def __exit__(self, *_: object) -> None:
        """Release the lock."""
        self.release()


class WriteLock:
    """The lock that every write transaction of every worker holds."""

    def __init__(self, database: Path) -> None:
        """Store the path of the lock; it is not acquired yet."""
        self._database = database
        self.path = doctor_file(database, ".write.lock")
        self._lock = FileLock(self.path)

    @contextmanager
    def held(self, table: str, deadline: float) -> Iterator[None]:
        """Hold the lock.

        Args:
            table: The table that is written, for the message.
            deadline: The time until which the lock is waited for, in monotonic seconds.

        Raises:
            RepairFailed: The lock is not free by the deadline, or its file cannot be used.
        """
        try:
            if not self.path.exists():
                create_like(self.path, resolve(self._database))
            self._lock.acquire(timeout=max(0.0, deadline - time.monotonic()), poll_interval=0.01)
        except Timeout:
            raise RepairFailed(
                f"Table {table} could not be written: the doctor's other workers did not free {self.path.name} in "
                "time; run again with fewer workers."
            ) from None
        except OSError as error:
            raise RepairFailed(
                f"Table {table} could not be written: the lock file {lock_failure(self.path, error)}."
            ) from error
        try:
            yield
        finally:
            self._lock.release()


def next_pause(now: float, ended: float, rested: float, pacing: WritePacing) -> tuple[float, float]:
    """Decide whether other programs are given time to write before the next transaction.

    All times are monotonic seconds. A time that lies in the future is from before a reboot.

    Args:
        now: The current time.
        ended: The end of the last transaction of any worker.
        rested: The end of the last pause.
        pacing: How long to write, and how long to pause.

    Returns:
        (seconds to wait, end of the last pause).
    """
    if now < ended or now < rested or now - ended >= pacing.yield_for:
        return 0.0, now
    if now - rested < pacing.write_for:
        return 0.0, rested
    return pacing.yield_for, now + pacing.yield_for
