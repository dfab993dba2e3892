"""The tables of a trajectory database, without expensive imports; a test compares them with `models`."""

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
"""Columns of each table, in the order of the file."""

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
"""What a user calls a row of each table."""

UNIQUE: Mapping[str, tuple[tuple[str, ...], ...]] = {
    "invocation": (("run_id", "sequence_number"),),
    "embedding": (("invocation_id", "embedding_model"),),
    "persistencediagram": (("run_id", "embedding_model"),),
}
"""Columns that are unique together if all migrations of the research tool ran.

A new file has the constraint on `embedding` alone; an older file may have none.
"""


def columns_of(db: sqlite3.Connection, table: str) -> set[str]:
    """Names of a table's columns in lower case, generated ones included; empty if there is no such table."""
    return {str(row[1]).lower() for row in db.execute(f"PRAGMA table_xinfo({table})") if row[6] != HIDDEN}


def declared_types(db: sqlite3.Connection, table: str) -> dict[str, str]:
    """Return the declared type of each column of a table, by its name in lower case."""
    return {str(row[1]).lower(): str(row[2]) for row in db.execute(f"PRAGMA table_xinfo({table})")}


def affinity(declared: str) -> str:
    """Return the type that SQLite converts a column's values to, if it can; empty if it leaves them as they are.

    Source: https://www.sqlite.org/datatype3.html, 3.1.
    """
    kinds = {
        "INTEGER": ("INT",),
        "TEXT": ("CHAR", "CLOB", "TEXT"),
        "": ("BLOB",),
        "REAL": ("REAL", "FLOA", "DOUB"),
    }
    name = declared.upper()
    found = next((kind for kind, parts in kinds.items() if any(part in name for part in parts)), "NUMERIC")
    return found if declared else ""


HIDDEN = 1
"""Value of `PRAGMA table_xinfo` for a hidden column of a virtual table; generated columns are 2 and 3."""


def is_missing_in_file(db: sqlite3.Connection, message: str) -> bool:
    """Whether the table or column that SQLite did not find is a known one that the file lacks.

    Otherwise the name is misspelt in a rule, which is not a fault of the file.

    Args:
        db: The database.
        message: SQLite's message, such as `no such column: run.seed`.
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
    """Columns of each table that rules know: the canonical ones and those of the file's generation."""
    from pytest_panic_doctor.database.generation import generation_of

    known = {table: set(columns) for table, columns in TABLES.items()}
    generation = generation_of(db)
    for table in generation.tables if generation else ():
        known.setdefault(table.canonical, set()).update(column.name for column in table.columns)
    return known


def has_rowid(db: sqlite3.Connection, table: str, alias: str = "rowid") -> bool:
    """Whether the rows of an existing table have a rowid, unlike those of a view or a table WITHOUT ROWID.

    Args:
        db: The database.
        table: The table, as SQL.
        alias: The name of the rowid.
    """
    try:
        db.execute(f"SELECT {alias} FROM {table} LIMIT 0")
    except sqlite3.OperationalError as error:
        if "no such column" not in str(error):
            raise
        return False
    return True


def quote(name: str) -> str:
    """Return a name as an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'
