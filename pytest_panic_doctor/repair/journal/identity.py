"""Which journal belongs to which database: by name where the file stands, by content whatever it is called.

A journal keeps witnesses, the ids of the experiments and runs that its database had whenever a session began. They are
UUIDs that no other database has, they survive repairs, copies, renames and the growth of the file, and one of them is
enough. Of a database that shares none, nothing is put back and to it nothing is done. Whether a single repair was made
on this file as it is now is told by its rows: see `undo`.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from pytest_panic_doctor.repair.journal.errors import RepairRefused
from pytest_panic_doctor.repair.journal.locks import doctor_file, resolve
from pytest_panic_doctor.repair.journal.tables import quote, tables

WITNESSING = ("experimentconfig", "run")
JOURNAL = re.compile(r"(.+)\.doctor(\.[^.]*)?")


def journal_path(database: Path) -> Path:
    """The journal's path: `trajectory_data.sqlite` has `trajectory_data.doctor.sqlite` beside it.

    Older doctors gave `a.db` the journal `a.doctor.sqlite`; that one is found where it is of this database.
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
    """The journal's path as older doctors had it, whatever the suffix of the database."""
    return path.with_name(f"{path.stem}.doctor.sqlite")


def open_journal(path: Path) -> sqlite3.Connection:
    """A journal to look into; `rw` only so that SQLite can recover it after a crash."""
    return sqlite3.connect(f"{path.as_uri()}?mode=rw", uri=True, timeout=10.0, isolation_level=None)


def owner(journal: Path) -> str | None:
    """The name that the database had when its journal was made; None where that file is no journal."""
    try:
        with closing(open_journal(journal)) as connection:
            row = connection.execute("SELECT database FROM schema_version").fetchone()
            return str(row[0]) if row else None
    except sqlite3.Error:
        return None


def has_common_rows(journal: Path, database: Path) -> bool | None:
    """Whether a journal and a database have an experiment or a run in common; None where neither can be told."""
    try:
        with closing(open_journal(journal)) as connection:
            connection.execute("ATTACH ? AS db", (f"{resolve(database).as_uri()}?mode=ro",))
            return shares_rows(connection)
    except sqlite3.Error:
        return None


def shares_rows(connection: sqlite3.Connection) -> bool | None:
    """As `shares`, of an open journal with its database attached as `db`."""
    there = tables(connection, "db")
    known = f"SELECT table_name, key FROM witnesses WHERE table_name IN {WITNESSING!r}"
    if (
        "witnesses" not in tables(connection)
        or not connection.execute("SELECT EXISTS (SELECT 1 FROM witnesses)").fetchone()[0]
    ):
        known = (
            "SELECT 'experimentconfig' AS table_name, experiment AS key FROM repairs"
            " UNION SELECT 'run', run FROM repairs"
        )
    asked = False
    for name in WITNESSING:
        if name not in there or not connection.execute(f"SELECT EXISTS (SELECT 1 FROM db.{name})").fetchone()[0]:
            continue
        rows = f"FROM ({known}) w WHERE w.table_name = '{name}' AND w.key IS NOT NULL"
        if connection.execute(
            f"SELECT EXISTS (SELECT 1 {rows} AND EXISTS (SELECT 1 FROM db.{quote(name)} t WHERE t.id = w.key))"
        ).fetchone()[0]:
            return True
        asked = True
    if (
        not asked
        or not connection.execute(f"SELECT EXISTS (SELECT 1 FROM ({known}) WHERE key IS NOT NULL)").fetchone()[0]
    ):
        return None
    return False


def check_same_database(connection: sqlite3.Connection, journal: Path, database: Path) -> None:
    """Raise RepairRefused where the open journal is another database's; that one is attached as `db`."""
    if shares_rows(connection) is False:
        raise describe_foreign(journal, database)


def describe_foreign(journal: Path, database: Path) -> RepairRefused:
    """What is said of a journal that is another database's."""
    return RepairRefused(
        f"The journal {journal} is another database's: none of the experiments and runs that it knows is in "
        f"{resolve(database).name}. Put it back beside its own database, or move it away, then run again."
    )


def check_owner(database: Path) -> None:
    """Raise RepairRefused where the journal beside a database is another's."""
    path = journal_path(database)
    if (name := owner(path)) is not None:
        check_name(path, name, database)
    if has_common_rows(path, database) is False:
        raise describe_foreign(path, database)


def check_name(path: Path, name: str, database: Path) -> None:
    """Raise RepairRefused where a journal has the name that older doctors gave it, and its database is still there."""
    other = path.with_name(name)
    if name != resolve(database).name and other.exists() and old_path(other) == path:
        raise RepairRefused(
            f"The journal {path} belongs to {name}, not to {resolve(database).name}: "
            f"rename it to {doctor_file(other).name}, "
            "then run again."
        )


def record_witnesses(connection: sqlite3.Connection) -> None:
    """Note the experiments and runs that the database has now."""
    for name in sorted(tables(connection, "db").intersection(WITNESSING)):
        connection.execute(
            f"INSERT OR IGNORE INTO witnesses SELECT '{name}', id FROM db.{quote(name)} WHERE id IS NOT NULL"
        )


def check_left_behind(database: Path) -> None:
    """Raise RepairRefused where this database was renamed and its journal was not; only asked where it has none."""
    own = doctor_file(database)
    for left in _without_database(own.parent):
        if has_common_rows(left, database):
            raise RepairRefused(
                f"{resolve(database).name} was repaired under another name, and its journal is {left}: rename it to "
                f"{own.name}, or move it away, then run again."
            )


def _without_database(folder: Path) -> Iterator[Path]:
    """The journals of a folder whose databases are not there."""
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
