"""Reads the file from start to end into the kernel's page cache, before the rules need its pages.

SQLite reads page by page in the order of its trees: `PRAGMA integrity_check` took 17 s on a cold file of 1.6 GB and 3 s
on a warm one, and reading the file in order took 4 s. So if the file fits into free memory, a process reads it in order
while the rules begin. It never writes; the kernel frees the pages when memory is needed.

It is a process because of POSIX locks: closing a second descriptor of the file would drop the locks of SQLite in the
same process (https://www.sqlite.org/howtocorrupt.html, 2.2).
"""

from __future__ import annotations

import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from pytest_panic_doctor.database.progress import bytes_read

LEAST_FILE = 64 * 1024**2
"""Smallest file, in bytes, for which reading ahead is faster."""

PART_OF_FREE = 0.5
"""Fraction of the available memory that a file may fill."""

READER = """
import os, sys
parent, block = os.getppid(), bytearray(1 << 20)
try:
    with open(sys.argv[1], "rb", buffering=0) as file:
        while os.getppid() == parent and file.readinto(block):
            pass
except (OSError, KeyboardInterrupt):
    pass
"""
"""Program of the process. It ends with its parent, and ignores read errors, which the rules report."""


class ReadAhead:
    """The process that reads the file."""

    def __init__(self, path: Path, room: int) -> None:
        """Configure it.

        Args:
            path: The database.
            room: Bytes of free memory, page cache included.
        """
        self.path = path
        self.room = room
        self._process: subprocess.Popen[bytes] | None = None
        self._began = 0.0

    def is_worthwhile(self) -> bool:
        """Whether the file is large enough, and fits."""
        try:
            size = self.path.stat().st_size
        except OSError:
            return False
        return LEAST_FILE <= size <= PART_OF_FREE * self.room

    def start(self) -> None:
        """Start reading if that is worthwhile."""
        if self._process is None and self.is_worthwhile():
            self._began = time.monotonic()
            command = [sys.executable, "-I", "-S", "-c", READER, str(self.path)]
            with suppress(OSError):
                self._process = subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
                )

    def progress(self) -> tuple[int, int, float] | None:
        """Return how many bytes are read, how many there are, and for how many seconds; None if nothing is read now."""
        if self._process is None or self._process.poll() is not None:
            return None
        with suppress(OSError):
            size = self.path.stat().st_size
            if (done := bytes_read(str(self._process.pid))) is not None:
                return min(done, size), size, time.monotonic() - self._began
        return None

    def stop(self) -> None:
        """End the process; may be called twice."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
