"""The persistence diagram as a value, with its checksum and its entropy."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Bars = NDArray[np.float32]
"""float32, shape (k, 2): birth and death of each bar. The essential class of H0 dies at infinity."""


def sorted_bars(bars: Iterable[Iterable[float]] | NDArray[np.floating]) -> Bars:
    """Bars as float32, shape (k, 2), sorted by birth and then death, so that equal diagrams are equal bytes."""
    array = np.asarray(bars, dtype=np.float32).reshape(-1, 2)
    return np.ascontiguousarray(array[np.lexsort((array[:, 1], array[:, 0]))])


@dataclass(frozen=True)
class Diagram:
    """A persistence diagram: `bars` of H0, H1, … in that order."""

    bars: tuple[Bars, ...]

    @cached_property
    def sha256(self) -> str:
        """SHA-256 of all bars, as 64 hex digits.

        For each dimension: `H{dimension} {number of bars}` and a newline in ASCII, then birth and death of each bar as
        little-endian float32, in stored order.
        """
        digest = hashlib.sha256()
        for dimension, each in enumerate(self.bars):
            digest.update(b"H%d %d\n" % (dimension, len(each)))
            digest.update(np.ascontiguousarray(each, dtype="<f4").tobytes())
        return digest.hexdigest()

    @cached_property
    def entropy(self) -> NDArray[np.float32]:
        """Persistent entropy by homology dimension, float32, shape (dimensions,).

        -sum(p log p), where p is a bar's share of the total length. Infinite bars are left out and nothing is
        normalised, as in `persim.persistent_entropy.persistent_entropy(normalize=False)`, which the research tool calls
        (Chintakunta et al., "An entropy-based persistence barcode", Pattern Recognition 48, 2015). Without bars it is
        -0.0, as in persim.
        """
        return np.array([persistent_entropy(each) for each in self.bars], dtype=np.float32)


def persistent_entropy(bars: Bars) -> float:
    """Entropy of the bars of one dimension: natural logarithm, in float64."""
    finite = bars[np.isfinite(bars[:, 1])].astype(np.float64)
    lengths = finite[:, 1] - finite[:, 0]
    lengths = lengths[lengths > 0]
    if not len(lengths):
        return -0.0
    share = lengths / lengths.sum()
    return float(-(share * np.log(share)).sum())
