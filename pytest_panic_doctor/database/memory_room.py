"""Memory that a process may use for values of the database, and the refusal of larger ones.

SQLite refuses a value above its limit of length before it allocates memory (https://www.sqlite.org/c3ref/limit.html),
so the limit holds for every query.
"""

from __future__ import annotations

import os
import sqlite3
from dataclasses import dataclass

from pytest_panic_doctor.compute.memory import available_memory, resident
from pytest_panic_doctor.database.generations import generation_of
from pytest_panic_doctor.database.python_generation import PYTHON
from pytest_panic_doctor.database.schema import NOUNS, columns_of_table, quote
from pytest_panic_doctor.errors import DoctorError
from pytest_panic_doctor.formatting import format_size

MEMORY_SHARE = 0.8
"""Fraction of the available memory that is used without `--doctor-memory`."""

CONTROLLER_BYTES = 120_000_000
"""Bytes of a pytest that has workers."""

LEAST_ROOM = 32_000_000
"""Bytes that are always available, enough for any vector or diagram."""

VALUE_COPIES = 4
"""Copies of a value in memory: in SQLite, in Python, in an array and in the result."""

JSON_FACTOR = 24
"""Bytes of Python objects that one character of JSON can become: `[],` is a list of 56 and a pointer to it."""

TOO_BIG = "SQLITE_TOOBIG"


ROWS_OF_EXPERIMENT = {
    "experimentconfig": "experimentconfig t WHERE t.id",
    "run": "run t WHERE t.experiment_id",
    "invocation": "run r JOIN invocation t ON t.run_id = r.id WHERE r.experiment_id",
    "embedding": "run r JOIN invocation i ON i.run_id = r.id JOIN embedding t ON t.invocation_id = i.id "
    "WHERE r.experiment_id",
    "persistencediagram": "run r JOIN persistencediagram t ON t.run_id = r.id WHERE r.experiment_id",
    "lyapunovresult": "lyapunovresult t WHERE t.experiment_id",
}
"""SQL for the rows of an experiment in each table with long values."""


class TooLarge(DoctorError):
    """Raised for something that does not fit; the message is one sentence that names it."""

    def __init__(self, sentence: str, table: str | None = None, id: str | None = None) -> None:  # noqa: A002
        """Set the message, and the table and id of the row, if it is in a row."""
        super().__init__(sentence)
        self.table = table
        self.id = id


@dataclass(frozen=True, slots=True)
class MemoryRoom:
    """Memory that one process may use.

    Attributes:
        bytes: Bytes that may be used at once.
        limit: Limit of all processes together.
        given: Whether the user gave the limit.
    """

    bytes: int = 512_000_000
    limit: int = 1_000_000_000
    given: bool = False

    @property
    def value(self) -> int:
        """Bytes of the largest value that is read from the database."""
        return min(self.bytes // VALUE_COPIES, 2**30)

    @property
    def json(self) -> int:
        """Characters of the longest JSON that is parsed."""
        return self.bytes // JSON_FACTOR

    def checked_json(self, text: object, column: str, experiment: str) -> object:
        """Return a JSON column of an experiment; raises `TooLarge` if it is too long to parse."""
        self.check_json(len(text) if isinstance(text, str | bytes) else 0, column, experiment)
        return text

    def check_json(self, size: int, column: str, experiment: str) -> None:
        """Raise `TooLarge` if a JSON column of an experiment has too many characters to parse."""
        if size > self.json:
            what = f"the column {column} of experiment {experiment}"
            raise self.too_large(what, size, self.json, table="experimentconfig", id=experiment)

    def too_large(
        self,
        what: str,
        size: int,
        most: int | None = None,
        *,
        table: str | None = None,
        id: str | None = None,  # noqa: A002
    ) -> TooLarge:
        """Make the refusal of something of known size.

        Args:
            what: Its name, as the beginning of a sentence.
            size: Its bytes.
            most: Bytes that would fit; None for the limit of a value.
            table: Table of its row.
            id: Id of its row.
        """
        return TooLarge(
            f"{what} is {format_size(size)}, {self.refusal(size, self.value if most is None else most)}", table, id
        )

    def too_large_unsized(self, what: str, fits: int) -> TooLarge:
        """Make the refusal of something that needs more than `fits` bytes, of unknown size."""
        return TooLarge(f"{what}, {self.refusal(2 * fits, fits)}")

    def refusal(self, size: int, fits: int) -> str:
        """End of a sentence about something of `size` bytes of which only `fits` are available."""
        leaves = "--doctor-memory leaves" if self.given else "the free memory leaves"
        more = next_size(self.limit * max(2.0, 1.5 * size / max(fits, 1)))
        unit = format_size(more).replace(" ", "").replace(".0", "")
        return f"and {leaves} {format_size(max(fits, 0))} for it: give --doctor-memory {unit}"


def next_size(size: float) -> float:
    """The next of 1, 2, 5, 10 … times a power of ten."""
    power = 10.0 ** (len(str(int(size))) - 1)
    return next(each for each in (power, 2 * power, 5 * power, 10 * power) if each >= size)


def memory_room(memory: int | None, workers: int = 1, *, is_worker: bool = False) -> MemoryRoom:
    """Compute what this process may use in addition to its present memory.

    Args:
        memory: Limit of all processes in bytes; None for 80 % of the free memory.
        workers: Number of processes that run items.
        is_worker: Whether this process is an xdist worker.
    """
    limit = memory or int(MEMORY_SHARE * available_memory())
    own = resident(os.getpid()) if memory else 0
    each = (limit - (CONTROLLER_BYTES if is_worker else 0)) // max(1, workers) - own
    return MemoryRoom(max(LEAST_ROOM, each), limit, memory is not None)


def is_too_big(error: sqlite3.Error) -> bool:
    """Whether SQLite refused a value because of its length."""
    return getattr(error, "sqlite_errorname", "") == TOO_BIG


def name_too_large(db: sqlite3.Connection, space: MemoryRoom, experiment: str | None = None) -> TooLarge:
    """Make the refusal of the first value above the limit, in the rows of one experiment or of all.

    Texts are opened and not read: SQLite knows the length of a blob without reading it, but not that of a text. That
    takes the file's own tables: a view cannot be opened so, and may compute with the value.
    """
    for table in (generation_of(db) or PYTHON).tables:
        rows = ROWS_OF_EXPERIMENT.get(table.canonical)
        columns = columns_of_table(db, table.name)
        if not columns or (experiment and rows is None):
            continue
        source = f"main.{quote(table.name)}"
        values = [f"v.{quote(column)}" for column in columns]
        sizes = ", ".join(f"CASE typeof({v}) WHEN 'blob' THEN length({v}) WHEN 'text' THEN -1 END" for v in values)
        where = f"v.rowid IN (SELECT t.rowid FROM {rows} = ?)" if experiment else "? IS NULL"
        for rowid, *found in db.execute(f"SELECT v.rowid, {sizes} FROM {source} v WHERE {where}", (experiment,)):
            for column, size in zip(columns, found, strict=True):
                real = text_size(db, table.name, column, rowid) if size == -1 else size or 0
                if real > space.value:
                    ((row_id,),) = db.execute(f"SELECT id FROM {source} WHERE rowid = ?", (rowid,)).fetchall()
                    what = f"the column {column} of {NOUNS[table.canonical]} {row_id}"
                    return space.too_large(what, real, table=table.canonical, id=str(row_id))
    return space.too_large("a value", space.value)


def text_size(db: sqlite3.Connection, table: str, column: str, rowid: int) -> int:
    """Bytes of a text, without reading it; 0 if it is gone."""
    try:
        with db.blobopen(table, column, rowid, readonly=True) as text:
            return len(text)
    except sqlite3.OperationalError:
        return 0
