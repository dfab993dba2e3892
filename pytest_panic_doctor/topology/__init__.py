"""Persistence diagrams: engines, payloads, checks, and `persistence_diagram` for use without pytest."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from pytest_panic_doctor.topology.diagram import Diagram

__all__ = ["persistence_diagram"]


def persistence_diagram(
    points: ArrayLike,
    max_dim: int = 2,
    engine: str = "native",
    threads: int = 1,
    timeout: float | None = None,
    memory: int | None = None,
) -> Diagram:
    """Compute the persistence diagram of a point cloud: Vietoris-Rips, Euclidean, with coefficients in Z/2.

        from pytest_panic_doctor.topology import persistence_diagram

        h0, h1, h2 = persistence_diagram(points).bars

    The diagram is exact with two exceptions. Points closer than 8 float32 ulps of the cloud's diameter are merged,
    which moves no bar by more than twice that distance. Bars whose length rounds to 0 in float32 are left out.

    Args:
        points: Array of shape (n, d), n >= 1, converted to float32. Births and deaths have the unit of the points.
        max_dim: The highest homology dimension. `native` computes up to 2; above that the next engine is used.
        engine: `native`, `gudhi`, `giotto-ph`, or `auto` for the first of these that is installed.
        threads: Threads of giotto-ph; the other engines use one.
        timeout: Limit in seconds, for `native` only; None for no limit.
        memory: Limit in bytes of what the engine allocates beside the 4 n**2 of the distances, for `native` only; None
            for no limit.

    Returns:
        A `Diagram`. Its `bars` are a tuple of float32 arrays of shape (k, 2), births and deaths, one array for each
        dimension from 0 to `max_dim`, sorted by birth and then death; the last bar of H0 dies at infinity. Its
        `entropy` is the persistent entropy of each dimension.

    Raises:
        ValueError: There are no points, the shape is wrong, a value is NaN or infinity, or limits were given for an
            engine other than `native`.
        pytest_panic_doctor.errors.DoctorError: The engine is not installed.
        pytest_panic_doctor.topology.native.LimitReached: `timeout` or `memory` was reached. The message gives the
            progress, such as `in H2, column 1,204 of 1,862`. All memory is freed.
    """
    import numpy as np

    from pytest_panic_doctor.topology.engines import Native, compute, load_engine

    cloud = np.asarray(points, np.float32)
    if cloud.ndim != 2:
        raise ValueError(f"the points have shape {cloud.shape}: give (n, d)")
    if max_dim < 0:
        raise ValueError(f"there is no H{max_dim}: give max_dim of 0 or more")
    chosen = load_engine(engine, max_dim)
    if isinstance(chosen, Native):
        chosen = Native(timeout, memory)
    elif timeout is not None or memory is not None:
        raise ValueError(f"timeout and memory are limits of the engine native, and {chosen.name} would compute")
    return compute(cloud, engine=chosen, max_dim=max_dim, threads=threads)[0]
