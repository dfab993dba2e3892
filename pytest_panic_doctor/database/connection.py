"""Opens the database for reading: SQLite itself refuses to write, and no file is left behind.

With WAL, `mode=ro` is not enough: a read-only connection creates `-shm` and `-wal` files and cannot remove them
(https://www.sqlite.org/wal.html, "Read-Only Databases"). So a WAL database without a `-shm` file, which no program has
open, is read as immutable. If a dead program left a WAL, it is read without file locks in exclusive locking mode, in
which SQLite keeps the WAL's index on the heap and creates nothing. If another program opens the database during such
a read, the read is repeated in the ordinary way.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

from pytest_panic_doctor.database.generation import Generation
from pytest_panic_doctor.database.generations import generation_of
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
    """Raised when the file cannot be examined; the message is one sentence with the reason and what to do."""


def decode_leniently(value: bytes) -> str:
    """Decode TEXT that is not UTF-8: damaged text must not stop an examination."""
    return value.decode("utf-8", errors="backslashreplace")


def read_file_header(path: Path) -> bytes:
    """Read the first 100 bytes; raises `Unreadable` unless the file is an SQLite 3 database."""
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
    """Whether the error means that SQLite had to write."""
    return getattr(error, "sqlite_errorname", "").startswith("SQLITE_READONLY")


def data_version(connection: sqlite3.Connection) -> int:
    """Number that changes when another connection commits (https://sqlite.org/pragma.html#pragma_data_version)."""
    return int(connection.execute("PRAGMA main.data_version").fetchone()[0])


class SharedMemo:
    """What checks share as long as nobody writes to the database."""

    def __init__(self) -> None:
        """Know nothing yet."""
        self._state = (0, 0)
        self._known: dict[object, object] = {}

    def of(self, db: sqlite3.Connection) -> dict[object, object]:
        """Return what is known of this state of the database."""
        if (state := (id(db), data_version(db))) != self._state:
            self._state, self._known = state, {}
        return self._known


class Database:
    """The database file, opened for reading: one connection per process, and no transaction between reads."""

    def __init__(self, path: Path, timeout: float = READ_TIMEOUT, shared: bool = False) -> None:
        """Configure the database; the first read opens it.

        Args:
            path: The file.
            timeout: Seconds that a read waits for another program's write.
            shared: Whether this process also writes. Then the file is never read without locks, because closing it
                outside of SQLite would drop the locks of the writing connection
                (https://www.sqlite.org/howtocorrupt.html, 2.2).
        """
        self.path = path
        self.shared = shared
        self._largest = 0
        self.timeout = timeout
        self.authorizer: Callable[..., int] | None = None
        """SQLite's authorizer: called with each table that a statement reads, when it is prepared."""
        self.recover: Callable[[], None] | None = None
        """Lets SQLite roll back the write of a dead program; None if nothing may be written."""
        self.generation: Generation | None = None
        """Generation of the file after the first read; None if it has no known table."""
        self._connection: sqlite3.Connection | None = None
        self._prepared: sqlite3.Connection | None = None
        self._lockless = False
        self._files: tuple[Path, Path, Path] | None = None
        """The file, its log and the log's index, without symbolic links, when the connection was opened."""
        self._opened: tuple[int, ...] = ()
        self.identity: tuple[int, int] | None = None
        """Device and inode of the file, when any process of the session first opened it."""
        self._wal: bool | None = None
        self._text: Callable[[bytes], str] | type[str] = str

    @property
    def largest(self) -> int:
        """Largest value that is read, in bytes; SQLite refuses a larger one unread. 0 for SQLite's own limit."""
        return self._largest

    @largest.setter
    def largest(self, size: int) -> None:
        self._largest = size
        if self._connection is not None:
            self._connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, size)

    def read(self, query: Callable[[sqlite3.Connection], T]) -> T:
        """Run a function on one consistent snapshot.

        Ctrl-C interrupts a running statement.

        Args:
            query: The function. It must only read, and may be called twice.

        Returns:
            What `query` returns.

        Raises:
            Unreadable: The file was left in a state that only a process with write access can repair.
        """
        try:
            return self._read(query)
        except sqlite3.DatabaseError as error:
            # A custom rule that tries to write gets the same error, though the file can be read.
            if not is_readonly(error) or (why := self._blocking_error()) is None:
                raise
            self.close()
            if self.recover is None:
                raise Unreadable(self.describe_error(why)) from error
            self.recover()
            return self._read(query)

    def release(self, db: sqlite3.Connection) -> None:
        """End the snapshot within `read`, so that other programs can write; nothing may be read afterwards."""
        if db.in_transaction:
            db.execute("ROLLBACK")

    def _blocking_error(self) -> sqlite3.DatabaseError | None:
        """The error that keeps SQLite from reading anything without writing; None if it can read."""
        try:
            self._read(lambda db: db.execute("SELECT count(*) FROM sqlite_master").fetchone())
        except sqlite3.DatabaseError as error:
            return error if is_readonly(error) else None
        return None

    def _read(self, query: Callable[[sqlite3.Connection], T]) -> T:
        self._check_same_file()
        if self._connection is not None and self._changed_by_others():
            # A connection without locks does not see what others write: open a new one.
            self.close()
        connection = self._connection or self._open()
        try:
            self._prepare(connection)
            result = self._snapshot(connection, query)
        except sqlite3.DatabaseError as error:
            if str(error).startswith(UNDECODABLE) and connection.text_factory is str:
                # Read again, with damaged text decoded leniently.
                self._text = decode_leniently
            elif not self._changed_by_others():
                raise
        else:
            if not self._changed_by_others():
                return result
        # Another program wrote during a read without locks: the result may be mixed, so read again.
        self.close()
        connection = self._open()
        self._prepare(connection)
        return self._snapshot(connection, query)

    def _prepare(self, db: sqlite3.Connection) -> None:
        """Find the generation of the file and create the views that rules read, once for each connection."""
        if self._prepared is db:
            return
        self.generation = generation_of(db)
        if self.generation is not None and self.generation.needs_views:
            db.execute("PRAGMA query_only = OFF")
            self.generation.create_views(db)
            db.execute("PRAGMA query_only = ON")
        self._prepared = db

    def _check_same_file(self) -> None:
        """Raise `Unreadable` if the path leads to another file than before."""
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
        """Prepare cached statements again, so that `authorizer` is called for them too."""
        if self._connection is not None and self.authorizer is not None:
            self._connection.set_authorizer(self.authorizer)

    def check_readable(self) -> None:
        """Raise `Unreadable` unless this is a trajectory database that can be read now."""
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
        """Sentence that says what keeps SQLite from reading the file."""
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
        return self._files is not None and self._files[2].exists()

    def _state(self) -> tuple[int, ...]:
        parts: list[int] = []
        for path in self._files[:2] if self._files else ():
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
        resolved = os.path.realpath(self.path)
        self._files = Path(resolved), Path(f"{resolved}-wal"), Path(f"{resolved}-shm")
        # Without locks only if no program has the file open: every connection to a WAL database creates a -shm file.
        self._lockless = self._wal and not self.shared and os.name == "posix" and not self._in_use()
        self._opened = self._state()
        # A WAL that a dead program left has to be read: without locks, but not as immutable.
        log = self._files[1].exists()
        options = "mode=ro" if not self._lockless else "mode=ro&vfs=unix-none" if log else "mode=ro&immutable=1"
        db = sqlite3.connect(
            f"file:{quote(os.fsencode(resolved))}?{options}",
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
    def _snapshot(db: sqlite3.Connection, query: Callable[[sqlite3.Connection], T]) -> T:
        db.execute("BEGIN")
        try:
            with reraise_interrupts():
                return query(db)
        finally:
            if db.in_transaction:
                db.execute("ROLLBACK")
