"""The list of (rule, subject): made once, by the controller, and the same everywhere."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from pytest_panic_doctor.database.integrity import UNKNOWN
from pytest_panic_doctor.database.json_columns import is_name, load_json
from pytest_panic_doctor.database.room import MemoryRoom, is_too_big, name_too_large
from pytest_panic_doctor.database.schema import columns_of
from pytest_panic_doctor.database.subject import Subject
from pytest_panic_doctor.formatting import distinct
from pytest_panic_doctor.rules.base import Rule, Scope

NAMED = "typeof(id) = 'text'"
"""What a row needs to be the subject of an item; the rule `schema` fails for those without."""


LABEL = 200
"""Characters of a prompt, and of a network as it stands in the file, that a label has at most."""


def dashed(stored: str) -> str:
    """A stored id as a UUID with dashes; anything else that stands for an id as it is."""
    if len(stored) != 32:
        return stored
    return f"{stored[:8]}-{stored[8:12]}-{stored[12:16]}-{stored[16:20]}-{stored[20:]}"


def name_of(rule: Rule, subject: Subject) -> str:
    """The name of the item that a rule has for a subject, which may be narrower than the rule's scope.

    pytest prints names as they are, so they are escaped here: a model's name may hold anything.
    """
    match rule.scope:
        case Scope.DATABASE:
            return rule.id
        case Scope.EXPERIMENT:
            about = dashed(subject.experiment or "")
        case Scope.EXPERIMENT_MODEL:
            about = f"{dashed(subject.experiment or '')}-{subject.embedding_model}"
        case Scope.RUN_MODEL:
            about = f"{dashed(subject.run or '')}-{subject.embedding_model}"
    return f"{rule.id}[{distinct(about)}]"


def item_name(nodeid: str) -> str:
    """The name of the item whose id is `nodeid`: what follows the file."""
    return nodeid.split("::", 1)[-1]


def rule_of(name: str) -> str:
    """The rule of the item that is called `name`."""
    return name.split("[", 1)[0]


@dataclass(frozen=True, slots=True)
class Run:
    """A run as the manifest knows it; `label` tells a person which one it is.

    `length` is its `max_length`, 0 where that is not a whole number: what the items' costs are told from.
    """

    id: str
    label: str
    length: int = 0


@dataclass(frozen=True, slots=True)
class Experiment:
    """An experiment as the manifest knows it: its runs and the embedding models that its configuration names."""

    id: str
    label: str
    embedding_models: tuple[str, ...]
    runs: tuple[Run, ...]


@dataclass(frozen=True, slots=True)
class Entry:
    """One item: a rule and a subject of its scope."""

    rule: str
    subject: Subject
    name: str


def entry(rule: Rule, subject: Subject) -> Entry:
    """The item of a rule and a subject of its scope."""
    return Entry(rule.id, subject, name_of(rule, subject))


@dataclass(frozen=True, slots=True)
class Manifest:
    """Everything that items are made of. Ids never depend on what is broken."""

    experiments: tuple[Experiment, ...]
    order: tuple[tuple[str, str], ...] = ()
    """(run, embedding model) whose items come first, in this order; empty: as stored."""

    def entries(self, rules: Iterable[Rule]) -> Iterator[Entry]:
        """The items, widest scope first; those of one (run, embedding model) together.

        Those of an experiment, diagrams included, come one after another, so that its pages are read from the disk once
        even where the file is larger than memory. Where there is an `order`, all diagrams come last, in that order.
        """
        by_scope: dict[Scope, list[Rule]] = {scope: [] for scope in Scope}
        for rule in rules:
            by_scope[rule.scope].append(rule)
        for rule in by_scope[Scope.DATABASE]:
            yield entry(rule, Subject())
        for experiment in self.experiments:
            subject = Subject(experiment.id)
            for rule in by_scope[Scope.EXPERIMENT]:
                yield entry(rule, subject)
            for model in experiment.embedding_models:
                narrow = Subject(experiment.id, None, model)
                for rule in by_scope[Scope.EXPERIMENT_MODEL]:
                    yield entry(rule, narrow)
            if not self.order:
                yield from of_diagrams(subjects_of(experiment), by_scope[Scope.RUN_MODEL])
        if self.order:
            yield from of_diagrams(self.diagram_subjects(), by_scope[Scope.RUN_MODEL])

    def diagram_subjects(self) -> Iterator[Subject]:
        """Each (run, embedding model), those of `order` first."""
        experiment_of = {run.id: each.id for each in self.experiments for run in each.runs}
        for run_id, model in self.order:
            yield Subject(experiment_of[run_id], run_id, model)
        done = set(self.order)
        for experiment in self.experiments:
            for subject in subjects_of(experiment):
                if (subject.run, subject.embedding_model) not in done:
                    yield subject

    def labels(self) -> dict[str, str]:
        """What a person calls each experiment and run."""
        named = {experiment.id: experiment.label for experiment in self.experiments}
        return named | {run.id: run.label for experiment in self.experiments for run in experiment.runs}

    def as_plain(self) -> list[object]:
        """Plain lists, for the way to an xdist worker."""
        experiments = [
            [each.id, each.label, list(each.embedding_models), [[run.id, run.label, run.length] for run in each.runs]]
            for each in self.experiments
        ]
        return [json.dumps(experiments), [list(pair) for pair in self.order]]

    @classmethod
    def from_plain(cls, plain: list[object]) -> Manifest:
        """The inverse of `as_plain`."""
        text, order = plain
        experiments = tuple(
            Experiment(experiment, label, tuple(models), tuple(Run(*run) for run in runs))
            for experiment, label, models, runs in json.loads(str(text))
        )
        return cls(experiments, tuple((run, model) for run, model in order))  # type: ignore[attr-defined]


def subjects_of(experiment: Experiment) -> Iterator[Subject]:
    """Each (run, embedding model) of one experiment."""
    for run in experiment.runs:
        for model in experiment.embedding_models:
            yield Subject(experiment.id, run.id, model)


def of_diagrams(subjects: Iterable[Subject], rules: Iterable[Rule]) -> Iterator[Entry]:
    """The items of each (run, embedding model)."""
    chosen = list(rules)
    for subject in subjects:
        for rule in chosen:
            yield entry(rule, subject)


def build(db: sqlite3.Connection, experiments: tuple[str, ...] = (), space: MemoryRoom = MemoryRoom()) -> Manifest:  # noqa: B008
    """The manifest of the database, or of those of its experiments that are named; in the order of their ids.

    The tables themselves are read, and no index: one that is damaged would leave items out.

    Raises `TooLarge`, in one sentence, where a list or a label does not fit into `space`.
    """
    try:
        return collected(db, experiments, space)
    except sqlite3.DataError as error:
        if not is_too_big(error):
            raise
        raise name_too_large(db, space) from error


def collected(db: sqlite3.Connection, experiments: tuple[str, ...], space: MemoryRoom) -> Manifest:
    """The same, where every value can be read."""
    try:
        lists = ", ".join(
            f"iif(length({name}) > {space.json}, NULL, {name})" for name in ("prompts", "embedding_models")
        )
        rows = []
        for each, prompts, models, *sizes in db.execute(
            f"SELECT id, {lists}, length(prompts), length(embedding_models) FROM experimentconfig NOT INDEXED "
            f"WHERE {NAMED} ORDER BY id"
        ):
            if not experiments or each in experiments:
                for column, size in zip(("prompts", "embedding_models"), sizes, strict=True):
                    space.check_json(size or 0, column, each)
                rows.append((each, first(prompts), unique(models)))
        runs: dict[str, list[Run]] = {}
        # Without the column, a length is not known; the rule `schema` says so, and the items are there all the same.
        length = "max_length" if has_column(db, "run", "max_length") else "NULL"
        for run_id, experiment, network, prompt, steps in db.execute(
            f"SELECT id, experiment_id, substr(network, 1, {10 * LABEL}), substr(initial_prompt, 1, {LABEL}), {length} "
            f"FROM run NOT INDEXED WHERE {NAMED} ORDER BY id"
        ):
            if experiments and experiment not in experiments:
                continue
            run = Run(run_id, run_label(prompt, network), steps if isinstance(steps, int) else 0)
            runs.setdefault(experiment, []).append(run)
    except sqlite3.OperationalError as error:
        if not str(error).startswith(("no such table", "no such column")):
            raise
        # A table or a column is missing: the rule `schema` says so, and there is nothing to make subjects of.
        return Manifest(())
    return Manifest(tuple(Experiment(each, label, models, tuple(runs.get(each, ()))) for each, label, models in rows))


def counted(
    db: sqlite3.Connection, experiments: tuple[str, ...], rules: Iterable[Rule], space: MemoryRoom
) -> tuple[int, int]:
    """How many runs and items there are: of the database, or of those of its experiments that are named.

    Counted by SQLite, and never too few: a model that stands twice in a list counts twice. Raises `TooLarge`.
    """
    scopes = [rule.scope for rule in rules]
    length = (
        f"CASE WHEN length(embedding_models) <= {space.json} AND json_valid(embedding_models) "
        "THEN json_array_length(embedding_models) ELSE 0 END"
    )
    try:
        found = db.execute(
            f"SELECT total({length}), total(r), total(r * {length}), count(*) FROM (SELECT embedding_models, (SELECT "
            f"count(*) FROM run WHERE experiment_id = e.id) AS r FROM experimentconfig e WHERE {NAMED} "
            "AND (:named IS NULL OR id IN (SELECT value FROM json_each(:named))))",
            {"named": json.dumps(experiments) if experiments else None},
        ).fetchone()
    except sqlite3.DataError as error:
        if not is_too_big(error):
            raise
        raise name_too_large(db, space) from error
    except sqlite3.OperationalError:
        return 0, 0  # A table or a column is missing: see `build`.
    models, runs, pairs, number = map(int, found)
    weights = {
        Scope.DATABASE: 1,
        Scope.EXPERIMENT: number,
        Scope.EXPERIMENT_MODEL: models,
        Scope.RUN_MODEL: pairs,
    }
    return runs, sum(weights[scope] for scope in scopes)


def has_column(db: sqlite3.Connection, table: str, column: str) -> bool:
    """Whether a table, if it exists, has a column."""
    return column in columns_of(db, table)


def names(text: object) -> list[str]:
    """The texts of a JSON list that can be names, as `experiment-config` says; none where it is no list."""
    value = load_json(text)
    return [name for name in value if is_name(name)] if isinstance(value, list) else []


def unique(models: object) -> tuple[str, ...]:
    """The embedding models that a configuration names, each once."""
    return tuple(dict.fromkeys(names(models)))


def first(prompts: object) -> str:
    """An experiment's first prompt."""
    return next(iter(names(prompts)), "no prompt")[:LABEL]


def run_label(prompt: object, network: object) -> str:
    """A run's prompt and network."""
    return f"{prompt}: {(' → '.join(names(network)) or str(network))[:LABEL]}"


def experiment_ids(db: sqlite3.Connection) -> list[str]:
    """All experiments' ids."""
    return [str(row[0]) for row in db.execute("SELECT id FROM experimentconfig NOT INDEXED ORDER BY id")]


def rows_by_table(db: sqlite3.Connection, tables: Iterable[str]) -> dict[str, int]:
    """The number of rows of each table that exists, counted over the smallest index."""
    there = {
        name
        for (name,) in db.execute(
            "SELECT name FROM main.sqlite_master WHERE type = 'table' "
            "UNION ALL SELECT name FROM sqlite_temp_master WHERE type = 'view'"
        )
    }
    return {name: rows_of(db, name) for name in tables if name in there}


def rows_of(db: sqlite3.Connection, table: str) -> int:
    """The number of rows of a table; counted without its indexes where one needs what this SQLite does not know."""
    try:
        return int(db.execute(f"SELECT count(*) FROM {table}").fetchone()[0])
    except sqlite3.OperationalError as error:
        if not str(error).startswith(UNKNOWN):
            raise
        return int(db.execute(f"SELECT count(*) FROM {table} NOT INDEXED").fetchone()[0])
