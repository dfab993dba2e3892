"""Which runs a finding is about, and which run a user means by an id or by words. Does not import pytest."""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from difflib import get_close_matches

from pytest_panic_doctor.database.spelling import dashed, normalized_id
from pytest_panic_doctor.database.subject import Rows
from pytest_panic_doctor.errors import BadOption
from pytest_panic_doctor.examination.manifest import NAMED, RUN_COLUMNS, run_label
from pytest_panic_doctor.formatting import name_first, plural, printable, shorten
from pytest_panic_doctor.rules.base import IDS_KEPT, Finding, Rule, Scope

RUN_OF_ROW = {
    "run": "SELECT id AS row, id AS run FROM run WHERE id IN ({rows})",
    "invocation": "SELECT id AS row, run_id AS run FROM invocation WHERE id IN ({rows})",
    "embedding": "SELECT e.id AS row, i.run_id AS run FROM embedding e JOIN invocation i ON i.id = e.invocation_id "
    "WHERE e.id IN ({rows})",
    "persistencediagram": "SELECT id AS row, run_id AS run FROM persistencediagram WHERE id IN ({rows})",
}
"""For each table whose rows belong to a run, a query for the runs of some rows."""

LISTED_RUNS = "SELECT value FROM json_each(:listed)"
CANDIDATES = 5
"""Maximum number of runs that a message names."""
CANDIDATE_WIDTH = 60
SHORTEST_PREFIX = 8
"""Minimum number of digits of an id in a message."""


def is_of_experiment(rule: Rule) -> bool:
    """Whether an item of a rule examines several runs of one experiment."""
    return rule.scope in (Scope.EXPERIMENT, Scope.EXPERIMENT_MODEL)


def with_runs(db: sqlite3.Connection, finding: Finding) -> Finding:
    """Add to a finding of an experiment the runs of its listed rows, with the number of rows of each."""
    if finding.run or finding.table not in RUN_OF_ROW or not finding.ids:
        return finding
    rows = RUN_OF_ROW[finding.table].format(rows=LISTED_RUNS)
    query = f"SELECT run, count(*) FROM ({rows}) GROUP BY 1 ORDER BY 2 DESC, 1"
    counted = db.execute(query, {"listed": json.dumps(finding.ids)}).fetchall()
    return replace(finding, runs={str(run): int(count) for run, count in counted if isinstance(run, str)})


def about_runs(db: sqlite3.Connection, finding: Finding, runs: Collection[str]) -> Finding | None:
    """Reduce a finding of an experiment to its rows that belong to some runs.

    Args:
        db: Any connection.
        finding: The finding, as `with_runs` returns it.
        runs: The runs.

    Returns:
        The finding with these rows; None if it is about other runs only. It is returned as it is if it is about the
        experiment, or if the runs of its rows are not known.
    """
    if finding.run:
        return finding if finding.run in runs else None
    if finding.table not in RUN_OF_ROW or not finding.ids:
        return finding
    listed = len(finding.ids) == finding.count
    if finding.rows is None and (not listed or sum(finding.runs.values()) < finding.count):
        return finding
    rows, params = (
        (LISTED_RUNS, {"listed": json.dumps(finding.ids)})
        if finding.rows is None
        else (
            finding.rows.sql,
            dict(finding.rows.params),
        )
    )
    chosen: dict[str, str | int | None] = {**params, "chosen_runs": json.dumps(sorted(runs))}
    query = (
        f"SELECT row FROM ({RUN_OF_ROW[finding.table].format(rows=rows)}) "
        "WHERE run IN (SELECT value FROM json_each(:chosen_runs))"
    )
    ids = [str(row) for (row,) in db.execute(query, chosen)]
    if not ids:
        return None
    within = None if finding.rows is None else Rows(finding.table, query, chosen)
    kept = {run: count for run, count in finding.runs.items() if run in runs}
    return replace(finding, ids=tuple(ids[:IDS_KEPT]), count=len(ids), rows=within, runs=kept)


def located(
    db: sqlite3.Connection,
    found: Iterable[Finding],
    runs: Collection[str],
    elsewhere: Callable[[list[Finding]], None],
) -> Iterator[Finding]:
    """Add to the findings of an experiment the runs that they are about.

    Args:
        db: Any connection.
        found: The findings of one check.
        runs: The runs that the user chose; empty for all.
        elsewhere: Called with the findings that are about other runs only.

    Yields:
        The findings about the chosen runs.
    """
    for finding in found:
        whole = with_runs(db, finding)
        kept = about_runs(db, whole, runs) if runs else whole
        if kept is not None:
            yield kept
        elif not finding.warning:
            elsewhere([whole])


def runs_of_findings(findings: Iterable[Finding]) -> tuple[str, ...]:
    """Return the runs that findings are about, as far as they are known, each once."""
    return tuple(dict.fromkeys(run for each in findings for run in ((each.run,) if each.run else each.runs)))


def others_note(elsewhere: Sequence[Finding]) -> str:
    """Say how many findings are about runs that the user did not choose."""
    return f"{plural(len(elsewhere), 'finding')} about other runs"


def chosen_runs(
    db: sqlite3.Connection, texts: Sequence[str], experiments: Collection[str]
) -> dict[str, tuple[str, ...]]:
    """Find the runs that the values of `--doctor-run` mean.

    Args:
        db: Any connection.
        texts: The values, each an id, the beginning of one, or words of a prompt and a network.
        experiments: The experiments that are examined; empty for all.

    Returns:
        The runs of each experiment.

    Raises:
        BadOption: No run is meant, or several could be.
    """
    labels: dict[str, str] = {}
    experiment_of: dict[str, str] = {}
    query = f"SELECT {RUN_COLUMNS} FROM run NOT INDEXED WHERE {NAMED} ORDER BY id"
    try:
        for run, experiment, network, prompt in db.execute(query):
            if not experiments or experiment in experiments:
                labels[run], experiment_of[run] = run_label(prompt, network), experiment
    except sqlite3.OperationalError as error:
        raise BadOption(f"--doctor-run {texts[0]}: the runs cannot be listed ({error}): leave it out") from error
    found: dict[str, list[str]] = {}
    for text in texts:
        run = meant(text, labels)
        if run not in found.setdefault(experiment_of[run], []):
            found[experiment_of[run]].append(run)
    return {experiment: tuple(runs) for experiment, runs in found.items()}


def meant(text: str, labels: dict[str, str]) -> str:
    """Return the run that a text means: by its id, by the beginning of one, by its label, or by words of it.

    Raises:
        BadOption: No run is meant, or several could be; the message names them.
    """
    digits = normalized_id(text)
    begins = [run for run in labels if normalized_id(run).startswith(digits)] if is_hex(digits) else []
    if len(begins) == 1:
        return begins[0]
    same = [run for run, label in labels.items() if label.casefold() == text.strip().casefold()]
    words = text.casefold().split()
    matching = same or [run for run, label in labels.items() if all(word in label.casefold() for word in words)]
    if words and len(matching) == 1:
        return matching[0]
    could = matching or begins
    shown = printable(text)
    if could:
        raise BadOption(
            f"--doctor-run {shown} could be any of {plural(len(could), 'run')}: {candidates(could, labels)}; "
            "give one of these ids, or more words"
        )
    raise BadOption(f"--doctor-run {shown}: the database has no such run{nearest(text, labels)}")


def is_hex(digits: str) -> bool:
    """Whether a text has only digits of an id."""
    return re.fullmatch(r"[0-9a-f]{1,32}", digits) is not None


def candidates(runs: Sequence[str], labels: dict[str, str]) -> str:
    """Name some runs by the shortest beginnings of their ids that are unique, and their labels."""
    every = sorted(labels)
    named = [
        f"{unique_prefix(run, every)} ({shorten(printable(labels[run]), CANDIDATE_WIDTH)})" for run in runs[:CANDIDATES]
    ]
    return name_first(named, CANDIDATES, len(runs))


def unique_prefix(run: str, every: Sequence[str]) -> str:
    """Return the shortest beginning of a run's id that no other run has, at least 8 characters, with dashes."""
    shown = dashed(run)
    others = [dashed(other) for other in every if other != run]
    for length in range(SHORTEST_PREFIX, len(shown)):
        if shown[length - 1] != "-" and not any(other.startswith(shown[:length]) for other in others):
            return shown[:length]
    return shown


def nearest(text: str, labels: dict[str, str]) -> str:
    """Describe the runs whose labels are nearest to a text, or some of all."""
    if not labels:
        return ""
    by_label = {label.casefold(): run for run, label in labels.items()}
    near = [by_label[label] for label in get_close_matches(text.casefold(), list(by_label), n=CANDIDATES, cutoff=0.3)]
    if near:
        return f": the nearest {'is' if len(near) == 1 else 'are'} {candidates(near, labels)}"
    return f": it has {plural(len(labels), 'run')}: {candidates(list(labels), labels)}"
