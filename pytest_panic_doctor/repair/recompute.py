"""Computes a diagram and writes it, if nothing has changed since its cloud was read."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING

from pytest_panic_doctor.compute.task import Task
from pytest_panic_doctor.database import clouds
from pytest_panic_doctor.database.connection import Database, SharedMemo
from pytest_panic_doctor.database.files import safe_file_name
from pytest_panic_doctor.database.generation import Codec, Generation
from pytest_panic_doctor.database.subject import Subject
from pytest_panic_doctor.examination.examiner import RepairResult
from pytest_panic_doctor.formatting import doctor_version
from pytest_panic_doctor.repair.journal.errors import RepairFailed
from pytest_panic_doctor.repair.journal.writer import Change
from pytest_panic_doctor.rules.base import Kind, Rule, RuleContext
from pytest_panic_doctor.rules.diagram import cloud_of, forbidden
from pytest_panic_doctor.topology.cloud import fingerprint
from pytest_panic_doctor.topology.diagram_comparison import have_same_bars
from pytest_panic_doctor.topology.payload import PayloadError, Provenance
from pytest_panic_doctor.topology.staleness import why_stale
from pytest_panic_doctor.topology.validation import problems

if TYPE_CHECKING:
    from pytest_panic_doctor.compute.runner import DiagramRunner
    from pytest_panic_doctor.compute.task import Computed
    from pytest_panic_doctor.examination.running_experiments import Running
    from pytest_panic_doctor.repair.journal.repair_record import Repair
    from pytest_panic_doctor.repair.journal.tables import Value
    from pytest_panic_doctor.repair.journal.writer import Writer

TRIES = 3
"""How often a diagram is computed again because its embeddings changed during the computation."""

EMBEDDINGS_KEEP_CHANGING = (
    f"the embeddings changed {TRIES} times while the diagram was computed: run again when they are at rest"
)
"""The reason if every attempt was overtaken."""

BY_ANOTHER = RepairResult("another worker computed it")
"""The result if the diagram is healthy already."""
REWRITTEN = RepairResult("rewrote the payload so that the research tool reads it; its bars are as they were")
"""The result if only the format of the payload was changed."""


def valid(payload: bytes | None, codec: Codec) -> bool:
    """Return whether a payload can be decoded and satisfies every diagram invariant."""
    if payload is None:
        return False
    try:
        return not problems(codec.decode(payload))
    except PayloadError:
        return False


def current_and_valid(payload: bytes | None, cloud: clouds.StoredCloud, codec: Codec) -> bool:
    """Return whether a payload is valid, and the diagram of the cloud."""
    if payload is None or not cloud.complete or not valid(payload, codec):
        return False
    return not why_stale(codec.decode(payload), cloud.points)


@dataclass(frozen=True, slots=True)
class Precondition:
    """What must still hold when a diagram is written.

    Attributes:
        subject: The run and the embedding model.
        width: The number of components of the model's vectors.
        fingerprint: The fingerprint of the cloud.
        points: The number of points of the cloud.
        diagrams: The ids of the diagrams of the subject.
        generation: The generation of the file.
    """

    subject: Subject
    width: int
    fingerprint: str
    points: int
    diagrams: tuple[str, ...]
    generation: Generation = field(compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class DiagramSnapshot:
    """The cloud and the diagrams of a subject, read in one transaction.

    Attributes:
        subject: The run and the embedding model.
        cloud: Its cloud.
        diagrams: Its diagrams.
        forbidden: What is damaged in the rows above them, as clauses; empty if a diagram may be computed.
        busy: Why nothing is written now; empty if writing is allowed.
        generation: The generation of the file.
    """

    subject: Subject
    cloud: clouds.StoredCloud
    diagrams: tuple[clouds.StoredDiagram, ...]
    forbidden: str
    busy: str
    generation: Generation

    @property
    def before(self) -> Precondition:
        """What must still hold when the diagram is written."""
        points = self.cloud.points
        ids = tuple(diagram.id for diagram in self.diagrams)
        return Precondition(
            self.subject, points.shape[1], fingerprint(points), len(points), ids, generation=self.generation
        )

    @property
    def healthy(self) -> bool:
        """Whether there is nothing to compute: another worker may have been faster."""
        return len(self.diagrams) == 1 and current_and_valid(
            self.diagrams[0].payload, self.cloud, self.generation.codec()
        )

    def has_bars_of(self, computed: Computed) -> bool:
        """Return whether the first diagram, which is valid, has the bars of a computed one."""
        payload = self.generation.codec().decode(self.diagrams[0].payload or b"")
        return have_same_bars(payload.diagram, computed.diagram)

    def task(self, max_dim: int) -> Task:
        """Return the computation of the diagram."""
        return Task(self.cloud.points, label=" ".join(self.subject.target), max_dim=max_dim)


def snapshot(context: RuleContext, busy: str, width: int | None = None) -> DiagramSnapshot:
    """Read the cloud and the diagrams of a subject.

    Args:
        context: The database and the subject.
        busy: Why nothing is written now; empty if writing is allowed.
        width: The number of components of the model's vectors, if it is known.
    """
    cloud = cloud_of(context, width)
    diagrams = tuple(clouds.iterate_diagrams(context.db, context.subject.target))
    codec = context.generation.codec()
    damage = forbidden(context, replacing=any(valid(each.payload, codec) for each in diagrams))
    return DiagramSnapshot(context.subject, cloud, diagrams, damage, busy, context.generation)


@dataclass(frozen=True, slots=True)
class RepairContext:
    """What all repairs of one database share; reads its diagrams, and writes them if nothing has changed since.

    Attributes:
        database: Reads the database.
        writer: Writes the repairs.
        kinds: What each embedding model embeds.
        running: Tells which experiments are running, so that nothing is embedded or computed for them; None if none is.
        max_dim: The highest homology dimension.
        memo: What is known of the state that `database` reads.
    """

    database: Database
    writer: Writer
    kinds: Mapping[str, Kind]
    running: Running | None = None
    max_dim: int = 2
    memo: SharedMemo = field(default_factory=SharedMemo)

    def context(self, db: sqlite3.Connection, rule: str, subject: Subject) -> RuleContext:
        """Return the context in which a rule examines a subject."""
        return RuleContext(db, rule, subject, self.kinds)

    def busy(self, db: sqlite3.Connection, subject: Subject) -> str:
        """Return why nothing is embedded or computed for a subject now; empty if writing is allowed."""
        return self.running.clause(db, subject.experiment) if self.running else ""

    def snapshot(self, subject: Subject) -> DiagramSnapshot:
        """Read the cloud and the diagrams of a subject."""

        def look(db: sqlite3.Connection) -> DiagramSnapshot:
            return snapshot(RuleContext(db, "", subject, self.kinds, self.memo.of(db)), self.busy(db, subject))

        return self.database.read(look)

    def unchanged(self, before: Precondition, db: sqlite3.Connection) -> DiagramSnapshot | None:
        """Return what there is now; None if nothing may be written, or the precondition does not hold any more."""
        context = RuleContext(db, "", before.subject, self.kinds, {"generation": before.generation})
        now = snapshot(context, self.busy(db, before.subject), before.width)
        return now if not now.busy and now.before == before else None

    def rewrite(self, rule: str, seen: DiagramSnapshot, payload: bytes) -> bool:
        """Write the payload of the only diagram again, without a computation.

        Returns:
            False if something has changed since the snapshot.
        """

        def unchanged(db: sqlite3.Connection) -> bool:
            now = self.unchanged(seen.before, db)
            return now is not None and now.diagrams == seen.diagrams

        values: dict[str, Value] = {"diagram_data": payload}
        table, row = "persistencediagram", seen.diagrams[0].id
        return self.writer.update(rule, seen.subject, table, row, values, unchanged) is not None

    def write(self, rule: str, before: Precondition, begun: datetime, computed: Computed) -> bool:
        """Write a diagram; return false if the cloud or the diagrams have changed since the snapshot."""
        return self.writer.write([self.change(rule, before, begun, computed)])[0] is not None

    def change(self, rule: str, before: Precondition, begun: datetime, computed: Computed) -> Change:
        """What puts the diagram in its place, unless the cloud or the diagrams are no longer those that were seen."""
        provenance = Provenance(
            fingerprint=before.fingerprint,
            points=before.points,
            distinct=computed.distinct,
            tolerance=computed.tolerance,
            engine=computed.engine,
            engine_version=computed.engine_version,
            max_dim=self.max_dim,
            seconds=round(computed.seconds, 3),
            peak_memory=computed.peak_memory,
            doctor_version=doctor_version(),
        )

        def unchanged(db: sqlite3.Connection) -> bool:
            now = self.unchanged(before, db)
            return now is not None and now.cloud.complete

        generation = before.generation
        values: dict[str, Value] = {
            "started_at": generation.stamp(begun),
            "completed_at": generation.stamp(datetime.now()),
            "diagram_data": generation.codec().encode(computed.diagram, provenance),
        }
        if not before.diagrams:
            run, model = before.subject.target
            values = {"id": generation.new_id(), "run_id": run, "embedding_model": model, **values}
        old = before.diagrams[0] if before.diagrams else None
        return Change(rule, before.subject, "persistencediagram", values, unchanged, old)


def recompute(
    repairs: RepairContext,
    runner: DiagramRunner,
    claim: Callable[[str], AbstractContextManager[object]],
    rule: Rule,
    subject: Subject,
    together: Callable[[Change], Repair | None] | None = None,
) -> RepairResult:
    """Compute the diagram of a subject and write it.

    The transaction begins after the computation, and writes only if the cloud's fingerprint and the diagrams are
    unchanged. For a deep rule the diagram is computed even if the stored one seems healthy, and written if the bars
    differ.

    Args:
        repairs: Reads the cloud, and writes the diagram.
        runner: Computes it.
        claim: Locks the diagram against the other workers.
        rule: The rule that the repair is recorded for.
        subject: The run and the embedding model.
        together: Writes the change, and others that later items would request; None to write it alone.

    Returns:
        What was done.

    Raises:
        RepairFailed: The cloud cannot be computed, or changes faster than it is computed.
        ComputationFailed: The computation failed.
    """
    with claim(claimed(subject)):
        for tried in range(TRIES):
            seen = repairs.snapshot(subject)
            if seen.healthy and not rule.deep:
                return BY_ANOTHER
            if not rule.deep and (payload := readable(seen)):
                if repairs.rewrite(rule.id, seen, payload):
                    return REWRITTEN
                continue
            check_computable(seen)
            begun = datetime.now()
            computed = runner.compute(seen.task(repairs.max_dim))
            if rule.deep and seen.healthy and seen.has_bars_of(computed):
                return RepairResult(f"its bars are those that {computed.engine} computes, so that it was kept")
            mine = repairs.change(rule.id, seen.before, begun, computed)
            if together(mine) if together and not tried else repairs.writer.write([mine])[0]:
                return computed_result(len(seen.cloud.points), computed)
    raise RepairFailed(EMBEDDINGS_KEEP_CHANGING)


def claimed(subject: Subject) -> str:
    """Return the name of the lock of a diagram."""
    return "-".join(map(safe_file_name, subject.target))


def readable(seen: DiagramSnapshot) -> bytes | None:
    """Return the payload in the format of the research tool, if only its format is wrong; None otherwise."""
    stored_payload = seen.diagrams[0].payload if len(seen.diagrams) == 1 else None
    if not stored_payload or not seen.cloud.complete or seen.busy:
        return None
    codec = seen.generation.codec()
    try:
        payload = codec.make_indexable(stored_payload)
    except PayloadError:
        return None
    return payload if payload != stored_payload and current_and_valid(payload, seen.cloud, codec) else None


def check_computable(seen: DiagramSnapshot) -> None:
    """Check that a diagram can be computed from the cloud and written.

    Raises:
        RepairFailed: It cannot.
    """
    if seen.busy:
        raise RepairFailed(seen.busy)
    if not seen.cloud.complete:
        reasons = "; ".join(seen.cloud.blocks.values())
        raise RepairFailed(f"the point cloud is blocked: {reasons}", blocked_by=seen.cloud.blocks)
    if seen.forbidden:
        raise RepairFailed(f"rows of its run are damaged: {seen.forbidden}")
    if not len(seen.cloud.points):
        raise RepairFailed("the point cloud has no point")
    if any(diagram.id is None for diagram in seen.diagrams):
        raise RepairFailed("a diagram has no id, so that it cannot be written: give its row one, then run again")
    if len(seen.diagrams) > 1 and any(diagram.payload is not None for diagram in seen.diagrams):
        # Only one would be written, and the others stay as sick as they are.
        message = f"there are {len(seen.diagrams):,} diagrams instead of 1 (diagram-duplicate)"
        raise RepairFailed(message, blocked_by=["diagram-duplicate"])


def computed_result(points: int, computed: Computed) -> RepairResult:
    """Describe a computation of `points` stored points in words and numbers."""
    bars = " + ".join(f"{len(each):,}" for each in computed.diagram.bars)
    return RepairResult(
        f"computed from {points:,} points, {computed.distinct:,} of them distinct: {bars} bars",
        {
            "points": points,
            "distinct": computed.distinct,
            "seconds": round(computed.seconds, 3),
            "peak_memory": computed.peak_memory,
            "engine": computed.engine,
        },
    )
