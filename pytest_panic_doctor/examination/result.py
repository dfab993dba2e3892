"""The result of one item, in the form that is sent from a worker to the controller and to every report."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache

from pytest_panic_doctor.examination.examiner import Outcome

NO_MEASURES: Mapping[str, object] = {}


@dataclass(frozen=True, slots=True)
class Result:
    """The result of one item; `findings` as in the JSON report, `warnings` as sentences."""

    nodeid: str
    rule: str
    outcome: str
    duration: float
    findings: tuple[Mapping[str, object], ...] = ()
    note: str = ""
    warnings: tuple[str, ...] = ()
    measures: Mapping[str, object] = field(default_factory=dict)
    accepted: tuple[Mapping[str, object], ...] = ()
    accepted_by: str = ""
    not_started: bool = False
    rows: Mapping[str, int] = field(default_factory=dict)
    """Number of examined rows by table; empty if the rule does not count."""
    error: str = ""

    @property
    def display_outcome(self) -> str:
        """The outcome as shown: `warned` if it passed with accepted findings, `late` if it was not started."""
        return "late" if self.not_started else "warned" if self.accepted and self.outcome == "passed" else self.outcome

    def as_dict(self) -> dict[str, object]:
        """Convert to the form of the JSON report."""
        plain: dict[str, object] = {
            "nodeid": self.nodeid,
            "rule": self.rule,
            "outcome": self.outcome,
            "duration": round(self.duration, 6),
            "findings": list(self.findings),
        }
        optional: dict[str, object] = {
            "note": self.note,
            "warnings": list(self.warnings),
            "measures": dict(self.measures),
        }
        optional |= {
            "accepted": list(self.accepted),
            "by": self.accepted_by,
            "late": self.not_started,
            "rows": dict(self.rows),
        }
        optional |= {"error": self.error}
        return plain | {key: value for key, value in optional.items() if value}


def to_plain(rule: str, outcome: Outcome) -> dict[str, object]:
    """Convert an outcome to plain values for a pytest report.

    Empty values are left out, because pytest keeps every report until the end.
    """
    plain: dict[str, object] = {"rule": rule, "outcome": outcome.status}
    more: dict[str, object] = {
        "findings": [finding.as_dict() for finding in outcome.findings],
        "note": outcome.note,
        "warnings": [finding.sentence for finding in outcome.warnings],
        "measures": dict(outcome.measures),
        "accepted": [finding.as_dict() for finding in outcome.accepted],
        "by": outcome.accepted_by,
        "late": outcome.not_started,
        "rows": dict(outcome.rows),
        "error": outcome.error,
    }
    return plain | {key: value for key, value in more.items() if value}


def from_plain(nodeid: str, duration: float, plain: Mapping[str, object]) -> Result:
    """Make a result from the output of `to_plain` and from the pytest report."""
    return Result(
        nodeid,
        sys.intern(str(plain["rule"])),
        sys.intern(str(plain["outcome"])),
        duration,
        tuple(plain.get("findings", ())),  # type: ignore[arg-type]
        str(plain.get("note", "")),
        tuple(plain.get("warnings", ())),  # type: ignore[arg-type]
        plain.get("measures", NO_MEASURES),  # type: ignore[arg-type]
        tuple(plain.get("accepted", ())),  # type: ignore[arg-type]
        str(plain.get("by", "")),
        bool(plain.get("late")),
        shared_counts(tuple(plain.get("rows", NO_MEASURES).items())),  # type: ignore[attr-defined]
        str(plain.get("error", "")),
    )


@cache
def shared_counts(rows: tuple[tuple[str, int], ...]) -> Mapping[str, int]:
    """Return one shared object for equal counts; most diagrams have the same."""
    return dict(rows)
