"""Whether a stored diagram is of a point cloud."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pytest_panic_doctor.topology.cloud import (
    MATRIX_BYTES,
    Points,
    SpanningTree,
    default_tolerance,
    fingerprint,
    spanning_tree,
)
from pytest_panic_doctor.topology.payload import Payload

SHORTEST = 1e-4
"""Bars below this are not compared, in a cloud of vectors of norm 1 or more, and below as much less in one of shorter
vectors: the diagrams of clouds with repeated points carry spurious bars of about 1e-8 of the norm."""

RELATIVE = 1e-5
"""How far a stored death may be from its edge, in parts of its length: a hundred times the resolution of float32."""


POINTS_COMPARED = 700
"""In a cloud of more points any number is near the distance of some pair, so that nothing is learned of bars by it."""

RESOLUTION = 1e-6
"""How exactly a birth or death is a distance, in parts of the cloud's radius: ten times the resolution of float32."""


def why_stale(payload: Payload, points: Points, most: int = MATRIX_BYTES) -> str:
    """How the diagram differs from that of `points`, as a clause; empty where nothing says that it is another's.

    By the fingerprint of the cloud, where the diagram carries one, and by what its bars must be: the finite deaths of
    H0 are the edge lengths of the minimum spanning tree. Births and deaths are distances of pairs of points, and no bar
    lasts beyond the enclosing radius, from which on one point is joined to all others. H1 and H2 are not computed.
    A matrix of distances may take `most` bytes.
    """
    if payload.provenance is not None and payload.provenance.fingerprint != fingerprint(points):
        return f"the embeddings have changed since it was computed of {payload.provenance.points:,} points"
    bars = payload.diagram.bars[0]
    stored = np.sort(bars[np.isfinite(bars[:, 1]), 1].astype(np.float64))
    norm = float(np.sqrt(np.einsum("ij,ij->i", points, points, dtype=np.float64).max(initial=0)))
    shortest, blur = SHORTEST * min(1.0, norm), default_tolerance(points)
    tree = spanning_tree(points, most)
    return compare_deaths(stored, tree.lengths, shortest, blur) or impossible_bars(payload, tree, shortest, blur)


def impossible_bars(payload: Payload, tree: SpanningTree, shortest: float, blur: float) -> str:
    """Which bars above H0 no cloud with these distances has, as a clause; empty where all are possible."""
    radius, distances = tree.radius, tree.distances
    slack = 2 * blur + RESOLUTION * radius
    compared = slack > 0 and distances is not None and len(distances) <= POINTS_COMPARED
    occupied = occupied_bins(distances, radius, slack) if distances is not None and compared else None
    for dimension, bars in enumerate(payload.diagram.bars[1:], start=1):
        long = bars[bars[:, 1] - bars[:, 0] > shortest].astype(np.float64)
        if late := int((long[:, 1] > radius + slack).sum()):
            which = f"{late:,} of its {len(bars):,} bars in H{dimension}"
            return f"{which} last beyond {radius:.4g}, the enclosing radius of the points"
        if occupied is None:
            continue
        near = (long / slack).astype(np.int64)
        known = occupied[near] | occupied[near + 1] | occupied[near + 2]
        if strange := int((~known).any(axis=1).sum()):
            return (
                f"{strange:,} of its {len(bars):,} bars in H{dimension} begin or end at a length that no two of the "
                "embeddings stored now are apart"
            )
    return ""


def occupied_bins(distances: NDArray[np.floating], radius: float, slack: float) -> NDArray[np.bool_]:
    """For each multiple of `slack` up to the radius, one place further on, whether a distance is in its interval."""
    last = int(radius / slack) + 4
    occupied = np.zeros(last + 1, np.bool_)
    occupied[np.minimum((distances / slack).astype(np.int64) + 1, last)] = True
    occupied[last] = False
    return occupied


def compare_deaths(stored: NDArray[np.float64], real: NDArray[np.float64], shortest: float, blur: float) -> str:
    """How two ascending lists of deaths differ, as a clause; empty where they do not.

    Bars that are longer than `shortest` in either list by a margin count; those at the margin itself may be in one list
    alone.
    """
    slack = blur + RELATIVE * shortest
    sure = [int((deaths > shortest + slack).sum()) for deaths in (stored, real)]
    possible = [int((deaths > shortest - slack).sum()) for deaths in (stored, real)]
    if sure[0] > possible[1] or sure[1] > possible[0]:
        return f"its H0 has {sure[0]:,} bars, and that of the embeddings stored now {sure[1]:,}"
    count = max(sure)
    longest = [deaths[len(deaths) - count :] for deaths in (stored, real)]
    off = np.abs(longest[0] - longest[1]) > slack + RELATIVE * longest[1]
    if off.any():
        return f"{int(off.sum()):,} of its {count:,} bars in H0 are not those of the embeddings stored now"
    return ""
