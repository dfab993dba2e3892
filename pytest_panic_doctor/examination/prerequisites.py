"""Checks after the items: of the rules that decide which items exist, and of what the repairs may have changed."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterable, Iterator
from typing import TYPE_CHECKING

from pytest_panic_doctor.database.connection import Unreadable
from pytest_panic_doctor.rules.base import Scope

if TYPE_CHECKING:
    from pytest_panic_doctor.examination.acceptance import AcceptancePolicy
    from pytest_panic_doctor.examination.examination import Examination
    from pytest_panic_doctor.examination.manifest import Entry
    from pytest_panic_doctor.rules.base import Rule

ASSIGNMENTS = "orphan-cluster"
"""Rules that require this one look at cluster assignments, which a quarantine of embeddings takes along."""

DECISIVE = ("schema", "experiment-config")
"""Rules for damage that removes items: a missing table, a row without an id, an invalid list."""


def prerequisites(examination: Examination, policy: AcceptancePolicy) -> Iterator[str]:
    """Check these rules for subjects without an item in this session.

    Args:
        examination: The session, after its items have ended.
        policy: Accepts findings by severity and baseline.

    Yields:
        A sentence for each finding that is not accepted.
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
        for entry, reason in failures(examination, policy, rules):
            yield f"items may be missing or cannot be judged: {entry.name}: {reason}; examine {entry.rule} too"
    except (Unreadable, sqlite3.Error) as error:
        yield f"whether items are missing is unknown: {error}"


def no_longer_passed(examination: Examination, policy: AcceptancePolicy, passed: Collection[str]) -> Iterator[str]:
    """Examine the rules about cluster assignments again, after repairs that may have quarantined some.

    Such a rule may have passed before another rule was repaired: items run in several processes.

    Args:
        examination: The session, after its items have ended.
        policy: Accepts findings by severity and baseline.
        passed: The rules whose items all passed.

    Yields:
        A sentence for each that does not pass now.
    """
    rules = [
        rule
        for name, rule in examination.rules.items()
        if name in passed and rule.scope is Scope.DATABASE and ASSIGNMENTS in rule.requires
    ]
    if not rules:
        return
    try:
        for entry, reason in failures(examination, policy, rules):
            yield f"{entry.name} passed before the repairs, and fails now: {reason}"
    except (Unreadable, sqlite3.Error) as error:
        yield f"whether {rules[0].id} still passes after the repairs is unknown: {error}"


def failures(examination: Examination, policy: AcceptancePolicy, rules: Iterable[Rule]) -> Iterator[tuple[Entry, str]]:
    """Yield each item of these rules that fails, with its reason; raises what prevents reading the database."""
    examiner = examination.examiner(acceptance=policy)
    for entry in examination.manifest.entries(rules):
        outcome = examiner.examine(examination.rules[entry.rule], entry.subject)
        if outcome.status == "failed":
            yield entry, outcome.findings[0].message if outcome.findings else outcome.note or outcome.error
