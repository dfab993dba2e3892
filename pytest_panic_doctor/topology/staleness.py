"""Whether a stored diagram belongs to a point cloud, without computing it again."""

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
from pytest_panic_doctor.topology.threads import one_thread

SHORTEST = 1e-4
"""Bars shorter than this are ignored: diagrams of clouds with repeated points have spurious bars of about 1e-8.

For vectors of norm 1 or more; scaled down with the norm below that.
"""

RELATIVE = 1e-5
"""Relative difference allowed between a stored death and its edge: a hundred times the resolution of float32."""


POINTS_COMPARED = 700
"""Most points for which births and deaths are compared with distances; above it any number is near some distance."""

RESOLUTION = 1e-6
"""Precision with which a birth or death equals a distance, as a fraction of the enclosing radius: 10 float32 ulps."""


def why_stale(payload: Payload, points: Points, most: int = MATRIX_BYTES) -> str:
    """Describe how a diagram differs from that of `points`, without computing H1 and H2.

    Compares the fingerprint of the cloud, if the diagram has one, and properties that its bars must have: the finite
    deaths of H0 are the edge lengths of the minimum spanning tree, births and deaths are distances of pairs of points,
    and no bar lasts beyond the enclosing radius, from which on the complex is a cone.

    Args:
        payload: The stored diagram.
        points: The stored cloud, float32, shape (n, d).
        most: Limit of the distance matrix in bytes.

    Returns:
        A clause; empty if nothing indicates another cloud.
    """
    if payload.provenance is not None and payload.provenance.fingerprint != fingerprint(points):
        return f"the embeddings have changed since it was computed of {payload.provenance.points:,} points"
    bars = payload.diagram.bars[0]
    stored = np.sort(bars[np.isfinite(bars[:, 1]), 1].astype(np.float64))
    norm = float(np.sqrt(np.einsum("ij,ij->i", points, points, dtype=np.float64).max(initial=0)))
    with one_thread():
        shortest, blur = SHORTEST * min(1.0, norm), default_tolerance(points)
        tree = spanning_tree(points, most)
    return compare_deaths(stored, tree.lengths, shortest, blur) or impossible_bars(payload, tree, shortest, blur)


def impossible_bars(payload: Payload, tree: SpanningTree, shortest: float, blur: float) -> str:
    """Describe bars above H0 that no cloud with these distances has, as a clause; empty if all are possible."""
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
        if unmatched := int((~known).any(axis=1).sum()):
            return (
                f"{unmatched:,} of its {len(bars):,} bars in H{dimension} begin or end at a length that no two of the "
                "embeddings stored now are apart"
            )
    return ""


def occupied_bins(distances: NDArray[np.floating], radius: float, slack: float) -> NDArray[np.bool_]:
    """Mask of the multiples of `slack` up to `radius`, shifted by one, whose interval holds a distance."""
    last = int(radius / slack) + 4
    occupied = np.zeros(last + 1, np.bool_)
    occupied[np.minimum((distances / slack).astype(np.int64) + 1, last)] = True
    occupied[last] = False
    return occupied


def compare_deaths(stored: NDArray[np.float64], real: NDArray[np.float64], shortest: float, blur: float) -> str:
    """Describe how two ascending lists of deaths differ, as a clause; empty if they do not.

    Bars longer than `shortest` by a margin count. Bars at the margin itself may be in one list alone.

    Args:
        stored: Deaths of the stored diagram, float64.
        real: Edge lengths of the spanning tree, float64.
        shortest: Length below which bars are ignored.
        blur: Absolute tolerance.
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
