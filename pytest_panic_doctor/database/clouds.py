"""The stored point cloud of a run, and its stored diagrams, as the database has them now."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter

import numpy as np
from numpy.typing import NDArray

from pytest_panic_doctor.database.memory_room import VALUE_COPIES, MemoryRoom
from pytest_panic_doctor.database.subject import DiagramTarget
from pytest_panic_doctor.topology.vectors import (
    VALUE_BYTES,
    VectorDefect,
    describe_defects,
    find_defects,
    usable_vectors,
)

NEWEST_FIRST = "completed_at IS NOT NULL DESC, completed_at DESC, started_at DESC, id DESC"
"""Order of preference among duplicate rows: finished, then latest, then by id, which is a UUIDv7."""

LEAST_POINTS = 2
"""Fewest points for which the research tool makes a diagram; for fewer none is missing."""

RUNS_SAMPLED = 25
"""Runs whose vectors are sampled to find the width."""

FEW_RUNS = 4
"""Fewest runs that make a sample."""

VECTOR_SIZES = (
    "SELECT length(e.vector) FROM invocation i JOIN embedding e ON e.invocation_id = i.id "
    "AND e.embedding_model = :model WHERE i.run_id = r.id AND typeof(e.vector) = 'blob'"
)
"""Bytes of each vector of a run."""


UNORDERED = (
    "SELECT i.rowid, e.rowid, e.vector, i.sequence_number FROM invocation i LEFT JOIN embedding e "
    "ON e.invocation_id = i.id AND e.embedding_model = ? WHERE i.run_id = ? AND i.type = ?"
)
"""Invocations of one type in a run, and their vectors by a model."""

NEWEST_EMBEDDING = ", ".join(f"e.{term}" for term in NEWEST_FIRST.split(", "))

Row = tuple[int, int | None, bytes | None, object]
"""An embedding: rowid of the invocation, rowid of the embedding, vector, sequence number."""

ROW_OVERHEAD = 160
"""Bytes of a row in Python beside its vector."""

FETCH_SIZE = 1000
"""Rows fetched at a time."""


MODEL_TYPE_KEY = "doctor_text_models"
"""The ini key that names embedding models of texts; `doctor_image_models` names those of images."""


@dataclass(frozen=True, slots=True)
class StoredCloud:
    """The point cloud of a target.

    Attributes:
        points: float32, shape (n, width), in sequence order: the newest usable vector of each invocation of the model's
            type.
        invocations: The number of points there should be.
        blocks: What makes the cloud incomplete or unusable: a clause for each rule that finds it, or for the ini key
            that is missing. If there is any, points are missing and no diagram may be computed.
    """

    points: NDArray[np.float32]
    invocations: int
    blocks: Mapping[str, str]

    @property
    def complete(self) -> bool:
        """Whether every invocation of the model's type has a usable vector."""
        return not self.blocks


@dataclass(frozen=True, slots=True)
class StoredDiagram:
    """A row of `persistencediagram`; `payload` is None for NULL, and empty if it is not a blob."""

    id: str
    payload: bytes | None


def iterate_diagrams(db: sqlite3.Connection, target: DiagramTarget) -> Iterator[StoredDiagram]:
    """Diagrams of a target, the newest first, with one payload in memory at a time."""
    found = "FROM persistencediagram WHERE run_id = ? AND embedding_model = ?"
    only = db.execute(f"SELECT id, diagram_data {found} LIMIT 2", target)
    first = only.fetchone()
    if first is None:
        return
    if only.fetchone() is None:
        yield StoredDiagram(first[0], as_payload(first[1]))
        return
    del first
    for (row,) in db.execute(f"SELECT rowid {found} ORDER BY {NEWEST_FIRST}", target).fetchall():
        one = db.execute("SELECT id, diagram_data FROM persistencediagram WHERE rowid = ?", (row,))
        for row_id, data in one:
            yield StoredDiagram(row_id, as_payload(data))


def as_payload(data: object) -> bytes | None:
    """A `diagram_data` value as a payload: bytes, or None for NULL."""
    return data if data is None or isinstance(data, bytes) else b""


def has_payload(db: sqlite3.Connection, target: DiagramTarget) -> list[bool]:
    """For each diagram of a target whether it is not NULL; reads no payload."""
    source = "persistencediagram WHERE run_id = ? AND embedding_model = ?"
    rows = db.execute(f"SELECT typeof(diagram_data) <> 'null' FROM {source}", target)
    return [bool(value) for (value,) in rows]


def invocation_count(db: sqlite3.Connection, run: str, kind: str) -> int:
    """The number of points that the cloud should have."""
    sql = "SELECT count(*) FROM invocation WHERE run_id = ? AND type = ?"
    return int(db.execute(sql, (run, kind)).fetchone()[0])


def vector_width(db: sqlite3.Connection, experiment: str, model: str) -> int:
    """Number of values of the model's vectors in this experiment.

    The first and last vectors of 25 runs are sampled, the same ones each time. Only if they differ, or are so few that
    damaged ones could agree, all are counted.

    Returns:
        The most common width; 0 if there is no vector.
    """
    sampled = db.execute(
        f"SELECT ({VECTOR_SIZES} ORDER BY i.rowid LIMIT 1), ({VECTOR_SIZES} ORDER BY i.rowid DESC LIMIT 1) "
        # In the order of an index: to sort the runs, SQLite would look at the vectors of all of them.
        f"FROM (SELECT id FROM run WHERE experiment_id = :experiment LIMIT {RUNS_SAMPLED}) r",
        {"experiment": experiment, "model": model},
    ).fetchall()
    widths = {size for pair in sampled for size in pair if size is not None}
    if len(sampled) >= FEW_RUNS and len(widths) == 1 and (size := widths.pop()) and size % VALUE_BYTES == 0:
        return int(size) // VALUE_BYTES
    return commonest_width(db, experiment, model)


def commonest_width(db: sqlite3.Connection, experiment: str, model: str) -> int:
    """The most common number of values among all vectors of the model in the experiment; 0 if there is none."""
    lengths = db.execute(
        "SELECT length(e.vector), count(*) FROM run r JOIN invocation i ON i.run_id = r.id JOIN embedding e "
        "ON e.invocation_id = i.id AND e.embedding_model = :model WHERE r.experiment_id = :experiment "
        "AND typeof(e.vector) = 'blob' GROUP BY 1 ORDER BY 2 DESC, 1 DESC",
        {"experiment": experiment, "model": model},
    ).fetchall()
    return next((int(size) // VALUE_BYTES for size, _ in lengths if size and size % VALUE_BYTES == 0), 0)


def load_cloud(
    db: sqlite3.Connection,
    target: DiagramTarget,
    kind: str | None,
    width: int,
    space: MemoryRoom = MemoryRoom(),  # noqa: B008
) -> StoredCloud:
    """Load the cloud of a target in one query, by the indexes on run and invocation.

    Args:
        db: The database.
        target: The run and the embedding model.
        kind: What the model embeds, `TEXT` or `IMAGE`; None if unknown.
        width: Expected number of values of a vector.
        space: Memory that may be used.

    Raises:
        TooLarge: The cloud does not fit into `space`.
    """
    run, model = target
    if kind is None:
        return StoredCloud(np.empty((0, width), np.float32), 0, {MODEL_TYPE_KEY: unknown_type(model)})
    rows = read_embeddings(db, f"{UNORDERED}", (model, run, kind), space)
    if len({row[0] for row in rows}) == len(rows) and all(type(row[3]) is int for row in rows):
        # Sorted here, because SQLite would sort the rows with their vectors, 3 KB each.
        rows.sort(key=itemgetter(3, 0))
        vectors = [row[2] for row in rows]
        if (points := usable_vectors(vectors, width)) is not None:
            return StoredCloud(points, len(rows), {})
    else:
        rows = read_embeddings(
            db, f"{UNORDERED} ORDER BY i.sequence_number, i.rowid, {NEWEST_EMBEDDING}", (model, run, kind), space
        )
    return choose_vectors(
        [[row[2] for row in group if row[1] is not None] for _, group in groupby(rows, itemgetter(0))], width
    )


def unknown_type(model: str) -> str:
    """Describe an embedding model of unknown type, as a clause."""
    return f"whether {model} embeds texts or images is not known (doctor_text_models, doctor_image_models)"


def read_embeddings(
    db: sqlite3.Connection, query: str, parameters: tuple[str, str, str], space: MemoryRoom
) -> list[Row]:
    """Fetch the rows of `UNORDERED`; raises `TooLarge` if they do not fit into `space`."""
    cursor = db.execute(query, parameters)
    rows: list[Row] = []
    size = 0
    while more := cursor.fetchmany(FETCH_SIZE):
        rows += more
        size += ROW_OVERHEAD * len(more) + sum(len(row[2]) for row in more if type(row[2]) is bytes)
        if VALUE_COPIES * size > space.bytes:
            model, run, kind = parameters
            size = size * invocation_count(db, run, kind) // len(rows)
            raise space.too_large(f"the cloud of {model} in run {run}", size, space.value)
    return rows


def choose_vectors(candidates: Sequence[Sequence[object]], width: int) -> StoredCloud:
    """Build the cloud from the newest usable vector of each invocation.

    Args:
        candidates: The vectors of each invocation, the newest first.
        width: Expected number of values of a vector.
    """
    first = [vectors[0] if vectors else None for vectors in candidates]
    flawed = dict(find_defects(first, width))
    for index in [index for index in flawed if len(candidates[index]) > 1]:
        usable_indexes = set(range(len(candidates[index]))) - dict(find_defects(candidates[index], width)).keys()
        if usable_indexes:
            first[index] = candidates[index][min(usable_indexes)]
            del flawed[index]
    unusable = Counter(flaw for index, flaw in flawed.items() if candidates[index])
    missing = sum(not vectors for vectors in candidates)
    good = [vector for index, vector in enumerate(first) if index not in flawed and isinstance(vector, bytes)]
    points = np.frombuffer(b"".join(good), "<f4").reshape(len(good), width)
    return StoredCloud(points, len(candidates), dict(describe_blocks(len(candidates), missing, unusable, width)))


def describe_blocks(count: int, missing: int, unusable: Counter[VectorDefect], width: int) -> Iterator[tuple[str, str]]:
    """Yield what makes a cloud incomplete or unusable: the rule that finds it, and a clause that ends in its name."""
    if missing:
        has = "has" if missing == 1 else "have"
        rule = "embedding-missing"
        yield rule, f"{missing:,} of {count:,} invocations {has} no embedding ({rule})"
    if unusable:
        total = unusable.total()
        rule = "embedding-vector"
        which = f"{total:,} of {count:,} vectors {'is' if total == 1 else 'are'} unusable"
        yield rule, f"{which}: {describe_defects(unusable, width)} ({rule})"
