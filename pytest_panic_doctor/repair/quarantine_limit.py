"""Decides which quarantines are too large to be made without the user's permission."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping

from pytest_panic_doctor.database.generations import noun_of
from pytest_panic_doctor.database.schema import quote
from pytest_panic_doctor.formatting import plural
from pytest_panic_doctor.repair.journal.size import QuarantinePreview
from pytest_panic_doctor.repair.journal.tables import generation_of_file

FREE_ROWS = 1_000
"""Rows that a quarantine may take without permission, dependent rows included."""

FREE_PERCENT = 1.0
"""Per cent of the rows of each table that a quarantine of any size may take without permission."""

NONE: Mapping[str, int] = {}
"""No rows."""

WHOLE_RUNS = (
    "SELECT count(*), min(run_id) FROM (SELECT run_id FROM invocation WHERE rowid IN (SELECT value FROM json_each(?)) "
    "GROUP BY run_id HAVING count(*) > 1 AND min(sequence_number) = 0 AND max(sequence_number) = count(*) - 1 "
    "AND count(DISTINCT sequence_number) = count(*))"
)
"""Selects the number of runs all of whose invocations would be taken, and the id of one."""


def limit_exceeded(
    db: sqlite3.Connection, taken: QuarantinePreview, allowed: str | None, before: Mapping[str, int] = NONE
) -> str:
    """Return why a quarantine needs the user's permission, in one sentence with the option; empty if it needs none.

    Permission is needed for more than `FREE_ROWS` rows that are more than `FREE_PERCENT` of a table, and for all
    invocations of a run: then probably the row of the run is what was lost.

    Args:
        db: The database.
        taken: The rows that would be taken.
        allowed: The value of `--doctor-max-quarantine`; None for the default.
        before: The rows of each table that the session has quarantined already, which count too.
    """
    counts = taken.by_table
    every = {table: counts.get(table, 0) + before.get(table, 0) for table in {**counts, **before}}
    total = sum(every.values())
    what = describe_counts(counts) + (
        f", beside {plural(sum(before.values()), 'row')} in this session" if any(before.values()) else ""
    )
    if allowed is not None:
        limit = float(allowed.rstrip("%"))
        if not (total > limit if not allowed.endswith("%") else beyond(db, every, limit, before)):
            return ""
        return (
            f"it would quarantine {what}, more than --doctor-max-quarantine {allowed} allows; {allowing_option(total)}"
        )
    invocations = generation_of_file(db).real_name("invocation")
    whole, run = db.execute(WHOLE_RUNS, (json.dumps(taken.rows_of(invocations)),)).fetchone()
    if whole:
        runs = f"all of the run {run}" if whole == 1 else f"all of {whole:,} runs"
        return (
            f"it would quarantine {what}, {runs}: bring back the row that they belong to, or, if they are to "
            f"go, {allowing_option(total)}"
        )
    if total > FREE_ROWS and beyond(db, every, FREE_PERCENT, before):
        return f"it would quarantine {what}; {allowing_option(total)}"
    return ""


def allowing_option(total: int) -> str:
    """Return the option that gives permission."""
    return f"allow it with --doctor-max-quarantine {total}"


def beyond(db: sqlite3.Connection, counts: Mapping[str, int], percent: float, gone: Mapping[str, int] = NONE) -> bool:
    """Return whether more than a percentage of any table would be taken.

    Args:
        db: The database.
        counts: The rows of each table, by its name.
        percent: The percentage.
        gone: Rows among `counts` that are no longer in the database.
    """
    for table, count in counts.items():
        (total,) = db.execute(f"SELECT count(*) FROM {quote(table)}").fetchone()
        if count * 100 > percent * (total + gone.get(table, 0)):
            return True
    return False


def describe_counts(counts: Mapping[str, int]) -> str:
    """Describe counts: `2,400 rows: 1,200 invocations, 1,199 embeddings, 1 run`."""
    parts = [
        plural(count, noun) if (noun := noun_of(table)) else f"{plural(count, 'row')} of {table}"
        for table, count in counts.items()
    ]
    return f"{plural(sum(counts.values()), 'row')}: {', '.join(parts)}"
