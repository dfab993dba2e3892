"""Find where to show progress: on the terminal itself if there is one, even if pytest captures output."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from pytest_panic_doctor.report.item_activity import activity_notes
from pytest_panic_doctor.report.progress import Forecast, Progress, expected

if TYPE_CHECKING:
    import pytest

    from pytest_panic_doctor.examination.examination import Examination
    from pytest_panic_doctor.repair.controller import RepairRun


@contextmanager
def progress(
    config: pytest.Config,
    examination: Examination,
    repair_run: RepairRun | None,
    status: Callable[[], Sequence[str]] = tuple,
) -> Iterator[None]:
    """Show the progress of all processes while the items run.

    Args:
        config: The session's config.
        examination: The session's examination.
        repair_run: What the processes of a repairing session share; None if nothing is repaired.
        status: Describes a cluster, or what this process does besides.
    """
    reporter: pytest.TerminalReporter | None = config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None or reporter.verbosity < 0:
        yield
        return

    with ExitStack() as stack:
        plain = uncaptured(stack)

        def say(text: str) -> None:
            # As `ensure_newline`, which would write into what pytest captures of the item that runs.
            begun, reporter.currentfspath = reporter.currentfspath is not None, None
            plain.write("\n" * begun + text + "\n")
            plain.flush()

        stream = terminal(stack) if reporter.isatty and os.environ.get("TERM", "dumb") != "dumb" else None
        budget = repair_run.budget() if repair_run else None

        def ahead() -> Forecast:
            return expected(examination.planned(), examination.workers, engine=examination.engine)

        def notes() -> list[str]:
            beside = repair_run.progress_notes() if repair_run else []
            return [*status(), *beside, *activity_notes(Path(examination.scratch))]

        running = budget.running if budget else tuple
        finished = budget.finished if budget else int
        stack.enter_context(Progress(stream, say, running, finished, notes, ahead))
        yield


def uncaptured(stack: ExitStack) -> TextIO:
    """Open the standard output as it is between items, when pytest captures nothing."""
    try:
        return stack.enter_context(os.fdopen(os.dup(1), "w", encoding=sys.stdout.encoding, errors="backslashreplace"))
    except OSError:
        return stack.enter_context(Path(os.devnull).open("w", encoding="utf-8"))


def terminal(stack: ExitStack) -> TextIO | None:
    """Open the controlling terminal; None if there is none."""
    try:
        return stack.enter_context(Path(os.ctermid()).open("w", encoding="utf-8"))
    except OSError:
        return None
