"""Reads the journal of a database: whether there is one, of which version, and the repairs that it records."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path

from pytest_panic_doctor.database.generations import names_of_table
from pytest_panic_doctor.database.subject import Subject
from pytest_panic_doctor.repair.journal.errors import RepairFailed, RepairRefused
from pytest_panic_doctor.repair.journal.identity import check_file_name, journal_path
from pytest_panic_doctor.repair.journal.journal_schema import SCHEMA_VERSION
from pytest_panic_doctor.repair.journal.opening import connect
from pytest_panic_doctor.repair.journal.repair_record import Repair
from pytest_panic_doctor.repair.journal.tables import Value


def exists(database: Path) -> bool:
    """Return whether a repair was ever begun. An empty file is a journal whose creation was interrupted."""
    path = journal_path(database)
    return path.exists() and path.stat().st_size > 0


def written(database: Path, table: str, row: int) -> bool:
    """Return whether the journal of a database records a change of a row.

    Args:
        database: The path of the database.
        table: The table's canonical name.
        row: The rowid.
    """
    if not exists(database):
        return False
    try:
        with closing(connect(journal_path(database), "mode=ro", 1.0)) as connection:
            names = json.dumps(names_of_table(table))
            sql = "SELECT 1 FROM changes WHERE table_name IN (SELECT value FROM json_each(?)) AND row = ? LIMIT 1"
            return connection.execute(sql, (names, row)).fetchone() is not None
    except sqlite3.Error:
        return False


def check_version(connection: sqlite3.Connection, database: Path) -> int:
    """Return the schema version of an open journal, 0 if its creation was interrupted.

    Raises:
        RepairRefused: The file is not a journal, is from a newer version, or belongs to another database.
    """
    path = journal_path(database)
    try:
        if not connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            return 0
        found = connection.execute("SELECT version, database FROM schema_version").fetchone()
    except sqlite3.DatabaseError as error:
        if "no such" not in str(error) and "not a database" not in str(error):
            raise
        found = None
    if found is None or not isinstance(found[0], int) or found[0] < 1:
        raise RepairRefused(f"{path} is not a doctor's journal: move it away, then run again.")
    if found[0] > SCHEMA_VERSION:
        raise RepairRefused(
            f"The journal {path} was written by a newer doctor (its schema version is {found[0]}, this doctor knows "
            f"{SCHEMA_VERSION}): update pytest-panic-doctor."
        )
    check_file_name(path, str(found[1]), database)
    return int(found[0])


REPAIR_COLUMNS = "id, rule, experiment, run, embedding_model, rows, bytes, verb, status, time, session, undoes"
"""The columns of `Repair`, in its order."""


def read_repairs(database: Path, where: str, parameters: Sequence[Value] | Mapping[str, Value] = ()) -> list[Repair]:
    """Return the repairs that meet an SQL condition, newest first; an empty list if there is no journal.

    Args:
        database: The path of the database.
        where: The condition.
        parameters: The parameters of the condition.

    Raises:
        RepairError: The journal cannot be used or read.
    """
    if not exists(database):
        return []
    path = journal_path(database)
    try:
        with closing(connect(path)) as connection:
            if not check_version(connection, database):
                return []
            query = f"SELECT {REPAIR_COLUMNS} FROM repairs WHERE {where} ORDER BY id DESC"
            return [
                Repair(row[0], row[1], Subject(*row[2:5]), *row[5:]) for row in connection.execute(query, parameters)
            ]
    except sqlite3.Error as error:
        raise RepairFailed(
            f"The journal {path} could not be read: SQLite says «{error}»; run again, or restore it from a backup."
        ) from error


class SessionRepairs:
    """The repairs of one session, by all of its workers; only new records of the journal are read."""

    def __init__(self, database: Path, session: str) -> None:
        """Store the database and the id of the session; nothing is opened yet."""
        self._database = database
        self._session = session
        self._connection: sqlite3.Connection | None = None
        self._last = 0
        self._known: dict[str, set[Subject]] = {}

    def may_have(self, rule: str, subject: Subject) -> bool:
        """Return whether there may be a repair of a rule within a subject.

        Args:
            rule: The id of the rule.
            subject: The subject; None in one of its parts stands for any value.

        Returns:
            True also if the journal cannot be read; never False if a repair is committed to the journal.
        """
        if not exists(self._database):
            return False
        try:
            self._read_on()
        except sqlite3.Error:
            self.close()
            return True
        known = self._known.get(rule, set())
        narrow = None not in (subject.experiment, subject.run, subject.embedding_model)
        return subject in known if narrow else bool(known)

    def _read_on(self) -> None:
        """Read the repairs that were begun since the last call.

        Ids are assigned in the order of commits and never reused.
        """
        if self._connection is None:
            path = journal_path(self._database)
            self._connection = connect(path)
        query = "SELECT id, rule, experiment, run, embedding_model FROM repairs WHERE id > ? AND session = ?"
        for number, rule, *parts in self._connection.execute(query, (self._last, self._session)):
            self._known.setdefault(rule, set()).add(Subject(*parts))
            self._last = max(self._last, number)

    def close(self) -> None:
        """Close the connection; the repairs read so far are kept."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
