"""Requests from workers to the controller for diagrams computed on a cluster, exchanged as files.

The controller computes and writes each diagram; the worker then reads it from the database.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from secrets import token_hex

from pytest_panic_doctor.compute.runner import ComputationFailed
from pytest_panic_doctor.database.files import atomic_write, safe_file_name
from pytest_panic_doctor.database.subject import Subject
from pytest_panic_doctor.errors import Stopped
from pytest_panic_doctor.repair.journal.errors import RepairError, RepairFailed
from pytest_panic_doctor.repair.recompute import RepairSummary

LOOK_SOON, LOOK_LATE = 0.01, 0.1
"""Seconds between two checks for a response, at first and later."""

SHUTDOWN = "closed"
"""The name of the response to all requests, also to later ones."""


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


class DiagramRequests:
    """The folder of requests and responses; each process of the session opens its own object."""

    def __init__(self, folder: Path, wanted: Callable[[], bool]) -> None:
        """Open the folder, and create it if it is missing.

        Args:
            folder: The scratch folder of the session.
            wanted: Whether the session is still active; waiting ends when it is not.
        """
        self.requests, self.responses, self.records = (folder / name for name in ("orders", "answers", "records"))
        self.wanted = wanted
        for each in (self.requests, self.responses, self.records):
            each.mkdir(parents=True, exist_ok=True)

    def submit_and_wait(self, rule: str, subject: Subject) -> RepairSummary:
        """Request a diagram and wait until it is in the database.

        Raises:
            ComputationFailed: The diagram could not be computed.
            RepairFailed: The diagram could not be written, or the cluster was lost.
            Stopped: The session has ended.
        """
        request = DiagramRequest(f"{os.getpid()}-{token_hex(8)}", rule, subject)
        write_json(self.requests / request.key, asdict(request))
        answer, pause = self.responses / request.key, LOOK_SOON
        while not answer.exists():
            if not self.wanted():
                raise Stopped("no longer wanted")
            if (self.responses / SHUTDOWN).exists():
                answer = self.responses / SHUTDOWN
                break
            time.sleep(pause)
            pause = min(LOOK_LATE, 1.5 * pause)
        return from_dict(json.loads(answer.read_text()))

    def pending(self) -> list[DiagramRequest]:
        """Return the requests that have arrived since the last call, the oldest first."""
        found = []
        whole = [path for path in self.requests.iterdir() if not path.suffix]
        for path in sorted(whole, key=lambda path: path.stat().st_mtime):
            plain = json.loads(path.read_text())
            found.append(DiagramRequest(plain["key"], plain["rule"], Subject(**plain["subject"])))
            path.unlink()
        return found

    def respond(self, key: str, answer: RepairSummary | RepairError | ComputationFailed) -> None:
        """Respond to one request."""
        write_json(self.responses / key, to_dict(answer))

    def record(self, rule: str, subject: Subject, done: RepairSummary) -> None:
        """Store the result of a diagram, even if no worker has requested it."""
        write_json(self._record(rule, subject), to_dict(done))

    def recorded(self, rule: str, subject: Subject) -> RepairSummary | None:
        """Return the stored result of a rule and subject; None if there is none."""
        path = self._record(rule, subject)
        return from_dict(json.loads(path.read_text())) if path.exists() else None

    def _record(self, rule: str, subject: Subject) -> Path:
        parts = (rule, str(subject.run), str(subject.embedding_model))
        return self.records / "-".join(map(safe_file_name, parts))

    def close(self, error: RepairError) -> None:
        """Respond to every request, also to later ones, with an error."""
        self.respond(SHUTDOWN, error)


def write_json(path: Path, plain: dict[str, object]) -> None:
    """Write a file atomically."""
    with atomic_write(path) as partial:
        partial.write_text(json.dumps(plain))


def to_dict(answer: RepairSummary | RepairError | ComputationFailed) -> dict[str, object]:
    """Return a response as plain values."""
    if isinstance(answer, RepairSummary):
        return {"sentence": answer.sentence, "measures": dict(answer.measures)}
    if isinstance(answer, ComputationFailed):
        return {"failed": answer.as_plain()}
    return {"refused": str(answer), "blocked_by": list(answer.blocked_by)}


def from_dict(plain: dict[str, object]) -> RepairSummary:
    """Return the result of a response; the inverse of `to_dict`.

    Raises:
        RepairFailed: The response is a failed repair.
        ComputationFailed: The response is a failed computation.
    """
    if "refused" in plain:
        raise RepairFailed(str(plain["refused"]), blocked_by=plain["blocked_by"])  # type: ignore[arg-type]
    if "failed" in plain:
        raise ComputationFailed.from_plain(plain["failed"])  # type: ignore[arg-type]
    return RepairSummary(**plain)  # type: ignore[arg-type]
