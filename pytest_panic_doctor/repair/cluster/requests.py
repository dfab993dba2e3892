"""Where workers order diagrams that a cluster computes, and get their answers: files in the session's folder.

The one who computes them for all is in the controller, and writes them too; who orders finds them in the database.
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
"""Seconds between two looks for an answer, at first and later."""

SHUTDOWN = "closed"


@dataclass(frozen=True, slots=True)
class DiagramRequest:
    """An order for the diagram of a subject, which `rule` found sick; `key` names the answer."""

    key: str
    rule: str
    subject: Subject


class DiagramRequests:
    """One folder; every process of the session makes its own object of it."""

    def __init__(self, folder: Path, wanted: Callable[[], bool]) -> None:
        """The folder is made where it is missing; `wanted` is asked by those who wait, and ends it when false."""
        self.requests, self.responses, self.records = (folder / name for name in ("orders", "answers", "records"))
        self.wanted = wanted
        for each in (self.requests, self.responses, self.records):
            each.mkdir(parents=True, exist_ok=True)

    def submit_and_wait(self, rule: str, subject: Subject) -> RepairSummary:
        """Order a diagram and wait until it is in the database.

        Raises what kept it from being there, `ComputationFailed` or `RepairFailed`; `Stopped` where it is no longer
        wanted.
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
        """The orders that have come since, the oldest first."""
        found = []
        whole = [path for path in self.requests.iterdir() if not path.suffix]
        for path in sorted(whole, key=lambda path: path.stat().st_mtime):
            plain = json.loads(path.read_text())
            found.append(DiagramRequest(plain["key"], plain["rule"], Subject(**plain["subject"])))
            path.unlink()
        return found

    def respond(self, key: str, answer: RepairSummary | RepairError | ComputationFailed) -> None:
        """Answer one order."""
        write_json(self.responses / key, to_dict(answer))

    def record(self, rule: str, subject: Subject, done: RepairSummary) -> None:
        """Keep what was computed, also where nobody ordered it."""
        write_json(self._record(rule, subject), to_dict(done))

    def recorded(self, rule: str, subject: Subject) -> RepairSummary | None:
        """What was computed for this rule and subject in this session."""
        path = self._record(rule, subject)
        return from_dict(json.loads(path.read_text())) if path.exists() else None

    def _record(self, rule: str, subject: Subject) -> Path:
        parts = (rule, str(subject.run), str(subject.embedding_model))
        return self.records / "-".join(map(safe_file_name, parts))

    def close(self, error: RepairError) -> None:
        """Answer every order, also those to come, with an error."""
        self.respond(SHUTDOWN, error)


def write_json(path: Path, plain: dict[str, object]) -> None:
    """Write a file that is there only when it is whole."""
    with atomic_write(path) as partial:
        partial.write_text(json.dumps(plain))


def to_dict(answer: RepairSummary | RepairError | ComputationFailed) -> dict[str, object]:
    """An answer as plain values."""
    if isinstance(answer, RepairSummary):
        return {"sentence": answer.sentence, "measures": dict(answer.measures)}
    if isinstance(answer, ComputationFailed):
        return {"failed": answer.as_plain()}
    return {"refused": str(answer)}


def from_dict(plain: dict[str, object]) -> RepairSummary:
    """The inverse; raises the failures."""
    if "refused" in plain:
        raise RepairFailed(str(plain["refused"]))
    if "failed" in plain:
        raise ComputationFailed.from_plain(plain["failed"])  # type: ignore[arg-type]
    return RepairSummary(**plain)  # type: ignore[arg-type]
