"""Which rules a session has, and whether they and what is asked for fit the file. Knows no pytest."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from pytest_panic_doctor.database.connection import Unreadable
from pytest_panic_doctor.database.generation import Generation
from pytest_panic_doctor.database.memory_room import CONTROLLER_BYTES, MemoryRoom, TooLarge
from pytest_panic_doctor.database.spelling import dashed
from pytest_panic_doctor.errors import BadOption
from pytest_panic_doctor.examination.manifest import count_items
from pytest_panic_doctor.examination.settings import NO_SHARDING, Settings
from pytest_panic_doctor.formatting import did_you_mean, format_size
from pytest_panic_doctor.rules import registry
from pytest_panic_doctor.rules.base import BUILT_IN, Rule, Scope

ITEM_BYTES, WORKER_ITEM_BYTES = 6_000, 3_600
"""Bytes that pytest keeps for an item, in one process or in two, and in each further worker (measured)."""

RUN_BYTES = 1_200
"""Bytes for a run in the manifest of each process (measured)."""

SHARDS = (2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 25, 30, 40, 50, 100, 200, 500, 1000)


def known_rules(settings: Settings, extra: Iterable[Rule]) -> dict[str, Rule]:
    """Return all rules; raises `BadOption` if the settings name an unknown rule."""
    rules = registry(extra)
    for name in settings.rules:
        if name not in rules:
            raise BadOption(
                f"--doctor-rule {name}: there is no such rule{did_you_mean(name, rules)} (--doctor-rules lists them)"
            )
    for name in settings.severity:
        if name not in rules:
            raise BadOption(f"doctor_severity names {name}: there is no such rule{did_you_mean(name, rules)}")
    return rules


def selected_rules(settings: Settings, rules: Mapping[str, Rule], generation: str) -> list[Rule]:
    """Return the rules that have items: those that were named, or all that are not switched off.

    A deep rule also has items with `--doctor-deep` or `--doctor-sample`. A rule of one generation has items in its
    databases only. With chosen runs, a rule about the database as a unit has an item only if it is named.
    """
    named = settings.rules
    deep = settings.deep or settings.sample is not None
    return [
        rule
        for rule in rules.values()
        if rule.applies_to(generation)
        and (rule.id in named or (not named and not settings.switches_off(rule.id) and (deep or not rule.deep)))
        and (rule.id in named or not settings.runs or rule.scope is not Scope.DATABASE)
    ]


def in_terms_of(generation: Generation, rules: Mapping[str, Rule]) -> dict[str, Rule]:
    """Return the rules, the built-in ones with what a person does with the tool of this generation."""
    return {
        name: replace(rule, manual_fix=generation.remedies.get(name, rule.manual_fix))
        if rule.source == BUILT_IN
        else rule
        for name, rule in rules.items()
    }


def check_rules(settings: Settings, rules: Mapping[str, Rule], generation: Generation) -> None:
    """Raise `BadOption` if a rule is named that has no items in a file of this generation."""
    for name in settings.rules:
        if not rules[name].applies_to(generation.key):
            raise BadOption(
                f"the rule {name} is about databases of another generation of the research tool, and "
                f"{settings.database} is of {generation.name}: leave it out"
            )


def check_repairs(settings: Settings, generation: Generation) -> None:
    """Raise `Unreadable` if a repair is requested that is not possible for this generation."""
    flag = "--doctor-fix" if settings.fix else "--doctor-plan" if settings.plan else ""
    if flag and not generation.repairs:
        raise Unreadable(
            f"{settings.database} is a database of {generation.name}, which this doctor examines and does not repair: "
            f"leave out {flag}"
        )


def check_items(
    db: sqlite3.Connection, settings: Settings, rules: Sequence[Rule], space: MemoryRoom, workers: int
) -> None:
    """Raise `TooLarge` if pytest cannot hold all items in memory, before it tries."""
    mine = settings.shard or NO_SHARDING
    runs, items = count_items(db, settings.experiments, rules, space)
    need = RUN_BYTES * runs * (1 + workers) + items // mine.of * (ITEM_BYTES + WORKER_ITEM_BYTES * max(0, workers - 1))
    fits = space.bytes - CONTROLLER_BYTES * bool(workers) * workers
    if need <= fits:
        return
    parts = next((n for n in SHARDS if RUN_BYTES * runs * (1 + workers) + need * mine.of // n <= fits), 0)
    shards = f", or examine it in {parts} parts, the first with --doctor-shard 1/{parts}" if parts else ""
    raise TooLarge(
        f"{settings.database.name} has {items:,} items, for which pytest needs {format_size(need)}, "
        f"{space.refusal(need, fits)}{shards}"
    )


def check_experiments(settings: Settings, there: list[str]) -> None:
    """Raise `BadOption` if the settings name an unknown experiment."""
    for name in settings.experiments:
        if name not in there:
            known = [dashed(each) for each in there]
            hint = did_you_mean(dashed(name), known) or f": it has {len(known):,} others"
            raise BadOption(f"--doctor-experiment {dashed(name)}: the database has no such experiment{hint}")
