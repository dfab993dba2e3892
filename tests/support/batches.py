"""Changes of diagrams that are written several at a time, each a repair of its own."""

from __future__ import annotations

import sqlite3
from functools import partial

from small_database import TIME, name

from pytest_panic_doctor.database.subject import Subject
from pytest_panic_doctor.repair.journal.writer import Change

SECOND_DIAGRAM = name(5, 1)
ADDED = [
    {
        "id": letter * 32,
        "started_at": TIME,
        "completed_at": None,
        "run_id": name(2, 1),
        "embedding_model": f"Model {letter}",
        "diagram_data": b"computed",
    }
    for letter in "bcd"
]


def batch() -> list[Change]:
    """Three diagrams that are added, and, as the second, one that is changed; each unless it is so already."""
    table = "persistencediagram"
    changes = [Change("diagram-missing", Subject(), table, row, partial(absent, str(row["id"]))) for row in ADDED]
    values = {"diagram_data": b"recomputed too"}
    sick = partial(differs, SECOND_DIAGRAM, b"recomputed too")
    changes.insert(1, Change("diagram-valid", Subject(), table, values, sick, SECOND_DIAGRAM))
    return changes


def absent(row: str, db: sqlite3.Connection) -> bool:
    """Whether there is no such diagram."""
    return not db.execute("SELECT 1 FROM persistencediagram WHERE id = ?", (row,)).fetchone()


def differs(row: str, data: bytes, db: sqlite3.Connection) -> bool:
    """Whether a diagram is another than `data`."""
    found = db.execute("SELECT diagram_data FROM persistencediagram WHERE id = ?", (row,)).fetchone()
    return bool(found[0] != data)
