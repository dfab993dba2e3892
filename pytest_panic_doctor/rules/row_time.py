"""The rule about the times that the Elixir generation of the research tool writes into every row."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from pytest_panic_doctor.database.elixir_generation import ELIXIR
from pytest_panic_doctor.database.schema import NOUNS, columns_of
from pytest_panic_doctor.database.subject import Rows
from pytest_panic_doctor.database.timestamps import is_before, is_ecto_time, is_no_time
from pytest_panic_doctor.formatting import plural, verb
from pytest_panic_doctor.rules.base import Finding, RuleContext, Scope, rule

PAIRS = {"lyapunovresult": (("started_at", "completed_at"),)}
"""Times, first and last, that no other rule examines."""

WRITTEN = ("inserted_at", "updated_at")


@rule(
    "row-time",
    scope=Scope.DATABASE,
    description="Elixir: every row has the times of its insertion and of its last update, and they are in order",
    manual_fix="correct the times by hand, or leave them",
    generation=ELIXIR.key,
)
def row_time(context: RuleContext) -> Iterator[Finding]:
    """Check the times of all rows, and those of the Lyapunov results.

    Example: another program wrote a row, with a text that Ecto cannot read as a time. Then the research tool cannot
    read the row at all. Nothing repairs this.
    """
    for table in ELIXIR.tables:
        existing = columns_of(context.db, table.canonical)
        for first, last in (WRITTEN, *PAIRS.get(table.canonical, ())):
            if {first, last} <= existing:
                yield from wrong_times(context, table.canonical, first, last)


def wrong_times(context: RuleContext, table: str, first: str, last: str) -> Iterator[Finding]:
    """Find the rows of one table whose two times are invalid, missing or not in order. One pass if there are none."""
    fine = f"{is_ecto_time(first)} AND {is_ecto_time(last)} AND +{first} <= +{last}"
    count, certain = context.db.execute(f"SELECT count(*), total({fine}) FROM {table}").fetchone()
    if first == WRITTEN[0]:
        context.examined(int(count), table)
    if count == certain:
        return
    must = " OR ".join(f"{column} IS NULL" for column in (first, last) if column != "completed_at")
    others = f"SELECT id FROM {table} WHERE ({fine}) IS NOT 1"
    odd = Rows(table, f"{others} AND ({must} OR {is_no_time(first)} OR {is_no_time(last)})")
    yield from context.finding_for_rows(odd, partial(invalid_message, table, first, last))
    early = Rows(table, f"{others} AND {is_before(last, first)}")
    yield from context.finding_for_rows(early, partial(reversed_message, table, first, last))


def invalid_message(table: str, first: str, last: str, count: int) -> str:
    """Make the message for times that are missing or invalid."""
    return f"{plural(count, NOUNS[table])} {verb(count, 'has', 'have')} no valid {first} or {last}"


def reversed_message(table: str, first: str, last: str, count: int) -> str:
    """Make the message for times in the wrong order."""
    article = "an" if last == WRITTEN[1] else "a"
    whose = verb(count, "its", "their")
    return f"{plural(count, NOUNS[table])} {verb(count, 'has', 'have')} {article} {last} before {whose} {first}"
