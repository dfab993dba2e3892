"""What a generation of the research tool's database is: its tables, and how it spells ids, times and diagrams.

Rules are written once, against the canonical tables, which are those of the Python generation
(`schema.TABLES`). A file of another generation gets temporary views under their names when a connection opens:
they live in SQLite's temporary schema, so that nothing is written to the file, and SQLite reads through them by the
file's own indexes (https://www.sqlite.org/optoverview.html#flattening). A canonical column that a generation does not
have is a constant in its view; a column that is its own stands behind the others, under its own name.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

from pytest_panic_doctor.database.schema import TABLES

if TYPE_CHECKING:
    from pytest_panic_doctor.topology.diagram import Diagram
    from pytest_panic_doctor.topology.payload import Payload, Provenance

HIDDEN = 1
"""What `PRAGMA table_xinfo` says of a virtual table's hidden column."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table in the file.

    Attributes:
        name: As the newest schema spells it.
        type: As it is declared.
        null: Whether it may be NULL.
        since: The first schema version that has it.
    """

    name: str
    type: str
    null: bool = False
    since: int = 1


def columns(*declared: str, since: Mapping[str, int] | None = None) -> tuple[Column, ...]:
    """Columns, each as SQL declares it: `name TYPE` or `name TYPE NOT NULL`; `since` names those that came later."""
    found = []
    for text in declared:
        name, kind = text.removesuffix(" NOT NULL").split(" ", 1)
        found.append(Column(name, kind, not text.endswith(" NOT NULL"), (since or {}).get(name, 1)))
    return tuple(found)


@dataclass(frozen=True, slots=True)
class Source:
    """Where a canonical column's value comes from.

    Attributes:
        column: The column of the file's table; None where the generation has none.
        sql: An expression in which `{0}` stands for that column; empty: the column as it is, or NULL without one.
    """

    column: str | None
    sql: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """A table of one generation.

    Attributes:
        name: Its name in the file.
        canonical: The name by which rules know it.
        columns: Its columns, in the order of the file, in the newest schema.
        unique: The columns that are unique together, and the first schema version in which they are.
        sources: The canonical columns that are not the columns of the same names.
        since: The first schema version that has it.
    """

    name: str
    canonical: str
    columns: tuple[Column, ...]
    unique: tuple[tuple[tuple[str, ...], int], ...] = ()
    sources: Mapping[str, Source] = field(default_factory=dict)
    since: int = 1

    def column_of(self, canonical: str) -> str | None:
        """The column of the file that a canonical column is read from; None where there is none."""
        source = self.sources.get(canonical)
        return canonical if source is None else source.column

    def view(self, existing: Iterable[str]) -> str:
        """The statement that makes the temporary view; `there` are the columns that the file's table has.

        What the file lacks is left out, so that a rule that asks for it is told so, as it is of a table.
        """
        real = {name.lower(): name for name in existing}
        selected = {"rowid": "rowid"}
        for name in TABLES.get(self.canonical, ()):
            source = self.sources.get(name, Source(name))
            if source.column is None:
                selected[name] = source.sql or "NULL"
            elif source.column in real:
                stored = quote_identifier(real[source.column])
                selected[name] = source.sql.format(stored) if source.sql else stored
        for lower, name in real.items():
            selected.setdefault(lower, quote_identifier(name))
        shown = ", ".join(f"{value} AS {quote_identifier(name)}" for name, value in selected.items())
        view, table = quote_identifier(self.canonical), quote_identifier(self.name)
        return f"CREATE TEMP VIEW {view} AS SELECT {shown} FROM main.{table}"


@dataclass(frozen=True, slots=True)
class SchemaVersion:
    """Which schema a file has.

    Attributes:
        number: By the generation's count of its schemas, 0 where that is not known.
        name: As the file says it; empty where it says nothing.
        note: What a person should know of it, as a clause that follows «the schema»; empty where it is the newest.
    """

    number: int
    name: str
    note: str = ""


class Codec(Protocol):
    """Reads and writes diagrams as a generation stores them."""

    def encode(self, diagram: Diagram, provenance: Provenance | None = None, /) -> bytes:
        """The payload of a diagram."""

    def decode(self, payload: bytes, /) -> Payload:
        """What a payload holds; raises `PayloadError`."""


@dataclass(frozen=True)
class Generation:
    """A generation of the research tool, by what its databases look like.

    Attributes:
        key: Its name on the command line and in reports.
        name: Its name in a sentence.
        tables: All that the doctor knows, parents before children.
        references: (table, column, table whose id it holds), by the file's names, along which a quarantine takes rows.
        schema_version: Which schema a file has.
        refusal: Why a file of it cannot be examined at all, as a clause that follows its path; empty where it can.
        codec: What reads and writes its diagrams; a function, since it loads NumPy.
        new_id: Makes an id as the tool makes it.
        stamp: A moment, with its zone, as the tool writes it.
        id_pattern: What an id matches.
        id_form: How ids are written, for a sentence.
        stamped_on_insert: The columns in which the tool writes when a row was inserted, beside the others.
        stamped_on_update: The columns in which it writes when one was updated.
        seeded: Whether runs have seeds. Where they have none, the views have -1, which means the same: no run ends
            before its `max_length`.
        dashed_ids: Whether ids are written with dashes.
        id_of: Makes an id of 32 hex digits.
        image_formats: What images are written as.
        resume: The command that goes on with an experiment that is not finished; empty where the tool has none, and
            what is missing of such an experiment is damage like any other.
        makers: The models that its networks may be of now; empty where nobody asks.
        retires_models: Whether all rows of a model may have been deleted on purpose.
        repairs: Whether the doctor can repair such a file.
    """

    key: str
    name: str
    tables: tuple[Table, ...]
    references: tuple[tuple[str, str, str], ...]
    schema_version: Callable[[sqlite3.Connection], SchemaVersion]
    refusal: Callable[[sqlite3.Connection], str]
    codec: Callable[[], Codec]
    new_id: Callable[[], str]
    stamp: Callable[[datetime], str]
    id_pattern: re.Pattern[str]
    id_form: str
    stamped_on_insert: tuple[str, ...] = ()
    stamped_on_update: tuple[str, ...] = ()
    seeded: bool = True
    dashed_ids: bool = False
    id_of: Callable[[str], str] = str
    image_formats: tuple[str, ...] = ("WEBP",)
    resume: str = ""
    makers: frozenset[str] = frozenset()
    retires_models: bool = False
    repairs: bool = True

    def describe(self, db: sqlite3.Connection) -> str:
        """`the Elixir generation, schema 20260519233115`; empty for the one that was there first.

        Args:
            db: Any connection to a file of this generation.
        """
        if not self.needs_views:
            return ""
        version = self.schema_version(db)
        return f"{self.name}, schema {version.name}{f', {version.note}' if version.note else ''}"

    def table(self, canonical: str) -> Table | None:
        """The table that rules know by this name; None where the generation has none."""
        return self._by_canonical.get(canonical)

    @cached_property
    def _by_canonical(self) -> dict[str, Table]:
        return {each.canonical: each for each in self.tables}

    def real_name(self, canonical: str) -> str:
        """The name in the file of the table that rules know by this name; any other name as it is."""
        found = self.table(canonical)
        return found.name if found else canonical

    def canonical_name(self, real: str) -> str:
        """The inverse of `real_name`, whatever the case of the name's letters."""
        return next((each.canonical for each in self.tables if each.name == real.lower()), real)

    @property
    def needs_views(self) -> bool:
        """Whether its tables have other names or columns than the canonical ones."""
        return any(each.name != each.canonical or each.sources for each in self.tables)

    def extra_on_insert(self, moment: datetime) -> dict[str, str]:
        """The values of an inserted row that no rule or repair names: when that was."""
        return dict.fromkeys(self.stamped_on_insert, self.stamp(moment))

    def extra_on_update(self, moment: datetime) -> dict[str, str]:
        """The values of an updated row that no rule or repair names: when that was."""
        return dict.fromkeys(self.stamped_on_update, self.stamp(moment))

    def create_views(self, db: sqlite3.Connection) -> None:
        """Make the temporary views of a connection that has none yet; of a table that is not there, none is made.

        Args:
            db: Any connection to a file of this generation; to one that is read-only nothing is written either.
        """
        if not self.needs_views:
            return
        for table in self.tables:
            if existing := columns_of_table(db, table.name):
                db.execute(table.view(existing))


def columns_of_table(db: sqlite3.Connection, table: str) -> list[str]:
    """The columns of a table of the file, as it spells them; none where there is no such table."""
    found = db.execute(f"PRAGMA main.table_xinfo({quote_identifier(table)})")
    return [str(row[1]) for row in found if row[6] != HIDDEN]


def tables_of_file(db: sqlite3.Connection) -> set[str]:
    """The names of a file's tables and views in lower case, as SQL compares them."""
    found = db.execute("SELECT name FROM main.sqlite_master WHERE type IN ('table', 'view')")
    return {str(name).lower() for (name,) in found}


def generation_of(db: sqlite3.Connection, known: Iterable[Generation] | None = None) -> Generation | None:
    """Which generation a file is of: the one of which it has the most tables; None where it has none of any.

    Args:
        db: Any connection to the file.
        known: The generations that it may be of; None: all that the doctor knows.
    """
    existing = tables_of_file(db)
    best: Generation | None = None
    most = 0
    for each in generations() if known is None else known:
        if (count := sum(table.name in existing for table in each.tables)) > most:
            best, most = each, count
    return best


def generations() -> tuple[Generation, ...]:
    """All generations that the doctor knows, the canonical one first."""
    from pytest_panic_doctor.database.elixir_generation import ELIXIR
    from pytest_panic_doctor.database.python_generation import PYTHON

    return PYTHON, ELIXIR


def quote_identifier(name: str) -> str:
    """`name` as an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'
