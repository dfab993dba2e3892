"""Checks after the items: of the rules that decide which items exist, and of what the repairs may have changed."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING

from pytest_panic_doctor.database.connection import Unreadable
from pytest_panic_doctor.rules.base import Scope

if TYPE_CHECKING:
    from pytest_panic_doctor.examination.examination import Examination
    from pytest_panic_doctor.rules.base import Rule

ASSIGNMENTS = "orphan-cluster"
"""Rules that require this one look at cluster assignments, which a quarantine of embeddings takes along."""

DECISIVE = ("schema", "experiment-config")
"""Rules for damage that removes items: a missing table, a row without an id, an invalid list."""


def prerequisites(examination: Examination) -> Iterator[str]:
    """Check these rules for subjects without an item in this session, after its items have ended.

    Yields:
        A sentence for each finding that is not accepted.
    """
    elsewhere = examination.chosen_rules()
    rules = [
        rule
        for name, rule in examination.rules.items()
        if name in DECISIVE and name not in elsewhere and not examination.settings.switches_off(name)
    ]
    sentence = "items may be missing or cannot be judged: {name}: {reason}; examine {rule} too"
    yield from failures(examination, rules, sentence, "whether items are missing is unknown")


def no_longer_passed(examination: Examination, passed: Collection[str]) -> Iterator[str]:
    """Examine the rules about cluster assignments again, after repairs that may have quarantined some.

    Such a rule may have passed before another rule was repaired: items run in several processes.

    Args:
        examination: The session, after its items have ended.
        passed: The rules whose items all passed.

    Yields:
        A sentence for each that does not pass now.
    """
    rules = [
        rule
        for name, rule in examination.rules.items()
        if name in passed and rule.scope is Scope.DATABASE and ASSIGNMENTS in rule.requires
    ]
    sentence = "{name} passed before the repairs, and fails now: {reason}"
    unknown = f"whether {rules[0].id if rules else 'a rule'} still passes after the repairs is unknown"
    yield from failures(examination, rules, sentence, unknown)


def failures(examination: Examination, rules: Sequence[Rule], sentence: str, unknown: str) -> Iterator[str]:
    """Examine all items of some rules.

    Args:
        examination: The session.
        rules: The rules.
        sentence: The message about a failed item, with its `name`, its `rule` and its `reason`.
        unknown: The message if the database cannot be read.
    """
    if not rules:
        return
    try:
        examiner = examination.examiner()
        for entry in examination.manifest.entries(rules):
            outcome = examiner.examine(examination.rules[entry.rule], entry.subject)
            if outcome.status == "failed":
                reason = outcome.findings[0].message if outcome.findings else outcome.note or outcome.error
                yield sentence.format(name=entry.name, rule=entry.rule, reason=reason)
    except (Unreadable, sqlite3.Error) as error:
        yield f"{unknown}: {error}"
