"""Point clouds: fingerprint, distances, merging of repeated points, and the minimum spanning tree."""

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
"""Distances in float32, shape (m, m), as engines take them.

Rounding to float32 keeps the order of distances, so births and deaths are rounded in the same way: the bars are those
of float64, rounded, without those whose length rounds to 0.
"""

Real = TypeVar("Real", np.float32, np.float64)

ULPS = 8
"""The default tolerance, in units of float32 resolution at the cloud's diameter."""

BLOCK = 256
"""Rows of the distance matrix computed at a time."""

MATRIX_BYTES = 256_000_000
"""Default limit of a distance matrix in bytes: 8,000 points."""

CLOSE = 1e-3
"""Distances below this fraction of the diameter are computed from differences: the matrix product cancels."""


class EmptyCloudError(ValueError):
    """Raised for a cloud without points, which has no diagram."""


@dataclass(frozen=True, slots=True)
class MergedCloud:
    """A cloud without repeated points.

    Attributes:
        points: float32, shape (m, d).
        index: Shape (n,): for each original point the row of `points` that represents it, at most `tolerance` away.
        tolerance: Largest distance of merged points, in the unit of the points.
    """

    points: Points
    index: NDArray[np.intp]
    tolerance: float


def fingerprint(points: Points) -> str:
    """SHA-256 of shape and values in sequence order, as 64 hex digits; it changes with any bit of the cloud."""
    digest = hashlib.sha256(f"float32 {points.shape}".encode())
    digest.update(np.ascontiguousarray(points, dtype="<f4").data)
    return digest.hexdigest()


def default_tolerance(points: Points) -> float:
    """Default distance below which points are merged: 8 float32 ulps of the cloud's diameter.

    Replacing each point by one at most t away moves no bar of the Vietoris-Rips filtration by more than 2t (Chazal,
    de Silva, Oudot, "Persistence stability for geometric complexes", Geometriae Dedicata 173, 2014, Theorem 5.2, with a
    Gromov-Hausdorff distance of at most t). Bars are stored as float32, whose step at the diameter is one ulp, and the
    vectors are float32 too: the same caption embedded in another batch differs by a few ulps in each coordinate. So t
    is within the precision of the representation. The diameter is bounded by twice the largest distance from the
    centre.
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
    """Compute the upper part of the distance matrix by blocks of rows.

    Computed as a matrix product of the centred points: |x - y|^2 = |x|^2 + |y|^2 - 2 x·y. This cancels for close
    points, whose distances are computed from the difference instead. Columns before the first row of a block are in
    earlier blocks and are left out, which halves the time.

    Args:
        points: float32, shape (n, d).

    Yields:
        The number of the first row, and a new float64 array of shape (rows, n - first).
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
            row_part, column_part = rows[part : part + BLOCK * 16], columns[part : part + BLOCK * 16]
            difference = points[start + row_part].astype(np.float64) - points[start + column_part]
            block[row_part, column_part] = np.sqrt(squared_lengths(difference))
        yield start, block


def squared_lengths(vectors: Distances) -> Distances:
    """Squared length of each row, shape (n,)."""
    lengths: Distances = np.einsum("ij,ij->i", vectors, vectors)
    return lengths


def distances(points: Points) -> Distances:
    """Euclidean distances in float64, shape (m, m). Allocates nothing else of that size."""
    return fill_distances(points, np.empty((len(points), len(points))))


def filtration(points: Points, room: Filtration | None = None) -> Filtration:
    """Compute the distances in float64 and round them to float32.

    Args:
        points: float32, shape (m, d).
        room: Array of shape (m, s), s >= m, whose first m columns are written; None for a new array with s = m.

    Returns:
        `room`, or the new array.

    Raises:
        ValueError: A distance exceeds float32.
    """
    count = len(points)
    result = np.empty((count, count), np.float32) if room is None else room
    with np.errstate(over="ignore"):
        result_square = fill_distances(points, result[:, :count])
    if not np.isfinite(result_square.max(initial=0)):
        raise ValueError("the cloud is too wide: its distances exceed float32")
    return result


def fill_distances(points: Points, result: NDArray[Real]) -> NDArray[Real]:
    """Fill `result`, shape (m, m), with the distances; symmetric to the last bit."""
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
    """Merge repeated points: each group is represented by its first point in sequence order.

    Equal points are grouped first. Then each point without a representative becomes one, and represents all remaining
    points within `tolerance`. So every point is at most `tolerance` from its representative: chains of near points do
    not drift.

    Args:
        points: float32, shape (n, d).
        tolerance: In the unit of the points; None for `default_tolerance`.
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
    """Rows that represent themselves, and for each row the position of its representative among them."""
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
    """Finite deaths of H0, ascending, shape (n-1,): the edge lengths of the minimum spanning tree.

    A repeated point gives a death of 0.
    """
    return spanning_tree(points).lengths


@dataclass(frozen=True, slots=True)
class SpanningTree:
    """The minimum spanning tree of a cloud of n points.

    Attributes:
        lengths: Edge lengths, float64, ascending, shape (n-1,).
        radius: The enclosing radius: that of the smallest ball around one of the points that holds all others.
        distances: Distances of the distinct points, or of all; None if the matrix exceeds the limit.
    """

    lengths: NDArray[np.float64]
    radius: float
    distances: Filtration | Distances | None


def spanning_tree(points: Points, most: int = MATRIX_BYTES) -> SpanningTree:
    """Compute the minimum spanning tree by Prim's algorithm on the dense graph.

    Args:
        points: float32, shape (n, d).
        most: Limit of the distance matrix in bytes. Above it, distances are computed when they are needed: n times as
            slow, in the memory of the cloud.
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


SAMPLED_POINTS = 32
"""The number of points whose distances are measured for an estimate."""


def sampled_share(points: Points) -> float:
    """Estimate which part of all pairs is within the enclosing radius of a cloud, from the distances of a few points.

    The radius is the smallest of the largest distances of these points, so that it is a little too large.

    Args:
        points: The distinct points.

    Returns:
        A number from 0 to 1; 1 for fewer than three points.
    """
    if len(points) < 3:
        return 1.0
    exact = points.astype(np.float64)
    some = exact[:: max(1, len(exact) // SAMPLED_POINTS)][:SAMPLED_POINTS]
    squares = squared_lengths(some)[:, None] + squared_lengths(exact)[None, :] - 2 * some @ exact.T
    within = int(np.count_nonzero(squares <= squares.max(axis=1).min()))
    return (within - len(some)) / (len(some) * (len(exact) - 1))


def distances_from_point(exact: Distances, number: int) -> Distances:
    """Distances of all points from one of them, float64, shape (n,)."""
    found = np.empty(len(exact))
    for start in range(0, len(exact), BLOCK * 16):
        difference = exact[start : start + BLOCK * 16] - exact[number]
        found[start : start + BLOCK * 16] = np.sqrt(np.einsum("ij,ij->i", difference, difference))
    return found


def prim_lengths(distances_from: Callable[[int], Distances], count: int) -> NDArray[np.float64]:
    """Edge lengths of the minimum spanning tree in no order.

    Args:
        distances_from: Gives the distances of all points from one, shape (count,); called once for each point.
        count: Number of points.
    """
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
    """Edge lengths of the minimum spanning tree of distinct points, ascending, shape (m-1,).

    Args:
        distinct: float32, shape (m, d).
        matrix: Their distances, float32, shape (m, m). The edges are chosen by them, which halves the memory and moves
            no length by more than the rounding. The lengths are computed in float64.
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
