"""Embeds outputs again, with a hook that another plugin provides."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from pytest_panic_doctor.database.clouds import unknown_type
from pytest_panic_doctor.database.connection import Database
from pytest_panic_doctor.database.python_generation import PYTHON
from pytest_panic_doctor.database.subject import Subject
from pytest_panic_doctor.formatting import name_first, plural
from pytest_panic_doctor.repair.journal.errors import RepairFailed
from pytest_panic_doctor.repair.journal.writer import Change
from pytest_panic_doctor.rules import embedder as hooks
from pytest_panic_doctor.rules.embedder import LEAST_COSINE, Embedder, EmbedderFault
from pytest_panic_doctor.topology.vectors import find_defects

if TYPE_CHECKING:
    from pytest_panic_doctor.repair.recompute import RepairContext

SAMPLED_OUTPUTS = 5
"""The number of stored embeddings that a hook is compared with before one of its vectors is written."""

ENOUGH = 3
"""With fewer embeddings of the experiment, the hook is compared with those of other experiments."""

INVOCATIONS_NAMED = 3
"""Rows that a message names at most."""

FINDS = {"embedding-missing": "embedding", "embedding-vector": "vector"}
"""What each rule repairs, so that an item of the other rule is fixed too and not passed; other rules repair both."""

OUTPUTS_AT_ONCE = 64
"""The number of outputs that a hook gets at a time: an image takes megabytes, and a model needs more than one."""


@dataclass(frozen=True, slots=True)
class MissingEmbedding:
    """An invocation whose embedding is missing (`embedding` is None) or unusable."""

    invocation: str
    embedding: str | None

    @property
    def lacks(self) -> str:
        """Whether the embedding or only its vector is missing."""
        return "embedding" if self.embedding is None else "vector"


def missing_embeddings(db: sqlite3.Connection, subject: Subject, kind: str, width: int) -> list[MissingEmbedding]:
    """Return the invocations without a usable vector, in the order of their runs and sequence numbers.

    Args:
        db: The database.
        subject: The experiment or the run, and the embedding model.
        kind: What the model embeds.
        width: The number of components of a vector.
    """
    runs = db.execute(
        "SELECT id FROM run WHERE experiment_id = :experiment AND (:run IS NULL OR id = :run) ORDER BY id",
        {"experiment": subject.experiment, "run": subject.run},
    ).fetchall()
    return [each for (run,) in runs for each in missing_in_run(db, run, str(subject.embedding_model), kind, width)]


def missing_in_run(db: sqlite3.Connection, run: str, model: str, kind: str, width: int) -> Iterator[MissingEmbedding]:
    """Yield the invocations of one run without a usable vector; the vectors of one run are in memory at a time."""
    rows = db.execute(
        "SELECT i.id, e.id, e.vector FROM invocation i LEFT JOIN embedding e ON e.invocation_id = i.id "
        "AND e.embedding_model = ? WHERE i.run_id = ? AND i.type = ? ORDER BY i.sequence_number",
        (model, run, kind),
    ).fetchall()
    unusable = dict(find_defects([vector for _, _, vector in rows], width))
    for index, (invocation, embedding, _) in enumerate(rows):
        if index in unusable:
            yield MissingEmbedding(invocation, embedding)


class Trust:
    """Compares each hook of this process once with the embeddings that the database has."""

    def __init__(self, least: float | None = None) -> None:
        """Store the limit.

        Args:
            least: The cosine below which a hook is not trusted; None for the default, 0 to trust every hook.
        """
        self.least = LEAST_COSINE if least is None else least
        self._known: dict[tuple[str | None, str], str | RepairFailed] = {}

    def check(self, database: Database, embedder: Embedder, subject: Subject, kind: str, width: int) -> str:
        """Compare a hook with stored embeddings, of the subject's experiment or else of any other.

        Returns:
            A clause that says what the hook was compared with.

        Raises:
            RepairFailed: They differ; the message has the numbers.
        """
        model, experiment = str(subject.embedding_model), subject.experiment
        if not self.least:
            return "not compared with stored ones (doctor_embed_cosine = 0)"
        if (experiment, model) not in self._known:
            known = database.read(
                lambda db: hooks.known(db, model, kind, width, SAMPLED_OUTPUTS, experiment=experiment)
            )
            if len(known) < ENOUGH:
                experiment = None
                known = database.read(lambda db: hooks.known(db, model, kind, width, SAMPLED_OUTPUTS))
            if (experiment, model) not in self._known:
                self._known[experiment, model] = self._found(embedder, model, known)
        found = self._known[experiment, model]
        if isinstance(found, RepairFailed):
            raise RepairFailed(str(found))
        return found

    def _found(self, embedder: Embedder, model: str, known: Sequence[hooks.KnownEmbedding]) -> str | RepairFailed:
        if not known:
            return f"not compared, since no other embedding by {model} is stored"
        agreement = hooks.compare_vectors(embedder, model, known)
        if clause := agreement.clause(self.least):
            return RepairFailed(
                f"nothing was written by {model}, for {clause}: correct the hook, or set doctor_embed_cosine"
            )
        return f"the hook agrees with {agreement.summary}"


def embed(repairs: RepairContext, embedder: Embedder, trust: Trust, rule: str, subject: Subject) -> str:
    """Embed every output without a usable vector, and write the vectors in batches.

    Args:
        repairs: Reads the outputs, and writes the vectors.
        embedder: Calls the hook.
        trust: What is known of the hook.
        rule: The rule that the repair is recorded for.
        subject: The experiment or the run, and the embedding model.

    Returns:
        A clause with the number of outputs, what the hook was compared with, and what is left.

    Raises:
        RepairFailed: No hook knows the model, its result has a wrong shape or is not trusted, or no output could be
            embedded.
    """
    model = str(subject.embedding_model)
    kind = repairs.kinds.get(model)
    if kind is None:
        raise RepairFailed(unknown_type(model))

    def look(db: sqlite3.Connection) -> tuple[int, list[MissingEmbedding]]:
        width = hooks.width_of(db, model, str(subject.experiment))
        found = missing_embeddings(db, subject, kind, width)
        return width, [each for each in found if FINDS.get(rule, each.lacks) == each.lacks]

    database = repairs.database
    width, wanted = database.read(look)
    if not wanted:
        return "another worker was faster"
    done, lost, refused = 0, list[str](), list[str]()
    check_at_rest(repairs, subject, done)
    try:
        compared = trust.check(database, embedder, subject, kind, width)
        for start in range(0, len(wanted), OUTPUTS_AT_ONCE):
            begun = datetime.now()
            batch, outputs = available_outputs(database, wanted[start : start + OUTPUTS_AT_ONCE], kind, lost)
            if not batch:
                continue
            vectors = hooks.answer(embedder(model, outputs), model, len(batch), width)
            width = vectors.shape[1]
            unusable = set(hooks.unusable(vectors))
            refused += [batch[place].invocation for place in sorted(unusable)]
            for place in set(range(len(batch))) - unusable:
                vector = vectors[place].astype("<f4").tobytes()
                change = vector_change(repairs, rule, subject, batch[place], vector, begun)
                done += repairs.writer.write([change])[0] is not None
            check_at_rest(repairs, subject, done)
    except EmbedderFault as fault:
        raise RepairFailed(str(fault)) from fault
    left = "; ".join(describe_left(model, lost, refused))
    if not done and left:
        raise RepairFailed(left)
    if not done:
        return "another worker was faster"
    return f"embedded {plural(done, 'output')} again; {compared}" + (f"; {left}" if left else "")


def check_at_rest(repairs: RepairContext, subject: Subject, done: int) -> None:
    """Check that vectors may be written now.

    Args:
        repairs: The database.
        subject: The experiment or the run.
        done: The number of outputs that were embedded before, for the message.

    Raises:
        RepairFailed: The experiment is running.
    """
    if clause := repairs.database.read(lambda db: repairs.busy(db, subject)):
        raise RepairFailed(f"{clause}; {done:,} outputs were embedded before" if done else clause)


def available_outputs(
    database: Database, wanted: Sequence[MissingEmbedding], kind: str, lost: list[str]
) -> tuple[list[MissingEmbedding], list[str | bytes]]:
    """Return the invocations whose outputs exist, and the outputs; the others are added to `lost`."""
    found = database.read(lambda db: [hooks.output_of(db, each.invocation, kind) for each in wanted])
    lost += [each.invocation for each, value in zip(wanted, found, strict=True) if value is None]
    batch = [each for each, value in zip(wanted, found, strict=True) if value is not None]
    return batch, [value for value in found if value is not None]


def describe_left(model: str, lost: Sequence[str], refused: Sequence[str]) -> Iterator[str]:
    """Yield a clause for each reason why outputs were not embedded."""
    if refused:
        count = len(refused)
        what = "a vector" if count == 1 else f"{count:,} vectors"
        is_ = "is" if count == 1 else "are"
        yield (
            f"the embedding hook returned {what} for {model} that {is_} zero or not finite, or too large, "
            f"of {name_invocations(refused)}: correct it"
        )
    if lost:
        has = "has lost its output" if len(lost) == 1 else "have lost their outputs"
        yield f"{name_invocations(lost)} {has}, so nothing can be embedded: regenerate the run"


def name_invocations(invocations: Sequence[str]) -> str:
    """Name invocations: `invocation 06b0…`, `invocations 06b0…, 06b1… and 7 more`."""
    return f"invocation{'s' if len(invocations) > 1 else ''} {name_first(invocations, INVOCATIONS_NAMED)}"


def vector_change(
    repairs: RepairContext, rule: str, subject: Subject, lack: MissingEmbedding, vector: bytes, begun: datetime
) -> Change:
    """Return what writes one vector, into an unusable embedding or as a new one, unless a usable one exists by then."""
    model, generation = str(subject.embedding_model), repairs.database.generation or PYTHON
    values: dict[str, int | float | str | bytes | None] = {
        "started_at": generation.stamp(begun),
        "completed_at": generation.stamp(datetime.now()),
        "vector": vector,
    }
    if lack.embedding is not None:
        old = lack.embedding

        def still_unusable(db: sqlite3.Connection) -> bool:
            row = db.execute("SELECT vector FROM embedding WHERE id = ?", (old,)).fetchone()
            unusable = row is not None and any(find_defects([row[0]], len(vector) // 4))
            return unusable and not repairs.busy(db, subject)

        return Change(rule, subject, "embedding", values, still_unusable, old)

    def still_missing(db: sqlite3.Connection) -> bool:
        exists = db.execute("SELECT 1 FROM invocation WHERE id = ?", (lack.invocation,)).fetchone()
        taken = db.execute(
            "SELECT 1 FROM embedding WHERE invocation_id = ? AND embedding_model = ?", (lack.invocation, model)
        ).fetchone()
        return exists is not None and taken is None and not repairs.busy(db, subject)

    new = {"id": generation.new_id(), "invocation_id": lack.invocation, "embedding_model": model}
    return Change(rule, subject, "embedding", new | values, still_missing)
