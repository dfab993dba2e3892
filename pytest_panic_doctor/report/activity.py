"""Says what a long step is doing, how far it is, and how long it will take: within an item, or before and after all."""

from __future__ import annotations

import os
import shutil
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from pytest_panic_doctor.database.progress import Receiver
from pytest_panic_doctor.database.shared_folder import SharedFolder
from pytest_panic_doctor.formatting import format_duration, format_size, printable, shorten

if TYPE_CHECKING:
    from types import TracebackType

SILENT_FOR = 3.0
"""Seconds for which a step says nothing."""

LIVE_EVERY = 0.5
PLAIN_EVERY = 60.0
"""Seconds between two updates, on a terminal and elsewhere."""

NOTE_EVERY = 1.0
"""Seconds between two notes."""

NAME_WIDTH = 60


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


@dataclass(eq=False)
class Activity(Receiver):
    """The progress of one or several steps, one after the other, on the standard error. A context manager.

    On a terminal one line is written again and again; elsewhere a line is written from time to time. Nothing is written
    for the first three seconds of a step.

    Attributes:
        stream: Where to write.
        quiet: Whether to write nothing at all.
        clock: Returns the time in seconds.
    """

    stream: TextIO = field(default_factory=lambda: sys.stderr)
    quiet: bool = False
    clock: Callable[[], float] = time.monotonic
    _what: str = field(default="", init=False)
    _began: float = field(default=0.0, init=False)
    _next: float = field(default=0.0, init=False)
    _shown: int = field(default=0, init=False)

    def __enter__(self) -> Activity:
        """Return the activity, which clears its line at the end of the block."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Clear the line of a terminal."""
        self._clear()

    def take(self, what: str, done: float, of: float, *, sizes: bool) -> None:
        """Take the progress of a step; another text begins another step."""
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


class ItemActivity(Receiver):
    """Takes the progress of the items of this process, and writes a note while one lasts longer than three seconds."""

    def __init__(self, folder: Path, clock: Callable[[], float] = time.monotonic) -> None:
        """Store the folder of the session; nothing is written yet.

        Args:
            folder: The folder.
            clock: Returns the time in seconds.
        """
        self.shared = SharedFolder(folder)
        self.document = f"activity/{os.getpid()}"
        self.clock = clock
        self._name = ""
        self._began = 0.0
        self._step: tuple[str, float, float, bool] | None = None
        self._step_began = 0.0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._write_notes, name="doctor-activity", daemon=True)

    def start(self) -> None:
        """Start the thread that writes the notes."""
        self._thread.start()

    def stop(self) -> None:
        """Stop the thread, and remove the note."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()
        self.shared.remove(self.document)

    def begin(self, name: str) -> None:
        """Take the name of the item that begins; an empty name: none runs."""
        self._step = None
        self._began, self._name = self.clock(), name

    def take(self, what: str, done: float, of: float, *, sizes: bool) -> None:
        """Take the progress of a step; another text begins another step."""
        if self._step is None or self._step[0] != what:
            self._step_began = self.clock()
        self._step = what, done, of, sizes

    def note(self) -> str:
        """Return what the item does, e.g. `file-integrity: checking every page: 1.2 GB of 6.5 GB, 18 %, 20 s left`.

        It is empty if no item runs, or not for three seconds yet.
        """
        name, step, now = self._name, self._step, self.clock()
        if not name or now - self._began < SILENT_FOR:
            return ""
        name = shorten(name, NAME_WIDTH)
        if step is None:
            return f"{name}: {format_duration(now - self._began)} so far"
        what, done, of, sizes = step
        return f"{name}: {activity_line(what, done, of, now - self._step_began, sizes=sizes)}"

    def _write_notes(self) -> None:
        shown = False
        while not self._ended.wait(NOTE_EVERY):
            note = self.note()
            if not (note or shown):
                continue
            with suppress(OSError):  # The folder is gone at the end of the session.
                if note:
                    self.shared.write(self.document, {"text": note})
                else:
                    self.shared.remove(self.document)
            shown = bool(note)


def activity_notes(folder: Path) -> list[str]:
    """Return what the items of all processes of a session do."""
    return [str(each["text"]) for each in SharedFolder(folder).find("activity/*")]
