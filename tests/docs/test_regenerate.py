"""The guide to runs that only the research tool can make anew: its output and its configuration are real."""

from __future__ import annotations

import json
import re
from pathlib import Path

from pytest_panic_doctor.database.python_generation import PYTHON

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "how-to" / "regenerate.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w*)\n(.*?)```", PAGE, re.DOTALL)


def test_what_it_shows_is_what_the_terminal_shows() -> None:
    golden = (ROOT / "tests" / "session" / "golden" / "terminal.txt").read_text(encoding="utf-8").splitlines()
    shown = BLOCKS[0][1].splitlines()
    assert len(shown) == 5
    assert [line for line in shown if line not in golden] == []


def test_its_configuration_is_an_experiments() -> None:
    """The keys are the columns that the research tool reads from the file; it writes the others itself."""
    (example,) = [json.loads(text) for language, text in BLOCKS if language == "json"]
    table = PYTHON.table("experimentconfig")
    assert table is not None
    assert set(example) == {column.name for column in table.columns} - {"id", "started_at", "completed_at"}


def test_its_command_is_the_one_that_is_shown() -> None:
    assert f"\n{PYTHON.commands['regenerate'].format(database='x.sqlite')}\n```" in PAGE
