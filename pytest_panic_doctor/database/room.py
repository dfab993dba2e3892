"""What a process may hold in memory at once, and what is refused by name because it is more.

SQLite itself refuses a value above its limit of length before it has room for it, on a connection that was told
(https://www.sqlite.org/c3ref/limit.html): so nothing is read that does not fit, whichever query meets it.
"""

from __future__ import annotations

import os
import sqlite3
from dataclasses import dataclass

from pytest_panic_doctor.compute.memory import available_memory, resident
from pytest_panic_doctor.database.schema import NOUNS, TABLES
from pytest_panic_doctor.errors import DoctorError
from pytest_panic_doctor.formatting import format_size

MEMORY_SHARE = 0.8
"""The part of the available memory that is used where `--doctor-memory` was not given."""

CONTROLLER_BYTES = 120_000_000
"""Bytes of a pytest that has workers."""

LEAST_ROOM = 32_000_000
"""Bytes that are always held: there are vectors and diagrams of no other size."""

VALUE_COPIES = 4
"""How often a value is in memory where it is read: in SQLite, in Python, in an array and in what is made of it."""

JSON_FACTOR = 24
"""Bytes of Python objects that one character of JSON can become: `[],` is a list of 56 and its place in another."""

TOO_BIG = "SQLITE_TOOBIG"


ROWS_OF_EXPERIMENT = {
    "experimentconfig": "experimentconfig t WHERE t.id",
    "run": "run t WHERE t.experiment_id",
    "invocation": "run r JOIN invocation t ON t.run_id = r.id WHERE r.experiment_id",
    "embedding": "run r JOIN invocation i ON i.run_id = r.id JOIN embedding t ON t.invocation_id = i.id "
    "WHERE r.experiment_id",
    "persistencediagram": "run r JOIN persistencediagram t ON t.run_id = r.id WHERE r.experiment_id",
}
"""The rows of an experiment in each table that has long values."""


class TooLarge(DoctorError):
    """What does not fit; the text is one sentence that names it, and `table` and `id` the row, where it is one."""

    def __init__(self, sentence: str, table: str | None = None, id: str | None = None) -> None:  # noqa: A002
        """`id` as stored."""
        super().__init__(sentence)
        self.table = table
        self.id = id


@dataclass(frozen=True, slots=True)
class MemoryRoom:
    """`bytes` that may be held at once; `limit` is what all processes together may have, `given` if by the user."""

    bytes: int = 512_000_000
    limit: int = 1_000_000_000
    given: bool = False

    @property
    def value(self) -> int:
        """The largest value that is read from the database."""
        return min(self.bytes // VALUE_COPIES, 2**30)

    @property
    def json(self) -> int:
        """The longest JSON that is parsed, in characters."""
        return self.bytes // JSON_FACTOR

    def checked_json(self, text: object, column: str, experiment: str) -> object:
        """A JSON column of an experiment as it is; raises `TooLarge` where it is longer than what is parsed."""
        self.check_json(len(text) if isinstance(text, str | bytes) else 0, column, experiment)
        return text

    def check_json(self, size: int, column: str, experiment: str) -> None:
        """Raise `TooLarge` where a JSON column of an experiment has more characters than are parsed."""
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
        """The refusal of something of `size` bytes where `most` (default: a value) are the most that fit.

        Args:
            what: What it is, as the beginning of a sentence.
            size: Its bytes.
            most: The bytes that would fit.
            table: The table of the row that it is in.
            id: The id of that row.
        """
        return TooLarge(
            f"{what} is {format_size(size)}, {self.refusal(size, self.value if most is None else most)}", table, id
        )

    def too_large_unsized(self, what: str, fits: int) -> TooLarge:
        """The refusal of something that went on until `fits` bytes were not enough; how much would be is not known."""
        return TooLarge(f"{what}, {self.refusal(2 * fits, fits)}")

    def refusal(self, size: int, fits: int) -> str:
        """The end of a sentence about something of `size` bytes, of which only `fits` do."""
        leaves = "--doctor-memory leaves" if self.given else "the free memory leaves"
        more = next_size(self.limit * max(2.0, 1.5 * size / max(fits, 1)))
        unit = format_size(more).replace(" ", "").replace(".0", "")
        return f"and {leaves} {format_size(max(fits, 0))} for it: give --doctor-memory {unit}"


def next_size(size: float) -> float:
    """The next of 1, 2, 5, 10 … times a power of ten."""
    power = 10.0 ** (len(str(int(size))) - 1)
    return next(each for each in (power, 2 * power, 5 * power, 10 * power) if each >= size)


def memory_room(memory: int | None, workers: int = 1, *, beside: bool = False) -> MemoryRoom:
    """What this process may hold beside what it has.

    Args:
        memory: The limit of all processes in bytes; None: 80 % of what is free.
        workers: How many processes run items.
        beside: Whether this is one of them, beside a controlling pytest.
    """
    limit = memory or int(MEMORY_SHARE * available_memory())
    own = resident(os.getpid()) if memory else 0
    each = (limit - (CONTROLLER_BYTES if beside else 0)) // max(1, workers) - own
    return MemoryRoom(max(LEAST_ROOM, each), limit, memory is not None)


def is_too_big(error: sqlite3.Error) -> bool:
    """Whether SQLite refused a value for its length."""
    return getattr(error, "sqlite_errorname", "") == TOO_BIG


def name_too_large(db: sqlite3.Connection, space: MemoryRoom, experiment: str | None = None) -> TooLarge:
    """The refusal of the first value above the limit: in the rows of one experiment, or of all.

    Texts are opened and not read: SQLite tells the length of a blob without reading it, of a text only so.
    """
    for table, rows in ROWS_OF_EXPERIMENT.items():
        existing = {str(row[1]) for row in db.execute(f"PRAGMA table_info({table})")}
        columns = [column for column in TABLES[table] if column in existing]
        sizes = ", ".join(f"CASE typeof(t.{c}) WHEN 'blob' THEN length(t.{c}) WHEN 'text' THEN -1 END" for c in columns)
        source = f"{rows} = ?" if experiment else f"{table} t WHERE ? IS NULL"
        for rowid, *found in db.execute(f"SELECT t.rowid, {sizes} FROM {source}", (experiment,)):
            for column, size in zip(columns, found, strict=True):
                real = text_size(db, table, column, rowid) if size == -1 else size or 0
                if real > space.value:
                    ((row_id,),) = db.execute(f"SELECT id FROM {table} WHERE rowid = ?", (rowid,)).fetchall()
                    what = f"the column {column} of {NOUNS[table]} {row_id}"
                    return space.too_large(what, real, table=table, id=str(row_id))
    return space.too_large("a value", space.value)


def text_size(db: sqlite3.Connection, table: str, column: str, rowid: int) -> int:
    """The bytes of a text, which is not read; 0 where it is gone."""
    try:
        with db.blobopen(table, column, rowid, readonly=True) as text:
            return len(text)
    except sqlite3.OperationalError:
        return 0
