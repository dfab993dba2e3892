"""Check that an embedding hook is the model that a database was embedded with.

Outputs with a usable stored embedding are embedded again by the hook, and the vectors compared. Only the outputs that
are compared are read, image bytes included.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice, zip_longest
from typing import TYPE_CHECKING

import numpy as np

from pytest_panic_doctor.database import clouds
from pytest_panic_doctor.database.json_columns import load_json
from pytest_panic_doctor.formatting import plural
from pytest_panic_doctor.topology.vectors import VALUE_BYTES, find_defects

if TYPE_CHECKING:
    from numpy.typing import NDArray

Embedder = Callable[[str, Sequence[str | bytes]], "NDArray[np.float32] | None"]
"""(embedding model, outputs) -> float32, shape (len(outputs), width); None if no hook embeds this model."""

LEAST_COSINE = 0.99
"""Minimum cosine between the hook's vector and the stored one. Other hardware and batch sizes change it by only 1e-5.
"""

RUNS_LOOKED_AT = 25
TRIED = 20
"""Maximum number of outputs of a run that are tried to find a suitable one."""

TURN = (5**0.5 - 1) / 2
"""The golden ratio minus 1: fractional parts of its multiples spread evenly over a run for any number of samples."""


class EmbedderFault(ValueError):
    """An embedding hook returned something unusable; the message says what to do."""


@dataclass(frozen=True, slots=True)
class KnownEmbedding:
    """A stored, usable embedding (float32, shape (width,)) with its id and the output that it belongs to."""

    embedding: str
    invocation: str
    vector: NDArray[np.float32]
    output: str | bytes


@dataclass(frozen=True, slots=True)
class Agreement:
    """How the hook's vectors agree with the stored ones.

    The cosines and the ratios of norms (hook / stored) have shape (n,). Both are NaN if the hook's vector is zero or
    not finite. If most of them are, the others are not judged.
    """

    known: tuple[KnownEmbedding, ...]
    cosines: NDArray[np.float64]
    ratios: NDArray[np.float64]

    def differing(self, least: float = LEAST_COSINE) -> list[int]:
        """List the positions in `known` at which the two vectors are not of one model.

        Args:
            least: The minimum cosine.
        """
        # A cosine does not see that one of them was normalised. Unit vectors of the least cosine are this far apart.
        apart = np.sqrt(2 * (1 - least))
        alike = (self.cosines >= least) & (np.abs(self.ratios - 1) <= apart)
        silent = np.isnan(self.cosines)
        if 2 * silent.sum() < len(silent):
            alike |= silent
        return np.flatnonzero(~alike).tolist()

    @property
    def summary(self) -> str:
        """`5 stored embeddings (cosine 0.9998 at least)`."""
        return f"{plural(len(self.known), 'stored embedding')} (cosine {np.nanmin(self.cosines):.4f} at least)"

    def clause(self, least: float = LEAST_COSINE) -> str:
        """Describe the differences as a clause with the numbers; empty if there are none."""
        positions = self.differing(least)
        if not positions:
            return ""
        worst = min(positions, key=lambda place: (np.nan_to_num(self.cosines[place], nan=-2.0), self.ratios[place]))
        cosine, ratio = self.cosines[worst], self.ratios[worst]
        if np.isnan(cosine):
            how = "where the hook returns a vector that is zero or not finite"
        elif cosine < least:
            how = f"with a cosine of {cosine:.3f}, where {least:g} is the least"
        else:
            how = f"which are {ratio:.3g} times as long as the stored ones"
        return (
            f"{len(positions):,} of {len(self.known):,} stored embeddings differ from what the hook makes of the same "
            f"outputs, {how} (embedding {self.known[worst].embedding})"
        )


def known(
    db: sqlite3.Connection,
    model: str,
    kind: str,
    width: int,
    count: int,
    *,
    experiment: str | None = None,
) -> list[KnownEmbedding]:
    """Find stored, usable embeddings of different outputs, spread over the runs. The choice is deterministic.

    Args:
        db: Any connection; it reads by the indexes on run and invocation.
        model: The embedding model.
        kind: What it embeds: TEXT or IMAGE.
        width: The number of values that a vector must have.
        count: How many are wanted.
        experiment: Only of this experiment; None: of any that uses the model.

    Returns:
        At most `count` embeddings; fewer if there are no more, or if they are hard to find.
    """
    runs = runs_of_model(db, model, experiment)
    turns = zip_longest(*(known_in_run(db, run, model, kind, width) for run in runs))
    found: dict[str | bytes, KnownEmbedding] = {}
    for each in filter(None, chain.from_iterable(turns)):
        found.setdefault(each.output, each)
        if len(found) >= count:
            break
    return list(found.values())


def runs_of_model(db: sqlite3.Connection, model: str, experiment: str | None) -> list[str]:
    """Choose some runs of an experiment, or of all experiments that use the model."""
    experiments = [experiment] if experiment is not None else experiments_with(db, model)
    first = "SELECT id FROM run WHERE experiment_id = ? ORDER BY id LIMIT ?"
    found = (row_id for each in experiments for (row_id,) in db.execute(first, (each, RUNS_LOOKED_AT)))
    return list(islice(found, RUNS_LOOKED_AT))


def width_of(db: sqlite3.Connection, model: str, experiment: str) -> int:
    """Return the width of the model's vectors in an experiment, else in any other one; 0 if there are no vectors."""
    others = (each for each in experiments_with(db, model) if each != experiment)
    widths = (clouds.vector_width(db, each, model) for each in chain((experiment,), islice(others, RUNS_LOOKED_AT)))
    return next(filter(None, widths), 0)


def experiments_with(db: sqlite3.Connection, model: str) -> list[str]:
    """List the experiments that use a model, newest first."""
    rows = db.execute("SELECT id, embedding_models FROM experimentconfig ORDER BY id DESC")
    used = ((row_id, load_json(text)) for row_id, text in rows)
    return [row_id for row_id, models in used if isinstance(models, list) and model in models]


def known_in_run(db: sqlite3.Connection, run: str, model: str, kind: str, width: int) -> Iterator[KnownEmbedding]:
    """Yield the usable embeddings of one run whose outputs exist, spread over the run; each is looked up on its own."""
    rows = db.execute(
        "SELECT i.id, min(e.id) FROM invocation i JOIN embedding e ON e.invocation_id = i.id "
        "AND e.embedding_model = ? WHERE i.run_id = ? AND i.type = ? GROUP BY i.id HAVING count(*) = 1 "
        "ORDER BY i.sequence_number",
        (model, run, kind),
    ).fetchall()
    spread = sorted(range(len(rows)), key=lambda place: place * TURN % 1)
    for invocation, embedding in (rows[place] for place in spread[:TRIED]):
        (vector,) = db.execute("SELECT vector FROM embedding WHERE id = ?", (embedding,)).fetchone() or (None,)
        output = output_of(db, invocation, kind)
        if output and isinstance(vector, bytes) and not any(find_defects([vector], width)):
            yield KnownEmbedding(embedding, invocation, np.frombuffer(vector, "<f4"), output)


def output_of(db: sqlite3.Connection, invocation: str, kind: str) -> str | bytes | None:
    """Return the output of an invocation; None if it is lost."""
    column, wanted = ("output_text", str) if kind == "TEXT" else ("output_image_data", bytes)
    (value,) = db.execute(f"SELECT {column} FROM invocation WHERE id = ?", (invocation,)).fetchone() or (None,)
    return value if isinstance(value, wanted) else None


def compare_vectors(embedder: Embedder, model: str, samples: Sequence[KnownEmbedding]) -> Agreement:
    """Embed the outputs of stored embeddings by the hook, and compare the vectors.

    Args:
        embedder: The hook.
        model: The embedding model of the stored embeddings.
        samples: What `known` found: at least one, all of one width.

    Returns:
        How they agree.

    Raises:
        EmbedderFault: The hook did not return an array of the right shape.
    """
    width = len(samples[0].vector)
    given = embedder(model, [each.output for each in samples])
    vectors = answer(given, model, len(samples), width).astype(np.float64)
    ours = np.stack([each.vector for each in samples]).astype(np.float64)
    with np.errstate(all="ignore"):
        norms = np.linalg.norm(vectors, axis=1), np.linalg.norm(ours, axis=1)
        cosines = np.einsum("ij,ij->i", vectors, ours) / (norms[0] * norms[1])
        return Agreement(tuple(samples), cosines, np.where(np.isnan(cosines), np.nan, norms[0] / norms[1]))


def answer(vectors: object, model: str, count: int, width: int) -> NDArray[np.float32]:
    """Validate what a hook returned. The vectors themselves are not judged.

    Args:
        vectors: What the hook returned.
        model: The embedding model, for the message.
        count: The number of vectors expected.
        width: The number of values expected; 0 allows any.

    Returns:
        float32, shape (count, width).

    Raises:
        EmbedderFault: It is not such an array; the message says what it is.
    """
    if vectors is None:
        raise EmbedderFault(
            f"no embedding hook is installed for {model}: add one (pytest_doctor_embed) to a conftest.py"
        )
    try:
        given = np.asarray(vectors)
        if given.dtype.kind not in "fiu":
            raise TypeError(given.dtype)
        with np.errstate(over="ignore"):  # what overflows is infinite, and refused by who uses it
            array = given.astype(np.float32)
    except (TypeError, ValueError) as error:
        raise EmbedderFault(
            f"the embedding hook returned something for {model} that is not an array of numbers ({error}): correct it"
        ) from error
    if array.ndim != 2 or len(array) != count or array.shape[1] != (width or array.shape[1]):
        wanted = f"({count}, {width or 'width'})"
        raise EmbedderFault(
            f"the embedding hook returned shape {array.shape} for {model} instead of {wanted}: correct it"
        )
    return array


def unusable(vectors: NDArray[np.float32]) -> list[int]:
    """List the positions of vectors that are zero, not finite, or too large to measure."""
    width = vectors.shape[1]
    assert vectors.dtype.itemsize == VALUE_BYTES
    return sorted(place for place, _ in find_defects([vector.astype("<f4").tobytes() for vector in vectors], width))
