"""Show the progress of computations: a live line on a terminal, even if pytest captures output, else plain lines."""

from __future__ import annotations

import os
import re
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from pytest_panic_doctor.compute.estimate import estimate
from pytest_panic_doctor.examination.scheduling import MissingDiagram
from pytest_panic_doctor.formatting import format_duration, format_size, plural, printable, shorten
from pytest_panic_doctor.report.activity import LIVE_EVERY, PLAIN_EVERY, activity_notes

if TYPE_CHECKING:
    from types import TracebackType

    import pytest

    from pytest_panic_doctor.compute.ledger import Lease
    from pytest_panic_doctor.examination.examination import Examination
    from pytest_panic_doctor.repair.controller import RepairRun


@dataclass(frozen=True, slots=True)
class Forecast:
    """What has to be computed: diagrams, points, and seconds at best and at worst."""

    diagrams: int
    points: int
    seconds: float
    seconds_high: float
    workers: int
    cluster: str = ""
    each: tuple[float, ...] = ()
    """The seconds of each diagram, in the order in which they are computed."""

    def left(self, done: int) -> float:
        """Return the time that is left as a multiple of that of the first `done` diagrams, by their forecasts."""
        first = sum(self.each[:done])
        return sum(self.each[done:]) / first if first else (self.diagrams - done) / done


def expected(todo: Sequence[MissingDiagram], workers: int, cluster: str = "", engine: str = "native") -> Forecast:
    """Forecast the computations. The number of distinct points is unknown: half of them, or at worst all.

    Args:
        todo: The missing diagrams.
        workers: The number of workers, or the cores of the cluster.
        cluster: A description of the cluster; empty for this machine.
        engine: The name of the engine.
    """
    each_of = tuple(estimate(max(1, each.points // 2), engine).seconds for each in todo)
    middle = sum(each_of)
    high = sum(estimate(each.points, engine).seconds_high for each in todo)
    return Forecast(len(todo), sum(each.points for each in todo), middle, high, workers, cluster, each_of)


def forecast_line(ahead: Forecast) -> str:
    """Format a forecast, e.g. `38 diagrams to compute, 61,200 points, about 40 min on 2 workers (up to 2 h)`."""
    what = f"{plural(ahead.diagrams, 'diagram')} to compute, {plural(ahead.points, 'point')}"
    low, high = (format_duration(seconds / ahead.workers) for seconds in (ahead.seconds, ahead.seconds_high))
    bound = f" (up to {high})" if high != low else ""
    return f"{what}, about {low} on {ahead.cluster or plural(ahead.workers, 'worker')}{bound}"


def status_line(
    running: Sequence[Lease],
    notes: Sequence[str],
    done: int,
    total: int,
    left: float | None,
    now: float,
    width: int,
) -> str:
    """Format the running computations in one line: points, time and memory, largest first; progress, time left."""
    each = [
        f"{one.points:,} points {format_duration(now - one.since)} {format_size(one.resident)}"
        f"{columns_done(one.progress)}"
        for one in sorted(running, key=lambda one: -one.points)
    ]
    if not (running or total or done):
        return shorten(f"doctor: {' | '.join(map(printable, notes))}", width)
    # Invalid or stale diagrams are found later, and were not in the forecast.
    known = done + len(running) <= total
    until = f", {format_duration(left)} left" if left is not None and known and done < total else ""
    of = f"of {plural(total, 'diagram')}" if known else f"of at least {plural(done + len(running), 'diagram')}"
    text = " | ".join([f"doctor: {done:,} {of}{until}", *map(printable, notes), *each])
    return shorten(text, width)


def columns_done(progress: str) -> str:
    """Format how far the engine is, e.g. ` H2 64 % of 1,862 columns` for `H2, column 1,192 of 1,862`."""
    found = re.fullmatch(r"(.*), (column|edge) ([\d,]+) of ([\d,]+)", progress)
    if not found:
        return f" {progress}" if progress else ""
    stage, what, done, of = found.groups()
    share = int(done.replace(",", "")) / max(1, int(of.replace(",", "")))
    return f" {stage} {share * 100:.0f} % of {of} {what}s"


@dataclass(eq=False)
class Progress:
    """Shows the progress from its own thread. A context manager.

    On a terminal the last row is reserved by a scroll region, as apt does, so that it does not disturb pytest's output.

    Attributes:
        stream: The terminal; None if there is none.
        say: Prints a plain line if there is no terminal.
        running: Returns the running computations.
        finished: Returns the number of finished ones.
        notes: Returns notes of the workers.
        forecast: Makes the forecast; called at the first computation, because the workers have collected by then.
        clock: Returns the time in seconds.
    """

    stream: TextIO | None
    say: Callable[[str], None]
    running: Callable[[], Sequence[Lease]]
    finished: Callable[[], int]
    notes: Callable[[], Sequence[str]]
    forecast: Callable[[], Forecast]
    clock: Callable[[], float] = time.time
    _stop: threading.Event = field(default_factory=threading.Event, init=False)
    _reserved: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        """Note the time; nothing is shown yet."""
        self._begun = self.clock()
        self._thread = threading.Thread(target=self._watch, name="doctor-progress", daemon=True)

    def __enter__(self) -> Progress:
        """Start the thread."""
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop the thread, and release the terminal's last row."""
        self._stop.set()
        self._thread.join()
        if self._reserved and self.stream is not None:
            self._release(self.stream)

    def _watch(self) -> None:
        while not self._stop.wait(LIVE_EVERY if self.stream else PLAIN_EVERY):
            running, notes = self.running(), self.notes()
            if running or notes:
                self._say(running, notes)

    @cached_property
    def ahead(self) -> Forecast:
        """The forecast."""
        return self.forecast()

    def _say(self, running: Sequence[Lease], notes: Sequence[str]) -> None:
        columns, rows = shutil.get_terminal_size()
        width = columns if self.stream else 10 * columns
        text = status_line(running, notes, self.finished(), self.ahead.diagrams, self._left(), self.clock(), width)
        if self.stream is None:
            self.say(text)
            return
        if not self._reserved:
            # A newline first, so that a cursor on the last row leaves the row that is reserved.
            self.stream.write(f"\n\x1b7\x1b[1;{rows - 1}r\x1b8\x1b[1A")
            self._reserved = True
        self.stream.write(f"\x1b7\x1b[{rows};1H\x1b[2K\x1b[2m{text}\x1b[0m\x1b8")
        self.stream.flush()

    @staticmethod
    def _release(stream: TextIO) -> None:
        rows = shutil.get_terminal_size().lines
        stream.write(f"\x1b7\x1b[{rows};1H\x1b[2K\x1b[r\x1b8")
        stream.flush()

    def _left(self) -> float | None:
        done = self.finished()
        if not done:
            return None
        passed = self.clock() - self._begun
        return max(0.0, passed * self.ahead.left(done))


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

        stream = controlling_terminal(stack) if reporter.isatty and os.environ.get("TERM", "dumb") != "dumb" else None
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


def controlling_terminal(stack: ExitStack) -> TextIO | None:
    """Open the controlling terminal; None if there is none."""
    try:
        return stack.enter_context(Path(os.ctermid()).open("w", encoding="utf-8"))
    except OSError:
        return None
