"""Every message that the page quotes is in the code, and every kind of error that a user can cause is on the page."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import pytest_panic_doctor
from pytest_panic_doctor.examination.options import OPTIONS

PACKAGE = Path(pytest_panic_doctor.__file__).parent
PAGE = Path(__file__).parents[2] / "docs" / "troubleshooting.md"
QUOTED = re.findall(r"^\| `([^`]+)` \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
FLAGS = {option.flag for option in OPTIONS}
ROOTS = {"DoctorError"}
"""What a user can cause, and all its subclasses."""


ANY_OPTION = "--doctor-"
"""What a message of a parser begins with: the option is put in."""

OF_THE_CODE = {"A row of … is not added without an id."}
"""What only a mistake in the code can cause."""


@cache
def trees() -> tuple[ast.Module, ...]:
    """The package's modules."""
    return tuple(ast.parse(path.read_text(encoding="utf-8")) for path in sorted(PACKAGE.rglob("*.py")))


def text_of(node: ast.AST) -> str:
    """A text of the code, `…` for each part that is put into it."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(text_of(part) or "…" for part in node.values)
    if isinstance(node, ast.FormattedValue) and ast.unparse(node.value) in ("given", "given.name"):
        return f"{ANY_OPTION}…"
    return ""


@cache
def texts() -> frozenset[str]:
    """Every text of the package that is not a docstring."""
    return frozenset(found())


def found() -> Iterator[str]:
    """The same, one by one."""
    for tree in trees():
        passed = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        for node in ast.walk(tree):
            if id(node) not in passed and (text := " ".join(text_of(node).split())):
                passed |= {id(part) for part in ast.walk(node)}
                yield text


def pieces(message: str) -> list[str]:
    """The fixed parts of a message."""
    return [part for each in message.split("…") if (part := each.strip(" ,.:;()"))]


def is_of(message: str, text: str) -> bool:
    """Whether a text of the code has the fixed parts of a quoted message, in that order."""
    if text.startswith(f"{ANY_OPTION}…") and (option := message.split()[0]) in FLAGS:
        message = message.replace(option, ANY_OPTION + "…", 1)
    place = 0
    for piece in pieces(message):
        found = text.find(piece, place)
        if found < 0:
            return False
        place = found + len(piece)
    return True


@cache
def error_classes() -> dict[str, ast.ClassDef]:
    """The classes of errors that a user can cause, by name."""
    classes = {node.name: node for tree in trees() for node in ast.walk(tree) if isinstance(node, ast.ClassDef)}
    found = set(ROOTS)
    while more := {
        name
        for name, node in classes.items()
        if name not in found and any(isinstance(base, ast.Name) and base.id in found for base in node.bases)
    }:
        found |= more
    return {name: classes[name] for name in sorted(found)}


def made(name: str) -> list[str]:
    """The texts that errors of a class are made with."""
    calls = [
        node
        for tree in trees()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == name and node.args
    ]
    return [text for call in calls if (text := " ".join(text_of(call.args[0]).split()))]


@pytest.mark.parametrize("message", QUOTED)
def test_every_quoted_message_is_in_the_code(message: str) -> None:
    assert sum(map(len, pieces(message))) > 5, "too short to be found in a terminal"
    assert any(is_of(message, text) for text in texts())


@pytest.mark.parametrize("name", error_classes())
def test_every_kind_of_error_that_a_user_can_cause_has_a_line(name: str) -> None:
    messages = made(name)
    if not messages:
        # Only its subclasses are raised; each has its own test.
        assert any(name in ast.unparse(node).splitlines()[0] for node in error_classes().values())
        return
    assert any(is_of(quoted, text) for quoted in QUOTED for text in messages), messages


@pytest.mark.parametrize("name", error_classes())
def test_a_message_that_is_not_on_the_page_says_itself_what_to_do(name: str) -> None:
    silent = [
        text
        for text in made(name)
        if not any(is_of(quoted, text) for quoted in QUOTED)
        and not re.search(r"[:;,] \w+", text)
        and not text.strip(".").endswith("…")
    ]
    assert set(silent) <= OF_THE_CODE


def test_a_message_that_the_code_does_not_have_is_seen() -> None:
    assert not is_of("there is no journal at …", "there is no database at …: name one")
    assert is_of("there is no … at …", "there is no database at …: name one")


def test_no_message_is_quoted_twice() -> None:
    assert len(QUOTED) == len(set(QUOTED))
