"""Reading ahead: only if worthwhile, the complete file, and ended with its parent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from databases import build, webp

from pytest_panic_doctor.database import readahead
from pytest_panic_doctor.database.readahead import LEAST_FILE, PART_OF_FREE, ReadAhead

pytestmark = pytest.mark.integration


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """A sparse file just large enough."""
    path = tmp_path / "x.sqlite"
    with path.open("wb") as file:
        file.truncate(LEAST_FILE)
    return path


def test_only_a_file_that_is_large_and_fits_is_wanted(large: Path, tmp_path: Path) -> None:
    room = int(LEAST_FILE / PART_OF_FREE)
    assert ReadAhead(large, room).is_worthwhile()
    assert not ReadAhead(large, room - 2).is_worthwhile()
    os.truncate(large, LEAST_FILE - 1)
    assert not ReadAhead(large, room).is_worthwhile()
    assert not ReadAhead(tmp_path / "gone.sqlite", room).is_worthwhile()


def test_it_reads_the_whole_file_and_ends(large: Path) -> None:
    # The kernel still reports what a zombie has read.
    process = subprocess.Popen([sys.executable, "-I", "-S", "-c", readahead.READER, str(large)])
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    asked = int(Path(f"/proc/{process.pid}/io").read_text().split()[1])
    assert process.wait() == 0
    assert LEAST_FILE <= asked < 1.5 * LEAST_FILE


def test_a_file_that_is_gone_or_cannot_be_read_is_no_error(tmp_path: Path) -> None:
    command = [sys.executable, "-I", "-S", "-c", readahead.READER]
    for path in (tmp_path, tmp_path / "gone"):
        done = subprocess.run([*command, str(path)], capture_output=True, check=False)
        assert (done.returncode, done.stderr) == (0, b"")


def test_stopping_ends_it_and_twice_does_no_harm(large: Path) -> None:
    os.truncate(large, 1 << 40)
    ahead = ReadAhead(large, 1 << 50)
    before = set(psutil.Process().children())
    ahead.start()
    (reader,) = set(psutil.Process().children()) - before
    ahead.stop()
    ahead.stop()
    assert not reader.is_running()


def test_it_does_not_outlive_a_killed_parent(large: Path) -> None:
    os.truncate(large, 1 << 40)
    code = (
        "import pathlib, sys, time; from pytest_panic_doctor.database.readahead import ReadAhead; "
        "ReadAhead(pathlib.Path(sys.argv[1]), 1 << 50).start(); print('begun', flush=True); time.sleep(60)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code, str(large)], stdout=subprocess.PIPE)
    assert parent.stdout is not None
    parent.stdout.readline()
    (child,) = psutil.Process(parent.pid).children()
    while READS not in " ".join(child.cmdline()):
        time.sleep(0.01)
    time.sleep(0.2)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    gone, alive = psutil.wait_procs([child], timeout=20)
    assert gone
    assert not alive


READS = "readinto"

CONFTEST = """
from pytest_panic_doctor.database.readahead import ReadAhead

start, begun = ReadAhead.start, []


def watched(ahead):
    start(ahead)
    begun.append(ahead._process is not None)


ReadAhead.start = watched


def pytest_sessionstart(session):
    print("AHEAD", any(begun))
"""


@pytest.mark.parametrize(
    ("args", "begun"),
    [
        ((), True),
        (("-n2",), True),
        (("--doctor-rule=schema",), False),
        (("--doctor-rule=schema", "--doctor-fix"), True),
        (("--collect-only",), False),
        (("--collect-only", "--doctor-fix"), False),
    ],
    ids=["plain", "n2", "one-rule", "check-before-a-repair", "collect-only", "collect-only-fix"],
)
def test_a_session_reads_ahead_where_a_rule_reads_every_page(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, args: tuple[str, ...], begun: bool
) -> None:
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)
    built = build(pytester.path / "x.sqlite")
    with built.open() as db:
        image = "UPDATE invocation SET output_image_data = ? WHERE id = ?"
        db.execute(image, (webp(bytes(LEAST_FILE)), built.invocation(0)))
    pytester.makeconftest(CONFTEST)
    run = pytester.runpytest_subprocess("--doctor-db=x.sqlite", "x.sqlite", *args, "-s", timeout=120)
    assert run.ret == 0
    run.stdout.fnmatch_lines([f"*AHEAD {begun}"])
