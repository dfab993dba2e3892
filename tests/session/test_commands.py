"""Each command that is advised can be typed: by the program that was called, with what is there, quoted."""

from __future__ import annotations

import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from databases import Built, build
from defects import plant

from pytest_panic_doctor.examination.opening import from_database
from pytest_panic_doctor.examination.settings import Settings
from pytest_panic_doctor.formatting import typed
from pytest_panic_doctor.report import text
from pytest_panic_doctor.report.command_line import invoked_command

SCRIPT = Path(sys.executable).with_name("pytest")
MAIN = "/lib/pytest/__main__.py"


@pytest.mark.parametrize(
    ("script", "words", "expected"),
    [
        (MAIN, ["python", "-m", "pytest", "-q"], "python -m pytest"),
        (MAIN, [".venv/bin/python", "-mpytest"], ".venv/bin/python -m pytest"),
        (MAIN, ["python3.11", "-X", "dev", "-m", "pytest"], "python3.11 -X dev -m pytest"),
        (MAIN, ["/a b/python", "-m", "pytest", "-m", "x"], "'/a b/python' -m pytest"),
        (".venv/bin/pytest", [], ".venv/bin/pytest"),
        ("a b/pytest", [], "'a b/pytest'"),
        ("pytest", [], "./pytest"),
        ("/elsewhere/bin/py.test", [], "/elsewhere/bin/py.test"),
        ("/usr/lib/ide/runner.py", ["python", "runner.py"], "pytest"),
    ],
)
def test_the_way_that_pytest_was_called_is_kept(
    script: str, words: list[str], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    assert invoked_command(script, words) == expected


def test_what_the_path_finds_needs_no_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(SCRIPT.parent))
    assert invoked_command(str(SCRIPT), []) == "pytest"


@pytest.mark.parametrize(
    ("words", "rules", "kept"),
    [
        (["--deselect", "x.sqlite::schema"], ("orphan-run",), ["--deselect", "x.sqlite::schema"]),
        (["x.sqlite::schema", "x.sqlite::orphan-run"], ("orphan-run",), ["x.sqlite::orphan-run"]),
        (["'x y.sqlite::schema'", "'x y.sqlite::diagram-valid[A-B]'"], ("schema",), ["'x y.sqlite::schema'"]),
        (["'--deselect=-x.sqlite::schema'"], ("orphan-run",), ["'--deselect=-x.sqlite::schema'"]),
        (["-k", "a::b", "--lf"], ("schema",), ["-k", "a::b", "--lf"]),
        (["x.sqlite::schema", "x.sqlite::orphan-run"], None, ["x.sqlite::schema", "x.sqlite::orphan-run"]),
    ],
)
def test_of_the_selection_only_what_goes_together(
    tmp_path: Path, words: list[str], rules: tuple[str, ...] | None, kept: list[str]
) -> None:
    examination = replace(from_database(Settings(build(tmp_path / "x.sqlite").path)), chosen_by=words)
    assert list(text.chosen_words(examination, rules)) == kept


def test_deep_rules_are_asked_for_again(tmp_path: Path) -> None:
    examination = from_database(Settings(build(tmp_path / "x.sqlite").path, deep=True))
    assert text.rerun_command(examination, "--doctor-fix").endswith("--doctor-fix --doctor-deep")


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("-dash.sqlite", ["--deselect=-dash.sqlite::schema"]),
        ("a b.sqlite", ["a b.sqlite::diagram-missing", "a b.sqlite::orphan-embedding", "a b.sqlite::schema"]),
    ],
)
def test_what_is_advised_can_be_typed(pytester: pytest.Pytester, name: str, args: list[str]) -> None:
    built: Built = build(pytester.path / name)
    plant(built, "diagram_null", "embedding_of_lost_invocation")
    # As a user types it, in a shell.
    words = [str(SCRIPT), f"--doctor-db={name}", "-p", "no:xdist", *args]
    done = shell(" ".join(map(typed, words)))
    planned = shell(next_of(done))
    command = next_of(planned)
    assert shlex.split(command)[0].endswith("pytest")
    assert "-n 2" not in command
    fixed = shell(f"{command} -p no:xdist")
    assert fixed.returncode == 0, fixed.stdout + fixed.stderr
    (line,) = [each for each in fixed.stdout.splitlines() if each.startswith("undo: ")]
    listed = shell(line.removeprefix("undo: "))
    assert listed.returncode == 0, listed.stderr
    assert shell(listed.stdout.splitlines()[-2].removeprefix("next: ")).returncode == 0


def next_of(done: subprocess.CompletedProcess[str]) -> str:
    """The last command that a session advises."""
    lines = [each for each in done.stdout.splitlines() if each.startswith("next: ")]
    return lines[-1].removeprefix("next: ")


def shell(command: str) -> subprocess.CompletedProcess[str]:
    """What a command comes to that is typed."""
    return subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
