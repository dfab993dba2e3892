"""Small diagrams that are computed and written several at a time, each a repair of its own.

A diagram of 100 points is computed in milliseconds; a transaction waits for the disk several times. So whoever computes
one that is small computes those of the next items too, and writes all of them together.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Protocol

from pytest_panic_doctor.database.memory_room import TooLarge
from pytest_panic_doctor.repair import recompute
from pytest_panic_doctor.repair.journal.errors import RepairError, RepairFailed, is_busy

if TYPE_CHECKING:
    from pytest_panic_doctor.compute.small_clouds import SmallFirst
    from pytest_panic_doctor.database.subject import Subject
    from pytest_panic_doctor.examination.examiner import RepairResult, SubjectFindings
    from pytest_panic_doctor.repair.journal.repair_record import Repair
    from pytest_panic_doctor.repair.journal.writer import Change

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
    """Diagrams that later items of a rule will request, and what is needed to compute them now.

    A diagram that cannot be computed here is left to its own item, which reports why.

    Attributes:
        repairs: Reads the clouds, and writes the diagrams.
        runner: Computes the diagrams.
        claim: Locks a diagram against the other workers.
        items: The later items; each is requested only when it is its turn.
        keep: Called with the result of each written diagram.
    """

    repairs: recompute.RepairContext
    runner: SmallFirst
    claim: Claim
    items: Iterable[SubjectFindings]
    keep: Callable[[Subject, RepairResult], object]

    def write_with(self, first: Change) -> Repair | None:
        """Write a diagram, and with it as many later ones as are computed in time.

        Args:
            first: The requested diagram.

        Returns:
            The repair of `first`; None if its guard returned false.

        Raises:
            RepairError: `first` could not be written.
        """
        with ExitStack() as claims:
            made = list(self._made(first.rule, claims))
            try:
                written = self.repairs.writer.write([first, *(change for change, _ in made)])
            except RepairError as error:
                if not made or (isinstance(error.__cause__, sqlite3.Error) and is_busy(error.__cause__)):
                    raise
                # One of the others may be what the database refuses.
                written = self.repairs.writer.write([first])
            # While they are held: who waits for one of them asks what was done.
            for (change, done), repair in zip(made, written[1:], strict=False):
                if repair is not None:
                    self.keep(change.subject, done)
        return written[0]

    def _made(self, rule: str, claims: ExitStack) -> Iterator[tuple[Change, RepairResult]]:
        """Compute diagrams until the time is over, and yield each with its result; `claims` holds their locks."""
        begun, count = time.monotonic(), 1
        for subject, findings in self.items:
            if made := self._one(rule, subject, claims):
                change, done = made
                yield change, replace(done, findings=findings)
                count += 1
            if count >= MOST or time.monotonic() - begun > SECONDS:
                return

    def _one(self, rule: str, subject: Subject, claims: ExitStack) -> tuple[Change, RepairResult] | None:
        """Compute the diagram of one subject; return None if it is left to its own item."""
        try:
            claims.enter_context(self.claim(recompute.claimed(subject), wait=False))
            seen = self.repairs.snapshot(subject)
            if seen.healthy or recompute.readable(seen):
                return None
            recompute.check_computable(seen)
        except (TimeoutError, RepairFailed, TooLarge, sqlite3.Error):
            return None
        begun = datetime.now()
        computed = self.runner.compute_small(seen.task(self.repairs.max_dim))
        if computed is None:
            return None
        change = self.repairs.change(rule, seen.before, begun, computed)
        return change, recompute.computed_result(len(seen.cloud.points), computed)
