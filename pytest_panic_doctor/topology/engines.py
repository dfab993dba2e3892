"""The engines that compute persistence diagrams. Each is imported at its first use, usually in the child."""

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
"""The built-in engines in order of preference."""


class Engine(Protocol):
    """Interface of an engine: exact bars of a Vietoris-Rips filtration with coefficients in Z/2."""

    name: str
    version: str

    def bars(self, distances: Filtration, max_dim: int, threads: int) -> Sequence[NDArray[np.floating]]:
        """Compute the bars of H0 … H`max_dim`.

        Args:
            distances: float32, shape (m, m), m >= 2, no two points equal. It may be overwritten. It need not obey the
                triangle inequality: an engine should use the enclosing radius as its threshold.
            max_dim: The highest homology dimension.
            threads: Threads that the engine may use.

        Returns:
            For each dimension an array of shape (k, 2) in any order. Generators are not needed.
        """


class Native:
    """The package's own engine in C++ (docs/concepts/engine.md). One thread, H0 to H2."""

    name = native.NAME
    version = native.ENGINE_VERSION
    highest = 2
    """The highest homology dimension. An engine without this attribute computes all."""
    room = staticmethod(native.room)
    """Allocates the matrix for the distances, to save a copy. Engines without it get shape (m, m)."""

    def __init__(
        self,
        timeout: float | None = None,
        memory: int | None = None,
        progress: native.ComputationProgress | None = None,
    ) -> None:
        """Set the limits of each call of `bars`: `timeout` in seconds and `memory` in bytes, None for no limit."""
        self.timeout, self.memory, self.progress = timeout, memory, progress

    def bars(self, distances: Filtration, max_dim: int, threads: int) -> Sequence[NDArray[np.floating]]:
        """Compute the bars; `threads` is ignored.

        Args:
            distances: A `room` with the distances in it, or a matrix of shape (m, m), which costs a copy.
            max_dim: 0 to 2.
            threads: Ignored.

        Raises:
            native.LimitReached: A limit was reached; the message gives the progress.
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
    """giotto-ph (Burella Pérez et al., "giotto-ph", arXiv:2107.05412), dense and without generators."""

    name = "giotto-ph"

    def __init__(self) -> None:
        """Import the package."""
        from importlib.metadata import version

        from gph import ripser_parallel

        self.version = version("giotto-ph")
        self._ripser = ripser_parallel

    def bars(self, distances: Filtration, max_dim: int, threads: int) -> Sequence[NDArray[np.floating]]:
        """Compute the bars with `threads` threads for H1 and above. The GIL is held during the call.

        The engine uses the enclosing radius as its threshold by itself.
        """
        computed = self._ripser(
            distances, maxdim=max_dim, metric="precomputed", n_threads=threads, return_generators=False
        )
        found: Sequence[NDArray[np.floating]] = computed["dgms"]
        return found


COLLAPSED = 1_000
"""Number of points from which GUDHI's edge collapse is used."""


class Gudhi:
    """GUDHI's fork of Ripser.

    Edge collapse (Boissonnat, Pritam, SoCG 2020) is used for many points: at 2,500 distinct points the time is the same
    and the memory a third.
    """

    name = "gudhi"

    def __init__(self) -> None:
        """Import the package."""
        from importlib.metadata import version

        from gudhi.sklearn.rips_persistence import RipsPersistence

        self.version = version("gudhi")
        self._persistence = RipsPersistence

    def bars(self, distances: Filtration, max_dim: int, threads: int) -> Sequence[NDArray[np.floating]]:
        """Compute the bars; `threads` is ignored, because GUDHI computes a single cloud on one thread.

        The engine uses the enclosing radius as its threshold by itself.
        """
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
"""For each built-in engine, whether it is installed, and its constructor."""

INSTALL_ENGINE = "pip install giotto-ph (Python below 3.13) or gudhi"


def load_engine(name: str | None = None, max_dim: int = 2) -> Engine:
    """Load an engine.

    Args:
        name: A built-in engine, or `module:attribute`; «auto» or None for the first that is installed. If `native` does
            not compute H`max_dim`, the next engine is loaded.
        max_dim: The highest homology dimension needed.

    Raises:
        DoctorError: The engine is not installed or does not exist.
    """
    found = resolve_engine(name, max_dim)
    return BUILT_IN_ENGINES[found][1]() if found in BUILT_IN_ENGINES else import_engine(found)


def resolve_engine(name: str | None = None, max_dim: int = 2) -> str:
    """Name of the engine that `load_engine` would load, without importing it; same arguments and errors."""
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
    """Name of the engine that would compute, for estimates; `native` if none is installed here, as with a cluster."""
    try:
        return resolve_engine(name, max_dim)
    except DoctorError:
        return native.NAME


def describe_substitute(name: str, max_dim: int) -> str | None:
    """Sentence that says which engine replaces `native`, and why; None if none does."""
    if name not in ("auto", "native") or (found := resolve_engine(name, max_dim)) == "native":
        return None
    if max_dim > Native.highest:
        return f"diagrams are computed by {found}: native computes H0 to H{Native.highest}, and not H{max_dim}"
    return f"diagrams are computed by {found}, slower: native was not built, since there was no C++20 compiler"


def engine_for_dimension(engine: Engine, max_dim: int) -> Engine:
    """The given engine, or the next one if it does not compute H`max_dim`."""
    return engine if max_dim <= getattr(engine, "highest", max_dim) else load_engine("auto", max_dim)


def is_importable(module: str) -> bool:
    """Whether the child can import a module. The child has the current folder on its path; this process may not."""
    return module in sys.modules or bool(find_spec(module) or PathFinder.find_spec(module, [str(Path.cwd())]))


def import_engine(name: str) -> Engine:
    """Import an engine given as `module:attribute`; raises `DoctorError` if that fails."""
    module, attribute = name.split(":", 1)
    try:
        engine: Engine = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise DoctorError(f"the engine {name} cannot be imported ({error}): correct its name") from error
    return engine


def compute(
    points: Points, *, engine: Engine, max_dim: int = 2, threads: int = 1, tolerance: float | None = None
) -> tuple[Diagram, MergedCloud]:
    """Compute the persistence diagram of a cloud in this process.

    Repeated points are merged, and bars without length are left out. One point, or equal points, give one essential
    class in H0 and nothing else.

    Args:
        points: float32, shape (n, d).
        engine: The engine; replaced as in `engine_for_dimension`.
        max_dim: The highest homology dimension.
        threads: Threads of the engine.
        tolerance: As in `merge`.

    Returns:
        The diagram of H0 … H`max_dim`, and the merged cloud.

    Raises:
        EmptyCloudError: There are no points.
        ValueError: A value is not finite, or a distance exceeds float32.
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
    """Distances of merged points in a matrix as `engine` takes it; raises `ValueError` if one exceeds float32."""
    room = getattr(engine, "room", None)
    return filtration(points) if room is None else filtration(points, room(len(points)))


def drop_zero_length(bars: NDArray[np.floating]) -> Bars:
    """Sorted bars in float32 without those whose length rounds to 0."""
    rounded = sorted_bars(bars)
    return rounded[rounded[:, 0] < rounded[:, 1]]
