"""The outcome of one item: made where it is examined, sent to the controller, and read by every report."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Literal

from pytest_panic_doctor.rules.base import Finding

Status = Literal["passed", "failed", "skipped", "fixed"]
Counts = Mapping[str, int]
"""Number of examined rows by table; empty if a rule of the user does not count them."""
Number = int | float | str
AcceptedBy = Literal["", "severity", "baseline", "run"]

NO_MEASURES: Mapping[str, Number] = {}


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of one item.

    `findings` are those that are left or, if the item is fixed, those that were repaired. `note` is the reason why it
    was skipped or not repaired, or how it was fixed. `warnings` are sentences. `measures` are numbers for reports:
    points, seconds, peak_memory (bytes). `accepted` are findings that do not fail the item, by `accepted_by`.
    `not_started`: the time was over. `rows` are those that the last check examined. `error` is what ended the check
    early, so that there may be more findings. `planned`: `--doctor-fix` would repair it, as its measures say. What no
    report has: the `trace` of the error, and `bug` if this package raised it.
    """

    status: Status
    findings: tuple[Finding, ...] = ()
    note: str = ""
    warnings: tuple[str, ...] = ()
    measures: Mapping[str, Number] = field(default_factory=dict)
    accepted: tuple[Finding, ...] = ()
    accepted_by: AcceptedBy = ""
    not_started: bool = False
    rows: Counts = field(default_factory=dict)
    error: str = ""
    planned: bool = False
    trace: str = ""
    bug: bool = False

    def as_plain(self) -> dict[str, object]:
        """Convert to plain values in the form of the JSON report; empty ones are left out."""
        plain = {
            "outcome": self.status,
            "findings": [each.as_dict() for each in self.findings],
            "note": self.note,
            "warnings": list(self.warnings),
            "measures": dict(self.measures),
            "accepted": [each.as_dict() for each in self.accepted],
            "by": self.accepted_by,
            "late": self.not_started,
            "rows": dict(self.rows),
            "error": self.error,
        }
        return {key: value for key, value in plain.items() if value}


@dataclass(frozen=True, slots=True, kw_only=True)
class Result(Outcome):
    """The outcome of one item in the controller, with the item's node id, its rule, and the seconds that it took."""

    nodeid: str
    rule: str
    duration: float

    @property
    def display_outcome(self) -> str:
        """The outcome as shown: `warned` if it passed with accepted findings, `late` if it was not started."""
        return "late" if self.not_started else "warned" if self.accepted and self.status == "passed" else self.status

    def as_dict(self) -> dict[str, object]:
        """Convert to the form of the JSON report."""
        plain: dict[str, object] = {"nodeid": self.nodeid, "rule": self.rule, "outcome": self.status}
        return plain | {"duration": round(self.duration, 6), "findings": []} | self.as_plain()


def to_plain(rule: str, outcome: Outcome) -> dict[str, object]:
    """Convert an outcome to plain values for a pytest report.

    Empty values are left out, because pytest keeps every report until the end.
    """
    return {"rule": rule} | outcome.as_plain() | ({"planned": True} if outcome.planned else {})


def from_plain(nodeid: str, duration: float, plain: Mapping[str, object]) -> Result:
    """Make a result from the output of `to_plain`, or of `Result.as_dict`, and from the pytest report."""
    findings, accepted = plain.get("findings", ()), plain.get("accepted", ())
    return Result(
        nodeid=nodeid,
        rule=sys.intern(str(plain["rule"])),
        duration=duration,
        status=sys.intern(str(plain["outcome"])),  # type: ignore[arg-type]
        findings=tuple(map(Finding.from_dict, findings)),  # type: ignore[call-overload]
        note=str(plain.get("note", "")),
        warnings=tuple(plain.get("warnings", ())),  # type: ignore[arg-type]
        measures=plain.get("measures", NO_MEASURES),  # type: ignore[arg-type]
        accepted=tuple(map(Finding.from_dict, accepted)),  # type: ignore[call-overload]
        accepted_by=str(plain.get("by", "")),  # type: ignore[arg-type]
        not_started=bool(plain.get("late")),
        rows=shared_counts(tuple(plain.get("rows", NO_MEASURES).items())),  # type: ignore[attr-defined]
        error=str(plain.get("error", "")),
        planned=bool(plain.get("planned")),
    )


@cache
def shared_counts(rows: tuple[tuple[str, int], ...]) -> Counts:
    """Return one shared object for equal counts; most diagrams have the same."""
    return dict(rows)
