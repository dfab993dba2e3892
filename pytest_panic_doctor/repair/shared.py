"""Stores the results of repairs that one item makes for another, so that the other item can report them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pytest_panic_doctor.database.files import atomic_write, safe_file_name
from pytest_panic_doctor.database.subject import Subject
from pytest_panic_doctor.examination.examiner import RepairResult
from pytest_panic_doctor.rules.base import Finding


@dataclass(frozen=True, slots=True)
class ResultStore:
    """A folder with one file for each rule and subject that was repaired before its own item."""

    folder: Path

    def save(self, rule: str, subject: Subject, done: RepairResult) -> None:
        """Store a result atomically."""
        path = self.folder / rule / self._name(subject)
        path.parent.mkdir(parents=True, exist_ok=True)
        findings = [finding.as_dict() for finding in done.findings]
        with atomic_write(path) as partial:
            partial.write_text(json.dumps({"note": done.note, "measures": dict(done.measures), "findings": findings}))

    def find(self, rule: str, subject: Subject) -> Iterator[RepairResult]:
        """Yield the results of a rule within a subject; None in one part of the subject stands for any value."""
        for path in sorted((self.folder / rule).glob(self._name(subject, missing="*"))):
            plain = json.loads(path.read_text())
            findings = tuple(map(Finding.from_dict, plain["findings"]))
            yield RepairResult(plain["note"], plain["measures"], findings)

    def _name(self, subject: Subject, missing: str = "") -> str:
        parts = (subject.experiment, subject.run, subject.embedding_model)
        named = ",".join(missing if part is None else safe_file_name(part) for part in parts)
        return f"{named}.json"
