"""Collect the findings of one check; only so many are kept by name as a report shows."""

from __future__ import annotations

from collections.abc import Iterable

from pytest_panic_doctor.formatting import plural
from pytest_panic_doctor.rules.base import IDS_KEPT, Finding, RuleContext


class KeptFindings:
    """The findings of one check: the first 10,000 by name, the others by number."""

    def __init__(self) -> None:
        """Start without findings."""
        self.kept: list[Finding] = []
        self.findings = self.rows = 0

    def add(self, found: Iterable[Finding]) -> None:
        """Add findings one by one."""
        for finding in found:
            if len(self.kept) < IDS_KEPT or finding.warning:
                self.kept.append(finding)
            else:
                self.findings += 1
                self.rows += finding.count

    def all(self, context: RuleContext) -> tuple[Finding, ...]:
        """Return the kept findings, and one more for the rest."""
        if self.findings:
            text = f"{plural(self.findings, 'more finding')}, of which none is named (at most {IDS_KEPT:,} are)"
            return (*self.kept, context.finding(text, count=self.rows))
        return tuple(self.kept)
