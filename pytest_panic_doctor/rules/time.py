"""Rules about the times of rows."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from pytest_panic_doctor.database.elixir_generation import ELIXIR
from pytest_panic_doctor.database.schema import NOUNS, columns_of
from pytest_panic_doctor.database.subject import Rows
from pytest_panic_doctor.database.timestamps import (
    are_in_order,
    are_plain,
    is_before,
    is_ecto_time,
    is_no_time,
    is_plain,
    joined,
)
from pytest_panic_doctor.formatting import plural, verb
from pytest_panic_doctor.rules.base import Finding, RuleContext, Scope, rule
from pytest_panic_doctor.rules.invocation import (
    EARLY,
    NO_TIME,
    OF_RUNS,
    OUT_OF_ORDER,
    UNSURE_TIME,
    any_is,
    by_run,
    examined,
)

NO_TIME_HERE = f"({is_no_time('t.started_at')} OR {is_no_time('t.completed_at')})"
EARLY_HERE = is_before("t.completed_at", "t.started_at")
BEFORE_OUTPUT = is_before("t.started_at", "i.completed_at")
UNSURE_HERE = f"{are_in_order('i.completed_at', 't.started_at', 't.completed_at')} IS NOT 1"
"""With `are_plain`, true if one of the three conditions before is, and for some embeddings more."""

TIMED_EMBEDDINGS = (
    "run r JOIN invocation i ON i.run_id = r.id JOIN embedding t ON t.invocation_id = i.id "
    "WHERE r.experiment_id = :experiment"
)
DIAGRAMS = "run r JOIN persistencediagram t ON t.run_id = r.id WHERE r.experiment_id = :experiment"
EXPERIMENT = "experimentconfig t WHERE t.id = :experiment"

BEFORE_RUN = f"EXISTS (SELECT 1 FROM invocation i WHERE i.run_id = r.id AND {BEFORE_OUTPUT})"


def is_unsure(context: RuleContext) -> bool:
    """Whether times of embeddings of the experiment must be compared one by one. One pass serves both rules."""
    if any_is(context, UNSURE_TIME):
        return True
    times, form = joined("t.started_at", "t.completed_at"), context.generation.time_format
    query = f"SELECT total({UNSURE_HERE}), count(*), {times} FROM {TIMED_EMBEDDINGS} GROUP BY r.rowid"
    return context.cached(
        "embeddings at an unsure time",
        lambda: any(
            wrong or not are_plain(times, count, form)
            for wrong, count, times in context.db.execute(query, context.params)
        ),
    )


@rule(
    "invocation-time",
    scope=Scope.EXPERIMENT,
    description="every time is valid, and nothing completed before it started",
    manual_fix="correct the times by hand, or leave them",
)
def invocation_time(context: RuleContext) -> Iterator[Finding]:
    """Check the times of the experiment, its invocations, embeddings and diagrams, in any valid spelling.

    Example: an invocation that ended before it started, or on 31 February. Durations are then wrong. Nothing repairs
    this.
    """
    examined(context)
    for noun, table, source, name in (
        ("experiment", "experimentconfig", EXPERIMENT, "t"),
        ("invocation", "invocation", OF_RUNS, "i"),
        ("embedding", "embedding", TIMED_EMBEDDINGS, "t"),
        ("diagram", "persistencediagram", DIAGRAMS, "t"),
    ):
        no_time, early = (NO_TIME, EARLY) if name == "i" else (NO_TIME_HERE, EARLY_HERE)
        if (table == "invocation" and not any_is(context, UNSURE_TIME)) or (
            table == "embedding" and not is_unsure(context)
        ):
            continue
        odd = Rows(table, f"SELECT {name}.id FROM {source} AND {no_time}", context.params)
        yield from context.finding_for_rows(odd, partial(odd_message, noun), partial(odd_details, context, odd))
        wrong = Rows(table, f"SELECT {name}.id FROM {source} AND {early}", context.params)
        yield from context.finding_for_rows(wrong, partial(early_message, noun))


def odd_message(noun: str, count: int) -> str:
    """Make the message for invalid times, e.g. `2 embeddings have an invalid time`."""
    return f"{plural(count, noun)} {verb(count, 'has', 'have')} an invalid time"


def odd_details(context: RuleContext, rows: Rows) -> str:
    """Show one of the values as an example."""
    columns = ("started_at", "completed_at")
    found = [
        row
        for column in columns
        for row in context.db.execute(
            f"SELECT quote(substr({column}, 1, 40)) FROM {rows.table} WHERE id IN ({rows.sql}) "
            f"AND {is_no_time(column)} LIMIT 1",
            rows.params,
        )
    ]
    return f"for example {str(found[0][0])[:42]}" if found else "their ids are NULL"


def early_message(noun: str, count: int) -> str:
    """Make the message for times in the wrong order, e.g. `2 embeddings completed before they started`."""
    return f"{plural(count, noun)} completed before {verb(count, 'it', 'they')} started"


@rule(
    "time-order",
    scope=Scope.EXPERIMENT,
    description="no invocation starts before its input is complete, no embedding before its invocation, and no diagram "
    "before its run",
    manual_fix="correct the times by hand, or leave them",
)
def time_order(context: RuleContext) -> Iterator[Finding]:
    """Check that each step started after the step before it had ended.

    Example: a diagram that is older than its embeddings may be of other vectors. A clock that was set back has the same
    effect. Nothing repairs this.
    """
    examined(context)
    for table, before, query, may_be in (
        (
            "invocation",
            "input",
            f"SELECT i.id FROM {OF_RUNS} AND {OUT_OF_ORDER}",
            partial(any_is, condition=UNSURE_TIME),
        ),
        ("embedding", "invocation", f"SELECT t.id FROM {TIMED_EMBEDDINGS} AND {BEFORE_OUTPUT}", is_unsure),
        ("persistencediagram", "run", f"SELECT t.id FROM {DIAGRAMS} AND {BEFORE_RUN}", may_precede_runs),
    ):
        if may_be(context):
            rows = Rows(table, query, context.params)
            yield from context.finding_for_rows(rows, partial(order_message, NOUNS[table], before))


def order_message(noun: str, before: str, count: int) -> str:
    """Make the message for steps in the wrong order, e.g. `2 diagrams started before their run was complete`."""
    return f"{plural(count, noun)} started before {verb(count, 'its', 'their')} {before} was complete"


def may_precede_runs(context: RuleContext) -> bool:
    """Whether, judged by the text alone, a diagram may have started before the last invocation of its run ended."""
    latest = {run: judged.latest for run, judged in by_run(context).items()}
    found = context.db.execute(
        f"SELECT t.run_id, t.started_at, {is_plain('t.started_at', context.generation.time_format)} FROM {DIAGRAMS}",
        context.params,
    )
    for run, started, plain in found:
        end = latest.get(str(run), "")
        if started is not None and end != "" and (end is None or not plain or started < end):
            return True
    return False


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
