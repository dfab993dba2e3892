"""Commands, paths and counts, as a person reads and types them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_panic_doctor.database.schema import NOUNS
from pytest_panic_doctor.examination.manifest import item_name, rule_of
from pytest_panic_doctor.examination.options import selection_again
from pytest_panic_doctor.formatting import plural, typed
from pytest_panic_doctor.report.command_line import invoked_command

if TYPE_CHECKING:
    from pytest_panic_doctor.examination.examination import Examination
    from pytest_panic_doctor.examination.settings import Settings

FINDINGS_SHOWN = 20
IDS_SHOWN = 20
RUNS_SHOWN = 5
LABEL_WIDTH = 48


NOT_COUNTED = "rows not counted"


def looked_at(rows: Mapping[str, int]) -> str:
    """Describe what an item examined, e.g. `24 invocations, 2 runs`."""
    return ", ".join(plural(count, NOUNS.get(table, table)) for table, count in rows.items()) or NOT_COUNTED


def command(settings: Settings, *options: str, program: str = "") -> str:
    """Make a command line for the same database with other options; `program` is how pytest was called."""
    base = f"--doctor-db {display_path(settings.database)}"
    return " ".join((program or invoked_command(), base, *options))


def rerun_command(examination: Examination, *options: str, rules: Sequence[str] | None = None) -> str:
    """Make a command line for the same items, or those of `rules`, with other options."""
    settings = examination.settings if rules is None else replace(examination.settings, rules=tuple(rules))
    chosen = (*selection_again(settings), *chosen_words(examination, rules))
    return command(settings, *options, *chosen, program=examination.program)


def chosen_words(examination: Examination, rules: Sequence[str] | None) -> Iterator[str]:
    """Yield the user's selection by pytest's own options; if `rules` are given, only node ids of these rules."""
    words = iter(examination.chosen_by)
    for word in words:
        if word in ("-k", "-m", "--deselect"):
            yield word
            yield next(words)
        elif rules is None or "::" not in word or "--deselect=" in word or rule_of(item_name(word.strip("'"))) in rules:
            yield word


def display_path(path: Path) -> str:
    """Return a path as it is typed in the current folder."""
    relative = os.path.relpath(path)
    shown = min(relative, str(path), key=len)
    return typed(f"./{shown}" if shown.startswith("-") else shown)
