"""Small diagrams that are computed and written several at a time, each a repair of its own.

A diagram of 100 points is computed in milliseconds; a transaction waits for the disk several times. So whoever computes
one that is small computes those of the next items too, and writes all of them together.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Protocol

from pytest_panic_doctor.database.room import TooLarge
from pytest_panic_doctor.repair import recompute
from pytest_panic_doctor.repair.journal.errors import RepairError, RepairFailed, is_busy

if TYPE_CHECKING:
    from pytest_panic_doctor.compute.small import SmallFirst
    from pytest_panic_doctor.database.connection import Database
    from pytest_panic_doctor.database.subject import Subject
    from pytest_panic_doctor.repair.journal.repair_record import Repair
    from pytest_panic_doctor.repair.journal.writer import Change, Writer
    from pytest_panic_doctor.repair.recompute import DiagramTarget, RepairSummary

MOST = 32
"""Diagrams that one batch writes at most, the requested one included."""

SECONDS = 1.0
"""Seconds during which further diagrams are begun."""


class Claim(Protocol):
    """Locks a name against the other workers."""

    def __call__(self, name: str, *, wait: bool = True) -> AbstractContextManager[object]:
        """Return a context manager that holds the lock.

        Raises:
            TimeoutError: Another worker holds the lock, and `wait` is false.
        """


@dataclass(frozen=True, slots=True)
class Later:
    """Diagrams that later items of one rule will request, and what is needed to compute them now.

    A diagram that cannot be computed here is left to its own item, which reports why.

    Attributes:
        database: Reads the clouds.
        runner: Computes the diagrams.
        claim: Locks a diagram against the other workers.
        rule: The rule that the repairs are recorded for.
        subjects: The subjects of the later items; each is requested only when it is its turn.
        place: Returns the target of a subject.
        keep: Called with the result of each written diagram.
        max_dim: The highest homology dimension.
    """

    database: Database
    runner: SmallFirst
    claim: Claim
    rule: str
    subjects: Iterable[Subject]
    place: Callable[[sqlite3.Connection, Subject], DiagramTarget]
    keep: Callable[[Subject, RepairSummary], object]
    max_dim: int

    def made(self, claims: ExitStack) -> Iterator[tuple[Change, RepairSummary]]:
        """Compute diagrams until the time is over, and yield each with its result.

        Args:
            claims: Holds the locks until all diagrams are written.
        """
        begun, count = time.monotonic(), 1
        for subject in self.subjects:
            if made := self._one(subject, claims):
                yield made
                count += 1
            if count >= MOST or time.monotonic() - begun > SECONDS:
                return

    def _one(self, subject: Subject, claims: ExitStack) -> tuple[Change, RepairSummary] | None:
        """Compute the diagram of one subject; return None if it is left to its own item."""
        try:
            claims.enter_context(self.claim(recompute.claimed(subject), wait=False))
            seen = self.database.read(lambda db: recompute.snapshot(db, self.place(db, subject)))
            if seen.healthy or recompute.readable(seen):
                return None
            recompute.check_computable(seen)
        except (TimeoutError, RepairFailed, TooLarge, sqlite3.Error):
            return None
        begun = datetime.now()
        computed = self.runner.compute_small(recompute.task(seen, self.max_dim))
        if computed is None:
            return None
        change = recompute.change(self.rule, subject, seen.before, begun, computed, self.max_dim)
        return change, recompute.computed_result(len(seen.cloud.points), computed)


def write_together(writer: Writer, later: Later, first: Change) -> Repair | None:
    """Write a diagram, and with it as many later ones as are computed in time.

    Args:
        writer: Writes the diagrams.
        later: The later diagrams.
        first: The requested diagram.

    Returns:
        The repair of `first`; None if its guard returned false.

    Raises:
        RepairError: `first` could not be written.
    """
    with ExitStack() as claims:
        made = list(later.made(claims))
        try:
            repairs = writer.write([first, *(change for change, _ in made)])
        except RepairError as error:
            if not made or (isinstance(error.__cause__, sqlite3.Error) and is_busy(error.__cause__)):
                raise
            # One of the others may be what the database refuses.
            repairs = writer.write([first])
        # While they are held: who waits for one of them asks what was done.
        for (change, done), repair in zip(made, repairs[1:], strict=False):
            if repair is not None:
                later.keep(change.subject, done)
    return repairs[0]
