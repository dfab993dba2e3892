"""Decides which journal belongs to which database: by the name of the file, and by content for a renamed file.

A journal keeps witnesses: the ids of the experiments and runs that its database had at the start of each session. They
are UUIDs that no other database has, they survive repairs, copies, renames and growth of the file, and one of them is
enough. A database that shares none is neither written nor undone. Whether a single repair was made on this version of
the file is decided by its rows: see `undo`.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from pytest_panic_doctor.database.schema import quote
from pytest_panic_doctor.repair.journal.errors import RepairRefused
from pytest_panic_doctor.repair.journal.locks import doctor_file, resolve
from pytest_panic_doctor.repair.journal.opening import connect
from pytest_panic_doctor.repair.journal.tables import generation_of_file, tables

WITNESSING = ("experimentconfig", "run")
"""The tables whose ids are witnesses, by the names of the Python generation in the journal of any."""
JOURNAL = re.compile(r"(.+)\.doctor(\.[^.]*)?")
"""The name of a journal: the stem and the suffix of its database."""


def journal_path(database: Path) -> Path:
    """Return the path of the journal: `trajectory_data.sqlite` has `trajectory_data.doctor.sqlite` beside it.

    Older versions gave `a.db` the journal `a.doctor.sqlite`; it is returned if it belongs to this database.
    """
    path, own = resolve(database), doctor_file(database)
    older = old_path(path)
    if own == older or own.exists() or not older.exists():
        return own
    if owner(older) == path.name or (
        not path.with_suffix(".sqlite").exists() and has_common_rows(older, path) is not False
    ):
        return older
    return own


def old_path(path: Path) -> Path:
    """Return the path that older versions gave the journal, for any suffix of the database."""
    return path.with_name(f"{path.stem}.doctor.sqlite")


def owner(journal: Path) -> str | None:
    """Return the name that the database had when its journal was created; None if the file is not a journal."""
    try:
        with closing(connect(journal)) as connection:
            row = connection.execute("SELECT database FROM schema_version").fetchone()
            return str(row[0]) if row else None
    except sqlite3.Error:
        return None


def has_common_rows(journal: Path, database: Path) -> bool | None:
    """Return whether a journal and a database share an experiment or a run; None if one of them has none."""
    try:
        with closing(connect(journal)) as connection:
            connection.execute("ATTACH ? AS db", (f"{resolve(database).as_uri()}?mode=ro",))
            return shares_rows(connection)
    except sqlite3.Error:
        return None


def shares_rows(connection: sqlite3.Connection) -> bool | None:
    """Return the same as `has_common_rows`, for an open journal whose database is attached as `db`."""
    existing = tables(connection, "db")
    known = f"SELECT table_name, key FROM witnesses WHERE table_name IN {WITNESSING!r}"
    if (
        "witnesses" not in tables(connection)
        or not connection.execute("SELECT EXISTS (SELECT 1 FROM witnesses)").fetchone()[0]
    ):
        known = (
            "SELECT 'experimentconfig' AS table_name, experiment AS key FROM repairs"
            " UNION SELECT 'run', run FROM repairs"
        )
    has_asked = False
    generation = generation_of_file(connection, "db")
    for name in WITNESSING:
        stored = quote(generation.real_name(name))
        if generation.real_name(name) not in existing:
            continue
        if not connection.execute(f"SELECT EXISTS (SELECT 1 FROM db.{stored})").fetchone()[0]:
            continue
        rows = f"FROM ({known}) w WHERE w.table_name = '{name}' AND w.key IS NOT NULL"
        if connection.execute(
            f"SELECT EXISTS (SELECT 1 {rows} AND EXISTS (SELECT 1 FROM db.{stored} t WHERE t.id = w.key))"
        ).fetchone()[0]:
            return True
        has_asked = True
    if (
        not has_asked
        or not connection.execute(f"SELECT EXISTS (SELECT 1 FROM ({known}) WHERE key IS NOT NULL)").fetchone()[0]
    ):
        return None
    return False


def describe_foreign(journal: Path, database: Path) -> RepairRefused:
    """Return the error about a journal that belongs to another database."""
    return RepairRefused(
        f"The journal {journal} is another database's: none of the experiments and runs that it knows is in "
        f"{resolve(database).name}. Put it back beside its own database, or move it away, then run again."
    )


def check_owner(database: Path) -> None:
    """Check that the journal beside a database belongs to it.

    Raises:
        RepairRefused: The journal belongs to another database.
    """
    path = journal_path(database)
    if (name := owner(path)) is not None:
        check_file_name(path, name, database)
    if has_common_rows(path, database) is False:
        raise describe_foreign(path, database)


def check_file_name(path: Path, name: str, database: Path) -> None:
    """Check that a journal with a name of older versions does not belong to another database that is still there.

    Raises:
        RepairRefused: It does.
    """
    other = path.with_name(name)
    if name != resolve(database).name and other.exists() and old_path(other) == path:
        raise RepairRefused(
            f"The journal {path} belongs to {name}, not to {resolve(database).name}: "
            f"rename it to {doctor_file(other).name}, "
            "then run again."
        )


def record_witnesses(connection: sqlite3.Connection) -> None:
    """Store the ids of the experiments and runs that the database has now."""
    generation, existing = generation_of_file(connection, "db"), tables(connection, "db")
    for name in WITNESSING:
        if (stored := generation.real_name(name)) in existing:
            connection.execute(
                f"INSERT OR IGNORE INTO witnesses SELECT '{name}', id FROM db.{quote(stored)} WHERE id IS NOT NULL"
            )


def check_left_behind(database: Path) -> None:
    """Check that this database, which has no journal, was not renamed without its journal.

    Raises:
        RepairRefused: There is a journal of this database under another name.
    """
    own = doctor_file(database)
    for left in _without_database(own.parent):
        if has_common_rows(left, database):
            raise RepairRefused(
                f"{resolve(database).name} was repaired under another name, and its journal is {left}: rename it to "
                f"{own.name}, or move it away, then run again."
            )


def _without_database(folder: Path) -> Iterator[Path]:
    """Yield the journals of a folder whose databases are missing."""
    for path in sorted(folder.glob("*.doctor*")):
        named = JOURNAL.fullmatch(path.name)
        if named is None or path.suffix == ".lock" or not path.is_file():
            continue
        whose = owner(path)
        names = {f"{named[1]}{named[2] or ''}"} | (
            {whose} if whose and old_path(path.with_name(whose)) == path else set()
        )
        if whose is not None and not any(path.with_name(name).exists() for name in names):
            yield path
