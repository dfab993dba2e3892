"""What quarantines would take, without taking it: every row once, however many rows it hangs on."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import closing
from pathlib import Path
from types import TracebackType
from typing import Self

from pytest_panic_doctor.database.subject import Rows
from pytest_panic_doctor.repair.journal import journal as journals
from pytest_panic_doctor.repair.journal.selection import Selection

RowsAndBytes = tuple[int, int]
"""(rows, their bytes as the journal counts them)."""

TOTALS_TIMEOUT = 600.0
"""Seconds that a worker waits for the others' turn at the file that they share."""

COUNTED = "SELECT count(*), coalesce(sum(bytes), 0)"


class QuarantinePreview:
    """The rows that the quarantines of one item would take, in a temporary database that SQLite removes by itself.

    Where a query would find less once an earlier one's rows are gone, what it finds now is counted.
    """

    def __init__(self, db: sqlite3.Connection, found: Iterable[Rows]) -> None:
        """Select as the repair would; `db` is only read. Raises what `Selection` raises."""
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
        """What they come to."""
        return fetch_totals(self.connection, f"{COUNTED} FROM taken")

    @property
    def by_table(self) -> dict[str, int]:
        """How many rows of each table, the most first; tables by their names in lower case."""
        query = "SELECT lower(tbl), count(*) FROM taken GROUP BY 1 ORDER BY 2 DESC, 1"
        return {table: int(count) for table, count in self.connection.execute(query)}

    def rows_of(self, table: str) -> list[int]:
        """The rowids of a table's rows."""
        return [row for (row,) in self.connection.execute("SELECT row FROM taken WHERE lower(tbl) = ?", (table,))]

    def __enter__(self) -> Self:
        """Closed at the end of a `with`."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let go of the temporary database."""
        self.connection.close()


class SessionTotals:
    """What the quarantines of a whole session would take, by rule: one scratch file for all its processes."""

    def __init__(self, path: Path) -> None:
        """Nothing is made before something is added."""
        self.path = path

    def add(self, rule: str, taken: QuarantinePreview) -> None:
        """Add what an item of `rule` would take; rows that another item of it would quarantine too stay one."""
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

    def by_rule(self) -> dict[str, RowsAndBytes]:
        """The weight of each rule."""
        if not self.path.exists():
            return {}
        with closing(sqlite3.connect(self.path)) as db:
            query = "SELECT rule, count(*), sum(bytes) FROM planned GROUP BY rule"
            return {rule: (int(rows), int(size)) for rule, rows, size in db.execute(query)}

    def besides(self, taken: QuarantinePreview) -> dict[str, int]:
        """How many rows of each table were added so far and are not among `taken`."""
        if not self.path.exists():
            return {}
        own = set(taken.connection.execute("SELECT tbl, row FROM taken"))
        with closing(sqlite3.connect(self.path)) as db:
            planned = set(db.execute("SELECT DISTINCT tbl, row FROM planned")) - own
        return Counter(str(table).lower() for table, _ in planned)

    def total(self) -> RowsAndBytes:
        """The weight of all rules together: a row that several would take is taken once."""
        if not self.path.exists():
            return 0, 0
        with closing(sqlite3.connect(self.path)) as db:
            return fetch_totals(db, f"{COUNTED} FROM (SELECT DISTINCT tbl, row, bytes FROM planned)")


def quarantine_size(db: sqlite3.Connection, found: Iterable[Rows]) -> RowsAndBytes:
    """How many rows the quarantines of `found` take, with all that hangs on them, and their bytes."""
    with QuarantinePreview(db, found) as taken:
        return taken.weight


def fetch_totals(db: sqlite3.Connection, query: str) -> RowsAndBytes:
    """The only row of a query."""
    rows, size = db.execute(query).fetchone()
    return int(rows), int(size)


def rows_by_table(database: Path, repairs: Sequence[int]) -> dict[str, int]:
    """How many rows of each table these repairs changed, the most first; tables by their names in lower case.

    Empty where the journal cannot be read now: the repairs are done, and their number of rows is known without it.
    """
    query = (
        "SELECT lower(c.table_name), count(*) FROM changes c JOIN steps s ON s.id = c.step "
        "WHERE s.status = 'applied' AND s.repair IN (SELECT value FROM json_each(?)) GROUP BY 1 ORDER BY 2 DESC, 1"
    )
    try:
        with closing(journals.connect(journals.journal_path(database), "mode=rw", 10.0, sqlite3.Connection)) as journal:
            return {table: int(count) for table, count in journal.execute(query, (json.dumps(list(repairs)),))}
    except sqlite3.Error:
        return {}
