"""Embedding outputs again, through a hook that somebody else brings."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

import numpy as np

from pytest_panic_doctor.repair.errors import RepairFailed
from pytest_panic_doctor.repair.recompute import new_id, stamp
from pytest_panic_doctor.store.session import Database
from pytest_panic_doctor.store.subject import Subject
from pytest_panic_doctor.topology import stored
from pytest_panic_doctor.topology.vector import flaws

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pytest_panic_doctor.repair.writer import Writer

Embedder = Callable[[str, Sequence[str | bytes]], "NDArray[np.float32] | None"]
"""(embedding model, outputs) -> float32, shape (len(outputs), width), or None: nobody embeds this model."""

BATCH = 64
"""Outputs embedded at a time: an image is megabytes, and a model wants more than one."""


@dataclass(frozen=True, slots=True)
class Lacking:
    """An invocation whose embedding is missing (`embedding` None) or unusable."""

    invocation: str
    embedding: str | None


def lacking(db: sqlite3.Connection, subject: Subject, kind: str, width: int) -> list[Lacking]:
    """The invocations of `kind`, in the subject's runs, without a usable vector, in sequence order."""
    runs = db.execute(
        "SELECT id FROM run WHERE experiment_id = :experiment AND (:run IS NULL OR id = :run) ORDER BY id",
        {"experiment": subject.experiment, "run": subject.run},
    ).fetchall()
    return [each for (run,) in runs for each in lacking_in_run(db, run, str(subject.embedding_model), kind, width)]


def lacking_in_run(db: sqlite3.Connection, run: str, model: str, kind: str, width: int) -> Iterator[Lacking]:
    """The same for one run, whose vectors are in memory at a time."""
    rows = db.execute(
        "SELECT i.id, e.id, e.vector FROM invocation i LEFT JOIN embedding e ON e.invocation_id = i.id "
        "AND e.embedding_model = ? WHERE i.run_id = ? AND i.type = ? ORDER BY i.sequence_number",
        (model, run, kind),
    ).fetchall()
    unusable = dict(flaws([vector for _, _, vector in rows], width))
    for index, (invocation, embedding, _) in enumerate(rows):
        if index in unusable:
            yield Lacking(invocation, embedding)


def output(db: sqlite3.Connection, invocation: str, kind: str) -> str | bytes:
    """What the invocation put out; raises `RepairFailed` where that is lost."""
    column = "output_text" if kind == "TEXT" else "output_image_data"
    row = db.execute(f"SELECT {column} FROM invocation WHERE id = ?", (invocation,)).fetchone()
    value = row[0] if row else None
    if not isinstance(value, str if kind == "TEXT" else bytes):
        raise RepairFailed(
            f"invocation {invocation} has lost its output, so nothing can be embedded: regenerate the run"
        )
    return value


def embed(
    database: Database,
    writer: Writer,
    embedder: Embedder,
    rule: str,
    subject: Subject,
    kinds: Mapping[str, str],
) -> int:
    """Embed what lacks a usable vector and write it, batch by batch; returns how many.

    Raises `RepairFailed` where no hook embeds this model, an output is lost, or the hook returns something else than
    usable vectors of the model's width.
    """
    model = str(subject.embedding_model)
    kind = kinds.get(model)
    if kind is None:
        raise RepairFailed(
            f"whether {model} embeds texts or images is not known (doctor_text_models, doctor_image_models)"
        )

    def look(db: sqlite3.Connection) -> tuple[int, list[Lacking]]:
        width = stored.width_of(db, str(subject.experiment), model)
        return width, lacking(db, subject, kind, width)

    width, wanted = database.read(look)
    for start in range(0, len(wanted), BATCH):
        batch = wanted[start : start + BATCH]
        begun = datetime.now()
        outputs = database.read(lambda db, batch=batch: [output(db, each.invocation, kind) for each in batch])  # type: ignore[misc]
        vectors = checked(embedder(model, outputs), model, len(batch), width)
        for each, vector in zip(batch, vectors, strict=True):
            put(writer, rule, subject, each, vector.astype("<f4").tobytes(), begun)
    return len(wanted)


def checked(vectors: NDArray[np.float32] | None, model: str, count: int, width: int) -> NDArray[np.float32]:
    """The hook's answer, if it is one."""
    if vectors is None:
        raise RepairFailed(
            f"no embedding hook is installed for {model}: bring one (pytest_doctor_embed) in a conftest.py"
        )
    try:
        with np.errstate(over="ignore"):  # what overflows is infinite, and refused below
            array = np.asarray(vectors, dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise RepairFailed(
            f"the embedding hook returned something for {model} that is no array of numbers ({error}): correct it"
        ) from error
    if array.ndim != 2 or len(array) != count or (width and array.shape[1] != width):
        wanted = f"({count}, {width or 'width'})"
        raise RepairFailed(
            f"the embedding hook returned shape {array.shape} for {model} instead of {wanted}: correct it"
        )
    flawed = list(flaws([vector.tobytes() for vector in array], array.shape[1]))
    if flawed:
        raise RepairFailed(
            f"the embedding hook returned a vector for {model} that is zero or not finite, or too large: correct it"
        )
    return array


def put(writer: Writer, rule: str, subject: Subject, lack: Lacking, vector: bytes, begun: datetime) -> None:
    """Write one vector in the place of an unusable one, or as a new embedding; nothing where it is there meanwhile."""
    model = str(subject.embedding_model)
    values: dict[str, int | float | str | bytes | None] = {
        "started_at": stamp(begun),
        "completed_at": stamp(datetime.now()),
        "vector": vector,
    }
    if lack.embedding is not None:
        old = lack.embedding

        def still_unusable(db: sqlite3.Connection) -> bool:
            row = db.execute("SELECT vector FROM embedding WHERE id = ?", (old,)).fetchone()
            return row is not None and bool(list(flaws([row[0]], len(vector) // 4)))

        writer.update(rule, subject, "embedding", old, values, still_unusable)
        return

    def still_missing(db: sqlite3.Connection) -> bool:
        there = db.execute("SELECT 1 FROM invocation WHERE id = ?", (lack.invocation,)).fetchone()
        taken = db.execute(
            "SELECT 1 FROM embedding WHERE invocation_id = ? AND embedding_model = ?", (lack.invocation, model)
        ).fetchone()
        return there is not None and taken is None

    new = {"id": new_id(), "invocation_id": lack.invocation, "embedding_model": model}
    writer.insert(rule, subject, "embedding", new | values, still_missing)
