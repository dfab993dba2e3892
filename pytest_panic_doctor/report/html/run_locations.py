"""Find the runs of a finding's rows, so that the map shows where in an experiment the damage is."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from pytest_panic_doctor.database.connection import Database, Unreadable

LOOKUPS = 100_000
"""Maximum number of rows that are looked up for one report: each reads two or three pages of the file."""

CHUNK = 2_000
"""Number of rows that are looked up in one read transaction."""

RUNS_OF = {
    "run": "SELECT value, count(*) FROM json_each(?) GROUP BY 1",
    "invocation": "SELECT i.run_id, count(*) FROM json_each(?) JOIN invocation i ON i.id = value GROUP BY 1",
    "embedding": "SELECT i.run_id, count(*) FROM json_each(?) JOIN embedding e ON e.id = value "
    "JOIN invocation i ON i.id = e.invocation_id GROUP BY 1",
    "persistencediagram": "SELECT d.run_id, count(*) FROM json_each(?) JOIN persistencediagram d ON d.id = value "
    "GROUP BY 1",
}


@dataclass(frozen=True, slots=True)
class RunCounts:
    """Numbers of rows by run id; `complete` if all rows were found, so that the other runs have none of them."""

    runs: Mapping[str, int]
    complete: bool


UNKNOWN_RUNS = RunCounts({}, complete=False)


class RunLocator:
    """Looks up rows, within the limit of one report."""

    def __init__(self, database: Database, lookups: int = LOOKUPS) -> None:
        """Keep the database; it is read in short transactions, and not at all if `lookups` is 0."""
        self.database = database
        self.left = lookups

    def place(self, table: str, ids: Sequence[str], count: int) -> RunCounts:
        """Find the runs of `count` rows of a table, of which `ids` are known."""
        if table not in RUNS_OF or not ids:
            return UNKNOWN_RUNS
        found = self.runs_of(table, ids)
        return RunCounts(found, found.total() == count)

    def runs_of(self, table: str, ids: Sequence[str]) -> Counter[str]:
        """Count the existing rows by run, within the limit of look-ups."""
        allowed = ids[: self.left]
        self.left -= len(allowed)
        found: Counter[str] = Counter()
        for chunk in chunks(allowed):
            rows = read_rows(self.database, RUNS_OF[table], (json.dumps(chunk),))
            found += Counter({str(run): int(str(count)) for run, count in rows})
        return found


def read_rows(database: Database, query: str, params: Sequence[str]) -> list[tuple[object, object]]:
    """Return the rows of a query for two values; none if SQLite cannot read them, which another item reports."""

    def look(db: sqlite3.Connection) -> list[tuple[object, object]]:
        return db.execute(query, params).fetchall()

    try:
        return database.read(look)
    except (Unreadable, sqlite3.DatabaseError):
        return []


def chunks(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    """Split `ids` into pieces of one read transaction each."""
    return (ids[start : start + CHUNK] for start in range(0, len(ids), CHUNK))
