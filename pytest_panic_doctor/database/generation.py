"""Describes a generation of the research tool's databases: its tables, and the forms of ids, times and diagrams.

Rules are written once, for the canonical tables, those of the Python generation (`schema.TABLES`). For a file of
another generation, each connection creates temporary views with the canonical names. They are in SQLite's temporary
schema, so that nothing is written to the file, and SQLite uses the file's own indexes through them
(https://www.sqlite.org/optoverview.html#flattening). A canonical column that a generation lacks is a constant in its
view; an additional column follows the others under its own name.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

from pytest_panic_doctor.database.schema import TABLES, Column, columns_of_table, has_rowid, quote

if TYPE_CHECKING:
    from pytest_panic_doctor.topology.diagram import Diagram
    from pytest_panic_doctor.topology.payload import Payload, Provenance


@dataclass(frozen=True, slots=True)
class ColumnSource:
    """Source of a canonical column's value.

    Attributes:
        column: The column of the file's table; None if the generation has none.
        sql: An expression in which `{0}` represents that column; empty for the column itself, or NULL without one.
    """

    column: str | None
    sql: str = ""


@dataclass(frozen=True, slots=True)
class TableSchema:
    """A table of one generation.

    Attributes:
        name: Its name in the file.
        canonical: The name that rules use.
        columns: Its columns in the newest schema, in the order of the file.
        unique: The columns that are unique together, and the first schema version in which they are.
        sources: The columns for rules, canonical ones or others, that are not the columns of the same names.
        since: The first schema version that has it.
    """

    name: str
    canonical: str
    columns: tuple[Column, ...]
    unique: tuple[tuple[tuple[str, ...], int], ...] = ()
    sources: Mapping[str, ColumnSource] = field(default_factory=dict)
    since: int = 1

    def column_of(self, canonical: str) -> str | None:
        """The file's column for a canonical column; None if there is none."""
        source = self.sources.get(canonical)
        return canonical if source is None else source.column

    def written_column(self, canonical: str) -> str | None:
        """The file's column to which a canonical column's value is written; None if it is not written as it is."""
        source = self.sources.get(canonical)
        return canonical if source is None else None if source.sql else source.column

    def view(self, existing: Iterable[str], rowid: str = "rowid") -> str:
        """The SQL statement that creates the temporary view.

        Columns that the file lacks are left out, so that a rule that needs one gets the same error as from a table.

        Args:
            existing: Columns of the file's table.
            rowid: SQL for the rowid, NULL if the file's table has none: the view can be read, and `schema` says why.
        """
        real = {name.lower(): name for name in existing}
        selected = {"rowid": rowid}
        for name in dict.fromkeys((*TABLES.get(self.canonical, ()), *self.sources)):
            source = self.sources.get(name, ColumnSource(name))
            if source.column is None:
                selected[name] = source.sql or "NULL"
            elif source.column in real:
                stored = quote(real[source.column])
                selected[name] = source.sql.format(stored) if source.sql else stored
        for lower, name in real.items():
            selected.setdefault(lower, quote(name))
        shown = ", ".join(f"{value} AS {quote(name)}" for name, value in selected.items())
        view, table = quote(self.canonical), quote(self.name)
        return f"CREATE TEMP VIEW {view} AS SELECT {shown} FROM main.{table}"


@dataclass(frozen=True, slots=True)
class Succession:
    """The references of rows to their predecessors in the same table, along which a quarantine takes no rows.

    Attributes:
        table: The table in the file.
        column: The column with the id of the predecessor.
        number: The column that numbers the rows in their order.
        enforced: Whether the tool's connections enforce the reference, so that no row that stays may lose its
            predecessor. Then a quarantine takes the last rows first.
    """

    table: str
    column: str
    number: str
    enforced: bool


@dataclass(frozen=True, slots=True)
class SchemaVersion:
    """The schema version of a file.

    Attributes:
        number: Its number in the generation; 0 if unknown.
        name: Its name in the file; empty if the file has none.
        note: A note for the user, as a clause that follows «the schema»; empty for the newest.
    """

    number: int
    name: str
    note: str = ""


class Codec(Protocol):
    """Reads and writes diagrams as a generation stores them."""

    def make_indexable(self, payload: bytes, /) -> bytes:
        """Write a payload of the same bars in the form that the tool reads, if it is in another one."""

    def encode(self, diagram: Diagram, provenance: Provenance | None = None, /) -> bytes:
        """Write the payload of a diagram."""

    def decode(self, payload: bytes, /) -> Payload:
        """Read a payload; raises `PayloadError`."""


@dataclass(frozen=True)
class Generation:
    """A generation of the research tool, described by its databases.

    Attributes:
        key: Its name on the command line and in reports.
        name: Its name in a sentence.
        tables: Its known tables, parents before children.
        references: (table, column, table whose id it holds), with the file's names, along which a quarantine takes
            rows.
        schema_version: Finds the schema version of a file.
        refusal: Why a file cannot be examined, as a clause that follows its path; empty if it can.
        codec: Returns the codec of its diagrams; a function, since the codec imports NumPy.
        new_id: Creates an id as the tool does.
        stamp: Writes a time with a zone as the tool does.
        time_format: The format of its times, of those that `timestamps` knows.
        id_pattern: Pattern of an id.
        succession: The one reference along which a quarantine takes none; None for none.
        time_of_id: The time in an id of the tool, in seconds since 1970; None if a text is no such id.
        stamped_on_insert: Additional columns in which the tool writes the time of an insert.
        stamped_on_update: Additional columns in which it writes the time of an update.
        seeded: Whether runs have seeds. If not, the views have -1, which means the same: no run ends before its
            `max_length`.
        dashed_ids: Whether ids have dashes.
        id_of: Makes an id of 32 hex digits.
        image_formats: Formats of images.
        resume: The command that continues an unfinished experiment; empty if the tool has none, so that missing rows
            of such an experiment are damage.
        commands: The tool's own commands, by action: `regenerate` makes runs anew, `embed` embeds again, `cluster`
            makes all clusterings anew; `{database}` stands for the path of the file.
        remedies: What a person does about a rule without repair, by its id, where that is not what the rule says.
        makers: Models that its networks may have now; empty to accept all.
        retires_models: Whether all rows of a model may have been deleted on purpose.
        repairs: Whether the doctor can repair such a file.
        migrated_at: When the research tool gave a file the n-th schema, as text; empty where nothing says so.
    """

    key: str
    name: str
    tables: tuple[TableSchema, ...]
    references: tuple[tuple[str, str, str], ...]
    schema_version: Callable[[sqlite3.Connection], SchemaVersion]
    refusal: Callable[[sqlite3.Connection], str]
    codec: Callable[[], Codec]
    new_id: Callable[[], str]
    stamp: Callable[[datetime], str]
    id_pattern: re.Pattern[str]
    succession: Succession | None = None
    time_format: str = "YYYY-MM-DD HH:MM:SS.ffffff"
    time_of_id: Callable[[str], float | None] = lambda text: None  # noqa: ARG005
    stamped_on_insert: tuple[str, ...] = ()
    stamped_on_update: tuple[str, ...] = ()
    seeded: bool = True
    dashed_ids: bool = False
    id_of: Callable[[str], str] = str
    image_formats: tuple[str, ...] = ("WEBP",)
    resume: str = ""
    commands: Mapping[str, str] = field(default_factory=dict)
    remedies: Mapping[str, str] = field(default_factory=dict)
    makers: frozenset[str] = frozenset()
    retires_models: bool = False
    repairs: bool = True
    migrated_at: Callable[[sqlite3.Connection, int], str] = lambda db, number: ""  # noqa: ARG005

    def describe(self, db: sqlite3.Connection) -> str:
        """Describe the generation of a file: `the Elixir generation, schema 20260519233115`.

        Args:
            db: Any connection to a file of this generation.

        Returns:
            The description; empty for the canonical generation.
        """
        if not self.needs_views:
            return ""
        version = self.schema_version(db)
        schema = f", schema {version.name}" if version.name else ""
        return f"{self.name}{schema}{f', {version.note}' if version.note else ''}"

    def table(self, canonical: str) -> TableSchema | None:
        """The table with this canonical name; None if the generation has none."""
        return self._by_canonical.get(canonical)

    @cached_property
    def _by_canonical(self) -> dict[str, TableSchema]:
        return {each.canonical: each for each in self.tables}

    def real_name(self, canonical: str) -> str:
        """The file's name of a canonical table; any other name is returned as it is."""
        found = self.table(canonical)
        return found.name if found else canonical

    def canonical_name(self, real: str) -> str:
        """The canonical name of a table of the file, in any case; any other name is returned as it is."""
        return next((each.canonical for each in self.tables if each.name == real.lower()), real)

    @property
    def needs_views(self) -> bool:
        """Whether tables or columns have other names than the canonical ones, or a canonical table does not exist."""
        renamed = any(each.name != each.canonical or each.sources for each in self.tables)
        return renamed or not self._by_canonical.keys() >= TABLES.keys()

    def stamps(self, moment: datetime, *, is_new: bool) -> dict[str, str]:
        """Values of a new or changed row that rules and repairs do not set: the time of the change."""
        return dict.fromkeys(self.stamped_on_insert if is_new else self.stamped_on_update, self.stamp(moment))

    def create_views(self, db: sqlite3.Connection) -> None:
        """Create the temporary views of a new connection, for the tables that exist.

        A canonical table that the generation does not have is an empty view, so that no rule fails for it.

        Args:
            db: Any connection to a file of this generation, even read-only: the file is not changed.
        """
        if not self.needs_views:
            return
        for table in self.tables:
            if existing := columns_of_table(db, table.name):
                rowid = "rowid" if has_rowid(db, f"main.{quote(table.name)}") else "NULL"
                db.execute(table.view(existing, rowid))
        for canonical in TABLES.keys() - self._by_canonical.keys():
            db.execute(empty_view(canonical))


def empty_view(canonical: str) -> str:
    """The SQL statement that creates a view without rows in place of a canonical table."""
    shown = ", ".join(f"NULL AS {quote(name)}" for name in ("rowid", *TABLES[canonical]))
    return f"CREATE TEMP VIEW {quote(canonical)} AS SELECT {shown} WHERE 0"
