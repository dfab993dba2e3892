"""What came of the items: collected by the controller from pytest's reports, read by every report."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytest_panic_doctor.doctor import Doctor
    from pytest_panic_doctor.examine import Outcome

NOTHING: Mapping[str, object] = {}
LABEL_LONGEST = 240
"""Characters of a prompt that are shown."""

WORST_FIRST = ("failed", "fixed", "skipped", "passed")


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

    def as_dict(self) -> dict[str, object]:
        """The item as the JSON report prints it."""
        plain: dict[str, object] = {
            "nodeid": self.nodeid,
            "rule": self.rule,
            "outcome": self.outcome,
            "duration": round(self.duration, 6),
            "findings": list(self.findings),
        }
        optional = {"note": self.note, "warnings": list(self.warnings), "measures": dict(self.measures)}
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
    )


@dataclass
class Results:
    """All results so far, and what they come to."""

    items: list[Result] = field(default_factory=list)

    def by_rule(self) -> dict[str, Counter[str]]:
        """How often each outcome came, for each rule that ended an item."""
        counted: dict[str, Counter[str]] = {}
        for item in self.items:
            counted.setdefault(item.rule, Counter())[item.outcome] += 1
        return counted

    def verdicts(self) -> Counter[str]:
        """How many rules are sick, fixed, healthy, and not examined (every item was skipped)."""
        return Counter(verdict(outcomes) for outcomes in self.by_rule().values())

    def totals(self) -> dict[str, int]:
        """How many items ended in each outcome."""
        counted = Counter(item.outcome for item in self.items)
        return {word: counted[word] for word in WORST_FIRST}


def verdict(outcomes: Mapping[str, int]) -> str:
    """A rule's verdict from its items' outcomes."""
    for word, name in (("failed", "sick"), ("fixed", "fixed"), ("passed", "healthy")):
        if outcomes.get(word):
            return name
    return "not examined"


def head(doctor: Doctor, results: Results, version: str) -> dict[str, object]:
    """The `doctor` part of the JSON report."""
    verdicts = results.verdicts()
    return {
        "version": version,
        "database": str(doctor.settings.database),
        "settings": doctor.settings.as_dict(),
        "rows": dict(doctor.rows),
        "totals": results.totals(),
        "rules": {name: verdicts[name] for name in ("healthy", "fixed", "sick", "not examined")},
    }


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
    whole = label if len(label) <= LABEL_LONGEST else label[: LABEL_LONGEST - 1] + "…"
    return whole.encode("utf-8", "replace").decode()


def sickest(counted: Iterable[tuple[str, Counter[str]]]) -> list[tuple[str, Counter[str]]]:
    """Rules by how many of their items failed, then how many were fixed, then skipped; the worst first."""
    return sorted(counted, key=lambda pair: (-pair[1]["failed"], -pair[1]["fixed"], -pair[1]["skipped"], pair[0]))
