"""Engines that do what engines should not, each named `hostile:…`, for the child process.

A cloud tells them how much: `order(megabytes, seconds)`.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float32]
STEP = 8_000_000
PACE = 0.02


def order(megabytes: float = 1, seconds: float = 0.01) -> NDArray[np.float32]:
    """A cloud of three points that asks for this much memory for this long."""
    assert megabytes > seconds
    return np.array([[0, 0], [megabytes, 0], [0, seconds]], np.float32)


def limit_for(usable: int) -> int:
    """The limit of which so many bytes can be granted."""
    from pytest_panic_doctor.compute.budget import headroom

    limit = usable
    while limit - headroom(limit) < usable:
        limit = usable + headroom(limit)
    return limit


def asked(apart: Matrix) -> tuple[float, float]:
    """Megabytes and seconds that a cloud asks for: its two shorter distances."""
    shorter = np.sort(apart[np.triu_indices(3, 1)])
    return float(shorter[1]), float(shorter[0])


class Hostile:
    """An engine with one bar, that does something first."""

    version = "1"

    def __init__(self, deed: Callable[[Matrix], None]) -> None:
        self.name = deed.__name__
        self.deed = deed

    def bars(self, apart: Matrix, max_dim: int, threads: int) -> Sequence[Matrix]:
        del threads
        self.deed(apart)
        return [np.array([[0, np.inf]], np.float32), *[np.empty((0, 2), np.float32)] * max_dim]


@Hostile
def eat(apart: Matrix) -> None:
    """Grow by 400 MB a second, keep it, and give it back."""
    megabytes, seconds = asked(apart)
    kept = []
    for _ in range(int(megabytes * 1e6 / STEP)):
        kept.append(np.ones(STEP, np.uint8))
        time.sleep(PACE)
    time.sleep(seconds)


@Hostile
def gulp(apart: Matrix) -> None:
    """Grow as fast as the machine can."""
    megabytes, seconds = asked(apart)
    kept = [np.ones(STEP, np.uint8) for _ in range(int(megabytes * 1e6 / STEP))]
    time.sleep(seconds)
    kept.clear()


@Hostile
def hold(apart: Matrix) -> None:
    """Sleep in C with the interpreter's lock held, as an engine in C++ does."""
    ctypes.PyDLL(None).usleep(int(asked(apart)[1] * 1e6))


@Hostile
def crash(apart: Matrix) -> None:
    """Touch what is not there."""
    time.sleep(asked(apart)[1])
    os.kill(os.getpid(), signal.SIGSEGV) if sys.platform == "darwin" else ctypes.string_at(0)


@Hostile
def crash_once(_: Matrix) -> None:
    """The same, the first time."""
    mark = Path(os.environ["HOSTILE_MARK"])
    if not mark.exists():
        mark.touch()
        ctypes.string_at(0)


@Hostile
def abort(_: Matrix) -> None:
    """End as a C++ program does whose exception nobody caught."""
    os.abort()


@Hostile
def killed(_: Matrix) -> None:
    """End as if somebody had killed it: the kernel, out of memory."""
    os.kill(os.getpid(), signal.SIGKILL)


@Hostile
def starve(_: Matrix) -> None:
    """Ask for more memory than there is."""
    np.ones(1 << 60, np.uint8)


@Hostile
def refuse(_: Matrix) -> None:
    """Say no."""
    raise ValueError("the cloud is not to my taste")


@Hostile
def chatter(_: Matrix) -> None:
    """Print, as C libraries and Python ones do, and read what is not for it."""
    print("progress 10 %", flush=True)
    os.write(1, b"\x00\x01\x02 printed from C\n")
    os.system("echo printed by a program")
    assert sys.stdin.read() == ""
    assert os.read(0, 10) == b""


@Hostile
def shout(_: Matrix) -> None:
    """Fill stderr, and fail."""
    for _line in range(2_000):
        print("x" * 1_000, file=sys.stderr)
    raise RuntimeError("all is lost")


@Hostile
def confess(_: Matrix) -> None:
    """Say what this process has imported, and what its threads are told."""
    raise ValueError(" ".join([*sys.modules, f"OMP_NUM_THREADS={os.environ['OMP_NUM_THREADS']}"]))


@Hostile
def mute(_: Matrix) -> None:
    """Close every stream and go on."""
    os.closerange(3, 1024)
    time.sleep(60)
