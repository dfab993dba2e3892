"""Persistence diagrams: of the database's point clouds, and for whoever only wants diagrams, `persistence_diagram`."""

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
    """The persistence diagram of a point cloud: its Vietoris-Rips filtration, Euclidean, with coefficients in Z/2.

        from pytest_panic_doctor.topology import persistence_diagram

        h0, h1, h2 = persistence_diagram(points).bars

    It is exact, up to this: points closer than 8 float32 ulps of the cloud's diameter are taken for one, which moves no
    bar by more than twice that; and bars that float32 cannot tell from nothing are left out.

    Args:
        points: shape (n, d), n >= 1, in units of your own, which births and deaths are in too; taken as float32.
        max_dim: the highest homology dimension. `native` computes up to 2; above that the next engine takes its place.
        engine: `native`, `gudhi`, `giotto-ph`, or `auto`, which is the first of these that is installed.
        threads: of giotto-ph; the others use one.
        timeout: seconds that the engine may take, of `native` only; None for no limit.
        memory: bytes that the engine may allocate beside the 4 n**2 of the distances, of `native` only; None for no
            limit.

    Returns:
        A `Diagram`. Its `bars` are a tuple of float32 arrays of shape (k, 2), births and deaths, one array for each
        dimension from 0 to `max_dim`, sorted by birth and then death; the last bar of H0 dies at infinity. Its
        `entropy` is their persistent entropy.

    Raises:
        ValueError: no points, another shape, NaN or infinity, or limits for an engine that knows none.
        pytest_panic_doctor.errors.DoctorError: the engine is not installed.
        pytest_panic_doctor.topology.native.LimitReached: `timeout` or `memory` was reached; the text says how far it
            came, as in `in H2, column 1,204 of 1,862`. Everything is freed.
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
