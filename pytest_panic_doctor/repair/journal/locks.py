"""Who may write: one fixing doctor a database, and one write transaction at a time among its workers.

Both are `flock` locks through filelock, so the kernel frees them when their holder dies, whatever it died of.
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
from types import TracebackType

from filelock import FileLock, Timeout

from pytest_panic_doctor.database.files import create_like
from pytest_panic_doctor.repair.journal.errors import RepairFailed, RepairRefused


@dataclass(frozen=True, slots=True)
class WritePacing:
    """How the doctor's transactions leave other programs their turn, in seconds."""

    write_for: float
    """How long they may follow upon each other."""
    yield_for: float
    """How long the turn lasts: SQLite's busy handler sleeps up to 100 ms between two attempts, so at least two."""


UNCONTENDED = WritePacing(0.25, 0.22)
"""Nobody wrote in the last turn: whoever comes now has waited for one burst at most, and finds nobody else."""
CONTENDED = WritePacing(0.1, 0.4)
"""Others write, and also keep each other waiting: four attempts, and turns that come round soon."""


def resolve(database: Path) -> Path:
    """The file itself: two names of one database have one lock and one journal."""
    return database.resolve()


def doctor_file(database: Path, ending: str = "") -> Path:
    """The doctor's file of a database, in the same directory: its journal without an `ending`, else a lock.

    `a.sqlite` has `a.doctor.sqlite` and `a.doctor.lock`, `a.db` has `a.doctor.db` and `a.doctor.db.lock`: two databases
    of one directory never share one.
    """
    path = resolve(database)
    suffix = path.suffix if not ending else "" if path.suffix == ".sqlite" else path.suffix or "."
    return path.with_name(f"{path.stem}.doctor{suffix}{ending}")


def check_one_link(database: Path) -> None:
    """Raise RepairRefused where the file has several names.

    SQLite's own rollback journal stands beside one of them: what a dead program left there is not rolled back by who
    opens the file by another name, and is written over what that one wrote (https://sqlite.org/howtocorrupt.html, 2.5).
    """
    path = resolve(database)
    if path.is_file() and (links := path.stat().st_nlink) > 1:
        raise RepairRefused(
            f"{path} is one of {links} hard links to the same file, and SQLite may damage a file that is written under "
            "two names: make it a copy of its own, or a symbolic link, then run again."
        )


def lock_failure(path: Path, error: OSError) -> str:
    """What keeps a lock file from being used, and what to do."""
    if path.is_symlink():
        return f"{path} is a symbolic link, which is not followed: delete it"
    if path.exists():
        return (
            f"{path} cannot be opened by this user ({error.strerror}): make it writable for who shares the database, "
            "or delete it where no doctor runs"
        )
    return f"{path} cannot be made ({error.strerror}): make its directory writable"


class RepairLock:
    """The right to repair one database, held by one process from `acquire` to `release` or to its death."""

    def __init__(self, database: Path) -> None:
        """Acquire nothing yet."""
        self._database = database
        self.path = doctor_file(database, ".lock")
        self._lock = FileLock(self.path)

    def acquire(self) -> RepairLock:
        """Take the lock at once, or raise RepairRefused naming the pid that has it, its host and since when."""
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
        """Give the lock back; the file stays, since taking it away would let two doctors lock two files of one name."""
        self._lock.release()

    def __enter__(self) -> RepairLock:
        return self.acquire()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


class WriteLock:
    """The one lock file under which every write transaction of every worker happens."""

    def __init__(self, database: Path) -> None:
        """Acquire nothing yet."""
        self._database = database
        self.path = doctor_file(database, ".write.lock")
        self._lock = FileLock(self.path)

    @contextmanager
    def held(self, table: str, deadline: float) -> Iterator[None]:
        """Hold the gate; raises RepairFailed naming `table` where it is not free by `deadline` (monotonic seconds)."""
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


def next_pause(now: float, ended: float, rested: float, manners: WritePacing) -> tuple[float, float]:
    """(seconds to wait before the next transaction, when other programs last had a turn), all monotonic seconds.

    `ended` is the end of the doctor's last transaction, of whatever worker, `rested` that of the last turn of others.
    A clock that ran backwards is another boot's.
    """
    if now < ended or now < rested or now - ended >= manners.yield_for:
        return 0.0, now
    if now - rested < manners.write_for:
        return 0.0, rested
    return manners.yield_for, now + manners.yield_for
