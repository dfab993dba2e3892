"""Opens the SQLite connections of repairs: those to the journal, and those that write to the database."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

OPEN_TIMEOUT = 10.0
"""Seconds for which a statement waits for a lock, outside of a repair's steps."""


def tolerant(value: bytes) -> str:
    """Decode text; invalid bytes are escaped, since the text is shown and never written back."""
    return value.decode("utf-8", errors="surrogateescape")


def connect(
    path: Path,
    options: str = "mode=rw",
    patience: float | None = None,
    factory: type[sqlite3.Connection] = sqlite3.Connection,
) -> sqlite3.Connection:
    """Open a connection in autocommit mode: this package executes every BEGIN and COMMIT itself.

    Args:
        path: The file.
        options: The query of SQLite's URI. A journal that is only read is opened with `mode=rw` too, so that SQLite can
            recover it after a crash.
        patience: Seconds for which one statement waits for a lock; None for `OPEN_TIMEOUT`.
        factory: The class of the connection.
    """
    connection = sqlite3.connect(
        f"{path.as_uri()}?{options}",
        uri=True,
        timeout=OPEN_TIMEOUT if patience is None else patience,
        isolation_level=None,
        factory=factory,
        check_same_thread=False,
    )
    connection.text_factory = tolerant
    return connection


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """Begin a write transaction; it is rolled back after an error, else committed unless the block has done so."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        if connection.in_transaction:
            connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
