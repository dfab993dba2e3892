"""Selects the rows that a quarantine takes next: those that a rule's query finds, and all rows that depend on them."""

from __future__ import annotations

import sqlite3
import time
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field

from pytest_panic_doctor.database.connection import data_version
from pytest_panic_doctor.database.schema import quote
from pytest_panic_doctor.database.subject import Rows
from pytest_panic_doctor.repair.journal.errors import RepairFailed, RepairRefused
from pytest_panic_doctor.repair.journal.references import Reference, has_index_for, references, to_predecessor
from pytest_panic_doctor.repair.journal.tables import Table, Value, as_json, generation_of_file, writable
from pytest_panic_doctor.repair.journal.transaction import Stale

MAX_BYTES = 8 * 2**20
"""Bytes of rows that one transaction removes at most, unless a single row is larger."""
FIRST_ROWS = 500
"""Rows of the first transaction."""
MAX_ROWS = 4_000
"""Rows that one transaction removes at most."""
MIN_ROWS = 64
"""Rows that one transaction may remove at least."""
MIN_SCANNED_ROWS = 1_000
"""The same where a table of dependent rows is scanned in each transaction, since a reference has no index."""
TARGET = 0.1
"""Seconds for which one transaction may keep other programs from writing."""
QUICK = 0.2
"""Seconds that a rule's query may take inside a transaction; a slower one runs before it."""
ATTEMPTS = 5
"""How often a slow query is repeated outside of the transaction before it runs inside."""

ROOTS_TOGETHER = {"run": 1, "clusteringresult": 1, "invocation": 64}
"""How many roots are looked at together where thousands of rows may depend on each, by canonical name of the table."""
SCANNED_TOGETHER = {"run": 16, "clusteringresult": 1}
"""The same where a table of dependent rows is scanned once for all of them."""

ROOTS = "SELECT value FROM json_each(:doctor_roots)"
"""Selects the rows at hand."""


@dataclass
class Batch:
    """The rows of one transaction.

    Attributes:
        rows: The rowids of each table, children before their parents.
        seen: The same rowids, by the name of the table.
        count: The number of rows.
        bytes: Their bytes.
        roots: How many rows of the query are completed with them.
    """

    rows: list[tuple[Table, list[int]]] = field(default_factory=list)
    seen: dict[str, set[int]] = field(default_factory=dict)
    count: int = 0
    bytes: int = 0
    roots: int = 0


class Selection:
    """The rows that a query selects, in batches.

    The query runs once for all rows, outside of any transaction. In each transaction it is repeated for the rows at
    hand, unless SQLite's data version shows that no other program has written since.
    """

    def __init__(self, connection: sqlite3.Connection, rows: Rows) -> None:
        """Run the query.

        Args:
            connection: The database.
            rows: The query.

        Raises:
            RepairRefused: A table that would be changed cannot be.
            RepairFailed: Rows that stay would depend on rows that go, or ids are not unique.
            sqlite3.Error: The query failed.
        """
        self.rows = rows
        self.root = writable(connection, rows.table)
        self._generation = generation_of_file(connection)
        self._scanned = False
        self._offenders = f"WITH doctor_offender (id) AS (\n{rows.sql.strip().rstrip(';')}\n) "
        self._all_asked = data_version(connection)
        self._batch_asked: int | None = None
        began = time.monotonic()
        self.pending = array("q", (row[0] for row in connection.execute(self._all_sql(), self._parameters())))
        self._took = time.monotonic() - began
        self._tables = {self.root.name.lower(): self.root}
        self._below: list[tuple[Table, str]] = []
        if self.pending:
            self._look_below(connection)
        self._check_ids(connection)
        self.done = 0
        self.limit = MIN_SCANNED_ROWS if self._scanned else FIRST_ROWS
        self._stale = 0

    def _look_below(self, connection: sqlite3.Connection) -> None:
        """Find what depends on the rows.

        Raises:
            RepairError: A dependent row could not be taken along.
        """
        every = self._parameters(list(self.pending))
        known = references(connection)
        loose: list[Reference] = []

        def descend(table: str, ids: str, above: tuple[str, ...]) -> Iterator[tuple[Table, str]]:
            """(table, condition) of everything that hangs on the ids that the SQL `ids` selects, deepest first."""
            for each in known:
                if each.parent != table:
                    continue
                condition = f"{quote(each.column)} IN ({ids})"
                if each.child in above or not each.plain:
                    loose.append(each)
                elif described := self._child(connection, each, condition, every):
                    self._scanned |= not has_index_for(connection, each)
                    below = f"SELECT id FROM main.{described.quoted} WHERE {condition}"
                    yield from descend(each.child, below, (*above, each.child))
                    yield described, condition

        root = self.root.name.lower()
        roots = f"{self.root.rowid} IN ({ROOTS})"
        self._below = list(descend(root, f"SELECT id FROM main.{self.root.quoted} WHERE {roots}", (root,)))
        taken: dict[str, list[str]] = {root: [roots]}
        for table, condition in self._below:
            taken.setdefault(table.name.lower(), []).append(condition)
        succession = self._generation.succession
        if succession and succession.enforced and succession.table in taken:
            loose += to_predecessor(self._generation)
        for each in loose:
            check_left(connection, each, taken, every)

    def _order(self, table: Table, alias: str) -> str:
        """Return the SQL order in which rows of a table are taken: from the end where no successor may stay.

        Args:
            table: The table.
            alias: Its name in the query, with a dot; empty for none.
        """
        succession = self._generation.succession
        if succession and succession.enforced and table.name.lower() == succession.table:
            return f"{alias}{quote(succession.number)} DESC, {alias}{table.rowid} DESC"
        return f"{alias}{table.rowid}" if table is self.root else ""

    def _child(
        self, connection: sqlite3.Connection, each: Reference, condition: str, every: dict[str, Value]
    ) -> Table | None:
        """Return the table of a reference if its rows can be taken along, None if they cannot be and there are none.

        Raises:
            RepairRefused: Rows of the table would have to be taken along, and cannot be.
        """
        if each.child not in self._tables:
            try:
                self._tables[each.child] = writable(connection, each.child)
            except RepairRefused as error:
                query = f"SELECT EXISTS (SELECT 1 FROM main.{quote(each.child)} WHERE {condition})"
                if connection.execute(query, every).fetchone()[0]:
                    raise RepairRefused(f"Rows of {each.child} depend on what would be quarantined. {error}") from error
                return None
        return self._tables[each.child]

    def _parameters(self, roots: list[int] | None = None) -> dict[str, Value]:
        return {**self.rows.params, "doctor_roots": as_json(roots or [])}

    def _all_sql(self) -> str:
        return (
            f"{self._offenders} SELECT t.{self.root.rowid} FROM main.{self.root.quoted} t"
            f" WHERE t.id COLLATE BINARY IN (SELECT id FROM doctor_offender) ORDER BY {self._order(self.root, 't.')}"
        )

    def _still_sql(self) -> str:
        # A join with the rows at hand first: SQLite pushes their ids down into any query that it can flatten, and runs
        # one that it cannot once, not once a row.
        return (
            f"{self._offenders} SELECT t.{self.root.rowid} FROM json_each(:doctor_roots) j"
            f" CROSS JOIN main.{self.root.quoted} t ON t.{self.root.rowid} = j.value"
            f" JOIN doctor_offender o ON o.id = t.id COLLATE BINARY"
            f" GROUP BY t.{self.root.rowid} ORDER BY {self._order(self.root, 't.')}"
        )

    def _check_ids(self, connection: sqlite3.Connection) -> None:
        """Check that ids are unique, since an id could otherwise name more rows than the rule found.

        This includes dependent rows: the journal recognizes a removed row by its id, so with two rows of one id it
        could neither recover nor undo the repair.

        Raises:
            RepairFailed: An id has several rows.
        """
        if not self.pending:
            return
        for table in self._tables.values():
            if table is not self.root and not _unique_id(connection, table):
                _check_once(connection, table)
        if _unique_id(connection, self.root):
            return
        ids = connection.execute(
            f"{self._offenders} SELECT count(DISTINCT id) FROM doctor_offender", self._parameters()
        ).fetchone()[0]
        if ids != len(self.pending):
            raise RepairFailed(
                f"Table {self.root.name} has {len(self.pending):,} rows under {ids:,} ids to be quarantined, so that"
                " an id does not say which is meant: give each row its own id, then run again."
            )

    def prepare(self, connection: sqlite3.Connection) -> None:
        """Repeat a slow query before the transaction if other programs have written, so that it need not run inside."""
        if self._took > QUICK and not self._current(connection):
            self._ask_again(connection)

    def _current(self, connection: sqlite3.Connection) -> bool:
        """Return whether no other program has written since the query was last repeated for the rows at hand."""
        return data_version(connection) in (self._all_asked, self._batch_asked)

    def _ask_again(self, connection: sqlite3.Connection) -> None:
        self._batch_asked = data_version(connection)
        began = time.monotonic()
        rest = list(self.pending[self.done : self.done + self.limit])
        still = [row[0] for row in connection.execute(self._still_sql(), self._parameters(rest))]
        self._took = time.monotonic() - began
        self.pending[self.done : self.done + len(rest)] = array("q", still)

    def next(self, connection: sqlite3.Connection) -> Batch:
        """Return the next batch, inside a transaction; it is empty if the query no longer finds the rows at hand.

        Raises:
            Stale: The query is slow and has to be repeated outside of the transaction.
        """
        if not self._current(connection):
            if self._took > QUICK and self._stale < ATTEMPTS:
                self._stale += 1
                raise Stale
            self._ask_again(connection)
        self._stale = 0
        batch = Batch()
        most = SCANNED_TOGETHER if self._scanned else ROOTS_TOGETHER
        together = min(self.limit, most.get(self._generation.canonical_name(self.root.name), self.limit))
        end = min(self.done + self.limit, len(self.pending))
        while self.done + batch.roots < end:
            roots = list(self.pending[self.done + batch.roots : min(self.done + batch.roots + together, end)])
            taken = self._gather(connection, roots, batch)
            batch.roots += taken
            if taken < len(roots):
                break
        return batch

    def _gather(self, connection: sqlite3.Connection, roots: list[int], batch: Batch) -> int:
        """Add the rows that depend on the roots, then the roots, while there is room.

        Returns:
            How many roots were added.
        """
        for table, condition in self._below:
            if not self._take(connection, table, condition, roots, batch):
                return 0
        before = batch.count
        self._take(connection, self.root, f"{self.root.rowid} IN ({ROOTS})", roots, batch)
        return batch.count - before

    def _take(
        self, connection: sqlite3.Connection, table: Table, condition: str, roots: list[int], batch: Batch
    ) -> bool:
        """Add the rows that meet a condition while there is room; return whether all of them fitted."""
        seen = batch.seen.setdefault(table.name, set())
        rowids: list[int] = []
        fits = True
        order = f" ORDER BY {order}" if (order := self._order(table, "")) else ""
        cursor = connection.execute(
            f"SELECT {table.rowid}, {table.size} FROM main.{table.quoted} WHERE {condition}{order}",
            self._parameters(roots),
        )
        for rowid, size in cursor:
            if rowid in seen:
                continue
            if batch.count and (batch.count >= self.limit or batch.bytes + size > MAX_BYTES):
                fits = False
                break
            seen.add(rowid)
            rowids.append(rowid)
            batch.count += 1
            batch.bytes += size
        cursor.close()
        if rowids:
            batch.rows.append((table, rowids))
        return fits

    def everything(self, connection: sqlite3.Connection) -> Iterator[tuple[str, int, int]]:
        """Yield (table, rowid, bytes) of all rows that the batches would take; only reads.

        A row that depends on several rows is yielded several times.
        """
        conditions = [*self._below, (self.root, f"{self.root.rowid} IN ({ROOTS})")]
        for start in range(0, len(self.pending), MAX_ROWS):
            roots = self._parameters(list(self.pending[start : start + MAX_ROWS]))
            for table, condition in conditions:
                query = f"SELECT {table.rowid}, {table.size} FROM main.{table.quoted} WHERE {condition}"
                yield from ((table.name, row, size) for row, size in connection.execute(query, roots))

    def committed(self, batch: Batch, held: float) -> None:
        """Continue after a batch, and choose the size of the next.

        Args:
            batch: The batch that was committed.
            held: Seconds for which its transaction kept other programs from writing.
        """
        self.done += batch.roots
        self._batch_asked = None
        if held > TARGET:
            least = min(self.limit, MIN_SCANNED_ROWS if self._scanned else MIN_ROWS)
            self.limit = max(least, int(self.limit * TARGET / held))
        elif held < TARGET / 2:
            self.limit = min(MAX_ROWS, self.limit * 2)

    @property
    def finished(self) -> bool:
        """Whether all rows of the query are completed."""
        return self.done >= len(self.pending)


def check_left(
    connection: sqlite3.Connection, each: Reference, taken: dict[str, list[str]], every: dict[str, Value]
) -> None:
    """Check that no row that stays refers to a row that goes, by a reference that is not followed.

    Args:
        connection: The database.
        each: The reference.
        taken: The SQL conditions of the rows that go, by table.
        every: The parameters of the conditions.

    Raises:
        RepairFailed: There is such a row.
    """
    if not each.plain:
        if connection.execute(f"SELECT EXISTS (SELECT 1 FROM main.{quote(each.child)})").fetchone()[0]:
            raise RepairFailed(
                f"Table {each.child} refers to {each.parent} by more than an id, so that its rows cannot be taken "
                "along: nothing was quarantined."
            )
        return
    gone = " UNION ".join(f"SELECT id FROM main.{quote(each.parent)} WHERE {one}" for one in taken[each.parent])
    goes = " OR ".join(
        f"rowid IN (SELECT rowid FROM main.{quote(each.child)} WHERE {one})" for one in taken.get(each.child, ())
    )
    stays = f" AND NOT ({goes})" if goes else ""
    query = f"SELECT id FROM main.{quote(each.child)} WHERE {quote(each.column)} IN ({gone}){stays} LIMIT 1"
    left = connection.execute(query, every).fetchone()
    if left is not None:
        raise RepairFailed(
            f"Row {left[0]} of {each.child} names by {each.column} a row that would be quarantined, and would be left "
            "without it: correct that first."
        )


def _check_once(connection: sqlite3.Connection, table: Table) -> None:
    again = connection.execute(
        f"SELECT id FROM main.{table.quoted} WHERE id IS NOT NULL GROUP BY id HAVING count(*) > 1 LIMIT 1"
    ).fetchone()
    if again is not None:
        raise RepairFailed(
            f"Table {table.name} has several rows with the id {again[0]}, which the journal could not distinguish:"
            " give each row its own id, then run again."
        )


def _unique_id(connection: sqlite3.Connection, table: Table) -> bool:
    """Return whether an index makes ids unique, also under the collation of the column."""
    name = table.quoted
    for _, index, unique, _, partial in connection.execute(f"PRAGMA main.index_list({name})").fetchall():
        columns = [row[2] for row in connection.execute(f"PRAGMA main.index_info({quote(index)})")]
        if unique and not partial and [str(column).lower() for column in columns] == ["id"]:
            lookup = f"SELECT 1 FROM main.{name} INDEXED BY {quote(index)} WHERE id = 'x'"
            plan = connection.execute(f"EXPLAIN QUERY PLAN {lookup}").fetchall()
            # Not searched: it has another collation, and calls two ids different that the column calls equal.
            if any(str(row[3]).startswith("SEARCH") for row in plan):
                return True
    return False
