"""The rules. Every `Rule` in a module of this package is registered automatically."""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Iterable

from pytest_panic_doctor.errors import DoctorError
from pytest_panic_doctor.rules.base import RepairKind, Rule, Scope

ORDER = tuple(Scope)


ID = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
"""Form of a rule id: it is also a pytest marker, and stands before the bracket of a node id."""


class BadRule(DoctorError):
    """A rule from outside the package that is not usable; the message names it and says what to do."""


class DuplicateRule(BadRule):
    """Two rules share an id; the message names it and both sources."""


def registry(extra: Iterable[Rule] = ()) -> dict[str, Rule]:
    """Collect all rules by id.

    Args:
        extra: Rules of a conftest.py or another plugin.

    Returns:
        The rules, widest scope first; within a scope in the order of their modules, then `extra`.

    Raises:
        BadRule: One of `extra` has an invalid id, scope or repair.
        DuplicateRule: Two rules share an id.
    """
    found: list[Rule] = []
    for module in sorted(pkgutil.iter_modules(__path__), key=lambda info: info.name):
        names = vars(importlib.import_module(f"{__name__}.{module.name}"))
        found += [value for value in names.values() if isinstance(value, Rule)]
    own = list(extra)
    for each in own:
        check(each)
    found += own
    by_id: dict[str, Rule] = {}
    for each in sorted(found, key=lambda rule: ORDER.index(rule.scope)):
        if each.id in by_id:
            raise DuplicateRule(f"two rules are called {each.id}: one is {by_id[each.id].source}, one is {each.source}")
        by_id[each.id] = each
    for each in own:
        if lost := next((name for name in each.requires if name not in by_id), None):
            raise BadRule(f"the rule {each.id} of {each.source} comes after {lost!r}, which does not exist")
    return by_id


def check(own: Rule) -> None:
    """Validate a rule from outside the package.

    Raises:
        BadRule: Its id, scope or repair is invalid.
    """
    if not isinstance(own.id, str) or not ID.fullmatch(own.id):
        raise BadRule(
            f"a rule of {own.source} is called {own.id!r}: use letters, digits, - and _, starting with a letter"
        )
    if own.scope not in ORDER:
        raise BadRule(f"the rule {own.id} of {own.source} has the scope {own.scope!r}: give one of Scope")
    if own.repair is not None and own.repair not in tuple(RepairKind):
        raise BadRule(f"the rule {own.id} of {own.source} has the repair {own.repair!r}: give a RepairKind or None")
