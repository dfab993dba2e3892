"""Rules about Lyapunov results, which only the Elixir generation of the research tool has."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pytest_panic_doctor.database import clouds
from pytest_panic_doctor.database.elixir_generation import ELIXIR
from pytest_panic_doctor.database.json_columns import load_json
from pytest_panic_doctor.database.memory_room import VALUE_COPIES
from pytest_panic_doctor.database.subject import DiagramTarget, Rows
from pytest_panic_doctor.formatting import plural, verb
from pytest_panic_doctor.rules.base import Finding, NotApplicable, RepairKind, RuleContext, Scope, rule
from pytest_panic_doctor.rules.database import orphans
from pytest_panic_doctor.rules.diagram import EMBEDDING_RULES
from pytest_panic_doctor.rules.embedding import stored_width
from pytest_panic_doctor.rules.evidence import findings_by_reason, misspelt_models
from pytest_panic_doctor.rules.experiment import CONFIG_TEXT_SHOWN, as_list, configuration, name_network, problem
from pytest_panic_doctor.rules.lyapunov_values import defects, difference, read
from pytest_panic_doctor.topology.lyapunov import LEAST_RUNS, LEAST_STEPS, lyapunov

TABLE = "lyapunovresult"

LyapunovPlace = tuple[str, str]
"""The network, as its runs spell it, and the prompt that a result is of."""


@rule(
    "orphan-lyapunov",
    scope=Scope.DATABASE,
    description="Elixir: every Lyapunov result belongs to an experiment, and is by one of its embedding models",
    repair=RepairKind.QUARANTINE,
    generation=ELIXIR.key,
)
def orphan_lyapunov(context: RuleContext) -> Iterator[Finding]:
    """Results that no item of the other rules is about. They are quarantined, unless another row may be damaged."""
    require_table(context)
    yield from orphans(context, TABLE, "experiment_id", "experimentconfig", "an experiment", noun="Lyapunov result")
    found = context.db.execute(
        f"SELECT DISTINCT l.embedding_model, e.embedding_models FROM {TABLE} l JOIN experimentconfig e "
        f"ON e.id = l.experiment_id WHERE {UNUSED}"
    ).fetchall()
    if not found:
        return
    used = [(name, [str(each) for each in as_list(models)]) for name, models in found]
    near, meant = misspelt_models(used, context.kinds)
    reasons = {
        "coalesce(l.embedding_model, '') IN (SELECT value FROM json_each(:near))": meant,
        EMBEDDED_BY_MODEL: "embeddings by that model are there: check whether embedding_models has lost it",
    }

    def message(count: int) -> str:
        what = f"{plural(count, 'Lyapunov result')} {verb(count)}"
        return f"{what} by an embedding model that the experiment does not use"

    rows = Rows(TABLE, f"SELECT l.id FROM {TABLE} l WHERE {UNUSED} AND {{}}", {"near": near})
    yield from findings_by_reason(context, rows, reasons, message)


UNUSED = (
    "EXISTS (SELECT 1 FROM experimentconfig e WHERE e.id = l.experiment_id AND CASE "
    "WHEN json_valid(e.embedding_models) THEN json_type(e.embedding_models) = 'array' AND l.embedding_model NOT IN "
    "(SELECT value FROM json_each(e.embedding_models)) ELSE 0 END)"
)
EMBEDDED_BY_MODEL = (
    "EXISTS (SELECT 1 FROM run r JOIN invocation i ON i.run_id = r.id JOIN embedding e ON e.invocation_id = i.id "
    "AND e.embedding_model = l.embedding_model WHERE r.experiment_id = l.experiment_id)"
)
"""SQL conditions on a result `l`: the experiment does not use its model; the experiment has embeddings by its model."""


def require_table(context: RuleContext) -> None:
    """Raise `NotApplicable` where the file's schema is older than Lyapunov results."""
    if not context.db.execute(f"PRAGMA table_info({TABLE})").fetchone():
        raise NotApplicable("the file has no table of Lyapunov results (see schema)")


@dataclass(frozen=True, slots=True)
class Stored:
    """A row of the subject's experiment and model."""

    id: str
    place: LyapunovPlace
    data: object


def stored(context: RuleContext) -> list[Stored]:
    """The results of the subject, in the order of their ids; each is a few hundred bytes."""
    require_table(context)
    found = context.db.execute(
        f"SELECT id, network, prompt, lyapunov_data FROM {TABLE} WHERE experiment_id = :experiment "
        "AND embedding_model = :model ORDER BY id",
        context.params,
    )
    return [Stored(row_id, (str(network), str(prompt)), data) for row_id, network, prompt, data in found]


def runs_of(context: RuleContext, at: LyapunovPlace | None = None) -> dict[LyapunovPlace, dict[str, int]]:
    """How many embeddings by the model each run has that has any, by network and prompt.

    Args:
        context: The snapshot.
        at: The only network and prompt to read; None for all.
    """
    found: dict[LyapunovPlace, dict[str, int]] = {}
    here = "" if at is None else "AND r.network = :network AND r.initial_prompt = :prompt "
    network, prompt = at or (None, None)
    for run, network_of_run, prompt_of_run, count in context.db.execute(
        "SELECT r.id, r.network, r.initial_prompt, count(*) FROM run r JOIN invocation i ON i.run_id = r.id "
        "JOIN embedding e ON e.invocation_id = i.id AND e.embedding_model = :model "
        f"WHERE r.experiment_id = :experiment {here}GROUP BY r.id ORDER BY r.id",
        context.params | {"network": network, "prompt": prompt},
    ):
        found.setdefault((str(network_of_run), str(prompt_of_run)), {})[run] = count
    return found


def has_result(runs: Mapping[str, int]) -> bool:
    """Whether the research tool has a result for runs with so many embeddings."""
    return len(runs) >= LEAST_RUNS and min(runs.values()) >= LEAST_STEPS


def describe_place(place: LyapunovPlace) -> str:
    """A network and a prompt, for a sentence."""
    return f"{name_network(place[0])}, prompt {place[1][:CONFIG_TEXT_SHOWN]!r}"


@rule(
    "lyapunov-missing",
    scope=Scope.EXPERIMENT_MODEL,
    description="Elixir: each network and prompt with two runs or more of two embeddings or more has one Lyapunov "
    "result, and no other has one",
    repair=RepairKind.LYAPUNOV,
    requires=EMBEDDING_RULES,
    generation=ELIXIR.key,
)
def lyapunov_missing(context: RuleContext) -> Iterator[Finding]:
    """The results that the runs ask for, against those that are there."""
    results = stored(context)
    model = str(context.subject.embedding_model)
    if to_come := context.unfinished():
        context.examined(len(results), TABLE)
        yield from unwanted(context, results)
        raise NotApplicable(f"the research tool computes all Lyapunov results at the end: {to_come}")
    if not results and context.retired(model):
        raise NotApplicable(f"no row of the whole file is by {model} (see embedding-model)")
    expected = {place for place, runs in runs_of(context).items() if has_result(runs)}
    if not results and expected and (before := completed_before(context)):
        raise NotApplicable(before)
    context.examined(len(results) + len(expected - {each.place for each in results}), TABLE)
    experiment = [str(context.subject.experiment)]
    for place, ids in ids_by_place(results, expected).items():
        if not ids:
            text = f"there is no Lyapunov result for {describe_place(place)}"
            yield context.finding(text, table="experimentconfig", ids=experiment, count=1)
        elif place not in expected:
            few = f"fewer than {LEAST_RUNS} runs with {LEAST_STEPS} embeddings or more"
            text = f"there is a Lyapunov result for {describe_place(place)}, of {few}"
            if runs_wanted(context, place):
                reason = f"the experiment asks for such runs: bring back what is missing of them ({RULES_OF_RUNS})"
                yield context.finding(text, table=TABLE, ids=ids).without_repair(reason)
            else:
                yield context.finding(text, table=TABLE, ids=ids, rows=rows_with(ids))
        elif len(ids) > 1:
            text = f"there are {len(ids):,} Lyapunov results instead of 1 for {describe_place(place)}"
            yield context.finding(text, table=TABLE, ids=ids, rows=rows_with(ids[:-1]))


def ids_by_place(results: Iterable[Stored], expected: Collection[LyapunovPlace] = ()) -> dict[LyapunovPlace, list[str]]:
    """Return the ids of the results of each place, also of those that are expected and have none."""
    found: dict[LyapunovPlace, list[str]] = {place: [] for place in sorted(expected)}
    for each in results:
        found.setdefault(each.place, []).append(each.id)
    return found


RULES_OF_RUNS = "experiment-runs, embedding-missing"
"""The rules that find what is missing of runs."""


def unwanted(context: RuleContext, results: Sequence[Stored]) -> Iterator[Finding]:
    """Find results in an unfinished experiment that no run to come can explain."""
    for place, ids in ids_by_place(results).items():
        if not runs_wanted(context, place):
            text = f"there is a Lyapunov result for {describe_place(place)}, which the experiment does not ask for"
            yield context.finding(text, table=TABLE, ids=ids).without_repair(to_come_anyway(context))
        elif len(ids) > 1:
            text = f"there are {len(ids):,} Lyapunov results instead of 1 for {describe_place(place)}"
            yield context.finding(text, table=TABLE, ids=ids).without_repair(to_come_anyway(context))


def rows_with(ids: Sequence[str]) -> Rows:
    """A query for the results with these ids."""
    return Rows(
        TABLE, f"SELECT id FROM {TABLE} WHERE id IN (SELECT value FROM json_each(:ids))", {"ids": json.dumps(ids)}
    )


def runs_wanted(context: RuleContext, place: LyapunovPlace) -> bool:
    """Whether the experiment asks for so many runs of a network and a prompt that the tool has a result for them.

    Where that is unknown (see experiment-config), it may.
    """
    networks, prompts, number = configuration(context, "networks", "prompts", "num_runs") or (None, None, None)
    if problem("networks", networks) or problem("prompts", prompts) or problem("num_runs", number):
        return True
    network = load_json(place[0])
    known = network in as_list(networks) and place[1] in as_list(prompts)
    return known and int(str(number)) >= LEAST_RUNS


def completed_before(context: RuleContext) -> str:
    """Why an experiment has no result at all: it was complete before the tool had any; empty where it was not.

    Times compare as texts, to the second.
    """
    table = context.generation.table(TABLE)
    since = context.generation.migrated_at(context.db, table.since) if table else ""
    done = context.db.execute("SELECT completed_at FROM experimentconfig WHERE id = :experiment", context.params)
    (completed,) = done.fetchone()
    if not since or str(completed)[: len(since)] >= since:
        return ""
    return "the experiment was completed before the research tool computed Lyapunov results"


@rule(
    "lyapunov-valid",
    scope=Scope.EXPERIMENT_MODEL,
    description="Elixir: each Lyapunov result reads, its curve has a finite distance for each step, and its numbers "
    "fit each other",
    repair=RepairKind.LYAPUNOV,
    requires=(*EMBEDDING_RULES, "lyapunov-missing"),
    expensive=True,
    generation=ELIXIR.key,
)
def lyapunov_valid(context: RuleContext) -> Iterator[Finding]:
    """Each result by itself."""
    rows = stored(context)
    context.examined(len(rows), TABLE)
    for each in rows:
        if wrong := defects(each.data):
            text = f"the Lyapunov result for {describe_place(each.place)} is not valid: it {'; it '.join(wrong)}"
            yield context.finding(text, table=TABLE, ids=[each.id]).without_repair(to_come_anyway(context))


def to_come_anyway(context: RuleContext) -> str:
    """Explain that the tool itself computes all results of the subject's experiment again; empty if it does not."""
    to_come = context.unfinished()
    return f"the research tool computes all Lyapunov results again at the end: {to_come}" if to_come else ""


@rule(
    "lyapunov-current",
    scope=Scope.EXPERIMENT_MODEL,
    description="Elixir: each Lyapunov result is that of the embeddings that are stored now",
    repair=RepairKind.LYAPUNOV,
    requires=(*EMBEDDING_RULES, "lyapunov-missing", "lyapunov-valid"),
    expensive=True,
    generation=ELIXIR.key,
)
def lyapunov_current(context: RuleContext) -> Iterator[Finding]:
    """Each result against the one that is computed anew, as the research tool defines it."""
    rows = stored(context)
    groups = runs_of(context)
    to_come = to_come_anyway(context) if rows else ""
    unknown: list[str] = []
    why: Mapping[str, str] = {}
    count = 0
    for each in rows:
        result, _ = read(each.data)
        runs = groups.get(each.place, {})
        if result is None or not has_result(runs) or (to_come and not is_whole(context, runs)):
            continue
        count += 1
        vectors, blocked = trajectories_of(context, each.place, list(runs))
        if vectors is None:
            unknown.append(each.id)
            why = why or blocked
        elif clause := difference(result, lyapunov(vectors)):
            text = f"the Lyapunov result for {describe_place(each.place)} is stale: {clause}"
            yield context.finding(text, table=TABLE, ids=[each.id]).without_repair(to_come_anyway(context))
    if not count and to_come:
        raise NotApplicable(to_come)
    if not count:
        raise NotApplicable("there is no Lyapunov result that reads (see lyapunov-missing, lyapunov-valid)")
    context.examined(count, TABLE)
    if unknown:
        text = f"whether {plural(len(unknown), 'Lyapunov result')} {verb(len(unknown))} current is unknown: "
        text += "; ".join(why.values())
        yield context.finding(text, table=TABLE, ids=unknown, blocked_by=why)


def is_whole(context: RuleContext, runs: Mapping[str, int]) -> bool:
    """Whether runs of an unfinished experiment are complete with all their embeddings by the model: no more come.

    Then a result of them must be right already, though the research tool computes it again at the end.
    """
    wanted, _ = configuration(context, "num_runs", "max_length") or (None, None)
    if len(runs) != wanted:
        return False
    lengths = context.db.execute(
        "SELECT r.id, r.max_length, count(*), total(i.type = :kind) FROM run r JOIN invocation i ON i.run_id = r.id "
        "WHERE r.id IN (SELECT value FROM json_each(:runs)) GROUP BY r.id",
        {"kind": context.kind(), "runs": json.dumps(list(runs))},
    )
    return all(count == most and outputs == runs[run] for run, most, count, outputs in lengths)


def trajectories_of(
    context: RuleContext, place: LyapunovPlace, runs: Sequence[str]
) -> tuple[list[NDArray[np.float32]] | None, Mapping[str, str]]:
    """The vectors of some runs, or what blocks them, by rule; raises `TooLarge` where they do not fit into memory."""
    model, width = str(context.subject.embedding_model), stored_width(context)
    trajectories = []
    size = 0
    for run in runs:
        cloud = clouds.load_cloud(context.db, DiagramTarget(run, model), context.kind(), width, context.space)
        if not cloud.complete:
            return None, {name: f"in run {run}, {clause}" for name, clause in cloud.blocks.items()}
        if len(cloud.points) < LEAST_STEPS:
            few = plural(len(cloud.points), "embedding")
            return None, {"embedding-type": f"run {run} has {few} of the model's own type (embedding-type)"}
        size += 2 * cloud.points.nbytes
        if VALUE_COPIES * size > context.space.bytes:
            raise context.space.too_large(f"the embeddings of {describe_place(place)}", size, context.space.value)
        trajectories.append(cloud.points)
    return trajectories, {}
