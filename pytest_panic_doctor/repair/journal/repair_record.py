"""A repair as the journal records it, and its purpose before it is recorded."""

from __future__ import annotations

from dataclasses import dataclass

from pytest_panic_doctor.database.subject import Subject


@dataclass(frozen=True, slots=True)
class Repair:
    """One repair as the journal records it.

    Attributes:
        id: The number that `--doctor-undo` takes.
        rule: The rule that it was made for.
        subject: The subject that it was made for.
        rows: The number of rows that it added, changed or removed.
        bytes: The bytes of these rows.
        verb: quarantine, update, insert or undo.
        status: intended, applied, undone or abandoned.
        time: Its start, in UTC.
        session: The id of its session.
        undoes: The id of the repair that an undo reverted; None if it is not an undo.
    """

    id: int
    rule: str
    subject: Subject
    rows: int
    bytes: int
    verb: str
    status: str
    time: str
    session: str
    undoes: int | None = None


@dataclass(frozen=True, slots=True)
class Intent:
    """What a repair is for, before it has an id. The attributes are those of `Repair`."""

    session: str
    rule: str
    subject: Subject
    verb: str
    undoes: int | None = None
