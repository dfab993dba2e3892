"""Child processes as their worker sees them: started, used without blocking, paused and ended."""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import numpy as np
from numpy.typing import NDArray

from pytest_panic_doctor.compute import child
from pytest_panic_doctor.compute.frames import LENGTHS, Frame, Header, pack, unpack

STDERR_KEPT = 4_000
"""Bytes of stderr that are read when a child has died."""


ROOT = Path(child.__file__).parents[2]
"""The folder that holds the package."""

EXIT_TIMEOUT = 5.0
"""Seconds for a child to exit after it closed its stream."""


class ChildDied(Exception):
    """Raised when the child ended by itself; the message says how: `died of SIGSEGV`."""


@contextmanager
def defer_sigint() -> Iterator[None]:
    """Defer SIGINT until the block ends, so that no child process is started without its pid being recorded.

    A handler is used instead of a signal mask, because another thread, such as one of BLAS, would receive the signal,
    and Python raises it in the main thread anyway.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    received: list[tuple[int, FrameType | None]] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: received.append((number, frame)))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if received and callable(before):
            before(*received[0])


def environment() -> dict[str, str]:
    """Environment of a child. It includes the package's folder if that is a checkout which may not be installed."""
    if ROOT.name in ("site-packages", "dist-packages"):
        return dict(os.environ)
    folders = [*filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep)), str(ROOT)]
    return os.environ | {"PYTHONPATH": os.pathsep.join(folders)}


class PipedProcess:
    """A process that runs a module of this package, with pipes to and from it."""

    def __init__(self, module: str, config: Header, *, lifeline: int | None = None, new_session: bool = False) -> None:
        """Start the process.

        Args:
            module: The module to run.
            config: Its argument, converted to JSON.
            lifeline: File descriptor that it inherits.
            new_session: Whether it gets a session of its own, so that Ctrl-C in the terminal does not reach it.
        """
        self.stderr = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - closed by `end`
        settings = {**config, "path": [str(Path(folder).absolute()) for folder in sys.path]}
        # -P: nothing is imported from the current folder, which may contain any file.
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", module, json.dumps(settings)],
            env=environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.stderr,
            pass_fds=[] if lifeline is None else [lifeline],
            bufsize=0,
            start_new_session=new_session,
        )
        assert self.process.stdin
        assert self.process.stdout
        self.stdin, self.stdout = self.process.stdin, self.process.stdout
        os.set_blocking(self.stdin.fileno(), False)
        os.set_blocking(self.stdout.fileno(), False)
        self.selector = selectors.DefaultSelector()
        self.selector.register(self.stdout, selectors.EVENT_READ)
        self.incoming = bytearray()
        self.outgoing: deque[memoryview] = deque()

    @property
    def pid(self) -> int:
        """The process id."""
        return self.process.pid

    def send(self, header: Header, *arrays: NDArray[np.float32]) -> None:
        """Queue a frame; it is written piece by piece by `receive`."""
        if not self.outgoing:
            self.selector.register(self.stdin, selectors.EVENT_WRITE)
        self.outgoing.extend(pack(header, arrays))

    def receive(self, seconds: float) -> Frame | None:
        """Exchange data for at most `seconds`.

        Returns:
            Header and arrays of the next frame, or None if it is not complete yet.

        Raises:
            ChildDied: The process has ended.
        """
        frame = self._complete_frame()
        if frame:
            return frame
        for key, _ in self.selector.select(seconds):
            if key.fileobj is self.stdin:
                self._write()
            else:
                piece = self.stdout.read(1 << 20)
                if piece == b"":
                    raise ChildDied(self.describe_exit())
                self.incoming += piece or b""
        return self._complete_frame()

    def _write(self) -> None:
        try:
            sent = os.write(self.stdin.fileno(), self.outgoing[0])
        except BrokenPipeError:
            raise ChildDied(self.describe_exit()) from None
        self.outgoing[0] = self.outgoing[0][sent:]
        if not self.outgoing[0]:
            self.outgoing.popleft()
        if not self.outgoing:
            self.selector.unregister(self.stdin)

    def _complete_frame(self) -> Frame | None:
        if len(self.incoming) < LENGTHS.size:
            return None
        text_size, data_size = LENGTHS.unpack_from(self.incoming)
        begin, end = LENGTHS.size + text_size, LENGTHS.size + text_size + data_size
        if len(self.incoming) < end:
            return None
        frame = unpack(bytes(self.incoming[LENGTHS.size : begin]), bytes(self.incoming[begin:end]))
        del self.incoming[:end]
        return frame

    def describe_exit(self) -> str:
        """How the process ended: the signal, or the last line on stderr."""
        try:
            status = self.process.wait(EXIT_TIMEOUT)
        except subprocess.TimeoutExpired:
            return "closed its stream and went on"
        if status < 0:
            try:
                return f"died of {signal.Signals(-status).name}"
            except ValueError:
                return f"died of signal {-status}"
        size = self.stderr.seek(0, os.SEEK_END)
        self.stderr.seek(max(0, size - STDERR_KEPT))
        lines = self.stderr.read().decode(errors="replace").strip().splitlines()
        return f"ended with «{lines[-1]}»" if lines else f"ended with status {status}"

    def end(self) -> None:
        """Kill the process and wait until its memory is freed."""
        self.process.kill()
        self.process.wait()
        self.selector.close()
        for stream in (self.stdin, self.stdout, self.stderr):
            stream.close()


class Child(PipedProcess):
    """A process on this machine that computes diagrams."""

    def __init__(self, engine: str, threads: int, controller: int | None = None) -> None:
        """Start the process; its first frame says that it is ready.

        Args:
            engine: Name of the engine.
            threads: Threads of the engine.
            controller: Process at whose end an idle child exits too; None for this process.
        """
        lifeline, self.lifeline = os.pipe()
        config = {
            "parent": os.getpid(),
            "controller": controller or os.getpid(),
            "by_thread": threading.current_thread() is threading.main_thread(),
            "lifeline": lifeline,
            "threads": threads,
            "engine": engine,
        }
        self.paused = False
        try:
            super().__init__(child.__name__, config, lifeline=lifeline)
            child.kill_on_pipe_close(lifeline, self.process.pid)
        except BaseException:
            os.close(self.lifeline)
            raise
        finally:
            os.close(lifeline)

    def send(self, header: Header, *arrays: NDArray[np.float32]) -> None:
        """Queue a task, and discard earlier output on stderr."""
        self.stderr.truncate(0)
        self.stderr.seek(0)
        super().send(header, *arrays)

    def pause(self) -> None:
        """Stop the process until `resume`."""
        if not self.paused:
            self.process.send_signal(signal.SIGSTOP)
            self.paused = True

    def resume(self) -> None:
        """Continue a paused process."""
        if self.paused:
            self.process.send_signal(signal.SIGCONT)
            self.paused = False

    def end(self) -> None:
        """Kill the process and wait until its memory is freed."""
        super().end()
        os.close(self.lifeline)
