"""The canonical tables and columns, by which the rules are written, and which columns a file has."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table in the file.

    Attributes:
        name: Its name in the newest schema.
        type: Its declared type.
        null: Whether it may be NULL.
        since: The first schema version that has it.
    """

    name: str
    type: str
    null: bool = False
    since: int = 1


def columns(*declared: str, since: Mapping[str, int] | None = None) -> tuple[Column, ...]:
    """Make columns from SQL declarations.

    Args:
        declared: Each `name TYPE` or `name TYPE NOT NULL`.
        since: The first schema version of columns that were added later.
    """
    found = []
    for text in declared:
        name, kind = text.removesuffix(" NOT NULL").split(" ", 1)
        found.append(Column(name, kind, not text.endswith(" NOT NULL"), (since or {}).get(name, 1)))
    return tuple(found)


ID_TYPE = "CHAR(32) NOT NULL"
TIMES = ("started_at DATETIME NOT NULL", "completed_at DATETIME")

CANONICAL: Mapping[str, tuple[Column, ...]] = {
    "experimentconfig": columns(
        f"id {ID_TYPE}",
        "networks JSON NOT NULL",
        "seeds JSON NOT NULL",
        "prompts JSON NOT NULL",
        "embedding_models JSON NOT NULL",
        "max_length INTEGER NOT NULL",
        "started_at DATETIME",
        "completed_at DATETIME",
    ),
    "run": columns(
        f"id {ID_TYPE}",
        "network JSON NOT NULL",
        "seed INTEGER NOT NULL",
        "max_length INTEGER NOT NULL",
        "initial_prompt VARCHAR NOT NULL",
        f"experiment_id {ID_TYPE}",
    ),
    "invocation": columns(
        f"id {ID_TYPE}",
        *TIMES,
        "model VARCHAR NOT NULL",
        "type VARCHAR(5) NOT NULL",
        "seed INTEGER NOT NULL",
        f"run_id {ID_TYPE}",
        "sequence_number INTEGER NOT NULL",
        "input_invocation_id CHAR(32)",
        "output_text VARCHAR",
        "output_image_data BLOB",
    ),
    "embedding": columns(
        f"id {ID_TYPE}",
        *TIMES,
        f"invocation_id {ID_TYPE}",
        "embedding_model VARCHAR NOT NULL",
        "vector BLOB",
    ),
    "persistencediagram": columns(
        f"id {ID_TYPE}",
        *TIMES,
        "diagram_data BLOB",
        f"run_id {ID_TYPE}",
        "embedding_model VARCHAR NOT NULL",
    ),
    "clusteringresult": columns(
        f"id {ID_TYPE}",
        "created_at DATETIME NOT NULL",
        *TIMES,
        "embedding_model VARCHAR NOT NULL",
        "algorithm VARCHAR NOT NULL",
        "parameters JSON NOT NULL",
    ),
    "embeddingcluster": columns(
        f"id {ID_TYPE}",
        f"embedding_id {ID_TYPE}",
        f"clustering_result_id {ID_TYPE}",
        "medoid_embedding_id CHAR(32)",
    ),
}
"""The columns of each table, in the order of the file."""

TABLES: Mapping[str, tuple[str, ...]] = {name: tuple(each.name for each in found) for name, found in CANONICAL.items()}
"""The names of the columns of each table."""

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

HIDDEN = 1
"""Value of `PRAGMA table_xinfo` for a hidden column of a virtual table; generated columns are 2 and 3."""


def columns_of(db: sqlite3.Connection, table: str) -> set[str]:
    """Names of a table's columns in lower case, generated ones included; empty if there is no such table."""
    return {str(row[1]).lower() for row in db.execute(f"PRAGMA table_xinfo({table})") if row[6] != HIDDEN}


def columns_of_table(db: sqlite3.Connection, table: str) -> list[str]:
    """Columns of a table of the file, as it spells them; empty if there is no such table."""
    found = db.execute(f"PRAGMA main.table_xinfo({quote(table)})")
    return [str(row[1]) for row in found if row[6] != HIDDEN]


def tables_of_file(db: sqlite3.Connection, schema: str = "main") -> set[str]:
    """Names of a file's tables and views in lower case, as SQL compares them."""
    found = db.execute(f"SELECT name FROM {schema}.sqlite_master WHERE type IN ('table', 'view')")
    return {str(name).lower() for (name,) in found}


def is_unique(db: sqlite3.Connection, table: str, columns: Collection[str]) -> bool:
    """Whether a UNIQUE index covers exactly these columns, in any order, for all rows.

    Args:
        db: The database.
        table: The table, by its name in the file.
        columns: The columns, by their names in the file, in lower case.
    """
    for _, index, unique, _, partial in db.execute(f"PRAGMA index_list({table})").fetchall():
        if unique and not partial:
            names = {str(row[2]).lower() for row in db.execute("SELECT * FROM pragma_index_info(?)", (index,))}
            if names == set(columns):
                return True
    return False


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
