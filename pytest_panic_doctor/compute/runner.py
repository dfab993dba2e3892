"""Runs computations in a child process that is watched from outside, and ended at its limits.

RLIMIT_AS and MemoryError do not stop the engines cleanly, and nothing in Python interrupts their C++ threads.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Self

import numpy as np

from pytest_panic_doctor.compute import estimate
from pytest_panic_doctor.compute.attempt import Attempt
from pytest_panic_doctor.compute.budget import GRANT_MARGIN, Budget, Grant, GrowthDecision
from pytest_panic_doctor.compute.frames import Frame
from pytest_panic_doctor.compute.memory import resident
from pytest_panic_doctor.compute.process import Child, ChildDied, defer_sigint
from pytest_panic_doctor.compute.task import (
    ComputationFailed,
    Computed,
    Task,
    describe_diagram,
    more_memory,
    timeout_message,
)
from pytest_panic_doctor.errors import Stopped
from pytest_panic_doctor.formatting import format_size
from pytest_panic_doctor.topology.diagram import Diagram
from pytest_panic_doctor.topology.engines import would_compute

FASTEST_GROWTH = 2e9
"""Bytes per second: the fastest growth of a child that was measured, 1.8e9, rounded up."""

FASTEST_POLL, SLOWEST_POLL = 0.005, 0.05
"""Shortest and longest interval in seconds between two checks of a child.

The next check comes before a child can use up its grant at its fastest growth. A check takes 40 µs.
"""

REPORT_INTERVAL = 0.5
"""Seconds between two updates of the child's size in the ledger."""

START_TIMEOUT = 120.0
"""Seconds for a child to start; importing an engine takes 1 to 2 s."""

GRACE = 0.5
"""Seconds beyond the timeout for a child that ends a computation at its limits by itself."""

LEDGER_TIMEOUT = 2.0
"""Seconds of waiting for room after which an idle child is ended, because others may need its memory."""

RECYCLE = 250_000_000
"""An idle child above this size in bytes is replaced, to free memory for others."""


class PreemptedError(Exception):
    """Raised when the child was preempted to free memory for an earlier task."""


class DiagramRunner:
    """Computes diagrams one after another in a child, which is reused, and replaced if it dies. A context manager."""

    def __init__(
        self,
        engine: str = "auto",
        threads: int = 1,
        *,
        budget: Budget,
        timeout: float | None = None,
        is_active: Callable[[], bool] = lambda: True,
        controller: int | None = None,
    ) -> None:
        """Configure the runner; a child is started for the first task.

        Args:
            engine: Name of the engine.
            threads: Threads of the engine.
            budget: The session's memory budget.
            timeout: Seconds for each diagram; None for no limit.
            is_active: Called often; the computation ends when it returns False.
            controller: Process at whose end an idle child exits; None for this process.
        """
        self.engine = engine
        self.threads = threads
        self.budget = budget
        self.timeout = timeout
        self.is_active = is_active
        self.controller = controller
        self._child: Child | None = None
        budget.register_worker()

    def __enter__(self) -> Self:
        """Return the runner."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the child."""
        self.close()

    def close(self) -> None:
        """End the child."""
        child, self._child = self._child, None
        if child:
            child.end()

    def compute(self, task: Task) -> Computed:
        """Compute the diagram of a cloud.

        A child that dies by itself is retried once, alone. A preempted one is restarted when it can have all the room.

        Raises:
            ComputationFailed: The diagram was not computed.
            Stopped: `is_active` returned False, or the session is over.
        """
        try:
            distinct = len({point.tobytes() for point in task.points})
            need = estimate.memory(distinct, would_compute(self.engine, task.max_dim), task.points.nbytes)
            idle = self._child.pid if self._child else 0
            with self.budget.admit(need, task.label, task.count, self._waiting, child=idle) as grant:
                computed = self._run_with_retries(task, grant)
                grant.computed = True
        except ComputationFailed:
            raise
        except BaseException:
            # Ctrl-C, or the session is over: leave no child behind.
            self.close()
            raise
        return computed

    def _run_with_retries(self, task: Task, grant: Grant) -> Computed:
        deaths: list[tuple[str, Attempt]] = []
        while True:
            attempt = Attempt(time.monotonic(), reported_at=time.monotonic())
            try:
                return self._attempt(task, grant, attempt)
            except PreemptedError:
                grant.wait(self._waiting, exclusive=True)
            except ChildDied as death:
                deaths.append((str(death), attempt))
                if len(deaths) == 2:
                    raise crash_failure(task, deaths) from None
                grant.wait(self._waiting, exclusive=True)

    def _waiting(self, grant: Grant, seconds: float) -> None:
        self._check_active()
        if seconds > LEDGER_TIMEOUT and self._child:
            self.close()
            grant.lease.child = 0

    def _check_active(self) -> None:
        if not self.is_active():
            raise Stopped("no longer wanted")

    def _attempt(self, task: Task, grant: Grant, attempt: Attempt) -> Computed:
        try:
            child = self._start_child()
            grant.attach(child.pid)
            most = self.budget.largest_grant()
            settings = {"max_dim": task.max_dim, "tolerance": task.tolerance, "timeout": self.timeout, "memory": most}
            child.send(settings, task.points)
            header, arrays = self._result(child, task, grant, attempt)
        except BaseException as error:
            self.close()
            # Another worker killed the child to free memory: not a crash.
            if isinstance(error, ChildDied) and grant.ended:
                raise PreemptedError from None
            raise
        if header["kind"] == "refused":
            raise attempt.failure(f"{describe_diagram(task.count)}: {header['text']}", "refused")
        if header["kind"] == "ended":
            attempt.progress = str(header["far"])
            if header["limit"] == "timeout":
                raise self._timeout_failure(task, attempt)
            attempt.size = most
            raise out_of_memory_failure(task, attempt, grant)
        computed = Computed(
            Diagram(tuple(np.array(bars, np.float32) for bars in arrays)),
            int(str(header["distinct"])),
            float(str(header["tolerance"])),
            str(header["engine"]),
            str(header["version"]),
            float(str(header["seconds"])),
            int(str(header["peak"])) or attempt.peak,
        )
        if resident(child.pid) > RECYCLE:
            self.close()
        return computed

    def _start_child(self) -> Child:
        """Return the running child, starting one if needed."""
        if self._child is None or self._child.process.poll() is not None:
            self.close()
            with defer_sigint():
                self._child = Child(self.engine, self.threads, self.controller)
        return self._child

    def _result(self, child: Child, task: Task, grant: Grant, attempt: Attempt) -> Frame:
        """Watch the child until the frame that ends the task."""
        pause = FASTEST_POLL
        while True:
            frame = child.receive(pause)
            pause = self._poll(child, task, grant, attempt)
            if frame is None:
                continue
            header = frame[0]
            if header["kind"] == "stage":
                attempt.enter(str(header["stage"]))
                attempt.exact = bool(header["exact"])
            elif header["kind"] == "progress":
                attempt.progress = str(header["text"])
            elif header["kind"] == "unable":
                raise ComputationFailed(str(header["text"]), "refused")
            elif header["kind"] != "ready":
                return frame

    def _poll(self, child: Child, task: Task, grant: Grant, attempt: Attempt) -> float:
        """Check the child once; returns the seconds until the next check."""
        self._check_active()
        attempt.size = resident(child.pid)
        attempt.peak = max(attempt.peak, attempt.size)
        self._check_time(task, attempt)
        grant.refresh()
        if grant.lease.ended:
            raise PreemptedError
        self._check_room(child, task, grant, attempt)
        return min(SLOWEST_POLL, max(FASTEST_POLL, (grant.bytes - GRANT_MARGIN - attempt.size) / FASTEST_GROWTH))

    def _check_time(self, task: Task, attempt: Attempt) -> None:
        if not attempt.working and attempt.seconds > START_TIMEOUT:
            raise ChildDied(f"did not start within {START_TIMEOUT:g} s")
        grace = GRACE if attempt.exact else 0.0
        if attempt.working and self.timeout is not None and attempt.seconds > self.timeout + grace:
            raise self._timeout_failure(task, attempt)

    def _timeout_failure(self, task: Task, attempt: Attempt) -> ComputationFailed:
        return attempt.failure(timeout_message(task, self.timeout or 0.0, attempt.progress), "timeout")

    def _check_room(self, child: Child, task: Task, grant: Grant, attempt: Attempt) -> None:
        now = time.monotonic()
        over = attempt.size > grant.bytes
        if over:
            # Pause it first: the request takes time and needs the ledger's lock.
            child.pause()
        decision = GrowthDecision.KEPT
        if now - attempt.reported_at > REPORT_INTERVAL:
            attempt.reported_at = now
            decision = grant.report(attempt.size, attempt.stage, attempt.progress)
        nearly_full = attempt.size + GRANT_MARGIN > grant.bytes and now - attempt.requested_at > SLOWEST_POLL
        if decision is GrowthDecision.KEPT and (over or nearly_full):
            attempt.requested_at = now
            decision = grant.grow(attempt.size)
        if decision is GrowthDecision.YIELD:
            raise PreemptedError
        if decision is GrowthDecision.FULL:
            raise out_of_memory_failure(task, attempt, grant)
        if decision is GrowthDecision.WAIT:
            # Ask again at the next check.
            child.pause()
            attempt.requested_at = attempt.reported_at = 0.0
        else:
            child.resume()


def out_of_memory_failure(task: Task, attempt: Attempt, grant: Grant) -> ComputationFailed:
    """Failure of a diagram that ran alone and reached the limit."""
    fewer = ", or fewer workers" if grant.budget.workers() > 1 else ""
    return attempt.failure(
        f"{describe_diagram(task.count)} reached {format_size(attempt.size)}, its limit, "
        f"after {attempt.seconds:,.0f} s in {attempt.place}",
        "memory",
        advice=f"give it more with --doctor-memory {more_memory(attempt.size, grant.budget.limit)}{fewer}",
    )


def crash_failure(task: Task, deaths: list[tuple[str, Attempt]]) -> ComputationFailed:
    """Failure of a diagram whose child died by itself, and again when it ran alone."""
    how = [text for text, _ in deaths]
    last = deaths[-1][1]
    return last.failure(
        f"{describe_diagram(task.count)}: its computation "
        f"{f'{how[0]} twice' if how[0] == how[1] else f'{how[0]}, then {how[1]}'}, "
        f"at {format_size(last.peak)} after {last.seconds:,.0f} s in {last.place}",
        "died",
        advice="try another engine with --doctor-engine",
    )
