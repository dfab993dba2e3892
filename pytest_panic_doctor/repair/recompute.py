"""Computes a diagram and writes it, if nothing has changed since its cloud was read."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING

from pytest_panic_doctor.compute.runner import Task
from pytest_panic_doctor.database import clouds, upstream
from pytest_panic_doctor.database.connection import Database
from pytest_panic_doctor.database.files import safe_file_name
from pytest_panic_doctor.database.generation import Codec, Generation
from pytest_panic_doctor.database.python_generation import PYTHON
from pytest_panic_doctor.database.subject import Subject
from pytest_panic_doctor.repair.journal.errors import RepairFailed
from pytest_panic_doctor.repair.journal.journal import doctor_version
from pytest_panic_doctor.repair.journal.writer import Change
from pytest_panic_doctor.topology.alike import have_same_bars
from pytest_panic_doctor.topology.cloud import fingerprint
from pytest_panic_doctor.topology.payload import PayloadError, Provenance
from pytest_panic_doctor.topology.staleness import why_stale
from pytest_panic_doctor.topology.validation import problems

if TYPE_CHECKING:
    from pytest_panic_doctor.compute.runner import Computed, DiagramRunner
    from pytest_panic_doctor.repair.journal.repair_record import Repair
    from pytest_panic_doctor.repair.journal.tables import Value
    from pytest_panic_doctor.repair.journal.writer import Writer

TRIES = 3
"""How often a diagram is computed again because its embeddings changed during the computation."""

EMBEDDINGS_KEEP_CHANGING = (
    f"the embeddings changed {TRIES} times while the diagram was computed: run again when they are at rest"
)
"""The reason if every attempt was overtaken."""


BusyCheck = Callable[[sqlite3.Connection], str]
"""Returns why nothing is written now, as a clause; empty if writing is allowed."""


def never_busy(_: sqlite3.Connection) -> str:
    """Allow writing."""
    return ""


@dataclass(frozen=True, slots=True)
class DiagramTarget:
    """The place of a diagram.

    Attributes:
        run: The id of the run.
        model: The name of the embedding model.
        kind: What the model embeds; None if unknown.
        width: The number of components of its vectors.
        is_running: Returns why nothing is written now; empty if writing is allowed.
        generation: The generation of the file.
    """

    run: str
    model: str
    kind: str | None
    width: int
    is_running: BusyCheck = field(default=never_busy, compare=False, repr=False)
    generation: Generation = field(default=PYTHON, compare=False, repr=False)

    @property
    def codec(self) -> Codec:
        """Reads and writes its diagrams."""
        return self.generation.codec()


@dataclass(frozen=True, slots=True)
class RepairSummary:
    """The result of a computation, as a sentence and as numbers."""

    sentence: str
    measures: Mapping[str, int | float | str]


BY_ANOTHER = RepairSummary("another worker computed it", {})
"""The result if the diagram is healthy already."""
REWRITTEN = RepairSummary("rewrote the payload so that the research tool reads it; its bars are as they were", {})
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
    """Return whether a payload is a valid diagram of a cloud."""
    if payload is None or not cloud.complete or not valid(payload, codec):
        return False
    return not why_stale(codec.decode(payload), cloud.points)


@dataclass(frozen=True, slots=True)
class Precondition:
    """What must still hold when a diagram is written.

    Attributes:
        target: The target.
        fingerprint: The fingerprint of its cloud.
        points: The number of points of the cloud.
        diagrams: The ids of the diagrams of the target.
    """

    target: DiagramTarget
    fingerprint: str
    points: int
    diagrams: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class DiagramSnapshot:
    """The cloud and the diagrams of a target, read in one transaction.

    Attributes:
        target: The target.
        cloud: Its cloud.
        diagrams: Its diagrams.
        forbidden: What is damaged in the rows above them, as clauses; empty if a diagram may be computed.
        busy: Why nothing is written now; empty if writing is allowed.
    """

    target: DiagramTarget
    cloud: clouds.StoredCloud
    diagrams: tuple[clouds.StoredDiagram, ...]
    forbidden: str
    """What is damaged above them, as clauses; empty where a diagram may be computed."""
    busy: str = ""

    @property
    def before(self) -> Precondition:
        """What must still hold when the diagram is written."""
        return Precondition(
            self.target,
            fingerprint(self.cloud.points),
            len(self.cloud.points),
            tuple(diagram.id for diagram in self.diagrams),
        )

    @property
    def healthy(self) -> bool:
        """Whether there is nothing to compute: another worker may have been faster."""
        return len(self.diagrams) == 1 and current_and_valid(self.diagrams[0].payload, self.cloud, self.target.codec)


def snapshot(db: sqlite3.Connection, place: DiagramTarget) -> DiagramSnapshot:
    """Read the cloud and the diagrams of a target."""
    cloud = clouds.load_cloud(db, place.run, place.model, place.kind, place.width)
    diagrams = tuple(clouds.load_diagrams(db, place.run, place.model))
    replacing = any(valid(each.payload, place.codec) for each in diagrams)
    damage = upstream.upstream_damage(db, place.run, place.model, place.generation, replacing=replacing)
    return DiagramSnapshot(place, cloud, diagrams, damage, place.is_running(db))


def recompute(
    database: Database,
    writer: Writer,
    runner: DiagramRunner,
    claim: Callable[[str], AbstractContextManager[object]],
    rule: str,
    subject: Subject,
    place: Callable[[sqlite3.Connection], DiagramTarget],
    max_dim: int,
    *,
    exact: bool = False,
    together: Callable[[Change], Repair | None] | None = None,
) -> RepairSummary:
    """Compute the diagram of a target and write it.

    The transaction begins after the computation, and writes only if the cloud's fingerprint and the diagrams are
    unchanged.

    Args:
        database: Reads the cloud.
        writer: Writes the diagram.
        runner: Computes it.
        claim: Locks the diagram against the other workers.
        rule: The rule that the repair is recorded for.
        subject: The run and the embedding model.
        place: Returns the target.
        max_dim: The highest homology dimension.
        exact: Whether to compute even if the stored diagram seems healthy, and write if the bars differ.
        together: Writes the change, and others that later items would request; None to write it alone.

    Returns:
        What was done.

    Raises:
        RepairFailed: The cloud cannot be computed, or changes faster than it is computed.
        ComputationFailed: The computation failed.
    """
    with claim(claimed(subject)):
        for tried in range(TRIES):
            seen = database.read(lambda db: snapshot(db, place(db)))
            if seen.healthy and not exact:
                return BY_ANOTHER
            if not exact and (payload := readable(seen)):
                if rewrite(writer, rule, subject, seen, payload):
                    return REWRITTEN
                continue
            check_computable(seen)
            begun = datetime.now()
            computed = runner.compute(task(seen, max_dim))
            if (
                exact
                and seen.healthy
                and have_same_bars(seen.target.codec.decode(seen.diagrams[0].payload or b"").diagram, computed.diagram)
            ):
                return RepairSummary(f"its bars are those that {computed.engine} computes, so that it was kept", {})
            mine = change(rule, subject, seen.before, begun, computed, max_dim)
            if together(mine) if together and not tried else writer.write([mine])[0]:
                return computed_result(len(seen.cloud.points), computed)
    raise RepairFailed(EMBEDDINGS_KEEP_CHANGING)


def claimed(subject: Subject) -> str:
    """Return the name of the lock of a diagram."""
    return f"{safe_file_name(str(subject.run))}-{safe_file_name(str(subject.embedding_model))}"


def rewrite(writer: Writer, rule: str, subject: Subject, seen: DiagramSnapshot, payload: bytes) -> bool:
    """Write the payload of the only diagram again, without a computation.

    Returns:
        False if something has changed since the snapshot.
    """

    def unchanged(db: sqlite3.Connection) -> bool:
        now = snapshot(db, seen.target)
        return not now.busy and now.before == seen.before and now.diagrams == seen.diagrams

    values: dict[str, Value] = {"diagram_data": payload}
    return writer.update(rule, subject, "persistencediagram", seen.diagrams[0].id, values, unchanged) is not None


def readable(seen: DiagramSnapshot) -> bytes | None:
    """Return the payload in the format of the research tool, if only its format is wrong; None otherwise."""
    stored_payload = seen.diagrams[0].payload if len(seen.diagrams) == 1 else None
    if not stored_payload or not seen.cloud.complete or seen.busy:
        return None
    try:
        payload = seen.target.codec.make_indexable(stored_payload)
    except PayloadError:
        return None
    indexable = payload != stored_payload and current_and_valid(payload, seen.cloud, seen.target.codec)
    return payload if indexable else None


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


def task(seen: DiagramSnapshot, max_dim: int) -> Task:
    """Return the computation for a snapshot."""
    return Task(seen.cloud.points, label=f"{seen.target.run} {seen.target.model}", max_dim=max_dim)


def write_diagram(
    writer: Writer, rule: str, subject: Subject, before: Precondition, begun: datetime, computed: Computed, max_dim: int
) -> bool:
    """Write a diagram; return false if the cloud or the diagrams have changed since the snapshot."""
    return writer.write([change(rule, subject, before, begun, computed, max_dim)])[0] is not None


def change(
    rule: str, subject: Subject, before: Precondition, begun: datetime, computed: Computed, max_dim: int
) -> Change:
    """What puts the diagram in its place, unless the cloud or the diagrams are no longer those that were seen."""
    provenance = Provenance(
        fingerprint=before.fingerprint,
        points=before.points,
        distinct=computed.distinct,
        tolerance=computed.tolerance,
        engine=computed.engine,
        engine_version=computed.engine_version,
        max_dim=max_dim,
        seconds=round(computed.seconds, 3),
        peak_memory=computed.peak_memory,
        doctor_version=doctor_version(),
    )

    def unchanged(db: sqlite3.Connection) -> bool:
        now = snapshot(db, before.target)
        return not now.busy and now.cloud.complete and now.before == before

    generation = before.target.generation
    values: dict[str, Value] = {
        "started_at": generation.stamp(begun),
        "completed_at": generation.stamp(datetime.now()),
        "diagram_data": before.target.codec.encode(computed.diagram, provenance),
    }
    table = "persistencediagram"
    if before.diagrams:
        return Change(rule, subject, table, values, unchanged, before.diagrams[0])
    place = {"id": generation.new_id(), "run_id": before.target.run, "embedding_model": before.target.model}
    return Change(rule, subject, table, place | values, unchanged)


def computed_result(points: int, computed: Computed) -> RepairSummary:
    """Describe a computation of `points` stored points in words and numbers."""
    bars = " + ".join(f"{len(each):,}" for each in computed.diagram.bars)
    return RepairSummary(
        f"computed from {points:,} points, {computed.distinct:,} of them distinct: {bars} bars",
        {
            "points": points,
            "distinct": computed.distinct,
            "seconds": round(computed.seconds, 3),
            "peak_memory": computed.peak_memory,
            "engine": computed.engine,
        },
    )
