"""What this session has repaired, from the journal: the rows' runs, and the diagrams before the repair."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from pytest_panic_doctor.database.clouds import as_payload
from pytest_panic_doctor.database.generations import names_of_table
from pytest_panic_doctor.database.subject import DiagramTarget, Subject
from pytest_panic_doctor.repair.journal import journal_schema
from pytest_panic_doctor.repair.journal.errors import RepairError
from pytest_panic_doctor.repair.journal.identity import journal_path
from pytest_panic_doctor.repair.journal.opening import connect
from pytest_panic_doctor.repair.journal.reading import check_version, exists
from pytest_panic_doctor.report.html.run_locations import LOOKUPS, UNKNOWN_RUNS, RunCounts, RunLocator

OWNERS = {"invocation": "run_id", "embedding": "invocation_id", "persistencediagram": "run_id"}
"""The column that leads from a row towards its run."""

APPLIED = "FROM changes c JOIN steps s ON s.id = c.step JOIN repairs r ON r.id = s.repair"
WHERE = "WHERE r.session = :session AND r.status = 'applied' AND c.table_name IN (SELECT value FROM json_each(:tables))"


@dataclass(frozen=True, slots=True)
class Before:
    """A row of `persistencediagram` before its repair; `there` is False if the repair added it.

    `payload` is None if it was NULL; `kept` is False if the repair removed the row.
    """

    id: str
    target: DiagramTarget
    existed: bool
    payload: bytes | None
    kept: bool


@dataclass(frozen=True, slots=True)
class RowChange:
    """A repaired row: its repair, and the row that leads to its run (`table`, `id`)."""

    rule: str
    subject: Subject
    table: str
    id: str


class RepairedRows:
    """The repairs of one session; empty if there are none."""

    def __init__(self, database: Path, session: str) -> None:
        """Open the journal; `session` is its name there, empty if nothing was repaired."""
        self.database = database
        self.session = session

    def diagrams(self) -> Iterator[Before]:
        """Yield each diagram that was changed, removed or added, by its first change, one in memory at a time."""
        with closing(self._connect()) as connection:
            for joined in self._images(connection, "persistencediagram"):
                rows = connection.execute(
                    "SELECT c.key, i.run_id, i.embedding_model, i.diagram_data, c.after IS NOT NULL "
                    f"{APPLIED} {joined} {WHERE} ORDER BY c.id",
                    {"session": self.session, "tables": names_in_journals("persistencediagram")},
                )
                for row_id, run, model, data, kept in rows:
                    yield Before(str(row_id), DiagramTarget(str(run), str(model)), True, as_payload(data), bool(kept))
            added = connection.execute(
                f"SELECT c.key, r.run, r.embedding_model {APPLIED} {WHERE} AND c.layout IS NULL ORDER BY c.id",
                {"session": self.session, "tables": names_in_journals("persistencediagram")},
            )
            for row_id, run, model in added:
                yield Before(str(row_id), DiagramTarget(str(run), str(model)), existed=False, payload=None, kept=True)

    def kept(self, table: str) -> frozenset[str]:
        """Return the ids of the rows of a table that were changed or added, and not removed."""
        with closing(self._connect()) as connection:
            rows = connection.execute(
                f"SELECT DISTINCT c.key {APPLIED} {WHERE} AND c.after IS NOT NULL",
                {"session": self.session, "tables": names_in_journals(table)},
            )
            return frozenset(str(row_id) for (row_id,) in rows)

    def places(self, placer: RunLocator) -> Mapping[tuple[str, str, str], RunCounts]:
        """Map (rule, experiment, embedding model or empty) to the runs of the repaired rows."""
        grouped: dict[tuple[str, str, str], list[RowChange]] = {}
        for change in self._changes():
            subject = change.subject
            key = (change.rule, subject.experiment or "", subject.embedding_model or "")
            grouped.setdefault(key, []).append(change)
        return {key: placed(changes, placer) for key, changes in grouped.items()}

    def _changes(self) -> Iterator[RowChange]:
        with closing(self._connect()) as connection:
            left = LOOKUPS
            for table, owner in OWNERS.items():
                for joined in self._images(connection, table):
                    rows = connection.execute(
                        f"SELECT r.rule, r.experiment, r.run, r.embedding_model, i.{owner} "
                        f"{APPLIED} {joined} {WHERE} LIMIT :left",
                        {"session": self.session, "tables": names_in_journals(table), "left": left},
                    ).fetchall()
                    left -= len(rows)
                    next_table = "run" if owner == "run_id" else "invocation"
                    yield from (RowChange(row[0], Subject(*row[1:4]), next_table, str(row[4])) for row in rows)
                rows = connection.execute(
                    f"SELECT r.rule, r.experiment, r.run, r.embedding_model, c.key {APPLIED} {WHERE} "
                    "AND c.layout IS NULL LIMIT :left",
                    {"session": self.session, "tables": names_in_journals(table), "left": left},
                ).fetchall()
                left -= len(rows)
                yield from (RowChange(row[0], Subject(*row[1:4]), table, str(row[4])) for row in rows)

    def _connect(self) -> sqlite3.Connection:
        if not self.session or not exists(self.database):
            return empty()
        connection = connect(journal_path(self.database))
        try:
            if check_version(connection, self.database):
                return connection
        except (sqlite3.Error, RepairError):
            # An unreadable journal was reported when the repair ended; the report then shows no «before».
            pass
        connection.close()
        return empty()

    @staticmethod
    def _images(connection: sqlite3.Connection, table: str) -> list[str]:
        query = "SELECT id FROM layouts WHERE table_name IN (SELECT value FROM json_each(?)) ORDER BY id"
        rows = connection.execute(query, (names_in_journals(table),)).fetchall()
        layouts = [journal_schema.layout_of(connection, number) for (number,) in rows]
        return [f"JOIN {each.source} i ON i.{each.step} = c.step AND i.{each.row} = c.row" for each in layouts]


def names_in_journals(table: str) -> str:
    """Return the names that a table has in journals, as the JSON of an SQL parameter."""
    return json.dumps(names_of_table(table))


def empty() -> sqlite3.Connection:
    """Make an empty journal."""
    connection = sqlite3.connect(":memory:")
    connection.executescript(journal_schema.SCHEMA)
    return connection


def placed(changes: list[RowChange], placer: RunLocator) -> RunCounts:
    """Find the runs of repaired rows: from the repair's subject, or from the rows."""
    runs: dict[str, int] = {}
    by_table: dict[str, list[str]] = {}
    for change in changes:
        if change.subject.run:
            runs[change.subject.run] = runs.get(change.subject.run, 0) + 1
        else:
            by_table.setdefault(change.table, []).append(change.id)
    for table, ids in by_table.items():
        for run, count in placer.runs_of(table, list(dict.fromkeys(ids))).items():
            runs[run] = runs.get(run, 0) + count
    return RunCounts(runs, complete=True) if runs else UNKNOWN_RUNS
