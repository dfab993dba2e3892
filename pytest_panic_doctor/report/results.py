"""What came of the items: collected by the controller from pytest's reports, read by every report."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING

from pytest_panic_doctor.manifest import rule_of
from pytest_panic_doctor.report.text import cut
from pytest_panic_doctor.rules.model import plural

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_panic_doctor.baseline import Comparison
    from pytest_panic_doctor.doctor import Doctor
    from pytest_panic_doctor.examine import Outcome
    from pytest_panic_doctor.repair.journal import Repair
    from pytest_panic_doctor.repair.weigh import Weight

NOTHING: Mapping[str, object] = {}
SOON = 64
"""Ends of other items, by other workers, that may come between an item's end and its tear-down."""
LABEL_LONGEST = 240
"""Characters of a prompt that are shown."""

WORST_FIRST = ("failed", "fixed", "skipped", "passed")
VERDICTS = (
    ("failed", "sick"),
    ("late", "not examined"),
    ("unreached", "not examined"),
    ("fixed", "fixed"),
    ("warned", "warned"),
    ("passed", "healthy"),
)
"""The worst outcome of a rule's items, and what the rule is called for it."""

VERDICT_ORDER = ("healthy", "warned", "fixed", "sick", "not examined")


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
    by: str = ""
    late: bool = False
    rows: Mapping[str, int] = field(default_factory=dict)
    """How many rows of each table were looked at; empty where nobody counted."""
    error: str = ""

    @property
    def shown(self) -> str:
        """The outcome as people are shown it: one that passed with accepted findings is `warned`, one that was not
        begun in time is `late`."""
        return "late" if self.late else "warned" if self.accepted and self.outcome == "passed" else self.outcome

    @property
    def said(self) -> str:
        """What its findings say, without where they are, a line each."""
        return "\n".join(str(finding["message"]) for finding in self.findings)

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
        optional |= {"accepted": list(self.accepted), "by": self.by, "late": self.late, "rows": dict(self.rows)}
        optional |= {"error": self.error}
        return plain | {key: value for key, value in optional.items() if value}


def to_plain(rule: str, outcome: Outcome) -> dict[str, object]:
    """An outcome as plain values, to travel on a pytest report from a worker to the controller.

    pytest keeps every report to the end, so that what is empty is left out.
    """
    plain: dict[str, object] = {"rule": rule, "outcome": outcome.word}
    more: dict[str, object] = {
        "findings": [finding.as_dict() for finding in outcome.findings],
        "note": outcome.note,
        "warnings": [finding.sentence for finding in outcome.warnings],
        "measures": dict(outcome.measures),
        "accepted": [finding.as_dict() for finding in outcome.accepted],
        "by": outcome.by,
        "late": outcome.late,
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
        shared(tuple(plain.get("rows", NOTHING).items())),  # type: ignore[attr-defined]
        str(plain.get("error", "")),
    )


@cache
def shared(rows: tuple[tuple[str, int], ...]) -> Mapping[str, int]:
    """Counts as one object for all items that have the same: most diagrams' are."""
    return dict(rows)


@dataclass
class Results:
    """All results so far, and what they come to."""

    items: list[Result] = field(default_factory=list)
    compared: Comparison | None = None
    repairs: Sequence[Repair] = ()
    """What this session did to the database, newest first, as the journal has it."""
    unreached: frozenset[str] = frozenset()
    """The names of items that were to be run, and did not end: after -x, --maxfail or Ctrl-C."""
    written: Sequence[Path] = ()
    """The reports that could be written."""
    planned: Mapping[str, Weight] = field(default_factory=dict)
    """What would be quarantined for each rule, a row that several of its items would take once."""
    planned_in_all: Weight = (0, 0)
    """The same for all rules together."""

    itemless: Sequence[str] = ()
    """The selected rules for which the database has no subject."""
    misheard: Counter[str] = field(default_factory=Counter)
    """What `pytest_doctor_outcome` raised, and for how many items."""

    def add(self, result: Result) -> None:
        """Take one item's end; a tear-down that fails comes soon after, and then counts instead."""
        first = len(self.items) - SOON
        for index in range(len(self.items) - 1, max(first, 0) - 1, -1):
            if self.items[index].nodeid == result.nodeid:
                self.items[index] = result
                return
        self.items.append(result)

    @property
    def notes(self) -> list[str]:
        """What is to be said besides the items."""
        return [f"{said} ({plural(count, 'item')}): no outcome depends on it" for said, count in self.misheard.items()]

    def by_rule(self) -> dict[str, Counter[str]]:
        """How often each outcome, as it is shown, came for each rule; items that did not end are `unreached`."""
        counted: dict[str, Counter[str]] = {}
        for item in self.items:
            counted.setdefault(item.rule, Counter())[item.shown] += 1
        for name in self.unreached:
            counted.setdefault(rule_of(name), Counter())["unreached"] += 1
        for name in self.itemless:
            counted.setdefault(name, Counter())
        return counted

    def verdicts(self) -> Counter[str]:
        """How many rules are sick, fixed, warned, healthy, and not examined (all items skipped, or one not run)."""
        return Counter(verdict(outcomes) for outcomes in self.by_rule().values())

    def totals(self) -> dict[str, int]:
        """How many items ended in each outcome."""
        counted = Counter(item.outcome for item in self.items)
        return {word: counted[word] for word in WORST_FIRST}


def verdict(outcomes: Mapping[str, int]) -> str:
    """A rule's verdict from its items' outcomes as they are shown."""
    for word, name in VERDICTS:
        if outcomes.get(word):
            return name
    return "not examined"


def head(doctor: Doctor, results: Results, version: str) -> dict[str, object]:
    """The `doctor` part of the JSON report."""
    verdicts = results.verdicts()
    plain: dict[str, object] = {
        "version": version,
        "database": str(doctor.settings.database),
        "settings": doctor.settings.as_dict(),
        "rows": dict(doctor.rows),
        "totals": results.totals(),
        "rules": {name: verdicts[name] for name in VERDICT_ORDER},
    }
    plain |= {"without_items": list(results.itemless)} if results.itemless else {}
    plain |= {"notes": results.notes} if results.notes else {}
    return plain | ({"baseline": results.compared.as_plain()} if results.compared else {})


def subjects(doctor: Doctor) -> list[object]:
    """The experiments and runs that items are made of, as the JSON report prints them: what a merger needs of them."""
    return [
        {
            "id": each.id,
            "label": shortened(each.label),
            "embedding_models": list(each.embedding_models),
            "runs": [{"id": run.id, "label": shortened(run.label), "length": run.length} for run in each.runs],
        }
        for each in doctor.manifest.experiments
    ]


def shortened(label: str) -> str:
    """A prompt may be a whole page, and a JSON text may hold half of a surrogate pair."""
    return cut(label, LABEL_LONGEST).encode("utf-8", "replace").decode()


def sickest(counted: Iterable[tuple[str, Counter[str]]]) -> list[tuple[str, Counter[str]]]:
    """Rules by how many of their items failed, were not begun or reached, fixed, warned, skipped; the worst first."""
    words = ("failed", "late", "unreached", "fixed", "warned", "skipped")
    return sorted(counted, key=lambda pair: (*(-pair[1][word] for word in words), pair[0]))
