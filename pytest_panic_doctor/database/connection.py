"""Opening the database so that SQLite itself refuses to write, and leaves nothing behind.

A WAL database makes this harder than `mode=ro`: a read-only connection to one creates its `-shm` and `-wal` files and
cannot take them away again (https://www.sqlite.org/wal.html, "Read-Only Databases"). So a WAL database that nobody has
open, which is one without a `-shm` file, is read as immutable; or, where a dead program left a WAL, in exclusive
locking mode without file locks, in which SQLite keeps the WAL's index on the heap and creates nothing. Whether somebody
opened it meanwhile is looked at before and after each read, and the read repeated in the ordinary way if so.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

from pytest_panic_doctor.database.generation import Generation, generation_of
from pytest_panic_doctor.database.integrity import ABSENT, REMOVE, missing_feature
from pytest_panic_doctor.database.interrupts import allow_interrupts, reraise_interrupts
from pytest_panic_doctor.errors import DoctorError

T = TypeVar("T")

MAGIC = b"SQLite format 3\x00"
KNOWN_TABLES = ("experimentconfig", "run", "invocation", "embedding", "persistencediagram")
KNOWN_USER_VERSION = 0
UNDECODABLE = "Could not decode to UTF-8"
READ_TIMEOUT = 10.0
"""Seconds that a read waits for another program's write."""


class Unreadable(DoctorError):
    """The file cannot be examined; the text is one sentence that says why and what to do."""


def decode_leniently(value: bytes) -> str:
    """TEXT as Python text, whatever bytes it holds: a torn string must not stop an examination."""
    return value.decode("utf-8", errors="backslashreplace")


def read_file_header(path: Path) -> bytes:
    """The first 100 bytes; raises `Unreadable` unless they are those of an SQLite 3 database."""
    if not path.exists():
        raise Unreadable(f"there is no database at {path}: name one with --doctor-db PATH")
    if path.is_dir():
        raise Unreadable(f"{path} is a directory: name the database file in it with --doctor-db PATH")
    try:
        with path.open("rb") as file:
            first = file.read(100)
    except OSError as error:
        raise Unreadable(f"{path} cannot be read ({error.strerror}): make it readable for this user") from error
    if not first:
        raise Unreadable(f"{path} is empty: name a trajectory database with --doctor-db PATH")
    if len(first) < 100 or not first.startswith(MAGIC):
        raise Unreadable(f"{path} is not an SQLite database: name a trajectory database with --doctor-db PATH")
    if first[19] > 2:
        raise Unreadable(
            f"{path} has SQLite file format {first[19]}, newer than this doctor knows (2): use a newer doctor"
        )
    return first


def is_readonly(error: sqlite3.DatabaseError) -> bool:
    """Whether SQLite would have had to write."""
    return getattr(error, "sqlite_errorname", "").startswith("SQLITE_READONLY")


def data_version(connection: sqlite3.Connection) -> int:
    """Changes when another connection has committed (https://sqlite.org/pragma.html#pragma_data_version)."""
    return int(connection.execute("PRAGMA main.data_version").fetchone()[0])


class Database:
    """The database file, for reading: one connection a process, in no transaction between reads."""

    def __init__(self, path: Path, timeout: float = READ_TIMEOUT, shared: bool = False) -> None:
        """`path` is the file; `patience` the seconds that a read waits for another program's write.

        `shared` is for a process that writes too: it never reads without locks, since closing the file outside of
        SQLite's bookkeeping would drop the locks of its own writing connection
        (https://www.sqlite.org/howtocorrupt.html, 2.2).
        """
        self.path = path
        self.shared = shared
        self._largest = 0
        self.timeout = timeout
        self.authorizer: Callable[..., int] | None = None
        """Told of each table that a statement will read, when it is made ready: SQLite's authorizer."""
        self.recover: Callable[[], None] | None = None
        """Lets SQLite roll back what a program left that died while it wrote; None where nothing may be written."""
        self.generation: Generation | None = None
        """Of which generation of the research tool the file is, once it was read; None: of none."""
        self._connection: sqlite3.Connection | None = None
        self._prepared: sqlite3.Connection | None = None
        self._lockless = False
        self._opened: tuple[int, ...] = ()
        self.identity: tuple[int, int] | None = None
        """Device and inode of the file, from the first look at it by any process of the session."""
        self._wal: bool | None = None
        self._text: Callable[[bytes], str] | type[str] = str

    @property
    def largest(self) -> int:
        """The bytes of the largest value that is read; 0: as SQLite was built. SQLite refuses a larger one unread."""
        return self._largest

    @largest.setter
    def largest(self, size: int) -> None:
        self._largest = size
        if self._connection is not None:
            self._connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, size)

    def read(self, look: Callable[[sqlite3.Connection], T]) -> T:
        """What `look` returns for one consistent snapshot; it may be called twice, and must only read.

        A signal, Ctrl-C, is heeded in the midst of a statement too. Raises `Unreadable` where nothing of the file can
        be read until a program that may write has put in order what another one left.
        """
        try:
            return self._read(look)
        except sqlite3.DatabaseError as error:
            # A rule of others that tries to write is refused in the same words, and can read all the same.
            if not is_readonly(error) or (why := self._blocking_error()) is None:
                raise
            self.close()
            if self.recover is None:
                raise Unreadable(self.describe_error(why)) from error
            self.recover()
            return self._read(look)

    def release(self, db: sqlite3.Connection) -> None:
        """End the snapshot within `read`: what follows reads nothing, and other programs can write meanwhile."""
        if db.in_transaction:
            db.execute("ROLLBACK")

    def _blocking_error(self) -> sqlite3.DatabaseError | None:
        """What keeps SQLite from reading anything of the file without writing to it; None where it can."""
        try:
            self._read(lambda db: db.execute("SELECT count(*) FROM sqlite_master").fetchone())
        except sqlite3.DatabaseError as error:
            return error if is_readonly(error) else None
        return None

    def _read(self, look: Callable[[sqlite3.Connection], T]) -> T:
        self._check_same_file()
        if self._connection is not None and self._changed_by_others():
            self.close()
        connection = self._connection or self._open()
        try:
            self._prepare(connection)
            result = self._snapshot(connection, look)
        except sqlite3.DatabaseError as error:
            if str(error).startswith(UNDECODABLE) and connection.text_factory is str:
                self._text = decode_leniently
            elif not self._changed_by_others():
                raise
        else:
            if not self._changed_by_others():
                return result
        self.close()
        connection = self._open()
        self._prepare(connection)
        return self._snapshot(connection, look)

    def _prepare(self, db: sqlite3.Connection) -> None:
        """Tell of which generation the file is, and make the views by which rules read it: once for a connection."""
        if self._prepared is db:
            return
        self.generation = generation_of(db)
        if self.generation is not None and self.generation.needs_views:
            db.execute("PRAGMA query_only = OFF")
            self.generation.create_views(db)
            db.execute("PRAGMA query_only = ON")
        self._prepared = db

    def _check_same_file(self) -> None:
        """Raise `Unreadable` where another file has the name now: what is open is not what the user means."""
        try:
            stat = self.path.stat()
        except OSError:
            found = None
        else:
            found = (stat.st_dev, stat.st_ino)
        self.identity = self.identity or found
        if found != self.identity:
            if found is None:
                raise Unreadable(f"{self.path} was removed after the examination began: run again")
            raise Unreadable(f"{self.path} was replaced by another file after the examination began: run again")

    def close(self) -> None:
        """Close the connection; the next read opens another."""
        if self._connection is not None:
            self._connection.close()
            self._connection = self._prepared = None

    def reset_authorizer(self) -> None:
        """Make every statement ready anew, so that `watch` is told of those too that are kept."""
        if self._connection is not None and self.authorizer is not None:
            self._connection.set_authorizer(self.authorizer)

    def check_readable(self) -> None:
        """Raise `Unreadable`, in one sentence, unless this is a trajectory database that can be read now."""
        self._wal = read_file_header(self.path)[19] == 2
        try:
            tables, version, refusal = self.read(self._tables_and_version)
        except sqlite3.DatabaseError as error:
            raise Unreadable(self.describe_error(error)) from error
        known = self.generation
        if known is None or not any(known.real_name(name) in tables for name in KNOWN_TABLES):
            raise Unreadable(
                f"{self.path} is an SQLite database, but not a trajectory database (it has no table "
                f"{', '.join(KNOWN_TABLES[:-1])} or {KNOWN_TABLES[-1]}): name another with --doctor-db PATH"
            )
        if refusal:
            raise Unreadable(f"{self.path} {refusal}")
        if version > KNOWN_USER_VERSION:
            raise Unreadable(
                f"{self.path} has schema version {version}, newer than this doctor knows ({KNOWN_USER_VERSION}): "
                "use a newer doctor"
            )

    def _tables_and_version(self, db: sqlite3.Connection) -> tuple[set[str], int, str]:
        names = {name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        refusal = self.generation.refusal(db) if self.generation else ""
        return names, int(db.execute("PRAGMA user_version").fetchone()[0]), refusal

    def describe_error(self, error: sqlite3.DatabaseError) -> str:
        """What keeps SQLite from reading the file, in one sentence."""
        code = getattr(error, "sqlite_errorname", "")
        if code.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
            return f"{self.path} is locked by another program: wait until that has ended, or stop it, and try again"
        if self._sidecar("-journal").exists():
            return (
                f"{self.path} has a hot journal, left by a program that died while it wrote: open the database once "
                "with the research tool or sqlite3 (or give --doctor-fix), so that SQLite can roll it back"
            )
        if is_readonly(error):
            return (
                f"{self.path} has a write-ahead log, left by a program that died while it wrote, which cannot be read "
                "without writing: open the database once as a user who may write to it and to its folder"
            )
        if what := missing_feature(error):
            return f"{self.path} needs {what}, {ABSENT}: {REMOVE}"
        return f"{self.path} cannot be read by SQLite ({error}): restore it from a backup"

    def _sidecar(self, suffix: str) -> Path:
        return Path(f"{os.path.realpath(self.path)}{suffix}")

    def _in_use(self) -> bool:
        return self._sidecar("-shm").exists()

    def _state(self) -> tuple[int, ...]:
        parts: list[int] = []
        for path in (self.path, self._sidecar("-wal")):
            try:
                stat = path.stat()
            except FileNotFoundError:
                parts += [-1, -1]
            else:
                parts += [stat.st_size, stat.st_mtime_ns]
        return tuple(parts)

    def _changed_by_others(self) -> bool:
        return self._lockless and (self._in_use() or self._state() != self._opened)

    def _open(self) -> sqlite3.Connection:
        if self._wal is None:
            self._wal = not self.shared and read_file_header(self.path)[19] == 2
        self._lockless = self._wal and not self.shared and os.name == "posix" and not self._in_use()
        self._opened = self._state()
        log = self._sidecar("-wal").exists()
        options = "mode=ro" if not self._lockless else "mode=ro&vfs=unix-none" if log else "mode=ro&immutable=1"
        db = sqlite3.connect(
            f"file:{quote(os.fsencode(os.path.realpath(self.path)))}?{options}",
            uri=True,
            timeout=self.timeout,
            isolation_level=None,
            check_same_thread=False,
        )
        db.text_factory = self._text
        if self._largest:
            db.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, self._largest)
        allow_interrupts(db)
        db.execute("PRAGMA query_only = ON")
        if self.authorizer is not None:
            db.set_authorizer(self.authorizer)
        if self._lockless and log:
            db.execute("PRAGMA locking_mode = EXCLUSIVE").fetchall()
        self._connection = db
        return db

    @staticmethod
    def _snapshot(db: sqlite3.Connection, look: Callable[[sqlite3.Connection], T]) -> T:
        db.execute("BEGIN")
        try:
            with reraise_interrupts():
                return look(db)
        finally:
            if db.in_transaction:
                db.execute("ROLLBACK")
