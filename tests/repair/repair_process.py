"""Run as a process: repair a database by a fixed list, and, where asked to, die of SIGKILL on the way.

usage: repair_process.py DATABASE [STATEMENT [after]]      the number of the statement to die at, over all connections
"""

from __future__ import annotations

import os
import signal
import sqlite3
import sys
from collections.abc import Callable
from datetime import datetime, tzinfo
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))
from batches import batch as batch

from pytest_panic_doctor.database.subject import Rows, Subject
from pytest_panic_doctor.repair import RepairLock, Writer, finish, preflight, recover
from pytest_panic_doctor.repair.journal import selection
from pytest_panic_doctor.repair.journal import writer as writers

ORPHANS = Rows(
    "run", "SELECT id FROM run r WHERE NOT EXISTS (SELECT 1 FROM experimentconfig e WHERE e.id = r.experiment_id)"
)
MISMATCHED = Rows(
    "embedding",
    "SELECT e.id FROM embedding e JOIN invocation i ON i.id = e.invocation_id WHERE i.type = :kind",
    {"kind": "IMAGE"},
)
NEW = {
    "id": "f" * 32,
    "started_at": "2025-08-12 09:30:00.123456",
    "completed_at": None,
    "run_id": f"{2:04x}{1:028x}",
    "embedding_model": "NomicVision",
    "diagram_data": b"computed",
}
NULL_DIAGRAM = f"{5:04x}{0:028x}"


def operate(writer: Writer) -> None:
    """Every kind of repair, in small batches; whatever is done already is not done again."""
    selection.FIRST_ROWS = 5
    selection.MIN_ROWS = selection.MAX_ROWS = selection.MIN_SCANNED_ROWS = 5
    writer.quarantine("orphan-run", Subject(), ORPHANS)
    writer.quarantine("embedding-type", Subject(), MISMATCHED)
    writer.update(
        "diagram-valid",
        Subject(),
        "persistencediagram",
        NULL_DIAGRAM,
        {"diagram_data": b"recomputed", "completed_at": "2025-08-12 10:00:00.000000"},
        lambda db: (
            db.execute("SELECT diagram_data FROM persistencediagram WHERE id = ?", (NULL_DIAGRAM,)).fetchone()[0]
            != b"recomputed"
        ),
    )
    writer.insert(
        "diagram-missing",
        Subject(),
        "persistencediagram",
        NEW,
        lambda db: not db.execute("SELECT 1 FROM persistencediagram WHERE id = ?", (NEW["id"],)).fetchone(),
    )
    writer.write(batch())


class Frozen(datetime):
    """A clock that stands still, so that two sessions write the same times into `updated_at`."""

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> Frozen:
        """Always the same time."""
        return cls(2026, 8, 4, 12, 0, 0, 123456, tzinfo=tz)


def dying(at: int, after: bool) -> type[sqlite3.Connection]:
    """A connection class that ends the process at statement number `at`."""

    class Dying(sqlite3.Connection):
        count = 0

        def execute(self, sql: str, parameters: object = (), /) -> sqlite3.Cursor:
            return self._run(lambda: super(Dying, self).execute(sql, parameters))  # type: ignore[arg-type]

        def executemany(self, sql: str, parameters: object, /) -> sqlite3.Cursor:
            return self._run(lambda: super(Dying, self).executemany(sql, parameters))  # type: ignore[arg-type]

        def _run(self, statement: Callable[[], sqlite3.Cursor]) -> sqlite3.Cursor:
            Dying.count += 1
            if Dying.count == at + 1 and not after:
                os.kill(os.getpid(), signal.SIGKILL)
            result = statement()
            if Dying.count == at + 1:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

    return Dying


def main() -> None:
    """The whole of a doctor's session, in one process."""
    database = Path(sys.argv[1])
    at = int(sys.argv[2]) if len(sys.argv) > 2 else -1
    made = dying(at, sys.argv[3:] == ["after"])
    writers.datetime = Frozen  # type: ignore[attr-defined]
    with RepairLock(database):
        preflight(database, 0)
        recover(database)
        writer = Writer(database, "session", lambda: True, connection=made)
        operate(writer)
        writer.close()
        finish(database)
    print(made.count)  # type: ignore[attr-defined]


if __name__ == "__main__":
    main()
