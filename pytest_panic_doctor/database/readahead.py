"""Reading the file from front to end into the kernel's page cache, ahead of the rules that will want its pages.

SQLite reads a page at a time, in the order of its trees: `PRAGMA integrity_check` on a cold file of 1.6 GB took 17 s,
on a warm one 3 s, and the disk gave the whole file in 4 s. So where the file fits into memory that is free anyway, a
process of its own reads it in order, while the rules begin. It never writes; the pages are the kernel's, which takes
them back when anybody needs the memory.

In a process of its own because of POSIX locks: closing a second descriptor of the file would drop those of SQLite in
the same process (https://www.sqlite.org/howtocorrupt.html, 2.2).
"""

from __future__ import annotations

import subprocess
import sys
from contextlib import suppress
from pathlib import Path

LEAST_FILE = 64 * 1024**2
"""Bytes of a file below which reading ahead gains nothing."""

PART_OF_FREE = 0.5
"""The part of the available memory that a file may fill."""

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
"""Ends at once when its parent does. What it cannot read, the rules will say."""


class ReadAhead:
    """The process that reads, from `start` to `stop` or the file's end."""

    def __init__(self, path: Path, room: int) -> None:
        """`path` is the database's; `room` the bytes of memory that are free, page cache included."""
        self.path = path
        self.room = room
        self._process: subprocess.Popen[bytes] | None = None

    def is_worthwhile(self) -> bool:
        """Whether the file is worth it, and fits."""
        try:
            size = self.path.stat().st_size
        except OSError:
            return False
        return LEAST_FILE <= size <= PART_OF_FREE * self.room

    def start(self) -> None:
        """Begin to read, where that is wanted."""
        if self._process is None and self.is_worthwhile():
            command = [sys.executable, "-I", "-S", "-c", READER, str(self.path)]
            with suppress(OSError):
                self._process = subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
                )

    def stop(self) -> None:
        """End the process, if it is still there; twice does no harm."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
