"""Finds what a repair changes: the rows that a quarantine takes, and the target of a diagram."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Mapping
from functools import partial

from pytest_panic_doctor.database import clouds
from pytest_panic_doctor.database.connection import data_version
from pytest_panic_doctor.database.subject import Rows, Subject
from pytest_panic_doctor.examination.running import Running
from pytest_panic_doctor.repair import duplicates
from pytest_panic_doctor.repair.journal.errors import RepairFailed
from pytest_panic_doctor.repair.journal.tables import generation_of_file
from pytest_panic_doctor.repair.recompute import BusyCheck, DiagramTarget, never_busy
from pytest_panic_doctor.rules.base import Finding, Kind, RepairKind
from pytest_panic_doctor.topology.diagram import Diagram

QUARANTINES = (RepairKind.QUARANTINE, RepairKind.KEEP_NEWEST, RepairKind.KEEP_CURRENT)
"""The kinds of repair that quarantine rows."""

NO_ROWS = "the rule names no rows to quarantine"
"""The reason if a finding has no rows."""


def not_repairable_reason(findings: Iterable[Finding]) -> str:
    """Return why a repair takes none of the rows of some findings."""
    reasons = [each.not_repaired for each in findings]
    return "; ".join(dict.fromkeys(filter(None, reasons))) or NO_ROWS


def rows_to_quarantine(
    db: sqlite3.Connection,
    kind: RepairKind | None,
    subject: Subject,
    findings: Iterable[Finding],
    kinds: Mapping[str, Kind],
    right: Diagram | None = None,
) -> list[Rows]:
    """Return the rows to quarantine, as one query for each quarantine.

    Args:
        db: The database.
        kind: The kind of repair.
        subject: The subject of the item.
        findings: What the rule found.
        kinds: What each embedding model embeds.
        right: The computed diagram of the cloud, if it was needed for the decision.
    """
    if kind is RepairKind.KEEP_CURRENT:
        pairs = duplicates.surplus_diagrams(db, diagram_target(db, subject, kinds), right)
        return [duplicates.rows("persistencediagram", pairs)]
    found = [finding.rows for finding in findings if finding.rows]
    if kind is RepairKind.KEEP_NEWEST:
        width = clouds.vector_width(db, str(subject.experiment), str(subject.embedding_model))
        return [duplicates.rows("embedding", duplicates.surplus_embeddings(db, rows, width)) for rows in found]
    return found


def undecided(db: sqlite3.Connection, subject: Subject, kinds: Mapping[str, Kind]) -> bool:
    """Return whether several diagrams of a subject are current and differ, so that the cloud must decide.

    Raises:
        RepairFailed: They differ, and the cloud cannot decide.
    """
    place = diagram_target(db, subject, kinds)
    cloud = duplicates.load_target_cloud(db, place)
    found = duplicates.doubt(db, place, cloud)
    if reason := duplicates.unsure(db, place, cloud, found):
        raise RepairFailed(reason, blocked_by=cloud.blocks)
    return found.current


def other_choices(db: sqlite3.Connection, subject: Subject, kinds: Mapping[str, Kind]) -> list[Rows]:
    """Return what would be quarantined instead if embeddings are repaired first; empty if the decision is final."""
    others = duplicates.surplus_if_other(db, diagram_target(db, subject, kinds))
    return [duplicates.rows("persistencediagram", pairs) for pairs in others]


class Widths:
    """The widths of vectors, each found once as long as nobody writes to the database."""

    def __init__(self) -> None:
        """Know none yet."""
        self._state: tuple[int, int] = (0, 0)
        self._known: dict[tuple[str, str], int] = {}

    def __call__(self, db: sqlite3.Connection, experiment: str, model: str) -> int:
        """Return the same as `clouds.vector_width`."""
        if (state := (id(db), data_version(db))) != self._state:
            self._state, self._known = state, {}
        if (experiment, model) not in self._known:
            self._known[experiment, model] = clouds.vector_width(db, experiment, model)
        return self._known[experiment, model]


def diagram_target(
    db: sqlite3.Connection,
    subject: Subject,
    kinds: Mapping[str, Kind],
    running: Running | None = None,
    width_of: Callable[[sqlite3.Connection, str, str], int] = clouds.vector_width,
) -> DiagramTarget:
    """Return the target of the diagram of a subject; `width_of` finds the width of an experiment and a model."""
    run, model = str(subject.run), str(subject.embedding_model)
    width = width_of(db, str(subject.experiment), model)
    return DiagramTarget(run, model, kinds.get(model), width, busy_with(running, subject), generation_of_file(db))


def busy_with(running: Running | None, subject: Subject) -> BusyCheck:
    """Return a function that says why nothing is embedded or computed for a subject now."""
    return partial(running.clause, experiment=subject.experiment) if running else never_busy
