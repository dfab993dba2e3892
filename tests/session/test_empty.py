"""Where there is nothing to examine, nothing is green, and what was not examined is named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from databases import DEFAULT, RULES, Built
from html_payload import data_of
from pytest_runs import Doctor, outcomes

from pytest_panic_doctor.database.schema import TABLES
from pytest_panic_doctor.rules.base import Scope

WITHOUT = [rule.id for rule in DEFAULT.values() if rule.scope is not Scope.DATABASE]


@pytest.fixture
def empty(sick: Built) -> Built:
    """All rows deleted."""
    with sick.open() as db:
        for table in TABLES:
            db.execute(f"DELETE FROM {table}")
    return sick


@pytest.mark.usefixtures("empty")
def test_a_database_without_rows_is_no_green(run_doctor: Doctor, pytester: pytest.Pytester) -> None:
    result = run_doctor("--doctor-report=r.json", "--doctor-report=r.html")
    assert result.ret == 1
    result.stdout.fnmatch_lines(
        ["sick *experiment-missing*", "not examined *, experiment-config,*", f"{RULES} rules: *"]
    )
    words = outcomes(pytester.path / "r.json")
    healthy = {name for name, word in words.items() if word == "passed"}
    assert healthy == {"schema", "file-integrity"}
    assert words["experiment-missing"] == "failed"
    head = json.loads((pytester.path / "r.json").read_text())["doctor"]
    assert sorted(head["without_items"]) == sorted(WITHOUT)
    assert head["rules"]["not examined"] == RULES - 3
    page = {rule["id"]: rule["verdict"] for rule in data_of(pytester.path / "r.html")["rules"]}
    assert {page[name] for name in WITHOUT} == {"not examined"}


@pytest.mark.parametrize("more", [(), ("-n", "2"), ("--doctor-shard", "1/2")], ids=["alone", "-n 2", "a shard"])
@pytest.mark.usefixtures("empty")
def test_a_rule_without_an_item_is_no_green(run_doctor: Doctor, more: tuple[str, ...]) -> None:
    assert run_doctor("--doctor-rule=invocation-chain", *more).ret == pytest.ExitCode.NO_TESTS_COLLECTED


def test_an_experiment_without_runs_is_named(run_doctor: Doctor, sick: Built, tmp_path: Path) -> None:
    with sick.open() as db:
        for table in TABLES:
            db.execute(f"DELETE FROM {table} WHERE ? <> 'experimentconfig'", (table,))
    result = run_doctor(f"--doctor-report={tmp_path / 'r.json'}")
    assert result.ret == 1
    named = json.loads((tmp_path / "r.json").read_text())["doctor"]["without_items"]
    assert sorted(named) == sorted(rule.id for rule in DEFAULT.values() if rule.scope is Scope.RUN_MODEL)


@pytest.mark.usefixtures("sick")
def test_a_rule_of_which_the_sample_has_no_item_is_named(run_doctor: Doctor, pytester: pytest.Pytester) -> None:
    result = run_doctor("--doctor-sample=1/100000", "--doctor-report=r.json", "--doctor-report=r.html")
    assert result.ret == 0
    dear = sorted(rule.id for rule in DEFAULT.values() if rule.expensive)
    assert "diagram-current" in dear
    result.stdout.fnmatch_lines(["not examined *embedding-vector*", "*since the sample holds none of theirs"])
    head = json.loads((pytester.path / "r.json").read_text())["doctor"]
    assert "without_items" not in head
    assert set(dear) <= set(head["outside_sample"])
    assert head["rules"]["not examined"] >= len(dear)
    page = {rule["id"]: rule["verdict"] for rule in data_of(pytester.path / "r.html")["rules"]}
    assert {page[name] for name in head["outside_sample"]} == {"not examined"}
