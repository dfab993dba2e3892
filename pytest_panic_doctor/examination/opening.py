"""Makes the session of the controller from the database."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterable
from dataclasses import replace

from pytest_panic_doctor.database.connection import Database, Unreadable
from pytest_panic_doctor.database.integrity import REMOVE, check_tables, remedy
from pytest_panic_doctor.database.memory_room import memory_room
from pytest_panic_doctor.database.python_generation import PYTHON
from pytest_panic_doctor.database.verification import LISTING_TABLES
from pytest_panic_doctor.examination import manifest as manifests
from pytest_panic_doctor.examination.examination import Examination
from pytest_panic_doctor.examination.run_selection import chosen_runs
from pytest_panic_doctor.examination.selection import (
    check_experiments,
    check_items,
    check_repairs,
    check_rules,
    known_rules,
    selected_rules,
)
from pytest_panic_doctor.examination.settings import Settings
from pytest_panic_doctor.rules.base import Rule


def from_database(settings: Settings, extra: Iterable[Rule] = (), workers: int = 0) -> Examination:
    """Make the controller's session; reads the database once. `workers` is the number of xdist workers, 0 without.

    Raises `Unreadable`, `BadOption` or `TooLarge`, each with one sentence.
    """
    rules = known_rules(settings, extra)
    database = Database(settings.database)
    database.check_readable()
    generation = database.generation or PYTHON
    check_repairs(settings, generation)
    check_rules(settings, rules, generation)
    settings = replace(settings, experiments=tuple(map(generation.id_of, settings.experiments)))
    space = memory_room(settings.memory)
    database.largest = space.value
    try:
        check_experiments(settings, database.read(manifests.experiment_ids) if settings.experiments else [])
        runs = database.read(lambda db: chosen_runs(db, settings.runs, settings.experiments)) if settings.runs else {}
        settings = replace(settings, runs=tuple(run for each in runs.values() for run in each))
        wanted = replace(settings, experiments=tuple(runs)) if runs else settings
        database.read(
            lambda db: check_items(db, wanted, selected_rules(settings, rules, generation.key), space, workers)
        )
        listed = database.read(lambda db: manifests.build_manifest(db, wanted.experiments, space))
        listed = listed.only(runs) if runs else listed
        problems = database.read(lambda db: check_tables(db, map(generation.real_name, LISTING_TABLES))).problems
        rows = database.read(lambda db: manifests.count_table_rows(db, [each.canonical for each in generation.tables]))
        origin = database.read(generation.describe)
    except sqlite3.DatabaseError as error:
        raise Unreadable(database.describe_error(error)) from error
    finally:
        database.close()
    deadline = time.time() + settings.budget if settings.budget else None
    doubt = ""
    if problems:
        text, is_unsupported = problems[0]
        state, what = ("cannot be checked", REMOVE) if is_unsupported else ("is damaged", remedy(text))
        doubt = f"items may be missing: what lists them {state} ({text}): {what}"
    file, repairable = database.identity, generation.repairs
    return Examination(
        *(settings, rules, listed, rows),
        workers=workers or 1,
        deadline=deadline,
        doubt=doubt,
        origin=origin,
        repairable=repairable,
        file=file,
    )
