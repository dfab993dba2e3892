"""Requests from workers to the controller for diagrams computed on a cluster, exchanged as documents.

The controller computes and writes each diagram; the worker then reads it from the database.
"""

from __future__ import annotations

import os
import time
from dataclasses import asdict, dataclass, field
from datetime import datetime
from secrets import token_hex

from pytest_panic_doctor.compute.task import ComputationFailed
from pytest_panic_doctor.database.shared_folder import SharedFolder
from pytest_panic_doctor.database.subject import Subject
from pytest_panic_doctor.errors import Stopped
from pytest_panic_doctor.examination.examiner import RepairResult
from pytest_panic_doctor.repair import recompute
from pytest_panic_doctor.repair.journal.errors import RepairError, RepairFailed
from pytest_panic_doctor.repair.recompute import DiagramSnapshot, Precondition
from pytest_panic_doctor.repair.result_store import result_as_plain, result_from_plain
from pytest_panic_doctor.topology.staleness import why_stale

LOOK_SOON, LOOK_LATE = 0.01, 0.1
"""Seconds between two checks for a response, at first and later."""

SHUTDOWN = "closed"
"""The name of the response to all requests, also to later ones."""

MISSING, INVALID, STALE, EXACT = "diagram-missing", "diagram-valid", "diagram-current", "diagram-exact"
"""The ids of the rules whose repair computes a diagram."""


@dataclass(frozen=True, slots=True)
class DiagramRequest:
    """A request for the diagram of a subject.

    Attributes:
        key: The name of the response.
        rule: The rule that found the diagram defective.
        subject: The run and the embedding model.
    """

    key: str
    rule: str
    subject: Subject


@dataclass(frozen=True, slots=True)
class DiagramRequests:
    """The requests and responses in the folder of the session; each process opens its own object."""

    shared: SharedFolder

    def submit_and_wait(self, rule: str, subject: Subject) -> RepairResult:
        """Request a diagram and wait until it is in the database.

        Raises:
            ComputationFailed: The diagram could not be computed.
            RepairFailed: The diagram could not be written, or the cluster was lost.
            Stopped: The session has ended.
        """
        key = f"{os.getpid()}-{token_hex(8)}"
        self.shared.write(f"requests/{key}", asdict(DiagramRequest(key, rule, subject)))
        pause = LOOK_SOON
        while not (answer := self.shared.read(f"responses/{key}") or self.shared.read(f"responses/{SHUTDOWN}")):
            if not self.shared.is_active():
                raise Stopped("no longer wanted")
            time.sleep(pause)
            pause = min(LOOK_LATE, 1.5 * pause)
        return from_dict(answer)

    def pending(self) -> list[DiagramRequest]:
        """Return the requests that have arrived since the last call, the oldest first."""
        return [
            DiagramRequest(str(plain["key"]), str(plain["rule"]), Subject(**plain["subject"]))  # type: ignore[arg-type]
            for plain in self.shared.take("requests/*")
        ]

    def respond(self, key: str, answer: RepairResult | RepairError | ComputationFailed) -> None:
        """Respond to one request."""
        self.shared.write(f"responses/{key}", to_dict(answer))

    def close(self, error: RepairError) -> None:
        """Respond to every request, also to later ones, with an error."""
        self.respond(SHUTDOWN, error)


def to_dict(answer: RepairResult | RepairError | ComputationFailed) -> dict[str, object]:
    """Return a response as plain values."""
    if isinstance(answer, RepairResult):
        return result_as_plain(answer)
    if isinstance(answer, ComputationFailed):
        return {"failed": answer.as_plain()}
    return {"refused": str(answer), "blocked_by": list(answer.blocked_by)}


def from_dict(plain: dict[str, object]) -> RepairResult:
    """Return the result of a response; the inverse of `to_dict`.

    Raises:
        RepairFailed: The response is a failed repair.
        ComputationFailed: The response is a failed computation.
    """
    if "refused" in plain:
        raise RepairFailed(str(plain["refused"]), blocked_by=plain["blocked_by"])  # type: ignore[arg-type]
    if "failed" in plain:
        raise ComputationFailed.from_plain(plain["failed"])  # type: ignore[arg-type]
    return result_from_plain(plain)


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
    return STALE if why_stale(codec.decode(payloads[0]), seen.cloud.points) else None
