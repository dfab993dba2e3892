"""Small clouds, computed in this process: a child, its start and the ledger of memory would cost more than they take.

The doctor's own engine alone is trusted with that: it lets other threads run, counts its bytes, and ends by itself at a
deadline. What reaches a limit here is begun again in a watched child, as if it had not been tried.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from functools import cache

from pytest_panic_doctor.compute.memory import resident
from pytest_panic_doctor.compute.runner import Computed, DiagramRunner, Task
from pytest_panic_doctor.errors import DoctorError, Stopped
from pytest_panic_doctor.topology.engines import Native, compute, resolve_engine
from pytest_panic_doctor.topology.native import LimitReached
from pytest_panic_doctor.topology.threads import one_thread

SMALL_CLOUD = 256
"""Points of a small cloud: their distances, their ranks and the columns to reduce take 1 to 2 MB."""

SMALL_SECONDS = 0.5
"""A limit a hundred times above what such a cloud takes on average; for so long nobody asks whether it is wanted."""

SMALL_MEMORY = 8_000_000
"""Bytes that the engine may allocate, well within what the ledger never grants (`budget.headroom`)."""


COUNT_INTERVAL = 0.25
"""Seconds between two entries in the ledger of how many were computed."""


class SmallFirst(DiagramRunner):
    """Computes small clouds in this process, and all others as any `DiagramRunner` does."""

    _computed = 0
    _counted = -COUNT_INTERVAL

    def compute(self, task: Task) -> Computed:
        """The diagram of a cloud; raises as `DiagramRunner.compute`."""
        return self.compute_small(task) or super().compute(task)

    def compute_small(self, task: Task) -> Computed | None:
        """The diagram of a small cloud; None where it is to be computed in a child.

        Raises `Stopped` where nothing is wanted any longer.
        """
        if not self.is_active():
            raise Stopped("no longer wanted")
        if not uses_native(self.engine, task.max_dim) or (computed := compute_in_process(task, self.timeout)) is None:
            return None
        self._computed += 1
        if time.monotonic() - self._counted > COUNT_INTERVAL:
            self._count()
        return computed

    def _count(self) -> None:
        diagrams, self._computed = self._computed, 0
        self._counted = time.monotonic()
        if diagrams:
            self.budget.count(diagrams)

    def close(self) -> None:
        """End the child, and count what is not counted yet."""
        with suppress(Stopped):
            self._count()
        super().close()


@cache
def uses_native(engine: str, max_dim: int) -> bool:
    """Whether the doctor's own engine is what this name comes to."""
    try:
        return resolve_engine(engine, max_dim) == Native.name
    except DoctorError:
        return False


def compute_in_process(task: Task, timeout: float | None = None) -> Computed | None:
    """The diagram of a small cloud, by the engine `native`; None where it is not small, or a limit was reached.

    `timeout` in seconds, where less than `SECONDS` are given to a diagram.
    """
    if len(task.points) > SMALL_CLOUD:
        return None
    engine, begun = Native(min(SMALL_SECONDS, timeout or SMALL_SECONDS), SMALL_MEMORY), time.monotonic()
    try:
        with one_thread():
            diagram, merged = compute(task.points, engine=engine, max_dim=task.max_dim, tolerance=task.tolerance)
    except (LimitReached, ValueError, MemoryError):
        return None
    seconds = time.monotonic() - begun
    peak = resident(os.getpid())
    return Computed(diagram, len(merged.points), merged.tolerance, engine.name, engine.version, seconds, peak)
