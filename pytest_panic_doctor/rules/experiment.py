"""Rules about experiments: their configuration, and the runs that it asks for."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from itertools import product

from pytest_panic_doctor.rules.model import Finding, NothingToLookAt, Scope, View, plural, rule
from pytest_panic_doctor.store.jsontext import is_name, loaded

Plan = Counter[tuple[str, int, str]]
"""How often each (network as JSON, seed, prompt) is there."""

COLUMNS = ("networks", "seeds", "prompts", "embedding_models")
SHOWN = 40


def is_network(value: object) -> bool:
    """A non-empty list of model names."""
    return isinstance(value, list) and bool(value) and all(is_name(name) for name in value)


def is_seed(value: object) -> bool:
    """A whole number; JSON's true and false are none."""
    return isinstance(value, int) and not isinstance(value, bool)


KINDS = {
    "networks": (is_network, "lists of model names"),
    "seeds": (is_seed, "whole numbers"),
    "prompts": (lambda value: isinstance(value, str), "texts"),
    "embedding_models": (is_name, "model names"),
}


def problem(column: str, text: object) -> str | None:
    """What is wrong with one list of an experiment's configuration, as the end of a sentence; None if nothing."""
    value = loaded(text)
    fits, noun = KINDS[column]
    if not isinstance(value, list):
        return f"{column} is not a list, but {str(text)[:SHOWN]!r}" if text is not None else f"{column} is NULL"
    if not value:
        return f"{column} is an empty list"
    wrong = [entry for entry in value if not fits(entry)]
    if wrong:
        return f"{column} must be {noun}, but holds {json.dumps(wrong[0])[:SHOWN]}"
    return None


@rule(
    "experiment-config",
    scope=Scope.EXPERIMENT,
    sentence="networks, seeds, prompts and embedding_models are non-empty lists of the right kind, and max_length > 0",
    remedy="correct the experiment's row by hand",
)
def experiment_config(view: View) -> Iterator[Finding]:
    """The JSON columns of one experiment."""
    row = view.db.execute(
        f"SELECT {', '.join(COLUMNS)}, max_length FROM experimentconfig WHERE id = :experiment", view.params
    ).fetchone()
    if row is None:
        raise NothingToLookAt("the experiment is gone since the examination began")
    view.examined(1, "experimentconfig")
    *lists, max_length = row
    problems = [text for column, value in zip(COLUMNS, lists, strict=True) if (text := problem(column, value))]
    if not is_seed(max_length) or max_length <= 0:
        problems.append(f"max_length is {max_length!r}, and must be a whole number above 0")
    for text in problems:
        yield view.finding(text, table="experimentconfig", ids=[str(view.subject.experiment)], count=1)


@rule(
    "experiment-runs",
    scope=Scope.EXPERIMENT,
    sentence="there is one run per network x seed x prompt, no other, each with the experiment's max_length",
    remedy="run the experiment again with the research tool",
)
def experiment_runs(view: View) -> Iterator[Finding]:
    """The runs that the configuration asks for, against those that are there."""
    networks, seeds, prompts, max_length = view.db.execute(
        "SELECT networks, seeds, prompts, max_length FROM experimentconfig WHERE id = :experiment", view.params
    ).fetchone() or (None, None, None, None)
    bad = [
        text
        for column, value in (("networks", networks), ("seeds", seeds), ("prompts", prompts))
        if (text := problem(column, value))
    ]
    if bad:
        yield view.finding(
            f"which runs there should be is unknown, since {bad[0]} (see experiment-config)",
            table="experimentconfig",
            ids=[str(view.subject.experiment)],
            count=1,
        )
        return
    asked: Plan = Counter(
        (json.dumps(network), int(str(seed)), str(prompt))
        for network, seed, prompt in product(as_list(networks), as_list(seeds), as_list(prompts))
    )
    there: dict[tuple[str, int, str], list[str]] = {}
    wrong_length: list[str] = []
    rows = view.db.execute(
        "SELECT id, network, seed, initial_prompt, max_length FROM run WHERE experiment_id = :experiment ORDER BY id",
        view.params,
    ).fetchall()
    view.examined(len(rows), "run")
    for run_id, network, seed, prompt, length in rows:
        there.setdefault((json.dumps(loaded(network)), seed, prompt), []).append(run_id)
        if length != max_length:
            wrong_length.append(run_id)
    yield from missing(view, asked, there)
    yield from unasked(view, asked, there)
    if wrong_length:
        text = f"{len(wrong_length):,} of {plural(len(rows), 'run')} {'has' if len(wrong_length) == 1 else 'have'} "
        yield in_runs(view, f"{text}another max_length than the experiment's {max_length}", wrong_length)


def as_list(text: object) -> list[object]:
    """A JSON column that is known to hold a list."""
    value = loaded(text)
    return value if isinstance(value, list) else []


def named(key: tuple[str, int, str]) -> str:
    """One run's place in the product, for a sentence."""
    network, seed, prompt = key
    models = loaded(network)
    walk = " → ".join(str(name) for name in models) if isinstance(models, list) else network
    return f"{walk}, seed {seed}, prompt {str(prompt)[:SHOWN]!r}"


def in_runs(view: View, message: str, ids: list[str]) -> Finding:
    """A finding about runs; it names the run where there is but one."""
    return view.finding(message, table="run", ids=ids, run=ids[0] if len(ids) == 1 else None)


def missing(view: View, asked: Plan, there: dict[tuple[str, int, str], list[str]]) -> Iterator[Finding]:
    """One finding for each (network, seed, prompt) that has too few runs; it names the experiment, which lacks them."""
    for key, wanted in asked.items():
        lacking = wanted - len(there.get(key, ()))
        if lacking > 0:
            noun = "there is no run for" if lacking == wanted else f"{plural(lacking, 'run')} too few for"
            yield view.finding(
                f"{noun} {named(key)}",
                table="experimentconfig",
                ids=[str(view.subject.experiment)],
                count=lacking,
            )


def unasked(view: View, asked: Plan, there: dict[tuple[str, int, str], list[str]]) -> Iterator[Finding]:
    """One finding for each (network, seed, prompt) that has more runs than the configuration asks for."""
    for key, ids in there.items():
        wanted = asked.get(key, 0)
        if wanted == 0:
            yield in_runs(view, f"{plural(len(ids), 'run')} that the experiment does not ask for: {named(key)}", ids)
        elif len(ids) > wanted:
            yield in_runs(view, f"{plural(len(ids), 'run')} instead of {wanted} for {named(key)}", ids)
