"""The compiled half: src/binding.cpp."""

import numpy as np
from numpy.typing import NDArray

def bars(
    distances: NDArray[np.float32],
    max_dim: int,
    seconds: float,
    memory: int,
    state: NDArray[np.int64],
    signals: bool,
    kernel: str | None,
    over: bool = False,
    /,
) -> tuple[bytes, bytes, bytes] | int:
    """Bars of H0 to H2 as bytes of float32 pairs, or the number of the limit that was reached."""
