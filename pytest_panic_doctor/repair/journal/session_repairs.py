"""Knows for which rules and subjects a session has begun repairs, so that most items need not query the journal."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from pytest_panic_doctor.database.subject import Subject
from pytest_panic_doctor.repair.journal import journal as journals


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
        if not journals.exists(self._database):
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
            path = journals.journal_path(self._database)
            self._connection = journals.connect(path, "mode=rw", 10.0, sqlite3.Connection)
        query = "SELECT id, rule, experiment, run, embedding_model FROM repairs WHERE id > ? AND session = ?"
        for number, rule, *parts in self._connection.execute(query, (self._last, self._session)):
            self._known.setdefault(rule, set()).add(Subject(*parts))
            self._last = max(self._last, number)

    def close(self) -> None:
        """Close the connection; the repairs read so far are kept."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
