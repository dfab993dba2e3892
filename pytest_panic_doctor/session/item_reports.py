"""Makes pytest's report of an item agree with the outcome of its examination.

Exit status, terminal and JUnit file come from pytest's reports, the JSON report and the page from the results that
travel on them. So neither a mark nor a hook of another plugin can make them differ.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from pytest_panic_doctor.examination.outcome import Outcome
from pytest_panic_doctor.report.longrepr import FindingsText

UNEXAMINED = "something else failed before the item began, so nothing is known about it"
"""The error of an item that never began."""
TORN_DOWN = "something else failed when the item had ended"
"""The error of an item whose teardown failed."""
FIXED = ("fixed", "+", ("FIXED", {"cyan": True}))
"""Pytest's category, letter, word and colour of an item that was repaired."""
STATES = {
    "passed": ("passed", ".", ("PASSED", {"green": True})),
    "failed": ("failed", "F", ("FAILED", {"red": True})),
    "skipped": ("skipped", "s", ("SKIPPED", {"yellow": True})),
    "fixed": FIXED,
}
"""Category, letter, word and colour of each status."""


def combined_outcome(outcome: Outcome | None, report: pytest.TestReport) -> Outcome:
    """Combine the outcome of an item with pytest's report of it.

    Args:
        outcome: The outcome of the examination; None if the item was not examined.
        report: Pytest's report of one phase of the item.

    Returns:
        The outcome; failed if a fixture or a hook failed, skipped if a mark or a hook skipped the item.
    """
    if report.when == "teardown":
        return replace(outcome or Outcome("failed"), status="failed", error=TORN_DOWN)
    if outcome is not None:
        return outcome
    if report.skipped:
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else getattr(report, "wasxfail", "")
        return Outcome("skipped", note=str(reason).removeprefix("Skipped: ") or "skipped by a mark or a hook")
    return Outcome("failed", error=UNEXAMINED)


def agree(report: pytest.TestReport, word: str, why: str) -> None:
    """Make pytest's report agree with the outcome, even if a mark or a hook has changed the report.

    Args:
        report: The report, which is changed.
        word: The status of the outcome.
        why: The reason, for a report that is made skipped or failed.
    """
    wanted = word if word in ("failed", "skipped") else "passed"
    marked = vars(report).pop("wasxfail", None) is not None
    if wanted == "skipped":
        report.longrepr = (report.nodeid.split("::")[0], 1, f"Skipped: {why}")
    if report.outcome == wanted and not marked:
        return
    report.outcome = wanted  # type: ignore[assignment]
    if wanted == "passed":
        report.longrepr = None
    elif wanted == "failed" and not isinstance(report.longrepr, str | FindingsText):
        report.longrepr = why or "this item failed"
