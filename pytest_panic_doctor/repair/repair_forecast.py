"""What a repair would do in all: rows by table, diagrams, time and space; from a plan, or before a repair."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from pytest_panic_doctor.compute.estimate import estimate
from pytest_panic_doctor.database.interrupts import reraise_interrupts
from pytest_panic_doctor.examination.examination import Examination
from pytest_panic_doctor.repair.journal.preflight import MARGIN
from pytest_panic_doctor.repair.journal.size import SessionTotals
from pytest_panic_doctor.repair.preview import DatabasePlanner
from pytest_panic_doctor.rules.base import RepairKind, Rule, Scope

DIAGRAM_BYTES = 200_000
"""Upper bound of the bytes of a new diagram, in the database and in its rollback journal."""

CHECK_RATE = 0.4e9
"""Bytes that SQLite checks in a second."""

ROW_SECONDS = 0.35e-3
REPAIR_SECONDS = 0.2
WRITE_SECONDS = 0.05
"""Seconds that a quarantine takes for each row, and for each item, since its transaction waits for the disk and for
other programs; and seconds for each diagram that is written.
"""

START_SECONDS = 1.5
"""Seconds until the first item of a session runs, and for each worker."""

ITEM_SECONDS = 2e-3
EMBEDDING_SECONDS = 35e-6
"""Seconds that the rules take for each item and each embedding, whose vector is read."""

TIME_SPREAD = 1.5
"""What times of the disk and of rules may differ by: they are divided and multiplied by this."""


@dataclass(frozen=True, slots=True)
class Seconds:
    """An estimate of a time: its lower end, its middle and its upper end."""

    low: float = 0.0
    middle: float = 0.0
    high: float = 0.0

    def __add__(self, other: Seconds) -> Seconds:
        """Add the ends, so the sum is wider than chance would make it."""
        return Seconds(self.low + other.low, self.middle + other.middle, self.high + other.high)

    def shared(self, workers: int) -> Seconds:
        """Return the time of several workers who share the work."""
        return Seconds(self.low / workers, self.middle / workers, self.high / workers)


def about(seconds: float) -> Seconds:
    """Return an estimate with the usual spread."""
    return Seconds(seconds / TIME_SPREAD, seconds, seconds * TIME_SPREAD)


@dataclass(frozen=True, slots=True)
class Outlook:
    """What a repair would do.

    Attributes:
        rows: The rows to quarantine, by table.
        row_bytes: Their bytes, as the journal will have them.
        quarantines: The number of items with rows to quarantine.
        diagrams: The number of diagrams to compute.
        points: The points of their clouds.
        computing: The time of the computations on one core.
        peak: Bytes of the largest computation.
        outputs: The number of outputs to embed by a hook.
        examining: The time of the rules, on one core; 0 if it is not known.
        file_bytes: The size of the database, every page of which is checked first.
        stays: The number of items of each rule that stay sick.
    """

    rows: Mapping[str, int] = field(default_factory=dict)
    row_bytes: int = 0
    quarantines: int = 0
    diagrams: int = 0
    points: int = 0
    computing: Seconds = Seconds()
    peak: int = 0
    outputs: int = 0
    examining: float = 0.0
    file_bytes: int = 0
    stays: Mapping[str, int] = field(default_factory=dict)

    def time(self, workers: int) -> Seconds:
        """Return the time of the repair, without that of an embedding hook. One process writes at a time."""
        rows = ROW_SECONDS * sum(self.rows.values()) + REPAIR_SECONDS * self.quarantines
        start = START_SECONDS * (workers if workers > 1 else 0.5)
        alone = about(start + self.file_bytes / CHECK_RATE + rows + WRITE_SECONDS * self.diagrams)
        return alone + (self.computing + about(self.examining)).shared(workers)

    @property
    def does_something(self) -> bool:
        """Whether anything would be repaired."""
        return bool(self.rows or self.diagrams or self.outputs)

    @property
    def space(self) -> int:
        """Bytes that the journal and the new diagrams need at most, beside the margin that must stay free."""
        return self.row_bytes + DIAGRAM_BYTES * self.diagrams


def free_space(database: Path) -> int:
    """Return the bytes that a repair may use on the disk of a database."""
    return max(0, shutil.disk_usage(database.resolve().parent).free - MARGIN)


def known_before(rule: Rule) -> bool:
    """Whether the rows of a rule are looked up before a repair begins: those that few quick queries find."""
    quarantines = rule.repair in (RepairKind.QUARANTINE, RepairKind.KEEP_NEWEST)
    return quarantines and rule.scope not in (Scope.RUN, Scope.RUN_MODEL) and not rule.expensive and not rule.deep


def look_ahead(
    examination: Examination,
    scratch: Path,
    report: Callable[[str, float, float], None] = lambda what, done, of: None,  # noqa: ARG005
) -> Outlook:
    """Find before a repair what is known of it: the diagrams that are missing, and the rows that quick rules find.

    Args:
        examination: The session.
        scratch: A folder for a file that counts rows.
        report: Called with the progress, in items.
    """
    totals = SessionTotals(scratch / "ahead.sqlite")
    settings = examination.settings
    planner = DatabasePlanner(examination.database, settings.kinds, totals, most=settings.max_quarantine)
    examiner = examination.examiner(planner=planner.plan, ahead=True)
    entries = [entry for entry in examination.entries() if known_before(examination.rules[entry.rule])]
    stays: Counter[str] = Counter()
    quarantines = 0
    for number, entry in enumerate(entries):
        report("looking for what is to be repaired", number, len(entries))
        # A rule that cannot be asked repairs nothing; its item asks again, and says why.
        with suppress(Exception), reraise_interrupts():
            outcome = examiner.examine(examination.rules[entry.rule], entry.subject)
            if outcome.status == "failed":
                quarantines += "bytes" in outcome.measures
                stays[entry.rule] += "bytes" not in outcome.measures
    missing = examination.missing_diagrams
    return Outlook(
        rows=totals.by_table(),
        row_bytes=totals.total()[1],
        quarantines=quarantines,
        diagrams=len(missing),
        points=sum(each.points for each in missing),
        computing=computing_time((each.points for each in missing), examination.engine),
        examining=ITEM_SECONDS * sum(1 for _ in examination.entries())
        + EMBEDDING_SECONDS * examination.rows.get("embedding", 0),
        file_bytes=settings.database.stat().st_size,
        stays=+stays,
    )


def computing_time(points: Iterable[int], engine: str) -> Seconds:
    """Estimate the computation of diagrams of which only the number of points is known.

    How many of them are distinct is unknown: half of them, or at worst all.
    """
    low = middle = high = 0.0
    for count in points:
        low += estimate(max(1, count // 4), engine).seconds
        middle += estimate(max(1, count // 2), engine).seconds
        high += estimate(count, engine).seconds_high
    return Seconds(low, middle, high)
