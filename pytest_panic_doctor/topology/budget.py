"""One memory budget for all workers and their children.

What the processes really have is measured, a grant is what a child may grow to, and the sum of both never exceeds the
limit. Who waits is served in the order of asking, so that a large diagram is not overtaken for ever; where nothing else
runs, the oldest who waits gets all the room there is, so that there is no deadlock. The grant of a holder that died is
free at the next look of anybody.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from pytest_panic_doctor.errors import Stopped
from pytest_panic_doctor.topology.estimate import Estimate, Measured, estimate
from pytest_panic_doctor.topology.ledger import Held, Identity, Ledger, LedgerFile, Waiting
from pytest_panic_doctor.topology.memory import resident

POLL = 0.05
"""Seconds between two looks of one who waits."""

HEADROOM = 0.05
"""The part of the limit that is never granted: what a child grows between two looks."""

STEP = 32_000_000
"""Bytes by which a grant grows at a time, so that the ledger is not asked for every page."""


class Grant:
    """What one child may grow to."""

    def __init__(self, budget: Budget, key: str, size: int, alone: bool) -> None:
        """Made by `Budget.admit`; `alone`: nothing else was running when it was last looked at."""
        self.budget = budget
        self.key = key
        self.bytes = size
        self.alone = alone

    def grow(self, size: int) -> bool:
        """Try to grow to more than `size` bytes; False where there is no room, and the grant stays."""
        with self.budget.file.change() as ledger:
            held = ledger.holders[self.key]
            room = self.budget.room(ledger, held.child, self.key)
            self.alone = len(ledger.holders) == 1
            granted = room if self.alone else min(room, size + STEP)
            if granted <= size:
                return False
            held.grant = self.bytes = granted
        return True

    def report(self, size: int) -> None:
        """Note what the child has now, for whoever shows the progress."""
        with self.budget.file.change() as ledger:
            ledger.holders[self.key].resident = size


class Budget:
    """The budget of a session: `limit` bytes of resident memory for all processes in the ledger of `directory`."""

    def __init__(self, directory: Path, limit: int) -> None:
        """Every process of the session makes its own; it is in the ledger from then on."""
        self.limit = limit
        self.file = LedgerFile(directory)
        self.add(os.getpid())

    def add(self, pid: int) -> None:
        """Count a process: a child is added by its worker."""
        with self.file.change() as ledger:
            ledger.processes[str(pid)] = Identity.of(pid)

    def room(self, ledger: Ledger, child: int, key: str = "") -> int:
        """Bytes that `child` could be granted, what it has already included; `key` is its present grant's."""
        measured = {each.pid: resident(each.pid) for each in ledger.processes.values()}
        base = sum(size for pid, size in measured.items() if pid != child)
        promised = sum(
            max(0, held.grant - measured.get(held.child, 0)) for name, held in ledger.holders.items() if name != key
        )
        return int(self.limit * (1 - HEADROOM)) - base - promised

    @contextmanager
    def admit(
        self, size: int, child: int, label: str, points: int, wanted: Callable[[], bool], *, alone: bool = False
    ) -> Iterator[Grant]:
        """Wait until `child` may grow to `size` bytes, and hold that; the oldest who waits goes first.

        Where nothing else runs it is admitted with all the room there is, whatever `size` is: estimates can be wrong.
        With `alone` it waits for that. Raises `Stopped` where it is no longer wanted.
        """
        me = Identity.of(os.getpid())
        key = f"{me.pid}-{time.monotonic_ns()}"
        with self.file.change() as ledger:
            ledger.ticket += 1
            ledger.waiting[key] = Waiting(me, ledger.ticket)
        try:
            while not (grant := self._try(key, Held(me, child, size, label, points, time.time()), alone)):
                if not wanted():
                    raise Stopped("no longer wanted")
                time.sleep(POLL)
            yield grant
        finally:
            with self.file.change() as ledger:
                ledger.waiting.pop(key, None)
                ledger.holders.pop(key, None)

    def _try(self, key: str, held: Held, alone: bool) -> Grant | None:
        with self.file.change() as ledger:
            others = len(ledger.holders)
            if key != min(ledger.waiting, key=lambda each: ledger.waiting[each].ticket):
                return None
            room = self.room(ledger, held.child)
            if others and (alone or held.grant > room):
                return None
            if not others:
                held.grant = room if alone or held.grant > room else held.grant
            del ledger.waiting[key]
            ledger.holders[key] = held
        return Grant(self, key, held.grant, alone=not others)

    def learn(self, measured: Measured) -> None:
        """Note what a diagram really took, for the estimates of all workers."""
        with self.file.change() as ledger:
            ledger.measured.append(measured)
            ledger.done += 1

    def estimate(self, distinct: int) -> Estimate:
        """What a diagram of `distinct` points will take."""
        return estimate(distinct, self.file.read().measured)

    def running(self) -> Sequence[Held]:
        """What runs now."""
        return list(self.file.read().holders.values())

    def finished(self) -> int:
        """How many diagrams have been computed."""
        return self.file.read().done
