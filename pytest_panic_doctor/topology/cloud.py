"""The point cloud: its fingerprint, its distances, and its repeated points merged."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float32]
"""float32, shape (n, d)."""

Distances = NDArray[np.float64]
"""float64, shape (m, m): symmetric, exact zeros on the diagonal."""

Filtration = NDArray[np.float32]
"""The same in float32, which is what engines compute with.

Rounding distances to float32 rounds births and deaths in the same way, for it keeps their order: the bars are those of
float64, rounded, without those that float32 cannot tell from nothing.
"""

Real = TypeVar("Real", np.float32, np.float64)

ULPS = 8
"""The default tolerance, in units of float32 resolution at the cloud's diameter."""

BLOCK = 256
"""Rows of the distance matrix that are computed at a time."""

MATRIX_BYTES = 256_000_000
"""Bytes of a matrix of distances that are taken where nobody says how much there is: 8,000 points."""

CLOSE = 1e-3
"""Distances below this part of the diameter are computed again from differences: there the matrix product cancels."""


class EmptyCloudError(ValueError):
    """A cloud without a point has no diagram."""


@dataclass(frozen=True, slots=True)
class MergedCloud:
    """A cloud without its repeats.

    `points` is float32, shape (m, d); `index`, shape (n,), names for each original point the row of `points` that
    stands for it, at most `tolerance` away.
    """

    points: Points
    index: NDArray[np.intp]
    tolerance: float


def fingerprint(points: Points) -> str:
    """SHA-256 over shape and values, in sequence order: 64 hex digits that change with any bit of the cloud."""
    digest = hashlib.sha256(f"float32 {points.shape}".encode())
    digest.update(np.ascontiguousarray(points, dtype="<f4").data)
    return digest.hexdigest()


def default_tolerance(points: Points) -> float:
    """The distance below which two points are one: 8 float32 ulps of the cloud's diameter.

    Replacing each point by one at most t away moves no bar of the Vietoris-Rips filtration by more than 2t (stability:
    Chazal, de Silva, Oudot, "Persistence stability for geometric complexes", Geometriae Dedicata 173, 2014, Theorem
    5.2, with a Gromov-Hausdorff distance of at most t). A payload holds bars as float32, whose steps at the diameter
    are one ulp, and the vectors are float32 themselves: the same caption, embedded in another batch, differs by a few
    ulps a coordinate. So t is what the representation already blurs. The diameter is bounded by twice the largest
    distance from the centre.
    """
    if not len(points):
        return 0.0
    centre = points.mean(axis=0, dtype=np.float64)
    farthest = 0.0
    for start in range(0, len(points), BLOCK):
        centred = points[start : start + BLOCK] - centre
        farthest = max(farthest, float(squared_lengths(centred).max()))
    return ULPS * 2 * math.sqrt(farthest) * float(np.finfo(np.float32).eps)


def distance_blocks(points: Points) -> Iterator[tuple[int, Distances]]:
    """Rows of the distance matrix in float64, a block at a time, with the number of the first; each block is fresh.

    Columns before that number are left out: they stand in earlier blocks, and cost half of the time.
    A matrix product of the centred points: |x - y|^2 = |x|^2 + |y|^2 - 2 x·y, which cancels where x and y are close, so
    those distances are computed from the difference.
    """
    if not len(points):
        return
    centre = points.mean(axis=0, dtype=np.float64)
    starts = range(0, len(points), BLOCK)
    squares = np.concatenate([squared_lengths(points[start : start + BLOCK] - centre) for start in starts])
    close = CLOSE * 2 * float(np.sqrt(squares.max()))
    for start in starts:
        rows_here = points[start : start + BLOCK] - centre
        block = np.empty((len(rows_here), len(points) - start))
        np.matmul(rows_here, rows_here.T, out=block[:, :BLOCK])
        for left in starts[start // BLOCK + 1 :]:
            columns_here = points[left : left + BLOCK] - centre
            np.matmul(rows_here, columns_here.T, out=block[:, left - start : left - start + BLOCK])
        block *= -2
        block += squares[start : start + BLOCK, None]
        block += squares[None, start:]
        np.maximum(block, 0, out=block)
        np.sqrt(block, out=block)
        near = block < close
        own = np.arange(len(block))
        near[own, own], block[own, own] = False, 0
        rows, columns = np.nonzero(near)
        for part in range(0, len(rows), BLOCK * 16):
            here, there = rows[part : part + BLOCK * 16], columns[part : part + BLOCK * 16]
            difference = points[start + here].astype(np.float64) - points[start + there]
            block[here, there] = np.sqrt(squared_lengths(difference))
        yield start, block


def squared_lengths(vectors: Distances) -> Distances:
    """The squared length of each row."""
    lengths: Distances = np.einsum("ij,ij->i", vectors, vectors)
    return lengths


def distances(points: Points) -> Distances:
    """Euclidean distances in float64, shape (m, m); nothing of that size is made beside the result."""
    return fill_distances(points, np.empty((len(points), len(points))))


def filtration(points: Points, room: Filtration | None = None) -> Filtration:
    """The same, rounded to float32 once computed. Raises `ValueError` where one exceeds float32.

    `room`, shape (m, s) with s >= m, is written to in its first m columns and returned; None: a new one with s = m.
    """
    count = len(points)
    result = np.empty((count, count), np.float32) if room is None else room
    with np.errstate(over="ignore"):
        result_square = fill_distances(points, result[:, :count])
    if not np.isfinite(result_square.max(initial=0)):
        raise ValueError("the cloud is too wide: its distances exceed float32")
    return result


def fill_distances(points: Points, result: NDArray[Real]) -> NDArray[Real]:
    """`result` with the distances in it, symmetric to the last bit."""
    for start, block in distance_blocks(points):
        result[start : start + BLOCK, start:] = block
    for start in range(0, len(points), BLOCK):
        stop = start + BLOCK
        result[start:stop, :start] = result[:start, start:stop].T
        corner = result[start:stop, start:stop]
        corner[:] = np.triu(corner, 1)
        corner += corner.T.copy()
    return result


def merge(points: Points, tolerance: float | None = None) -> MergedCloud:
    """One point for each group of repeats: the first of them in sequence order.

    Equal points fall together first; then each point that no earlier one stands for becomes a leader, and stands for
    all that are left within `tolerance` of it. So every point is at most `tolerance` from the one that stands for it:
    a chain of near points does not drift.
    """
    within = default_tolerance(points) if tolerance is None else tolerance
    first: dict[bytes, int] = {}
    # The sum makes -0 into 0.
    group = np.array([first.setdefault((row + np.float32(0)).tobytes(), len(first)) for row in points], np.intp)
    first.clear()
    distinct = points[np.unique(group, return_index=True)[1]]
    leaders, representative = find_leaders(distinct, within) if within > 0 else (np.arange(len(distinct)),) * 2
    return MergedCloud(distinct[leaders], representative[group], within)


def find_leaders(points: Points, within: float) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """The rows that stand for themselves, and for each row the position among them of the one that stands for it."""
    representative = np.full(len(points), -1, np.intp)
    leaders: list[int] = []
    for start, block in distance_blocks(points):
        later = representative[start:]
        for row, distances_of_row in enumerate(block):
            if later[row] < 0:
                distances_of_row[row] = 0
                later[(distances_of_row <= within) & (later < 0)] = len(leaders)
                leaders.append(start + row)
    return np.array(leaders, np.intp), representative


def h0_deaths(points: Points) -> NDArray[np.float64]:
    """The finite deaths of H0, ascending, shape (n-1,): the edge lengths of the minimum spanning tree (Prim, dense).

    Zero distances are edges too, so that a repeated point gives a death of 0.
    """
    return spanning_tree(points).lengths


@dataclass(frozen=True, slots=True)
class SpanningTree:
    """The minimum spanning tree of a cloud of n points.

    `lengths` of its edges are float64, ascending, shape (n-1,); `radius` is that of the smallest ball around one point
    that has all others; `apart` the distances of its different points, or of all, None where they do not fit.
    """

    lengths: NDArray[np.float64]
    radius: float
    distances: Filtration | Distances | None


def spanning_tree(points: Points, most: int = MATRIX_BYTES) -> SpanningTree:
    """The minimum spanning tree.

    Args:
        points: The cloud.
        most: Bytes that the matrix of distances may take. Where it is larger, distances are computed as they are
            needed: n times as slowly as they can be read, in the memory of the cloud.
    """
    if len(points) < 2:
        return SpanningTree(np.empty(0), 0.0, None)
    if len(points) <= BLOCK:
        ((_, near),) = distance_blocks(points)
        return SpanningTree(np.sort(prim_lengths(near.__getitem__, len(points))), float(near.max(axis=1).min()), near)
    distinct = merge(points, 0.0).points
    repeats = np.zeros(len(points) - len(distinct))
    if 4 * len(distinct) ** 2 <= most:
        matrix = filtration(distinct)
        lengths = np.concatenate((repeats, tree_lengths(distinct, matrix)))
        return SpanningTree(lengths, float(matrix.max(axis=1).min()), matrix)
    exact = distinct.astype(np.float64)
    farthest: list[float] = []

    def row(number: int) -> Distances:
        found = distances_from_point(exact, number)
        farthest.append(float(found.max()))
        return found

    lengths = np.concatenate((repeats, np.sort(prim_lengths(row, len(distinct)))))
    return SpanningTree(lengths, min(farthest), None)


def distances_from_point(exact: Distances, number: int) -> Distances:
    """The distances of all points, float64, from one of them."""
    found = np.empty(len(exact))
    for start in range(0, len(exact), BLOCK * 16):
        difference = exact[start : start + BLOCK * 16] - exact[number]
        found[start : start + BLOCK * 16] = np.sqrt(np.einsum("ij,ij->i", difference, difference))
    return found


def prim_lengths(distances_from: Callable[[int], Distances], count: int) -> NDArray[np.float64]:
    """The edge lengths of the minimum spanning tree of `count` points, in no order; each point is asked for once."""
    outside = distances_from(0).copy()
    within = np.zeros(count)
    within[0] = outside[0] = np.inf
    lengths = np.empty(count - 1)
    for step in range(count - 1):
        nearest = int(outside.argmin())
        lengths[step] = outside[nearest]
        within[nearest] = np.inf
        # A point of the tree stays out of it: infinity is the larger of the two.
        np.minimum(outside, distances_from(nearest), out=outside)
        np.maximum(outside, within, out=outside)
    return lengths


def tree_lengths(distinct: Points, matrix: Filtration) -> NDArray[np.float64]:
    """The edge lengths of the minimum spanning tree of different points, ascending, shape (m-1,).

    `apart` is their distance matrix, by which the edges are chosen: in float32, which takes half the memory and moves
    no length by more than that rounding; the lengths are those of float64.
    """
    outside, parent = matrix[0].copy(), np.zeros(len(distinct), np.intp)
    outside[0] = np.inf
    within = np.zeros(len(distinct), np.bool_)
    within[0] = True
    edges = np.empty((len(distinct) - 1, 2), np.intp)
    for step in range(len(edges)):
        nearest = int(np.argmin(outside))
        edges[step] = nearest, parent[nearest]
        within[nearest] = True
        outside[nearest] = np.inf
        closer = (matrix[nearest] < outside) & ~within
        outside[closer] = matrix[nearest, closer]
        parent[closer] = nearest
    ends = distinct[edges].astype(np.float64)
    return np.sort(np.linalg.norm(ends[:, 0] - ends[:, 1], axis=1))
