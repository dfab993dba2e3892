"""A step: one repair's part of a short write transaction on the database, with its record in the journal.

A transaction may have several steps, each of another repair: all of them are committed, or none.

The order, and what a crash between two points leaves behind:

1. the write lock is taken, `is_active` is asked, open steps are recovered, other programs get time to write
2. BEGIN IMMEDIATE on the database        (nothing)
3. the steps and their before-images are committed to the journal   (open steps, the rows unchanged: abandoned)
4. COMMIT on the database                 (open steps, the rows changed: applied)
5. the steps are marked applied           (nothing is open)
"""

from __future__ import annotations

import contextlib
import random
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from pytest_panic_doctor.database.connection import data_version
from pytest_panic_doctor.database.interrupts import allow_interrupts, reraise_interrupts
from pytest_panic_doctor.database.schema import quote
from pytest_panic_doctor.repair.journal.errors import RepairFailed, is_busy, sentence
from pytest_panic_doctor.repair.journal.journal import Journal
from pytest_panic_doctor.repair.journal.locks import (
    ATTEMPT_TIMEOUT,
    CONTENDED,
    LOCK_TIMEOUT,
    RETRY_DELAY,
    UNCONTENDED,
    WriteLock,
    next_pause,
    resolve,
)
from pytest_panic_doctor.repair.journal.opening import connect
from pytest_panic_doctor.repair.journal.recovery import recover_open_steps, try_rollback
from pytest_panic_doctor.repair.journal.repair_record import Intent
from pytest_panic_doctor.repair.journal.tables import (
    MAX_ROWID,
    Table,
    Value,
    as_json,
    generation_of_file,
    table_digests,
)

T = TypeVar("T")


class Stale(Exception):
    """What was read before the transaction has changed: read it again, then retry."""


class Step:
    """The changes of one transaction to the database; each is recorded before it is committed."""

    def __init__(self, database: sqlite3.Connection, journal: Journal) -> None:
        """Store both connections.

        Args:
            database: The database, inside BEGIN IMMEDIATE.
            journal: The journal.
        """
        self.database = database
        self.journal = journal
        self.number: int | None = None
        """The step that is open now, the last of `numbers`."""
        self.numbers: list[int] = []
        self.journal_committed = False

    def begin(self, repair: int | Intent) -> int:
        """Open the record of a repair; later changes belong to it until the next record is opened.

        Args:
            repair: The id of a repair, or the intent of a new one.

        Returns:
            The id of the repair.
        """
        if not self.numbers:
            self.journal.begin()
        number = repair if isinstance(repair, int) else self.journal.new_repair(repair)
        self.number = self.journal.new_step(number)
        self.numbers.append(self.number)
        return number

    def commit_journal(self) -> None:
        """Make the records durable; only then may the transaction be committed."""
        self.journal.commit_step(*self.numbers)
        self.journal_committed = True

    def save_before_images(self, table: Table, rowids: list[int]) -> None:
        """Copy before-images into the record."""
        assert self.number is not None
        self.journal.copy_before_images(self.number, table, rowids)

    def remove(self, table: Table, rowids: list[int]) -> None:
        """Delete rows whose before-images are committed to the journal.

        Raises:
            sqlite3.IntegrityError: A row is missing.
        """
        assert self.journal_committed
        removed = self.database.execute(
            f"DELETE FROM main.{table.quoted} WHERE {table.rowid} IN (SELECT value FROM json_each(?))",
            (as_json(rowids),),
        ).rowcount
        if removed != len(rowids):
            raise sqlite3.IntegrityError(f"{removed} rows of {len(rowids)} were there to be removed")

    def update(self, table: Table, rowid: int, values: dict[str, Value]) -> None:
        """Set columns of a row: copy its before-image, change it, and record its digest.

        Args:
            table: The table.
            rowid: The row.
            values: The new values, by column.
        """
        assert self.number is not None
        self.save_before_images(table, [rowid])
        assignments = ", ".join(f"{quote(column)} = ?" for column in values)
        self.database.execute(
            f"UPDATE OR ABORT main.{table.quoted} SET {assignments} WHERE {table.rowid} = ?", (*values.values(), rowid)
        )
        after = table_digests(self.database, table, [rowid])
        self.journal.changed(self.number, table.name, after.items())

    def insert(self, table: Table, values: dict[str, Value]) -> None:
        """Insert a row, and record its digest.

        Its rowid is unknown to every repair. SQLite could choose the rowid of a row that was quarantined from the end
        of the table, and an undo could not restore that row at its place.

        Args:
            table: The table.
            values: The values, by column.
        """
        assert self.number is not None
        rowid = free_rows(self.journal, table, 1)[0]
        columns = ", ".join((table.rowid, *map(quote, values)))
        marks = ", ".join("?" * (len(values) + 1))
        self.database.execute(
            f"INSERT OR ABORT INTO main.{table.quoted} ({columns}) VALUES ({marks})", (rowid, *values.values())
        )
        size = self.database.execute(
            f"SELECT {table.size} FROM main.{table.quoted} WHERE {table.rowid} = ?", (rowid,)
        ).fetchone()[0]
        after = table_digests(self.database, table, [rowid])[rowid]
        self.journal.added(self.number, table.name, rowid, values["id"], after, size)


def free_rows(journal: Journal, table: Table, count: int) -> list[int]:
    """Return rowids that neither the table nor any repair uses: the next ones, or random ones after the last.

    Args:
        journal: The journal, with the database attached.
        table: The table.
        count: The number of rowids.
    """
    highest = journal.connection.execute(f"SELECT coalesce(max({table.rowid}), 0) FROM db.{table.quoted}").fetchone()[0]
    start = max(int(highest), journal.highest_row(table.name)) + 1
    if start + count <= MAX_ROWID:
        return list(range(start, start + count))
    free: list[int] = []
    while len(free) < count:
        row = random.randrange(1, MAX_ROWID)
        used = journal.connection.execute(
            f"SELECT EXISTS (SELECT 1 FROM db.{table.quoted} WHERE {table.rowid} = :row)"
            " OR EXISTS (SELECT 1 FROM changes WHERE table_name = :table AND row = :row)",
            {"row": row, "table": table.name},
        ).fetchone()[0]
        if not used and row not in free:
            free.append(row)
    return free


class Transactor:
    """Runs steps on one database, one at a time among all workers."""

    def __init__(
        self,
        database: Path,
        is_active: Callable[[], bool],
        *,
        spill: bool = False,
        patience: float = LOCK_TIMEOUT,
        connection: type[sqlite3.Connection] = sqlite3.Connection,
    ) -> None:
        """Store the parameters; nothing is opened yet.

        Args:
            database: The path of the database.
            is_active: Whether the session is still active; asked before each transaction and before each commit.
            spill: Whether a transaction that is larger than SQLite's page cache may write to the file before its
                commit.
            patience: Seconds that a step waits for locks.
            connection: The class of the SQLite connections.
        """
        self.path = resolve(database)
        self.write_lock = WriteLock(database)
        self.patience = patience
        self.held = 0.0
        """Seconds for which the last committed step kept other programs from writing."""
        self._is_active = is_active
        self._spill = spill
        self._factory = connection
        self._database: sqlite3.Connection | None = None
        self._journal: Journal | None = None
        self._pacing = CONTENDED

    def run(
        self, table: str, work: Callable[[Step], T], prepare: Callable[[sqlite3.Connection], None] | None = None
    ) -> T:
        """Run one transaction, with its record in the journal. If `work` opens no record, nothing is written.

        Args:
            table: The table, for the message.
            work: Makes the changes; may be called several times.
            prepare: Called with the connection before the transaction, while other workers are locked out; may be
                called several times.

        Returns:
            What `work` returns.

        Raises:
            RepairFailed: The transaction was rolled back.
        """

        def attempt(deadline: float) -> T:
            with self.write_lock.held(table, deadline):
                return self._attempt(table, work, prepare)

        return self._retry(table, attempt)

    def read(self, table: str, look: Callable[[sqlite3.Connection], T]) -> T:
        """Read outside of any transaction and without the write lock.

        Args:
            table: The table, for the message.
            look: Reads; may be called several times.

        Returns:
            What `look` returns.

        Raises:
            RepairFailed: The database cannot be read.
        """

        def attempt(_: float) -> T:
            if self._database is None:
                self._database = self._connect()
            return look(self._database)

        return self._retry(table, attempt)

    def _retry(self, table: str, attempt: Callable[[float], T]) -> T:
        """Call `attempt` with the deadline until no other program keeps the file locked, or the deadline has passed."""
        deadline = time.monotonic() + self.patience
        while True:
            try:
                with reraise_interrupts():
                    return attempt(deadline)
            except Stale:
                continue
            except sqlite3.Error as error:
                if not is_busy(error) or time.monotonic() >= deadline:
                    raise RepairFailed(sentence(table, error, self.patience)) from error
            # Without the write lock: while another program keeps the file locked, no worker may make the others wait.
            time.sleep(random.uniform(*RETRY_DELAY))

    def close(self) -> None:
        """Close both connections.

        The last connection to a WAL database checkpoints it, so the write lock is held if possible.
        """
        if self._database is None and self._journal is None:
            return
        try:
            with self.write_lock.held("(none)", time.monotonic() + self.patience):
                self._close_connections()
        except RepairFailed:
            self._close_connections()

    def _close_connections(self) -> None:
        journal, self._journal = self._journal, None
        database, self._database = self._database, None
        if journal is not None:
            journal.close()
        if database is not None:
            database.close()

    def _connect(self) -> sqlite3.Connection:
        connection = connect(self.path, "mode=rw", ATTEMPT_TIMEOUT, self._factory)
        try:
            allow_interrupts(connection)
            connection.execute("PRAGMA foreign_keys = OFF")
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA wal_autocheckpoint = 0").fetchall()
            if not self._spill:
                connection.execute("PRAGMA cache_spill = OFF")
            connection.execute("SELECT count(*) FROM sqlite_master").fetchone()  # recovers a hot journal
            generation_of_file(connection).create_views(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _open(self) -> tuple[sqlite3.Connection, Journal]:
        if self._database is None:
            self._database = self._connect()
        if self._journal is None:
            encoding = self._database.execute("PRAGMA encoding").fetchone()[0]
            self._journal = Journal(self.path, encoding, ATTEMPT_TIMEOUT, self._factory)
        return self._database, self._journal

    def _check_wanted(self, table: str) -> None:
        if not self._is_active():
            raise RepairFailed(f"Table {table} was not written: the doctor that asked for it is gone; run again.")

    def _attempt(
        self, table: str, work: Callable[[Step], T], prepare: Callable[[sqlite3.Connection], None] | None
    ) -> T:
        self._check_wanted(table)
        database, journal = self._open()
        recover_open_steps(journal)
        if prepare is not None:
            prepare(database)
        rested = self._yield_to_others(database, journal)
        step = Step(database, journal)
        try:
            database.execute("BEGIN IMMEDIATE")
            began = time.monotonic()
            result = work(step)
            if step.number is None:
                database.execute("ROLLBACK")
                return result
            assert step.journal_committed
            self._check_wanted(table)
            database.execute("COMMIT")
        except BaseException as error:
            if not self._committed_after_all(step) or not isinstance(error, sqlite3.Error):
                raise
            return result
        self.held = time.monotonic() - began
        self._mark(step.numbers, rested)
        return result

    def _yield_to_others(self, database: sqlite3.Connection, journal: Journal) -> float:
        """Pause if other programs are due; return the end of the last pause, in monotonic seconds."""
        wait, rested = next_pause(time.monotonic(), *journal.pace(), self._pacing)
        if wait:
            before = data_version(database)
            time.sleep(wait)
            self._pacing = UNCONTENDED if data_version(database) == before else CONTENDED
        return rested

    def _committed_after_all(self, step: Step) -> bool:
        """Roll back after an error; return whether the commit turns out to have happened."""
        healthy = [try_rollback(step.database), try_rollback(step.journal.connection)]
        if not all(healthy):
            self._close_connections()
        if not step.journal_committed:
            return False
        # If recovery fails now, the next step or the next start recovers: the step stays open in the journal.
        with contextlib.suppress(sqlite3.Error):
            return set(step.numbers) <= set(recover_open_steps(self._open()[1]))
        return False

    def _mark(self, steps: list[int], rested: float) -> None:
        """Mark committed steps. An error here loses nothing, and recovery is tried once."""
        assert self._journal is not None
        try:
            self._journal.applied(steps, time.monotonic(), rested)
        except sqlite3.Error:
            if not try_rollback(self._journal.connection):
                self._close_connections()
            recover_open_steps(self._open()[1])
