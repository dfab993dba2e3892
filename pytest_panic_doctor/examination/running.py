"""Whether an experiment is being run by the research tool now. Knows no pytest.

The tool adds what is missing itself, and ends at its UNIQUE constraint where somebody else was faster. So nothing is
embedded or computed for an experiment that has begun, is not completed, and has a row that somebody else wrote lately.
"""

from __future__ import annotations

import re
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from pytest_panic_doctor.rules.base import Finding, Rule

WINDOW = 3600.0
"""Seconds: an experiment whose newest row is younger is running. The slowest step of the tool takes some minutes."""

AHEAD = 86_400.0
"""Seconds that a time may be ahead of this machine's: the tool writes local times, perhaps of another time zone."""

NEWEST = 500
"""Embeddings at the end of the table that are looked at: they have no index on their experiment."""

TO_COME = ("embedding-missing", "diagram-missing")
"""The rules that find what the tool adds last."""

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
"""Whether the doctor wrote a row of a database: its path, the table, the rowid."""


def never_written(_database: Path, _table: str, _row: int) -> bool:
    """Where there is no journal, the doctor wrote nothing."""
    return False


@dataclass(frozen=True, slots=True)
class Running:
    """Tells which experiments of one database are running; `window` in seconds, 0: none is."""

    database: Path
    window: float = WINDOW
    written: Written = never_written
    """Whether the doctor itself wrote a row, as its journal has it."""

    def clause(self, db: sqlite3.Connection, experiment: str | None) -> str:
        """Why an experiment is taken for running, as a clause; empty where it is not.

        Its newest rows are looked up by the indexes; those that the doctor wrote itself do not count.
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
            return ""  # A column or table is missing: the rule `schema` says so.
        if youngest is None:
            return ""
        return (
            f"experiment {experiment} is running: it is not completed, and has a row that is {said(youngest)} old "
            "(doctor_running)"
        )

    def to_come(self, db: sqlite3.Connection, rule: Rule, experiment: str | None, found: Iterable[Finding]) -> str:
        """Why what a rule has found may still come, as the sentence of a skipped item; empty where it is damage."""
        found = tuple(found)
        if rule.id not in TO_COME or any(each.table == "experimentconfig" for each in found):
            return ""
        clause = self.clause(db, experiment)
        return f"{'; '.join(each.message for each in found)}: it may still come, since {clause}" if clause else ""

    def _ages(self, db: sqlite3.Connection, experiment: str) -> Iterator[float]:
        """Ages in seconds of young rows that are not the doctor's."""
        for query in (OF_EXPERIMENT, OF_INVOCATIONS, OF_DIAGRAMS, OF_EMBEDDINGS):
            for table, row, row_id, *times in db.execute(query, {"experiment": experiment}):
                age = youngest(row_id, times)
                if age is not None and age < self.window and not self.written(self.database, table, row):
                    yield age


def youngest(row_id: object, times: Iterable[object]) -> float | None:
    """The age of a row in seconds, 0 at least, by its times and by its id; None where neither tells it.

    Times are local ones without a zone. The id is a UUIDv7 as the tool makes them, whose first 36 bits are seconds
    since 1970, wherever it was made.
    """
    now = time.time()
    made = [moment(text) for text in times]
    if re.fullmatch(r"0[0-9a-f]{11}7[0-9a-f]{19}", str(row_id)):
        made.append(int(str(row_id)[:9], 16))
    ages = [now - each for each in made if each is not None and each < now + AHEAD]
    return max(0.0, min(ages)) if ages else None


def moment(text: object) -> float | None:
    """A stored time as seconds since 1970; None where it is none."""
    try:
        return datetime.fromisoformat(text).timestamp() if isinstance(text, str) else None
    except (ValueError, OverflowError):
        return None


def said(age: float) -> str:
    """`12 s`, `5 min`."""
    return f"{age:.0f} s" if age < 120 else f"{age / 60:.0f} min"
