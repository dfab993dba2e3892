"""Apply the project's own choices to an outcome: `doctor_severity` and the baseline. Does not import pytest."""

from __future__ import annotations

from dataclasses import replace

from pytest_panic_doctor.database.room import memory_room
from pytest_panic_doctor.examination.baseline import KnownFindings, load, of, split
from pytest_panic_doctor.examination.outcome import Outcome
from pytest_panic_doctor.examination.settings import Settings, Severity
from pytest_panic_doctor.formatting import join_notes, plural
from pytest_panic_doctor.rules.base import Finding

TOO_MANY = "not accepted: it has more rows than it names"


class AcceptancePolicy:
    """Passes a failed outcome if all its findings are accepted; the report still shows them."""

    def __init__(self, settings: Settings) -> None:
        """Read the baseline, if there is one.

        Args:
            settings: The user's choices.

        Raises:
            BadBaseline: The file cannot be read.
        """
        self.severity = settings.severity
        self.writing = settings.baseline_write
        self.known: KnownFindings = {}
        path = settings.baseline
        if path and (path.exists() or not self.writing):
            self.known = load(path, memory_room(settings.memory))

    def apply(self, rule: str, name: str, outcome: Outcome) -> Outcome:
        """Apply severity and baseline to one outcome.

        Args:
            rule: The id of the rule.
            name: The name of the item.
            outcome: What the examination of the item found.

        Returns:
            The outcome with new and accepted findings apart.
        """
        if outcome.status != "failed" or not outcome.findings or outcome.error:
            # A check that ended early may have missed findings that are not accepted.
            return outcome
        new: tuple[Finding, ...] = ()
        old, by = outcome.findings, outcome.accepted_by
        if why := self._accepted_by_severity(rule, outcome.findings):
            by = "severity"
        else:
            new, old = self._split_by_baseline(name, outcome.findings)
            by = "baseline" if old else by
            why = "accepted by the baseline" if not new else TOO_MANY if self.writing else ""
        return replace(
            outcome,
            status="failed" if new else "passed",
            findings=new,
            accepted=(*old, *outcome.accepted),
            accepted_by=by,
            note=join_notes(why, outcome.note),
        )

    def _accepted_by_severity(self, rule: str, findings: tuple[Finding, ...]) -> str:
        severity = self.severity.get(rule, Severity())
        count = sum(max(1, finding.count) for finding in findings)
        if not severity.accepts(count):
            return ""
        limit = "" if severity.most is None else f": {plural(count, 'row')}, up to {severity.most:,} allowed"
        return f"a warning by doctor_severity{limit}"

    def _split_by_baseline(
        self, name: str, findings: tuple[Finding, ...]
    ) -> tuple[tuple[Finding, ...], tuple[Finding, ...]]:
        known = self.known.get(name, frozenset())
        # While a baseline is written, a finding is accepted if it has an identity.
        parts = [split(finding, of(finding) if self.writing else known) for finding in findings]
        return tuple(fresh for fresh, _ in parts if fresh), tuple(old for _, old in parts if old)
