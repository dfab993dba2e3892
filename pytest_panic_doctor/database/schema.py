"""The tables of a trajectory database, without anything that costs memory to import; a test compares `models`."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping

TABLES: Mapping[str, tuple[str, ...]] = {
    "experimentconfig": (
        "id",
        "networks",
        "seeds",
        "prompts",
        "embedding_models",
        "max_length",
        "started_at",
        "completed_at",
    ),
    "run": ("id", "network", "seed", "max_length", "initial_prompt", "experiment_id"),
    "invocation": (
        "id",
        "started_at",
        "completed_at",
        "model",
        "type",
        "seed",
        "run_id",
        "sequence_number",
        "input_invocation_id",
        "output_text",
        "output_image_data",
    ),
    "embedding": ("id", "started_at", "completed_at", "invocation_id", "embedding_model", "vector"),
    "persistencediagram": ("id", "started_at", "completed_at", "diagram_data", "run_id", "embedding_model"),
    "clusteringresult": (
        "id",
        "created_at",
        "started_at",
        "completed_at",
        "embedding_model",
        "algorithm",
        "parameters",
    ),
    "embeddingcluster": ("id", "embedding_id", "clustering_result_id", "medoid_embedding_id"),
}
"""The columns of each table, in the order of the file."""

NOUNS: Mapping[str, str] = {
    "experimentconfig": "experiment",
    "run": "run",
    "invocation": "invocation",
    "embedding": "embedding",
    "persistencediagram": "diagram",
    "lyapunovresult": "Lyapunov result",
    "clusteringresult": "clustering result",
    "embeddingcluster": "cluster assignment",
}
"""What a person calls a row of each table."""

UNIQUE: Mapping[str, tuple[tuple[str, ...], ...]] = {
    "invocation": (("run_id", "sequence_number"),),
    "embedding": (("invocation_id", "embedding_model"),),
    "persistencediagram": (("run_id", "embedding_model"),),
}
"""The columns that are unique together where all migrations of the research tool ran.

A file that it made anew has the constraint on `embedding` alone, an older one may have none.
"""


def columns_of(db: sqlite3.Connection, table: str) -> set[str]:
    """The names of a table's columns in lower case, as SQL compares them, generated ones too; empty: no such table."""
    return {str(row[1]).lower() for row in db.execute(f"PRAGMA table_xinfo({table})") if row[6] != HIDDEN}


HIDDEN = 1
"""What `PRAGMA table_xinfo` says of a virtual table's hidden column; generated columns are 2 and 3."""


def is_missing_in_file(db: sqlite3.Connection, message: str) -> bool:
    """Whether what SQLite said it has no such table or column of is one of those above, and is indeed not there.

    A name that is misspelt in a rule is not the file's fault.
    """
    what, _, name = message.partition(": ")
    known = known_columns(db)
    existing = {table: columns_of(db, table) for table in known}
    name = name.rpartition(".")[2]
    if what == "no such table":
        return not existing.get(name, {name})
    if what != "no such column":
        return False
    if name == "rowid":
        return not all(has_rowid(db, table) for table, columns in existing.items() if columns)
    return any(name in columns and name not in existing[table] for table, columns in known.items())


def known_columns(db: sqlite3.Connection) -> dict[str, set[str]]:
    """The columns of each table that rules know: the canonical ones, and those of the file's own generation."""
    from pytest_panic_doctor.database.generation import generation_of

    known = {table: set(columns) for table, columns in TABLES.items()}
    generation = generation_of(db)
    for table in generation.tables if generation else ():
        known.setdefault(table.canonical, set()).update(column.name for column in table.columns)
    return known


def has_rowid(db: sqlite3.Connection, table: str) -> bool:
    """Whether the rows of a table that exists have a rowid: not in a view, nor in a table WITHOUT ROWID."""
    try:
        db.execute(f"SELECT rowid FROM {table} LIMIT 0")
    except sqlite3.OperationalError as error:
        if "no such column" not in str(error):
            raise
        return False
    return True
