"""Creates the tables of a generation in a new file, and adds rows to them."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping

from pytest_panic_doctor.database.generation import Generation
from pytest_panic_doctor.database.schema import quote


def create_tables(db: sqlite3.Connection, generation: Generation, *, unique: bool = True) -> None:
    """Create the tables of the newest schema of a generation, with the references that the research tool declares.

    Args:
        db: The new database.
        generation: The generation.
        unique: Whether to create the unique indexes. Without them each reference has an index, as in older files of
            the Python generation, which can hold duplicates.
    """
    run, experiment, succession = generation.real_name("run"), generation.real_name("experimentconfig"), []
    if follows := generation.succession:
        succession.append((follows.table, follows.column, follows.table))
    for table in generation.tables:
        declared = [*generation.references, (run, "experiment_id", experiment), *succession]
        references = [(column, parent) for child, column, parent in declared if child == table.name]
        parts = [f"{quote(each.name)} {each.type}{'' if each.null else ' NOT NULL'}" for each in table.columns]
        parts.append("PRIMARY KEY (id)")
        parts += [f"FOREIGN KEY ({quote(column)}) REFERENCES {quote(parent)} (id)" for column, parent in references]
        db.execute(f"CREATE TABLE {quote(table.name)} ({', '.join(parts)})")
        indexes = [columns for columns, _ in table.unique] if unique else [(column,) for column, _ in references]
        for columns in indexes:
            name, listed = "_".join(("ix", table.name, *columns)), ", ".join(map(quote, columns))
            kind = "UNIQUE INDEX" if unique else "INDEX"
            db.execute(f"CREATE {kind} {quote(name)} ON {quote(table.name)} ({listed})")


def insert(db: sqlite3.Connection, table: str, values: Mapping[str, object]) -> None:
    """Insert a row.

    Args:
        db: The database.
        table: The table.
        values: Its values, by column.
    """
    columns, places = ", ".join(map(quote, values)), ", ".join("?" * len(values))
    db.execute(f"INSERT INTO {quote(table)} ({columns}) VALUES ({places})", tuple(values.values()))
