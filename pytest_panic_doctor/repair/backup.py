"""Copies the database before the first write, by SQLite's backup API, completely or not at all."""

from __future__ import annotations

import os
import shutil
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from pytest_panic_doctor.database.files import create_like, publish_new
from pytest_panic_doctor.database.interrupts import allow_interrupts, reraise_interrupts
from pytest_panic_doctor.errors import BadOption
from pytest_panic_doctor.formatting import format_size, typed
from pytest_panic_doctor.repair.journal.errors import RepairRefused
from pytest_panic_doctor.repair.journal.identity import journal_path
from pytest_panic_doctor.repair.journal.locks import resolve
from pytest_panic_doctor.repair.journal.preflight import MARGIN

BACKUP_FLAG = "--doctor-backup"
SIDE_FILES = ("-journal", "-wal", "-shm")
"""The suffixes of SQLite's files beside a database; one that is left would change the copy when it is opened."""

STEP_BYTES = 16 * 2**20
"""Bytes that are copied between two looks at the clock, so that a program that writes waits only for these."""

MOST_RESTARTS = 5
"""How often the copy may start again because another program wrote."""

BACKUP_LOCK_TIMEOUT = 60.0
"""Seconds for which the copy waits for a lock of another program."""

Report = Callable[[str, float, float], None]
"""Called with what is done, how much of it is done, and how much there is."""


def check_target(target: Path, database: Path) -> None:
    """Check that a backup can be written, before anything is done.

    Raises:
        BadOption: The file exists, is one of the database's own files, or cannot be made.
    """
    path, source = Path(os.path.realpath(target)), resolve(database)
    journal = journal_path(database)
    own = {source: "the database itself", journal: "the doctor's journal"}
    own |= {Path(f"{source}{suffix}"): f"SQLite's own {source.name}{suffix}" for suffix in SIDE_FILES}
    if path in own:
        raise BadOption(f"{BACKUP_FLAG} {typed(str(target))} is {own[path]}: name another file")
    for each in (target, *(Path(f"{path}{suffix}") for suffix in SIDE_FILES)):
        if os.path.lexists(each):
            raise BadOption(
                f"{BACKUP_FLAG}: {typed(str(each))} exists, and a backup replaces nothing: name another file"
            )
    if not path.parent.is_dir():
        raise BadOption(f"{BACKUP_FLAG} {typed(str(target))} has no folder to be written to: make {path.parent} first")
    if journal_path(path).exists():
        raise BadOption(
            f"{BACKUP_FLAG} {typed(str(target))} would have the journal {journal_path(path)} of another database "
            "beside it: name another file"
        )


def make_backup(database: Path, target: Path, report: Report = lambda what, done, of: None) -> int:  # noqa: ARG005
    """Copy a database to a file that does not exist; it has its name only when it is complete and on the disk.

    Args:
        database: The path of the database, which is only read.
        target: The path of the copy.
        report: Called from time to time with the progress, in bytes.

    Returns:
        The size of the copy in bytes.

    Raises:
        BadOption: The target may not be written, as `check_target` says it.
        RepairRefused: The disk is too full, or the copy failed. Nothing is left of it.
    """
    check_target(target, database)
    path = Path(os.path.realpath(target))
    partial = path.with_name(f".doctor-backup.{os.getpid()}.{path.suffix.lstrip('.') or 'sqlite'}")
    try:
        with reraise_interrupts():
            size = _copy(resolve(database), partial, report)
        publish_new(partial, path)
    except (sqlite3.Error, OSError) as error:
        raise RepairRefused(
            f"The backup {target} could not be written ({error}), so nothing was repaired: name another file, or make "
            "room on its disk."
        ) from error
    finally:
        for suffix in ("", *SIDE_FILES):
            Path(f"{partial}{suffix}").unlink(missing_ok=True)
    return size


def _copy(source: Path, partial: Path, report: Report) -> int:
    """Copy all pages of a database to a file, and return its size."""
    for suffix in ("", *SIDE_FILES):
        Path(f"{partial}{suffix}").unlink(missing_ok=True)
    with closing(sqlite3.connect(f"{source.as_uri()}?mode=ro", uri=True, isolation_level=None)) as reading:
        reading.execute(f"PRAGMA busy_timeout = {int(BACKUP_LOCK_TIMEOUT * 1000)}").fetchall()
        allow_interrupts(reading)
        page = int(reading.execute("PRAGMA page_size").fetchone()[0])
        size = page * int(reading.execute("PRAGMA page_count").fetchone()[0])
        check_space(partial.parent, size)
        if reading.execute("PRAGMA journal_mode").fetchone()[0] == "wal":
            # In WAL mode a snapshot stops no other program, and the copy never has to start again.
            reading.execute("BEGIN")
            reading.execute("SELECT count(*) FROM sqlite_master").fetchone()
        create_like(partial, source)
        with closing(sqlite3.connect(partial, isolation_level=None)) as writing:
            watch = _Watch(source, page, report)
            reading.backup(writing, pages=max(1, STEP_BYTES // page), progress=watch, sleep=0.05)
    size = watch.total * page
    if partial.stat().st_size != size:
        raise OSError(f"it has {partial.stat().st_size:,} bytes instead of {size:,}")
    return size


def check_space(folder: Path, size: int) -> None:
    """Raise `RepairRefused` if the disk of a folder has no room for a copy of `size` bytes."""
    free = shutil.disk_usage(folder).free
    if free < size + MARGIN:
        raise RepairRefused(
            f"The disk of {folder} has {format_size(free)} free, and the backup needs {format_size(size + MARGIN)}: "
            f"make room, or name a file on another disk with {BACKUP_FLAG}."
        )


class _Watch:
    """Follows the progress of one copy, and ends it if other programs keep it from ending."""

    def __init__(self, source: Path, page: int, report: Report) -> None:
        self.source = source
        self.page = page
        self.report = report
        self.total = 0
        self._left: int | None = None
        self._restarts = 0
        self._moved = time.monotonic()

    def __call__(self, status: int, remaining: int, total: int) -> None:
        """Take the progress of a step; `sqlite3` calls it, and passes on what it raises."""
        now = time.monotonic()
        if status in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            if now - self._moved > BACKUP_LOCK_TIMEOUT:
                raise sqlite3.OperationalError(f"another program keeps {self.source.name} locked")
            return
        self._moved = now
        if self._left is not None and remaining >= self._left:
            self._restarts += 1
        self._left, self.total = remaining, total
        if self._restarts > MOST_RESTARTS:
            raise sqlite3.OperationalError(
                f"another program wrote to {self.source.name} so often that the copy began again {self._restarts} times"
            )
        self.report("copying the database", float((total - remaining) * self.page), float(total * self.page))
