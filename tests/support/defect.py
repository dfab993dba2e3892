"""A kind of damage: what is planted, which rule finds it, and which others fail by plain consequence."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from dataclasses import dataclass

from databases import Built, uid

Ids = tuple[str, ...]
Plant = Callable[[sqlite3.Connection, Built], Ids]


@dataclass(frozen=True)
class Damage:
    """`plant` makes it and returns the ids that the finding names; `repairable`: healed without a hook."""

    rule: str
    plant: Plant
    also: frozenset[str]
    older: bool
    repairable: bool


DAMAGES: dict[str, Damage] = {}


def damage(rule: str, *also: str, older: bool = False, repairable: bool = False) -> Callable[[Plant], Plant]:
    """Register a kind of damage under its function's name."""

    def wrap(plant: Plant) -> Plant:
        DAMAGES[plant.__name__] = Damage(rule, plant, frozenset(also), older, repairable)
        return plant

    return wrap


def sql(rule: str, statement: str, *ids: str, name: str, also: tuple[str, ...] = (), repairable: bool = False) -> None:
    """Register damage that one statement does."""

    def plant(db: sqlite3.Connection, _: Built) -> Ids:
        db.executescript(statement)
        return ids

    DAMAGES[name] = Damage(rule, plant, frozenset(also), older=False, repairable=repairable)


E, RUN, I3, I4, E3, D = uid(1, 0), uid(2, 0), uid(3, 3), uid(3, 4), uid(4, 3), uid(5, 0)
NEW = "f" * 32
LOST = "e" * 32
BLOCKED = ("diagram-current",)
