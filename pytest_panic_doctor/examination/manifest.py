"""The list of (rule, subject). The controller makes it once, and every process uses the same."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from pytest_panic_doctor.database.integrity import UNKNOWN
from pytest_panic_doctor.database.json_columns import is_name, load_json
from pytest_panic_doctor.database.memory_room import MemoryRoom, is_too_big, name_too_large
from pytest_panic_doctor.database.schema import columns_of
from pytest_panic_doctor.database.spelling import dashed
from pytest_panic_doctor.database.subject import DiagramTarget, Subject
from pytest_panic_doctor.formatting import distinct
from pytest_panic_doctor.rules.base import Rule, Scope

NAMED = "typeof(id) = 'text'"
"""SQL condition for a row that can be the subject of an item; the rule `schema` fails for others."""


LABEL = 200
"""Maximum number of characters of a prompt, or of a network as stored, in a label."""
RUN_COLUMNS = f"id, experiment_id, substr(network, 1, {10 * LABEL}), substr(initial_prompt, 1, {LABEL})"
"""The columns of a run of which `run_label` makes a label."""


def name_of(rule: Rule, subject: Subject) -> str:
    """Return the name of a rule's item for a subject, which may be narrower than the rule's scope.

    Names are escaped, because pytest prints them as they are and a model's name may contain anything.
    """
    match rule.scope:
        case Scope.DATABASE:
            return rule.id
        case Scope.EXPERIMENT:
            about = dashed(subject.experiment or "")
        case Scope.RUN:
            about = dashed(subject.run or "")
        case Scope.EXPERIMENT_MODEL:
            about = f"{dashed(subject.experiment or '')}-{subject.embedding_model}"
        case Scope.RUN_MODEL:
            about = f"{dashed(subject.run or '')}-{subject.embedding_model}"
    return f"{rule.id}[{distinct(about)}]"


def item_name(nodeid: str) -> str:
    """Return the name of an item by its node id: the part after the file."""
    return nodeid.split("::", 1)[-1]


def rule_of(name: str) -> str:
    """Return the rule of an item by its name."""
    return name.split("[", 1)[0]


@dataclass(frozen=True, slots=True)
class Run:
    """A run in the manifest; `label` describes it for a person.

    `length` is its `max_length`, 0 if that is not an integer; it is used to estimate costs.
    """

    id: str
    label: str
    length: int = 0


@dataclass(frozen=True, slots=True)
class Experiment:
    """An experiment in the manifest: its runs and the embedding models of its configuration."""

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


@dataclass(frozen=True, slots=True)
class Manifest:
    """All subjects of a database. Item ids do not depend on damage."""

    experiments: tuple[Experiment, ...]
    order: tuple[DiagramTarget, ...] = ()
    """The targets whose items come first, in this order; empty: as stored."""

    def entries(self, rules: Iterable[Rule]) -> Iterator[Entry]:
        """Yield the items, widest scope first; those of one (run, embedding model) together.

        Items of an experiment, diagrams included, follow each other, so that its pages are read only once even if the
        file is larger than memory. With an `order`, all diagrams come last, in that order.
        """
        by_scope: dict[Scope, list[Rule]] = {scope: [] for scope in Scope}
        for rule in rules:
            by_scope[rule.scope].append(rule)
        yield from of_subjects([Subject()], by_scope[Scope.DATABASE])
        for experiment in self.experiments:
            yield from of_subjects([Subject(experiment.id)], by_scope[Scope.EXPERIMENT])
            yield from of_subjects((Subject(experiment.id, run.id) for run in experiment.runs), by_scope[Scope.RUN])
            for model in experiment.embedding_models:
                yield from of_subjects([Subject(experiment.id, None, model)], by_scope[Scope.EXPERIMENT_MODEL])
            if not self.order:
                yield from of_subjects(subjects_of(experiment), by_scope[Scope.RUN_MODEL])
        if self.order:
            yield from of_subjects(self.diagram_subjects(), by_scope[Scope.RUN_MODEL])

    def diagram_subjects(self) -> Iterator[Subject]:
        """Yield each (run, embedding model), those of `order` first."""
        experiment_of = {run.id: each.id for each in self.experiments for run in each.runs}
        for target in self.order:
            yield Subject(experiment_of[target.run], *target)
        done = set(self.order)
        for experiment in self.experiments:
            for subject in subjects_of(experiment):
                if subject.target not in done:
                    yield subject

    def only(self, runs: Mapping[str, Collection[str]]) -> Manifest:
        """Return the manifest of some runs alone; `runs` are those of each experiment."""
        return Manifest(
            tuple(
                replace(each, runs=tuple(run for run in each.runs if run.id in runs[each.id]))
                for each in self.experiments
                if each.id in runs
            )
        )

    def keywords(self) -> dict[str, str]:
        """Return by id what `-k` finds an experiment or a run by: labels; an experiment's has those of all its runs."""
        named = self.labels()
        for each in self.experiments:
            named[each.id] = "\n".join(dict.fromkeys((each.label, *(run.label for run in each.runs))))
        return named

    def labels(self) -> dict[str, str]:
        """Return descriptions of all experiments and runs by id."""
        named = {experiment.id: experiment.label for experiment in self.experiments}
        return named | {run.id: run.label for experiment in self.experiments for run in experiment.runs}

    def as_plain(self) -> list[object]:
        """Convert to plain lists for an xdist worker."""
        experiments = [
            [each.id, each.label, list(each.embedding_models), [[run.id, run.label, run.length] for run in each.runs]]
            for each in self.experiments
        ]
        return [json.dumps(experiments), [list(target) for target in self.order]]

    @classmethod
    def from_plain(cls, plain: list[object]) -> Manifest:
        """Make a manifest from the result of `as_plain`."""
        text, order = plain
        experiments = tuple(
            Experiment(experiment, label, tuple(models), tuple(Run(*run) for run in runs))
            for experiment, label, models, runs in json.loads(str(text))
        )
        return cls(experiments, tuple(DiagramTarget(*each) for each in order))  # type: ignore[attr-defined]


def subjects_of(experiment: Experiment) -> Iterator[Subject]:
    """Yield each (run, embedding model) of one experiment."""
    for run in experiment.runs:
        for model in experiment.embedding_models:
            yield Subject(experiment.id, run.id, model)


def of_subjects(subjects: Iterable[Subject], rules: Iterable[Rule]) -> Iterator[Entry]:
    """Yield the items of some rules, those of each subject together."""
    chosen = list(rules)
    for subject in subjects:
        for rule in chosen:
            yield Entry(rule.id, subject, name_of(rule, subject))


def build_manifest(
    db: sqlite3.Connection,
    experiments: tuple[str, ...] = (),
    space: MemoryRoom = MemoryRoom(),  # noqa: B008
) -> Manifest:
    """Make the manifest of a database. Tables are read without indexes, because a damaged index would hide items.

    Args:
        db: Any connection.
        experiments: Only these, if there are any.
        space: The memory limit.

    Returns:
        The manifest, in the order of ids.

    Raises:
        TooLarge: A list or a label does not fit into `space`.
    """
    try:
        return collected(db, experiments, space)
    except sqlite3.DataError as error:
        if not is_too_big(error):
            raise
        raise name_too_large(db, space) from error
    except sqlite3.OperationalError as error:
        if not str(error).startswith(("no such table", "no such column")):
            raise
        # A table or a column is missing: the rule `schema` reports it, and there are no subjects.
        return Manifest(())


def collected(db: sqlite3.Connection, experiments: tuple[str, ...], space: MemoryRoom) -> Manifest:
    """Make the manifest of a database in which every value can be read."""
    lists = ", ".join(f"iif(length({name}) > {space.json}, NULL, {name})" for name in ("prompts", "embedding_models"))
    rows = []
    for each, prompts, models, *sizes in db.execute(
        f"SELECT id, {lists}, length(prompts), length(embedding_models) FROM experimentconfig NOT INDEXED "
        f"WHERE {NAMED} ORDER BY id"
    ):
        if not experiments or each in experiments:
            for column, size in zip(("prompts", "embedding_models"), sizes, strict=True):
                space.check_json(size or 0, column, each)
            rows.append((each, first(prompts), without_repetition(models)))
    runs: dict[str, list[Run]] = {}
    # Without the column the length is unknown. The rule `schema` reports it, and the items exist nevertheless.
    length = "max_length" if "max_length" in columns_of(db, "run") else "NULL"
    for run_id, experiment, network, prompt, steps in db.execute(
        f"SELECT {RUN_COLUMNS}, {length} FROM run NOT INDEXED WHERE {NAMED} ORDER BY id"
    ):
        if experiments and experiment not in experiments:
            continue
        run = Run(run_id, run_label(prompt, network), steps if isinstance(steps, int) else 0)
        runs.setdefault(experiment, []).append(run)
    return Manifest(tuple(Experiment(each, label, models, tuple(runs.get(each, ()))) for each, label, models in rows))


def count_items(
    db: sqlite3.Connection, experiments: tuple[str, ...], rules: Iterable[Rule], space: MemoryRoom
) -> tuple[int, int]:
    """Count runs and items by SQLite.

    Args:
        db: Any connection.
        experiments: Only these, if there are any.
        rules: The rules that have items.
        space: The memory limit.

    Returns:
        The number of runs and of items, never too small: a model listed twice counts twice.

    Raises:
        TooLarge: A list does not fit into `space`.
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
        return 0, 0  # A table or a column is missing: see `build_manifest`.
    models, runs, pairs, number = map(int, found)
    weights = {
        Scope.DATABASE: 1,
        Scope.EXPERIMENT: number,
        Scope.RUN: runs,
        Scope.EXPERIMENT_MODEL: models,
        Scope.RUN_MODEL: pairs,
    }
    return runs, sum(weights[scope] for scope in scopes)


def names(text: object) -> list[str]:
    """Return the valid names in a JSON list, as `experiment-config` defines them; empty if it is not a list."""
    value = load_json(text)
    return [name for name in value if is_name(name)] if isinstance(value, list) else []


def without_repetition(models: object) -> tuple[str, ...]:
    """Return the embedding models of a configuration without repetition."""
    return tuple(dict.fromkeys(names(models)))


def first(prompts: object) -> str:
    """Return an experiment's first prompt."""
    return next(iter(names(prompts)), "no prompt")[:LABEL]


def run_label(prompt: object, network: object) -> str:
    """Describe a run by its prompt and network."""
    return f"{prompt}: {(' → '.join(names(network)) or str(network))[:LABEL]}"


def experiment_ids(db: sqlite3.Connection) -> list[str]:
    """List the ids of all experiments."""
    return [str(row[0]) for row in db.execute("SELECT id FROM experimentconfig NOT INDEXED ORDER BY id")]


def count_table_rows(db: sqlite3.Connection, tables: Iterable[str]) -> dict[str, int]:
    """Count the rows of each existing table, by its smallest index."""
    existing = {
        name
        for (name,) in db.execute(
            "SELECT name FROM main.sqlite_master WHERE type = 'table' "
            "UNION ALL SELECT name FROM sqlite_temp_master WHERE type = 'view'"
        )
    }
    return {name: rows_of(db, name) for name in tables if name in existing}


def rows_of(db: sqlite3.Connection, table: str) -> int:
    """Count the rows of a table; without its indexes if this SQLite does not support one of them."""
    try:
        return int(db.execute(f"SELECT count(*) FROM {table}").fetchone()[0])
    except sqlite3.OperationalError as error:
        if not str(error).startswith(UNKNOWN):
            raise
        return int(db.execute(f"SELECT count(*) FROM {table} NOT INDEXED").fetchone()[0])
