"""Whether two diagrams have the same bars, but for rounding."""

from __future__ import annotations

from itertools import zip_longest

import numpy as np

from pytest_panic_doctor.topology.diagram import Bars, Diagram

APART = 1e-4
"""How far birth and death of one bar may differ; a bar that is not longer than this may be missing."""

FOREVER = 1e30
NO_BARS = np.empty((0, 2), np.float32)


def alike(one: Diagram, other: Diagram) -> bool:
    """Whether each bar of either diagram that is longer than `APART` is one of the other's, in every dimension."""
    pairs = zip_longest(one.bars, other.bars, fillvalue=NO_BARS)
    return all(within(mine, theirs) and within(theirs, mine) for mine, theirs in pairs)


def within(bars: Bars, others: Bars) -> bool:
    """Whether each of the longer `bars` has one of its own among `others`."""
    mine = np.minimum(bars.astype(np.float64), FOREVER)
    mine = mine[mine[:, 1] - mine[:, 0] > APART]
    left = np.minimum(others.astype(np.float64), FOREVER)
    free = np.ones(len(left), np.bool_)
    for bar in mine:
        near = free & (np.abs(left - bar).max(axis=1, initial=0) <= APART)
        if not near.any():
            return False
        free[np.argmax(near)] = False
    return True
