"""The one place that says what an item comes to: pytest's report of it is made to agree with the doctor's outcome.

Exit status, terminal and JUnit file come from pytest's reports, the JSON report and the page from the results that
travel on them. So neither a mark nor a hook of somebody else can make them differ.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from pytest_panic_doctor.examination.examiner import Outcome
from pytest_panic_doctor.examination.foreign_code import Misbehaved, calling
from pytest_panic_doctor.examination.result import from_plain, to_plain
from pytest_panic_doctor.report import text
from pytest_panic_doctor.report.results import Results
from pytest_panic_doctor.report.trim import trim_report
from pytest_panic_doctor.session.items import DoctorItem

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pytest_panic_doctor.examination.examination import Examination
    from pytest_panic_doctor.examination.result import Result

UNEXAMINED = "something else failed before the item began, so nothing is known about it"
TORN_DOWN = "something else failed when the item had ended"
FIXED = ("fixed", "+", ("FIXED", {"cyan": True}))
STATES = {
    "passed": ("passed", ".", ("PASSED", {"green": True})),
    "failed": ("failed", "F", ("FAILED", {"red": True})),
    "skipped": ("skipped", "s", ("SKIPPED", {"yellow": True})),
    "fixed": FIXED,
}


class ReportHooks:
    """Registered in the controller and in every worker, where the doctor was asked for."""

    def __init__(
        self, config: pytest.Config, examination: Examination, results: Results, ended: Callable[[Result], None] | None
    ) -> None:
        """`ended` is called with each result, in the controller; None in a worker."""
        self.config = config
        self.examination = examination
        self.results = results
        self.ended = ended

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_makereport(self, item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Put the outcome on the report, as plain values, so that it reaches the controller."""
        report = yield
        if not isinstance(item, DoctorItem):
            return report
        if report.when == "call" or not report.passed:
            outcome = combined_outcome(item.outcome, report)
            report.doctor = to_plain(item.entry.rule, outcome)  # type: ignore[attr-defined]
            if outcome.status == "fixed":
                report.sections.append(("fixed", text.repaired(outcome)))
            agree(report, outcome.status, outcome.note or outcome.error)
        if report.when == "teardown":
            item.outcome = None
        return report

    def pytest_report_teststatus(
        self, report: pytest.TestReport
    ) -> tuple[str, str, tuple[str, dict[str, bool]]] | None:
        """A fixed item has a letter, a word, a colour and a count of its own; `-v` tells which run an item is about,
        and how many rows it looked at."""
        plain = getattr(report, "doctor", None)
        if not plain:
            return None
        state = STATES["fixed" if plain["outcome"] == "fixed" and report.passed else report.outcome]
        if self.config.get_verbosity() < 1:
            return state if state is FIXED else None
        category, letter, (word, colour) = state
        label = text.label_of(report.nodeid, self.examination.labels)
        rows = text.looked_at(plain.get("rows", {})) if report.passed or "rows" in plain else ""
        told = "; ".join(filter(None, (label, rows)))
        return category, letter, (f"{word} ({told})" if told else word, colour)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> Generator[None, None, None]:
        """Collect what came of each item, in the controller, before anybody else reads the report."""
        plain: Mapping[str, object] | None = getattr(report, "doctor", None)
        if plain is not None and self.ended:
            result = from_plain(report.nodeid, report.duration, plain)
            agree(report, result.outcome, result.note or result.error)
            self.results.add(result)
            self.ended(result)
            self._notify(result)
        yield
        if self.ended and report.passed and self.config.getoption("durations", None) is None:
            trim_report(report, self.config.pluginmanager.get_plugin("terminalreporter"), plain is not None)

    def _notify(self, result: Result) -> None:
        """Tell the listeners; one that raises changes no verdict, and is named at the end."""
        try:
            with calling("pytest_doctor_outcome"):
                self.config.hook.pytest_doctor_outcome(item=result.as_dict())
        except Misbehaved as raised:
            self.results.listener_errors[str(raised)] += 1


def combined_outcome(outcome: Outcome | None, report: pytest.TestReport) -> Outcome:
    """What an item comes to, `outcome` being what its examination said, if there was one."""
    if report.when == "teardown":
        return replace(outcome or Outcome("failed"), status="failed", error=TORN_DOWN)
    if outcome is not None:
        return outcome
    if report.skipped:
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else getattr(report, "wasxfail", "")
        return Outcome("skipped", note=str(reason).removeprefix("Skipped: ") or "skipped by a mark or a hook")
    return Outcome("failed", error=UNEXAMINED)


def agree(report: pytest.TestReport, word: str, why: str) -> None:
    """Make pytest's report say what the outcome says, whatever has become of it on the way."""
    wanted = word if word in ("failed", "skipped") else "passed"
    marked = vars(report).pop("wasxfail", None) is not None
    if wanted == "skipped":
        report.longrepr = (report.nodeid.split("::")[0], 1, f"Skipped: {why}")
    if report.outcome == wanted and not marked:
        return
    report.outcome = wanted  # type: ignore[assignment]
    if wanted == "passed":
        report.longrepr = None
    elif wanted == "failed" and not isinstance(report.longrepr, str):
        report.longrepr = why or "this item failed"
