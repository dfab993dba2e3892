"""Writes repairs: quarantine, update and insert; knows what the session has repaired so far."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path

from pytest_panic_doctor.database.memory_room import MemoryRoom
from pytest_panic_doctor.database.subject import Rows, Subject
from pytest_panic_doctor.repair.journal.errors import RepairError, RepairFailed, RepairRefused
from pytest_panic_doctor.repair.journal.locks import LOCK_TIMEOUT
from pytest_panic_doctor.repair.journal.reading import SessionRepairs, read_repairs
from pytest_panic_doctor.repair.journal.repair_record import Intent, Repair
from pytest_panic_doctor.repair.journal.selection import TARGET, Batch, Selection
from pytest_panic_doctor.repair.journal.size import rows_by_table
from pytest_panic_doctor.repair.journal.tables import Table, Value, as_json, generation_of_file, writable
from pytest_panic_doctor.repair.journal.transaction import Step, Transactor

Guard = Callable[[sqlite3.Connection], bool]
"""Returns whether a change may still be made."""


@dataclass(frozen=True, slots=True)
class Change:
    """One repair: a row that is inserted, or columns of a row that are set.

    Attributes:
        rule: The rule that it is made for.
        subject: The subject that it is made for.
        table: The canonical name of the table.
        values: The values, by canonical column.
        guard: Called inside the transaction, with a connection that cannot write.
        id: The id of the row that is changed; None for a new row.
    """

    rule: str
    subject: Subject
    table: str
    values: Mapping[str, Value]
    guard: Guard
    id: str | None = None


class Writer:
    """Repairs one database in one session; each worker process has its own.

    Nothing is opened, locked or created before the first repair. Every method that writes raises a `RepairError`:
    `RepairFailed` if a transaction was rolled back, `RepairRefused` if the schema or the journal does not allow the
    repair.
    """

    def __init__(
        self,
        database: Path,
        session: str,
        is_active: Callable[[], bool],
        *,
        patience: float = LOCK_TIMEOUT,
        connection: type[sqlite3.Connection] = sqlite3.Connection,
        space: MemoryRoom = MemoryRoom(),  # noqa: B008
    ) -> None:
        """Store the parameters; nothing is opened yet.

        Args:
            database: The path of the database.
            session: The id of the session, the same in all its workers.
            is_active: Whether the session is still active; asked before each transaction and before each commit.
            patience: Seconds that a transaction waits for other programs.
            connection: The class of the SQLite connections.
            space: The memory that one row may take; a larger row is refused by name.
        """
        self.database = database
        self.session = session
        self.space = space
        self._made = SessionRepairs(database, session)
        self._transactor = Transactor(database, is_active, patience=patience, connection=connection)

    def quarantine(
        self, rule: str, subject: Subject, rows: Rows, progress: Callable[[int, int], None] | None = None
    ) -> Repair | None:
        """Move the rows of a query, and all rows that depend on them, into the journal.

        Children go before their parents, in transactions of bounded size, so that no intermediate state has a new
        orphan. Rows without an id stay. If a transaction fails, the earlier ones stay, as one repair that can be
        undone, and the message has the number of their rows.

        Args:
            rule: The rule that found the rows.
            subject: The subject of the item.
            rows: The query.
            progress: Called after each transaction with (rows of the query that are done, rows that it found).

        Returns:
            The repair; None if the query finds no row.

        Raises:
            RepairError: A transaction failed, or the repair is not allowed.
        """
        selection = self._transactor.read(rows.table, lambda connection: Selection(connection, rows))
        self._transactor.read(rows.table, lambda connection: self._check_all_fit(connection, selection))
        repair: int | Intent = Intent(self.session, rule, subject, "quarantine")
        while not selection.finished:
            take = partial(_take, selection, repair)
            try:
                batch, repair = self._transactor.run(rows.table, take, selection.prepare)
            except RepairError as error:
                raise self._so_far(error, repair) from error
            selection.committed(batch, self._transactor.held)
            if progress is not None:
                progress(selection.done, len(selection.pending))
        return self._repair(repair)

    def _check_all_fit(self, connection: sqlite3.Connection, selection: Selection) -> None:
        """Check, before the first row is moved, that each row fits into memory.

        Raises:
            RepairRefused: A row is too large.
        """
        for table, row, size in selection.everything(connection):
            if size > self.space.value:
                check_fits(connection, writable(connection, table), [row], self.space)

    def update(
        self,
        rule: str,
        subject: Subject,
        table: str,
        id: str,  # noqa: A002 - the column's own name
        values: Mapping[str, Value],
        guard: Guard,
    ) -> Repair | None:
        """Set columns of a row.

        Args:
            rule: The rule that the repair is made for.
            subject: The subject that it is made for.
            table: The name of the table.
            id: The id of the row.
            values: The values, by column.
            guard: Called inside the transaction, with a connection that cannot write.

        Returns:
            The repair; None if the row is missing or the guard returns false.

        Raises:
            RepairError: The transaction failed, or the repair is not allowed.
        """
        return self.write([Change(rule, subject, table, values, guard, id)])[0]

    def insert(
        self, rule: str, subject: Subject, table: str, values: Mapping[str, Value], guard: Guard
    ) -> Repair | None:
        """Insert a row.

        Args:
            rule: The rule that the repair is made for.
            subject: The subject that it is made for.
            table: The name of the table.
            values: The values, by column, with the `id`.
            guard: Called inside the transaction, with a connection that cannot write.

        Returns:
            The repair; None if the guard returns false.

        Raises:
            RepairError: The transaction failed, or the repair is not allowed.
        """
        return self.write([Change(rule, subject, table, values, guard)])[0]

    def write(self, changes: Sequence[Change]) -> list[Repair | None]:
        """Make changes of one table, several in a transaction, each as a repair of its own.

        A transaction ends once it has kept other programs from writing for `TARGET` seconds.

        Args:
            changes: The changes; no two of them are of one row.

        Returns:
            The repair of each change. It is None if its guard returns false or its row is missing, and, for all but the
            first, if the change is refused or cannot be written.

        Raises:
            RepairError: The first change was refused, or its transaction failed; nothing was written.
        """
        table, made = changes[0].table, list[int | None]()
        while len(made) < len(changes):
            try:
                made += self._transactor.run(table, partial(self._make, changes[len(made) :]))
            except RepairError:
                if not made:
                    raise
                made += [None] * (len(changes) - len(made))
        numbers = as_json(number for number in made if number is not None)
        found = read_repairs(self.database, "id IN (SELECT value FROM json_each(?))", (numbers,))
        repairs = {repair.id: repair for repair in found}
        return [None if number is None else repairs[number] for number in made]

    def _make(self, changes: Sequence[Change], step: Step) -> list[int | None]:
        """Make the first of these changes, as many as the transaction may take, and return the ids of their repairs."""
        begun = time.monotonic()
        made: list[int | None] = []
        for change in changes:
            try:
                target = self._target(step.database, change)
            except RepairError:
                if not made:
                    raise
                target = None
            made.append(None if target is None else self._change(step, change, *target))
            if time.monotonic() - begun > TARGET:
                break
        if step.numbers:
            step.commit_journal()
        return made

    def _target(
        self, connection: sqlite3.Connection, change: Change
    ) -> tuple[Table, int | None, dict[str, Value]] | None:
        """Return the table, the rowid and what is set; None if the row is missing or the guard returns false."""
        table, row = writable(connection, change.table), None
        values = stored_values(connection, change, table)
        if change.id is None:
            if change.values.get("id") is None:
                raise RepairRefused(f"A row of {table.name} is not added without an id.")
        elif "id" in change.values:
            raise RepairRefused(f"The id of a row of {table.name} is never changed: quarantine the row instead.")
        else:
            query = f"SELECT {table.rowid} FROM main.{table.quoted} WHERE id = ? LIMIT 2"
            found = connection.execute(query, (change.id,)).fetchall()
            if len(found) > 1:
                raise RepairFailed(
                    f"Table {table.name} has several rows with the id {change.id}: give each row its own id, then run "
                    "again."
                )
            if not found:
                return None
            row = int(found[0][0])
        if not _allowed(connection, change.guard):
            return None
        if row is not None:
            check_fits(connection, table, [row], self.space)
        return table, row, values

    def _change(self, step: Step, change: Change, table: Table, row: int | None, values: dict[str, Value]) -> int:
        verb = "insert" if row is None else "update"
        repair = step.begin(Intent(self.session, change.rule, change.subject, verb))
        if row is None:
            step.insert(table, values)
        else:
            step.update(table, row, values)
        return repair

    def repaired(self, rule: str, subject: Subject) -> list[Repair]:
        """Return the repairs of this session, by all workers, for a rule within a subject, newest first.

        Args:
            rule: The id of the rule.
            subject: The subject; None in one of its parts stands for any value, so that an experiment includes its
                runs.
        """
        if not self._made.may_have(rule, subject):
            return []
        return read_repairs(
            self.database,
            "session = :session AND rule = :rule AND status = 'applied' AND undoes IS NULL"
            " AND (:experiment IS NULL OR experiment = :experiment) AND (:run IS NULL OR run = :run)"
            " AND (:model IS NULL OR embedding_model = :model)",
            {
                "session": self.session,
                "rule": rule,
                "experiment": subject.experiment,
                "run": subject.run,
                "model": subject.embedding_model,
            },
        )

    def quarantined(self) -> dict[str, int]:
        """Return how many rows of each table this session has quarantined, in all workers; names in lower case."""
        done = read_repairs(
            self.database,
            "session = :session AND verb = 'quarantine' AND status = 'applied' AND undoes IS NULL",
            {"session": self.session},
        )
        return rows_by_table(self.database, [repair.id for repair in done]) if done else {}

    def close(self) -> None:
        """Close the connections; the writer can be used again."""
        self._made.close()
        self._transactor.close()

    def _repair(self, repair: int | Intent | None) -> Repair | None:
        return read_repairs(self.database, "id = ?", (repair,))[0] if isinstance(repair, int) else None

    def _so_far(self, error: RepairError, repair: int | Intent) -> RepairError:
        done = self._repair(repair)
        if done is None:
            return error
        rows = "1 row was" if done.rows == 1 else f"{done.rows:,} rows were"
        return RepairFailed(f"{error} Before that, {rows} quarantined as repair {done.id}.")


def check_fits(connection: sqlite3.Connection, table: Table, rowids: list[int], space: MemoryRoom) -> None:
    """Check that rows are small enough to be copied.

    Raises:
        RepairRefused: A row is too large; the message names it.
    """
    chosen = f"main.{table.quoted} WHERE {table.rowid} IN (SELECT value FROM json_each(?))"
    largest = connection.execute(f"SELECT max({table.size}), id FROM {chosen}", (as_json(rowids),))
    size, row_id = largest.fetchone()
    if (size or 0) > space.value:
        raise RepairRefused(f"{space.too_large(f'The row {row_id} of {table.name}', size)}.")


def _take(selection: Selection, repair: int | Intent, step: Step) -> tuple[Batch, int | Intent]:
    """Move the next batch into the journal.

    Returns:
        The batch, and its repair; an `Intent` as long as nothing was moved.
    """
    batch = selection.next(step.database)
    if not batch.rows:
        return batch, repair
    number = step.begin(repair)
    for table, rowids in batch.rows:
        step.save_before_images(table, rowids)
    step.commit_journal()
    for table, rowids in batch.rows:
        step.remove(table, rowids)
    return batch, number


def stored_values(connection: sqlite3.Connection, change: Change, table: Table) -> dict[str, Value]:
    """Return what a change sets in the file: its values by the file's columns, and the times that the tool adds.

    Args:
        connection: The database.
        change: The change; its values are by canonical columns.
        table: The table of the file.

    Raises:
        RepairRefused: The file has no such column.
    """
    generation = generation_of_file(connection)
    added = generation.stamps(datetime.now(), is_new=change.id is None)
    values: dict[str, Value] = {name: value for name, value in added.items() if name in table.columns}
    known = generation.table(generation.canonical_name(table.name))
    stored = {name: known.written_column(name) if known else name for name in change.values}
    if unknown := sorted(name for name, column in stored.items() if column not in table.columns):
        raise RepairRefused(f"Table {table.name} has no column {', '.join(unknown)}: nothing was written.")
    return values | {str(stored[name]): value for name, value in change.values.items()}


def _allowed(connection: sqlite3.Connection, guard: Guard) -> bool:
    connection.execute("PRAGMA query_only = ON")
    try:
        return guard(connection)
    finally:
        connection.execute("PRAGMA query_only = OFF")
