"""Every check says how many rows it looked at; where that is none, its item is skipped."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from databases import build
from examine_item import RULES, examine

from pytest_panic_doctor.database.connection import Database
from pytest_panic_doctor.database.subject import Rows, Subject
from pytest_panic_doctor.examination.examiner import UNCOUNTED, Examiner
from pytest_panic_doctor.examination.outcome import Outcome, from_plain, to_plain
from pytest_panic_doctor.report.text import looked_at
from pytest_panic_doctor.rules.base import BUILT_IN, Finding, NotApplicable, Rule, RuleContext, Scope


def outcome_of(path: Path, check: Callable[[RuleContext], Iterable[Finding]], source: str = "conftest.py") -> Outcome:
    """What a rule with this check comes to."""
    rule = Rule("own", Scope.DATABASE, "all is well", check, source=source)
    database = Database(build(path / "x.sqlite").path)
    try:
        return Examiner(database, {}, {}).examine(rule, Subject())
    finally:
        database.close()


@pytest.mark.parametrize("older", [False, True], ids=["newer", "older"])
def test_every_rule_looks_at_something_in_a_healthy_database(tmp_path: Path, older: bool) -> None:
    outcomes = examine(build(tmp_path / "x.sqlite", older=older))
    assert outcomes.keys() == RULES.keys()
    looked = {rule: [sum(outcome.rows.values()) for outcome in found] for rule, found in outcomes.items()}
    assert [rule for rule, counts in looked.items() if not all(counts)] == []


EMPTIED = ("embeddingcluster", "clusteringresult", "persistencediagram", "embedding", "invocation", "run")
STILL_JUDGED = {
    "file-integrity": "passed",
    "schema": "passed",
    "id-format": "passed",
    "experiment-missing": "passed",
    "experiment-config": "passed",
    "experiment-runs": "failed",
}
"""What can be told of an experiment of which nothing else is there."""


@pytest.mark.parametrize("older", [False, True], ids=["newer", "older"])
def test_an_experiment_without_runs_passes_no_rule_about_them(tmp_path: Path, older: bool) -> None:
    built = build(tmp_path / "x.sqlite", older=older)
    with built.open() as db:
        for table in EMPTIED:
            db.execute(f"DELETE FROM {table}")
    words = {rule: {outcome.status for outcome in found} for rule, found in examine(built).items()}
    assert {rule: word for rule, (word,) in words.items() if word != "skipped"} == STILL_JUDGED


@pytest.mark.parametrize(
    "gone",
    [("embedding",), ("persistencediagram",), ("embeddingcluster",), EMPTIED[:-1]],
    ids=["no embedding", "no diagram", "no assignment", "no invocation"],
)
def test_what_passes_looked_at_something(tmp_path: Path, gone: tuple[str, ...]) -> None:
    built = build(tmp_path / "x.sqlite")
    with built.open() as db:
        for table in gone:
            db.execute(f"DELETE FROM {table}")
    ended = [(rule, outcome) for rule, found in examine(built).items() for outcome in found]
    assert [rule for rule, outcome in ended if outcome.status == "passed" and not sum(outcome.rows.values())] == []
    assert all(outcome.note for _, outcome in ended if outcome.status == "skipped")
    # A table that is empty is looked at by nobody; whose place it is says that something is missing.
    assert not [rule for rule, outcome in ended if outcome.status == "passed" and set(outcome.rows) <= set(gone)]
    assert {"failed", "skipped"} <= {outcome.status for _, outcome in ended} or gone == ("embeddingcluster",)


def says(count: int, *findings: str) -> Callable[[RuleContext], Iterable[Finding]]:
    def check(context: RuleContext) -> Iterable[Finding]:
        context.examined(count, "invocation")
        return [context.finding(each, count=1) for each in findings]

    return check


def of_a_query(context: RuleContext) -> Iterable[Finding]:
    rows = Rows("run", "SELECT id FROM run WHERE seed = :seed", {"seed": 99})
    yield from context.finding_for_rows(rows, str, of="SELECT count(*) FROM run WHERE seed <> :seed")


def in_parts(context: RuleContext) -> Iterable[Finding]:
    context.examined(1, "experimentconfig")
    context.examined(2, "run")
    context.examined(0, "invocation")
    context.examined(3, "run")
    return ()


def nothing_after_a_finding(context: RuleContext) -> Iterable[Finding]:
    yield context.finding("one is wrong", count=1)
    raise NotApplicable("the rest is not there")


@pytest.mark.parametrize(
    ("check", "word", "note", "rows"),
    [
        (says(24), "passed", "", {"invocation": 24}),
        (says(0), "skipped", "there is no invocation", {"invocation": 0}),
        (says(0, "no table can be empty"), "failed", "", {"invocation": 0}),
        (of_a_query, "passed", "", {"run": 2}),
        (in_parts, "passed", "", {"experimentconfig": 1, "run": 5, "invocation": 0}),
        (lambda context: (), "passed", "", {}),  # noqa: ARG005
        (nothing_after_a_finding, "failed", "", {}),
    ],
    ids=["some", "none", "none and a finding", "a query", "several", "not counted", "nothing after a finding"],
)
def test_what_was_looked_at_decides(
    tmp_path: Path,
    check: Callable[[RuleContext], Iterable[Finding]],
    word: str,
    note: str,
    rows: dict[str, int],
) -> None:
    outcome = outcome_of(tmp_path, check)
    assert (outcome.status, outcome.note, outcome.rows) == (word, note, rows)
    result = from_plain("x.sqlite::own", 0.1, to_plain("own", outcome))
    assert result.rows == rows
    assert result.as_dict().get("rows", {}) == rows


def test_a_rule_of_the_doctor_that_does_not_count_cannot_pass(tmp_path: Path) -> None:
    outcome = outcome_of(tmp_path, lambda context: (), source=BUILT_IN)  # noqa: ARG005
    assert (outcome.status, outcome.note) == ("skipped", UNCOUNTED)


def test_rows_are_named_as_people_name_them() -> None:
    assert looked_at({"persistencediagram": 1, "run": 1_234}) == "1 diagram, 1,234 runs"
    assert looked_at({"page": 2}) == "2 pages"
    assert looked_at({}) == "rows not counted"
