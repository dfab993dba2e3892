"""Comparison of two diagrams, bar by bar, up to rounding."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest

import numpy as np
from numpy.typing import NDArray

from pytest_panic_doctor.topology.diagram import Bars, Diagram

BAR_TOLERANCE = 1e-4
"""Largest difference between births or deaths of equal bars. Bars up to this length may be missing."""

INFINITE_DEATH = 1e30
"""Finite value that replaces an infinite death, so that differences are defined."""
NO_BARS = np.empty((0, 2), np.float32)


@dataclass(frozen=True, slots=True)
class Difference:
    """How two diagrams differ in one dimension, among bars longer than `BAR_TOLERANCE`.

    Attributes:
        dimension: The homology dimension.
        count: How many bars differ.
        stored: How many bars the stored diagram has.
        real: How many bars the real diagram has.
        largest_gap: The largest distance from an unmatched bar to the nearest unmatched bar of the other diagram, or
            its length if that is smaller.
    """

    dimension: int
    count: int
    stored: int
    real: int
    largest_gap: float


def have_same_bars(one: Diagram, other: Diagram) -> bool:
    """Whether two diagrams have the same bars longer than `BAR_TOLERANCE`, in every dimension."""
    pairs = zip_longest(one.bars, other.bars, fillvalue=NO_BARS)
    return all(not len(unmatched(mine, theirs)) and not len(unmatched(theirs, mine)) for mine, theirs in pairs)


def diagram_differences(stored: Diagram, real: Diagram) -> Iterator[Difference]:
    """Compare a stored diagram with the real one.

    Args:
        stored: The diagram in the database.
        real: The diagram computed now.

    Yields:
        One `Difference` for each dimension that both have and in which they differ.
    """
    for dimension, (mine, theirs) in enumerate(zip(stored.bars, real.bars, strict=False)):
        extra, lost = unmatched(mine, theirs), unmatched(theirs, mine)
        if count := max(len(extra), len(lost)):
            by = max(largest_gap(extra, lost), largest_gap(lost, extra))
            yield Difference(dimension, count, int(is_long(mine).sum()), int(is_long(theirs).sum()), by)


def is_long(bars: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Mask of the bars longer than `BAR_TOLERANCE`, shape (k,)."""
    return bars[:, 1].astype(np.float64) - bars[:, 0] > BAR_TOLERANCE


def largest_gap(bars: NDArray[np.float64], others: NDArray[np.float64]) -> float:
    """Largest distance from a bar to the nearest of `others`, or its length if that is smaller; 0 without bars."""
    each = [min(death - birth, *np.abs(others - (birth, death)).max(axis=1), np.inf) for birth, death in bars]
    return float(max(each, default=0.0))


def unmatched(bars: Bars, others: Bars) -> NDArray[np.float64]:
    """Match each long bar with the nearest free one of `others`.

    Args:
        bars: Shape (k, 2).
        others: Shape (l, 2).

    Returns:
        The bars without a match, float64, shape (j, 2).
    """
    mine = np.minimum(bars.astype(np.float64), INFINITE_DEATH)
    theirs = np.minimum(others.astype(np.float64), INFINITE_DEATH)
    free = np.ones(len(theirs), np.bool_)
    without_match = []
    for bar in mine[is_long(mine)]:
        distances = np.where(free, np.abs(theirs - bar).max(axis=1, initial=0), np.inf)
        nearest = int(np.argmin(distances)) if len(distances) else -1
        if nearest < 0 or distances[nearest] > BAR_TOLERANCE:
            without_match.append(bar)
        else:
            free[nearest] = False
    return np.array(without_match, np.float64).reshape(-1, 2)
