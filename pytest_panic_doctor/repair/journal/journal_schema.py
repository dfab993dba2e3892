"""The tables of a journal: their schema, its migration, and the seals that reveal a damaged record.

Every record that is written once has a seal, a SHA-256 of its values: a repair, a step with all its changes, a layout.
Every before-image has its digest in `changes`. Status and counts, which change later, have allowed values instead.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from pytest_panic_doctor.database.schema import quote
from pytest_panic_doctor.repair.journal.tables import Table, Value, as_json, digests

T = TypeVar("T")

SCHEMA_VERSION = 2
"""The version of the schema that this package writes."""

SCHEMA_1 = """
CREATE TABLE schema_version (version INTEGER NOT NULL, database TEXT NOT NULL);
CREATE TABLE repairs (
    id INTEGER PRIMARY KEY, session TEXT NOT NULL, time TEXT NOT NULL, rule TEXT NOT NULL,
    experiment TEXT, run TEXT, embedding_model TEXT, verb TEXT NOT NULL, doctor_version TEXT NOT NULL,
    status TEXT NOT NULL CHECK (status IN ('intended', 'applied', 'undone', 'abandoned')),
    rows INTEGER NOT NULL, bytes INTEGER NOT NULL, undoes INTEGER REFERENCES repairs (id)
);
CREATE TABLE steps (
    id INTEGER PRIMARY KEY, repair INTEGER NOT NULL REFERENCES repairs (id), time TEXT NOT NULL,
    status TEXT NOT NULL CHECK (status IN ('intended', 'applied', 'abandoned'))
);
CREATE INDEX steps_of_repair ON steps (repair);
CREATE INDEX open_steps ON steps (id) WHERE status = 'intended';
CREATE TABLE layouts (id INTEGER PRIMARY KEY, table_name TEXT NOT NULL, columns TEXT NOT NULL, images TEXT NOT NULL);
CREATE TABLE changes (
    id INTEGER PRIMARY KEY, step INTEGER NOT NULL REFERENCES steps (id), table_name TEXT NOT NULL, row INTEGER NOT NULL,
    key, layout INTEGER REFERENCES layouts (id), after BLOB, bytes INTEGER NOT NULL
);
CREATE INDEX changes_of_step ON changes (step);
CREATE INDEX changes_of_row ON changes (table_name, row);
CREATE TABLE pace (ended REAL NOT NULL, rested REAL NOT NULL);
INSERT INTO pace VALUES (0, 0);
"""
# changes: without `layout` the row was added, without `after` it was removed, with both it was changed. `before` and
# `after` are SHA-256 of the row's image before and after.
# layouts.images names the table `before_…` that holds the before-images: step, row, then the columns.

ADDED_IN_2 = """
ALTER TABLE repairs ADD COLUMN seal BLOB;
ALTER TABLE steps ADD COLUMN seal BLOB;
ALTER TABLE layouts ADD COLUMN seal BLOB;
ALTER TABLE changes ADD COLUMN before BLOB;
CREATE TABLE witnesses (table_name TEXT NOT NULL, key NOT NULL, PRIMARY KEY (table_name, key)) WITHOUT ROWID;
UPDATE schema_version SET version = 2;
"""
# witnesses: ids of experiments and runs that the database had; see `identity`.

SCHEMA = SCHEMA_1 + ADDED_IN_2
"""The schema of a new journal, made by the migration, so that new and migrated journals are equal."""

REPAIR_STATES = ("intended", "applied", "undone", "abandoned")
"""The allowed values of the status of a repair."""
STEP_STATES = ("intended", "applied", "abandoned")
"""The allowed values of the status of a step."""

SEAL_BATCH = 5_000
"""The number of changes that are in memory at a time."""


@dataclass(frozen=True, slots=True)
class Layout:
    """The columns that a table had when rows of it were copied, and the journal's table of the copies.

    Attributes:
        id: The number of the layout.
        table: The name of the table.
        columns: The names of its columns, in their order.
        images: The name of the journal's table.
    """

    id: int
    table: str
    columns: tuple[str, ...]
    images: str

    @property
    def step(self) -> str:
        """The column of the step in the table of copies, as an SQL identifier."""
        return quote(key_column("doctor_step", self.columns))

    @property
    def row(self) -> str:
        """The column of the rowid in the table of copies, as an SQL identifier."""
        return quote(key_column("doctor_row", self.columns))

    @property
    def source(self) -> str:
        """The table of copies, as an SQL identifier."""
        return quote(self.images)

    @property
    def column_list(self) -> str:
        """The columns as SQL identifiers, separated by commas."""
        return ", ".join(quote(column) for column in self.columns)


def key_column(name: str, columns: Iterable[str]) -> str:
    """Append underscores to a name until it differs from all of the columns."""
    taken = {column.lower() for column in columns}
    while name in taken:
        name += "_"
    return name


def make(connection: sqlite3.Connection, database: str) -> None:
    """Create the tables of a new journal, inside the caller's transaction.

    Args:
        connection: The journal.
        database: The file name of the database.
    """
    for statement in SCHEMA.split(";")[:-1]:
        connection.execute(statement)
    connection.execute("INSERT INTO schema_version VALUES (?, ?)", (SCHEMA_VERSION, database))


def migrate(connection: sqlite3.Connection) -> None:
    """Migrate a journal of version 1, inside the caller's transaction.

    Version 1 had no digests. They are computed from the before-images as they are now, so earlier damage is not
    noticed.
    """
    for statement in ADDED_IN_2.split(";")[:-1]:
        connection.execute(statement)
    for (number,) in connection.execute("SELECT id FROM layouts").fetchall():
        layout = layout_of(connection, number)
        seal_layout(connection, layout)
        for (step,) in connection.execute(f"SELECT DISTINCT {layout.step} FROM {layout.source}").fetchall():
            kept = image_digests(connection, step, layout)
            record_before(connection, step, layout.table, kept)
    for (step,) in connection.execute("SELECT id FROM steps").fetchall():
        seal_step(connection, step)
    for (repair,) in connection.execute("SELECT id FROM repairs").fetchall():
        seal_repair(connection, repair)


# --- layouts and images


def layout_for(connection: sqlite3.Connection, table: Table) -> Layout:
    """Return the layout with exactly the columns of a table.

    A new one is created inside the caller's transaction.
    """
    columns = json.dumps(table.columns)
    found = connection.execute(
        "SELECT id FROM layouts WHERE table_name = ? AND columns = ?", (table.name, columns)
    ).fetchone()
    if found is not None:
        return layout_of(connection, found[0])
    number = connection.execute("SELECT coalesce(max(id), 0) + 1 FROM layouts").fetchone()[0]
    made = Layout(number, table.name, table.columns, f"before_{table.name}_{number}")
    make_images(connection, made)
    connection.execute(
        "INSERT INTO layouts (id, table_name, columns, images) VALUES (?, ?, ?, ?)",
        (number, made.table, columns, made.images),
    )
    seal_layout(connection, made)
    return made


def make_images(connection: sqlite3.Connection, layout: Layout) -> None:
    """Create the table for the before-images of a layout."""
    connection.execute(
        f"CREATE TABLE {layout.source} ({layout.step} INTEGER NOT NULL, {layout.row} INTEGER NOT NULL,"
        f" {layout.column_list}, PRIMARY KEY ({layout.step}, {layout.row}))"
    )


def layout_of(connection: sqlite3.Connection, number: int) -> Layout:
    """Return the layout with an id.

    Raises:
        sqlite3.DatabaseError: It is missing or damaged.
    """
    row = connection.execute("SELECT id, table_name, columns, images FROM layouts WHERE id = ?", (number,)).fetchone()
    if row is None:
        raise sqlite3.DatabaseError(f"layout {number} is missing")
    try:
        columns = tuple(str(column) for column in json.loads(row[2]))
    except (TypeError, ValueError):
        raise sqlite3.DatabaseError(f"layout {number} is damaged") from None
    return Layout(row[0], row[1], columns, row[3])


def image_digests(
    connection: sqlite3.Connection, step: int, layout: Layout, rows: Iterable[int] | None = None
) -> Iterator[tuple[int, bytes]]:
    """Yield (rowid, digest) of before-images, in the order of rowids.

    Args:
        connection: The journal.
        step: The step.
        layout: The layout of the before-images.
        rows: The rowids; None for all of the step.
    """
    where, parameters = f"{layout.step} = :step", dict[str, Value](step=step)
    if rows is not None:
        where += f" AND {layout.row} IN (SELECT value FROM json_each(:rows))"
        parameters["rows"] = as_json(rows)
    return digests(connection, layout.source, layout.row, layout.columns, where, parameters)


def record_before(connection: sqlite3.Connection, step: int, table: str, found: Iterable[tuple[int, bytes]]) -> None:
    """Store the digests of before-images, given as (rowid, digest)."""
    connection.executemany(
        "UPDATE changes SET before = ? WHERE step = ? AND table_name = ? AND row = ?",
        [(digest, step, table, row) for row, digest in found],
    )


def change_batches(
    connection: sqlite3.Connection, make: Callable[..., T], columns: str, where: str, parameters: tuple[Value, ...]
) -> Iterator[list[T]]:
    """Yield recorded changes in lists of at most `SEAL_BATCH`, in the order of their ids.

    Args:
        connection: The journal.
        make: Makes an object of the id and the columns.
        columns: What is selected of the table `changes`, called `c`.
        where: The SQL condition.
        parameters: Its parameters.
    """
    last = 0
    query = f"SELECT c.id, {columns} FROM changes c WHERE {where} AND c.id > ? ORDER BY c.id LIMIT ?"
    while found := connection.execute(query, (*parameters, last, SEAL_BATCH)).fetchall():
        yield [make(*row) for row in found]
        last = found[-1][0]


# --- seals


def _sealed(*values: object) -> bytes:
    return hashlib.sha256(repr(values).encode()).digest()


def layout_seal(layout: Layout) -> bytes:
    """Return the seal of a layout."""
    return _sealed(layout.id, layout.table, layout.columns, layout.images)


def seal_layout(connection: sqlite3.Connection, layout: Layout) -> None:
    """Seal a layout, inside the caller's transaction."""
    connection.execute("UPDATE layouts SET seal = ? WHERE id = ?", (layout_seal(layout), layout.id))


def repair_seal(connection: sqlite3.Connection, repair: int) -> bytes:
    """Return the seal of a repair: all of its values but status and counts."""
    row = connection.execute(
        "SELECT id, session, time, rule, experiment, run, embedding_model, verb, doctor_version, undoes"
        " FROM repairs WHERE id = ?",
        (repair,),
    ).fetchone()
    return _sealed(*row)


def seal_repair(connection: sqlite3.Connection, repair: int) -> None:
    """Seal a repair, inside the caller's transaction."""
    connection.execute("UPDATE repairs SET seal = ? WHERE id = ?", (repair_seal(connection, repair), repair))


def step_seal(connection: sqlite3.Connection, step: int) -> bytes:
    """Return the seal of a step: its repair, and all that is recorded about its rows."""
    total = hashlib.sha256()
    for owner in connection.execute("SELECT id, repair FROM steps WHERE id = ?", (step,)):
        total.update(repr(owner).encode())
    for row in connection.execute(
        "SELECT id, table_name, row, typeof(key), CASE typeof(key) WHEN 'text' THEN CAST(key AS BLOB) ELSE key END,"
        " layout, after, bytes, before FROM changes WHERE step = ? ORDER BY id",
        (step,),
    ):
        total.update(repr(row).encode())
    return total.digest()


def seal_step(connection: sqlite3.Connection, step: int) -> None:
    """Seal a step as it is recorded now, inside the caller's transaction."""
    connection.execute("UPDATE steps SET seal = ? WHERE id = ?", (step_seal(connection, step), step))


def sealed(connection: sqlite3.Connection, step: int) -> bytes | None:
    """Return the stored seal of a step."""
    row = connection.execute("SELECT seal FROM steps WHERE id = ?", (step,)).fetchone()
    return None if row is None else row[0]
