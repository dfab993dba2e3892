"""Computes how much a quarantine would take, without taking it; a row that depends on several rows is counted once."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Self

from pytest_panic_doctor.database.subject import Rows
from pytest_panic_doctor.repair.journal.identity import journal_path
from pytest_panic_doctor.repair.journal.opening import connect
from pytest_panic_doctor.repair.journal.selection import Selection

RowsAndBytes = tuple[int, int]
"""(number of rows, their bytes as the journal counts them)."""

TOTALS_TIMEOUT = 600.0
"""Seconds that a worker waits for the file that all workers share."""


class QuarantinePreview:
    """The rows that the quarantines of one item would take, in a temporary database that SQLite deletes.

    If a query would find less after an earlier quarantine, what it finds now is counted.
    """

    def __init__(self, db: sqlite3.Connection, found: Iterable[Rows]) -> None:
        """Select the rows as the repair would.

        Args:
            db: The database, which is only read.
            found: The queries for the rows.

        Raises:
            RepairRefused: A table cannot be changed.
            RepairFailed: Rows that stay would depend on rows that go.
        """
        self.connection = sqlite3.connect("", timeout=TOTALS_TIMEOUT, isolation_level=None)
        try:
            self.connection.execute(
                "CREATE TABLE taken (tbl TEXT, row INTEGER, bytes INTEGER, PRIMARY KEY (tbl, row)) WITHOUT ROWID"
            )
            self.connection.execute("BEGIN")
            for rows in found:
                everything = Selection(db, rows).everything(db)
                self.connection.executemany("INSERT OR IGNORE INTO taken VALUES (?, ?, ?)", everything)
            self.connection.execute("COMMIT")
        except BaseException:
            self.connection.close()
            raise

    @property
    def weight(self) -> RowsAndBytes:
        """The number of rows, and their bytes."""
        rows, size = self.connection.execute("SELECT count(*), coalesce(sum(bytes), 0) FROM taken").fetchone()
        return rows, size

    @property
    def by_table(self) -> dict[str, int]:
        """The number of rows of each table, the largest first; names of tables in lower case."""
        query = "SELECT lower(tbl), count(*) FROM taken GROUP BY 1 ORDER BY 2 DESC, 1"
        return {table: int(count) for table, count in self.connection.execute(query)}

    def rows_of(self, table: str) -> list[int]:
        """Return the rowids of the rows of a table."""
        return [row for (row,) in self.connection.execute("SELECT row FROM taken WHERE lower(tbl) = ?", (table,))]

    def __enter__(self) -> Self:
        """Return the preview, which is closed at the end of the block."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the temporary database."""
        self.connection.close()


class SessionTotals:
    """What the quarantines of all items would take, by rule, in one scratch file for all processes of the session."""

    def __init__(self, path: Path) -> None:
        """Store the path; the file is created when something is added."""
        self.path = path

    def add(self, rule: str, taken: QuarantinePreview) -> None:
        """Add what an item of a rule would take; a row that several items of the rule would take is counted once."""
        db = taken.connection
        db.execute("ATTACH ? AS session", (str(self.path),))
        db.execute("PRAGMA session.synchronous = OFF")
        db.execute("BEGIN IMMEDIATE")
        db.execute(
            "CREATE TABLE IF NOT EXISTS session.planned "
            "(rule TEXT, tbl TEXT, row INTEGER, bytes INTEGER, PRIMARY KEY (rule, tbl, row)) WITHOUT ROWID"
        )
        db.execute("INSERT OR IGNORE INTO session.planned SELECT ?, tbl, row, bytes FROM main.taken", (rule,))
        db.execute("COMMIT")
        db.execute("DETACH session")

    def _rows(self, query: str) -> list[tuple[str, int, int]]:
        """Return the rows of a query; none if nothing was added."""
        if not self.path.exists():
            return []
        with closing(sqlite3.connect(self.path)) as db:
            return db.execute(query).fetchall()

    def by_rule(self) -> dict[str, RowsAndBytes]:
        """Return the rows and bytes of each rule."""
        query = "SELECT rule, count(*), sum(bytes) FROM planned GROUP BY rule"
        return {rule: (rows, size) for rule, rows, size in self._rows(query)}

    def by_table(self) -> dict[str, int]:
        """Return the rows of each table, the largest first; a row of several rules is counted once."""
        query = "SELECT lower(tbl), count(DISTINCT row), 0 FROM planned GROUP BY 1 ORDER BY 2 DESC, 1"
        return {table: count for table, count, _ in self._rows(query)}

    def besides(self, taken: QuarantinePreview) -> dict[str, int]:
        """Return how many rows of each table were added before and are not in a preview."""
        own = set(taken.connection.execute("SELECT tbl, row, 0 FROM taken"))
        planned = set(self._rows("SELECT DISTINCT tbl, row, 0 FROM planned")) - own
        return Counter(table.lower() for table, *_ in planned)

    def total(self) -> RowsAndBytes:
        """Return the rows and bytes of all rules together; a row of several rules is counted once."""
        found = self._rows(
            "SELECT '', count(*), coalesce(sum(bytes), 0) FROM (SELECT DISTINCT tbl, row, bytes FROM planned)"
        )
        return found[0][1:] if found else (0, 0)


def quarantine_size(db: sqlite3.Connection, found: Iterable[Rows]) -> RowsAndBytes:
    """Return how many rows a quarantine takes, with all rows that depend on them, and their bytes."""
    with QuarantinePreview(db, found) as taken:
        return taken.weight


def rows_by_table(database: Path, repairs: Sequence[int]) -> dict[str, int]:
    """Return how many rows of each table some repairs changed, the largest first; names of tables in lower case.

    Returns:
        An empty dictionary if the journal cannot be read: the repairs are done, and their number of rows is known.
    """
    query = (
        "SELECT lower(c.table_name), count(*) FROM changes c JOIN steps s ON s.id = c.step "
        "WHERE s.status = 'applied' AND s.repair IN (SELECT value FROM json_each(?)) GROUP BY 1 ORDER BY 2 DESC, 1"
    )
    try:
        with closing(connect(journal_path(database))) as journal:
            return {table: int(count) for table, count in journal.execute(query, (json.dumps(list(repairs)),))}
    except sqlite3.Error:
        return {}
