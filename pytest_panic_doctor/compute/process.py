"""A child process as its worker sees it: started, spoken to without ever blocking, paused and ended."""

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
from pytest_panic_doctor.compute.frames import LENGTHS, Header, pack, unpack

STDERR_KEPT = 4_000
"""Bytes of what the child wrote last that are looked at when it died."""


ROOT = Path(child.__file__).parents[2]
"""The folder that the package lies in."""

EXIT_TIMEOUT = 5.0
"""Seconds for which a child that closed its stream is given to end."""


class ChildDied(Exception):
    """The child ended by itself; the text says how: `died of SIGSEGV`."""


@contextmanager
def defer_sigint() -> Iterator[None]:
    """Ctrl-C is heard at the end and not within: a process is not started without anybody knowing its name.

    By its handler and not by a signal mask: another thread, one of BLAS for instance, would take the signal, and Python
    raises it in the main thread all the same.
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
    """This process's, with the package's own folder where that is a checkout that may not be installed."""
    if ROOT.name in ("site-packages", "dist-packages"):
        return dict(os.environ)
    folders = [*filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep)), str(ROOT)]
    return os.environ | {"PYTHONPATH": os.pathsep.join(folders)}


class PipedProcess:
    """A process of this package, and the streams to it."""

    def __init__(self, module: str, config: Header, *, lifeline: int | None = None, new_session: bool = False) -> None:
        """Start `module` with `orders`; `apart`: in a session of its own, where no Ctrl-C of a terminal reaches it."""
        self.stderr = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - closed by `end`
        settings = {**config, "path": [str(Path(folder).absolute()) for folder in sys.path]}
        # -P: nothing is imported from the current folder, which may hold anything.
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
        """Its process id."""
        return self.process.pid

    def send(self, header: Header, *arrays: NDArray[np.float32]) -> None:
        """Hand it a frame, bit by bit, whenever `receive` is called."""
        if not self.outgoing:
            self.selector.register(self.stdin, selectors.EVENT_WRITE)
        self.outgoing.extend(pack(header, arrays))

    def receive(self, seconds: float) -> tuple[dict[str, object], list[NDArray[np.generic]]] | None:
        """The next frame, if it is whole within `seconds`; raises `ChildDied`."""
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

    def _complete_frame(self) -> tuple[dict[str, object], list[NDArray[np.generic]]] | None:
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
        """How it ended: by which signal, or with which last line on stderr."""
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
        """Kill it and wait until its memory is back."""
        self.process.kill()
        self.process.wait()
        self.selector.close()
        for stream in (self.stdin, self.stdout, self.stderr):
            stream.close()


class Child(PipedProcess):
    """The process that computes, on this machine."""

    def __init__(self, engine: str, threads: int, controller: int | None = None) -> None:
        """Start it; it is ready when its first frame has come. Idle, it ends with process `controller` too."""
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
        """Hand it a task; what it wrote to stderr before is forgotten."""
        self.stderr.truncate(0)
        self.stderr.seek(0)
        super().send(header, *arrays)

    def pause(self) -> None:
        """Hold it still, until `resume`."""
        if not self.paused:
            self.process.send_signal(signal.SIGSTOP)
            self.paused = True

    def resume(self) -> None:
        """Let it go on."""
        if self.paused:
            self.process.send_signal(signal.SIGCONT)
            self.paused = False

    def end(self) -> None:
        """Kill it and wait until its memory is back."""
        super().end()
        os.close(self.lifeline)
