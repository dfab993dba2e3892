"""Computing in a child process that is watched from outside, and ended when it takes too much or too long.

Neither RLIMIT_AS nor MemoryError stops the engines cleanly, and nothing in Python interrupts their C++ threads.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray

from pytest_panic_doctor.compute import estimate
from pytest_panic_doctor.compute.attempt import Attempt
from pytest_panic_doctor.compute.budget import GRANT_MARGIN, Budget, Grant, GrowthDecision
from pytest_panic_doctor.compute.memory import resident
from pytest_panic_doctor.compute.process import Child, ChildDied, defer_sigint
from pytest_panic_doctor.errors import Stopped
from pytest_panic_doctor.formatting import format_size
from pytest_panic_doctor.topology.cloud import Points
from pytest_panic_doctor.topology.diagram import Diagram
from pytest_panic_doctor.topology.engines import would_compute

FASTEST_GROWTH = 2e9
"""Bytes per second: the fastest growth of a child that was seen, 1.8e9, a little rounded up."""

FASTEST_POLL, SLOWEST_POLL = 0.005, 0.05
"""Seconds between two looks at a child, at least and at most: it is looked at again before it can have used its grant
up at its fastest. A look costs 40 µs, so 200 a second take less than a hundredth of a core."""

REPORT_INTERVAL = 0.5
"""Seconds between two entries in the ledger of what a child has."""

START_TIMEOUT = 120.0
"""Seconds after which a child that is not ready never will be; importing an engine takes 1 to 2 s."""

GRACE = 0.5
"""Seconds after which a child that ends a computation at its limits by itself is ended where it has not."""

LEDGER_TIMEOUT = 2.0
"""Seconds of waiting for room after which an idle child is ended: it holds room that others may wait for, and takes
less than that to start again."""

RECYCLE = 250_000_000
"""An idle child that keeps more than this is replaced, so that others have the room."""

FailureKind = Literal["memory", "timeout", "died", "refused"]


@dataclass(frozen=True, slots=True)
class Task:
    """A cloud to compute the diagram of: float32, shape (n, d); `tolerance` None: the default.

    `stored` is the number of points as a person knows it, where repeats were merged already.
    """

    points: Points
    label: str = ""
    max_dim: int = 2
    tolerance: float | None = None
    stored: int = 0

    @property
    def count(self) -> int:
        """The number of points as a person knows it."""
        return self.stored or len(self.points)


@dataclass(frozen=True, slots=True)
class Computed:
    """A diagram, and what it took: seconds of wall time, peak resident bytes of the process that computed."""

    diagram: Diagram
    distinct: int
    tolerance: float
    engine: str
    engine_version: str
    seconds: float
    peak_memory: int


class ComputationFailed(Exception):
    """A diagram that was not computed; the text is one sentence that says why and what would help."""

    def __init__(
        self, happened: str, kind: FailureKind, seconds: float = 0.0, peak_memory: int = 0, *, advice: str = ""
    ) -> None:
        """`seconds` and `peak_memory` (bytes) up to the end."""
        super().__init__(f"{happened}; {advice}" if advice else happened)
        self.happened = happened
        self.advice = advice
        self.kind = kind
        self.seconds = seconds
        self.peak_memory = peak_memory

    def as_plain(self) -> dict[str, object]:
        """Plain values, for the way to another process."""
        return {
            "why": self.kind,
            "happened": self.happened,
            "advice": self.advice,
            "seconds": self.seconds,
            "peak": self.peak_memory,
        }

    @classmethod
    def from_plain(cls, plain: Mapping[str, object]) -> ComputationFailed:
        """The inverse."""
        kind: FailureKind = plain["why"]  # type: ignore[assignment]
        return cls(
            str(plain["happened"]),
            kind,
            float(str(plain["seconds"])),
            int(str(plain["peak"])),
            advice=str(plain["advice"]),
        )


class PreemptedError(Exception):
    """The child has to make room for another one."""


class DiagramRunner:
    """Computes diagrams one after another, in a child that lasts and is replaced when it dies. A context manager."""

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
        """`timeout` in seconds for each diagram; `wanted` is asked all the time, and ends it when false.

        An idle child ends with the process `controller`; default: this one.
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
        """Nothing is started before the first task."""
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
        """The diagram of a cloud; raises `ComputationFailed`, or `Stopped` where it is no longer wanted.

        A child that dies by itself is retried once, alone. One that has to make room for another is begun again when
        it can have all the room.
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
            # Ctrl-C, or the session is over.
            self.close()
            raise
        return computed

    def _run_with_retries(self, task: Task, grant: Grant) -> Computed:
        deaths: list[tuple[str, Attempt]] = []
        while True:
            attempt = Attempt(time.monotonic(), reported=time.monotonic())
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
            if isinstance(error, ChildDied) and grant.ended:
                raise PreemptedError from None
            raise
        if header["kind"] == "refused":
            raise ComputationFailed(
                f"{describe_diagram(task.count)}: {header['text']}", "refused", attempt.seconds, attempt.peak
            )
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
        """The child: the one that is there, or a new one."""
        if self._child is None or self._child.process.poll() is not None:
            self.close()
            with defer_sigint():
                self._child = Child(self.engine, self.threads, self.controller)
        return self._child

    def _result(
        self, child: Child, task: Task, grant: Grant, attempt: Attempt
    ) -> tuple[dict[str, object], list[NDArray[np.generic]]]:
        """Wait for the frame that ends the task, and look at the child all the while."""
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
        """Look at the child once; returns the seconds until the next look."""
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
        message = timeout_message(task, self.timeout or 0.0, attempt.progress)
        return ComputationFailed(message, "timeout", attempt.seconds, attempt.peak)

    def _check_room(self, child: Child, task: Task, grant: Grant, attempt: Attempt) -> None:
        now = time.monotonic()
        over = attempt.size > grant.bytes
        if over:
            # First of all: to ask takes time, and the ledger's lock.
            child.pause()
        answer = GrowthDecision.KEPT
        if now - attempt.reported > REPORT_INTERVAL:
            attempt.reported = now
            answer = grant.report(attempt.size, attempt.stage)
        soon = attempt.size + GRANT_MARGIN > grant.bytes and now - attempt.asked > SLOWEST_POLL
        if answer is GrowthDecision.KEPT and (over or soon):
            attempt.asked = now
            answer = grant.grow(attempt.size)
        if answer is GrowthDecision.YIELD:
            raise PreemptedError
        if answer is GrowthDecision.FULL:
            raise out_of_memory_failure(task, attempt, grant)
        if answer is GrowthDecision.WAIT:
            child.pause()
            attempt.asked = attempt.reported = 0.0
        else:
            child.resume()


def describe_diagram(points: int) -> str:
    """`the diagram of 2,423 points`."""
    return f"the diagram of {points:,} point{'s' if points != 1 else ''}"


def out_of_memory_failure(task: Task, attempt: Attempt, grant: Grant) -> ComputationFailed:
    """The failure of a diagram that ran alone and reached the limit."""
    fewer = ", or fewer workers" if grant.budget.workers() > 1 else ""
    return ComputationFailed(
        f"{describe_diagram(task.count)} reached {format_size(attempt.size)}, its limit, "
        f"after {attempt.seconds:,.0f} s in "
        f"{attempt.place}",
        "memory",
        attempt.seconds,
        attempt.peak,
        advice=f"give it more with --doctor-memory {more_memory(attempt.size, grant.budget.limit)}{fewer}",
    )


def more_memory(reached: int, limit: int) -> str:
    """A limit that is worth a try: three times what was reached, and never less than one and a half of the limit.

    The next of 1, 2, 3, 4, 6, 8, 12, 16 … GB.
    """
    least = max(3 * reached, 1.5 * limit) / 1e9
    power = 2.0 ** max(0, math.floor(math.log2(least)))
    return f"{next(size for size in (power, 1.5 * power, 2 * power) if size >= least and size % 1 == 0):g}GB"


def timeout_message(task: Task, timeout: float, progress: str = "") -> str:
    """The sentence of a diagram that took too long; `progress` is how far it came, where that is known."""
    steps = (10, 30, 60, 120, 300, 600, 1800)
    longer = next((step for step in steps if step >= 10 * timeout), 3600 * math.ceil(timeout / 360))
    where = f", in {progress}" if progress else ""
    message = f"{describe_diagram(task.count)} was ended after {timeout:g} s, its limit{where}"
    return f"{message}; give it more with --doctor-timeout {longer:g}"


def crash_failure(task: Task, deaths: list[tuple[str, Attempt]]) -> ComputationFailed:
    """The failure of a diagram whose child died by itself, and once more when it ran alone."""
    how = [text for text, _ in deaths]
    last = deaths[-1][1]
    return ComputationFailed(
        f"{describe_diagram(task.count)}: its computation "
        f"{f'{how[0]} twice' if how[0] == how[1] else f'{how[0]}, then {how[1]}'}, "
        f"at {format_size(last.peak)} after {last.seconds:,.0f} s in {last.place}",
        "died",
        last.seconds,
        last.peak,
        advice="try another engine with --doctor-engine",
    )
