"""What a hook may give as rules, and what it is told where it gives something else."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from databases import build
from pytest_runs import run_pytest

from pytest_panic_doctor.rules import BadRule, registry
from pytest_panic_doctor.rules.base import Finding, Rule, RuleContext, Scope, rule
from pytest_panic_doctor.session.commands import listed_rules, write_line


@rule("own", scope=Scope.DATABASE, description="all is well")
def own(context: RuleContext) -> list[Finding]:
    del context
    return []


def several() -> Iterator[Rule]:
    yield own


@pytest.mark.parametrize(
    "given", [None, [], [own], (own,), several()], ids=["None", "[]", "list", "tuple", "generator"]
)
def test_a_hook_may_give_any_rules_or_none(given: object) -> None:
    assert listed_rules(given) in ([], [own])


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (own, "return a list of rules"),
        ("own", "return a list"),
        (7, "return a list"),
        ([own.check], "not a rule: make it one"),
    ],
    ids=["one rule", "text", "number", "undecorated"],
)
def test_a_hook_that_gives_something_else_is_told_so(given: object, said: str) -> None:
    with pytest.raises(BadRule, match=said):
        listed_rules(given)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"id": ""}, "is called ''"),
        ({"id": "a b::[c]"}, "is called 'a b::[c]'"),
        ({"id": None}, "is called None"),
        ({"scope": "dataset"}, "the scope 'dataset'"),
        ({"repair": "magic"}, "the repair 'magic'"),
        ({"requires": ("schema", "nope")}, "comes after 'nope', which does not exist"),
    ],
    ids=["no id", "odd id", "id None", "scope", "repair", "requires"],
)
def test_a_rule_that_cannot_be_one_is_refused(changed: dict[str, object], said: str) -> None:
    with pytest.raises(BadRule, match=re.escape(said)):
        registry([replace(own, **changed)])  # type: ignore[arg-type]


def test_a_hook_that_raises_is_named(pytester: pytest.Pytester) -> None:
    build(pytester.path / "x.sqlite")
    pytester.makeconftest("def pytest_doctor_rules():\n    1 / 0\n")
    result = run_pytest(pytester, "--doctor-db", "x.sqlite")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    said = result.stderr.str()
    assert "pytest_doctor_rules raised ZeroDivisionError('division by zero') in conftest.py:2" in said
    assert "Traceback" not in said


def test_what_the_terminal_cannot_show_is_escaped(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with (tmp_path / "out").open("w", encoding="ascii") as out:
        monkeypatch.setattr("sys.stdout", out)
        write_line("0 … 7")
    assert (tmp_path / "out").read_text() == "0 \\u2026 7\n"
