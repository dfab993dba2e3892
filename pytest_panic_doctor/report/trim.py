"""Free data that pytest keeps of every item to the end, although nothing needs it.

The terminal reporter keeps three reports of an item, with their own strings under xdist: 6 KB, so that 60,000 items
took 580 MB. Data are freed only after every plugin has seen a report, and only of passed items: failures are printed
at the end.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest

NAMES_SHORTER_THAN = 64
"""Maximum length of a text worth sharing: a rule, a phase, a worker; node ids are longer and differ."""


def trim_report(report: pytest.TestReport, reporter: pytest.TerminalReporter | None, ours: bool) -> None:
    """Free a passed set-up or tear-down, and of a passed item of `ours` what only its own run needed."""
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
