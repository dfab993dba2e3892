"""The section FAILURES for items of the database: by rule and once each, instead of item by item.

pytest prints it in `pytest_terminal_summary`, as a wrapper, before and after all other plugins. Two more wrappers are
around and within it: the outer one takes the items' reports out of its hands, the inner one gives them back. pytest
finds a hook only if its name begins with `pytest_`.
"""

from __future__ import annotations

import os
from collections.abc import Generator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from pytest_panic_doctor.formatting import printable
from pytest_panic_doctor.report.findings import failure_lines, limits_of

if TYPE_CHECKING:
    from _pytest._io import TerminalWriter

    from pytest_panic_doctor.examination.examination import Examination
    from pytest_panic_doctor.examination.outcome import Result
    from pytest_panic_doctor.report.results import Results

DEFAULT_REPORT = "fE"
"""What pytest's short summary names if `-r` is not given."""
STYLES = ("no", "line")
"""The values of `--tb` for which pytest's own section is what is wanted."""


@dataclass(frozen=True, slots=True)
class CrashLine:
    """One line about a failed item, with the attributes that pytest gives to the place of an exception.

    Attributes:
        nodeid: The item.
        message: The sentence, for the JUnit file and the short summary.
        lineno: Always 1, for plugins that read it: a database has no lines.
    """

    nodeid: str
    message: str
    lineno: int = 1

    @property
    def path(self) -> str:
        """The path of the database, as it is in the item's id."""
        return self.nodeid.split("::", 1)[0]

    def __str__(self) -> str:
        """The line of `--tb=line`."""
        return f"{self.nodeid}: {self.message}"


@dataclass(eq=False)
class FindingsText:
    """The text of a failed item in the controller, in the form that pytest, its JUnit file and other plugins read.

    Attributes:
        text: The text.
        reprcrash: Its line.
        one_line: Whether the user asked for no more than the line (`--tb=line`).
    """

    text: str
    reprcrash: CrashLine
    one_line: bool = False

    def toterminal(self, tw: TerminalWriter) -> None:
        """Write the text, as pytest does in the section of failures."""
        for line in () if self.one_line else self.text.splitlines():
            tw.line(line)

    def __str__(self) -> str:
        """The whole text."""
        return self.text


class NodeOnly:
    """Stands for a text while the short summary is written, so that it shows the item's id and nothing cut off."""

    def __str__(self) -> str:
        """Nothing."""
        return ""


def one_line(config: pytest.Config, nodeid: str, result: Result, text: str) -> FindingsText:
    """Make the text of a failed item, with its first finding and the number of others as its one line."""
    findings = sorted(result.findings, key=lambda each: -each.count)
    if findings and not result.error:
        message = findings[0].message
        more = len(findings) - 1
        message += f" (and {more:,} more finding{'s' * (more > 1)})" if more else ""
    else:
        message = result.error or result.note or text.partition("\n")[0]
    line = CrashLine(nodeid, printable(" ".join(message.split())))
    return FindingsText(text, line, one_line=config.getoption("tbstyle", "auto") == "line")


def no_summary(config: pytest.Config) -> bool:
    """Whether the user asked for no summary (`--no-summary`)."""
    return bool(config.getoption("no_summary", False))


def is_on_ci() -> bool:
    """Whether pytest cuts no line of its short summary, since it runs in CI."""
    return any(name in os.environ for name in ("CI", "BUILD_NUMBER"))


def has_own_section(reporter: pytest.TerminalReporter) -> bool:
    """Whether a reporter has pytest's section of failures; pytest-sugar writes each failure at once instead."""
    return type(reporter).summary_failures is pytest.TerminalReporter.summary_failures


@dataclass(eq=False)
class FailuresSection:
    """Writes the failed items of the database in pytest's section of failures.

    Attributes:
        config: The session's config.
        examination: The session's examination.
        results: The results of the items.
    """

    config: pytest.Config
    examination: Examination
    results: Results
    _all: list[pytest.TestReport] = field(default_factory=list, init=False)
    _others: list[pytest.TestReport] = field(default_factory=list, init=False)
    _taken: bool = field(default=False, init=False)
    _repeats: bool = field(default=True, init=False)

    @pytest.hookimpl(wrapper=True, tryfirst=True, specname="pytest_terminal_summary")
    def pytest_before_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> Generator[None, None, None]:
        """Take the reports of our items, so that pytest writes the failures of other tests only."""
        self._all = list(terminalreporter.stats.get("failed", ()))
        mine = [report for report in self._all if isinstance(report.longrepr, FindingsText)]
        failed = any(item.status == "failed" for item in self.results.items)
        grouped = (
            failed
            and has_own_section(terminalreporter)
            and not no_summary(self.config)
            and self.config.getoption("tbstyle", "auto") not in STYLES
        )
        if grouped:
            self._taken = True
            self._others = [report for report in self._all if not isinstance(report.longrepr, FindingsText)]
            terminalreporter.stats["failed"] = self._others
        self._repeats = not grouped or is_on_ci() or self.config.getoption("reportchars", "") != DEFAULT_REPORT
        texts = [(report, report.longrepr) for report in mine]
        try:
            return (yield)
        finally:
            for report, text in texts:
                report.longrepr = text
            if self._all:
                terminalreporter.stats["failed"] = self._all

    @pytest.hookimpl(wrapper=True, trylast=True, specname="pytest_terminal_summary")
    def pytest_after_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> Generator[None, None, None]:
        """Write our failures after pytest's, and give the reports back to all plugins.

        Ids are wider than a terminal. So pytest's short summary names our items only if the user asks for it with `-r`,
        in CI, or if the findings were not shown.
        """
        if self._taken:
            terminalreporter.stats["failed"] = self._all
            self._write(terminalreporter, with_title=not self._others)
        try:
            return (yield)
        finally:
            if self._taken and not self._repeats:
                terminalreporter.stats["failed"] = self._others
            self._shorten(terminalreporter)

    def _write(self, reporter: pytest.TerminalReporter, *, with_title: bool) -> None:
        if with_title:
            reporter.write_sep("=", "FAILURES")
        width = self.config.get_terminal_writer().fullwidth
        limits = limits_of(reporter.verbosity)
        for line in failure_lines(self.examination, self.results, width, limits):
            reporter.write_line(line.text, red=line.heading, bold=line.heading)
        unfinished = {item.nodeid for item in self.results.items if item.error or not item.findings}
        for report in self._all:
            if report.nodeid in unfinished and report not in self._others:
                reporter.write_sep("_", report.head_line or report.nodeid, red=True, bold=True)
                reporter.write_line(str(report.longrepr))

    def _shorten(self, reporter: pytest.TerminalReporter) -> None:
        """Leave a message out of the short summary if it would be cut off there."""
        if reporter.verbosity >= 2 or is_on_ci():
            return
        width = self.config.get_terminal_writer().fullwidth
        for report in reporter.stats.get("failed", ()):
            if isinstance(report.longrepr, FindingsText):
                line = f"FAILED {report.nodeid} - {report.longrepr.reprcrash.message}"
                if len(line) > width:
                    report.longrepr = NodeOnly()
