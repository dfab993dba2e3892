"""The process that computes diagrams: `python -m pytest_panic_doctor.compute.child CONFIG`.

It computes many diagrams, one after another. The kernel kills it when its parent dies, even within an engine's C++
code, where no Python thread runs: by PR_SET_PDEATHSIG (prctl(2)), and by a signal from a pipe that the parent holds
open.
"""

from __future__ import annotations

import ctypes
import json
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from pytest_panic_doctor.compute.memory import resident, start_time

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from pytest_panic_doctor.topology.engines import Engine

PR_SET_PDEATHSIG = 1
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")

IDLE_POLL = 0.5
"""Seconds between two checks of an idle child whether the controller is alive."""

PROGRESS_INTERVAL = 0.2
"""Seconds between two progress reports."""


def kill_on_pipe_close(lifeline: int, pid: int) -> None:
    """Make the kernel kill a process when the other end of a pipe is closed (fcntl(2), F_SETSIG).

    The parent calls this as soon as the process exists, so that it dies even while its interpreter starts.

    Args:
        lifeline: The read end of the pipe.
        pid: The process.
    """
    if sys.platform == "linux":
        import fcntl

        fcntl.fcntl(lifeline, fcntl.F_SETSIG, signal.SIGKILL)
        fcntl.fcntl(lifeline, fcntl.F_SETOWN, pid)
        fcntl.fcntl(lifeline, fcntl.F_SETFL, fcntl.fcntl(lifeline, fcntl.F_GETFL) | os.O_ASYNC)


def exit_with_parent(parent: int, lifeline: int, *, by_thread: bool) -> None:
    """End this process with its parent, or at once if the parent is gone.

    Args:
        parent: Process id of the parent.
        lifeline: Read end of a pipe that the parent holds open and never writes to.
        by_thread: Whether the thread that started this process lives as long as the parent: PR_SET_PDEATHSIG is sent
            when that thread ends (prctl(2)).
    """
    if sys.platform != "linux":
        start_guard(lifeline)
    elif by_thread:
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent or select.select([lifeline], [], [], 0)[0]:
        os._exit(0)


def start_guard(lifeline: int) -> None:
    """Fork a small process that kills this one at the end of `lifeline`, for systems whose kernel does not."""
    guarded = os.getpid()
    if os.fork():
        return
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.closerange(0, lifeline)
    os.closerange(lifeline + 1, 1024)
    os.read(lifeline, 1)
    if os.getppid() == guarded:
        os.kill(guarded, signal.SIGKILL)
    os._exit(0)


def take_over_stdio() -> tuple[BinaryIO, BinaryIO]:
    """Take the streams from and to the parent.

    From now on, libraries print to stderr and read nothing.

    Returns:
        The stream to read from, and the stream to write to.
    """
    source = os.fdopen(os.dup(0), "rb")
    sink = os.fdopen(os.dup(1), "wb", buffering=0)
    with Path(os.devnull).open("rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    os.dup2(2, 1)
    return source, sink


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of one computation.

    Attributes:
        started_at: When it began (monotonic, s).
        timeout: Seconds; None for no limit.
        memory: Resident bytes of this process; None for no limit.
    """

    started_at: float
    timeout: float | None
    memory: int | None

    @classmethod
    def of(cls, task: Mapping[str, object], begun: float) -> Limits:
        """Read the limits from a task of the parent."""
        timeout, memory = task.get("timeout"), task.get("memory")
        return cls(
            begun, None if timeout is None else float(str(timeout)), None if memory is None else int(str(memory))
        )

    @property
    def seconds_left(self) -> float | None:
        """Seconds from now until the timeout."""
        return None if self.timeout is None else self.timeout - (time.monotonic() - self.started_at)

    @property
    def bytes_left(self) -> int | None:
        """Bytes that this process may still allocate."""
        return None if self.memory is None else self.memory - resident(os.getpid())


class ChildServer:
    """Computes what the parent sends, and reports each stage."""

    def __init__(self, source: BinaryIO, sink: BinaryIO, threads: int, controller: int) -> None:
        """Set the streams from and to the parent, and the process at whose end an idle child exits."""
        self.source, self.sink, self.threads = source, sink, threads
        self.controller, self.controller_start = controller, start_time(controller)
        self.exact = False

    def serve(self, engine_name: str) -> None:
        """Handle tasks until the parent closes the stream."""
        from pytest_panic_doctor.errors import DoctorError
        from pytest_panic_doctor.topology import engines, native

        try:
            engine = engines.load_engine(engine_name)
        except DoctorError as error:
            self.send({"kind": "unable", "text": str(error)})
            return
        self.send({"kind": "ready", "engine": engine.name, "version": engine.version})
        while True:
            try:
                self.handle_task(engine)
            except DoctorError as error:
                self.send({"kind": "unable", "text": str(error)})
            except ValueError as error:
                self.send({"kind": "refused", "text": str(error)})
            except native.LimitReached as reached:
                limit = "timeout" if isinstance(reached, native.DeadlineReached) else "memory"
                self.send({"kind": "ended", "limit": limit, "far": reached.place})
            trim_heap()

    def handle_task(self, engine: Engine) -> None:
        """Read one task, compute, and send the bars."""
        import numpy as np

        from pytest_panic_doctor.compute.frames import read_frame
        from pytest_panic_doctor.compute.memory import forget_peak, peak
        from pytest_panic_doctor.topology import engines

        self.wait_for_task()
        if (frame := read_frame(self.source)) is None:
            os._exit(0)
        task, (points,) = frame
        measured = forget_peak()
        begun = time.monotonic()
        max_dim = int(str(task["max_dim"]))
        engine = engines.engine_for_dimension(engine, max_dim)
        self.exact = isinstance(engine, engines.Native)
        self.send_stage("merging")
        diagram, merged = engines.compute(
            np.asarray(points, np.float32),
            engine=ReportingEngine(engine, self, Limits.of(task, begun)),
            max_dim=max_dim,
            threads=self.threads,
            tolerance=None if task["tolerance"] is None else float(str(task["tolerance"])),
        )
        self.send(
            {
                "kind": "done",
                "engine": engine.name,
                "version": engine.version,
                "distinct": len(merged.points),
                "tolerance": merged.tolerance,
                "seconds": time.monotonic() - begun,
                "peak": peak(os.getpid()) if measured else 0,
            },
            diagram.bars,
        )

    def wait_for_task(self) -> None:
        """Wait until the parent sends something; the process ends if the controller is gone.

        The parent is a worker. It watches a child that computes, but not an idle one.
        """
        while not select.select([self.source], [], [], IDLE_POLL)[0]:
            if start_time(self.controller) != self.controller_start:
                os._exit(0)

    def send_stage(self, name: str) -> None:
        """Report the next stage."""
        self.send({"kind": "stage", "stage": name, "exact": self.exact})

    @contextmanager
    def reporting_progress(self, engine: Engine, limits: Limits) -> Iterator[None]:
        """Set the limits of the engine `native`, and report its progress regularly. Other engines support neither."""
        from pytest_panic_doctor.topology.engines import Native
        from pytest_panic_doctor.topology.native import ComputationProgress

        if not isinstance(engine, Native):
            yield
            return
        progress, ended = ComputationProgress(), threading.Event()
        engine.progress, engine.timeout, engine.memory = progress, limits.seconds_left, limits.bytes_left

        def tell() -> None:
            while not ended.wait(PROGRESS_INTERVAL):
                if progress.to_do:
                    self.send({"kind": "progress", "text": progress.place})

        teller = threading.Thread(target=tell, daemon=True)
        teller.start()
        try:
            yield
        finally:
            # Stop the thread before anything else is sent: frames must not be interleaved.
            ended.set()
            teller.join()

    def send(self, header: dict[str, object], arrays: Sequence[NDArray[np.float32]] = ()) -> None:
        """Send one frame."""
        from pytest_panic_doctor.compute.frames import write_frame

        write_frame(self.sink, header, arrays)


class ReportingEngine:
    """Wraps an engine to report its stage before computing. Engines compute all dimensions in one stage."""

    def __init__(self, engine: Engine, service: ChildServer, limits: Limits) -> None:
        """Wrap `engine`, which has these limits; `service` sends the reports."""
        self.name, self.version = engine.name, engine.version
        self.room = getattr(engine, "room", None)
        self._engine, self._service, self._limits = engine, service, limits

    def bars(self, distances: NDArray[np.float32], max_dim: int, threads: int) -> Sequence[NDArray[np.floating]]:
        """Report the stage and compute."""
        self._service.send_stage(f"H0 to H{max_dim}")
        with self._service.reporting_progress(self._engine, self._limits):
            return self._engine.bars(distances, max_dim, threads)


def trim_heap() -> None:
    """Return free pages of the heap to the system, if the C library can."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def run_child(config: str) -> None:
    """Run the child; `config` is JSON: parent, controller, by_thread, lifeline, threads, engine, path."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    settings = json.loads(config)
    exit_with_parent(settings["parent"], settings["lifeline"], by_thread=settings["by_thread"])
    source, sink = take_over_stdio()
    # At the end: a file select.py in a test folder must not replace the standard library's.
    sys.path.extend(folder for folder in settings["path"] if folder not in sys.path)
    for name in THREAD_VARIABLES:
        os.environ[name] = str(settings["threads"])
    ChildServer(source, sink, settings["threads"], settings["controller"]).serve(settings["engine"])


if __name__ == "__main__":
    run_child(sys.argv[1])
