"""The rules that decide which items there are, and which others can be applied: asked where nobody has chosen them."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from pytest_panic_doctor.database.connection import Unreadable

if TYPE_CHECKING:
    from pytest_panic_doctor.examination.acceptance import AcceptancePolicy
    from pytest_panic_doctor.examination.examination import Examination
    from pytest_panic_doctor.rules.base import Rule

DECISIVE = ("schema", "experiment-config")
"""A table that is none, a row without an id, or a list that is none leave out items, and no other rule says so."""


def prerequisites(examination: Examination, policy: AcceptancePolicy) -> Iterator[str]:
    """What those of these rules find that have no item in this session, a sentence each, unless it is accepted.

    Args:
        doctor: The session, after its items have ended.
        judge: What accepts findings by severity and baseline.
    """
    elsewhere = examination.chosen_rules()
    rules = [
        rule
        for name, rule in examination.rules.items()
        if name in DECISIVE and name not in elsewhere and not examination.settings.switches_off(name)
    ]
    if not rules:
        return
    try:
        yield from found(examination, policy, rules)
    except (Unreadable, sqlite3.Error) as error:
        yield f"whether items are missing is unknown: {error}"


def found(examination: Examination, policy: AcceptancePolicy, rules: Iterable[Rule]) -> Iterator[str]:
    """What these rules find, a sentence each; raises what keeps the database from being read."""
    examiner = examination.examiner()
    for entry in examination.manifest.entries(rules):
        outcome = policy.apply(entry.rule, entry.name, examiner.examine(examination.rules[entry.rule], entry.subject))
        if outcome.status == "failed":
            said = outcome.findings[0].message if outcome.findings else outcome.note or outcome.error
            yield f"items may be missing or cannot be judged: {entry.name}: {said}; examine {entry.rule} too"
