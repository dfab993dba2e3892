"""Persistence by an implementation that the doctor does not use: GUDHI's simplex tree, all edges, float64."""

from __future__ import annotations

import gudhi
import numpy as np
from numpy.typing import NDArray


def h_bars(points: NDArray[np.float32], max_dim: int) -> list[NDArray[np.float64]]:
    """Bars of H0 … H`max_dim`, sorted by birth and death, those of length 0 left out."""
    exact = points.astype(np.float64)
    distances = np.linalg.norm(exact[:, None] - exact[None], axis=2)
    tree = gudhi.RipsComplex(distance_matrix=distances).create_simplex_tree(max_dimension=max_dim + 1)
    tree.compute_persistence(homology_coeff_field=2, min_persistence=1e-6)
    found = []
    for dimension in range(max_dim + 1):
        bars = np.asarray(tree.persistence_intervals_in_dimension(dimension), np.float64).reshape(-1, 2)
        found.append(bars[np.lexsort((bars[:, 1], bars[:, 0]))])
    return found
