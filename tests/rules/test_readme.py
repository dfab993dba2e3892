"""The README says what the code says."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from pytest_panic_doctor.rules import DuplicateRule, registry
from pytest_panic_doctor.rules.base import Finding, Rule, RuleContext, Scope, rule

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


@pytest.mark.parametrize("each", registry().values(), ids=lambda each: each.id)
def test_every_rule_has_its_row(each: Rule) -> None:
    repair = str(each.repair) if each.repair else f"none: {each.manual_fix}"
    assert f"| {each.id} | {each.scope} | {each.description} | {repair} |" in README


def test_no_row_is_of_a_rule_that_is_gone() -> None:
    rows = re.findall(r"^\| ([a-z]+-?[a-z]+) \| (?:database|experiment|run)", README, re.MULTILINE)
    assert sorted(rows) == sorted(registry())


def test_ci_runs_the_readmes_test_command() -> None:
    commands = re.findall(r"^python3 -m venv .*pytest -n 2$", README, re.MULTILINE)
    assert commands == ["python3 -m venv .venv && .venv/bin/pip install -e '.[dev]' && .venv/bin/pytest -n 2"]
    script = re.search(r"sed .*README\.md \| tail -n 1", (ROOT / ".ci" / "run").read_text())
    assert script
    shown = subprocess.run(["bash", "-c", script[0]], cwd=ROOT, capture_output=True, text=True, check=True)
    assert shown.stdout.splitlines() == commands


def test_two_rules_of_one_name_fail() -> None:
    @rule("schema", scope=Scope.DATABASE, description="another one")
    def again(context: RuleContext) -> list[Finding]:
        del context
        return []

    with pytest.raises(DuplicateRule, match="two rules are called schema"):
        registry([again])


def test_every_rule_says_what_repairs_it_or_what_a_person_can_do() -> None:
    for each in registry().values():
        assert each.description
        assert not each.description.endswith(".")
        assert each.repair or each.manual_fix
        assert set(each.requires) <= set(registry())
