"""Compute the diagram of a stored cloud again during an examination, with the engine `native`, in this process."""

from __future__ import annotations

from pytest_panic_doctor.compute.task import describe_diagram
from pytest_panic_doctor.database.memory_room import MemoryRoom
from pytest_panic_doctor.topology.cloud import Points, fingerprint, merge
from pytest_panic_doctor.topology.diagram import Diagram
from pytest_panic_doctor.topology.native import MemoryReached, is_built
from pytest_panic_doctor.topology.payload import Payload
from pytest_panic_doctor.topology.threads import one_thread

HIGHEST = 2
"""The highest homology dimension that is computed again."""

NOT_BUILT = (
    "the engine native was not built when the doctor was installed, since there was no C++20 compiler, and no other "
    "computes within an examination"
)

COPIES = 6
"""Maximum number of copies of a cloud in memory while distances are computed: float32, float64, and merged."""


def own(payload: Payload, points: Points) -> bool:
    """Whether the plugin itself computed a diagram of these very points, by its fingerprint and its checksum."""
    known = payload.provenance
    return (
        known is not None and known.fingerprint == fingerprint(points) and known.bars_sha256 == payload.diagram.sha256
    )


def why_not_computable() -> str:
    """Explain why nothing can be computed again here; empty if it can."""
    return "" if is_built() else NOT_BUILT


def compute_again(points: Points, space: MemoryRoom, timeout: float | None = None) -> Diagram:
    """Compute the diagram of a cloud, H0 to H2.

    Args:
        points: float32, shape (n, d).
        space: The memory limit, distances included.
        timeout: Seconds; None for no limit.

    Returns:
        The diagram.

    Raises:
        TooLarge: It does not fit into `space`; the message says at which stage.
        DeadlineReached: It took longer than `timeout`; the message says at which stage.
        KeyboardInterrupt: Ctrl-C.
    """
    from pytest_panic_doctor.topology.engines import Native, compute

    with one_thread():
        # What is merged once is not merged further.
        cloud = points if matrix(points) < space.bytes // 2 else merge(points).points
        left = space.bytes - matrix(cloud) - COPIES * points.nbytes
        what = describe_diagram(len(points))
        if left <= 0:
            raise space.too_large(f"what {what} needs", space.bytes - left, space.bytes)
        try:
            return compute(cloud, engine=Native(timeout, left), max_dim=HIGHEST)[0]
        except MemoryReached as reached:
            raise space.too_large_unsized(f"{what} {reached}", left) from reached


def matrix(points: Points) -> int:
    """Return the size of the distance matrix in bytes."""
    return 4 * len(points) ** 2
