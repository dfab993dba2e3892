"""The rule about runs that the Elixir generation of the research tool continues together."""

from __future__ import annotations

from collections.abc import Iterator

from pytest_panic_doctor.database.elixir_generation import ELIXIR
from pytest_panic_doctor.database.subject import Rows
from pytest_panic_doctor.formatting import plural, verb
from pytest_panic_doctor.rules.base import Finding, NotApplicable, RepairKind, RuleContext, Scope, rule
from pytest_panic_doctor.rules.experiment import as_list, configuration, format_network, is_seed, problem

SURPLUS = (
    "SELECT i.id FROM run r JOIN invocation i ON i.run_id = r.id WHERE r.experiment_id = :experiment "
    "AND r.network = :network AND i.sequence_number >= :shortest"
)
"""The invocations of a network's runs beyond the shortest of them."""

LENGTH = (
    "(SELECT coalesce(max(sequence_number) + 1, 0) FROM invocation WHERE run_id = r.id "
    "AND typeof(sequence_number) = 'integer')"
)
"""The length of a run `r`."""

LAST_STEP = (
    f"{SURPLUS} AND i.sequence_number = :shortest AND NOT EXISTS (SELECT 1 FROM invocation n WHERE n.run_id = i.run_id "
    "AND n.sequence_number > i.sequence_number) AND EXISTS (SELECT 1 FROM experimentconfig e WHERE e.id = :experiment "
    f"AND e.completed_at IS NULL) AND :shortest = (SELECT min({LENGTH}) FROM run r WHERE r.experiment_id = :experiment "
    "AND r.network = :network)"
)
"""Those of them that are one step beyond it, as long as it is the shortest and the experiment is not finished."""

LOST = (
    "SELECT EXISTS (SELECT 1 FROM invocation c WHERE c.sequence_number = :shortest "
    "AND NOT EXISTS (SELECT 1 FROM run p WHERE p.id = c.run_id))"
)
"""Whether an invocation of that step belongs to no run, and so perhaps to one of the shortest."""


@rule(
    "run-lockstep",
    scope=Scope.EXPERIMENT,
    description="Elixir: in an experiment that is not finished, the runs of a network are equally long, so that it can "
    "be resumed",
    repair=RepairKind.QUARANTINE,
    requires=("orphan-invocation",),
    generation=ELIXIR.key,
)
def run_lockstep(context: RuleContext) -> Iterator[Finding]:
    """The tool goes on after the shortest run, and stops at its UNIQUE constraint where another run is longer.

    It makes a run that is missing first, so that is one of no invocation. Where the tool was stopped amid one step, the
    invocations of that step are quarantined, so that it can make them all anew. Where more would go, a person decides.
    """
    if not context.unfinished():
        raise NotApplicable("the experiment is finished, so it need not be resumed")
    lengths: dict[str, list[int]] = {}
    count = 0
    for network, length in context.db.execute(
        f"SELECT network, {LENGTH} FROM run r WHERE r.experiment_id = :experiment ORDER BY r.id",
        context.params,
    ):
        lengths.setdefault(str(network), []).append(int(length))
        count += 1
    context.examined(count, "run")
    wanted = runs_of_network(context)
    for network, those in lengths.items():
        missing = max(0, wanted - len(those))
        shortest = 0 if missing else min(those)
        longer = sum(each > shortest for each in those)
        if not longer:
            continue
        params = context.params | {"network": network, "shortest": shortest}
        surplus = [row_id for (row_id,) in context.db.execute(SURPLUS, params)]
        name = format_network(as_list(network) or network)
        if missing:
            text = (
                f"{plural(missing, 'run')} of {name} {verb(missing)} missing beside {longer:,} of up to {max(those):,} "
            )
            text += "invocations, so the experiment cannot be resumed"
        else:
            have = f"{verb(longer, 'has', 'have')} more invocations than the shortest: up to {max(those):,}"
            text = f"{longer:,} of {plural(len(those), 'run')} of {name} {have} and not {shortest:,}, "
            text += "so the experiment cannot be resumed"
        reason = ""
        if missing:
            reason = "bring the missing runs back, or take the invocations of the others away by hand, and resume then"
        elif max(those) > shortest + 1:
            reason = "more than one step would be lost: take the invocations beyond the shortest run away by hand"
        elif context.scalar(LOST, shortest=shortest):
            reason = "an invocation of that step belongs to no run: correct its reference (orphan-invocation)"
        rows = Rows("invocation", LAST_STEP, params)
        yield context.finding(text, table="invocation", ids=surplus, rows=rows).without_repair(reason)


def runs_of_network(context: RuleContext) -> int:
    """How many runs the experiment asks for of each network; 0 where that is unknown (see experiment-config)."""
    prompts, number = configuration(context, "prompts", "num_runs") or (None, None)
    if problem("prompts", prompts) or problem("num_runs", number) or not is_seed(number):
        return 0
    return len(as_list(prompts)) * int(str(number))
