"""The tables of a database as SQLite stores them: columns, rowid, the size of a row, and a digest of its values."""

from __future__ import annotations

import hashlib
import json
import sqlite3
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from pytest_panic_doctor.database.generation import Generation
from pytest_panic_doctor.database.generations import generation_of
from pytest_panic_doctor.database.python_generation import PYTHON
from pytest_panic_doctor.database.schema import has_rowid, quote
from pytest_panic_doctor.formatting import printable
from pytest_panic_doctor.repair.journal.errors import RepairRefused

Value = int | float | str | bytes | None
"""A value of a column."""

MAX_ROWID = 2**63 - 1
"""The largest rowid."""


@dataclass(frozen=True, slots=True)
class Table:
    """A table with a rowid and an `id`.

    Attributes:
        name: The name.
        columns: The stored columns, in the order of the file.
        rowid: The name by which the rowid is selected.
    """

    name: str
    columns: tuple[str, ...]
    rowid: str

    @property
    def quoted(self) -> str:
        """The name as an SQL identifier."""
        return quote(self.name)

    @property
    def column_list(self) -> str:
        """The columns as SQL identifiers, separated by commas."""
        return ", ".join(quote(column) for column in self.columns)

    @property
    def size(self) -> str:
        """SQL for the bytes of a row's values; `length()` of a BLOB column does not read its overflow pages."""
        return " + ".join(
            f"CASE typeof({c}) WHEN 'blob' THEN length({c}) WHEN 'text' THEN length(CAST({c} AS BLOB))"
            f" WHEN 'null' THEN 0 ELSE 8 END"
            for c in map(quote, self.columns)
        )


def generation_of_file(connection: sqlite3.Connection, schema: str = "main") -> Generation:
    """Return the generation of a file, the Python generation for one without a known table.

    Args:
        connection: The database.
        schema: The name under which the file is attached.
    """
    return generation_of(connection, schema) or PYTHON


def check_name(name: str) -> None:
    """Check that the name of a table is UTF-8; one in a damaged journal may not be, and SQLite does not accept it.

    Raises:
        RepairRefused: It is not UTF-8.
    """
    try:
        name.encode()
    except UnicodeEncodeError:
        raise RepairRefused(
            f"The database has no ordinary table {printable(name)}: the doctor does not repair it."
        ) from None


def describe(connection: sqlite3.Connection, name: str, schema: str = "main") -> Table:
    """Return the table of a name.

    Args:
        connection: The database.
        name: The name of the table.
        schema: The name under which the database is attached.

    Raises:
        RepairRefused: It is not an ordinary table with a rowid and an `id`.
    """
    found = connection.execute(
        f"SELECT type, sql FROM {schema}.sqlite_master WHERE lower(name) = lower(?) AND type IN ('table', 'view')",
        (name,),
    ).fetchone()
    if found is None or found[0] != "table" or str(found[1]).lstrip().upper().startswith("CREATE VIRTUAL"):
        raise RepairRefused(f"The database has not an ordinary table {name}: the doctor does not repair it.")
    columns = tuple(row[1] for row in connection.execute(f"PRAGMA {schema}.table_xinfo({quote(name)})") if row[6] == 0)
    lower = {column.lower() for column in columns}
    rowid = next((alias for alias in ("rowid", "_rowid_", "oid") if alias not in lower), None)
    if rowid is None or "id" not in lower or not has_rowid(connection, f"{schema}.{quote(name)}", rowid):
        raise RepairRefused(f"Table {name} has no id or no rowid: the doctor does not repair it.")
    return Table(name, columns, rowid)


def writable(connection: sqlite3.Connection, name: str) -> Table:
    """Return the table of a name, if it can be repaired.

    Args:
        connection: The database.
        name: Its name in the file, or its canonical name.

    Raises:
        RepairRefused: It is not an ordinary table, or it has a trigger, which would change rows without a before-image.
    """
    name = generation_of_file(connection).real_name(name)
    trigger = connection.execute(
        "SELECT name FROM main.sqlite_master WHERE type = 'trigger' AND lower(tbl_name) = lower(?)", (name,)
    ).fetchone()
    if trigger is not None:
        raise RepairRefused(
            f"Table {name} has the trigger {trigger[0]}, which could change rows that the journal does not know: "
            "drop it, then run again."
        )
    return describe(connection, name)


def tables(connection: sqlite3.Connection, schema: str = "main") -> set[str]:
    """Return the names of the tables of a database."""
    return {row[0] for row in connection.execute(f"SELECT name FROM {schema}.sqlite_master WHERE type = 'table'")}


def as_json(rowids: Iterable[int]) -> str:
    """Return rowids as one SQL parameter, for `IN (SELECT value FROM json_each(:rows))`."""
    return json.dumps(list(rowids))


def digests(
    connection: sqlite3.Connection,
    source: str,
    key: str,
    columns: Iterable[str],
    where: str,
    parameters: dict[str, Value],
) -> Iterator[tuple[int, bytes]]:
    """Yield (key, SHA-256 of names, types and bytes of the columns) of rows; one row is in memory at a time.

    Text is hashed as the bytes in the file, so that text that is invalid in its encoding has a digest too.

    Args:
        connection: The database.
        source: The table, as an SQL identifier.
        key: The column that identifies a row, as an SQL identifier.
        columns: The columns that are hashed.
        where: The SQL condition of the rows.
        parameters: The parameters of the condition.
    """
    names = [column.encode() for column in columns]
    values = ", ".join(
        f"typeof({c}), CASE typeof({c}) WHEN 'text' THEN CAST({c} AS BLOB) ELSE {c} END" for c in map(quote, columns)
    )
    for row in connection.execute(f"SELECT {key}, {values} FROM {source} WHERE {where} ORDER BY {key}", parameters):
        yield row[0], _digest(names, row)


def _digest(names: list[bytes], row: tuple[Value, ...]) -> bytes:
    total = hashlib.sha256()
    for position, name in enumerate(names):
        kind, value = row[1 + 2 * position], row[2 + 2 * position]
        data = _bytes(value)
        total.update(b"%s\0%s\0%d\0" % (name, str(kind).encode(), len(data)))
        total.update(data)
    return total.digest()


def _bytes(value: Value) -> bytes:
    if value is None:
        return b""
    if isinstance(value, bytes):
        return value
    if isinstance(value, float):
        return struct.pack("<d", value)
    return str(value).encode()


def table_digests(
    connection: sqlite3.Connection, table: Table, rowids: Iterable[int], schema: str = "main"
) -> dict[int, bytes]:
    """Return the digest of each row that exists, by its rowid."""
    return dict(
        digests(
            connection,
            f"{schema}.{table.quoted}",
            table.rowid,
            table.columns,
            f"{table.rowid} IN (SELECT value FROM json_each(:rows))",
            {"rows": as_json(rowids)},
        )
    )
