"""The research tool's nine checks, as `RULES.md` names them, written as a person writes them first: query by query.

Two ways, both run by run: `by_columns` asks in SQL for exactly what a check needs. `by_mapper` loads rows as objects of
SQLModel's classes, which is how the research tool reads its database.
"""

from __future__ import annotations

import json
import sqlite3
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from build import KINDS
from sqlalchemy.pool import StaticPool
from sqlmodel import Session, create_engine, select

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "support"))

import research_models as models

SAME = {
    "counts, first and last": ("invocation-sequence",),
    "gaps": ("invocation-sequence",),
    "embeddings missing": ("embedding-missing",),
    "embeddings mismatched": ("embedding-type",),
    "embeddings NULL": ("embedding-vector",),
    "diagrams missing": ("diagram-missing",),
    "diagrams duplicate": ("diagram-duplicate",),
    "diagrams of unknown models": ("diagram-model",),
    "orphans": ("orphan-run", "orphan-invocation", "orphan-embedding", "orphan-diagram"),
}
"""The rules that look at the same; each looks at as much at least (`embedding-vector` at every value of a vector)."""


@dataclass(frozen=True, slots=True)
class Run:
    """A run, and what its experiment says of it."""

    id: str
    length: int
    models: tuple[str, ...]


Check = Callable[[sqlite3.Connection, Run], int]


def runs(db: sqlite3.Connection) -> Iterator[Run]:
    """All runs, experiment by experiment."""
    for experiment, named in db.execute("SELECT id, embedding_models FROM experimentconfig").fetchall():
        of_it = "SELECT id, max_length FROM run WHERE experiment_id = ?"
        for run, length in db.execute(of_it, (experiment,)).fetchall():
            yield Run(run, length, tuple(json.loads(named)))


def counts(db: sqlite3.Connection, run: Run) -> int:
    """Whether there are as many invocations as there should be, and a first and a last."""
    ((count,),) = db.execute("SELECT count(*) FROM invocation WHERE run_id = ?", (run.id,))
    there = "SELECT id FROM invocation WHERE run_id = ? AND sequence_number = ?"
    ends = [db.execute(there, (run.id, number)).fetchone() for number in (0, run.length - 1)]
    return int(count != run.length or None in ends)


def gaps(db: sqlite3.Connection, run: Run) -> int:
    """Sequence numbers that are not there."""
    numbers = db.execute("SELECT sequence_number FROM invocation WHERE run_id = ? ORDER BY sequence_number", (run.id,))
    return len(set(range(run.length)) - {number for (number,) in numbers})


def missing(db: sqlite3.Connection, run: Run) -> int:
    """Invocations without an embedding, model by model."""
    lost = (
        "SELECT i.id FROM invocation i LEFT JOIN embedding e ON e.invocation_id = i.id AND e.embedding_model = ? "
        "WHERE i.run_id = ? AND i.type = ? AND e.id IS NULL"
    )
    return sum(len(db.execute(lost, (model, run.id, KINDS[model])).fetchall()) for model in run.models)


def mismatched(db: sqlite3.Connection, run: Run) -> int:
    """Embeddings of texts by a model of images, and the other way round."""
    wrong = (
        "SELECT e.id FROM invocation i JOIN embedding e ON e.invocation_id = i.id "
        "WHERE i.run_id = ? AND e.embedding_model = ? AND i.type <> ?"
    )
    return sum(len(db.execute(wrong, (run.id, model, KINDS[model])).fetchall()) for model in run.models)


def null(db: sqlite3.Connection, run: Run) -> int:
    """Embeddings without a vector."""
    without = (
        "SELECT e.id FROM invocation i JOIN embedding e ON e.invocation_id = i.id "
        "WHERE i.run_id = ? AND e.embedding_model = ? AND e.vector IS NULL"
    )
    return sum(len(db.execute(without, (run.id, model)).fetchall()) for model in run.models)


def absent(db: sqlite3.Connection, run: Run) -> int:
    """Diagrams that are absent or NULL."""
    there = "SELECT diagram_data FROM persistencediagram WHERE run_id = ? AND embedding_model = ?"
    found = [db.execute(there, (run.id, model)).fetchall() for model in run.models]
    return sum(not any(data for (data,) in rows) for rows in found)


def duplicate(db: sqlite3.Connection, run: Run) -> int:
    """Diagrams that are there more than once."""
    there = "SELECT count(*) FROM persistencediagram WHERE run_id = ? AND embedding_model = ?"
    return sum(db.execute(there, (run.id, model)).fetchone()[0] > 1 for model in run.models)


def unknown(db: sqlite3.Connection, run: Run) -> int:
    """Diagrams of models that the experiment does not name."""
    models = db.execute("SELECT embedding_model FROM persistencediagram WHERE run_id = ?", (run.id,)).fetchall()
    return sum(model not in run.models for (model,) in models)


def orphans(db: sqlite3.Connection) -> int:
    """Rows that belong to nothing, in the whole database."""
    pairs = (
        ("run", "experiment_id", "experimentconfig"),
        ("invocation", "run_id", "run"),
        ("embedding", "invocation_id", "invocation"),
        ("persistencediagram", "run_id", "run"),
    )
    lost = "SELECT c.id FROM {} c LEFT JOIN {} p ON p.id = c.{} WHERE p.id IS NULL"
    return sum(len(db.execute(lost.format(table, parent, column)).fetchall()) for table, column, parent in pairs)


COLUMNS: Mapping[str, Check] = {
    "counts, first and last": counts,
    "gaps": gaps,
    "embeddings missing": missing,
    "embeddings mismatched": mismatched,
    "embeddings NULL": null,
    "diagrams missing": absent,
    "diagrams duplicate": duplicate,
    "diagrams of unknown models": unknown,
}


def by_columns(db: sqlite3.Connection) -> dict[str, int]:
    """What the nine checks find, run by run, by the columns that each needs."""
    every = list(runs(db))
    return {name: sum(check(db, run) for run in every) for name, check in COLUMNS.items()} | {"orphans": orphans(db)}


def mapped(session: Session, run: str) -> dict[str, int]:
    """The checks of one run, each with queries of its own for the rows that it looks at."""
    row = session.exec(select(models.Run).where(models.Run.id == run)).one()
    config = session.exec(select(models.ExperimentConfig).where(models.ExperimentConfig.id == row.experiment_id)).one()

    def invocations() -> Sequence[models.Invocation]:
        return session.exec(select(models.Invocation).where(models.Invocation.run_id == run)).all()

    def embeddings() -> Sequence[tuple[models.Embedding, models.Invocation]]:
        pairs = select(models.Embedding, models.Invocation).join(models.Invocation)
        return session.exec(pairs.where(models.Invocation.run_id == run)).all()

    def diagrams() -> Sequence[models.PersistenceDiagram]:
        return session.exec(select(models.PersistenceDiagram).where(models.PersistenceDiagram.run_id == run)).all()

    numbers = [each.sequence_number for each in invocations()]
    found = {"counts, first and last": int(len(numbers) != row.max_length or not {0, row.max_length - 1} < {*numbers})}
    found["gaps"] = len(set(range(row.max_length)) - {each.sequence_number for each in invocations()})
    there = {(each.invocation_id, each.embedding_model) for each, _ in embeddings()}
    wanted = {
        (each.id, model) for each in invocations() for model in config.embedding_models if KINDS[model] == each.type
    }
    found["embeddings missing"] = len(wanted - there)
    found["embeddings mismatched"] = sum(KINDS[each.embedding_model] != of.type for each, of in embeddings())
    found["embeddings NULL"] = sum(each.vector is None for each, _ in embeddings())
    whole = {each.embedding_model for each in diagrams() if each.diagram_data}
    found["diagrams missing"] = len({*config.embedding_models} - whole)
    times = Counter(each.embedding_model for each in diagrams())
    found["diagrams duplicate"] = sum(count > 1 for count in times.values())
    found["diagrams of unknown models"] = sum(
        each.embedding_model not in config.embedding_models for each in diagrams()
    )
    return found


def by_mapper(db: sqlite3.Connection) -> dict[str, int]:
    """The same through SQLModel's classes, as the research tool reads: run by run, in a session for each."""
    found = dict.fromkeys(COLUMNS, 0)
    engine = create_engine("sqlite://", creator=lambda: db, poolclass=StaticPool)
    for run in runs(db):
        with Session(engine) as session:
            for name, count in mapped(session, run.id).items():
                found[name] += count
    return found | {"orphans": orphans(db)}
