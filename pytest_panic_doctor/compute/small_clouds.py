"""Computes small clouds in this process, because starting a child and using the ledger would take longer.

Only the engine `native` is used for this: it releases the GIL, limits its memory, and stops at a deadline. A cloud that
reaches a limit here is computed again in a watched child.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from functools import cache

from pytest_panic_doctor.compute.memory import resident
from pytest_panic_doctor.compute.runner import DiagramRunner
from pytest_panic_doctor.compute.task import Computed, Task
from pytest_panic_doctor.errors import DoctorError, Stopped
from pytest_panic_doctor.topology.engines import Native, compute, resolve_engine
from pytest_panic_doctor.topology.native import LimitReached
from pytest_panic_doctor.topology.threads import one_thread

SMALL_CLOUD = 256
"""Most points of a small cloud: its distances, ranks and columns take 1 to 2 MB."""

SMALL_SECONDS = 0.5
"""Limit in seconds, a hundred times the average. `is_active` is not called in this time."""

SMALL_MEMORY = 8_000_000
"""Limit of the engine in bytes, well below what the ledger never grants (`budget.headroom`)."""


COUNT_INTERVAL = 0.25
"""Seconds between two updates of the ledger's number of diagrams."""


class SmallFirst(DiagramRunner):
    """Computes small clouds in this process, and all others as `DiagramRunner` does."""

    _computed = 0
    _counted = -COUNT_INTERVAL

    def compute(self, task: Task) -> Computed:
        """Compute the diagram of a cloud; raises as `DiagramRunner.compute`."""
        return self.compute_small(task) or super().compute(task)

    def compute_small(self, task: Task) -> Computed | None:
        """Compute the diagram of a small cloud.

        Returns:
            None if a child has to compute it.

        Raises:
            Stopped: `is_active` returned False.
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
        """End the child, and update the ledger's number of diagrams."""
        with suppress(Stopped):
            self._count()
        super().close()


@cache
def uses_native(engine: str, max_dim: int) -> bool:
    """Whether this engine name resolves to `native`."""
    try:
        return resolve_engine(engine, max_dim) == Native.name
    except DoctorError:
        return False


def compute_in_process(task: Task, timeout: float | None = None) -> Computed | None:
    """Compute the diagram of a small cloud with the engine `native`.

    Args:
        task: The cloud.
        timeout: Limit in seconds, if below `SMALL_SECONDS`.

    Returns:
        None if the cloud is not small, or a limit was reached.
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
