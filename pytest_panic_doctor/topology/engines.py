"""The engines that compute persistence diagrams. Imported where one is used, which is in the child process."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Sequence
from importlib.machinery import PathFinder
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec, module_from_spec
from pathlib import Path
from typing import Protocol, cast

import numpy as np
from numpy.typing import NDArray

from pytest_panic_doctor.errors import DoctorError
from pytest_panic_doctor.topology import native
from pytest_panic_doctor.topology.cloud import EmptyCloudError, Filtration, Merged, Points, filtration, merge
from pytest_panic_doctor.topology.diagram import Bars, Diagram, in_order
from pytest_panic_doctor.topology.truncation import end_early
from pytest_panic_doctor.topology.vertex_order import cost_order

NAMES = ("native", "gudhi", "giotto-ph")
"""The engines that come with the doctor, the preferred one first."""


class Engine(Protocol):
    """Anything that computes the bars of a Vietoris-Rips filtration exactly, with coefficients in Z/2."""

    name: str
    version: str

    def bars(self, apart: Filtration, max_dim: int, threads: int) -> Sequence[NDArray[np.floating]]:
        """Bars of H0 … H`max_dim`, each of shape (k, 2), in any order; generators are not asked for.

        `apart` has m >= 2 points, no two of them equal, and may be overwritten. It need not obey the triangle
        inequality: nothing is left beyond its enclosing radius, which an engine should take as its threshold.
        """


class Native:
    """The doctor's own, in C++: docs/concepts/engine.md. One thread, H0 to H2."""

    name = "native"
    version = native.VERSION
    highest = 2
    """The highest homology dimension that it computes; an engine without this attribute computes all."""
    as_they_are = True
    """It takes distances as they are; an engine without this attribute gets them `prepared`."""

    def __init__(
        self, timeout: float | None = None, memory: int | None = None, progress: native.Progress | None = None
    ) -> None:
        """`timeout` in seconds and `memory` in bytes, for each call of `bars`; None: no limit."""
        self.timeout, self.memory, self.progress = timeout, memory, progress

    def bars(self, apart: Filtration, max_dim: int, threads: int) -> Sequence[NDArray[np.floating]]:
        """Raises `native.LimitReached`, and says how far it came; `threads` changes nothing."""
        del threads
        return native.rips_bars(apart, max_dim, timeout=self.timeout, memory=self.memory, progress=self.progress)


class GiottoPh:
    """giotto-ph (Burella Pérez et al., "giotto-ph", arXiv:2107.05412): dense, and with no generators."""

    name = "giotto-ph"

    def __init__(self) -> None:
        """Load it: the compiled half alone, where it is of the version that was tried."""
        self.version = version("giotto-ph")
        self._bars = of_kernel(kernel()) if self.version in KERNELS else of_wrapper

    def bars(self, apart: Filtration, max_dim: int, threads: int) -> Sequence[NDArray[np.floating]]:
        """`threads` work in H1 and above, and hold the interpreter's lock meanwhile."""
        return self._bars(apart, max_dim, threads)


class Results(Protocol):
    """What giotto-ph's compiled half returns."""

    def births_and_deaths_by_dim(self) -> list[NDArray[np.float32]]:
        """Births and deaths in turn, by homology dimension."""


class Kernel(Protocol):
    """giotto-ph's compiled half."""

    def rips_dm(
        self,
        condensed: NDArray[np.float32],
        births: NDArray[np.float32],
        modulus: int,
        max_dim: int,
        threshold: float,
        threads: int,
        generators: bool,
        /,
    ) -> Results:
        """Bars of a dense distance matrix: its rows above the diagonal, one after the other."""


COMPILED = "gph.modules.gph_ripser"
KERNELS = ("0.2.4",)
"""The versions of giotto-ph whose compiled half has this shape: the last one, of May 2024."""


def kernel() -> Kernel:
    """giotto-ph's `gph.modules.gph_ripser`, without `gph` itself.

    `import gph` brings SciPy and scikit-learn, for forms of input that are not used here: 129 MB instead of 29 MB, for
    each child, and a second instead of a tenth. It is loaded by its own name, for a second copy under another would
    clash with it: `import gph` works before and after. `of_wrapper` goes through the front door; a test compares them.
    """
    if COMPILED not in sys.modules:
        package = find_spec("gph")
        assert package is not None
        found = PathFinder.find_spec(
            COMPILED, [f"{folder}/modules" for folder in package.submodule_search_locations or ()]
        )
        assert found is not None
        assert found.loader is not None
        sys.modules[COMPILED] = module_from_spec(found)
        found.loader.exec_module(sys.modules[COMPILED])
    return cast(Kernel, sys.modules[COMPILED])


BarsOf = Callable[[Filtration, int, int], Sequence[NDArray[np.floating]]]


def of_kernel(compiled: Kernel) -> BarsOf:
    """Bars by giotto-ph's compiled half, as its own Python half calls it."""

    def bars(apart: Filtration, max_dim: int, threads: int) -> Sequence[NDArray[np.floating]]:
        births = np.zeros(len(apart), np.float32)
        radius = float(apart.max(axis=1).min())
        found = compiled.rips_dm(above_diagonal(apart), births, 2, max_dim, radius, threads, False)
        return [each.reshape(-1, 2) for each in found.births_and_deaths_by_dim()]

    return bars


def above_diagonal(apart: Filtration) -> NDArray[np.float32]:
    """The entries above the diagonal, row by row, shape (m (m - 1) / 2,)."""
    count = len(apart)
    condensed = np.empty(count * (count - 1) // 2, np.float32)
    start = 0
    for row in range(count - 1):
        stop = start + count - 1 - row
        condensed[start:stop] = apart[row, row + 1 :]
        start = stop
    return condensed


def of_wrapper(apart: Filtration, max_dim: int, threads: int) -> Sequence[NDArray[np.floating]]:
    """Bars by giotto-ph's public function, which takes the enclosing radius as threshold by itself."""
    from gph import ripser_parallel

    found: Sequence[NDArray[np.floating]] = ripser_parallel(
        apart, maxdim=max_dim, metric="precomputed", n_threads=threads, return_generators=False
    )["dgms"]
    return found


COLLAPSED = 1_000
"""Points from which GUDHI's edge collapse pays."""


class Gudhi:
    """GUDHI's fork of Ripser. Edge collapse (Boissonnat, Pritam, SoCG 2020) pays for many points: at 2,500 distinct the
    time stays the same, and the memory is a third; at 800 it costs more than it saves once the filtration ends early.
    """

    name = "gudhi"

    def __init__(self) -> None:
        """Import it."""
        from gudhi.sklearn.rips_persistence import RipsPersistence

        self.version = version("gudhi")
        self._persistence = RipsPersistence

    def bars(self, apart: Filtration, max_dim: int, threads: int) -> Sequence[NDArray[np.floating]]:
        """One thread: GUDHI computes a single cloud on one. It takes the enclosing radius as threshold by itself."""
        del threads
        computed = self._persistence(
            homology_dimensions=list(range(max_dim + 1)),
            input_type="full distance matrix",
            num_collapses=int(len(apart) >= COLLAPSED),
            homology_coeff_field=2,
        ).fit_transform([apart])[0]
        return [np.asarray(each, dtype=np.float64).reshape(-1, 2) for each in computed]


BUILT_IN: dict[str, tuple[Callable[[], bool], Callable[[], Engine]]] = {
    "native": (native.available, Native),
    "gudhi": (lambda: bool(find_spec("gudhi")), Gudhi),
    "giotto-ph": (lambda: bool(find_spec("gph")), GiottoPh),
}
"""Whether each is installed, and how it is made."""

INSTALL = "pip install giotto-ph (Python below 3.13) or gudhi"


def pick(name: str | None = None, max_dim: int = 2) -> Engine:
    """The engine of this name, or of `module:attribute`; «auto» or None: the first that is installed.

    Where `native` is asked for more than it computes, the next takes its place. Raises `DoctorError`, in one sentence,
    where it is not there.
    """
    found = located(name, max_dim)
    return BUILT_IN[found][1]() if found in BUILT_IN else imported(found)


def located(name: str | None = None, max_dim: int = 2) -> str:
    """The engine that `pick` would make, without importing it; raises `DoctorError` where it is not there."""
    high = max_dim > Native.highest
    if name in (None, "", "auto") or (name == "native" and high):
        for each in NAMES[high:]:
            if BUILT_IN[each][0]():
                return each
        raise DoctorError(f"no engine for H{max_dim} is installed: {INSTALL}")
    assert name is not None
    if name == "native" and not native.available():
        raise DoctorError(
            "the engine native was not built when the doctor was installed, for lack of a C++20 compiler: "
            "install one and the doctor again, or give --doctor-engine auto"
        )
    if name in BUILT_IN:
        if not BUILT_IN[name][0]():
            raise DoctorError(f"the engine {name} is not installed: pip install {name}")
    elif ":" not in name:
        raise DoctorError(f"there is no engine {name}: give {' or '.join(NAMES)}, or install the plugin that brings it")
    elif not there(top := name.split(":")[0].split(".")[0]):
        raise DoctorError(f"the engine {name} is not there: no module is called {top}")
    return name


def instead(name: str, max_dim: int) -> str | None:
    """A sentence where another engine takes the place of `native`, and why; None where none does."""
    if name not in ("auto", "native") or (found := located(name, max_dim)) == "native":
        return None
    if max_dim > Native.highest:
        return f"diagrams are computed by {found}: native computes H0 to H{Native.highest}, and not H{max_dim}"
    return f"diagrams are computed by {found}, slower: native was not built, for lack of a C++20 compiler"


def fitting(engine: Engine, max_dim: int) -> Engine:
    """The engine, or the next where it does not compute H`max_dim`."""
    return engine if max_dim <= getattr(engine, "highest", max_dim) else pick("auto", max_dim)


def there(module: str) -> bool:
    """Whether the child could import a module: it has the current folder on its path, which this process may not."""
    return module in sys.modules or bool(find_spec(module) or PathFinder.find_spec(module, [str(Path.cwd())]))


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
    equal, has one essential class in H0 and nothing else. Bars of no length are left out. Where `engine` does not
    compute H`max_dim`, the next one does: see `fitting`. Raises `EmptyCloudError` for no point at all, and `ValueError`
    for values that are not finite, or so large that their distances are not.
    """
    if not len(points):
        raise EmptyCloudError("a cloud without a point has no diagram")
    if not np.isfinite(points).all():
        raise ValueError("the cloud holds NaN or infinity")
    merged = merge(points, tolerance)
    if len(merged.points) == 1:
        essential = np.array([[0, np.inf]], np.float32)
        return Diagram((essential, *[in_order([])] * max_dim)), merged
    engine = fitting(engine, max_dim)
    as_they_are = getattr(engine, "as_they_are", False)
    apart = filtration(merged.points) if as_they_are else prepared(merged.points, max_dim)
    found = engine.bars(apart, max_dim, threads)
    return Diagram(tuple(lasting(bars) for bars in found)), merged


def prepared(points: Points, max_dim: int) -> Filtration:
    """The distances of merged points in the order that costs least, ended as early as can be proved."""
    apart = filtration(points)
    end_early(apart, max_dim)
    order = cost_order(apart)
    return apart[np.ix_(order, order)]


def lasting(bars: NDArray[np.floating]) -> Bars:
    """The bars that have a length in float32."""
    rounded = in_order(bars)
    return rounded[rounded[:, 0] < rounded[:, 1]]
