"""Rules about the invocations of an experiment's runs. Image bytes are read only if a run stops early."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial

from pytest_panic_doctor.database.subject import Rows
from pytest_panic_doctor.database.timestamps import are_in_order, are_plain, is_before, is_no_time, joined
from pytest_panic_doctor.formatting import plural, verb
from pytest_panic_doctor.rules.base import Finding, NotApplicable, RuleContext, Scope, rule
from pytest_panic_doctor.rules.evidence import commonest
from pytest_panic_doctor.rules.repeated_outputs import early_stop

OF_RUNS = (
    "run r JOIN invocation i ON i.run_id = r.id LEFT JOIN invocation p ON p.id = i.input_invocation_id "
    "WHERE r.experiment_id = :experiment"
)
"""The invocations `i` of an experiment, each with its input `p`, by three indexes.

`:run` is not used: these rules are never asked about a single run.
"""

RANGES_SHOWN = 5


WRONG_OUTPUT = (
    "CASE i.type WHEN 'TEXT' THEN typeof(i.output_text) <> 'text' OR i.output_image_data IS NOT NULL WHEN 'IMAGE' THEN "
    "typeof(i.output_image_data) <> 'blob' OR length(i.output_image_data) = 0 OR i.output_text IS NOT NULL ELSE 1 END"
)
WRONG_INPUT = (
    "NOT CASE WHEN i.sequence_number IS 0 THEN i.input_invocation_id IS NULL "
    "WHEN i.sequence_number > 0 THEN p.run_id IS i.run_id AND p.sequence_number IS i.sequence_number - 1 ELSE 0 END"
)
NETWORK = "CASE WHEN json_valid(r.network) THEN r.network ELSE '[]' END"
WRONG_MODEL = (
    f"i.model IS NOT CASE WHEN i.sequence_number >= 0 THEN json_extract({NETWORK}, '$[' || "
    f"(CAST(i.sequence_number AS INTEGER) % json_array_length({NETWORK})) || ']') END"
)
WRONG_SEED = "i.seed IS NOT r.seed"
NO_TIME = f"({is_no_time('i.started_at')} OR {is_no_time('i.completed_at')})"
EARLY = is_before("i.completed_at", "i.started_at")
OUT_OF_ORDER = (
    f"(p.run_id = i.run_id AND p.sequence_number < i.sequence_number AND {is_before('i.started_at', 'p.completed_at')})"
)
UNSURE_TIME = f"{are_in_order('p.completed_at', 'i.started_at', 'i.completed_at')} IS NOT 1"
"""With `are_plain`, true if one of the three conditions before is, and for more invocations: those are compared one by
one.
"""

CONDITIONS = (WRONG_OUTPUT, WRONG_INPUT, WRONG_MODEL, WRONG_SEED, UNSURE_TIME)


@dataclass(frozen=True, slots=True)
class Judged:
    """The result of one pass over a run's invocations.

    Attributes:
        latest: The end of the last invocation; empty if none is complete; None if not all times sort correctly as text.
        wrong: How many invocations meet each of the `CONDITIONS`.
    """

    count: int
    latest: str | None
    wrong: tuple[float, ...]


def by_run(context: RuleContext) -> dict[str, Judged]:
    """Return the runs of the experiment that have invocations. One pass checks all conditions for a healthy run."""
    sums = ", ".join(f"total({each})" for each in CONDITIONS)
    times = joined("i.started_at", "i.completed_at")
    # Runs come in the order of their rowid, so that nothing is sorted, and no image goes into a sorter.
    query = f"SELECT r.id, count(*), max(i.completed_at), {times}, {sums} FROM {OF_RUNS} GROUP BY r.rowid"

    def judge() -> dict[str, Judged]:
        found = {}
        for run, count, last, times, *wrong in context.db.execute(query, context.params):
            plain = are_plain(times, count, context.generation.time_format)
            latest = "" if last is None else last if plain and isinstance(last, str) else None
            found[str(run)] = Judged(count, latest, (*wrong[:-1], wrong[-1] + (not plain)))
        return found

    return context.cached("invocations that are wrong", judge)


def any_is(context: RuleContext, condition: str) -> bool:
    """Whether any invocation of the experiment meets one of the `CONDITIONS`."""
    place = CONDITIONS.index(condition)
    return any(run.wrong[place] for run in by_run(context).values())


def examined(context: RuleContext) -> None:
    """Count all invocations of the experiment as examined."""
    context.examined(sum(run.count for run in by_run(context).values()), "invocation")


def describe_kinds(context: RuleContext, where: str, kinds: Mapping[str, str]) -> str:
    """Count the invocations that meet `where`, and each of some conditions: `2 without an input, 1 …`."""
    sums = ", ".join(f"total({condition})" for condition in kinds.values())
    counts = context.db.execute(f"SELECT {sums} FROM {OF_RUNS} AND {where}", context.params).fetchone()
    return ", ".join(f"{int(count):,} {kind}" for kind, count in zip(kinds, counts, strict=True) if count)


def wrong_invocations(
    context: RuleContext,
    condition: str,
    clause: Callable[[int], str],
    details: Callable[[Rows], str] | None = None,
    where: str = "1",
) -> Iterator[Finding]:
    """Find the invocations that meet one of the `CONDITIONS`.

    Args:
        context: The snapshot and the subject.
        condition: The condition.
        clause: Makes the end of the message, after `2 of 60 invocations`, from their number.
        details: Makes what follows the message.
        where: Another condition that they must meet.
    """
    if not any_is(context, condition):
        return
    rows = Rows("invocation", f"SELECT i.id FROM {OF_RUNS} AND {where} AND {condition}", context.params)

    def message(count: int) -> str:
        total = context.scalar(f"SELECT count(*) FROM {OF_RUNS}")
        return f"{count:,} of {plural(total, 'invocation')} {clause(count)}"

    yield from context.finding_for_rows(rows, message, partial(details, rows) if details else None)


@rule(
    "invocation-sequence",
    scope=Scope.EXPERIMENT,
    description="each run's sequence numbers are 0 … max_length-1, each once (early stop as documented)",
    manual_fix="regenerate the run with the research tool: numbers are never changed",
)
def invocation_sequence(context: RuleContext) -> Iterator[Finding]:
    """Check that each run has the invocations 0 to n-1, each once.

    Example: invocation 7 was deleted. The trajectory has a gap, and its diagram lacks a point. Nothing repairs this.
    One aggregate decides for a healthy run; only others are read row by row. A run whose seed is not -1 ends at its
    first repeated output, so that the images of a shorter run are compared.
    """
    context.examined(0, "run")
    runs = context.db.execute(
        "SELECT r.id, r.seed, r.max_length, count(i.id), count(DISTINCT i.sequence_number), min(i.sequence_number), "
        "max(i.sequence_number), total(typeof(i.sequence_number) = 'integer') "
        "FROM run r LEFT JOIN invocation i ON i.run_id = r.id "
        "WHERE r.experiment_id = :experiment GROUP BY r.id ORDER BY r.id",
        context.params,
    )
    unfinished = context.unfinished()
    to_come = 0
    for run, seed, max_length, count, distinct, low, high, whole in runs.fetchall():
        context.examined(1, "run")
        context.examined(count, "invocation")
        length = max_length if isinstance(max_length, int) else -1
        in_order = count > 0 and count == distinct == whole and low == 0 and high == count - 1
        if in_order and count == length and seed == -1:
            continue
        if unfinished and (in_order or not count) and count < length:
            to_come += 1
            continue
        if in_order and count <= length and seed != -1:
            problems = [clause] if (clause := early_stop(context.db, run, count, length)) else []
        else:
            problems = sequence_problems(context, run, seed, max_length)
        if problems:
            yield context.finding("; ".join(problems), table="run", ids=[run], run=run)
    if to_come:
        raise NotApplicable(f"{plural(to_come, 'run')} may still get longer: {unfinished}")


NUMBERS = (
    "good AS (SELECT sequence_number AS number, count(*) AS times FROM invocation WHERE run_id = :of "
    "AND typeof(sequence_number) = 'integer' AND sequence_number >= 0 AND sequence_number < :length GROUP BY 1)"
)
"""The valid sequence numbers of a run, each once, with how often it occurs."""

GAPS = (
    "SELECT lag(number, 1, -1) OVER (ORDER BY number) + 1 AS low, number - 1 AS high FROM "
    "(SELECT number FROM good UNION ALL SELECT :end)"
)
"""The missing numbers as spans (low, high), before each number and before the end."""


def sequence_problems(context: RuleContext, run: str, seed: int, max_length: object) -> list[str]:
    """Describe what is wrong with one run's numbers, as clauses; SQLite counts, so that no row is kept."""
    if not isinstance(max_length, int) or max_length <= 0:
        return [f"the run's max_length is {str(max_length)[:20]!r}, so its sequence numbers cannot be judged"]
    params: dict[str, str | int | None] = {"of": run, "length": max_length}
    existing, count, last = context.db.execute(
        f"WITH {NUMBERS} SELECT (SELECT count(*) FROM invocation WHERE run_id = :of), count(*), max(number) FROM good",
        params,
    ).fetchone()
    if not existing:
        return [f"the run has no invocation instead of {max_length:,}"]
    end = max_length if seed == -1 else (-1 if last is None else last) + 1
    problems = []
    if count < end:
        lost = evaluate_spans(context, f"spans AS (SELECT * FROM ({GAPS}) WHERE high >= low)", params | {"end": end})
        what = plural(lost.count, "sequence number")
        problems.append(f"{what} of {max_length:,} {verb(lost.count)} missing: {lost}")
    repeated = evaluate_spans(
        context, "spans AS (SELECT number AS low, number AS high FROM good WHERE times > 1)", params
    )
    if repeated.count:
        what = plural(repeated.count, "sequence number")
        problems.append(f"{what} {verb(repeated.count, 'occurs', 'occur')} more than once: {repeated}")
    problems += outside(context, params, max_length)
    return problems


def outside(context: RuleContext, params: dict[str, str | int | None], max_length: int) -> list[str]:
    """Describe the numbers that no invocation of the run can have, as at most one clause."""
    odd = (
        "SELECT DISTINCT sequence_number AS number FROM invocation WHERE run_id = :of AND NOT "
        "(typeof(sequence_number) = 'integer' AND sequence_number >= 0 AND sequence_number < :length)"
    )
    count = context.scalar(f"SELECT count(*) FROM ({odd})", **params)
    if not count:
        return []
    short = "CASE WHEN typeof(number) IN ('text', 'blob') THEN substr(number, 1, 20) ELSE number END"
    first = context.db.execute(f"SELECT {short} FROM ({odd}) ORDER BY number LIMIT {RANGES_SHOWN}", params).fetchall()
    shown = ", ".join("NULL" if value is None else str(value)[:20] for (value,) in first)
    return [f"{plural(count, 'sequence number')} outside 0 … {max_length - 1:,}: {shown}"]


@dataclass(frozen=True, slots=True)
class Spans:
    """Spans of consecutive numbers: their total, and the first and last number of the first spans."""

    count: int
    first: tuple[tuple[int, int], ...]

    def __str__(self) -> str:
        """Format the spans, e.g. `3, 7–9 and 4 more`."""
        shown = ", ".join(str(low) if low == high else f"{low:,}–{high:,}" for low, high in self.first)
        left = self.count - sum(high - low + 1 for low, high in self.first)
        return f"{shown} and {left:,} more" if left else shown


def evaluate_spans(context: RuleContext, query: str, params: dict[str, str | int | None]) -> Spans:
    """Evaluate a table expression `spans (low, high)` over the numbers of a run."""
    source = f"WITH {NUMBERS}, {query}"
    count = context.scalar(f"{source} SELECT total(high - low + 1) FROM spans", **params)
    first = context.db.execute(
        f"{source} SELECT low, high FROM spans ORDER BY low LIMIT {RANGES_SHOWN}", params
    ).fetchall()
    return Spans(count, tuple(first))


@rule(
    "invocation-output",
    scope=Scope.EXPERIMENT,
    description="each invocation has the output of its type and only that",
    manual_fix="regenerate the run with the research tool",
)
def invocation_output(context: RuleContext) -> Iterator[Finding]:
    """Check that the output of an invocation's type exists, and only that one. Image bytes are not read.

    Example: an image invocation without an image. Nothing can be embedded for it. Nothing repairs this.
    """
    examined(context)
    kinds = {
        "of type TEXT without a text": "i.type = 'TEXT' AND typeof(i.output_text) <> 'text'",
        "of type IMAGE without an image": "i.type = 'IMAGE' AND (typeof(i.output_image_data) <> 'blob' "
        "OR length(i.output_image_data) = 0)",
        "of type TEXT with an image": "i.type = 'TEXT' AND i.output_image_data IS NOT NULL",
        "of type IMAGE with a text": "i.type = 'IMAGE' AND i.output_text IS NOT NULL",
        "of an unknown type": "coalesce(i.type, '') NOT IN ('TEXT', 'IMAGE')",
    }
    yield from wrong_invocations(
        context,
        WRONG_OUTPUT,
        lambda count: f"{verb(count, 'has', 'have')} a missing or wrong output",
        lambda _: describe_kinds(context, WRONG_OUTPUT, kinds),
    )


@rule(
    "invocation-chain",
    scope=Scope.EXPERIMENT,
    description="each invocation's input is its predecessor in the same run",
    manual_fix="regenerate the run with the research tool",
)
def invocation_chain(context: RuleContext) -> Iterator[Finding]:
    """Check that the input of invocation 0 is NULL, and that of invocation k is invocation k-1 of the run.

    Example: an input of another run. The trajectory would then not be a chain. Nothing repairs this.
    """
    examined(context)
    kinds = {
        "at the start of a run, with an input": "i.sequence_number IS 0 AND i.input_invocation_id IS NOT NULL",
        "without an input": "i.sequence_number IS NOT 0 AND i.input_invocation_id IS NULL",
        "whose input does not exist": "i.sequence_number IS NOT 0 AND i.input_invocation_id IS NOT NULL "
        "AND p.id IS NULL",
        "whose input is of another run": "i.sequence_number IS NOT 0 AND p.id IS NOT NULL AND p.run_id IS NOT i.run_id",
        "whose input is another one of the same run": "i.sequence_number IS NOT 0 AND p.id IS NOT NULL "
        "AND p.run_id IS i.run_id",
    }
    yield from wrong_invocations(
        context,
        WRONG_INPUT,
        lambda count: f"{verb(count, 'does not take its', 'do not take their')} predecessor as input",
        lambda _: describe_kinds(context, WRONG_INPUT, kinds),
    )


@rule(
    "invocation-model",
    scope=Scope.EXPERIMENT,
    description="each invocation's model is the one whose turn it is",
    manual_fix="regenerate the run with the research tool",
)
def invocation_model(context: RuleContext) -> Iterator[Finding]:
    """Check that invocation k uses `network[k % len(network)]`.

    Example: a text by a model that is not in the network. The run is then not what its experiment describes. Nothing
    repairs this.
    """
    examined(context)
    broken = Rows(
        "run",
        "SELECT id FROM run WHERE experiment_id = :experiment AND NOT "
        "CASE WHEN json_valid(network) THEN json_type(network) = 'array' AND json_array_length(network) > 0 ELSE 0 END",
        context.params,
    )
    yield from context.finding_for_rows(
        broken,
        lambda count: f"{plural(count, 'run')} {verb(count, 'has', 'have')} no network, so no model has a turn",
    )
    yield from wrong_invocations(
        context,
        WRONG_MODEL,
        lambda count: f"{verb(count, 'is', 'are')} by a model out of turn",
        lambda rows: ", ".join(
            f"{count:,} by {model or 'no model'}" for model, count in commonest(context, "model", rows)
        ),
        f"r.id NOT IN ({broken.sql})",
    )


@rule(
    "invocation-seed",
    scope=Scope.EXPERIMENT,
    description="each invocation has its run's seed",
    manual_fix="regenerate the run with the research tool",
)
def invocation_seed(context: RuleContext) -> Iterator[Finding]:
    """Check that each invocation has the seed of its run.

    Example: one invocation was repeated by hand with another seed. The run cannot be reproduced. Nothing repairs this.
    """
    if not context.generation.seeded:
        raise NotApplicable(f"{context.generation.name} of the research tool has no seeds")
    examined(context)
    yield from wrong_invocations(
        context, WRONG_SEED, lambda count: f"{verb(count, 'has', 'have')} another seed than the run"
    )
