"""A diagram to compute on a cluster: what is known of it before, on the way, and after."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from pytest_panic_doctor.compute.ray.packing import ResourceRequest
from pytest_panic_doctor.compute.runner import describe_diagram
from pytest_panic_doctor.database.subject import Subject
from pytest_panic_doctor.repair import recompute
from pytest_panic_doctor.repair.recompute import DiagramSnapshot, Precondition
from pytest_panic_doctor.topology.payload import decode
from pytest_panic_doctor.topology.staleness import why_stale
from pytest_panic_doctor.topology.threads import one_thread

MISSING, INVALID, STALE, EXACT = "diagram-missing", "diagram-valid", "diagram-current", "diagram-exact"

Pair = tuple[str, str]


@dataclass(slots=True)
class Job:
    """A diagram to compute, for the rule in whose name it is written; `orders` are the keys of those who wait for it.

    `memory` is what it has to be given at least, after it outgrew less; `lost` says how it was lost each time.
    """

    rule: str
    subject: Subject
    requests: list[str] = field(default_factory=list)
    memory: int = 0
    changes: int = 0
    lost: list[str] = field(default_factory=list)

    @property
    def pair(self) -> Pair:
        """Its run and embedding model."""
        return str(self.subject.run), str(self.subject.embedding_model)


@dataclass(frozen=True, slots=True)
class SubmittedTask:
    """A job that is on the cluster, without its points."""

    job: Job
    before: Precondition
    distinct: int
    tolerance: float
    resources: ResourceRequest
    begun: datetime

    @property
    def said(self) -> str:
        """`the diagram of 2,423 points`."""
        return describe_diagram(self.before.points)


@dataclass(frozen=True, slots=True)
class ComputeOptions:
    """How diagrams are computed: dimension, engine, seconds for each, and bytes that none may exceed."""

    max_dim: int
    engine: str
    timeout: float | None
    most_memory: int | None


def failing_rule(seen: DiagramSnapshot) -> str | None:
    """The rule that finds a single diagram sick, as the rules themselves do; None where none does."""
    payloads = [diagram.payload for diagram in seen.diagrams]
    if all(payload is None for payload in payloads):
        return MISSING
    if len(payloads) != 1 or payloads[0] is None:
        return None
    if not recompute.valid(payloads[0]):
        return INVALID
    with one_thread():
        return STALE if why_stale(decode(payloads[0]), seen.cloud.points) else None
