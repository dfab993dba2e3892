"""CONTRIBUTING sends a reader to files that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
TABLE = TEXT.split("## Where a change goes")[1].split("\n## ")[0]
NAMED = sorted(set(re.findall(r"`([\w./-]+(?:\.py|\.md|/))`", TABLE)))
FOLDERS = re.findall(r"^  (?:  )?(\w+(?:/|\.py))\s", TEXT, re.MULTILINE)


@pytest.mark.parametrize("name", NAMED)
def test_every_file_that_is_named_exists(name: str) -> None:
    assert (ROOT / "pytest_panic_doctor" / name).exists() or (ROOT / name).exists()


def test_ten_changes_have_their_place() -> None:
    assert len([line for line in TABLE.splitlines() if line.startswith("| ")]) == 1 + 10
    assert len(NAMED) > 10


def test_every_folder_and_file_at_the_root_is_explained() -> None:
    there = {
        f"{path.name}/" if path.is_dir() else path.name
        for path in (ROOT / "pytest_panic_doctor").iterdir()
        if path.is_dir() or path.suffix == ".py"
    }
    assert there - {"__pycache__/", "__init__.py"} <= set(FOLDERS)
