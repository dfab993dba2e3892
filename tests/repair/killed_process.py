"""Run as a process: begin one repair and die of SIGKILL in it, at a point between two commits.

usage: killed_process.py DATABASE remove|change|add|batch commit|mark      before the database's COMMIT, or after it
"""

from __future__ import annotations

import os
import signal
import sqlite3
import sys
from pathlib import Path
from typing import NoReturn

from repair_process import NEW, NULL_DIAGRAM, ORPHANS, batch

from pytest_panic_doctor.database.subject import Subject
from pytest_panic_doctor.repair import Writer
from pytest_panic_doctor.repair.journal.journal import Journal


def die(*_: object) -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


class Dying(sqlite3.Connection):
    """Dies where the database's own transaction is to be committed: the second COMMIT of a step."""

    def execute(self, sql: str, parameters: object = (), /) -> sqlite3.Cursor:
        names = {row[2] for row in super().execute("PRAGMA database_list")}
        if sql == "COMMIT" and str(Path(sys.argv[1]).resolve()) in names and len(names) == 1:
            die()
        return super().execute(sql, parameters)  # type: ignore[arg-type]


def main() -> None:
    """One repair of the kind that is asked for."""
    database, kind, point = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
    if point == "mark":
        Journal.applied = die  # type: ignore[method-assign, assignment]
    writer = Writer(database, "s", lambda: True, connection=Dying if point == "commit" else sqlite3.Connection)
    if kind == "remove":
        writer.quarantine("orphan-run", Subject(), ORPHANS)
    elif kind == "change":
        values = {"diagram_data": b"recomputed"}
        writer.update("diagram-valid", Subject(), "persistencediagram", NULL_DIAGRAM, values, lambda _: True)
    elif kind == "batch":
        writer.write(batch())
    else:
        writer.insert("diagram-missing", Subject(), "persistencediagram", NEW, lambda _: True)


if __name__ == "__main__":
    main()
