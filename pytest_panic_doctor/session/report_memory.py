"""Frees what pytest keeps of reports of passed items, in the controller and in each worker."""

from __future__ import annotations

import sys
from collections.abc import Generator
from dataclasses import dataclass

import pytest

NAMES_SHORTER_THAN = 64
"""Maximum length of a text worth sharing: a rule, a phase, a worker; node ids are longer and differ."""


@dataclass(eq=False)
class ReportMemory:
    """Trims each report of a passed item once every plugin has seen it.

    Attributes:
        config: The session's config.
    """

    config: pytest.Config

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> Generator[None, None, None]:
        """Wait until other plugins have read the report, then trim it."""
        yield
        # `--durations` reads the reports of all phases at the end, so they are kept complete for it.
        if report.passed and self.config.getoption("durations", None) is None:
            reporter = self.config.pluginmanager.get_plugin("terminalreporter")
            trim_report(report, reporter, hasattr(report, "doctor"))


def trim_report(report: pytest.TestReport, reporter: pytest.TerminalReporter | None, ours: bool) -> None:
    """Free a passed set-up or tear-down, and of a passed item of `ours` what only its own run needed.

    The terminal reporter keeps three reports of an item, with their own strings under xdist: 6 KB, so that 60,000 items
    took 580 MB. That of a worker keeps them too, though nobody reads them there. Data are freed only after every plugin
    has seen a report, and only of passed items: failures are printed at the end.
    """
    if report.when != "call":
        silent = reporter.stats.get("") if reporter else None
        if silent and silent[-1] is report:
            silent.pop()
    elif ours:
        report.keywords = {}
        report.location = ("", None, report.location[2])
        for name, value in vars(report).items():
            if type(value) is str and len(value) < NAMES_SHORTER_THAN:
                setattr(report, name, sys.intern(value))
