"""What the pages show was run: their commands, in their order, print the lines that stand below them."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from pytest_runs import ALONE

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"^(?:\$ )?(pytest .*?)(?: {2,}#.*)?$")
VARIES = re.compile(
    r"\d{4}-\d\d-\d\d \d\d:\d\d|\d+(?:\.\d+)? (?:B|kB|MB|GB|s)\b|\b[0-9a-f]{8}(?:[0-9a-f]{8})?\b"
    r"|(?:(?<=  )| )(?=\d+(?:\.\d+)? k?B)|_+|=+"
)
"""Times, sizes, ids of sessions, and the lines around a title."""


def blocks(page: str) -> list[list[str]]:
    """The blocks of a page that show commands or output, as lines; `page` is its path from the root."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return [block.splitlines() for language, block in BLOCK.findall(text) if not language]


def commands(page: str) -> list[str]:
    """The commands of a page."""
    found = (COMMAND.match(line) for block in blocks(page) for line in block)
    return [match[1] for match in found if match]


def shown(page: str) -> list[str]:
    """The lines of output on a page."""
    lines = [line for block in blocks(page) for line in block]
    return [
        line for line in lines if not COMMAND.match(line) and not re.match(r"(…|python3|\.|pip|ray|journal b)", line)
    ]


def code(page: str) -> list[str]:
    """The blocks of Python on a page."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return [block for language, block in BLOCK.findall(text) if language == "python"]


def run(folder: Path, *every: str) -> str:
    """What commands print, one after another."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST")}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    environment["PYTEST_ADDOPTS"] = " ".join(ALONE)
    output = ""
    for command in every:
        done = subprocess.run(
            command, shell=True, cwd=folder, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode in (0, 1), command + done.stdout + done.stderr
        output += done.stdout
    return output


def plain(line: str) -> str:
    """A line without what differs between two runs."""
    return " ".join(VARIES.sub(" ", line).split())


def missing(page: str, output: str) -> list[str]:
    """The lines that a page shows and nothing printed."""
    printed = set(map(plain, output.splitlines()))
    return [line for line in shown(page) if plain(line) not in printed]


@pytest.fixture(scope="module")
def sick(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A folder with the demo, which the first command of the quickstart builds, and what it printed."""
    folder = tmp_path_factory.mktemp("sick")
    return folder, run(folder, commands("docs/quickstart.md")[0])


def test_the_readme(sick: tuple[Path, str]) -> None:
    assert missing("README.md", sick[1]) == []


def test_the_quickstart(tmp_path: Path, sick: tuple[Path, str]) -> None:
    folder, first = sick
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    build, *every = commands("docs/quickstart.md")
    assert build == "pytest --doctor-demo"
    assert len(every) >= 7
    printed = first
    for command in every:
        listed = re.findall(r"^next: .* --doctor-undo (\w{8})$", printed, re.MULTILINE)
        printed += run(tmp_path, command.replace("986aa663", listed[-1] if listed else ""))
    assert missing("docs/quickstart.md", printed) == []


def test_the_page_about_baselines(sick: tuple[Path, str]) -> None:
    folder, _ = sick
    assert missing("docs/how-to/baseline.md", run(folder, *commands("docs/how-to/baseline.md"))) == []


def test_the_page_about_shards(sick: tuple[Path, str]) -> None:
    folder, _ = sick
    every = [
        command.replace("x.sqlite", "doctor-demo/trajectory_data.sqlite")
        for command in commands("docs/how-to/shards.md")
    ]
    assert any("--doctor-merge 1.json 3.json" in command for command in every)
    assert missing("docs/how-to/shards.md", run(folder, *every)) == []


def test_the_rule_of_ones_own(tmp_path: Path, sick: tuple[Path, str]) -> None:
    shutil.copytree(sick[0], tmp_path, dirs_exist_ok=True)
    rule, *_, listener = code("docs/how-to/own-rule.md")
    (tmp_path / "conftest.py").write_text(f"{rule}\n\n{listener}", encoding="utf-8")
    printed = run(tmp_path, "pytest --doctor-db doctor-demo/trajectory_data.sqlite -m caption-length")
    assert "2 passed" in printed


@pytest.mark.parametrize("page", sorted((ROOT / "docs" / "how-to").glob("*.md")), ids=lambda page: page.stem)
def test_the_code_of_a_page_can_be_parsed(page: Path) -> None:
    for block in code(page.relative_to(ROOT).as_posix()):
        ast.parse(textwrap.dedent(block))


def test_a_line_that_nothing_prints_is_seen() -> None:
    output = "\n".join(shown("README.md"))
    assert missing("README.md", output) == []
    assert missing("README.md", output.replace("12 sick", "11 sick")) == ["31 rules: 19 healthy, 12 sick"]
