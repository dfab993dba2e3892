"""Reports how far a long step is, to the part of this process that shows it; costs nothing if none does."""

from __future__ import annotations

import sqlite3
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path

SAMPLE_EVERY = 0.5
"""Seconds between two looks at how much was read."""


class Receiver(ABC):
    """Shows the progress of steps. `of` is 0 if it is not known how much there is."""

    @abstractmethod
    def take(self, what: str, done: float, of: float, *, sizes: bool) -> None:
        """Take the progress of a step in bytes, or as a number of things; another text begins another step."""

    def report(self, what: str, done: float, of: float) -> None:
        """Take the progress of a step in bytes."""
        self.take(what, done, of, sizes=True)

    def count(self, what: str, done: float, of: float) -> None:
        """Take the progress of a step as a number of things."""
        self.take(what, done, of, sizes=False)


RECEIVER: ContextVar[Receiver | None] = ContextVar("receiver", default=None)
"""Who shows the progress of this thread's steps; None: nobody."""


@contextmanager
def progress_to(receiver: Receiver) -> Iterator[None]:
    """Show the progress of all steps in this context by a receiver."""
    token = RECEIVER.set(receiver)
    try:
        yield
    finally:
        RECEIVER.reset(token)


def count_done(what: str, done: int, of: int) -> None:
    """Say how far a step is, by the number of things that are done and that there are."""
    if receiver := RECEIVER.get():
        receiver.count(what, done, of)


def bytes_read(owner: str) -> int | None:
    """Return how many bytes were read from files so far, from the page cache too; None if it is unknown.

    Args:
        owner: Who reads, by its folder in `/proc`: a process such as `1234`, or a thread such as `self/task/5`.
    """
    with suppress(OSError, ValueError, IndexError):
        return int(Path(f"/proc/{owner}/io").read_text().split()[1])
    return None


@contextmanager
def pages_read(what: str, then: str, size: int) -> Iterator[None]:
    """Report how much of a file this thread reads in this context, while SQLite runs and no Python does.

    Args:
        what: What is done while the file is read for the first time.
        then: What is done after that.
        size: The size of the file in bytes.
    """
    receiver, thread = RECEIVER.get(), f"self/task/{threading.get_native_id()}"
    first = bytes_read(thread)
    if receiver is None or first is None:
        yield
        return
    ended = threading.Event()

    def sample() -> None:
        while not ended.wait(SAMPLE_EVERY):
            if (now := bytes_read(thread)) is None:
                return
            if now - first < size:
                receiver.report(what, now - first, size)
            else:
                receiver.report(then, now - first - size, 0)

    sampler = threading.Thread(target=sample, name="doctor-pages-read", daemon=True)
    sampler.start()
    try:
        yield
    finally:
        ended.set()
        sampler.join()


def file_size(db: sqlite3.Connection) -> int:
    """Return the size of a database by its number of pages, in bytes."""
    pages = db.execute("PRAGMA page_count").fetchone()[0]
    return int(pages) * int(db.execute("PRAGMA page_size").fetchone()[0])
