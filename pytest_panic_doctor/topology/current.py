"""Whether a stored diagram is of a point cloud."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pytest_panic_doctor.topology.cloud import Points, default_tolerance, fingerprint, h0_deaths
from pytest_panic_doctor.topology.payload import Payload

SHORTEST = 1e-4
"""Bars below this are not compared, in a cloud of vectors of norm 1 or more, and below as much less in one of shorter
vectors: the diagrams of clouds with repeated points carry spurious bars of about 1e-8 of the norm."""

RELATIVE = 1e-5
"""How far a stored death may be from its edge, in parts of its length: a hundred times the resolution of float32."""


def difference(payload: Payload, points: Points) -> str:
    """How the diagram differs from that of `points`, as a clause; empty where it is of these points.

    By the fingerprint of the cloud where the diagram carries one. Else by H0, whose finite deaths are the edge lengths
    of the minimum spanning tree.
    """
    if payload.provenance is not None:
        if payload.provenance.fingerprint == fingerprint(points):
            return ""
        return f"the embeddings have changed since it was computed of {payload.provenance.points:,} points"
    bars = payload.diagram.bars[0]
    stored = np.sort(bars[np.isfinite(bars[:, 1]), 1].astype(np.float64))
    norm = float(np.sqrt(np.einsum("ij,ij->i", points, points, dtype=np.float64).max(initial=0)))
    return compare(stored, h0_deaths(points), SHORTEST * min(1.0, norm), default_tolerance(points))


def compare(stored: NDArray[np.float64], real: NDArray[np.float64], shortest: float, blur: float) -> str:
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
