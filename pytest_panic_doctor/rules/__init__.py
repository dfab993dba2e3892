"""The rules: every `Rule` in a module of this package is one, by being there."""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Iterable

from pytest_panic_doctor.errors import DoctorError
from pytest_panic_doctor.rules.base import RepairKind, Rule, Scope

ORDER = tuple(Scope)


ID = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
"""What a rule may be called: an id is a marker, and stands in node ids before a bracket."""


class BadRule(DoctorError):
    """A rule that cannot be one; the text is one sentence that names it and says what to do."""


class DuplicateRule(BadRule):
    """Two rules share an id; the text names it and both sources."""


def registry(extra: Iterable[Rule] = ()) -> dict[str, Rule]:
    """All rules by id: the built-in ones in the order of their modules, then `extra`; by scope, widest first.

    Raises `BadRule` where one of `extra` cannot be a rule, `DuplicateRule` where two share an id.
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
    """Raise `BadRule` where a rule that somebody else brings has an id, a scope or a repair that is none."""
    if not isinstance(own.id, str) or not ID.fullmatch(own.id):
        raise BadRule(
            f"a rule of {own.source} is called {own.id!r}: use letters, digits, - and _, starting with a letter"
        )
    if own.scope not in ORDER:
        raise BadRule(f"the rule {own.id} of {own.source} has the scope {own.scope!r}: give one of Scope")
    if own.repair is not None and own.repair not in tuple(RepairKind):
        raise BadRule(f"the rule {own.id} of {own.source} has the repair {own.repair!r}: give a RepairKind or None")
