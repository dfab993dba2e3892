"""The engine `native`: Vietoris-Rips persistence, H0 to H2, by one matching per edge.

docs/concepts/engine.md has the proof.

The compiled half lies in `src`. Read it in this order: `distances`, `edges` (ranks), `links` (the sweep: components,
apexes, critical simplices), `forest`, `cofacets`, `reduction` (H1 and H2), `rips` (all of it); `control` and `memory`
(limits, progress), `kernels` (loops for several processors), `binding` (Python). It is built where a C++20 compiler is
when the package is installed, and is not there otherwise.
"""

from __future__ import annotations

import threading

import numpy as np
from numpy.typing import NDArray

NAME = "native"

MAX_POINTS = 65_535
"""The most points that it takes."""

ENGINE_VERSION = "1"
"""Changes where a bar could."""

STOP, STAGE, DONE, TO_DO, BYTES, PEAK = range(6)
"""Places in the words that Python shares with the compiled half (`State` in src/control.hpp)."""

LANES = 16
"""Rows of ranks are a multiple of so many long, a cache line (`Edges::kLanes` in src/edges.hpp)."""

STAGES = ("the ranks of the edges", "the links, edge", "H1, column", "H2, column")
"""What is gone through, stage by stage; of the first no progress is known."""


class LimitReached(Exception):
    """A computation that was ended; the text says at which limit, and how far it came. Nothing of it is left."""

    def __init__(self, happened: str, far: str) -> None:
        """`far` is how far it came, such as `H2, column 1,204 of 1,862`."""
        super().__init__(f"{happened} in {far}")
        self.far = far


class DeadlineReached(LimitReached):
    """It took longer than it was given."""


class MemoryReached(LimitReached):
    """It needed more bytes than it was given, or than the machine has."""


class StopRequested(LimitReached):
    """`Progress.stop` was called."""


class Progress:
    """How far a computation is; another thread may read it, and stop the computation.

    It belongs to one computation at a time.
    """

    def __init__(self) -> None:
        """Nothing is done yet."""
        self.state: NDArray[np.int64] = np.zeros(6, np.int64)

    def stop(self) -> None:
        """End the computation within a few hundredths of a second; it raises `StopRequested`."""
        self.state[STOP] = 1

    @property
    def dimension(self) -> int | None:
        """The homology dimension whose columns are reduced, 1 or 2; None before that."""
        stage = int(self.state[STAGE])
        return stage - 1 if stage >= 2 else None

    @property
    def done(self) -> int:
        """Columns (before H1: edges) that are done."""
        return int(self.state[DONE])

    @property
    def to_do(self) -> int:
        """All of them."""
        return int(self.state[TO_DO])

    @property
    def memory(self) -> int:
        """Bytes that are allocated, 0 at the end."""
        return int(self.state[BYTES])

    @property
    def peak(self) -> int:
        """The most bytes that were allocated."""
        return int(self.state[PEAK])

    def __str__(self) -> str:
        """`in H2, column 1,204 of 1,862`."""
        stage = int(self.state[STAGE])
        of = f" {min(self.done + 1, self.to_do):,} of {self.to_do:,}" if stage else ""
        return f"in {STAGES[stage]}{of}"

    @property
    def place(self) -> str:
        """The same without its first word."""
        return str(self).removeprefix("in ")


def is_built() -> bool:
    """Whether the compiled half was built when the package was installed, and can be loaded here."""
    try:
        import pytest_panic_doctor.topology.native._rips  # noqa: F401
    except ImportError:
        return False
    return True


def rips_bars(
    distances: NDArray[np.float32],
    max_dim: int = 2,
    *,
    timeout: float | None = None,
    memory: int | None = None,
    progress: Progress | None = None,
    kernel: str | None = None,
    overwrite: bool = False,
) -> tuple[NDArray[np.float32], ...]:
    """The bars of positive length of a Vietoris-Rips filtration, with coefficients in Z/2.

    Args:
        distances: float32, shape (m, m), C-contiguous, 1 <= m <= 65,535: symmetric, zeros on the diagonal, finite, not
            negative. They need not obey the triangle inequality. They are read, and not written to.
        max_dim: the highest homology dimension, 0 to 2.
        timeout: seconds; None for no limit.
        memory: bytes that the computation may allocate, beside `distances`; None for no limit.
        progress: told how far it is, and asked whether to stop.
        kernel: `baseline`, `avx2` or `avx512`; None: the best that the processor has. The bars are the same.
        overwrite: `distances` are all of a `room(m)`, shape (m, s), and are lost: this takes 4 m**2 bytes less.

    Returns:
        For each dimension, births and deaths: float32, shape (k, 2), in no order. The essential class of H0 is
        (0, infinity).

    Raises:
        ValueError: `distances` are not as described.
        DeadlineReached, MemoryReached, StopRequested: a limit was reached; everything is freed.
        KeyboardInterrupt: Ctrl-C, in the main thread.
    """
    from pytest_panic_doctor.topology.native import _rips

    reported = Progress() if progress is None else progress
    found = _rips.bars(
        check_matrix(distances),
        max_dim,
        -1.0 if timeout is None else max(0.0, timeout),
        -1 if memory is None else max(0, memory),
        reported.state,
        threading.current_thread() is threading.main_thread(),
        kernel,
        overwrite,
    )
    if isinstance(found, int):
        raise limit_error(found, reported, timeout, memory)
    return tuple(np.frombuffer(each, np.float32).reshape(-1, 2) for each in found[: max_dim + 1])


def room(count: int) -> NDArray[np.float32]:
    """A matrix in which the compiled half can compute, shape (m, s) with s >= m, not initialised.

    The distances go to its first m columns; its rows begin on cache lines.
    """
    width = -(-count // LANES) * LANES
    memory = np.empty(count * width + LANES, np.float32)
    start = -memory.ctypes.data % (4 * LANES) // 4
    return memory[start : start + count * width].reshape(count, width)


def is_room(matrix: NDArray[np.float32]) -> bool:
    """Whether a matrix is as `room` makes them."""
    flags = matrix.flags
    fits = matrix.ndim == 2 and matrix.shape[1] == -(-len(matrix) // LANES) * LANES
    return fits and flags.c_contiguous and flags.writeable and matrix.ctypes.data % (4 * LANES) == 0


def memory_need(count: int, edges: int | None = None) -> int:
    """The bytes of a computation up to its columns, which no formula foresees, its `room` included.

    Args:
        count: The number of points.
        edges: The number of pairs no farther apart than the enclosing radius; None: all, which is the most.
    """
    pairs = count * (count - 1) // 2 if edges is None else edges
    bits = -(-count // 512) * 64
    # Ranks; length, ends, apex and a bit for each edge; neighbours of each vertex as bits.
    return 4 * count * (-(-count // LANES) * LANES) + 10 * pairs + pairs // 8 + count * bits


def check_matrix(distances: NDArray[np.float32]) -> NDArray[np.float32]:
    """The same; raises `ValueError` where it is no float32 array that the compiled half can read as it lies there."""
    if not isinstance(distances, np.ndarray):
        raise ValueError("the distances are not an array")
    if distances.dtype != np.float32 or not distances.flags.c_contiguous or not distances.flags.aligned:
        raise ValueError("the distances are not a contiguous, aligned array of float32")
    return distances


def limit_error(limit: int, progress: Progress, timeout: float | None, memory: int | None) -> LimitReached:
    """The exception for the number of a limit (`Limit` in src/control.hpp)."""
    if limit == 1:
        return DeadlineReached(f"ended after {timeout:g} s, its limit,", progress.place)
    if limit == 2:
        most = "all there is" if memory is None else f"{memory:,} bytes, its limit"
        return MemoryReached(f"ended at {most},", progress.place)
    return StopRequested("stopped", progress.place)
