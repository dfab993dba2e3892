"""The journal: an SQLite file beside the database, with the before-image of every row that a repair changes or removes.

Its main promise is an order. A step (one transaction on the database) is first committed here with its before-images,
`synchronous=EXTRA`, then committed there, then marked here. These are separate commits, never one over attached files,
which SQLite does not make atomic in WAL mode (https://sqlite.org/lang_attach.html). After a power failure between them,
the rows of the database show which commits took place; see `recovery`.

Before-images are copied by `INSERT … SELECT` from the database, attached read-only, into columns without a type. Values
never pass through Python, so they keep their storage class and their bytes.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from pytest_panic_doctor.database.files import create_like
from pytest_panic_doctor.formatting import doctor_version
from pytest_panic_doctor.repair.journal import identity, journal_schema
from pytest_panic_doctor.repair.journal.identity import journal_path as journal_path
from pytest_panic_doctor.repair.journal.journal_schema import SCHEMA_VERSION
from pytest_panic_doctor.repair.journal.locks import resolve
from pytest_panic_doctor.repair.journal.opening import connect, transaction
from pytest_panic_doctor.repair.journal.reading import check_version
from pytest_panic_doctor.repair.journal.repair_record import Intent
from pytest_panic_doctor.repair.journal.tables import Table, as_json, table_digests


def now() -> str:
    """Return the time in UTC, without a zone, like the times of the database."""
    return datetime.now(UTC).replace(tzinfo=None).isoformat(sep=" ")


class Journal:
    """The journal, open for writing, with the database attached read-only as `db`."""

    def __init__(
        self,
        database: Path,
        encoding: str,
        patience: float | None = None,
        factory: type[sqlite3.Connection] = sqlite3.Connection,
    ) -> None:
        """Open the journal, and create it if it is missing.

        Args:
            database: The path of the database.
            encoding: The text encoding of the database, since SQLite attaches no other.
            patience: Seconds for which one statement waits for a lock; None for `OPEN_TIMEOUT`.
            factory: The class of the connection.

        Raises:
            RepairRefused: The file belongs to another database or a newer version.
            sqlite3.Error: SQLite cannot open it.
        """
        self.database = database
        self.path = journal_path(database)
        # What keeps it from being made, SQLite says too.
        with suppress(OSError):
            create_like(self.path, resolve(database))
        self.connection = connect(self.path, "mode=rwc", patience, factory)
        try:
            found = check_version(self.connection, database)
            self.connection.execute("PRAGMA synchronous = EXTRA")
            if not found:
                self._make(encoding)
            self._attach()
            if found and found < SCHEMA_VERSION:
                self._migrate()
            if not self.connection.execute("SELECT EXISTS (SELECT 1 FROM witnesses)").fetchone()[0]:
                self.record_witnesses()
        except BaseException:
            self.connection.close()
            raise

    def _attach(self) -> None:
        try:
            self.connection.execute("ATTACH ? AS db", (f"{resolve(self.database).as_uri()}?mode=ro",))
        except sqlite3.Error as error:
            if "text encoding" in str(error):
                raise identity.describe_foreign(self.path, self.database) from error
            raise
        if identity.shares_rows(self.connection) is False:
            raise identity.describe_foreign(self.path, self.database)

    def _make(self, encoding: str) -> None:
        self.connection.execute(f"PRAGMA encoding = '{encoding}'")
        with transaction(self.connection):
            journal_schema.make(self.connection, resolve(self.database).name)

    def _migrate(self) -> None:
        with transaction(self.connection):
            if check_version(self.connection, self.database) < SCHEMA_VERSION:
                journal_schema.migrate(self.connection)

    def record_witnesses(self) -> None:
        """Store the ids that identify this database."""
        identity.record_witnesses(self.connection)

    def close(self) -> None:
        """Close the connection."""
        self.connection.close()

    # --- a step, in the order in which it happens

    def begin(self) -> None:
        """Begin the transaction that will hold a step and its before-images."""
        self.connection.execute("BEGIN IMMEDIATE")

    def commit_step(self, *steps: int) -> None:
        """Seal the steps and commit; after this the before-images survive a crash."""
        for step in steps:
            journal_schema.seal_step(self.connection, step)
        self.connection.execute("COMMIT")

    def new_repair(self, intent: Intent) -> int:
        """Add a repair with the status intended, and return its id."""
        subject = intent.subject
        cursor = self.connection.execute(
            "INSERT INTO repairs (session, time, rule, experiment, run, embedding_model, verb, doctor_version, undoes,"
            " status, rows, bytes) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, 'intended', 0, 0)",
            (
                *(intent.session, now(), intent.rule, subject.experiment, subject.run, subject.embedding_model),
                *(intent.verb, doctor_version(), intent.undoes),
            ),
        )
        repair = int(cursor.lastrowid or 0)
        journal_schema.seal_repair(self.connection, repair)
        return repair

    def new_step(self, repair: int) -> int:
        """Add a step of a repair with the status intended, and return its id."""
        cursor = self.connection.execute(
            "INSERT INTO steps (repair, time, status) VALUES (?, ?, 'intended')", (repair, now())
        )
        return int(cursor.lastrowid or 0)

    def copy_before_images(self, step: int, table: Table, rowids: list[int]) -> None:
        """Copy the before-images of rows, as they are committed in the database, and record their digests.

        Args:
            step: The step that will change them.
            table: Their table.
            rowids: Their rowids.

        Raises:
            sqlite3.IntegrityError: A row is missing.
        """
        layout = journal_schema.layout_for(self.connection, table)
        chosen = f"{table.rowid} IN (SELECT value FROM json_each(:rows))"
        parameters = {"step": step, "rows": as_json(rowids), "table": table.name, "layout": layout.id}
        copied = self.connection.execute(
            f"INSERT INTO {layout.source} SELECT :step, {table.rowid}, {table.column_list}"
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
        journal_schema.record_before(self.connection, step, table.name, self.digests_now(table, rowids).items())

    def added(self, step: int, table: str, row: int, key: object, after: bytes, size: int) -> None:
        """Record a row that the step adds, which has no before-image.

        Args:
            step: The step.
            table: The name of the table.
            row: The rowid.
            key: The id of the row.
            after: The digest of the row.
            size: The bytes of the row.
        """
        self.connection.execute(
            "INSERT INTO changes (step, table_name, row, key, after, bytes) VALUES (?, ?, ?, ?, ?, ?)",
            (step, table, row, key, after, size),
        )

    def changed(self, step: int, table: str, after: Iterable[tuple[int, bytes]]) -> None:
        """Record the digests of rows after the step, as (rowid, digest)."""
        self.connection.executemany(
            "UPDATE changes SET after = ? WHERE step = ? AND table_name = ? AND row = ?",
            ((digest, step, table, row) for row, digest in after),
        )

    def applied(self, steps: Iterable[int], ended: float, rested: float) -> None:
        """Mark the steps of a transaction that is committed in the database.

        Args:
            steps: The steps.
            ended: The end of the transaction, in monotonic seconds.
            rested: The end of the last pause for other programs, in monotonic seconds.
        """
        self.connection.execute("BEGIN IMMEDIATE")
        for step in steps:
            self.mark_applied(step)
        self.connection.execute("UPDATE pace SET ended = ?, rested = ?", (ended, rested))
        self.connection.execute("COMMIT")

    def mark_applied(self, step: int) -> None:
        """Mark one step as applied, inside the caller's transaction."""
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
        """Set the status of a repair, and of the repairs that it reverts.

        An applied undo makes its repair undone; an undone undo makes its repair applied again.
        """
        self.connection.execute("UPDATE repairs SET status = ? WHERE id = ?", (status, repair))
        undoes = self.connection.execute("SELECT undoes FROM repairs WHERE id = ?", (repair,)).fetchone()[0]
        if undoes is not None:
            self._becomes(undoes, "undone" if status == "applied" else "applied")

    def mark_abandoned(self, step: int) -> None:
        """Mark a step as abandoned, because the database has none of its changes; inside the caller's transaction."""
        self.connection.execute("UPDATE steps SET status = 'abandoned' WHERE id = ?", (step,))
        self.connection.execute(
            "UPDATE repairs SET status = 'abandoned'"
            " WHERE id = (SELECT repair FROM steps WHERE id = ?) AND status = 'intended'"
            " AND NOT EXISTS (SELECT 1 FROM steps WHERE repair = repairs.id AND status <> 'abandoned')",
            (step,),
        )

    def drop_change(self, step: int, change: int) -> None:
        """Delete the record of a row that the database still has, inside the caller's transaction."""
        found = self.connection.execute("SELECT row, layout FROM changes WHERE id = ?", (change,)).fetchone()
        if found[1] is not None:
            layout = journal_schema.layout_of(self.connection, found[1])
            self.connection.execute(
                f"DELETE FROM {layout.source} WHERE {layout.step} = ? AND {layout.row} = ?", (step, found[0])
            )
        self.connection.execute("DELETE FROM changes WHERE id = ?", (change,))

    # --- questions

    def open_steps(self) -> list[int]:
        """Return the steps that are neither applied nor abandoned, oldest first."""
        return [row[0] for row in self.connection.execute("SELECT id FROM steps WHERE status = 'intended' ORDER BY id")]

    def pace(self) -> tuple[float, float]:
        """Return (end of the last transaction, end of the last pause for other programs), in monotonic seconds."""
        row = self.connection.execute("SELECT ended, rested FROM pace").fetchone()
        # Where the file is damaged these may be anything, and nobody is kept waiting for it.
        return (row[0], row[1]) if row and all(isinstance(value, float) for value in row) else (0.0, 0.0)

    def highest_row(self, table: str) -> int:
        """Return the highest rowid that any repair of a table records, 0 if there is none."""
        return int(
            self.connection.execute(
                "SELECT coalesce(max(row), 0) FROM changes WHERE table_name = ?", (table,)
            ).fetchone()[0]
        )

    def digests_now(self, table: Table, rowids: Iterable[int]) -> dict[int, bytes]:
        """Return the digest of each committed row of the database, by its rowid."""
        return table_digests(self.connection, table, rowids, "db")
