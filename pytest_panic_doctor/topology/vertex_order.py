"""The order of the points in which a Vietoris-Rips reduction costs least. It breaks ties, and changes no bar.

Ripser and its kin number vertices, and try them from the last on. A simplex need not be reduced where one that is tried
before its own is no farther from all its vertices than they are from each other (an apparent pair: Bauer, "Ripser:
efficient computation of Vietoris-Rips persistence barcodes", J Appl. Comput. Topology 5, 2021). Nearly all simplices of
a cloud are such, and so the time goes by how many vertices are tried until one is found. To put those vertices last
that find it soonest for most triangles is min-sum set cover. To take next the vertex that covers most of what is left
is within 4 of the best (Feige, Lovász, Tetali, "Approximating min sum set cover", Algorithmica 40, 2004).

A sample of triangles stands for all. Vertices that cover none of what is left come in the order of their mean distance,
farthest first. Measured against seventeen other orders: benchmarks/README.md.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pytest_panic_doctor.topology.cloud import Filtration

Vertices = NDArray[np.intp]

TRIANGLES = 5_000
"""Triangles in the sample; four times as many measured the same."""

DRAWN = 8
"""Triples drawn for each triangle of the sample: not every triple is a triangle below the enclosing radius."""

BLOCK = 256
"""Triangles whose covers are computed at a time."""


def cost_order(apart: Filtration) -> Vertices:
    """A permutation of the points, shape (m,), the same for the same distances; takes well under a second."""
    covers = covered(apart, triangles(apart))
    tail = np.argsort(np.argsort(-apart.mean(axis=1, dtype=np.float64), kind="stable"))
    gain = covers.sum(axis=0)
    open_rows = np.ones(len(covers), np.bool_)
    order = np.empty(len(apart), np.intp)
    key = np.empty(len(apart), np.intp)
    taken = np.zeros(len(apart), np.bool_)
    for place in reversed(range(len(order))):
        np.multiply(gain, len(apart), out=key)
        key += tail
        key[taken] = -1
        best = int(np.argmax(key))
        order[place] = best
        taken[best] = True
        newly = np.flatnonzero(open_rows & covers[:, best])
        open_rows[newly] = False
        gain -= covers[newly].sum(axis=0)
    return order


def triangles(apart: Filtration) -> NDArray[np.intp]:
    """Triangles below the enclosing radius, drawn at random, shape (k, 3), k <= `TRIANGLES`."""
    corners = np.random.default_rng(0).integers(0, len(apart), (DRAWN * TRIANGLES, 3))
    first, second, third = corners.T
    distinct = (first != second) & (second != third) & (third != first)
    within = diameter(apart, corners) <= apart.max(axis=1).min()
    chosen: NDArray[np.intp] = corners[distinct & within][:TRIANGLES]
    return chosen


def diameter(apart: Filtration, corners: NDArray[np.intp]) -> NDArray[np.float32]:
    """The longest edge of each triangle."""
    first, second, third = corners.T
    longest: NDArray[np.float32] = np.maximum(
        np.maximum(apart[first, second], apart[second, third]), apart[third, first]
    )
    return longest


def covered(apart: Filtration, corners: NDArray[np.intp]) -> NDArray[np.bool_]:
    """Which other points are no farther from all corners of a triangle than its longest edge, shape (k, m)."""
    covers = np.empty((len(corners), len(apart)), np.bool_)
    for start in range(0, len(corners), BLOCK):
        block = corners[start : start + BLOCK]
        farthest = apart[block[:, 0]]
        for corner in (1, 2):
            np.maximum(farthest, apart[block[:, corner]], out=farthest)
        np.less_equal(farthest, diameter(apart, block)[:, None], out=covers[start : start + BLOCK])
    np.put_along_axis(covers, corners, False, axis=1)
    return covers
