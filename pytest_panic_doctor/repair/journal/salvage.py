"""Builds a new journal from what can be read of a damaged one; the damaged file is renamed, and nothing is deleted.

Records are read from the pages and inserted into a new journal, under its own constraints. They are verified later,
like those of every journal: a row is restored only if its digest is correct.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from contextlib import closing, suppress
from pathlib import Path

from pytest_panic_doctor.database.schema import quote
from pytest_panic_doctor.repair.journal import identity, journal_schema
from pytest_panic_doctor.repair.journal.errors import RepairRefused
from pytest_panic_doctor.repair.journal.journal_schema import Layout
from pytest_panic_doctor.repair.journal.locks import resolve
from pytest_panic_doctor.repair.journal.opening import connect
from pytest_panic_doctor.repair.journal.pages import Cell, Text, leaf_records
from pytest_panic_doctor.repair.journal.verification import intact_layout

Shape = tuple[type[object], ...]
"""The types that a column may have."""

INT, TEXT, BLOB, NULL = (int,), (Text,), (bytes,), (type(None),)
"""Types of columns."""
SHAPES: dict[str, tuple[Shape, ...]] = {
    "repairs": (
        *(NULL, TEXT, TEXT, TEXT, (*TEXT, *NULL), (*TEXT, *NULL), (*TEXT, *NULL), TEXT, TEXT, TEXT, INT, INT),
        *((*INT, *NULL), BLOB),
    ),
    "steps": (NULL, INT, TEXT, TEXT, BLOB),
    "layouts": (NULL, TEXT, TEXT, TEXT, BLOB),
    "changes": (
        *(NULL, INT, TEXT, INT, (int, float, bytes, Text, type(None)), (*INT, *NULL), (*BLOB, *NULL), INT),
        (*BLOB, *NULL),
    ),
}
"""The types of the columns of each table; the first column is the rowid, which is not stored in a record."""


def salvage(database: Path) -> str:
    """Replace a damaged journal by one with all that can be read of it.

    Returns:
        A sentence that names both files.

    Raises:
        RepairRefused: No repair can be read.
    """
    path = identity.journal_path(database)
    made = path.with_name(f"{path.name}.salvaged")
    made.unlink(missing_ok=True)
    with closing(connect(made, "mode=rwc")) as connection:
        with closing(sqlite3.connect(f"{resolve(database).as_uri()}?mode=ro", uri=True)) as source:
            connection.execute(f"PRAGMA encoding = '{source.execute('PRAGMA encoding').fetchone()[0]}'")
        connection.execute("PRAGMA ignore_check_constraints = ON")
        connection.execute("BEGIN IMMEDIATE")
        journal_schema.make(connection, resolve(database).name)
        _images(connection, path, _records(connection, path))
        found = connection.execute("SELECT count(*) FROM repairs").fetchone()[0]
        connection.execute("COMMIT")
    if not found:
        made.unlink()
        raise RepairRefused(
            f"The journal {path} is damaged, and no repair can be read of it: restore it from a "
            "backup, or move it away."
        )
    damaged = _free(path)
    path.rename(damaged)
    if (hot := path.with_name(f"{path.name}-journal")).exists():  # it is not the new file's
        hot.rename(damaged.with_name(f"{damaged.name}-journal"))
    made.rename(path)
    return f"the journal was damaged: what could be read of it is {path.name} now, and it itself is {damaged.name}"


def _free(path: Path) -> Path:
    """Return an unused name for the damaged journal."""
    number = 1
    while (damaged := path.with_name(f"{path.name}.damaged-{number}")).exists():
        number += 1
    return damaged


def _records(connection: sqlite3.Connection, path: Path) -> dict[int, Layout]:
    """Insert all records but the before-images; returns the intact layouts, for which tables are created."""
    for rowid, values in leaf_records(path):
        for table, shape in SHAPES.items():
            if len(values) == len(shape) and all(map(isinstance, values, shape)):
                _put(connection, table, (rowid, *values[1:]), "REPLACE" if values[-1] is not None else "IGNORE")
    layouts = {}
    for (number,) in connection.execute("SELECT id FROM layouts").fetchall():
        if layout := intact_layout(connection, number):
            with suppress(sqlite3.Error):
                journal_schema.make_images(connection, layout)
                layouts[number] = layout
    return layouts


def _images(connection: sqlite3.Connection, path: Path, layouts: dict[int, Layout]) -> None:
    """Insert each before-image into the table of the change that it belongs to."""
    for _, values in leaf_records(path):
        if len(values) < 3 or not isinstance(values[0], int) or not isinstance(values[1], int):
            continue
        for (number,) in connection.execute(
            "SELECT DISTINCT layout FROM changes WHERE step = ? AND row = ? AND layout IS NOT NULL", values[:2]
        ).fetchall():
            layout_found = layouts.get(number)
            if layout_found is not None and len(layout_found.columns) == len(values) - 2:
                _put_image(connection, layout_found, values)


def _put_image(connection: sqlite3.Connection, layout: Layout, values: tuple[Cell, ...]) -> None:
    """Insert one before-image if its digest is correct; two tables may share rowids and a number of columns."""
    step, row = values[:2]
    connection.execute("SAVEPOINT image")
    _put(connection, layout.images, values, "IGNORE")
    assert isinstance(step, int)
    assert isinstance(row, int)
    before = connection.execute(
        "SELECT before FROM changes WHERE step = ? AND row = ? AND layout = ?", (step, row, layout.id)
    ).fetchone()[0]
    if dict(journal_schema.image_digests(connection, step, layout, [row])).get(row) != before:
        connection.execute("ROLLBACK TO image")
    connection.execute("RELEASE image")


def _put(connection: sqlite3.Connection, table: str, values: Iterable[Cell], otherwise: str) -> None:
    cells = list(values)
    wide = connection.execute("PRAGMA encoding").fetchone()[0] != "UTF-8"
    marks = ", ".join("CAST(? AS TEXT)" if isinstance(cell, Text) and not wide else "?" for cell in cells)
    given = [cell.data if isinstance(cell, Text) else cell for cell in cells]
    done = connection.execute(f"INSERT OR {otherwise} INTO {quote(table)} VALUES ({marks})", given)
    if not wide or done.rowcount != 1:
        return
    # A parameter that is a BLOB is cast as if it were UTF-8; a column, in the encoding of the file.
    columns = [row[1] for row in connection.execute(f"PRAGMA table_info({quote(table)})")]
    rowid = next(name for name in ("rowid", "_rowid_", "oid") if name not in {column.lower() for column in columns})
    texts = [quote(name) for name, cell in zip(columns, cells, strict=True) if isinstance(cell, Text)]
    if texts:
        changes = ", ".join(f"{name} = CAST({name} AS TEXT)" for name in texts)
        connection.execute(f"UPDATE {quote(table)} SET {changes} WHERE {rowid} = ?", (done.lastrowid,))
