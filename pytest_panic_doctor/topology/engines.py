"""The engines that compute persistence diagrams. Imported where one is used, which is in the child process."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Sequence
from importlib.machinery import PathFinder
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pytest_panic_doctor.errors import DoctorError
from pytest_panic_doctor.topology import native
from pytest_panic_doctor.topology.cloud import EmptyCloudError, Filtration, MergedCloud, Points, filtration, merge
from pytest_panic_doctor.topology.diagram import Bars, Diagram, sorted_bars

ENGINE_NAMES = (native.NAME, "gudhi", "giotto-ph")
"""The engines that come with the doctor, the preferred one first."""


class Engine(Protocol):
    """Anything that computes the bars of a Vietoris-Rips filtration exactly, with coefficients in Z/2."""

    name: str
    version: str

    def bars(self, distances: Filtration, max_dim: int, threads: int) -> Sequence[NDArray[np.floating]]:
        """Bars of H0 … H`max_dim`, each of shape (k, 2), in any order; generators are not asked for.

        `apart` has m >= 2 points, no two of them equal, and may be overwritten. It need not obey the triangle
        inequality: nothing is left beyond its enclosing radius, which an engine should take as its threshold.
        """


class Native:
    """The doctor's own, in C++: docs/concepts/engine.md. One thread, H0 to H2."""

    name = native.NAME
    version = native.ENGINE_VERSION
    highest = 2
    """The highest homology dimension that it computes; an engine without this attribute computes all."""
    room = staticmethod(native.room)
    """Makes the matrix for the distances: so they need no other; an engine without this attribute gets one (m, m)."""

    def __init__(
        self, timeout: float | None = None, memory: int | None = None, progress: native.Progress | None = None
    ) -> None:
        """`timeout` in seconds and `memory` in bytes, for each call of `bars`; None: no limit."""
        self.timeout, self.memory, self.progress = timeout, memory, progress

    def bars(self, distances: Filtration, max_dim: int, threads: int) -> Sequence[NDArray[np.floating]]:
        """Raises `native.LimitReached`, and says how far it came; `threads` changes nothing.

        `apart` is a `room` with the distances in it, or, at the cost of another, a matrix of shape (m, m).
        """
        del threads
        return native.rips_bars(
            distances,
            max_dim,
            timeout=self.timeout,
            memory=self.memory,
            progress=self.progress,
            overwrite=native.is_room(distances),
        )


class GiottoPh:
    """giotto-ph (Burella Pérez et al., "giotto-ph", arXiv:2107.05412): dense, and with no generators."""

    name = "giotto-ph"

    def __init__(self) -> None:
        """Import it."""
        from importlib.metadata import version

        from gph import ripser_parallel

        self.version = version("giotto-ph")
        self._ripser = ripser_parallel

    def bars(self, distances: Filtration, max_dim: int, threads: int) -> Sequence[NDArray[np.floating]]:
        """`threads` work in H1 and above, and hold the interpreter's lock meanwhile.

        It takes the enclosing radius as threshold by itself.
        """
        computed = self._ripser(
            distances, maxdim=max_dim, metric="precomputed", n_threads=threads, return_generators=False
        )
        found: Sequence[NDArray[np.floating]] = computed["dgms"]
        return found


COLLAPSED = 1_000
"""Points from which GUDHI's edge collapse pays."""


class Gudhi:
    """GUDHI's fork of Ripser. Edge collapse (Boissonnat, Pritam, SoCG 2020) pays for many points: at 2,500 distinct the
    time stays the same, and the memory is a third.
    """

    name = "gudhi"

    def __init__(self) -> None:
        """Import it."""
        from importlib.metadata import version

        from gudhi.sklearn.rips_persistence import RipsPersistence

        self.version = version("gudhi")
        self._persistence = RipsPersistence

    def bars(self, distances: Filtration, max_dim: int, threads: int) -> Sequence[NDArray[np.floating]]:
        """One thread: GUDHI computes a single cloud on one. It takes the enclosing radius as threshold by itself."""
        del threads
        computed = self._persistence(
            homology_dimensions=list(range(max_dim + 1)),
            input_type="full distance matrix",
            num_collapses=int(len(distances) >= COLLAPSED),
            homology_coeff_field=2,
        ).fit_transform([distances])[0]
        return [np.asarray(each, dtype=np.float64).reshape(-1, 2) for each in computed]


BUILT_IN_ENGINES: dict[str, tuple[Callable[[], bool], Callable[[], Engine]]] = {
    "native": (native.is_built, Native),
    "gudhi": (lambda: bool(find_spec("gudhi")), Gudhi),
    "giotto-ph": (lambda: bool(find_spec("gph")), GiottoPh),
}
"""Whether each is installed, and how it is made."""

INSTALL_ENGINE = "pip install giotto-ph (Python below 3.13) or gudhi"


def load_engine(name: str | None = None, max_dim: int = 2) -> Engine:
    """The engine of this name, or of `module:attribute`; «auto» or None: the first that is installed.

    Where `native` is asked for more than it computes, the next takes its place. Raises `DoctorError`, in one sentence,
    where it is not there.
    """
    found = resolve_engine(name, max_dim)
    return BUILT_IN_ENGINES[found][1]() if found in BUILT_IN_ENGINES else import_engine(found)


def resolve_engine(name: str | None = None, max_dim: int = 2) -> str:
    """The engine that `pick` would make, without importing it; raises `DoctorError` where it is not there."""
    high = max_dim > Native.highest
    if name in (None, "", "auto") or (name == "native" and high):
        for each in ENGINE_NAMES[high:]:
            if BUILT_IN_ENGINES[each][0]():
                return each
        raise DoctorError(f"no engine for H{max_dim} is installed: {INSTALL_ENGINE}")
    assert name is not None
    if name == "native" and not native.is_built():
        raise DoctorError(
            "the engine native was not built when the doctor was installed, since there was no C++20 compiler: "
            "install one and the doctor again, or give --doctor-engine auto"
        )
    if name in BUILT_IN_ENGINES:
        if not BUILT_IN_ENGINES[name][0]():
            raise DoctorError(f"the engine {name} is not installed: pip install {name}")
    elif ":" not in name:
        raise DoctorError(
            f"there is no engine {name}: give {' or '.join(ENGINE_NAMES)}, or install the plugin that provides it"
        )
    elif not is_importable(top := name.split(":")[0].split(".")[0]):
        raise DoctorError(f"the engine {name} does not exist: no module is called {top}")
    return name


def would_compute(name: str, max_dim: int) -> str:
    """The name of the engine that would compute, for estimates: `native` where none is there, or a cluster is."""
    try:
        return resolve_engine(name, max_dim)
    except DoctorError:
        return native.NAME


def describe_substitute(name: str, max_dim: int) -> str | None:
    """A sentence where another engine takes the place of `native`, and why; None where none does."""
    if name not in ("auto", "native") or (found := resolve_engine(name, max_dim)) == "native":
        return None
    if max_dim > Native.highest:
        return f"diagrams are computed by {found}: native computes H0 to H{Native.highest}, and not H{max_dim}"
    return f"diagrams are computed by {found}, slower: native was not built, since there was no C++20 compiler"


def engine_for_dimension(engine: Engine, max_dim: int) -> Engine:
    """The engine, or the next where it does not compute H`max_dim`."""
    return engine if max_dim <= getattr(engine, "highest", max_dim) else load_engine("auto", max_dim)


def is_importable(module: str) -> bool:
    """Whether the child could import a module: it has the current folder on its path, which this process may not."""
    return module in sys.modules or bool(find_spec(module) or PathFinder.find_spec(module, [str(Path.cwd())]))


def import_engine(name: str) -> Engine:
    """An engine that somebody else brings."""
    module, attribute = name.split(":", 1)
    try:
        engine: Engine = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise DoctorError(f"the engine {name} cannot be imported ({error}): correct its name") from error
    return engine


def compute(
    points: Points, *, engine: Engine, max_dim: int = 2, threads: int = 1, tolerance: float | None = None
) -> tuple[Diagram, MergedCloud]:
    """The persistence diagram of a cloud, H0 to H`max_dim`, in this process.

    `points` is float32, shape (n, d). Repeated points are merged. One point, or all equal, has one essential class in
    H0 and nothing else. Bars of no length are left out. Where `engine` does not compute H`max_dim`, the next one does:
    see `fitting`. Raises `EmptyCloudError` for no point at all, and `ValueError` for values that are not finite, or so
    large that their distances are not.
    """
    if not len(points):
        raise EmptyCloudError("a cloud without a point has no diagram")
    if not np.isfinite(points).all():
        raise ValueError("the cloud holds NaN or infinity")
    merged = merge(points, tolerance)
    if len(merged.points) == 1:
        essential = np.array([[0, np.inf]], np.float32)
        return Diagram((essential, *[sorted_bars([])] * max_dim)), merged
    engine = engine_for_dimension(engine, max_dim)
    found = engine.bars(distances_for(engine, merged.points), max_dim, threads)
    return Diagram(tuple(drop_zero_length(bars) for bars in found)), merged


def distances_for(engine: Engine, points: Points) -> Filtration:
    """The distances of merged points in a matrix as `engine` wants it. Raises `ValueError` where one is too large."""
    room = getattr(engine, "room", None)
    return filtration(points) if room is None else filtration(points, room(len(points)))


def drop_zero_length(bars: NDArray[np.floating]) -> Bars:
    """The bars that have a length in float32."""
    rounded = sorted_bars(bars)
    return rounded[rounded[:, 0] < rounded[:, 1]]
