"""What a quarantine would take, without taking it."""

from __future__ import annotations

import sqlite3

from pytest_panic_doctor.repair.rows import REFERENCES, describe
from pytest_panic_doctor.store.subject import Rows


def weigh(db: sqlite3.Connection, rows: Rows) -> tuple[int, int]:
    """How many rows a quarantine of `rows` takes, with all that hangs on them, and their bytes.

    A row that hangs on two of them is counted twice: this is an estimate of the journal's size, from above.
    """
    table = describe(db, rows.table)
    count, size = db.execute(
        f"SELECT count(*), coalesce(sum({table.size}), 0) FROM {table.quoted} WHERE id IN ({rows.sql})", rows.params
    ).fetchone()
    if not count:
        return 0, 0
    for child, column, parent in REFERENCES:
        if parent == rows.table:
            hanging = Rows(child, f"SELECT id FROM {child} WHERE {column} IN ({rows.sql})", rows.params)
            more, bytes_more = weigh(db, hanging)
            count, size = count + more, size + bytes_more
    return int(count), int(size)
