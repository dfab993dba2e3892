"""The engines that compute persistence diagrams. Imported where one is used, which is in the child process."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pytest_panic_doctor.errors import DoctorError
from pytest_panic_doctor.topology.cloud import EmptyCloudError, Merged, Points, cost_order, distances, merge
from pytest_panic_doctor.topology.diagram import Bars, Diagram, in_order

Filtration = NDArray[np.float32]
"""Distances as the engine gets them: float32, shape (m, m), symmetric, zeros on the diagonal.

Rounding distances to float32 rounds the births and deaths in the same way, for rounding keeps their order: the bars are
those of float64, rounded, without those that float32 cannot tell from nothing.
"""

NAMES = ("giotto-ph", "gudhi")
"""The engines that come with the doctor, the preferred one first."""


class Engine(Protocol):
    """Anything that computes the bars of a Vietoris-Rips filtration exactly, with coefficients in Z/2."""

    name: str
    version: str

    def bars(self, apart: Filtration, max_dim: int, threads: int) -> Sequence[NDArray[np.floating]]:
        """Bars of H0 … H`max_dim`, each of shape (k, 2), in any order; generators are not asked for.

        `apart` has m >= 2 points, no two of them equal, and may be overwritten.
        """


class GiottoPh:
    """giotto-ph (Burella Pérez et al., "giotto-ph", arXiv:2107.05412)."""

    name = "giotto-ph"

    def __init__(self) -> None:
        """Import it."""
        from gph import ripser_parallel

        self.version = version("giotto-ph")
        self._ripser = ripser_parallel

    def bars(self, apart: Filtration, max_dim: int, threads: int) -> Sequence[NDArray[np.floating]]:
        """It sets the threshold at the enclosing radius by itself, and keeps the matrix dense, which measured best."""
        found: Sequence[NDArray[np.floating]] = self._ripser(
            apart, maxdim=max_dim, metric="precomputed", n_threads=threads, return_generators=False
        )["dgms"]
        return found


class Gudhi:
    """GUDHI's Rips complex with edge collapse (Boissonnat, Pritam, "Edge collapse and persistence", SoCG 2020)."""

    name = "gudhi"

    def __init__(self) -> None:
        """Import it."""
        from gudhi.sklearn.rips_persistence import RipsPersistence

        self.version = version("gudhi")
        self._persistence = RipsPersistence

    def bars(self, apart: Filtration, max_dim: int, threads: int) -> Sequence[NDArray[np.floating]]:
        """One filtration, one thread: GUDHI computes a single cloud on one."""
        del threads
        radius = float(apart.max(axis=1).min())
        computed = self._persistence(
            homology_dimensions=list(range(max_dim + 1)), threshold=radius, input_type="full distance matrix"
        ).fit_transform([apart])[0]
        return [np.asarray(each, dtype=np.float64).reshape(-1, 2) for each in computed]


BUILT_IN: dict[str, tuple[str, Callable[[], Engine]]] = {"giotto-ph": ("gph", GiottoPh), "gudhi": ("gudhi", Gudhi)}


def pick(name: str | None = None) -> Engine:
    """The engine of this name, or of `module:attribute`; «auto» or None: the first that is installed.

    Raises `DoctorError`, in one sentence, where it is not there.
    """
    if name in (None, "", "auto"):
        for each in NAMES:
            if find_spec(BUILT_IN[each][0]):
                return BUILT_IN[each][1]()
        raise DoctorError("no engine is installed: pip install giotto-ph (Python below 3.13) or gudhi")
    assert name is not None
    if name in BUILT_IN:
        module, made = BUILT_IN[name]
        if not find_spec(module):
            raise DoctorError(f"the engine {name} is not installed: pip install {name}")
        return made()
    if ":" not in name:
        raise DoctorError(f"there is no engine {name}: give {' or '.join(NAMES)}, or install the plugin that brings it")
    return imported(name)


def imported(name: str) -> Engine:
    """An engine that somebody else brings."""
    module, attribute = name.split(":", 1)
    try:
        engine: Engine = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, PackageNotFoundError) as error:
        raise DoctorError(f"the engine {name} cannot be imported ({error}): correct its name") from error
    return engine


def compute(
    points: Points, *, engine: Engine, max_dim: int = 2, threads: int = 1, tolerance: float | None = None
) -> tuple[Diagram, Merged]:
    """The persistence diagram of a cloud, H0 to H`max_dim`, in this process.

    `points` is float32, shape (n, d). Repeated points are merged, and the rest ordered for cost. One point, or all
    equal, has one essential class in H0 and nothing else. Bars of no length are left out. Raises `EmptyCloudError` for
    no point at all, and `ValueError` for values that are not finite, or so large that their distances are not.
    """
    if not len(points):
        raise EmptyCloudError("a cloud without a point has no diagram")
    if not np.isfinite(points).all():
        raise ValueError("the cloud holds NaN or infinity")
    merged = merge(points, tolerance)
    if len(merged.points) == 1:
        essential = np.array([[0, np.inf]], np.float32)
        return Diagram((essential, *[in_order([])] * max_dim)), merged
    found = engine.bars(filtration(merged.points), max_dim, threads)
    return Diagram(tuple(lasting(bars) for bars in found)), merged


def lasting(bars: NDArray[np.floating]) -> Bars:
    """The bars that have a length in float32."""
    rounded = in_order(bars)
    return rounded[rounded[:, 0] < rounded[:, 1]]


def filtration(points: Points) -> Filtration:
    """The distances of merged points, in the order that costs least.

    Raises `ValueError` where they exceed float32.
    """
    exact = distances(points)
    if not exact.max() <= np.finfo(np.float32).max:
        raise ValueError("the cloud is too wide: its distances exceed float32")
    order = cost_order(exact)
    return exact.astype(np.float32)[np.ix_(order, order)]
