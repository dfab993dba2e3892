"""Detect experiments that the research tool is running now. Does not import pytest.

The tool adds missing rows itself, and stops at its UNIQUE constraint if somebody else has added them. So nothing is
embedded or computed for an experiment that has begun, is not completed, and has a recent row by another program.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from pytest_panic_doctor.database.generations import generations
from pytest_panic_doctor.rules.base import Finding, Rule

WINDOW = 3600.0
"""Seconds: an experiment with a newer row counts as running. The slowest step of the tool takes some minutes."""

AHEAD = 86_400.0
"""Seconds that a stored time may be in the future: the tool writes local times, perhaps of another time zone."""

NEWEST = 500
"""Number of embeddings at the end of the table that are read: they have no index by experiment."""

TO_COME = ("embedding-missing", "diagram-missing", "run-lockstep")
"""The rules that find what the tool adds last, or has not yet added to all runs of a network."""

MINE = "AND r.experiment_id = :experiment"
OF_EXPERIMENT = "SELECT 'experimentconfig', rowid, id, started_at, NULL FROM experimentconfig WHERE id = :experiment"
OF_INVOCATIONS = (
    "SELECT 'invocation', i.rowid, i.id, i.started_at, i.completed_at FROM run r JOIN invocation i ON i.rowid = "
    "(SELECT max(rowid) FROM invocation WHERE run_id = r.id) WHERE r.experiment_id = :experiment"
)
OF_EMBEDDINGS = (
    "SELECT 'embedding', e.rowid, e.id, e.started_at, e.completed_at FROM (SELECT rowid, id, started_at, completed_at, "
    f"invocation_id FROM embedding ORDER BY rowid DESC LIMIT {NEWEST}) e "
    f"JOIN invocation i ON i.id = e.invocation_id JOIN run r ON r.id = i.run_id {MINE}"
)
OF_DIAGRAMS = (
    "SELECT 'persistencediagram', d.rowid, d.id, d.started_at, d.completed_at FROM run r "
    f"JOIN persistencediagram d ON d.run_id = r.id {MINE}"
)


Written = Callable[[Path, str, int], bool]
"""Whether the plugin wrote a row: path of the database, table, rowid."""


def never_written(_database: Path, _table: str, _row: int) -> bool:
    """Return False: without a journal, the plugin wrote nothing."""
    return False


@dataclass(frozen=True, slots=True)
class Running:
    """Detects running experiments of one database; `window` in seconds, 0 switches it off."""

    database: Path
    window: float = WINDOW
    written: Written = never_written
    """Whether the plugin itself wrote a row, according to its journal."""

    def clause(self, db: sqlite3.Connection, experiment: str | None) -> str:
        """Explain why an experiment counts as running; empty if it does not.

        Its newest rows are found by the indexes; rows that the plugin wrote do not count.
        """
        if not self.window or experiment is None:
            return ""
        try:
            begun = db.execute("SELECT completed_at FROM experimentconfig WHERE id = ?", (experiment,)).fetchone()
            if begun is None or begun[0] is not None:
                return ""
            ages = self._ages(db, experiment)
            youngest = next(ages, None)
        except sqlite3.OperationalError:
            return ""  # A column or table is missing: the rule `schema` reports it.
        if youngest is None:
            return ""
        return (
            f"experiment {experiment} is running: it is not completed, and has a row that is "
            f"{format_age(youngest)} old (doctor_running)"
        )

    def to_come(self, db: sqlite3.Connection, rule: Rule, experiment: str | None, found: Iterable[Finding]) -> str:
        """Explain why what a rule misses may still be added, as the note of a skipped item; empty if it is damage."""
        found = tuple(found)
        if rule.id not in TO_COME or any(each.table == "experimentconfig" for each in found):
            return ""
        clause = self.clause(db, experiment)
        return f"{'; '.join(each.message for each in found)}: it may still come, since {clause}" if clause else ""

    def _ages(self, db: sqlite3.Connection, experiment: str) -> Iterator[float]:
        """Yield the ages in seconds of recent rows that the plugin did not write."""
        for query in (OF_EXPERIMENT, OF_INVOCATIONS, OF_DIAGRAMS, OF_EMBEDDINGS):
            for table, row, row_id, *times in db.execute(query, {"experiment": experiment}):
                age = youngest(row_id, times)
                if age is not None and age < self.window and not self.written(self.database, table, row):
                    yield age


def youngest(row_id: object, times: Iterable[object]) -> float | None:
    """Compute the age of a row.

    Times are local, without a time zone, or in UTC, as their generation writes them. The id is a UUIDv7, which holds a
    time in any time zone.

    Args:
        row_id: The id as stored.
        times: The row's times as stored.

    Returns:
        Seconds, at least 0; None if neither gives a time.
    """
    now = time.time()
    made = [parse_moment(text) for text in times]
    made += [each.time_of_id(str(row_id)) for each in generations()]
    ages = [now - each for each in made if each is not None and each < now + AHEAD]
    return max(0.0, min(ages)) if ages else None


def parse_moment(text: object) -> float | None:
    """Parse a stored time as seconds since 1970; None if it is invalid."""
    try:
        return datetime.fromisoformat(text).timestamp() if isinstance(text, str) else None
    except (ValueError, OverflowError):
        return None


def format_age(age: float) -> str:
    """Format an age, e.g. `12 s` or `5 min`."""
    return f"{age:.0f} s" if age < 120 else f"{age / 60:.0f} min"
