"""Every check says how many rows it looked at; where that is none, its item is skipped."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from databases import build

from pytest_panic_doctor.examine import Examiner, Outcome
from pytest_panic_doctor.report.results import from_plain, to_plain
from pytest_panic_doctor.report.text import looked_at
from pytest_panic_doctor.rules.model import Finding, NothingToLookAt, Rule, Scope, View
from pytest_panic_doctor.store.session import Database
from pytest_panic_doctor.store.subject import Rows, Subject


def outcome_of(path: Path, check: Callable[[View], Iterable[Finding]]) -> Outcome:
    """What a rule of one's own with this check comes to."""
    rule = Rule("own", Scope.DATABASE, "all is well", check, source="conftest.py")
    database = Database(build(path / "x.sqlite").path)
    try:
        return Examiner(database, {}, {}).examine(rule, Subject())
    finally:
        database.close()


def says(count: int, *findings: str) -> Callable[[View], Iterable[Finding]]:
    def check(view: View) -> Iterable[Finding]:
        view.examined(count, "invocation")
        return [view.finding(each, count=1) for each in findings]

    return check


def of_a_query(view: View) -> Iterable[Finding]:
    rows = Rows("run", "SELECT id FROM run WHERE seed = :seed", {"seed": 99})
    yield from view.offenders(rows, str, of="SELECT count(*) FROM run WHERE seed <> :seed")


def in_parts(view: View) -> Iterable[Finding]:
    view.examined(1, "experimentconfig")
    view.examined(2, "run")
    view.examined(0, "invocation")
    view.examined(3, "run")
    return ()


def nothing_after_a_finding(view: View) -> Iterable[Finding]:
    yield view.finding("one is wrong", count=1)
    raise NothingToLookAt("the rest is not there")


@pytest.mark.parametrize(
    ("check", "word", "note", "rows"),
    [
        (says(24), "passed", "", {"invocation": 24}),
        (says(0), "skipped", "there is no invocation", {"invocation": 0}),
        (says(0, "no table can be empty"), "failed", "", {"invocation": 0}),
        (of_a_query, "passed", "", {"run": 2}),
        (in_parts, "passed", "", {"experimentconfig": 1, "run": 5, "invocation": 0}),
        (lambda view: (), "passed", "", {}),  # noqa: ARG005
        (nothing_after_a_finding, "failed", "", {}),
    ],
    ids=["some", "none", "none and a finding", "a query", "several", "not counted", "nothing after a finding"],
)
def test_what_was_looked_at_decides(
    tmp_path: Path,
    check: Callable[[View], Iterable[Finding]],
    word: str,
    note: str,
    rows: dict[str, int],
) -> None:
    outcome = outcome_of(tmp_path, check)
    assert (outcome.word, outcome.note, outcome.rows) == (word, note, rows)
    result = from_plain("x.sqlite::own", 0.1, to_plain("own", outcome))
    assert result.rows == rows
    assert result.as_dict().get("rows", {}) == rows


def test_rows_are_named_as_people_name_them() -> None:
    assert looked_at({"persistencediagram": 1, "run": 1_234}) == "1 diagram, 1,234 runs"
    assert looked_at({"page": 2}) == "2 pages"
    assert looked_at({}) == "rows not counted"
