"""A session that is asked to end, at whatever moment: nothing is left behind, what was written is kept."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from databases import build
from kill_harness import sick
from pytest_runs import ALONE
from small_database import SmallDatabase

from pytest_panic_doctor.session.signals import TerminationSignals

pytestmark = pytest.mark.integration

PLUGIN = """
import os, signal
from pathlib import Path

def note():
    Path("there").write_text(str(os.getpid()))
    import time
    while os.environ.get("ENDS") == "wait" and os.getppid() != 1:
        time.sleep(0.05)

def pytest_doctor_rules():
    if os.environ["MOMENT"] == "before": note()
    return []

def pytest_doctor_outcome(item):
    if os.environ["MOMENT"] == "between" and item["rule"] == "orphan-embedding": note()

def pytest_doctor_embed(embedding_model, outputs):
    if os.environ["MOMENT"] == "repair": note()
"""


def begun(folder: Path, moment: str, *args: str) -> subprocess.Popen[str]:
    """A session that has come to this moment, and waits there."""
    (folder / "conftest.py").write_text(PLUGIN)
    (folder / "scratch").mkdir()
    here = {"MOMENT": moment, "ENDS": "wait", "TMPDIR": str(folder / "scratch")}
    environment = {key: value for key, value in os.environ.items() if key != "PYTEST_XDIST_WORKER"} | here
    process = subprocess.Popen(
        [sys.executable, "-m", "pytest", *ALONE, "-p", "no:cacheprovider", "--doctor-db=x.sqlite", *args],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    until(lambda: (folder / "there").exists() or process.poll() is not None)
    assert process.poll() is None, process.communicate()[0]
    return process


def until(done: Callable[[], bool]) -> None:
    """Wait for what comes soon."""
    end = time.monotonic() + 60
    while not done():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("moment", "number", "args"),
    [
        ("between", signal.SIGTERM, ("--doctor-fix",)),
        ("between", signal.SIGHUP, ("--doctor-fix", "-n2")),
        ("repair", signal.SIGTERM, ("--doctor-fix",)),
        pytest.param("between", signal.SIGTERM, ("--doctor-plan",), marks=pytest.mark.slow),
    ],
    ids=["plain", "n2", "in a hook", "plan"],
)
def test_nothing_is_left_and_what_was_written_is_kept(
    tmp_path: Path, moment: str, number: signal.Signals, args: tuple[str, ...]
) -> None:
    built = sick(tmp_path / "x.sqlite")
    with built.open() as db:
        db.execute("UPDATE embedding SET vector = NULL WHERE id = ?", (built.embedding(5, run=3),))
    small_database = SmallDatabase(built.path)
    original = small_database.dump()
    process = begun(tmp_path, moment, "--doctor-report=r.json", *args)
    family = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(number)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == pytest.ExitCode.INTERRUPTED, out
    assert "Traceback" not in out
    assert "INTERNALERROR" not in out
    assert not psutil.wait_procs(family, timeout=5)[1]
    assert [each.name for each in (tmp_path / "scratch").iterdir() if "panic-doctor" in each.name] == []
    assert (tmp_path / "r.json").exists()
    assert "not examined" in out
    small_database.check_nothing_lost(original)
    assert (small_database.dump() != original) == ("--doctor-fix" in args)


def test_ctrl_c_before_a_session_ends_in_a_line(tmp_path: Path) -> None:
    """From the moment on when the doctor is loaded: before it, Python and pytest are alone."""
    build(tmp_path / "x.sqlite")
    process = begun(tmp_path, "before", "--doctor-rules")
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    assert out.strip().splitlines()[-1] == "doctor: interrupted before anything began"
    assert "Traceback" not in out
    assert process.returncode != 0


def test_a_signal_that_is_ignored_stays_so() -> None:
    """As under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    ending = TerminationSignals()
    try:
        ending.listen()
        os.kill(os.getpid(), signal.SIGHUP)
        with pytest.raises(KeyboardInterrupt, match="SIGTERM"):
            os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
    finally:
        ending.stop()
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
        assert signal.signal(signal.SIGHUP, before) is signal.SIG_IGN


def test_handlers_of_others_stay() -> None:
    heard: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: heard.append(number))  # noqa: ARG005
    ending = TerminationSignals()
    try:
        ending.listen()
        os.kill(os.getpid(), signal.SIGTERM)
        assert heard == [signal.SIGTERM]
    finally:
        ending.stop()
        signal.signal(signal.SIGTERM, before)
