"""What a worker repairs with: quarantine, update, insert, and what this session has repaired so far."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pytest_panic_doctor.database.room import MemoryRoom
from pytest_panic_doctor.database.subject import Rows, Subject
from pytest_panic_doctor.repair.journal import journal as journals
from pytest_panic_doctor.repair.journal.errors import RepairError, RepairFailed, RepairRefused
from pytest_panic_doctor.repair.journal.repair_record import Intent, Repair
from pytest_panic_doctor.repair.journal.selection import TARGET, Batch, Selection
from pytest_panic_doctor.repair.journal.session_repairs import SessionRepairs
from pytest_panic_doctor.repair.journal.size import rows_by_table
from pytest_panic_doctor.repair.journal.tables import Table, Value, as_json, writable
from pytest_panic_doctor.repair.journal.transaction import LOCK_TIMEOUT, Step, Transactor

Guard = Callable[[sqlite3.Connection], bool]


@dataclass(frozen=True, slots=True)
class Change:
    """One row that is added, or the row `id` whose columns are set, for `rule` and `subject`: a repair of its own.

    `guard` is asked inside the transaction, with a connection that cannot write meanwhile.
    """

    rule: str
    subject: Subject
    table: str
    values: Mapping[str, Value]
    guard: Guard
    id: str | None = None


class Writer:
    """Repairs one database in one doctor session; each worker process has its own.

    Every method that writes raises RepairError, whose text is one sentence: RepairFailed where something was begun and
    rolled back, RepairRefused where the schema or the journal forbids it. Nothing is opened, locked or made before the
    first repair.
    """

    def __init__(
        self,
        database: Path,
        session: str,
        wanted: Callable[[], bool],
        *,
        patience: float = LOCK_TIMEOUT,
        connection: type[sqlite3.Connection] = sqlite3.Connection,
        space: MemoryRoom = MemoryRoom(),  # noqa: B008
    ) -> None:
        """`session` names the doctor session, the same in all its workers.

        `wanted` says whether the controller is still there; it is asked before each transaction and before each commit.
        `patience` is how many seconds a transaction waits in all for other programs. `connection` is the class of the
        SQLite connections; `space` what may be held in memory at once: a larger row is refused by name.
        """
        self.database = database
        self.session = session
        self.space = space
        self._made = SessionRepairs(database, session)
        self._transactor = Transactor(database, wanted, patience=patience, connection=connection)

    def quarantine(
        self, rule: str, subject: Subject, rows: Rows, progress: Callable[[int, int], None] | None = None
    ) -> Repair | None:
        """Move the rows that `rows` finds, and all that hangs on them, into the journal; None where it finds none.

        Children go before their parents, in transactions of bounded size, so that no state in between has an orphan
        that was none before. `progress` is called after each with (rows of `rows.table` done, rows found). Rows without
        an id cannot be named and stay. Where it fails on the way, the finished transactions stand, as one repair that
        can be undone, and the sentence says how many rows that are.
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
        """Raise RepairRefused before the first row is moved where any of them is too large to be copied."""
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
        """Set columns of the row `id`; None where there is no such row or `guard` says no.

        `guard` is asked inside the transaction, with a connection that cannot write meanwhile.
        """
        return self.write([Change(rule, subject, table, values, guard, id)])[0]

    def insert(
        self, rule: str, subject: Subject, table: str, values: Mapping[str, Value], guard: Guard
    ) -> Repair | None:
        """Add a row with these values, among them its `id`; None where `guard` says no, asked as by `update`."""
        return self.write([Change(rule, subject, table, values, guard)])[0]

    def write(self, changes: Sequence[Change]) -> list[Repair | None]:
        """Make changes of one table, several a transaction, each a repair of its own.

        A transaction takes no further change once it has kept other programs from writing for `TARGET` seconds.

        Args:
            changes: No two of them of one row.

        Returns:
            The repair of each change; None where its guard said no or its row is gone, and, for all but the first,
            where it was refused or could not be written.

        Raises:
            RepairError: The first change was refused, or its transaction failed: then nothing was written.
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
        found = journals.read_repairs(self.database, "id IN (SELECT value FROM json_each(?))", (numbers,))
        repairs = {repair.id: repair for repair in found}
        return [None if number is None else repairs[number] for number in made]

    def _make(self, changes: Sequence[Change], step: Step) -> list[int | None]:
        """The repairs of the first of these changes, as many as the transaction may take."""
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

    def _target(self, connection: sqlite3.Connection, change: Change) -> tuple[Table, int | None] | None:
        """The table, and the rowid of the row that is changed; None where there is no such row or the guard says no."""
        table, row = _checked(connection, change.table, change.values), None
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
        return table, row

    def _change(self, step: Step, change: Change, table: Table, row: int | None) -> int:
        verb = "insert" if row is None else "update"
        repair = step.begin(Intent(self.session, change.rule, change.subject, verb))
        if row is None:
            step.insert(table, dict(change.values))
        else:
            step.update(table, row, dict(change.values))
        return repair

    def repaired(self, rule: str, subject: Subject) -> list[Repair]:
        """The repairs of this session, by whatever worker, for `rule` within `subject`, newest first.

        A part of `subject` that is None means any, so that an experiment's repairs include those of its runs.
        """
        if not self._made.may_have(rule, subject):
            return []
        return journals.read_repairs(
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
        """How many rows of each table this session has quarantined, in whatever worker; names in lower case."""
        done = journals.read_repairs(
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
        return journals.read_repairs(self.database, "id = ?", (repair,))[0] if isinstance(repair, int) else None

    def _so_far(self, error: RepairError, repair: int | Intent) -> RepairError:
        done = self._repair(repair)
        if done is None:
            return error
        rows = "1 row was" if done.rows == 1 else f"{done.rows:,} rows were"
        return RepairFailed(f"{error} Before that, {rows} quarantined as repair {done.id}.")


def check_fits(connection: sqlite3.Connection, table: Table, rowids: list[int], space: MemoryRoom) -> None:
    """Raise RepairRefused, in one sentence that names it, where one of the rows is too large to be copied."""
    chosen = f"main.{table.quoted} WHERE {table.rowid} IN (SELECT value FROM json_each(?))"
    largest = connection.execute(f"SELECT max({table.size}), id FROM {chosen}", (as_json(rowids),))
    size, row_id = largest.fetchone()
    if (size or 0) > space.value:
        raise RepairRefused(f"{space.too_large(f'The row {row_id} of {table.name}', size)}.")


def _take(selection: Selection, repair: int | Intent, step: Step) -> tuple[Batch, int | Intent]:
    """Move the next batch; returns it, and the repair that it belongs to: an Intent as long as nothing was moved."""
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


def _checked(connection: sqlite3.Connection, table: str, values: Mapping[str, Value]) -> Table:
    described = writable(connection, table)
    unknown = sorted(set(values) - set(described.columns))
    if unknown:
        raise RepairRefused(f"Table {table} has no column {', '.join(unknown)}: nothing was written.")
    return described


def _allowed(connection: sqlite3.Connection, guard: Guard) -> bool:
    connection.execute("PRAGMA query_only = ON")
    try:
        return guard(connection)
    finally:
        connection.execute("PRAGMA query_only = OFF")
