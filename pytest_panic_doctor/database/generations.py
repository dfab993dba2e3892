"""The generations of the research tool's database that are known, and the one that a file is of."""

from __future__ import annotations

import sqlite3

from pytest_panic_doctor.database.elixir_generation import ELIXIR
from pytest_panic_doctor.database.generation import Generation
from pytest_panic_doctor.database.python_generation import PYTHON
from pytest_panic_doctor.database.schema import NOUNS, TABLES, columns_of, has_rowid, tables_of_file

ADDED: list[Generation] = []
"""The generations of the hook `pytest_doctor_generations`, in this process."""


def generations() -> tuple[Generation, ...]:
    """All known generations, the canonical one first."""
    return PYTHON, ELIXIR, *ADDED


def generation_of(db: sqlite3.Connection, schema: str = "main") -> Generation | None:
    """Find the generation of a file: the one of which it has the most tables.

    Args:
        db: Any connection to the file.
        schema: The name under which the file is attached.

    Returns:
        None if it has no known table.
    """
    existing = tables_of_file(db, schema)
    counts = [(sum(table.name in existing for table in each.tables), each) for each in generations()]
    most, best = max(counts, key=lambda counted: counted[0])
    return best if most else None


def names_of_table(canonical: str) -> list[str]:
    """Names that a canonical table has in the files of all generations, the canonical one among them."""
    return list(dict.fromkeys([canonical, *(each.real_name(canonical) for each in generations())]))


def noun_of(table: str) -> str:
    """What a user calls a row of a table, by its canonical name or its name in a file; empty for an unknown table."""
    known = next((found for each in generations() if (found := each.canonical_name(table)) in NOUNS), table)
    return NOUNS.get(known, "")


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
    known = {table: set(columns) for table, columns in TABLES.items()}
    generation = generation_of(db)
    for table in generation.tables if generation else ():
        known.setdefault(table.canonical, set()).update(column.name for column in table.columns)
    return known
