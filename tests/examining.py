"""What all rules come to for a database, in this process."""

from __future__ import annotations

from databases import DEFAULT, Built

from pytest_panic_doctor import manifest as manifests
from pytest_panic_doctor.examine import Examiner, Outcome
from pytest_panic_doctor.store.session import Database
from pytest_panic_doctor.values import kinds

RULES = DEFAULT


def examine(built: Built) -> dict[str, list[Outcome]]:
    """The outcomes of all items, by rule."""
    database = Database(built.path)
    examiner = Examiner(database, RULES, kinds([], []))
    outcomes: dict[str, list[Outcome]] = {}
    for entry in database.read(manifests.build).entries(RULES.values()):
        outcomes.setdefault(entry.rule, []).append(examiner.examine(RULES[entry.rule], entry.subject))
    database.close()
    return outcomes
