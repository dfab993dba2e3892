"""Ids as no research tool writes them."""

from __future__ import annotations

import sqlite3

REFERENCES = {
    "run": (("invocation", "run_id"), ("persistencediagram", "run_id")),
    "experimentconfig": (("run", "experiment_id"),),
}
SPELLINGS = {
    "a byte 0xff": "CAST(x'ff' || substr(id, 2) AS TEXT)",
    "half a character": "CAST(substr(id, 1, 31) || x'c3' AS TEXT)",
    "upper case": "upper(id)",
    "dashes": "substr(id, 1, 8) || '-' || substr(id, 9)",
    "short": "substr(id, 1, 5)",
    "long": "id || id",
    "empty": "''",
    "a blob": "CAST(id AS BLOB)",
    "a number": "CAST(17 AS INTEGER)",
    "a backslash": "'\\xff'",
    "another letter": "replace(id, '0', 'o')",
}


def rename(db: sqlite3.Connection, table: str, row: str, spelling: str) -> None:
    """Spell the id of a row otherwise, and all that refers to it, and ruin what hangs on it."""
    db.executescript(
        f"CREATE TEMP TABLE new AS SELECT {spelling} AS id FROM {table} WHERE id = '{row}';"
        + "".join(
            f"UPDATE {child} SET {column} = (SELECT id FROM new) WHERE {column} = '{row}';"
            for child, column in REFERENCES[table]
        )
        + f"UPDATE {table} SET id = (SELECT id FROM new) WHERE id = '{row}';"
        "UPDATE embedding SET vector = NULL; DELETE FROM persistencediagram; DROP TABLE new"
    )
