"""Verifies a journal: its pages by SQLite's integrity_check, its records by seals and digests."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from pytest_panic_doctor.database.interrupts import allow_interrupts, reraise_interrupts
from pytest_panic_doctor.formatting import name_first
from pytest_panic_doctor.repair.journal import journal_schema
from pytest_panic_doctor.repair.journal.identity import journal_path
from pytest_panic_doctor.repair.journal.journal import Journal
from pytest_panic_doctor.repair.journal.journal_schema import REPAIR_STATES, SCHEMA_VERSION, STEP_STATES, change_batches
from pytest_panic_doctor.repair.journal.opening import connect
from pytest_panic_doctor.repair.journal.reading import check_version

RECORDS_SHOWN = 20
"""Rows that a message names at most."""


def list_ids(ids: list[str], count: int | None = None) -> str:
    """Return a list of ids in words, cut after `RECORDS_SHOWN`.

    Args:
        ids: The ids, or the first of them.
        count: How many there are; None for those in the list.
    """
    return name_first(ids, RECORDS_SHOWN, count)


class Copied(NamedTuple):
    """A recorded change, as far as its before-image is concerned."""

    id: int
    table: str
    row: int
    key: object
    layout: int | None
    before: bytes | None


@dataclass
class Damage:
    """The damage of one repair's record.

    Attributes:
        rows: The number of rows that are recorded.
        changes: The changes whose before-images are not what was copied.
        ids: The names of their rows.
        record: What else is damaged, in words; empty if nothing is.
    """

    rows: int = 0
    changes: set[int] = field(default_factory=set)
    ids: list[str] = field(default_factory=list)
    record: str = ""

    def __bool__(self) -> bool:
        """Return whether there is any damage."""
        return bool(self.changes or self.record)

    def sentence(self, repair: int) -> str:
        """Describe the damage, and how to restore the rest."""
        count = len(self.changes)
        named = list_ids(self.ids)
        rows = f"{count:,} of the {self.rows:,} rows that repair {repair} kept ({named})" if count else ""
        what = " and ".join(filter(None, [rows, self.record]))
        return (
            f"The journal is damaged in {what}, so nothing was undone: restore the journal from a backup, or take back "
            f"what it still has as it was with --doctor-undo {repair}:intact."
        )


def structure(database: Path) -> str:
    """Check the file of a journal and its schema.

    Returns:
        The problem, in words; empty if the file is intact or new.
    """
    try:
        with (
            closing(connect(journal_path(database))) as connection,
            reraise_interrupts(),
        ):
            allow_interrupts(connection)
            version = check_version(connection, database)
            connection.execute("PRAGMA ignore_check_constraints = ON")  # of states, which `records` names
            verdict = str(connection.execute("PRAGMA integrity_check(1)").fetchone()[0])
            if verdict != "ok":
                return f"integrity_check: {' '.join(verdict.split())}"
            known = set(connection.execute("SELECT name, sql FROM sqlite_master"))
            if version == SCHEMA_VERSION and not _schema() <= known:
                return "its schema is not the one that it was made with"
            return ""
    except sqlite3.Error as error:
        return f"SQLite says «{error}»"


def _schema() -> set[tuple[str, str]]:
    """Return the rows that `sqlite_master` of a journal has at least."""
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.executescript(journal_schema.SCHEMA)
        return set(connection.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL"))


def records(connection: sqlite3.Connection, number: int | None = None) -> list[int]:
    """Return the repairs whose own record, or the status of one of whose steps, is damaged.

    Args:
        connection: The journal.
        number: The only repair to look at; None for all.
    """
    if _unsealed(connection):
        return []
    one, parameters = ("", ()) if number is None else ("WHERE {} = ?", (number,))
    query = f"SELECT id, seal, status, typeof(rows), typeof(bytes) FROM repairs {one.format('id')} ORDER BY id"
    found = [
        row[0]
        for row in connection.execute(query, parameters)
        if row[1] != journal_schema.repair_seal(connection, row[0])
        or row[2] not in REPAIR_STATES
        or (row[3], row[4]) != ("integer", "integer")
    ]
    found += [
        row[0]
        for row in connection.execute(
            f"SELECT repair, status FROM steps {one.format('repair')} ORDER BY id", parameters
        )
        if row[1] not in STEP_STATES
    ]
    return list(dict.fromkeys(found))


def _unsealed(connection: sqlite3.Connection) -> bool:
    """Return whether the journal is of a version without seals."""
    return "seal" not in {row[1] for row in connection.execute("PRAGMA table_info(repairs)")}


def repair(journal: Journal, number: int) -> Damage:
    """Read everything that the undo of a repair would use, and compare it with its seals and digests."""
    connection, damage = journal.connection, Damage()
    states: list[str] = []
    reasons: list[str] = []
    if number in records(connection, number):
        reasons.append(f"the record of repair {number}")
    steps = connection.execute("SELECT id, status, seal FROM steps WHERE repair = ? ORDER BY id", (number,)).fetchall()
    for step, status, seal in steps:
        states.append(status)
        if seal != journal_schema.step_seal(connection, step):
            reasons.append(f"the record of step {step} of repair {number}")
        if status not in ("intended", "abandoned"):
            _check_images(journal, step, damage)
    expected = connection.execute("SELECT rows FROM repairs WHERE id = ?", (number,)).fetchone()[0]
    if expected != damage.rows:
        reasons.append(f"the number of rows of repair {number} ({damage.rows:,} are recorded, {expected} were)")
    damage.record = " and ".join(reasons)
    return damage


def _check_images(journal: Journal, step: int, damage: Damage) -> None:
    """Count the rows of a step, and find those whose before-image is not what was copied."""
    connection = journal.connection
    layouts: dict[int, journal_schema.Layout | None] = {}
    for found in change_batches(connection, Copied, "table_name, row, key, layout, before", "step = ?", (step,)):
        damage.rows += len(found)
        for number in {each.layout for each in found if each.layout is not None} - set(layouts):
            layouts[number] = intact_layout(connection, number)
        digests = _digests(connection, step, layouts, found)
        for each in found:
            if each.layout is None:
                whole = each.before is None
            else:
                whole = each.before is not None and digests.get((each.layout, each.table, each.row)) == each.before
            if not whole:
                damage.changes.add(each.id)
                damage.ids.append(f"{each.table} {each.key}")


def _digests(
    connection: sqlite3.Connection, step: int, layouts: dict[int, journal_schema.Layout | None], found: list[Copied]
) -> dict[tuple[int, str, int], bytes]:
    """Return the digest of each before-image in an intact layout, by (layout, table, rowid)."""
    known: dict[tuple[int, str, int], bytes] = {}
    for number, layout in layouts.items():
        rows = [each.row for each in found if each.layout == number]
        if layout is not None and rows:
            images = journal_schema.image_digests(connection, step, layout, rows)
            known.update(((number, layout.table, row), digest) for row, digest in images)
    return known


def intact_layout(connection: sqlite3.Connection, number: int) -> journal_schema.Layout | None:
    """Return a layout; None if it is damaged."""
    try:
        layout = journal_schema.layout_of(connection, number)
        seal = connection.execute("SELECT seal FROM layouts WHERE id = ?", (number,)).fetchone()[0]
    except sqlite3.DatabaseError:
        return None
    return layout if seal == journal_schema.layout_seal(layout) else None
