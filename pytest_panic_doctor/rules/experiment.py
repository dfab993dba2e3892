"""Rules about experiments: their configuration, and the runs that it requires."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from hashlib import sha256
from itertools import product
from math import prod

from pytest_panic_doctor.database.json_columns import is_name, load_json
from pytest_panic_doctor.formatting import plural, verb
from pytest_panic_doctor.rules.base import IDS_KEPT, Finding, NotApplicable, RuleContext, Scope, rule

Place = tuple[int, int, int] | bytes
"""A combination of network, seed and prompt: their positions in the lists, or a hash if one is not in its list."""

LIST_COLUMNS = ("networks", "seeds", "prompts", "embedding_models")
MOST_RUNS = 1_000_000
"""Maximum plausible `num_runs` for one network and prompt; a larger number is taken for damage."""
CONFIG_TEXT_SHOWN = 40
LONGEST_QUOTE = 400
"""Maximum number of characters of a network in a message."""


def is_network(value: object) -> bool:
    """Whether a value is a non-empty list of model names."""
    return isinstance(value, list) and bool(value) and all(is_name(name) for name in value)


def is_seed(value: object) -> bool:
    """Whether a value is an integer; JSON's true and false are not."""
    return isinstance(value, int) and not isinstance(value, bool)


KINDS = {
    "networks": (is_network, "lists of model names"),
    "seeds": (is_seed, "whole numbers"),
    "prompts": (lambda value: isinstance(value, str), "texts"),
    "embedding_models": (is_name, "model names"),
}


def configuration(context: RuleContext, *columns: str) -> list[object] | None:
    """Read columns of the experiment's row.

    Args:
        context: The snapshot and the subject.
        *columns: The columns, by their canonical names.

    Returns:
        The values; None if the experiment does not exist.

    Raises:
        TooLarge: One is too long to be parsed.
    """
    found = context.db.execute(
        f"SELECT {', '.join(columns)} FROM experimentconfig WHERE id = :experiment", context.params
    )
    row = found.fetchone()
    if row is None:
        return None
    experiment = str(context.subject.experiment)
    return [context.space.checked_json(value, column, experiment) for column, value in zip(columns, row, strict=True)]


def finding_of_experiment(context: RuleContext, message: str, count: int = 1, **more: bool | Iterable[str]) -> Finding:
    """Make a finding about the row of the subject's experiment, or about `count` rows that it asks for."""
    ids = [str(context.subject.experiment)]
    return context.finding(message, table="experimentconfig", ids=ids, count=count, **more)  # type: ignore[arg-type]


def used_models(context: RuleContext) -> list[str]:
    """Return the embedding models that the experiment uses.

    Raises:
        NotApplicable: The list is damaged.
    """
    (text,) = configuration(context, "embedding_models") or [None]
    if wrong := problem("embedding_models", text):
        raise NotApplicable(f"which embedding models are used is unknown, since {wrong} (see experiment-config)")
    return [str(name) for name in as_list(text)]


def numbers_column(context: RuleContext) -> str:
    """Return the column of the configuration that numbers the runs of one network and prompt: seeds, or a count."""
    return "seeds" if context.generation.seeded else "num_runs"


def number_of_run(context: RuleContext) -> str:
    """Return the column of `run` that distinguishes the runs of one network and prompt."""
    return "seed" if context.generation.seeded else "run_number"


def problem(column: str, text: object) -> str | None:
    """Describe what is wrong with one list of a configuration, as the end of a sentence; None if nothing."""
    if column == "num_runs":
        fine = is_seed(text) and 0 < int(str(text)) <= MOST_RUNS
        return None if fine else f"num_runs is {str(text)[:CONFIG_TEXT_SHOWN]!r}, and must be a whole number above 0"
    value = load_json(text)
    fits, noun = KINDS[column]
    if isinstance(text, bytes):
        return f"{column} is a blob instead of a text"
    if not isinstance(value, list):
        return (
            f"{column} is not a list, but {str(text)[:CONFIG_TEXT_SHOWN]!r}"
            if text is not None
            else f"{column} is NULL"
        )
    if not value:
        return f"{column} is an empty list"
    wrong = [entry for entry in value if not fits(entry)]
    if wrong:
        return f"{column} must hold {noun}, but holds {json.dumps(wrong[0])[:CONFIG_TEXT_SHOWN]}"
    return None


@rule(
    "experiment-missing",
    scope=Scope.DATABASE,
    description="the database has an experiment",
    manual_fix="name the right database, or run an experiment with the research tool",
)
def experiment_missing(context: RuleContext) -> Iterator[Finding]:
    """Find a database without experiments.

    Example: an empty copy of the database. Without an experiment most rules have no item, so that the session would be
    green without an examination. Nothing repairs this.
    """
    count = context.scalar("SELECT count(*) FROM experimentconfig")
    context.examined(count, "experimentconfig")
    if not count:
        yield context.finding(
            "there is no experiment, so nothing about runs, outputs, embeddings or diagrams could be examined",
            table="experimentconfig",
            count=1,
        )


@rule(
    "experiment-config",
    scope=Scope.EXPERIMENT,
    description="networks, seeds, prompts and embedding_models are non-empty lists of the right kind, and max_length "
    "> 0 (Elixir: num_runs > 0 for seeds)",
    manual_fix="correct the experiment's row by hand",
)
def experiment_config(context: RuleContext) -> Iterator[Finding]:
    """Check the JSON columns of one experiment.

    Example: `seeds` is not a list. Then it is unknown which runs there should be. Nothing repairs this: the value has
    to be corrected by hand.
    """
    columns = [numbers_column(context) if name == "seeds" else name for name in LIST_COLUMNS]
    row = configuration(context, *columns, "max_length")
    if row is None:
        raise NotApplicable("the experiment was deleted after the examination began")
    context.examined(1, "experimentconfig")
    *lists, max_length = row
    problems = [text for column, value in zip(columns, lists, strict=True) if (text := problem(column, value))]
    if not context.generation.seeded and not problems:
        # Without seeds, runs of two equal places would have one number each: the file's own constraint refuses them.
        for column in ("networks", "prompts"):
            counted = Counter(map(json.dumps, as_list(lists[columns.index(column)])))
            problems += [
                f"{column} lists {name[:CONFIG_TEXT_SHOWN]} {times:,} times"
                for name, times in counted.items()
                if times > 1
            ]
    if not isinstance(max_length, int) or max_length <= 0:
        problems.append(f"max_length is {max_length!r}, and must be a whole number above 0")
    for text in problems:
        yield finding_of_experiment(context, text)


@rule(
    "experiment-runs",
    scope=Scope.EXPERIMENT,
    description="there is one run per network x seed x prompt, no other, each with the experiment's max_length "
    "(Elixir: x run number for seed)",
    manual_fix="run the experiment again with the research tool",
)
def experiment_runs(context: RuleContext) -> Iterator[Finding]:
    """Compare the runs with those that the configuration requires.

    Example: a run was deleted by hand. Averages over the experiment miss it. Nothing repairs this: the research tool
    has to generate the run again.
    """
    column = numbers_column(context)
    row = configuration(context, "networks", column, "prompts", "max_length") or [None] * 4
    networks, numbers, prompts, max_length = row
    bad = [
        text
        for name, value in zip(("networks", column, "prompts"), row, strict=False)
        if (text := problem(name, value))
    ]
    if bad:
        unknown = f"which runs there should be is unknown, since {bad[0]} (see experiment-config)"
        yield finding_of_experiment(context, unknown)
        return
    retired = list(networks_retired(context, as_list(networks)))
    seeded = context.generation.seeded
    asked = Asked(
        [network for network in as_list(networks) if network not in retired],
        as_list(numbers) if seeded else list(range(int(str(numbers)))),
        as_list(prompts),
        "seed" if seeded else "run number",
    )
    existing: dict[Place, list[str]] = {}
    wrong_length: list[str] = []
    count = 0
    rows = context.db.execute(
        f"SELECT id, network, {number_of_run(context)}, initial_prompt, max_length FROM run "
        "WHERE experiment_id = :experiment ORDER BY id",
        context.params,
    )
    for run_id, network, seed, prompt, length in rows:
        count += 1
        existing.setdefault(asked.place(network, seed, prompt), []).append(run_id)
        if length != max_length:
            wrong_length.append(run_id)
    context.examined(count, "run")
    for network in retired:
        name = format_network(network)
        text = f"the network {name} has no run, and holds a model that the research tool can no longer call"
        # A network may be retired; an experiment without any run has lost them all.
        yield finding_of_experiment(context, text, warning=bool(count))
    if count and context.pending():
        yield finding_of_experiment(
            context, f"{plural(count, 'run')} {verb(count)} there, though the experiment was not started", count
        )
    lacking = asked.lacking(existing)
    to_come = context.unfinished() if lacking else ""
    if not to_come:
        yield from missing(context, asked, existing)
    yield from unasked(context, asked, existing)
    if wrong_length:
        text = f"{len(wrong_length):,} of {plural(count, 'run')} {'has' if len(wrong_length) == 1 else 'have'} "
        yield in_runs(context, f"{text}another max_length than the experiment's {max_length}", wrong_length)
    if to_come:
        raise NotApplicable(f"{plural(lacking, 'run')} may still come: {to_come}")


def networks_retired(context: RuleContext, networks: list[object]) -> Iterator[object]:
    """List networks with a model that the tool no longer supports, if the experiment has no run of them."""
    makers = context.generation.makers
    if not makers:
        return
    existing = [
        load_json(text)
        for (text,) in context.db.execute(
            "SELECT DISTINCT network FROM run WHERE experiment_id = :experiment", context.params
        )
    ]
    for network in networks:
        if isinstance(network, list) and not makers.issuperset(network) and network not in existing:
            yield network


def as_list(text: object) -> list[object]:
    """Parse a JSON column that is known to hold a list."""
    value = load_json(text)
    return value if isinstance(value, list) else []


class Asked:
    """The product networks x seeds x prompts. It is never stored: lists of 130 each give two million combinations."""

    def __init__(
        self, networks: list[object], seeds: Sequence[object], prompts: list[object], noun: str = "seed"
    ) -> None:
        """Keep the lists of a valid configuration.

        Args:
            networks: Lists of model names.
            seeds: Seeds, or numbers of runs.
            prompts: The prompts.
            noun: What a message calls a seed.
        """
        self.noun = noun
        counted = (
            Counter(json.dumps(network) for network in networks),
            Counter(int(str(seed)) for seed in seeds),
            Counter(str(prompt) for prompt in prompts),
        )
        self.numbers = tuple({value: number for number, value in enumerate(each)} for each in counted)
        self.times = tuple(list(each.values()) for each in counted)
        self.values = tuple(list[object](each) for each in counted)
        self.total = len(networks) * len(seeds) * len(prompts)

    def place(self, network: object, seed: object, prompt: object) -> Place:
        """Find the combination that a run belongs to."""
        values = (json.dumps(load_json(network) if isinstance(network, str) else None), seed, prompt)
        first, second, third = (known.get(value) for known, value in zip(self.numbers, values, strict=True))
        if first is None or second is None or third is None:
            return sha256(repr(values).encode()).digest()
        return first, second, third

    def wanted(self, place: Place) -> int:
        """Return how many runs a combination should have."""
        return 0 if isinstance(place, bytes) else prod(self.times[axis][place[axis]] for axis in range(3))

    def lacking(self, existing: Mapping[Place, Sized]) -> int:
        """Count the missing runs."""
        return self.total - sum(min(len(ids), self.wanted(place)) for place, ids in existing.items())

    def places(self) -> Iterator[tuple[int, int, int]]:
        """Yield all combinations."""
        first, second, third = (range(len(each)) for each in self.values)
        return product(first, second, third)

    def key(self, place: tuple[int, int, int]) -> Key:
        """Return the network as JSON, the seed and the prompt of a combination."""
        network, seed, prompt = (each[at] for each, at in zip(self.values, place, strict=True))
        return str(network), seed, prompt


Key = tuple[str, object, object]
"""(network as JSON, seed, prompt)."""


def describe_key(key: Key, noun: str) -> str:
    """Describe a combination for a message."""
    network, seed, prompt = key
    return (
        f"{name_network(network)}, {noun} {str(seed)[:CONFIG_TEXT_SHOWN]}, prompt {str(prompt)[:CONFIG_TEXT_SHOWN]!r}"
    )


def format_network(network: object) -> str:
    """Format a network for a message."""
    walk = " → ".join(str(name) for name in network) if isinstance(network, list) else str(network)
    return walk[:LONGEST_QUOTE]


def name_network(text: str) -> str:
    """Format the network of a run for a message: JSON, or the stored text if it is not a list."""
    models = load_json(text)
    return format_network(models if isinstance(models, list) else text)


def in_runs(context: RuleContext, message: str, ids: list[str]) -> Finding:
    """Make a finding about runs; it names the run if there is only one."""
    return context.finding(message, table="run", ids=ids, run=ids[0] if len(ids) == 1 else None)


def missing(context: RuleContext, asked: Asked, existing: Mapping[Place, Sized]) -> Iterator[Finding]:
    """Yield a finding for each combination with too few runs, at most 10,000, and the number of the others."""
    lacking = asked.lacking(existing)
    names = 0
    for place in asked.places():
        if not lacking or names == IDS_KEPT - 1:
            break
        wanted = asked.wanted(place)
        count = wanted - len(existing.get(place, ()))
        if count > 0:
            noun = "there is no run for" if count == wanted else f"{plural(count, 'run')} too few for"
            yield finding_of_experiment(context, f"{noun} {describe_key(asked.key(place), asked.noun)}", count)
            lacking -= count
            names += 1
    if lacking:
        yield finding_of_experiment(context, f"{plural(lacking, 'more run')} {verb(lacking)} missing", lacking)


def unasked(context: RuleContext, asked: Asked, existing: Mapping[Place, list[str]]) -> Iterator[Finding]:
    """Yield a finding for each combination with more runs than the configuration requires."""
    for place, ids in existing.items():
        wanted = asked.wanted(place)
        if len(ids) <= wanted:
            continue
        ((network, seed, prompt),) = context.db.execute(
            f"SELECT network, {number_of_run(context)}, substr(initial_prompt, 1, {CONFIG_TEXT_SHOWN}) "
            "FROM run WHERE id = ?",
            (ids[0],),
        ).fetchmany(1)
        key = describe_key((json.dumps(load_json(network)), seed, prompt), asked.noun)
        if wanted == 0:
            yield in_runs(context, f"{plural(len(ids), 'run')} that the experiment does not ask for: {key}", ids)
        else:
            yield in_runs(context, f"{plural(len(ids), 'run')} instead of {wanted} for {key}", ids)
