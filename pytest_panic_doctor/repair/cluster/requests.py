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
from pytest_panic_doctor.database.files import as_file_name, whole
from pytest_panic_doctor.database.subject import Subject
from pytest_panic_doctor.errors import Stopped
from pytest_panic_doctor.repair.journal.errors import RepairError, RepairFailed
from pytest_panic_doctor.repair.recompute import Done

LOOK_SOON, LOOK_LATE = 0.01, 0.1
"""Seconds between two looks for an answer, at first and later."""

CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class Wish:
    """An order for the diagram of a subject, which `rule` found sick; `key` names the answer."""

    key: str
    rule: str
    subject: Subject


class Desk:
    """One folder; every process of the session makes its own Desk of it."""

    def __init__(self, folder: Path, wanted: Callable[[], bool]) -> None:
        """The folder is made where it is missing; `wanted` is asked by those who wait, and ends it when false."""
        self.orders, self.answers, self.records = (folder / name for name in ("orders", "answers", "records"))
        self.wanted = wanted
        for each in (self.orders, self.answers, self.records):
            each.mkdir(parents=True, exist_ok=True)

    def order(self, rule: str, subject: Subject) -> Done:
        """Order a diagram and wait until it is in the database.

        Raises what kept it from being there, `ComputationFailed` or `RepairFailed`; `Stopped` where it is no longer
        wanted.
        """
        wish = Wish(f"{os.getpid()}-{token_hex(8)}", rule, subject)
        put(self.orders / wish.key, asdict(wish))
        answer, pause = self.answers / wish.key, LOOK_SOON
        while not answer.exists():
            if not self.wanted():
                raise Stopped("no longer wanted")
            if (self.answers / CLOSED).exists():
                answer = self.answers / CLOSED
                break
            time.sleep(pause)
            pause = min(LOOK_LATE, 1.5 * pause)
        return heard(json.loads(answer.read_text()))

    def taken(self) -> list[Wish]:
        """The orders that have come since, the oldest first."""
        found = []
        whole = [path for path in self.orders.iterdir() if not path.suffix]
        for path in sorted(whole, key=lambda path: path.stat().st_mtime):
            plain = json.loads(path.read_text())
            found.append(Wish(plain["key"], plain["rule"], Subject(**plain["subject"])))
            path.unlink()
        return found

    def answer(self, key: str, answer: Done | RepairError | ComputationFailed) -> None:
        """Answer one order."""
        put(self.answers / key, told(answer))

    def record(self, rule: str, subject: Subject, done: Done) -> None:
        """Keep what was computed, also where nobody ordered it."""
        put(self._record(rule, subject), told(done))

    def recorded(self, rule: str, subject: Subject) -> Done | None:
        """What was computed for this rule and subject in this session."""
        path = self._record(rule, subject)
        return heard(json.loads(path.read_text())) if path.exists() else None

    def _record(self, rule: str, subject: Subject) -> Path:
        parts = (rule, str(subject.run), str(subject.embedding_model))
        return self.records / "-".join(map(as_file_name, parts))

    def close(self, error: RepairError) -> None:
        """Answer every order, also those to come, with an error."""
        self.answer(CLOSED, error)


def put(path: Path, plain: dict[str, object]) -> None:
    """Write a file that is there only when it is whole."""
    with whole(path) as partial:
        partial.write_text(json.dumps(plain))


def told(answer: Done | RepairError | ComputationFailed) -> dict[str, object]:
    """An answer as plain values."""
    if isinstance(answer, Done):
        return {"sentence": answer.sentence, "measures": dict(answer.measures)}
    if isinstance(answer, ComputationFailed):
        return {"failed": answer.as_plain()}
    return {"refused": str(answer)}


def heard(plain: dict[str, object]) -> Done:
    """The inverse; raises the failures."""
    if "refused" in plain:
        raise RepairFailed(str(plain["refused"]))
    if "failed" in plain:
        raise ComputationFailed.from_plain(plain["failed"])  # type: ignore[arg-type]
    return Done(**plain)  # type: ignore[arg-type]
