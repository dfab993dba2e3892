"""The page about the Python API has every public name, every attribute and every signature, and no other."""

from __future__ import annotations

import inspect
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import pytest_panic_doctor
from pytest_panic_doctor import topology
from pytest_panic_doctor.session import hookspecs

PAGE = (Path(__file__).parents[2] / "docs" / "reference" / "api.md").read_text(encoding="utf-8")
SECTIONS = {
    heading.strip("`"): text for heading, text in re.findall(r"^## (.+)\n((?:(?!^## ).*\n)*)", PAGE, re.MULTILINE)
}
PUBLIC: dict[str, object] = {
    name: getattr(module, name) for module in (pytest_panic_doctor, topology) for name in module.__all__
}
CLASSES = {name: value for name, value in PUBLIC.items() if inspect.isclass(value)}
FUNCTIONS = {name: value for name, value in PUBLIC.items() if inspect.isfunction(value)}
HOOKS = {name: value for name, value in vars(hookspecs).items() if name.startswith("pytest_")}


def signature(function: Callable[..., object]) -> str:
    """A function as the page prints it, on one line."""
    found = inspect.signature(function)
    parts: list[str] = []
    for each in found.parameters.values():
        if each.kind is each.KEYWORD_ONLY and "*" not in parts:
            parts.append("*")
        parts.append(f"{each.name}: {each.annotation}" + ("" if each.default is each.empty else f" = {each.default!r}"))
    return f"{function.__name__}({', '.join(parts)}) -> {found.return_annotation}"


def printed(text: str) -> str:
    """A block of code on one line."""
    return re.sub(r",?\s*\n\)", ")", re.sub(r"\(\n\s*", "(", text)).replace(",\n    ", ", ")


def attributes(public: type) -> set[str]:
    """The public attributes and methods of a class of ours."""
    own = [vars(each) for each in public.__mro__ if each.__module__.startswith("pytest_panic_doctor")]
    return {name for each in own for name in each if not name.startswith("_")}


def test_every_public_name_has_its_section_and_no_other() -> None:
    assert set(SECTIONS) == {*PUBLIC, "Hooks"}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_is_printed_with_its_signature(name: str) -> None:
    function = PUBLIC[name]
    assert callable(function)
    assert signature(function) in printed(SECTIONS[name])
    rows = re.findall(r"^\| `(\w+)` \|", SECTIONS[name], re.MULTILINE)
    assert rows == list(inspect.signature(function).parameters)


@pytest.mark.parametrize("name", HOOKS)
def test_a_hook_is_printed_with_its_signature(name: str) -> None:
    assert signature(HOOKS[name]) in SECTIONS["Hooks"].splitlines()


def test_no_hook_is_printed_that_is_gone() -> None:
    assert set(re.findall(r"^(pytest_\w+)\(", SECTIONS["Hooks"], re.MULTILINE)) == set(HOOKS)


@pytest.mark.parametrize("name", CLASSES)
def test_every_attribute_of_a_class_is_named(name: str) -> None:
    text = SECTIONS[name] + (SECTIONS["rule"] if name == "Rule" else "")
    named = {re.split(r"\(|\.", each.removeprefix(f"{name}."))[0] for each in re.findall(r"`([^`\n]+)`", text)}
    assert attributes(CLASSES[name]) <= named


@pytest.mark.parametrize("name", CLASSES)
def test_no_attribute_of_a_class_is_named_that_is_gone(name: str) -> None:
    first = [line.split(" | ")[0] for line in SECTIONS[name].splitlines() if line.startswith("| `")]
    named = [
        re.split(r"\(", each.removeprefix(f"{name}."))[0] for cell in first for each in re.findall(r"`([^`]+)`", cell)
    ]
    assert set(named) <= attributes(CLASSES[name])


def test_a_method_is_printed_with_its_parameters() -> None:
    for name, public in CLASSES.items():
        for method, parameters in re.findall(r"^\| `(\w+)\(([^`]*)\)`", SECTIONS[name], re.MULTILINE):
            value = inspect.getattr_static(public, method)
            if inspect.isfunction(value):
                names = [
                    f"{'**' if each.kind is each.VAR_KEYWORD else ''}{each.name}"
                    for each in list(inspect.signature(value).parameters.values())[1:]
                ]
                shown = [each.split("=")[0] for each in parameters.split(", ") if each not in ("", "*")]
                assert shown == names, method


@pytest.mark.slow
@pytest.mark.parametrize(("change", "passes"), [(("", ""), True), (("yield from ()", "yield 3"), False)])
def test_the_rule_with_types_passes_a_type_checker(tmp_path: Path, change: tuple[str, str], passes: bool) -> None:
    (block,) = re.findall(r"^```python\n(.*?)^```$", SECTIONS["Check"], re.MULTILINE | re.DOTALL)
    names = "Finding, Rule, RuleContext, Scope, rule"
    head = f"from collections.abc import Iterator\n\nfrom pytest_panic_doctor import {names}\n\n\n"
    (tmp_path / "conftest.py").write_text(head + block.replace(*change))
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--follow-imports=silent", "--cache-dir=cache", "conftest.py"],
        cwd=tmp_path,
        env={**os.environ, "MYPYPATH": str(Path(pytest_panic_doctor.__file__).parents[1])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode == 0) is passes, done.stdout + done.stderr
