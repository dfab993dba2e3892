"""What the running item of a process does, as a note in the session's folder, so that the controller can show it."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from pytest_panic_doctor.database.shared_folder import SharedFolder
from pytest_panic_doctor.formatting import format_duration, shorten
from pytest_panic_doctor.report.activity import SILENT_FOR, activity_line

NOTE_EVERY = 1.0
"""Seconds between two notes."""

NAME_WIDTH = 60


class ItemActivity:
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

    def report(self, what: str, done: float, of: float) -> None:
        """Take the progress of a step of the item in bytes."""
        self._take(what, done, of, sizes=True)

    def count(self, what: str, done: float, of: float) -> None:
        """Take the progress of a step of the item as a number of things."""
        self._take(what, done, of, sizes=False)

    def _take(self, what: str, done: float, of: float, *, sizes: bool) -> None:
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
