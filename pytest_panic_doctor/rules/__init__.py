"""The rules: every `Rule` in a module of this package is one, by being there."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterable

from pytest_panic_doctor.errors import DoctorError
from pytest_panic_doctor.rules.model import Rule, Scope

ORDER = tuple(Scope)


class DuplicateRule(DoctorError):
    """Two rules share an id; the text names it and both sources."""


def registry(extra: Iterable[Rule] = ()) -> dict[str, Rule]:
    """All rules by id: the built-in ones in the order of their modules, then `extra`; by scope, widest first.

    Raises `DuplicateRule` where two share an id.
    """
    found: list[Rule] = []
    for module in sorted(pkgutil.iter_modules(__path__), key=lambda info: info.name):
        names = vars(importlib.import_module(f"{__name__}.{module.name}"))
        found += [value for value in names.values() if isinstance(value, Rule)]
    found += extra
    by_id: dict[str, Rule] = {}
    for each in sorted(found, key=lambda rule: ORDER.index(rule.scope)):
        if each.id in by_id:
            raise DuplicateRule(f"two rules are called {each.id}: one is {by_id[each.id].source}, one is {each.source}")
        by_id[each.id] = each
    return by_id
