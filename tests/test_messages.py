"""The messages of the product: all of them are listed, and all are in plain English."""

from __future__ import annotations

import ast
import re

import pytest
from defects import DAMAGES
from messages import BANNED, KINDS, Message, banned, documented, found, literal, messages, page, sections, sources

from pytest_panic_doctor.rules import registry

NAMES = set().union(*KINDS.values())


@pytest.fixture(scope="module")
def listed() -> dict[str, str]:
    """The script's sections as texts; of the findings, those of one damage a rule."""
    return {title: "\n".join(lines) for title, lines in sections(one_each())}


def one_each() -> list[str]:
    """A kind of damage for each rule that any is planted for."""
    return list({damage.rule: name for name, damage in DAMAGES.items()}.values())


def test_every_rule_is_listed_with_its_remedy(listed: dict[str, str]) -> None:
    for rule in registry().values():
        assert f"{rule.id}: {rule.description}; remedy: {rule.manual_fix}" in listed["rules"]


def test_every_rule_that_has_damage_is_listed_with_a_finding(listed: dict[str, str]) -> None:
    said = {line.split(",")[0] for line in listed["findings"].splitlines()}
    assert {damage.rule for damage in DAMAGES.values()} <= said


def test_every_text_that_is_raised_is_listed(listed: dict[str, str]) -> None:
    everything = "\n".join(listed.values())
    count = 0
    for path, tree in sources():
        for node in ast.walk(tree):
            call = node.exc if isinstance(node, ast.Raise) else None
            if not isinstance(call, ast.Call) or ast.unparse(call.func) not in NAMES:
                continue
            for text in filter(None, map(literal, call.args[:1])):
                if len(re.findall(r"[A-Za-z]{2,}", re.sub(r"\{.*?\}", "", text))) > 1:
                    count += 1
                    assert " ".join(text.split()) in everything, path
    assert count > 100


@pytest.mark.parametrize("kind", ["messages", "page", "documented"])
def test_no_message_says_what_is_not_plain_english(kind: str) -> None:
    every = {"messages": messages, "page": page, "documented": documented}[kind]
    asked = list(every())
    assert asked
    assert [f"{each.path}:{each.line}: {each.text}" for each in banned(asked)] == []


@pytest.mark.parametrize(
    "text", ["a time that is none", "nothing can be told", "leave it away", "it is no rule: {x}", "what it comes to"]
)
def test_what_is_not_plain_english_is_seen(text: str) -> None:
    assert BANNED.search(text)
    assert list(banned([Message("x.py", 1, text), Message("x.py", 2, "a rule {said} here")])) == [
        Message("x.py", 1, text)
    ]


def test_no_finding_says_what_is_not_plain_english() -> None:
    assert [line for line in found(one_each()) if BANNED.search(line)] == []
