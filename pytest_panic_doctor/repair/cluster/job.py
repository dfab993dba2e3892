"""A diagram that is computed on a cluster: its job, and the task that was submitted for it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from pytest_panic_doctor.database.subject import Subject
from pytest_panic_doctor.repair import recompute
from pytest_panic_doctor.repair.recompute import DiagramSnapshot, Precondition
from pytest_panic_doctor.topology.staleness import why_stale
from pytest_panic_doctor.topology.threads import one_thread

MISSING, INVALID, STALE, EXACT = "diagram-missing", "diagram-valid", "diagram-current", "diagram-exact"
"""The ids of the rules whose repair computes a diagram."""


@dataclass(slots=True)
class Job:
    """A diagram to compute.

    Attributes:
        rule: The rule that the repair is recorded for.
        subject: The run and the embedding model.
        requests: The keys of the requests that wait for it.
        memory: The least bytes that its next task is given, after one with less ran out of memory.
        changes: How often its embeddings changed during the computation.
    """

    rule: str
    subject: Subject
    requests: list[str] = field(default_factory=list)
    memory: int = 0
    changes: int = 0


@dataclass(frozen=True, slots=True)
class SubmittedTask:
    """A job that was submitted to the cluster; its points are freed.

    Attributes:
        job: The job.
        before: What must still hold when the diagram is written.
        distinct: The number of distinct points.
        tolerance: The distance up to which points were merged.
        threads: The cores that were requested.
        memory: The bytes that were requested.
        begun: The time of the submission.
    """

    job: Job
    before: Precondition
    distinct: int
    tolerance: float
    threads: int
    memory: int
    begun: datetime


@dataclass(frozen=True, slots=True)
class ComputeOptions:
    """How diagrams are computed.

    Attributes:
        engine: The place of the engine.
        timeout: Seconds for each diagram; None for no limit.
        most_memory: Bytes that no task may exceed; None for no limit.
    """

    engine: str
    timeout: float | None
    most_memory: int | None


def failing_rule(seen: DiagramSnapshot) -> str | None:
    """Return the rule that a stored diagram fails, as the rules themselves decide.

    Returns:
        The id of the rule; None if the diagram is healthy, or if there are several diagrams.
    """
    payloads = [diagram.payload for diagram in seen.diagrams]
    if all(payload is None for payload in payloads):
        return MISSING
    if len(payloads) != 1 or payloads[0] is None:
        return None
    codec = seen.generation.codec()
    if not recompute.valid(payloads[0], codec):
        return INVALID
    with one_thread():
        return STALE if why_stale(codec.decode(payloads[0]), seen.cloud.points) else None
