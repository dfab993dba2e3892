"""Ctrl-C in the midst of a statement that takes minutes on a large file.

Python handles a signal between its own instructions, so not while SQLite works. A progress handler
(https://sqlite.org/c3ref/progress_handler.html) gives it a moment in between; what the signal raises there, SQLite
turns into SQLITE_INTERRUPT, and this into KeyboardInterrupt again.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

STEPS_PER_CALL = 100_000
"""Instructions of SQLite's virtual machine, or rows of a check, between two such moments: 1 to 20 ms."""


def _continue() -> int:
    """Go on: a signal that came meanwhile has been handled on the way into this function."""
    return 0


def allow_interrupts(connection: sqlite3.Connection) -> None:
    """Let signals in while a statement of this connection runs."""
    connection.set_progress_handler(_continue, STEPS_PER_CALL)


@contextmanager
def reraise_interrupts() -> Iterator[None]:
    """Raise KeyboardInterrupt where a signal ended a statement within."""
    try:
        yield
    except sqlite3.Error as error:
        if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_INTERRUPT:
            raise KeyboardInterrupt from error
        raise
