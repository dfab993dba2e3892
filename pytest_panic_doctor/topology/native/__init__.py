"""The engine `native`: Vietoris-Rips persistence, H0 to H2, by one matching per edge (docs/concepts/engine.md).

The C++ sources are in `src`. Read them in this order: `distances`, `edges` (ranks), `links` (the sweep: components,
apexes, critical simplices), `forest`, `cofacets`, `reduction` (H1 and H2), `rips` (all together); `control` and
`memory` (limits, progress), `kernels` (loops for several processors), `binding` (Python). They are compiled during
installation if there is a C++20 compiler; otherwise the engine is missing.
"""

from __future__ import annotations

import threading

import numpy as np
from numpy.typing import NDArray

NAME = "native"

ENGINE_VERSION = "1"
"""Version of the engine; changes when a bar could change."""

STOP, STAGE, DONE, TO_DO, BYTES, PEAK = range(6)
"""Indexes of the words shared with the compiled part (`State` in src/control.hpp)."""

LANES = 16
"""Rows of ranks have a multiple of this length, a cache line (`Edges::kLanes` in src/edges.hpp)."""

STAGES = ("the ranks of the edges", "the links, edge", "H1, column", "H2, column")
"""Names of the stages; the first reports no progress."""


class LimitReached(Exception):
    """Raised when a computation ended at a limit. The message gives limit and progress; all memory is freed."""

    def __init__(self, reason: str, place: str) -> None:
        """Make the message; `place` is the progress, such as `H2, column 1,204 of 1,862`."""
        super().__init__(f"{reason} in {place}")
        self.place = place


class DeadlineReached(LimitReached):
    """Raised when the time limit was reached."""


class MemoryReached(LimitReached):
    """Raised when the memory limit was reached, or the machine has no more."""


class StopRequested(LimitReached):
    """Raised after `Progress.stop`."""


class ComputationProgress:
    """Progress of one computation. Other threads may read it, and stop the computation."""

    def __init__(self) -> None:
        """Start with nothing done."""
        self.state: NDArray[np.int64] = np.zeros(6, np.int64)

    def stop(self) -> None:
        """End the computation within a few hundredths of a second; it raises `StopRequested`."""
        self.state[STOP] = 1

    @property
    def dimension(self) -> int | None:
        """Homology dimension whose columns are being reduced, 1 or 2; None before that."""
        stage = int(self.state[STAGE])
        return stage - 1 if stage >= 2 else None

    @property
    def done(self) -> int:
        """Columns done; edges before H1."""
        return int(self.state[DONE])

    @property
    def to_do(self) -> int:
        """Columns in total; edges before H1."""
        return int(self.state[TO_DO])

    @property
    def memory(self) -> int:
        """Bytes allocated now; 0 at the end."""
        return int(self.state[BYTES])

    @property
    def peak(self) -> int:
        """Largest number of bytes allocated."""
        return int(self.state[PEAK])

    def __str__(self) -> str:
        """Progress as a phrase: `in H2, column 1,204 of 1,862`."""
        stage = int(self.state[STAGE])
        of = f" {min(self.done + 1, self.to_do):,} of {self.to_do:,}" if stage else ""
        return f"in {STAGES[stage]}{of}"

    @property
    def place(self) -> str:
        """Progress without its first word: `H2, column 1,204 of 1,862`."""
        return str(self).removeprefix("in ")


def is_built() -> bool:
    """Whether the compiled part was built during installation, and can be loaded here."""
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
    progress: ComputationProgress | None = None,
    kernel: str | None = None,
    overwrite: bool = False,
) -> tuple[NDArray[np.float32], ...]:
    """Compute the bars of positive length of a Vietoris-Rips filtration, with coefficients in Z/2.

    Args:
        distances: float32, shape (m, m), C-contiguous, 1 <= m <= 65,535: symmetric, zeros on the diagonal, finite, not
            negative. They need not obey the triangle inequality. They are not changed, unless `overwrite`.
        max_dim: The highest homology dimension, 0 to 2.
        timeout: Limit in seconds; None for no limit.
        memory: Limit in bytes of what is allocated beside `distances`; None for no limit.
        progress: Receives the progress, and can stop the computation.
        kernel: `baseline`, `avx2` or `avx512`; None for the best that the processor has. The bars are the same.
        overwrite: `distances` are a `room(m)`, shape (m, s), and may be overwritten, which saves 4 m**2 bytes.

    Returns:
        For each dimension, births and deaths: float32, shape (k, 2), in no order. The essential class of H0 is
        (0, infinity).

    Raises:
        ValueError: `distances` are not as described.
        LimitReached: A limit was reached or `progress` stopped the computation; all memory is freed.
        KeyboardInterrupt: Ctrl-C, in the main thread.
    """
    from pytest_panic_doctor.topology.native import _rips

    reported = ComputationProgress() if progress is None else progress
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
    """Allocate a matrix in which the compiled part can compute, not initialised.

    Args:
        count: Number of points, m.

    Returns:
        Array of shape (m, s), s >= m, whose rows begin on cache lines. The distances go into its first m columns.
    """
    width = -(-count // LANES) * LANES
    memory = np.empty(count * width + LANES, np.float32)
    start = -memory.ctypes.data % (4 * LANES) // 4
    return memory[start : start + count * width].reshape(count, width)


def is_room(matrix: NDArray[np.float32]) -> bool:
    """Whether a matrix has the layout of `room`."""
    flags = matrix.flags
    fits = matrix.ndim == 2 and matrix.shape[1] == -(-len(matrix) // LANES) * LANES
    return fits and flags.c_contiguous and flags.writeable and matrix.ctypes.data % (4 * LANES) == 0


def memory_need(count: int, edges: int | None = None) -> int:
    """Bytes of a computation with its `room`, except its columns, which no formula predicts.

    Args:
        count: The number of points.
        edges: The number of pairs no farther apart than the enclosing radius; None for all pairs, the most.
    """
    pairs = count * (count - 1) // 2 if edges is None else edges
    bits = -(-count // 512) * 64
    # Ranks; length, ends, apex and a bit for each edge; neighbours of each vertex as bits.
    return 4 * count * (-(-count // LANES) * LANES) + 10 * pairs + pairs // 8 + count * bits


def check_matrix(distances: NDArray[np.float32]) -> NDArray[np.float32]:
    """The given array; raises `ValueError` unless the compiled part can read it as it is."""
    if not isinstance(distances, np.ndarray):
        raise ValueError("the distances are not an array")
    if distances.dtype != np.float32 or not distances.flags.c_contiguous or not distances.flags.aligned:
        raise ValueError("the distances are not a contiguous, aligned array of float32")
    return distances


def limit_error(limit: int, progress: ComputationProgress, timeout: float | None, memory: int | None) -> LimitReached:
    """Exception for the number of a limit (`Limit` in src/control.hpp)."""
    if limit == 1:
        return DeadlineReached(f"ended after {timeout:g} s, its limit,", progress.place)
    if limit == 2:
        most = "all there is" if memory is None else f"{memory:,} bytes, its limit"
        return MemoryReached(f"ended at {most},", progress.place)
    return StopRequested("stopped", progress.place)
