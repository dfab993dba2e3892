"""The journal: a sidecar SQLite file with the before-image of every row that a repair changes or removes.

Its main promise is an order. A step (one transaction on the database) is first committed here with its before-images,
`synchronous=EXTRA`, then committed there, then marked here. Two separate commits, never one over attached files:
SQLite does not make those atomic in WAL mode (https://sqlite.org/lang_attach.html). Wherever the power fails between
them, a look at the rows tells which side a step is on; see `settle`.

Before-images are copied by `INSERT … SELECT` from the database, attached read-only, into columns without a type: values
never pass through Python, and keep the storage class and the bytes that they had.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from pytest_panic_doctor.repair.errors import RepairFailed, RepairRefused
from pytest_panic_doctor.repair.gate import beside, real
from pytest_panic_doctor.repair.rows import Table, Value, as_json, digests, quoted, table_digests
from pytest_panic_doctor.store.subject import Subject

SCHEMA_VERSION = 1

SCHEMA = """
CREATE TABLE schema_version (version INTEGER NOT NULL, database TEXT NOT NULL);
CREATE TABLE repairs (
    id INTEGER PRIMARY KEY, session TEXT NOT NULL, time TEXT NOT NULL, rule TEXT NOT NULL,
    experiment TEXT, run TEXT, embedding_model TEXT, verb TEXT NOT NULL, doctor_version TEXT NOT NULL,
    status TEXT NOT NULL CHECK (status IN ('intended', 'applied', 'undone', 'abandoned')),
    rows INTEGER NOT NULL, bytes INTEGER NOT NULL, undoes INTEGER REFERENCES repairs (id)
);
CREATE TABLE steps (
    id INTEGER PRIMARY KEY, repair INTEGER NOT NULL REFERENCES repairs (id), time TEXT NOT NULL,
    status TEXT NOT NULL CHECK (status IN ('intended', 'applied', 'abandoned'))
);
CREATE INDEX steps_of_repair ON steps (repair);
CREATE INDEX open_steps ON steps (id) WHERE status = 'intended';
CREATE TABLE layouts (id INTEGER PRIMARY KEY, table_name TEXT NOT NULL, columns TEXT NOT NULL, images TEXT NOT NULL);
CREATE TABLE changes (
    id INTEGER PRIMARY KEY, step INTEGER NOT NULL REFERENCES steps (id), table_name TEXT NOT NULL, row INTEGER NOT NULL,
    key, layout INTEGER REFERENCES layouts (id), after BLOB, bytes INTEGER NOT NULL
);
CREATE INDEX changes_of_step ON changes (step);
CREATE INDEX changes_of_row ON changes (table_name, row);
CREATE TABLE pace (ended REAL NOT NULL, rested REAL NOT NULL);
INSERT INTO pace VALUES (0, 0);
"""
# changes: without `layout` the row was added, without `after` it was removed, with both it was changed.
# layouts.images names the table `before_…` that holds the before-images: doctor_step, doctor_row, then the columns.


@dataclass(frozen=True, slots=True)
class Repair:
    """One repair as the journal has it: `rows` that it added, changed or removed, and their `bytes`.

    `verb` is quarantine, update, insert or undo; `status` is intended, applied, undone or abandoned; `undoes` the id of
    the repair that an undo took back; `time` is UTC.
    """

    id: int
    rule: str
    subject: Subject
    rows: int
    bytes: int
    verb: str
    status: str
    time: str
    session: str
    undoes: int | None = None


@dataclass(frozen=True, slots=True)
class Intent:
    """What a repair is for, before it has an id."""

    session: str
    rule: str
    subject: Subject
    verb: str
    undoes: int | None = None


@dataclass(frozen=True, slots=True)
class Layout:
    """The columns that a table had when rows of it were copied, and the journal's table that holds the copies."""

    id: int
    table: str
    columns: tuple[str, ...]
    images: str


def path_of(database: Path) -> Path:
    """The journal's path: `trajectory_data.sqlite` has `trajectory_data.doctor.sqlite` beside it."""
    return beside(database, ".doctor.sqlite")


def exists(database: Path) -> bool:
    """Whether a repair was ever begun; an empty file is a journal whose making was interrupted."""
    path = path_of(database)
    return path.exists() and path.stat().st_size > 0


def tolerant(value: bytes) -> str:
    """Text that is not valid in its encoding is shown, not refused; it is never written back from Python."""
    return value.decode("utf-8", errors="surrogateescape")


def connect(path: Path, options: str, patience: float, factory: type[sqlite3.Connection]) -> sqlite3.Connection:
    """A connection in autocommit mode: every BEGIN and COMMIT is a statement of ours."""
    connection = sqlite3.connect(
        f"{path.as_uri()}?{options}",
        uri=True,
        timeout=patience,
        isolation_level=None,
        factory=factory,
        check_same_thread=False,
    )
    connection.text_factory = tolerant
    return connection


def check_version(connection: sqlite3.Connection, database: Path) -> bool:
    """Raise RepairRefused unless the open file is a journal of this database that this doctor understands.

    False where there is nothing in it: the making of a journal was interrupted.
    """
    path = path_of(database)
    try:
        if not connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            return False
        found = connection.execute("SELECT version, database FROM schema_version").fetchone()
    except sqlite3.DatabaseError as error:
        if "no such" not in str(error) and "not a database" not in str(error):
            raise
        found = None
    if found is None:
        raise RepairRefused(f"{path} is not a doctor's journal: move it away, then run again.")
    if found[0] > SCHEMA_VERSION:
        raise RepairRefused(
            f"The journal {path} was written by a newer doctor (its schema version is {found[0]}, this doctor knows "
            f"{SCHEMA_VERSION}): update pytest-panic-doctor."
        )
    name = real(database).name
    if found[1] != name and path.with_name(found[1]).exists():
        raise RepairRefused(
            f"The journal {path} belongs to {found[1]}, not to {name}: keep the two in separate directories."
        )
    return True


def doctor_version() -> str:
    """This package's version, as installed."""
    try:
        return version("pytest-panic-doctor")
    except PackageNotFoundError:
        return "not installed"


def now() -> str:
    """The time as the journal writes it: UTC, as the database's own times without a zone."""
    return datetime.now(UTC).replace(tzinfo=None).isoformat(sep=" ")


class Journal:
    """The journal, open for writing, with the database attached read-only as `db`."""

    def __init__(self, database: Path, encoding: str, patience: float, factory: type[sqlite3.Connection]) -> None:
        """Open it, and make it where there is none. `encoding` is the database's: SQLite attaches no other.

        Raises RepairRefused where the file is another's or newer, sqlite3.Error where SQLite cannot open it.
        """
        self.database = database
        self.connection = connect(path_of(database), "mode=rwc", patience, factory)
        try:
            made = check_version(self.connection, database)
            self.connection.execute("PRAGMA synchronous = EXTRA")
            if not made:
                self._make(encoding)
            self.connection.execute("ATTACH ? AS db", (f"{real(database).as_uri()}?mode=ro",))
        except BaseException:
            self.connection.close()
            raise

    def _make(self, encoding: str) -> None:
        self.connection.execute(f"PRAGMA encoding = '{encoding}'")
        self.connection.execute("BEGIN IMMEDIATE")
        try:
            for statement in SCHEMA.split(";")[:-1]:
                self.connection.execute(statement)
            self.connection.execute(
                "INSERT INTO schema_version VALUES (?, ?)", (SCHEMA_VERSION, real(self.database).name)
            )
            self.connection.execute("COMMIT")
        except BaseException:
            if self.connection.in_transaction:
                self.connection.execute("ROLLBACK")
            raise

    def close(self) -> None:
        self.connection.close()

    # --- a step, in the order in which it happens

    def begin(self) -> None:
        """Begin the transaction that will hold a step and its before-images."""
        self.connection.execute("BEGIN IMMEDIATE")

    def secure(self) -> None:
        """Commit it: from here on the before-images survive whatever happens."""
        self.connection.execute("COMMIT")

    def new_repair(self, intent: Intent) -> int:
        """A repair with status intended; returns its id."""
        subject = intent.subject
        cursor = self.connection.execute(
            "INSERT INTO repairs (session, time, rule, experiment, run, embedding_model, verb, doctor_version, undoes,"
            " status, rows, bytes) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, 'intended', 0, 0)",
            (
                *(intent.session, now(), intent.rule, subject.experiment, subject.run, subject.embedding_model),
                *(intent.verb, doctor_version(), intent.undoes),
            ),
        )
        return int(cursor.lastrowid or 0)

    def new_step(self, repair: int) -> int:
        """A step of that repair with status intended; returns its id."""
        cursor = self.connection.execute(
            "INSERT INTO steps (repair, time, status) VALUES (?, ?, 'intended')", (repair, now())
        )
        return int(cursor.lastrowid or 0)

    def keep(self, step: int, table: Table, rowids: list[int]) -> None:
        """Copy the before-images of those rows, as the database has them committed now."""
        layout = self.layout_for(table)
        chosen = f"{table.rowid} IN (SELECT value FROM json_each(:rows))"
        parameters = {"step": step, "rows": as_json(rowids), "table": table.name, "layout": layout.id}
        copied = self.connection.execute(
            f"INSERT INTO {quoted(layout.images)} SELECT :step, {table.rowid}, {table.column_list}"
            f" FROM db.{table.quoted} WHERE {chosen}",
            parameters,
        ).rowcount
        if copied != len(rowids):
            raise sqlite3.IntegrityError(f"{copied} before-images of {len(rowids)} rows")
        self.connection.execute(
            f"INSERT INTO changes (step, table_name, row, key, layout, bytes)"
            f" SELECT :step, :table, {table.rowid}, id, :layout, {table.size} FROM db.{table.quoted} WHERE {chosen}",
            parameters,
        )

    def added(self, step: int, table: str, row: int, key: object, after: bytes, size: int) -> None:
        """Note a row that the step adds: there is no before-image, only what it will be."""
        self.connection.execute(
            "INSERT INTO changes (step, table_name, row, key, after, bytes) VALUES (?, ?, ?, ?, ?, ?)",
            (step, table, row, key, after, size),
        )

    def changed(self, step: int, table: str, after: Iterable[tuple[int, bytes]]) -> None:
        """Note what kept rows will be: (rowid, hash) of each."""
        self.connection.executemany(
            "UPDATE changes SET after = ? WHERE step = ? AND table_name = ? AND row = ?",
            ((digest, step, table, row) for row, digest in after),
        )

    def applied(self, step: int, ended: float, rested: float) -> None:
        """Mark a step whose transaction on the database is committed."""
        self.connection.execute("BEGIN IMMEDIATE")
        self.mark_applied(step)
        self.connection.execute("UPDATE pace SET ended = ?, rested = ?", (ended, rested))
        self.connection.execute("COMMIT")

    def mark_applied(self, step: int) -> None:
        """The marks alone, inside a transaction of the caller."""
        self.connection.execute("UPDATE steps SET status = 'applied' WHERE id = ?", (step,))
        repair = self.connection.execute("SELECT repair FROM steps WHERE id = ?", (step,)).fetchone()[0]
        self.connection.execute(
            "UPDATE repairs SET (rows, bytes) ="
            " (SELECT repairs.rows + count(*), repairs.bytes + coalesce(sum(c.bytes), 0) FROM changes c"
            " WHERE c.step = ?) WHERE id = ?",
            (step, repair),
        )
        self._becomes(repair, "applied")

    def _becomes(self, repair: int, status: str) -> None:
        """An undo that is applied makes what it undid undone; one that is itself undone makes that applied again."""
        self.connection.execute("UPDATE repairs SET status = ? WHERE id = ?", (status, repair))
        undoes = self.connection.execute("SELECT undoes FROM repairs WHERE id = ?", (repair,)).fetchone()[0]
        if undoes is not None:
            self._becomes(undoes, "undone" if status == "applied" else "applied")

    def mark_abandoned(self, step: int) -> None:
        """Mark a step of which the database has nothing, inside a transaction of the caller."""
        self.connection.execute("UPDATE steps SET status = 'abandoned' WHERE id = ?", (step,))
        self.connection.execute(
            "UPDATE repairs SET status = 'abandoned'"
            " WHERE id = (SELECT repair FROM steps WHERE id = ?) AND status = 'intended'"
            " AND NOT EXISTS (SELECT 1 FROM steps WHERE repair = repairs.id AND status <> 'abandoned')",
            (step,),
        )

    def forget(self, step: int, change: int) -> None:
        """Drop the record of a row that the database still has, inside a transaction of the caller."""
        found = self.connection.execute("SELECT row, layout FROM changes WHERE id = ?", (change,)).fetchone()
        if found[1] is not None:
            images = quoted(self.layout(found[1]).images)
            self.connection.execute(f"DELETE FROM {images} WHERE doctor_step = ? AND doctor_row = ?", (step, found[0]))
        self.connection.execute("DELETE FROM changes WHERE id = ?", (change,))

    # --- layouts

    def layout_for(self, table: Table) -> Layout:
        """The layout with just these columns; made where it is new, inside the caller's transaction."""
        columns = json.dumps(table.columns)
        found = self.connection.execute(
            "SELECT id FROM layouts WHERE table_name = ? AND columns = ?", (table.name, columns)
        ).fetchone()
        if found is not None:
            return self.layout(found[0])
        number = self.connection.execute("SELECT coalesce(max(id), 0) + 1 FROM layouts").fetchone()[0]
        images = f"before_{table.name}_{number}"
        self.connection.execute(
            f"CREATE TABLE {quoted(images)} (doctor_step INTEGER NOT NULL, doctor_row INTEGER NOT NULL,"
            f" {table.column_list}, PRIMARY KEY (doctor_step, doctor_row))"
        )
        self.connection.execute("INSERT INTO layouts VALUES (?, ?, ?, ?)", (number, table.name, columns, images))
        return self.layout(number)

    def layout(self, number: int) -> Layout:
        """The layout with that id."""
        row = self.connection.execute(
            "SELECT id, table_name, columns, images FROM layouts WHERE id = ?", (number,)
        ).fetchone()
        return Layout(row[0], row[1], tuple(json.loads(row[2])), row[3])

    def image_digests(self, step: int, layout: Layout, rows: Iterable[int]) -> Iterator[tuple[int, bytes]]:
        """(rowid, hash) of the before-images of those rows of a step, in rowid order."""
        where = "doctor_step = :step AND doctor_row IN (SELECT value FROM json_each(:rows))"
        parameters: dict[str, Value] = {"step": step, "rows": as_json(rows)}
        return digests(self.connection, quoted(layout.images), "doctor_row", layout.columns, where, parameters)

    # --- questions

    def open_steps(self) -> list[int]:
        """Steps that are neither applied nor abandoned, oldest first."""
        return [row[0] for row in self.connection.execute("SELECT id FROM steps WHERE status = 'intended' ORDER BY id")]

    def pace(self) -> tuple[float, float]:
        """(end of the last transaction, end of the last turn of other programs), monotonic seconds."""
        row = self.connection.execute("SELECT ended, rested FROM pace").fetchone()
        return float(row[0]), float(row[1])

    def highest_row(self, table: str) -> int:
        """The highest rowid that any repair of that table knows, 0 for none."""
        return int(
            self.connection.execute(
                "SELECT coalesce(max(row), 0) FROM changes WHERE table_name = ?", (table,)
            ).fetchone()[0]
        )

    def digests_now(self, table: Table, rowids: Iterable[int]) -> dict[int, bytes]:
        """rowid -> hash, of the database's committed rows."""
        return table_digests(self.connection, table, rowids, "db")


REPAIR_COLUMNS = "id, rule, experiment, run, embedding_model, rows, bytes, verb, status, time, session, undoes"


def listed(
    connection: sqlite3.Connection, where: str, parameters: Sequence[Value] | Mapping[str, Value]
) -> list[Repair]:
    """The repairs `where`, newest first."""
    return [
        Repair(row[0], row[1], Subject(row[2], row[3], row[4]), *row[5:])
        for row in connection.execute(
            f"SELECT {REPAIR_COLUMNS} FROM repairs WHERE {where} ORDER BY id DESC", parameters
        )
    ]


def read(database: Path, where: str, parameters: Sequence[Value] | Mapping[str, Value] = ()) -> list[Repair]:
    """The repairs `where`, newest first; none where there is no journal. Raises RepairError, in one sentence.

    It is opened for writing only so that SQLite can recover it after a crash.
    """
    if not exists(database):
        return []
    path = path_of(database)
    try:
        with closing(connect(path, "mode=rw", 10.0, sqlite3.Connection)) as connection:
            return listed(connection, where, parameters) if check_version(connection, database) else []
    except sqlite3.Error as error:
        raise RepairFailed(
            f"The journal {path} could not be read: SQLite says «{error}»; run again, or restore it from a backup."
        ) from error
