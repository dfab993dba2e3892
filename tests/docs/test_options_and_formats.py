"""The reference says what the code says: every option, key, status and file format, and no other."""

from __future__ import annotations

import re
import sqlite3
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest

from pytest_panic_doctor.examination.acceptance import FORMAT, Comparison
from pytest_panic_doctor.examination.examination import Examination
from pytest_panic_doctor.examination.manifest import Manifest
from pytest_panic_doctor.examination.options import OPTIONS, Option
from pytest_panic_doctor.examination.outcome import Outcome, from_plain, to_plain
from pytest_panic_doctor.examination.settings import Settings
from pytest_panic_doctor.repair.journal.journal_schema import SCHEMA_VERSION, make
from pytest_panic_doctor.report.results import VERDICT_ORDER, WORST_FIRST, Results, json_head
from pytest_panic_doctor.rules import registry
from pytest_panic_doctor.rules.base import Finding

REFERENCE = Path(__file__).parents[2] / "docs" / "reference"
OPTIONS_PAGE = (REFERENCE / "options.md").read_text(encoding="utf-8")
REPORTS = (REFERENCE / "reports.md").read_text(encoding="utf-8")
FILES = (REFERENCE / "files.md").read_text(encoding="utf-8")


def cells(page: str) -> list[str]:
    """What stands in backticks in the first column of a page's tables."""
    first = [line.split(" | ")[0] for line in page.splitlines() if line.startswith("| ")]
    return [name for cell in first for name in re.findall(r"`([^`]+)`", cell)]


@pytest.mark.parametrize("option", [each for each in OPTIONS if not each.ini_only], ids=lambda option: option.name)
def test_every_option_has_its_row_and_its_ini_key(option: Option) -> None:
    assert re.search(rf"^\| `{option.flag}( [^`]*)?` \| `{option.key}` \| \S.*\w", OPTIONS_PAGE, re.MULTILINE)


@pytest.mark.parametrize("key", [each.key for each in OPTIONS if each.ini_only])
def test_every_ini_key_without_an_option_has_its_row(key: str) -> None:
    assert re.search(rf"^\| `{key}` \| \S.* \| .*\w", OPTIONS_PAGE, re.MULTILINE)


def test_no_row_is_of_an_option_that_is_gone() -> None:
    named = {cell.split()[0] for cell in cells(OPTIONS_PAGE)}
    assert named == {option.flag for option in OPTIONS}


def test_the_keys_that_ask_for_an_examination_are_named() -> None:
    sentence = next(line for line in OPTIONS_PAGE.splitlines() if line.startswith("The ini keys "))
    named = sentence.partition(" make a plain ")[0]
    assert set(re.findall(r"`(doctor_\w+)`", named)) == {option.key for option in OPTIONS if option.asks}


def test_every_key_of_an_item_in_the_json_report_is_named() -> None:
    found = (Finding("rule", "message"),)
    outcome = Outcome("fixed", found, "x", ("x",), {"x": 1}, found, "severity", True, {"x": 1}, "x")
    full = from_plain("x", 1.0, to_plain("rule", outcome))
    assert set(full.as_dict()) | set(Finding("rule", "message", blocked_by=("x",)).as_dict()) <= set(cells(REPORTS))


def test_every_key_of_the_head_of_the_json_report_is_named() -> None:
    results = Results(
        compared=Comparison(),
        itemless=["schema"],
        unsampled=["schema"],
        listener_errors=Counter({"x": 1}),
        doubts=["x"],
    )
    plain = json_head(Examination(Settings(Path("x.sqlite")), registry(), Manifest(()), {}, origin="x"), results)
    assert (
        {"generation", "doubts", "without_items", "outside_sample", "notes", "baseline"}
        <= set(plain)
        <= set(cells(REPORTS))
    )
    row = next(each for each in REPORTS.splitlines() if each.startswith("| `baseline` |"))
    assert set(Comparison().as_plain()) <= set(re.findall(r"`([^`]+)`", row))


def test_every_outcome_and_verdict_is_named() -> None:
    for line, names in (("totals", WORST_FIRST), ("rules", VERDICT_ORDER)):
        row = next(each for each in REPORTS.splitlines() if each.startswith(f"| `{line}` |"))
        assert set(names) <= set(re.findall(r"`([^`]+)`", row))


def test_the_format_of_a_baseline_is_the_one_that_is_shown() -> None:
    assert f'{{"doctor_baseline": {FORMAT},' in REPORTS


def test_every_table_of_a_journal_is_named() -> None:
    with closing(sqlite3.connect(":memory:")) as journal:
        make(journal, "x.sqlite")
        tables = {name for (name,) in journal.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    assert tables <= set(cells(FILES))
    assert f"(now {SCHEMA_VERSION})" in FILES
