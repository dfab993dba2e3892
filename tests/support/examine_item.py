"""What all rules come to for a database, in this process."""

from __future__ import annotations

from pathlib import Path

from databases import DEFAULT, Built

from pytest_panic_doctor.database.connection import Database
from pytest_panic_doctor.database.generations import generation_of
from pytest_panic_doctor.database.python_generation import PYTHON
from pytest_panic_doctor.examination import manifest as manifests
from pytest_panic_doctor.examination.check import CheckOptions
from pytest_panic_doctor.examination.examiner import Examiner
from pytest_panic_doctor.examination.outcome import Outcome
from pytest_panic_doctor.examination.parsing import model_types
from pytest_panic_doctor.rules import registry

RULES = DEFAULT


def examine(built: Built, *deep: str) -> dict[str, list[Outcome]]:
    """The outcomes of all items, by rule: those of the deep rules among them that are named."""
    return examine_file(built.path, *deep)


def examine_file(path: Path, *deep: str) -> dict[str, list[Outcome]]:
    """The same for a file that was made elsewhere."""
    database = Database(path)
    known = registry().values()
    key = (database.read(generation_of) or PYTHON).key
    rules = {rule.id: rule for rule in known if (not rule.deep or rule.id in deep) and rule.applies_to(key)}
    examiner = Examiner(database, rules, model_types([], []), CheckOptions(deep=bool(deep)))
    outcomes: dict[str, list[Outcome]] = {}
    for entry in database.read(manifests.build_manifest).entries(rules.values()):
        outcomes.setdefault(entry.rule, []).append(examiner.examine(rules[entry.rule], entry.subject))
    database.close()
    return outcomes
