"""Apply the project's own choices to an outcome: `doctor_severity` and the baseline. Does not import pytest."""

from __future__ import annotations

from dataclasses import replace

from pytest_panic_doctor.database.room import memory_room
from pytest_panic_doctor.examination.baseline import KnownFindings, load, of, split
from pytest_panic_doctor.examination.outcome import AcceptedBy, Outcome
from pytest_panic_doctor.examination.settings import Settings, Severity
from pytest_panic_doctor.formatting import join_notes, plural
from pytest_panic_doctor.rules.base import Finding

NOTHING_KNOWN: KnownFindings = {}
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
        has_baseline = settings.baseline is not None and (settings.baseline.exists() or not self.writing)
        self.known: KnownFindings = (
            load(settings.baseline, memory_room(settings.memory))
            if settings.baseline and has_baseline
            else NOTHING_KNOWN
        )

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
        if warned := self._accepted_by_severity(rule, outcome.findings):
            note = join_notes(warned, outcome.note)
            return replace(
                outcome,
                status="passed",
                findings=(),
                accepted=(*outcome.findings, *outcome.accepted),
                accepted_by="severity",
                note=note,
            )
        new, old = self._split_by_baseline(name, outcome.findings)
        if new:
            note = join_notes(TOO_MANY if self.writing else "", outcome.note)
            by: AcceptedBy = "baseline" if old else outcome.accepted_by
            return replace(outcome, findings=new, accepted=(*old, *outcome.accepted), accepted_by=by, note=note)
        note = join_notes("accepted by the baseline", outcome.note)
        every = (*old, *outcome.accepted)
        return replace(outcome, status="passed", findings=(), accepted=every, accepted_by="baseline", note=note)

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
        new: list[Finding] = []
        old: list[Finding] = []
        for finding in findings:
            fresh, known = split(finding, self.known.get(name, frozenset())) if not self.writing else accepted(finding)
            new += [fresh] if fresh else []
            old += [known] if known else []
        return tuple(new), tuple(old)


def accepted(finding: Finding) -> tuple[Finding | None, Finding | None]:
    """Split a finding while a baseline is written: it is accepted if it has an identity."""
    return (None, finding) if of(finding) else (finding, None)
