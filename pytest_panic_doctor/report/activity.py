"""Says what a long step before or after the items is doing: how far it is, and how long it will take."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, TextIO

from pytest_panic_doctor.formatting import format_duration, format_size, printable, shorten

if TYPE_CHECKING:
    from types import TracebackType

SILENT_FOR = 3.0
"""Seconds for which a step says nothing."""

LIVE_EVERY = 0.5
PLAIN_EVERY = 60.0
"""Seconds between two updates, on a terminal and elsewhere."""


def activity_line(what: str, done: float, of: float, seconds: float, *, sizes: bool = True) -> str:
    """Format the progress of a step, e.g. `copying the database: 2.1 GB of 6.5 GB, 32 %, 40 s left`.

    Args:
        what: What the step does.
        done: How much of it is done.
        of: How much there is; 0 if this is not known.
        seconds: How long it has taken so far.
        sizes: Whether the numbers are bytes; otherwise they are counts.
    """
    form: Callable[[float], str] = format_size if sizes else lambda number: f"{number:,.0f}"
    if not of:
        return f"{what}: {form(done)}, {format_duration(seconds)} so far"
    share = min(done / of, 1.0)
    left = f", {format_duration(seconds / share - seconds)} left" if 0 < share < 1 else ""
    return f"{what}: {form(min(done, of))} of {form(of)}, {share:.0%}{left}".replace("%", " %")


class Activity:
    """The progress of one or several steps, one after the other, on the standard error. A context manager.

    On a terminal one line is written again and again; elsewhere a line is written from time to time.
    """

    def __init__(
        self, stream: TextIO | None = None, *, quiet: bool = False, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Store where to write; nothing is written for the first three seconds of a step.

        Args:
            stream: Where to write; the standard error if it is None.
            quiet: Whether to write nothing at all.
            clock: Returns the time in seconds.
        """
        self.stream = stream or sys.stderr
        self.quiet = quiet
        self.clock = clock
        self._what = ""
        self._began = 0.0
        self._next = 0.0
        self._shown = 0

    def __enter__(self) -> Activity:
        """Return the activity, which clears its line at the end of the block."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Clear the line of a terminal."""
        self._clear()

    def report(self, what: str, done: float, of: float) -> None:
        """Take the progress of a step in bytes; another text begins another step."""
        self._take(what, done, of, sizes=True)

    def count(self, what: str, done: float, of: float) -> None:
        """Take the progress of a step as a number of things."""
        self._take(what, done, of, sizes=False)

    def _take(self, what: str, done: float, of: float, *, sizes: bool) -> None:
        now = self.clock()
        if what != self._what:
            self._clear()
            self._what, self._began, self._next = what, now, now + SILENT_FOR
        if self.quiet or now < self._next:
            return
        line = f"doctor: {printable(activity_line(what, done, of, now - self._began, sizes=sizes))}"
        if self.stream.isatty():
            line = shorten(line, shutil.get_terminal_size().columns - 1)
            self.stream.write(f"\r{line:<{self._shown}}")
            self._shown = len(line)
        else:
            self.stream.write(f"{line}\n")
        self.stream.flush()
        self._next = now + (LIVE_EVERY if self.stream.isatty() else PLAIN_EVERY)

    def _clear(self) -> None:
        if self._shown:
            self.stream.write(f"\r{'':<{self._shown}}\r")
            self.stream.flush()
            self._shown = 0
