"""Writes the rows that quarantines took to a file of their own, so that a person can look at them."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_panic_doctor.database.files import create_like, publish_new
from pytest_panic_doctor.database.schema import quote
from pytest_panic_doctor.errors import BadOption
from pytest_panic_doctor.formatting import install_extra, typed
from pytest_panic_doctor.repair.journal.choice import RepairFilter
from pytest_panic_doctor.repair.journal.errors import RepairFailed
from pytest_panic_doctor.repair.journal.identity import check_owner, journal_path
from pytest_panic_doctor.repair.journal.journal_schema import Layout, key_column, layout_of
from pytest_panic_doctor.repair.journal.locks import resolve
from pytest_panic_doctor.repair.journal.opening import connect
from pytest_panic_doctor.repair.journal.reading import exists, read_repairs
from pytest_panic_doctor.repair.journal.tables import Value

if TYPE_CHECKING:
    from pyarrow import Array

EXPORT_FLAG = "--doctor-journal-export"
SUFFIXES = (".sqlite", ".parquet")
"""The suffixes of an export, which decide its format."""

ABOUT = ("doctor_repair", "doctor_session", "doctor_time", "doctor_rule")
"""The columns before those of the row: the repair that took it."""

TAKEN = (
    "FROM wanted w JOIN repairs r ON r.id = w.repair JOIN steps s ON s.repair = r.id JOIN changes c ON c.step = s.id"
)
QUARANTINED = "c.layout IS NOT NULL AND c.after IS NULL AND s.status = 'applied' AND r.verb = 'quarantine'"
"""The rows that are in quarantine now: those of repairs that are not undone."""

ROWS_AT_ONCE = 500
"""Rows that are in memory at a time while a Parquet file is written."""


@dataclass(frozen=True, slots=True)
class _Part:
    """The rows of one table with one layout, and the columns of all its layouts."""

    table: str
    layout: Layout
    columns: tuple[str, ...]

    @property
    def query(self) -> str:
        """Selects the repair, and the columns of each row; a column that this layout does not have is NULL."""
        own = {column.lower() for column in self.layout.columns}
        values = ", ".join(f"b.{quote(each)}" if each.lower() in own else "NULL" for each in self.columns)
        images = f"{self.layout.source} b ON b.{self.layout.step} = c.step AND b.{self.layout.row} = c.row"
        return (
            f"SELECT r.id, r.session, r.time, r.rule, {values} {TAKEN} JOIN {images}"
            f" WHERE {QUARANTINED} AND c.layout = {self.layout.id}"
        )


def check_export(target: Path, database: Path) -> None:
    """Check the path of an export.

    Raises:
        BadOption: Its suffix is unknown, it exists, it has no folder, or Parquet cannot be written.
    """
    shown = typed(str(target))
    if target.suffix not in SUFFIXES:
        raise BadOption(f"{EXPORT_FLAG} {shown} has no known suffix: end it in .sqlite or .parquet")
    if os.path.lexists(target) or resolve(target) in (resolve(database), journal_path(database)):
        raise BadOption(f"{EXPORT_FLAG}: {shown} exists, and an export replaces nothing: name another file")
    if not target.parent.is_dir():
        raise BadOption(f"{EXPORT_FLAG} {shown} has no folder to be written to: make {target.parent} first")
    if target.suffix == ".parquet" and find_spec("pyarrow") is None:
        raise BadOption(f"{EXPORT_FLAG} {shown} needs pyarrow, which is not installed: {install_extra('parquet')}")


def export(
    database: Path,
    target: Path,
    only: RepairFilter,
    progress: Callable[[int, int], None] = lambda done, of: None,  # noqa: ARG005
) -> dict[str, int]:
    """Write the rows that are in quarantine to a file that does not exist; the journal is only read.

    Args:
        database: The path of the database.
        target: The file, `.sqlite` or `.parquet`.
        only: Which repairs are meant.
        progress: Called with the number of rows that are written, and of all.

    Returns:
        The number of rows of each table; empty if there are none, and then no file is written.

    Raises:
        BadOption: The file cannot be written, as `check_export` says it.
        RepairRefused: The journal belongs to another database.
        RepairFailed: The journal cannot be read, or the disk is full. Nothing is left of the file.
    """
    check_export(target, database)
    if not exists(database):
        return {}
    check_owner(database)
    path = Path(os.path.realpath(target))
    partial = path.with_name(f".doctor-export.{os.getpid()}{path.suffix}")
    wanted = [each.id for each in read_repairs(database, "status = 'applied'") if only.takes(each)]
    source = journal_path(database)
    try:
        with closing(connect(source)) as journal:
            journal.text_factory = bytes  # Text that is not UTF-8 is copied as it is.
            journal.execute("CREATE TEMP TABLE wanted (repair INTEGER PRIMARY KEY)")
            journal.executemany("INSERT INTO wanted VALUES (?)", [(each,) for each in wanted])
            parts = list(_parts(journal))
            counts = _count(journal)
            if not counts:
                return {}
            create_like(partial, resolve(database))
            write = _write_sqlite if path.suffix == ".sqlite" else _write_parquet
            write(journal, partial, parts, lambda done: progress(done, sum(counts.values())))
        publish_new(partial, path)
    except (sqlite3.Error, OSError) as error:
        raise RepairFailed(
            f"The rows of {source} could not be written to {target} ({error}): name another file, or make room."
        ) from error
    finally:
        for suffix in ("", "-journal"):
            Path(f"{partial}{suffix}").unlink(missing_ok=True)
    return counts


def _count(journal: sqlite3.Connection) -> dict[str, int]:
    query = f"SELECT lower(c.table_name), count(*) {TAKEN} WHERE {QUARANTINED} GROUP BY 1 ORDER BY 1"
    return {table.decode(): int(count) for table, count in journal.execute(query)}


def _parts(journal: sqlite3.Connection) -> Iterator[_Part]:
    """Yield the layouts that have rows in quarantine, those of one table one after the other."""
    numbers = journal.execute(
        f"SELECT DISTINCT c.layout, lower(c.table_name) {TAKEN} WHERE {QUARANTINED} ORDER BY 2, 1"
    ).fetchall()
    journal.text_factory = str
    layouts = [layout_of(journal, number) for number, _ in numbers]
    journal.text_factory = bytes
    columns: dict[str, dict[str, str]] = {}
    for layout in layouts:
        of_table = columns.setdefault(layout.table.lower(), {})
        for column in layout.columns:
            of_table.setdefault(column.lower(), column)
    for layout in layouts:
        yield _Part(layout.table.lower(), layout, tuple(columns[layout.table.lower()].values()))


def _rows(journal: sqlite3.Connection, part: _Part) -> Iterator[list[tuple[Value, ...]]]:
    cursor = journal.execute(part.query)
    while rows := cursor.fetchmany(ROWS_AT_ONCE):
        yield rows


def _about(columns: Sequence[str]) -> list[str]:
    """Return the names of the first columns, none of which the table has itself."""
    taken = [column.lower() for column in columns]
    return [key_column(name, taken) for name in ABOUT]


def _write_sqlite(
    journal: sqlite3.Connection, partial: Path, parts: Sequence[_Part], progress: Callable[[int], None]
) -> None:
    """Write each table as a table, with every value as it was, to the byte."""
    journal.execute("ATTACH ? AS export", (str(partial),))
    done = 0
    try:
        for part in parts:
            names = [*_about(part.columns), *part.columns]
            listed = ", ".join(map(quote, names))
            journal.execute("BEGIN")
            journal.execute(f"CREATE TABLE IF NOT EXISTS export.{quote(part.table)} ({listed})")
            done += journal.execute(f"INSERT INTO export.{quote(part.table)} {part.query}").rowcount
            journal.execute("COMMIT")
            progress(done)
    finally:
        if journal.in_transaction:
            journal.execute("ROLLBACK")
        journal.execute("DETACH export")


def _write_parquet(
    journal: sqlite3.Connection, partial: Path, parts: Sequence[_Part], progress: Callable[[int], None]
) -> None:
    """Write all tables to one file: the column `doctor_table` names the table, and columns of other tables are null."""
    import pyarrow
    from pyarrow import parquet

    every = list(dict.fromkeys(column.lower() for part in parts for column in part.columns))
    names = ["doctor_table", *_about(every), *every]
    kinds = _kinds(journal, parts)
    schema = pyarrow.schema([(name, getattr(pyarrow, kinds.get(name, "string"))()) for name in names])
    done = 0
    with parquet.ParquetWriter(partial, schema) as writer:
        for part in parts:
            own = ["doctor_table", *_about(every), *(column.lower() for column in part.columns)]
            for rows in _rows(journal, part):
                values = dict(zip(own, zip(*[(part.table, *row) for row in rows], strict=True), strict=True))
                arrays = [
                    _array(pyarrow.array, values.get(name, (None,) * len(rows)), str(field.type), field.type)
                    for name, field in zip(names, schema, strict=True)
                ]
                writer.write_table(pyarrow.Table.from_arrays(arrays, schema=schema))
                done += len(rows)
                progress(done)


def _kinds(journal: sqlite3.Connection, parts: Sequence[_Part]) -> Mapping[str, str]:
    """Return the type of each column by its values: of values of several types, text."""
    found: dict[str, set[str]] = {"doctor_repair": {"integer"}}
    for part in parts:
        own = [column for column in part.columns if column.lower() in {each.lower() for each in part.layout.columns}]
        for column in own:
            query = f"SELECT DISTINCT typeof({quote(column)}) FROM {part.layout.source}"
            types = {kind.decode() for (kind,) in journal.execute(query)} - {"null"}
            found.setdefault(column.lower(), set()).update(types)
    names = {"integer": "int64", "real": "float64", "text": "string", "blob": "binary"}
    return {
        column: names[next(iter(types))] if len(types) == 1 else "float64" if types == {"integer", "real"} else "string"
        for column, types in found.items()
    }


def _array(make: Callable[..., Array], values: Sequence[Value], kind: str, of: object) -> Array:
    """Make a column; a value that is not of its type becomes text, bytes that are no UTF-8 are escaped."""
    if kind != "string":
        return make(values, type=of)
    return make([_text(value) for value in values], type=of)


def _text(value: Value) -> str | None:
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    return None if value is None else str(value)
