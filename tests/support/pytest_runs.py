"""What tests of the plugin read from a run."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import pytest

Doctor = Callable[..., pytest.RunResult]

BESIDE = (
    "html",
    "html_fixtures",
    "metadata",
    "pytest_cov",
    "pytest_jsonreport",
    "pytest_reportlog",
    "randomly",
    "rerunfailures",
    "sugar",
    "timeout",
)
"""Installed for the tests beside them, by the names of their entry points; in no other run, unless named with `-p`."""

ALONE = tuple(f"-pno:{name}" for name in (*BESIDE, "hypothesispytest"))
"""Arguments of a run without them; a `-p` that comes later wins. Hypothesis's takes a third of a short run."""


def run_pytest(pytester: pytest.Pytester, *args: object, process: bool = False) -> pytest.RunResult:
    """Run pytest in this process, which saves the start of one; a run with xdist's workers gets one of its own.

    `process` is for runs that change what others import, ask what is imported, or read PYTHONPATH.
    """
    words = list(map(str, args))
    if process or has_workers(words):
        return pytester.runpytest_subprocess(*words, timeout=120)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [str(Path(pytest.__file__).with_name("__main__.py")), *words])
        patch.setattr(sys, "orig_argv", [sys.executable, "-m", "pytest", *words])
        return pytester.runpytest_inprocess(*words, syspathinsert=True, no_reraise_ctrlc=True)


def has_workers(words: Sequence[str]) -> bool:
    """Whether a command line asks for workers of xdist: they do not import what only this process finds."""
    values = [after for word, after in pairwise(words) if word in ("-n", "--numprocesses")]
    values += [word.removeprefix("-n") for word in words if word.startswith("-n")]
    return any(value not in ("", "0") for value in values) or any(word.startswith("--tx") for word in words)


def on_one_line(result: pytest.RunResult) -> str:
    """What a run printed, as one line: a terminal of 80 columns wraps long sentences."""
    return " ".join(result.stdout.str().split())


def items(path: Path) -> dict[str, Mapping[str, object]]:
    """The items of a JSON report, by name."""
    report = json.loads(path.read_text())
    return {item["nodeid"].split("::", 1)[1]: item for item in report["items"]}


def findings(item: Mapping[str, object]) -> list[Mapping[str, object]]:
    """The findings of an item of a JSON report."""
    found = item["findings"]
    assert isinstance(found, list)
    return found


def outcomes(path: Path) -> dict[str, str]:
    """What became of each item."""
    return {name: str(item["outcome"]) for name, item in items(path).items()}


CTRL_C = """
import os, signal

def pytest_doctor_outcome(item):
    os.kill(os.getpid(), signal.SIGINT)

"""
"""A conftest.py that interrupts the session, as a user does, when its first item has ended."""
