"""The results of all items: collected by the controller from pytest's reports, used by every report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pytest_panic_doctor.examination.manifest import rule_of
from pytest_panic_doctor.examination.outcome import Result, Status
from pytest_panic_doctor.formatting import doctor_version, plural, shorten
from pytest_panic_doctor.report.remaining_work import tasks

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_panic_doctor.examination.acceptance import Comparison
    from pytest_panic_doctor.examination.examination import Examination
    from pytest_panic_doctor.repair.journal.repair_record import Repair
    from pytest_panic_doctor.repair.journal.size import RowsAndBytes
    from pytest_panic_doctor.rules.base import Finding

SOON = 64
"""Maximum number of items of other workers that may end between an item's end and its tear-down."""
LABEL_LONGEST = 240
"""Maximum number of characters of a prompt in a report."""

WORST_FIRST: tuple[Status, ...] = ("failed", "fixed", "skipped", "passed")
VERDICTS = {
    "failed": "sick",
    "late": "not examined",
    "unreached": "not examined",
    "fixed": "fixed",
    "warned": "warned",
    "passed": "healthy",
}
"""The verdict on a rule by the worst outcome of its items, worst first."""

OUTCOME_WORDS = {
    "failed": "failed",
    "late": "not started",
    "unreached": "not reached",
    "fixed": "fixed",
    "warned": "warned",
    "skipped": "skipped",
}
"""The words for items with each outcome, worst first; those that passed have none."""

VERDICT_ORDER = ("healthy", "warned", "fixed", "sick", "not examined")


@dataclass
class Results:
    """All results so far."""

    items: list[Result] = field(default_factory=list)
    compared: Comparison | None = None
    repairs: Sequence[Repair] = ()
    """The repairs of this session, newest first, from the journal."""
    unreached: frozenset[str] = frozenset()
    """The names of items that were selected but did not end: after -x, --maxfail or Ctrl-C."""
    written: Sequence[Path] = ()
    """The reports that could be written."""
    planned: Mapping[str, RowsAndBytes] = field(default_factory=dict)
    """What would be quarantined for each rule; a row counts once."""
    planned_in_all: RowsAndBytes = (0, 0)
    """What would be quarantined for all rules together."""
    planned_by_table: Mapping[str, int] = field(default_factory=dict)
    """The rows of each table among them, the largest first."""

    itemless: Sequence[str] = ()
    """The selected rules for which the database has no subject."""
    unsampled: Sequence[str] = ()
    """The selected rules of which no item is in the sample."""
    doubts: list[str] = field(default_factory=list)
    """Why a session without a failed item is not green, one sentence each."""
    listener_errors: Counter[str] = field(default_factory=Counter)
    """Errors of `pytest_doctor_outcome`, and for how many items."""

    def add(self, result: Result) -> None:
        """Add one result. A failed tear-down arrives soon after and replaces it."""
        first = len(self.items) - SOON
        for index in range(len(self.items) - 1, max(first, 0) - 1, -1):
            if self.items[index].nodeid == result.nodeid:
                self.items[index] = result
                return
        self.items.append(result)

    @property
    def notes(self) -> list[str]:
        """The messages that belong to no item."""
        return self.doubts + [
            f"{error} ({plural(count, 'item')}): no outcome depends on it"
            for error, count in self.listener_errors.items()
        ]

    def by_rule(self) -> dict[str, Counter[str]]:
        """Count the outcomes of each rule as shown; items that did not end are `unreached`."""
        counted: dict[str, Counter[str]] = {}
        for item in self.items:
            counted.setdefault(item.rule, Counter())[item.display_outcome] += 1
        for name in self.unreached:
            counted.setdefault(rule_of(name), Counter())["unreached"] += 1
        for name in (*self.itemless, *self.unsampled):
            counted.setdefault(name, Counter())
        return counted

    def failed_by_rule(self) -> dict[str, list[Result]]:
        """Return the failed items of each rule, worst rule first."""
        failed: dict[str, list[Result]] = {name: [] for name, _ in worst_first(self.by_rule().items())}
        for item in self.items:
            if item.status == "failed":
                failed[item.rule].append(item)
        return {name: items for name, items in failed.items() if items}

    def verdicts(self) -> Counter[str]:
        """Count the rules by verdict; a rule is not examined if all items were skipped, or one was not run."""
        return Counter(verdict(outcomes) for outcomes in self.by_rule().values())

    def totals(self) -> dict[str, int]:
        """Count the items by outcome."""
        counted = Counter(item.status for item in self.items)
        return {word: counted[word] for word in WORST_FIRST}


def verdict(outcomes: Mapping[str, int]) -> str:
    """Return a rule's verdict from the outcomes of its items."""
    return next((name for word, name in VERDICTS.items() if outcomes.get(word)), "not examined")


def json_head(examination: Examination, results: Results) -> dict[str, object]:
    """Make the `doctor` part of the JSON report."""
    verdicts = results.verdicts()
    plain: dict[str, object] = {
        "version": doctor_version(),
        "database": str(examination.settings.database),
        "settings": examination.settings.as_dict(),
        "rows": dict(examination.rows),
        "totals": results.totals(),
        "rules": {name: verdicts[name] for name in VERDICT_ORDER},
    }
    plain |= {"generation": examination.origin, "repairable": examination.repairable} if examination.origin else {}
    optional = {
        "without_items": list(results.itemless),
        "outside_sample": list(results.unsampled),
        "doubts": results.doubts,
        "notes": results.notes,
        "todo": [task.as_plain() for task in tasks(examination, results.items)],
        "baseline": results.compared and results.compared.as_plain(),
    }
    return plain | {key: value for key, value in optional.items() if value}


def json_subjects(examination: Examination) -> list[object]:
    """List the experiments and runs of the items for the JSON report, as a merge needs them."""
    return [
        {
            "id": each.id,
            "label": shorten_label(each.label),
            "embedding_models": list(each.embedding_models),
            "runs": [{"id": run.id, "label": shorten_label(run.label), "length": run.length} for run in each.runs],
        }
        for each in examination.manifest.experiments
    ]


def shorten_label(label: str) -> str:
    """Shorten a prompt, which may be a page long; half of a surrogate pair from a JSON text is escaped."""
    return shorten(label, LABEL_LONGEST).encode("utf-8", "replace").decode()


def worst_first(counted: Iterable[tuple[str, Counter[str]]]) -> list[tuple[str, Counter[str]]]:
    """Sort rules by the number of items that failed, were not started, fixed, warned or skipped, in this order."""
    return sorted(counted, key=lambda pair: (*(-pair[1][word] for word in OUTCOME_WORDS), pair[0]))


def largest_of(findings: Sequence[Finding]) -> tuple[Finding, str, str]:
    """Return the finding with most rows, its message with the embedding model, and how many others there are."""
    worst = min(findings, key=lambda finding: (-finding.count, finding.message))
    model = f"[{worst.embedding_model}] " if worst.embedding_model else ""
    more = f" (and {len(findings) - 1:,} more)" if len(findings) > 1 else ""
    return worst, f"{model}{worst.message}", more
