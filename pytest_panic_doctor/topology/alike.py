"""Whether two diagrams have the same bars, but for rounding, and how they differ where they do not."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest

import numpy as np
from numpy.typing import NDArray

from pytest_panic_doctor.topology.diagram import Bars, Diagram

BAR_TOLERANCE = 1e-4
"""How far birth and death of one bar may differ; a bar that is not longer than this may be missing."""

INFINITE_DEATH = 1e30
NO_BARS = np.empty((0, 2), np.float32)


@dataclass(frozen=True, slots=True)
class Difference:
    """How many bars differ in one dimension, of those that are longer than `APART`.

    `stored` and `real` are how many either diagram has. `by` is the most that birth or death of one differs from the
    nearest of the other's that has no counterpart either; the length of a bar that is nearer to none than to that.
    """

    dimension: int
    count: int
    stored: int
    real: int
    by: float


def have_same_bars(one: Diagram, other: Diagram) -> bool:
    """Whether each bar of either diagram that is longer than `APART` is one of the other's, in every dimension."""
    pairs = zip_longest(one.bars, other.bars, fillvalue=NO_BARS)
    return all(not len(unmatched(mine, theirs)) and not len(unmatched(theirs, mine)) for mine, theirs in pairs)


def differences(stored: Diagram, real: Diagram) -> Iterator[Difference]:
    """How a stored diagram differs from the real one, by dimension, in the dimensions that both have."""
    for dimension, (mine, theirs) in enumerate(zip(stored.bars, real.bars, strict=False)):
        extra, lost = unmatched(mine, theirs), unmatched(theirs, mine)
        if count := max(len(extra), len(lost)):
            by = max(largest_gap(extra, lost), largest_gap(lost, extra))
            yield Difference(dimension, count, int(is_long(mine).sum()), int(is_long(theirs).sum()), by)


def is_long(bars: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Which bars are longer than `APART`."""
    return bars[:, 1].astype(np.float64) - bars[:, 0] > BAR_TOLERANCE


def largest_gap(bars: NDArray[np.float64], others: NDArray[np.float64]) -> float:
    """The most that one of `bars` differs from the nearest of `others`, or from nothing."""
    each = [min(death - birth, *np.abs(others - (birth, death)).max(axis=1), np.inf) for birth, death in bars]
    return float(max(each, default=0.0))


def unmatched(bars: Bars, others: Bars) -> NDArray[np.float64]:
    """Those of the longer `bars` that have none of their own among `others`, each given the nearest that is free."""
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
