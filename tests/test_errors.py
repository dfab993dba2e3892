"""The tree of exceptions in the docstring of `errors` is the tree of the code."""

from __future__ import annotations

import ast
import re

from messages import sources

import pytest_panic_doctor.errors
from pytest_panic_doctor.errors import DoctorError


def documented() -> dict[str, tuple[str, str]]:
    """Return (module, name of the base) of each exception, by its name, as the docstring has it."""
    found: dict[str, tuple[str, str]] = {}
    above: list[str] = []
    for line in (pytest_panic_doctor.errors.__doc__ or "").splitlines():
        if match := re.fullmatch(r" {4}( *)(\w+) +([\w.]+)", line):
            indent, name, module = match.groups()
            above = [*above[: len(indent) // 4], name]
            found[name] = module, above[-2] if len(above) > 1 else "Exception"
    return found


def defined() -> dict[str, tuple[str, str]]:
    """Return the same of the code: every class that derives from `DoctorError`, in any module."""
    classes: dict[str, tuple[str, str]] = {}
    for path, tree in sources():
        module = path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef) and node.bases:
                classes[node.name] = module, ast.unparse(node.bases[0])
    found = {DoctorError.__name__: classes[DoctorError.__name__]}
    while more := {name: each for name, each in classes.items() if each[1] in found and name not in found}:
        found |= more
    return found


def test_the_tree_of_exceptions_is_complete() -> None:
    assert documented() == defined()
    assert len(defined()) > 10
