"""For which rules and subjects a session has begun repairs: asked once an item, so that most need not ask for more."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from pytest_panic_doctor.database.subject import Subject
from pytest_panic_doctor.repair.journal import journal as journals


class SessionRepairs:
    """Repairs of one session, by whatever worker; of the journal, only what is new is read."""

    def __init__(self, database: Path, session: str) -> None:
        """Open nothing yet."""
        self._database = database
        self._session = session
        self._connection: sqlite3.Connection | None = None
        self._last = 0
        self._known: dict[str, set[Subject]] = {}

    def may_have(self, rule: str, subject: Subject) -> bool:
        """Whether there may be a repair for `rule` within `subject`, of which a part that is None means any.

        Never false where one is committed to the journal; true too where the journal cannot be read.
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
        """Take in the repairs that were begun since; ids are given in the order of commits, and none is taken away."""
        if self._connection is None:
            path = journals.journal_path(self._database)
            self._connection = journals.connect(path, "mode=rw", 10.0, sqlite3.Connection)
        query = "SELECT id, rule, experiment, run, embedding_model FROM repairs WHERE id > ? AND session = ?"
        for number, rule, *parts in self._connection.execute(query, (self._last, self._session)):
            self._known.setdefault(rule, set()).add(Subject(*parts))
            self._last = max(self._last, number)

    def close(self) -> None:
        """Close the connection; what is known stays."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
