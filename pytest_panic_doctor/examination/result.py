"""One item's end, as it travels from a worker to the controller and into every report."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache

from pytest_panic_doctor.examination.examiner import Outcome

NOTHING: Mapping[str, object] = {}


@dataclass(frozen=True, slots=True)
class Result:
    """One item's end. `findings` as the JSON report prints them; `warnings` are sentences."""

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
    """How many rows of each table were looked at; empty where nobody counted."""
    error: str = ""

    @property
    def display_outcome(self) -> str:
        """The outcome as people are shown it: one that passed with accepted findings is `warned`, one that was not
        begun in time is `late`."""
        return "late" if self.not_started else "warned" if self.accepted and self.outcome == "passed" else self.outcome

    def as_dict(self) -> dict[str, object]:
        """The item as the JSON report prints it."""
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
    """An outcome as plain values, to travel on a pytest report from a worker to the controller.

    pytest keeps every report to the end, so that what is empty is left out.
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
    """The inverse, with what the pytest report adds."""
    return Result(
        nodeid,
        sys.intern(str(plain["rule"])),
        sys.intern(str(plain["outcome"])),
        duration,
        tuple(plain.get("findings", ())),  # type: ignore[arg-type]
        str(plain.get("note", "")),
        tuple(plain.get("warnings", ())),  # type: ignore[arg-type]
        plain.get("measures", NOTHING),  # type: ignore[arg-type]
        tuple(plain.get("accepted", ())),  # type: ignore[arg-type]
        str(plain.get("by", "")),
        bool(plain.get("late")),
        shared_counts(tuple(plain.get("rows", NOTHING).items())),  # type: ignore[attr-defined]
        str(plain.get("error", "")),
    )


@cache
def shared_counts(rows: tuple[tuple[str, int], ...]) -> Mapping[str, int]:
    """Counts as one object for all items that have the same: most diagrams' are."""
    return dict(rows)
