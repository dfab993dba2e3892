"""Computing in a child process that is watched from outside, and ended when it takes too much or too long.

Neither RLIMIT_AS nor MemoryError stops the engines cleanly, and nothing in Python interrupts their C++ threads.
"""

from __future__ import annotations

import math
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pytest_panic_doctor.errors import Stopped
from pytest_panic_doctor.topology.budget import Budget, Grant
from pytest_panic_doctor.topology.cloud import Points
from pytest_panic_doctor.topology.diagram import Diagram
from pytest_panic_doctor.topology.estimate import Measured
from pytest_panic_doctor.topology.frames import LENGTHS, pack, unpack
from pytest_panic_doctor.topology.memory import format_size, resident

WATCH = 0.02
"""Seconds between two looks at a child: at 1 GB/s, the fastest growth seen, it gains 20 MB meanwhile."""

REPORT = 0.5
"""Seconds between two entries in the ledger of what a child has."""

RECYCLE = 250_000_000
"""An idle child that keeps more than this is replaced, so that others have the room."""

Kind = Literal["memory", "timeout", "died", "refused"]


@dataclass(frozen=True, slots=True)
class Task:
    """A cloud to compute the diagram of: float32, shape (n, d); `tolerance` None: the default."""

    points: Points
    label: str = ""
    max_dim: int = 2
    tolerance: float | None = None


@dataclass(frozen=True, slots=True)
class Computed:
    """A diagram, and what it took: seconds of wall time, peak resident bytes of the child."""

    diagram: Diagram
    distinct: int
    tolerance: float
    engine: str
    engine_version: str
    seconds: float
    peak_memory: int


class ComputationFailed(Exception):
    """A diagram that was not computed; the text is one sentence that says why and what would help."""

    def __init__(self, sentence: str, kind: Kind, seconds: float = 0.0, peak_memory: int = 0) -> None:
        """`seconds` and `peak_memory` (bytes) up to the end."""
        super().__init__(sentence)
        self.kind = kind
        self.seconds = seconds
        self.peak_memory = peak_memory


class ChildDied(Exception):
    """The child ended by itself; the text says how."""


class Outgrown(Exception):
    """The child needs more than its grant while others run."""


class Child:
    """One child process, and the two streams to it."""

    def __init__(self, engine: str, threads: int) -> None:
        """Start it; it is ready when its first frame has come."""
        self.stderr = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `end`
        self.process = subprocess.Popen(
            [sys.executable, "-m", __package__ + ".child", str(os.getpid()), str(threads), engine],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.stderr,
        )
        assert self.process.stdin
        assert self.process.stdout
        self.stdin, self.stdout = self.process.stdin, self.process.stdout
        os.set_blocking(self.stdout.fileno(), False)
        self.selector = selectors.DefaultSelector()
        self.selector.register(self.stdout, selectors.EVENT_READ)
        self.buffer = bytearray()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.process.pid

    def send(self, task: Task) -> None:
        """Hand it a task; raises `ChildDied` where it is gone."""
        try:
            for piece in pack({"max_dim": task.max_dim, "tolerance": task.tolerance}, [task.points]):
                self.stdin.write(piece)
            self.stdin.flush()
        except BrokenPipeError:
            raise ChildDied(self.epitaph()) from None

    def receive(self, seconds: float) -> tuple[dict[str, object], list[NDArray[np.generic]]] | None:
        """The next frame, if it comes whole within `seconds`; raises `ChildDied`."""
        if self.selector.select(seconds):
            piece = self.stdout.read(1 << 20)
            if piece == b"":
                raise ChildDied(self.epitaph())
            self.buffer += piece or b""
        if len(self.buffer) < LENGTHS.size:
            return None
        text_size, data_size = LENGTHS.unpack_from(self.buffer)
        end = LENGTHS.size + text_size + data_size
        if len(self.buffer) < end:
            return None
        frame = bytes(self.buffer[LENGTHS.size : end])
        del self.buffer[:end]
        return unpack(frame[:text_size], frame[text_size:])

    def epitaph(self) -> str:
        """How it ended: the signal or the status, and the last line that it wrote."""
        status = self.process.wait()
        if status < 0:
            try:
                return f"died of {signal.Signals(-status).name}"
            except ValueError:
                return f"died of signal {-status}"
        self.stderr.seek(0)
        lines = self.stderr.read()[-4000:].decode(errors="replace").strip().splitlines()
        return f"ended with status {status}" + (f" ({lines[-1]})" if lines else "")

    def end(self) -> None:
        """Kill it and wait until its memory is back."""
        self.process.kill()
        self.process.wait()
        self.selector.close()
        self.stdout.close()
        self.stderr.close()
        try:
            self.stdin.close()
        except BrokenPipeError:
            # What was not flushed cannot be: the child is gone, which is what was asked for.
            return


class Computer:
    """Computes diagrams one after another, in a child that lasts and is replaced when it dies. A context manager."""

    def __init__(
        self,
        engine: str = "auto",
        threads: int = 1,
        *,
        budget: Budget,
        timeout: float | None = None,
        wanted: Callable[[], bool] = lambda: True,
    ) -> None:
        """`timeout` in seconds for each diagram; `wanted` is asked all the time, and ends it when false."""
        self.engine = engine
        self.threads = threads
        self.budget = budget
        self.timeout = timeout
        self.wanted = wanted
        self._child: Child | None = None
        self._ready: dict[str, object] = {}

    def __enter__(self) -> Computer:
        """Nothing is started before the first task."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the child."""
        self.close()

    def close(self) -> None:
        """End the child."""
        if self._child:
            self._child.end()
            self._child = None

    def compute(self, task: Task) -> Computed:
        """The diagram of a cloud; raises `ComputationFailed`, or `Stopped` where it is no longer wanted.

        A child that dies by itself is retried once, alone. One that outgrows its grant while others run is ended and
        begun again when it can have all the room.
        """
        distinct = len(np.unique(task.points, axis=0))
        need = self.budget.estimate(distinct).memory
        deaths: list[str] = []
        alone = False
        while True:
            try:
                return self._attempt(task, need, distinct, alone)
            except Outgrown:
                alone = True
            except ChildDied as death:
                self.close()
                deaths.append(str(death))
                alone = True
                if len(deaths) == 2:
                    how = f"{deaths[0]} twice" if deaths[0] == deaths[1] else f"{deaths[0]}, then {deaths[1]}"
                    raise ComputationFailed(f"{subject(task)}: the child that computed it {how}", "died") from None

    def _attempt(self, task: Task, need: int, distinct: int, alone: bool) -> Computed:
        child = self._warm()
        points = len(task.points)
        with self.budget.admit(need, child.pid, task.label, points, self.wanted, alone=alone) as grant:
            try:
                computed = self._watch(child, task, grant)
            except BaseException:
                self.close()
                raise
        self.budget.learn(Measured(distinct, computed.seconds, computed.peak_memory))
        if resident(child.pid) > RECYCLE:
            self.close()
        return computed

    def _warm(self) -> Child:
        """The child, started and ready."""
        if self._child is None or self._child.process.poll() is not None:
            self.close()
            self._child = Child(self.engine, self.threads)
            self.budget.add(self._child.pid)
            while not (frame := self._child.receive(WATCH)):
                if not self.wanted():
                    self.close()
                    raise Stopped("no longer wanted")
            self._ready = frame[0]
            if self._ready["kind"] == "refused":
                self.close()
                raise ComputationFailed(str(self._ready["text"]), "refused")
        return self._child

    def _watch(self, child: Child, task: Task, grant: Grant) -> Computed:
        """Wait for the result, and look at the child all the while."""
        begun = reported = time.monotonic()
        peak = 0
        child.send(task)
        while not (frame := child.receive(WATCH)):
            now = time.monotonic()
            size = resident(child.pid)
            peak = max(peak, size)
            if not self.wanted():
                raise Stopped("no longer wanted")
            if self.timeout is not None and now - begun > self.timeout:
                raise ComputationFailed(late(task, self.timeout), "timeout", now - begun, peak)
            if size > grant.bytes and not grant.grow(size):
                if not grant.alone:
                    raise Outgrown
                raise ComputationFailed(
                    outgrew(task, size, now - begun, self.budget.limit), "memory", now - begun, peak
                )
            if now - reported > REPORT:
                grant.report(size)
                reported = now
        header, arrays = frame
        if header["kind"] == "refused":
            raise ComputationFailed(f"{subject(task)}: {header['text']}", "refused", time.monotonic() - begun, peak)
        return Computed(
            Diagram(tuple(np.array(bars, np.float32) for bars in arrays)),
            int(str(header["distinct"])),
            float(str(header["tolerance"])),
            str(self._ready["engine"]),
            str(self._ready["version"]),
            time.monotonic() - begun,
            max(peak, resident(child.pid)),
        )


def subject(task: Task) -> str:
    """`the diagram of 2,423 points`."""
    return f"the diagram of {len(task.points):,} point{'s' if len(task.points) != 1 else ''}"


def outgrew(task: Task, size: int, seconds: float, limit: int) -> str:
    """The sentence of a diagram that ran alone and reached the limit."""
    advice = format_size(2 ** math.ceil(math.log2(max(2.0, 2 * limit / 1e9))) * 1e9).replace(".0 ", "")
    return (
        f"{subject(task)} reached {format_size(size)}, its limit, after {seconds:,.0f} s in H0 to H{task.max_dim}; "
        f"give it more with --doctor-memory {advice}, or fewer workers"
    )


def late(task: Task, timeout: float) -> str:
    """The sentence of a diagram that took too long."""
    return (
        f"{subject(task)} was ended after {timeout:g} s, its limit; give it more with --doctor-timeout {10 * timeout:g}"
    )
