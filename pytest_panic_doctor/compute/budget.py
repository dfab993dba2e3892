"""One memory budget for all workers and their children.

Resident memory is measured, a grant is the size to which a child may grow, and the sum of both never exceeds the limit.

- Workers wait in first-come-first-served order, so that small diagrams do not delay a large one forever.
- If nothing else runs, the first in the queue gets all the room, so that there is no deadlock.
- If a child must grow and there is no room, the child admitted last is ended, and restarted when it can run alone. So
  the first one always continues, and a diagram is restarted at most once for this reason.
- The grant of a dead process is free as soon as any process reads the ledger.
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
"""Seconds between two checks while waiting for memory."""

HEADROOM, SURGE, MOST_HEADROOM = 0.05, 100_000_000, 0.1
"""Memory that is never granted, to cover growth between two checks.

A fraction of the limit, at least `SURGE` bytes, and at most the fraction `MOST_HEADROOM`. With four times as many busy
processes as cores, a child that doubled an array gained up to 75 MB before its watcher ran (benchmarks/README.md).
"""

SHORT_LOCK_TIMEOUT = 0.02
"""Timeout in seconds for the ledger lock while watching a child.

The lock is normally held for milliseconds, but its holder may be paused. The child can grow by up to 40 MB in this
time.
"""

GRANT_STEP = 32_000_000
"""Smallest increase of a grant in bytes, so that the ledger is not asked for every page."""

GRANT_MARGIN = 16_000_000
"""Bytes left to a child above its size when its unused grant is taken back."""

UNREGISTERED_INTERVAL = 2.0
"""Seconds for which the list of descendant processes is cached; finding them takes milliseconds."""


def headroom(limit: int) -> int:
    """Bytes of `limit` that are never granted."""
    return int(max(HEADROOM * limit, min(SURGE, MOST_HEADROOM * limit)))


class GrowthDecision(Enum):
    """The decision on a child's request for more memory."""

    GRANTED = "it may grow"
    KEPT = "it may have what it was granted before, and no more"
    WAIT = "hold still: another was ended to make room and has its memory still, or the ledger cannot be had"
    YIELD = "it must make room itself, and begin again when it can run alone"
    FULL = "nothing else runs, and there is no more"


class Grant:
    """The right of one child to grow to a number of bytes."""

    def __init__(self, budget: Budget, lease: Lease) -> None:
        """Called by `Budget.admit`."""
        self.budget = budget
        self.key = token_hex(8)
        self.lease = lease
        self.computed = False
        self._version = (0, 0)

    @property
    def bytes(self) -> int:
        """The granted bytes."""
        return self.lease.grant

    def wait(self, waiting: Callable[[Grant, float], None], *, exclusive: bool) -> None:
        """Wait until there is room, keeping the first ticket.

        Args:
            waiting: Called between two checks with the grant and the seconds waited; an exception ends the wait.
            exclusive: Whether to wait until nothing else runs.
        """
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
            # Check without the lock first, so that many waiting workers do not delay running ones.
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
        # Alone it gets all the room, even if the estimate is larger: otherwise it would wait forever.
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
        """Record the child that uses the grant."""
        if child != self.lease.child:
            with self._change() as ledger:
                self.lease.child = child
                ledger.processes[str(child)] = ProcessIdentity.of(child)

    def grow(self, size: int) -> GrowthDecision:
        """Request more than the child's present `size` in bytes."""
        try:
            with self._change(SHORT_LOCK_TIMEOUT) as ledger:
                return self._grow(ledger, size, self.lease.grant)
        except LedgerLockedError:
            return GrowthDecision.WAIT if size > self.bytes else GrowthDecision.KEPT

    def report(self, size: int, stage: str, progress: str = "") -> GrowthDecision:
        """Record the child's size and stage, for progress displays, and check the total against the limit.

        Other processes grow too, such as a worker that loads a cloud. Then the child admitted last has to end.

        Args:
            size: Resident bytes of the child.
            stage: What the child does.
            progress: How far it is in this stage, as the engine says it.
        """
        try:
            with self._change(SHORT_LOCK_TIMEOUT) as ledger:
                self.lease.resident, self.lease.stage, self.lease.progress = size, stage, progress
                if self.budget.total_resident(ledger) <= self.budget.hard_limit:
                    return GrowthDecision.KEPT
                return self._grow(ledger, size, 0)
        except LedgerLockedError:
            return GrowthDecision.KEPT

    @property
    def ended(self) -> bool:
        """Whether the child was ended to free memory for another one."""
        return self.budget.file.read().lease(self.key).ended

    def refresh(self) -> None:
        """Read the grant again if the ledger has changed; takes microseconds if it has not."""
        version = self.budget.file.version
        if version != self._version:
            self.lease = self.budget.file.read().lease(self.key)
            self._version = version

    def release(self) -> None:
        """Give the grant back, and count the diagram if it was `computed`."""
        with suppress(Stopped), self.budget.file.change() as ledger:
            ledger.waiting.pop(self.key, None)
            ledger.holders.pop(self.key, None)
            ledger.done += self.computed

    @contextmanager
    def _change(self, seconds: float | None = None) -> Iterator[Ledger]:
        with self.budget.file.change(seconds) as ledger:
            self.lease = ledger.lease(self.key)
            yield ledger

    def _grow(self, ledger: Ledger, size: int, minimum: int) -> GrowthDecision:
        # Up to `minimum` bytes no other child is ended for this one.
        lease = self.lease
        if lease.ended:
            return GrowthDecision.YIELD
        others = [each for key, each in ledger.holders.items() if key != self.key and not each.ended]
        room = self.budget.room(ledger, lease.child, self.key, promised=False) - GRANT_MARGIN * len(others)
        if room > size + GRANT_MARGIN:
            # Unused grants of others were counted as room: take them back.
            lease.grant = min(room, size + max(GRANT_STEP, size // 8))
            self.budget.balance(ledger)
            return GrowthDecision.GRANTED
        if size <= minimum:
            return GrowthDecision.KEPT
        # No room: the child admitted last has to end, so that the first one always continues.
        last = max((lease, *others), key=lambda each: each.ticket)
        if last is not lease:
            last.ended = True
            self._kill_child(ledger, last)
            return GrowthDecision.WAIT
        if others:
            last.ended = True
            return GrowthDecision.YIELD
        # Alone. The memory of ended children may not be free yet.
        still_ending = [each for each in ledger.holders.values() if each.ended and start_time(each.child)]
        return GrowthDecision.WAIT if still_ending else GrowthDecision.FULL

    @staticmethod
    def _kill_child(ledger: Ledger, lease: Lease) -> None:
        # Not by the child's own worker, which may be busy: this way the memory is free in milliseconds.
        child = ledger.processes.get(str(lease.child))
        if child and child.alive:
            with suppress(ProcessLookupError):
                os.kill(child.pid, signal.SIGKILL)


class Budget:
    """The memory budget of a session.

    It covers all processes in the ledger and their descendants.
    """

    def __init__(self, directory: Path, limit: int) -> None:
        """Register this process; every process of the session makes its own `Budget`.

        Args:
            directory: Folder of the ledger, shared by the session.
            limit: Resident bytes of all processes together.
        """
        self.limit = limit
        self.usable = limit - headroom(limit)
        self.hard_limit = limit - headroom(limit) // 2
        self.file = LedgerFile(directory)
        self._unregistered: tuple[float, tuple[int, ...]] = (-UNREGISTERED_INTERVAL, ())
        self.add(os.getpid())

    def add(self, pid: int) -> None:
        """Register a process and its descendants."""
        with self.file.change() as ledger:
            ledger.processes[str(pid)] = ProcessIdentity.of(pid)

    def sizes(self, ledger: Ledger) -> dict[int, int]:
        """Resident bytes of all counted processes, by process id."""
        known = [each.pid for each in ledger.processes.values()]
        looked_at, unregistered = self._unregistered
        if time.monotonic() - looked_at > UNREGISTERED_INTERVAL:
            unregistered = tuple(set(family(known)) - set(known))
            self._unregistered = (time.monotonic(), unregistered)
        return {pid: resident(pid) for pid in {*known, *unregistered}}

    def total_resident(self, ledger: Ledger) -> int:
        """Resident bytes of all counted processes together."""
        return sum(self.sizes(ledger).values())

    def room(self, ledger: Ledger, child: int, key: str = "", *, promised: bool = True) -> int:
        """Bytes that could be granted to a child, including its present size.

        Args:
            ledger: The ledger.
            child: Process id of the child; 0 if it is not started.
            key: Key of its present grant, which is not subtracted.
            promised: Whether to subtract what others were granted and do not use.
        """
        sizes = self.sizes(ledger)
        base = sum(size for pid, size in sizes.items() if pid != child)
        unused = sum(
            max(0, lease.grant - sizes.get(lease.child, 0)) for name, lease in ledger.holders.items() if name != key
        )
        return self.usable - base - (unused if promised else 0)

    def balance(self, ledger: Ledger) -> None:
        """Take unused grants back, the newest first, until the total fits."""
        sizes = self.sizes(ledger)
        excess = self.total_resident(ledger) - self.usable
        excess += sum(max(0, held.grant - sizes.get(held.child, 0)) for held in ledger.holders.values())
        for lease in sorted(ledger.holders.values(), key=lambda each: -each.ticket):
            spare = lease.grant - sizes.get(lease.child, 0) - GRANT_MARGIN
            released = max(0, min(spare, excess))
            lease.grant -= released
            excess -= released

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
        """Wait until a child may grow to `size` bytes, and hold the grant within the context.

        The first in the queue is admitted with all the room if nothing else runs, even if `size` is larger: estimates
        can be wrong.

        Args:
            size: Estimated bytes of the child.
            label: Name of the diagram, for progress displays.
            points: Number of points, for progress displays.
            waiting: As in `Grant.wait`.
            child: Process id of a running child that will be used; 0 for a new one.
            exclusive: Whether to wait until nothing else runs.
        """
        grant = Grant(self, Lease(ProcessIdentity.of(os.getpid()), 0, child, size, label, points, time.time()))
        try:
            grant.wait(waiting, exclusive=exclusive)
            yield grant
        finally:
            grant.release()

    def largest_grant(self) -> int:
        """Bytes that one child could have if it were the only one."""
        ledger = self.file.read()
        children = {lease.child for lease in ledger.holders.values()}
        return self.usable - sum(size for pid, size in self.sizes(ledger).items() if pid not in children)

    def count(self, diagrams: int = 1) -> None:
        """Count diagrams that were computed without a grant."""
        with self.file.change() as ledger:
            ledger.done += diagrams

    def running(self) -> Sequence[Lease]:
        """The grants that are in use."""
        return list(self.file.read().holders.values())

    def finished(self) -> int:
        """Number of diagrams computed."""
        return self.file.read().done

    def register_worker(self) -> None:
        """Record that this process computes diagrams."""
        with self.file.change() as ledger:
            ledger.workers[str(os.getpid())] = ProcessIdentity.of(os.getpid())

    def workers(self) -> int:
        """Number of processes that compute diagrams."""
        return len(self.file.read().workers)
