"""One memory budget for all workers and their children.

What the processes really have is measured, a grant is what a child may grow to, and the sum of both never exceeds the
limit. Who waits is served in the order of asking, so that a large diagram is not overtaken for ever; where nothing else
runs, the oldest who waits gets all the room there is, so that there is no deadlock. Where a child must grow and there
is no room, the one that was admitted last is ended, and begun again when it can run alone: the first always goes on,
and a diagram is begun again at most once for that. The grant of a holder that died is free at the next look of anybody.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from enum import Enum
from pathlib import Path
from secrets import token_hex

from pytest_panic_doctor.compute.ledger import Lease, Ledger, LedgerFile, LedgerLockedError, ProcessIdentity, Waiting
from pytest_panic_doctor.compute.memory import family, resident, start_time
from pytest_panic_doctor.errors import Stopped

WAIT_POLL = 0.05
"""Seconds between two looks of one who waits."""

HEADROOM, SURGE, MOST_HEADROOM = 0.05, 100_000_000, 0.1
"""What is never granted, for all that grows between two looks: a part of the limit, and at least so many bytes, though
no larger a part than the last. On a machine with four times as many busy processes as cores, a child that doubled an
array gained up to 75 MB until its watcher had its turn (benchmarks/README.md)."""

SHORT_LOCK_TIMEOUT = 0.02
"""Seconds for which one who watches a child waits for the ledger: it is held for milliseconds, but who holds it may be
held still, and the child grows meanwhile, by 40 MB at the most."""

GRANT_STEP = 32_000_000
"""Bytes by which a grant grows at least, so that the ledger is not asked for every page."""

GRANT_MARGIN = 16_000_000
"""Bytes that are left to a child above what it has, where its unused grant is taken for another."""

UNREGISTERED_INTERVAL = 2.0
"""Seconds for which the processes that nobody entered into the ledger are taken as known: to find them takes ms."""


def headroom(limit: int) -> int:
    """Bytes of `limit` that are never granted."""
    return int(max(HEADROOM * limit, min(SURGE, MOST_HEADROOM * limit)))


class GrowthDecision(Enum):
    """What a child that asks for more gets to hear."""

    GRANTED = "it may grow"
    KEPT = "it may have what it was granted before, and no more"
    WAIT = "hold still: another was ended to make room and has its memory still, or the ledger cannot be had"
    YIELD = "it must make room itself, and begin again when it can run alone"
    FULL = "nothing else runs, and there is no more"


class Grant:
    """What one child may grow to."""

    def __init__(self, budget: Budget, lease: Lease) -> None:
        """Made by `Budget.admit`."""
        self.budget = budget
        self.key = token_hex(8)
        self.lease = lease
        self.computed = False
        self._version = (0, 0)

    @property
    def bytes(self) -> int:
        """The bytes that were granted."""
        return self.lease.grant

    def wait(self, waiting: Callable[[Grant, float], None], *, exclusive: bool) -> None:
        """Wait, in its old place, until there is room; `waiting` as in `Budget.admit`."""
        size, begun = self.lease.grant, time.monotonic()
        with self.budget.file.change() as ledger:
            if not self.lease.ticket:
                ledger.ticket += 1
                self.lease.ticket = ledger.ticket
            ledger.holders.pop(self.key, None)
            ledger.waiting[self.key] = Waiting(self.lease.owner, self.lease.ticket)
            admitted = self._admit(ledger, size, exclusive)
        while not admitted:
            waiting(self, time.monotonic() - begun)
            time.sleep(WAIT_POLL)
            # A look without the lock, so that many who wait do not keep it from those who run.
            if self._is_next(self.budget.file.read()):
                with self.budget.file.change() as ledger:
                    admitted = self._admit(ledger, size, exclusive)

    def _admit(self, ledger: Ledger, size: int, exclusive: bool) -> bool:
        others = bool(ledger.holders)
        if not self._is_next(ledger) or (others and exclusive):
            return False
        room = self.budget.room(ledger, self.lease.child)
        if others and size > room:
            return False
        granted = max(0, room) if exclusive or size > room else size
        self.lease = replace(self.lease, grant=granted, since=time.time(), ended=False)
        if self.lease.child:
            ledger.processes[str(self.lease.child)] = ProcessIdentity.of(self.lease.child)
        del ledger.waiting[self.key]
        ledger.holders[self.key] = self.lease
        return True

    def _is_next(self, ledger: Ledger) -> bool:
        if self.key not in ledger.waiting:
            raise Stopped("the session's folder is gone")
        return self.key == min(ledger.waiting, key=lambda each: ledger.waiting[each].ticket)

    def attach(self, child: int) -> None:
        """Name the child that the grant is for."""
        if child != self.lease.child:
            with self._change() as ledger:
                self.lease.child = child
                ledger.processes[str(child)] = ProcessIdentity.of(child)

    def grow(self, size: int) -> GrowthDecision:
        """Ask for more than the `size` bytes that the child has now."""
        try:
            with self._change(SHORT_LOCK_TIMEOUT) as ledger:
                return self._grow(ledger, size, self.lease.grant)
        except LedgerLockedError:
            return GrowthDecision.WAIT if size > self.bytes else GrowthDecision.KEPT

    def report(self, size: int, stage: str) -> GrowthDecision:
        """Note what the child has now and does, for whoever shows the progress; look whether all is within the limit.

        Other processes grow too, a worker that loads a cloud for one: then the child that was admitted last has to go.
        """
        try:
            with self._change(SHORT_LOCK_TIMEOUT) as ledger:
                self.lease.resident, self.lease.stage = size, stage
                if self.budget.total_resident(ledger) <= self.budget.hard_limit:
                    return GrowthDecision.KEPT
                return self._grow(ledger, size, 0)
        except LedgerLockedError:
            return GrowthDecision.KEPT

    @property
    def ended(self) -> bool:
        """Whether the child was ended for somebody else's sake."""
        return self.budget.file.read().lease(self.key).ended

    def refresh(self) -> None:
        """See whether others have changed the grant; costs microseconds where nobody did."""
        version = self.budget.file.version
        if version != self._version:
            self.lease = self.budget.file.read().lease(self.key)
            self._version = version

    def release(self) -> None:
        """Give it back, and count the diagram where it was `computed`."""
        with suppress(Stopped), self.budget.file.change() as ledger:
            ledger.waiting.pop(self.key, None)
            ledger.holders.pop(self.key, None)
            ledger.done += self.computed

    @contextmanager
    def _change(self, seconds: float | None = None) -> Iterator[Ledger]:
        with self.budget.file.change(seconds) as ledger:
            self.lease = ledger.lease(self.key)
            yield ledger

    def _grow(self, ledger: Ledger, size: int, kept: int) -> GrowthDecision:
        # Up to `kept` bytes nobody has to go for it.
        lease = self.lease
        if lease.ended:
            return GrowthDecision.YIELD
        others = [each for key, each in ledger.holders.items() if key != self.key and not each.ended]
        room = self.budget.room(ledger, lease.child, self.key, promised=False) - GRANT_MARGIN * len(others)
        if room > size + GRANT_MARGIN:
            lease.grant = min(room, size + max(GRANT_STEP, size // 8))
            self.budget.balance(ledger)
            return GrowthDecision.GRANTED
        if size <= kept:
            return GrowthDecision.KEPT
        last = max((lease, *others), key=lambda each: each.ticket)
        if last is not lease:
            last.ended = True
            self._kill_child(ledger, last)
            return GrowthDecision.WAIT
        if others:
            last.ended = True
            return GrowthDecision.YIELD
        still_ending = [each for each in ledger.holders.values() if each.ended and start_time(each.child)]
        return GrowthDecision.WAIT if still_ending else GrowthDecision.FULL

    @staticmethod
    def _kill_child(ledger: Ledger, lease: Lease) -> None:
        # By this process and not by the child's own worker: the memory is back in milliseconds, whatever that one does.
        child = ledger.processes.get(str(lease.child))
        if child and child.alive:
            with suppress(ProcessLookupError):
                os.kill(child.pid, signal.SIGKILL)


class Budget:
    """The budget of a session: `limit` bytes of resident memory for all processes in the ledger of `directory`.

    All that are below those processes count too.
    """

    def __init__(self, directory: Path, limit: int) -> None:
        """Every process of the session makes its own; it is in the ledger from then on."""
        self.limit = limit
        self.usable = limit - headroom(limit)
        self.hard_limit = limit - headroom(limit) // 2
        self.file = LedgerFile(directory)
        self._unregistered: tuple[float, tuple[int, ...]] = (-UNREGISTERED_INTERVAL, ())
        self.add(os.getpid())

    def add(self, pid: int) -> None:
        """Count a process and all below it."""
        with self.file.change() as ledger:
            ledger.processes[str(pid)] = ProcessIdentity.of(pid)

    def sizes(self, ledger: Ledger) -> dict[int, int]:
        """Resident bytes of everything that counts, by process id."""
        known = [each.pid for each in ledger.processes.values()]
        looked_at, unregistered = self._unregistered
        if time.monotonic() - looked_at > UNREGISTERED_INTERVAL:
            unregistered = tuple(set(family(known)) - set(known))
            self._unregistered = (time.monotonic(), unregistered)
        return {pid: resident(pid) for pid in {*known, *unregistered}}

    def total_resident(self, ledger: Ledger) -> int:
        """Bytes that everything together has now."""
        return sum(self.sizes(ledger).values())

    def room(self, ledger: Ledger, child: int, key: str = "", *, promised: bool = True) -> int:
        """Bytes that `child` could be granted, what it has already included; `key` is its present grant's.

        Not `promised`: what others were granted and do not have counts as room.
        """
        sizes = self.sizes(ledger)
        base = sum(size for pid, size in sizes.items() if pid != child)
        unused = sum(
            max(0, held.grant - sizes.get(held.child, 0)) for name, held in ledger.holders.items() if name != key
        )
        return self.usable - base - (unused if promised else 0)

    def balance(self, ledger: Ledger) -> None:
        """Take unused grants back, of those admitted last first, until everything fits again."""
        sizes = self.sizes(ledger)
        over = self.total_resident(ledger) - self.usable
        over += sum(max(0, held.grant - sizes.get(held.child, 0)) for held in ledger.holders.values())
        for lease in sorted(ledger.holders.values(), key=lambda each: -each.ticket):
            spare = lease.grant - sizes.get(lease.child, 0) - GRANT_MARGIN
            taken = max(0, min(spare, over))
            lease.grant -= taken
            over -= taken

    @contextmanager
    def admit(
        self,
        size: int,
        label: str,
        points: int,
        waiting: Callable[[Grant, float], None],
        *,
        child: int = 0,
        exclusive: bool = False,
    ) -> Iterator[Grant]:
        """Wait until a child may grow to `size` bytes, and hold that; the oldest who waits goes first.

        Where nothing else runs it is admitted with all the room there is, whatever `size` is: estimates can be wrong.
        With `alone` it waits for that. `waiting` is called between two looks, with the grant and the seconds waited;
        what it raises ends the wait. `child` is a process that is there already and will be used.
        """
        grant = Grant(self, Lease(ProcessIdentity.of(os.getpid()), 0, child, size, label, points, time.time()))
        try:
            grant.wait(waiting, exclusive=exclusive)
            yield grant
        finally:
            grant.release()

    def largest_grant(self) -> int:
        """Bytes that one child could have if no other were there."""
        ledger = self.file.read()
        children = {lease.child for lease in ledger.holders.values()}
        return self.usable - sum(size for pid, size in self.sizes(ledger).items() if pid not in children)

    def count(self, diagrams: int = 1) -> None:
        """Count diagrams that were computed without a grant."""
        with self.file.change() as ledger:
            ledger.done += diagrams

    def running(self) -> Sequence[Lease]:
        """What runs now."""
        return list(self.file.read().holders.values())

    def finished(self) -> int:
        """How many diagrams have been computed."""
        return self.file.read().done

    def register_worker(self) -> None:
        """Say that this process computes."""
        with self.file.change() as ledger:
            ledger.workers[str(os.getpid())] = ProcessIdentity.of(os.getpid())

    def workers(self) -> int:
        """How many processes compute."""
        return len(self.file.read().workers)
