"""Where the defects of a run sit in its sequence, for the timeline that the page draws of it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from pytest_panic_doctor.database.connection import Database
from pytest_panic_doctor.examination.outcome import Result
from pytest_panic_doctor.report.html.run_locations import chunks, read_rows

MOST_TIMELINES = 400
"""Maximum number of runs with a timeline."""
MOST_SPANS = 300
"""Maximum number of marks of one rule in one timeline."""
LARGEST_SEQUENCE = 10_000_000
"""A sequence number beyond this is not drawn."""

PLACE_QUERIES = {
    "invocation": "SELECT i.run_id, i.sequence_number FROM json_each(?) JOIN invocation i ON i.id = value",
    "embedding": "SELECT i.run_id, i.sequence_number FROM json_each(?) JOIN embedding e ON e.id = value "
    "JOIN invocation i ON i.id = e.invocation_id",
}
"""For each table whose rows have a place in a run, a query for the run and the sequence number of some rows."""
SEQUENCE = "invocation-sequence"
"""The rule whose findings name runs; what is missing there is found by their sequence numbers."""


@dataclass(slots=True)
class Timeline:
    """One run: its length, and for each (rule, embedding model) the sequence numbers with a defect."""

    length: int
    marks: dict[tuple[str, str], set[int]] = field(default_factory=dict)
    missing: list[tuple[int, int]] = field(default_factory=list)

    def as_plain(self, run: int) -> dict[str, object]:
        """Convert to plain values; `run` is its number on the page."""
        marks = [[rule, model, spans(sorted(numbers))[:MOST_SPANS]] for (rule, model), numbers in self.marks.items()]
        return {"run": run, "length": self.length, "marks": marks, "missing": self.missing[:MOST_SPANS]}


def spans(numbers: Sequence[int]) -> list[tuple[int, int]]:
    """Join consecutive numbers, which are sorted, to spans (first, last)."""
    found: list[tuple[int, int]] = []
    for number in numbers:
        if found and number <= found[-1][1] + 1:
            found[-1] = found[-1][0], number
        else:
            found.append((number, number))
    return found


def gaps(numbers: Sequence[int], length: int) -> list[tuple[int, int]]:
    """Return the spans from 0 to `length` - 1 in which there is none of the numbers, which are sorted."""
    found, following = [], 0
    for number in [*numbers, length]:
        if number > following:
            found.append((following, number - 1))
        following = max(following, number + 1)
    return found


class Timelines:
    """Collects the timelines of the runs that findings are about, in short read transactions."""

    def __init__(self, database: Database, lengths: Mapping[str, int]) -> None:
        """Store the database, and the length that each run should have."""
        self.database = database
        self.lengths = lengths
        self.found: dict[str, Timeline] = {}

    def add(self, items: Iterable[Result]) -> None:
        """Add the findings of items, the accepted ones too."""
        for item in items:
            for finding in (*item.findings, *item.accepted):
                if finding.table in PLACE_QUERIES and item.status != "fixed":
                    self._add_rows(item.rule, finding.embedding_model or "", finding.table, finding.ids)
                if (run := finding.run) and (timeline := self.of(run)) and item.rule == SEQUENCE:
                    self._add_sequence(run, timeline)

    def of(self, run: str) -> Timeline | None:
        """Return the timeline of a run; None if the run is not known, or there are too many."""
        if run not in self.found and run in self.lengths and len(self.found) < MOST_TIMELINES:
            self.found[run] = Timeline(self.lengths[run])
        return self.found.get(run)

    def _add_rows(self, rule: str, model: str, table: str, ids: Sequence[str]) -> None:
        for chunk in chunks(ids):
            for run, number in read_rows(self.database, PLACE_QUERIES[table], (json.dumps(chunk),)):
                if is_drawable(number) and (timeline := self.of(str(run))):
                    timeline.marks.setdefault((rule, model), set()).add(int(str(number)))

    def _add_sequence(self, run: str, timeline: Timeline) -> None:
        """Find the numbers that a run lacks, and those that it has more than once."""
        query = "SELECT sequence_number, count(*) FROM invocation WHERE run_id = ? GROUP BY 1 ORDER BY 1"
        rows = read_rows(self.database, query, (run,))
        counted = [(int(str(number)), count) for number, count in rows if is_drawable(number)]
        timeline.missing = gaps([number for number, _ in counted], timeline.length)
        if again := {number for number, count in counted if int(str(count)) > 1}:
            timeline.marks[SEQUENCE, ""] = again


def is_drawable(number: object) -> bool:
    """Whether a value is a sequence number that has a place in a timeline."""
    return isinstance(number, int) and 0 <= number < LARGEST_SEQUENCE
