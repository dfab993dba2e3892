"""`--doctor-report x.html` in real pytest runs: the same verdicts as in every other report, with and without xdist."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from contextlib import suppress

import pytest
from databases import RULES, Built, build
from html_payload import data_of
from pytest_runs import run_pytest


@pytest.fixture
def sick(pytester: pytest.Pytester) -> Built:
    """A diagram is NULL, one is torn, and an embedding of a lost invocation lies about."""
    built = build(pytester.path / "x.sqlite")
    with built.open() as db:
        db.execute("UPDATE persistencediagram SET diagram_data = NULL WHERE id = ?", (built.diagram(),))
        db.execute(
            "UPDATE persistencediagram SET diagram_data = x'00' WHERE id = ?", (built.diagram("NomicVision", 1),)
        )
        db.execute("UPDATE embedding SET invocation_id = ? WHERE id = ?", ("e" * 32, built.embedding(5)))
    return built


@pytest.mark.parametrize("more", [(), ("-n", "2")], ids=["plain", "n2"])
@pytest.mark.parametrize("mode", [(), ("--doctor-plan",), ("--doctor-fix",)], ids=["examine", "plan", "fix"])
def test_page_and_json_agree(
    pytester: pytest.Pytester, sick: Built, more: tuple[str, ...], mode: tuple[str, ...]
) -> None:
    reports = ("--doctor-report=r.json", "--doctor-report=r.html")
    run_pytest(pytester, "--doctor-db", sick.path, *reports, *mode, *more)
    data = data_of(pytester.path / "r.html")
    told = json.loads((pytester.path / "r.json").read_text())
    verdicts = {rule["id"]: rule["verdict"] for rule in data["rules"]}
    assert len(verdicts) == RULES
    assert {word: list(verdicts.values()).count(word) for word in told["doctor"]["rules"]} == told["doctor"]["rules"]
    outcomes = [rule["outcomes"] for rule in data["rules"]]
    assert {word: sum(each[word] for each in outcomes) for word in told["doctor"]["totals"]} == told["doctor"]["totals"]
    letters = "".join(data["states"].values())
    assert "." not in letters
    assert letters.count("s") == told["doctor"]["totals"]["failed"]
    assert letters.count("f") == told["doctor"]["totals"]["fixed"]
    before = {shot["problem"] for each in data["diagrams"] for shot in each["shots"] if shot["what"] == "before"}
    assert before == ({"it is damaged: File is not a zip file"} if mode == ("--doctor-fix",) else set())
    assert data["mode"] == (mode or ("--doctor-examine",))[0].removeprefix("--doctor-")


def test_without_jinja_nothing_is_examined(pytester: pytest.Pytester, sick: Built) -> None:
    pytester.makeconftest("import sys\nsys.modules['jinja2'] = None")
    run = run_pytest(pytester, "--doctor-db", sick.path, "--doctor-report=r.html")
    assert run.ret == pytest.ExitCode.USAGE_ERROR
    run.stderr.fnmatch_lines(
        ["*r.html needs Jinja2, which is not installed: pip install '.[[]html[]]' in the doctor's checkout"]
    )
    assert "Traceback" not in run.stderr.str()
    assert not (pytester.path / "r.html").exists()


@pytest.mark.parametrize("more", [[], ["-n2"]], ids=" ".join)
def test_who_waits_at_a_terminal_is_told(pytester: pytest.Pytester, more: list[str]) -> None:
    build(pytester.path / "x.sqlite")
    command = [sys.executable, "-m", "pytest", "--doctor-db=x.sqlite", "--doctor-report=r.html", *more]
    leader, follower = pty.openpty()
    with subprocess.Popen(command, cwd=pytester.path, stdin=follower, stdout=follower, stderr=follower) as process:
        os.close(follower)
        shown = b""
        with suppress(OSError):
            while piece := os.read(leader, 65536):
                shown += piece
    os.close(leader)
    assert process.returncode == 0
    assert "\r\nwriting r.html …\r\n" in shown.decode()
    piped = subprocess.run(command, cwd=pytester.path, capture_output=True, text=True, check=True)
    assert "writing" not in piped.stdout
