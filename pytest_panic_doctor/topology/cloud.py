"""The point cloud: its fingerprint, its distances, and its repeated points merged."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float32]
"""float32, shape (n, d)."""

Distances = NDArray[np.float64]
"""float64, shape (m, m): symmetric, exact zeros on the diagonal."""

ULPS = 8
"""The default tolerance, in units of float32 resolution at the cloud's diameter."""

BLOCK = 256
"""Rows of the distance matrix that are computed at a time."""

CLOSE = 1e-3
"""Distances below this part of the diameter are computed again from differences: there the matrix product cancels."""


class EmptyCloudError(ValueError):
    """A cloud without a point has no diagram."""


@dataclass(frozen=True, slots=True)
class Merged:
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
    centred = points - points.mean(axis=0, dtype=np.float64)
    radius = float(np.sqrt(np.einsum("ij,ij->i", centred, centred).max()))
    return ULPS * 2 * radius * float(np.finfo(np.float32).eps)


def distances(points: Points) -> Distances:
    """Euclidean distances, by a matrix product in float64, block by block; nothing of size (m, m) beside the result.

    |x - y|^2 = |x|^2 + |y|^2 - 2 x·y cancels where x and y are close: those pairs are computed from their difference.
    """
    count = len(points)
    result = np.empty((count, count))
    if not count:
        return result
    exact = points.astype(np.float64)
    exact -= exact.mean(axis=0)
    squares = np.einsum("ij,ij->i", exact, exact)
    close = CLOSE * 2 * float(np.sqrt(squares.max()))
    for start in range(0, count, BLOCK):
        block = result[start : start + BLOCK]
        np.matmul(exact[start : start + BLOCK], exact.T, out=block)
        block *= -2
        block += squares[start : start + BLOCK, None]
        block += squares[None, :]
        np.maximum(block, 0, out=block)
        np.sqrt(block, out=block)
        rows, columns = np.nonzero(block < close)
        for part in range(0, len(rows), BLOCK * 16):
            here, there = rows[part : part + BLOCK * 16], columns[part : part + BLOCK * 16]
            block[here, there] = np.linalg.norm(exact[start + here] - exact[there], axis=1)
    for start in range(0, count, BLOCK):
        stop = start + BLOCK
        result[start:stop, :start] = result[:start, start:stop].T
        corner = result[start:stop, start:stop]
        corner[:] = np.triu(corner, 1)
        corner += corner.T.copy()
    return result


def merge(points: Points, tolerance: float | None = None) -> Merged:
    """One point for each group of repeats: the first of them in sequence order.

    Equal points fall together first; then each point that no earlier one stands for becomes a leader, and stands for
    all that are left within `tolerance` of it. So every point is at most `tolerance` from the one that stands for it:
    a chain of near points does not drift.
    """
    within = default_tolerance(points) if tolerance is None else tolerance
    rows = np.ascontiguousarray(points) + np.float32(0)
    keys = rows.view(np.dtype((np.void, rows.dtype.itemsize * rows.shape[1]))).ravel()
    _, first, group = np.unique(keys, return_index=True, return_inverse=True)
    order = np.argsort(first)
    rank = np.empty(len(order), np.intp)
    rank[order] = np.arange(len(order))
    group = rank[group.ravel()]
    distinct = points[first[order]]
    leaders, stands = lead(distances(distinct), within) if within > 0 else (np.arange(len(distinct)),) * 2
    return Merged(distinct[leaders], stands[group], within)


def lead(apart: Distances, within: float) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """The rows that stand for themselves, and for each row the position among them of the one that stands for it."""
    stands = np.full(len(apart), -1, np.intp)
    leaders: list[int] = []
    for row in range(len(apart)):
        if stands[row] < 0:
            near = np.flatnonzero((apart[row] <= within) & (stands < 0))
            stands[near] = len(leaders)
            leaders.append(row)
    return np.array(leaders, np.intp), stands


def cost_order(apart: Distances) -> NDArray[np.intp]:
    """The order of the points in which a Vietoris-Rips reduction costs least: farthest first, by mean distance.

    The order breaks ties among simplices of one diameter and changes no bar.
    """
    return np.argsort(-apart.mean(axis=1), kind="stable")


def h0_deaths(points: Points) -> NDArray[np.float64]:
    """The finite deaths of H0, ascending, shape (n-1,): the edge lengths of the minimum spanning tree (Prim, dense).

    Zero distances are edges too, so that a repeated point gives a death of 0.
    """
    if len(points) < 2:
        return np.empty(0)
    alone = merge(points, 0.0).points
    count = len(alone)
    apart = distances(alone)
    outside = apart[0].copy()
    outside[0] = np.inf
    lengths = np.empty(count - 1)
    for step in range(count - 1):
        nearest = int(np.argmin(outside))
        lengths[step] = outside[nearest]
        reached = outside == np.inf
        np.minimum(outside, apart[nearest], out=outside)
        outside[reached] = np.inf
        outside[nearest] = np.inf
    return np.concatenate((np.zeros(len(points) - count), np.sort(lengths)))
