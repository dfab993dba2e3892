"""What runs on a node of the cluster: one diagram, in a watched child as on one machine. Does not import Ray."""

from __future__ import annotations

import platform
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pytest_panic_doctor.compute.budget import GRANT_MARGIN, MOST_HEADROOM, Budget
from pytest_panic_doctor.compute.runner import DiagramRunner
from pytest_panic_doctor.compute.task import ComputationFailed, Task
from pytest_panic_doctor.formatting import doctor_version
from pytest_panic_doctor.topology.cloud import Points

WORKER = 130_000_000
"""Bytes of a Ray worker with the watching process, without the child; measured: 92 MB idle, 112 MB busy."""

TaskAnswer = tuple[dict[str, object], list[NDArray[np.float32]]]
"""Header, and the bars of each homology dimension."""


@dataclass(frozen=True, slots=True)
class TaskSpec:
    """A diagram to compute of merged points.

    Attributes:
        label: Name of the diagram.
        stored: Number of points before merging.
        max_dim: The highest homology dimension.
        engine: Name of the engine.
        threads: Threads of the engine.
        memory: Limit in bytes.
        timeout: Limit in seconds; None for no limit.
        doctor: Version of this package.
    """

    label: str
    stored: int
    max_dim: int
    engine: str
    threads: int
    memory: int
    timeout: float | None
    doctor: str = field(default_factory=doctor_version)

    def as_plain(self) -> dict[str, object]:
        """Plain values, to send to the cluster."""
        return asdict(self)


def memory_request(child: int) -> int:
    """Bytes that a task requests so that its child can grow to `child` bytes."""
    return int((child + WORKER + 2 * GRANT_MARGIN) / (1 - MOST_HEADROOM))


def run_task(plain: dict[str, object], points: Points, folders: Sequence[str]) -> TaskAnswer:
    """Compute the diagram on a node.

    The points are merged already, so the tolerance is 0. Failures that a user can cause are returned, not raised,
    because Ray would wrap an exception.

    Args:
        plain: A `TaskSpec` as plain values.
        points: The merged points, float32, shape (m, d).
        folders: Folders in which to look for a user's engine, if the node has them.

    Returns:
        The header of kind done and the bars, or the header of kind failed.
    """
    sys.path.extend(folder for folder in folders if folder not in sys.path and Path(folder).is_dir())
    spec = TaskSpec(**plain)  # type: ignore[arg-type]
    if spec.doctor != (here := doctor_version()):
        return failure_header(
            ComputationFailed(
                f"the node {platform.node()} has pytest-panic-doctor {here} and not {spec.doctor}",
                "refused",
                advice="install the same on every node",
            )
        ), []
    scratch = Path(tempfile.mkdtemp(prefix="panic-doctor-task-"))
    try:
        budget = Budget(scratch, spec.memory)
        with DiagramRunner(spec.engine, spec.threads, budget=budget, timeout=spec.timeout) as runner:
            task = Task(np.array(points), spec.label, spec.max_dim, tolerance=0.0, stored=spec.stored)
            computed = runner.compute(task)
    except ComputationFailed as failure:
        return failure_header(failure), []
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    header = {
        "kind": "done",
        "engine": computed.engine,
        "version": computed.engine_version,
        "seconds": computed.seconds,
        "peak": computed.peak_memory,
    }
    return header, list(computed.diagram.bars)


def failure_header(failure: ComputationFailed) -> dict[str, object]:
    """Header of the answer for a failure."""
    return {"kind": "failed"} | failure.as_plain()
