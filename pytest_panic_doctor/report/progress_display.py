"""Find where to show progress: on the terminal itself if there is one, even if pytest captures output."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from pytest_panic_doctor.report.progress import Forecast, Progress, expected

if TYPE_CHECKING:
    import pytest

    from pytest_panic_doctor.examination.examination import Examination
    from pytest_panic_doctor.repair.controller import RepairRun


@contextmanager
def progress(
    config: pytest.Config, examination: Examination, repair_run: RepairRun, status: Callable[[], Sequence[str]] = tuple
) -> Iterator[None]:
    """Show the progress of all workers while the items run; `status` describes a cluster."""
    reporter: pytest.TerminalReporter | None = config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None or reporter.verbosity < 0:
        yield
        return

    def say(text: str) -> None:
        reporter.ensure_newline()
        reporter.write_line(text)

    with ExitStack() as stack:
        stream = terminal(stack) if reporter.isatty and os.environ.get("TERM", "dumb") != "dumb" else None
        budget = repair_run.budget()

        def ahead() -> Forecast:
            return expected(examination.planned(), examination.workers, engine=examination.engine)

        def notes() -> list[str]:
            return [*status(), *repair_run.progress_notes()]

        stack.enter_context(Progress(stream, say, budget.running, budget.finished, notes, ahead))
        yield


def terminal(stack: ExitStack) -> TextIO | None:
    """Open the controlling terminal; None if there is none."""
    try:
        return stack.enter_context(Path(os.ctermid()).open("w", encoding="utf-8"))
    except OSError:
        return None
