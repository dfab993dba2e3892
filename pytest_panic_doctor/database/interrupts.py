"""Ctrl-C during a statement, which can take minutes on a large file.

Python handles signals between its own instructions, so not while SQLite runs. A progress handler
(https://sqlite.org/c3ref/progress_handler.html) calls Python regularly. SQLite turns an exception there into
SQLITE_INTERRUPT, which is turned into KeyboardInterrupt again.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

STEPS_PER_CALL = 100_000
"""Virtual-machine instructions between two calls of the progress handler (1 to 20 ms)."""


def _continue() -> int:
    """Progress handler: 0 lets SQLite continue. Calling any Python function lets pending signals run first."""
    return 0


def allow_interrupts(connection: sqlite3.Connection) -> None:
    """Let signals interrupt the statements of this connection."""
    connection.set_progress_handler(_continue, STEPS_PER_CALL)


@contextmanager
def reraise_interrupts() -> Iterator[None]:
    """Raise KeyboardInterrupt if a signal ended a statement in this context."""
    try:
        yield
    except sqlite3.Error as error:
        if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_INTERRUPT:
            raise KeyboardInterrupt from error
        raise
