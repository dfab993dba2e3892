"""The research tool's nine checks, as `RULES.md` names them, written as a person writes them first: query by query.

Two ways: `columns` asks, run by run, for exactly what a check needs. `rows` loads the rows themselves, as an
object-relational mapper does when a check says `run.invocations`, output and vector included.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from build import KINDS

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
    for experiment, models in db.execute("SELECT id, embedding_models FROM experimentconfig").fetchall():
        of_it = "SELECT id, max_length FROM run WHERE experiment_id = ?"
        for run, length in db.execute(of_it, (experiment,)).fetchall():
            yield Run(run, length, tuple(json.loads(models)))


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


def loaded(db: sqlite3.Connection, run: Run) -> Mapping[str, int]:
    """The checks of one run on its rows, loaded whole, each check for itself."""
    found: dict[str, int] = {}
    for name in ("counts, first and last", "gaps"):
        rows = db.execute("SELECT * FROM invocation WHERE run_id = ? ORDER BY sequence_number", (run.id,)).fetchall()
        found[name] = len(set(range(run.length)) - {row[7] for row in rows})
    for name in ("embeddings missing", "embeddings mismatched", "embeddings NULL"):
        rows = db.execute("SELECT * FROM invocation WHERE run_id = ?", (run.id,)).fetchall()
        count = 0
        for row in rows:
            its = db.execute("SELECT * FROM embedding WHERE invocation_id = ?", (row[0],)).fetchall()
            wanted = {model for model in run.models if KINDS[model] == row[4]}
            if name == "embeddings missing":
                count += len(wanted - {each[4] for each in its})
            elif name == "embeddings mismatched":
                count += sum(KINDS[each[4]] != row[4] for each in its)
            else:
                count += sum(each[5] is None for each in its)
        found[name] = count
    found |= {
        "diagrams missing": absent(db, run),
        "diagrams duplicate": duplicate(db, run),
        "diagrams of unknown models": unknown(db, run),
    }
    return found


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


def by_rows(db: sqlite3.Connection) -> dict[str, int]:
    """The same on whole rows."""
    found = dict.fromkeys(COLUMNS, 0)
    for run in runs(db):
        for name, count in loaded(db, run).items():
            found[name] += count
    return found | {"orphans": orphans(db)}
