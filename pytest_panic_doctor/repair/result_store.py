"""Stores the results of repairs that one item makes for another, so that the other item can report them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pytest_panic_doctor.database.files import safe_file_name
from pytest_panic_doctor.database.shared_folder import SharedFolder
from pytest_panic_doctor.database.subject import Subject
from pytest_panic_doctor.examination.examiner import RepairResult
from pytest_panic_doctor.rules.base import Finding


@dataclass(frozen=True, slots=True)
class ResultStore:
    """A document for each rule and subject that was repaired before its own item."""

    shared: SharedFolder

    def save(self, rule: str, subject: Subject, done: RepairResult) -> None:
        """Store a result."""
        self.shared.write(document_name(rule, subject), result_as_plain(done))

    def find(self, rule: str, subject: Subject) -> Iterator[RepairResult]:
        """Yield the results of a rule within a subject; None in one part of the subject stands for any value."""
        for plain in self.shared.find(document_name(rule, subject, missing="*")):
            yield result_from_plain(plain)


def result_as_plain(done: RepairResult) -> dict[str, object]:
    """Return a result as plain values, for another process."""
    findings = [finding.as_dict() for finding in done.findings]
    return {"note": done.note, "measures": dict(done.measures), "findings": findings}


def result_from_plain(plain: dict[str, object]) -> RepairResult:
    """Make a result from what `result_as_plain` returned."""
    findings = tuple(map(Finding.from_dict, plain["findings"]))  # type: ignore[call-overload]
    return RepairResult(plain["note"], plain["measures"], findings)  # type: ignore[arg-type]


def document_name(rule: str, subject: Subject, missing: str = "") -> str:
    """Name of the document of a rule and a subject."""
    parts = (subject.experiment, subject.run, subject.embedding_model)
    return f"results/{rule}/{','.join(missing if part is None else safe_file_name(part) for part in parts)}"
