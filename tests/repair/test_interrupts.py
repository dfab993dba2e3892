"""Ctrl-C in the midst of a long statement: heard at once, wherever the doctor reads or repairs."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_panic_doctor.database import interrupts
from pytest_panic_doctor.database.connection import Database
from pytest_panic_doctor.database.subject import Rows, Subject
from pytest_panic_doctor.repair import Writer, preflight

if TYPE_CHECKING:
    from small_database import SmallDatabase

ENDLESS = (
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 500000000) SELECT {} FROM n WHERE i < 0"
)
"""A minute, so that a test that hears nothing fails."""
LONG = 20.0


def pressed(work: Callable[[], object]) -> float:
    """Seconds from a real SIGINT to the KeyboardInterrupt that it makes of `work`."""
    sent: list[float] = []

    def press() -> None:
        sent.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGINT)

    timer = threading.Timer(0.3, press)
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        work()
    timer.join()
    return time.monotonic() - sent[0]


def test_a_read_hears_it_and_the_next_read_is_as_before(small_database: SmallDatabase) -> None:
    with closing(Database(small_database.path)) as database:
        assert pressed(lambda: database.read(lambda db: db.execute(ENDLESS.format("i")).fetchall())) < LONG
        assert database.read(lambda db: db.execute("SELECT count(*) FROM run").fetchone()) == (4,)


def test_the_query_of_a_quarantine_hears_it_and_nothing_is_written(small_database: SmallDatabase) -> None:
    before = small_database.dump()
    endless = Rows("run", ENDLESS.format("'x' AS id"))
    with closing(Writer(small_database.path, "s", lambda: True)) as writer:
        assert pressed(lambda: writer.quarantine("r", Subject(), endless)) < LONG
        assert small_database.dump() == before
        assert writer.quarantine("r", Subject(), Rows("run", "SELECT id FROM run WHERE 0")) is None


def test_the_check_before_the_first_write_hears_it(
    small_database: SmallDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file is small, so the signal is raised where a real one would be let in."""

    def signalled() -> int:
        signal.raise_signal(signal.SIGINT)
        return 0

    monkeypatch.setattr(interrupts, "_continue", signalled)
    monkeypatch.setattr(interrupts, "STEPS_PER_CALL", 1)
    with pytest.raises(KeyboardInterrupt):
        preflight(small_database.path, 0)
    monkeypatch.undo()
    assert preflight(small_database.path, 0) == []


def test_other_errors_stay_what_they_are() -> None:
    absent = pytest.raises(sqlite3.OperationalError, match="no such table")
    with closing(sqlite3.connect(":memory:")) as db, absent, interrupts.reraise_interrupts():
        db.execute("SELECT 1 FROM absent")


def test_a_whole_examination_hears_it(pytester: pytest.Pytester, small_database: SmallDatabase, tmp_path: Path) -> None:
    pytester.makeconftest(
        "import pathlib, pytest_panic_doctor as d\n"
        "@d.rule('endless', scope=d.Scope.DATABASE, description='it ends')\n"
        "def endless(context):\n"
        f"    pathlib.Path({str(tmp_path / 'begun')!r}).touch()\n"
        f"    context.db.execute({ENDLESS.format('i')!r}).fetchall()\n"
        "    return ()\n"
        "def pytest_doctor_rules():\n"
        "    return [endless]\n"
    )
    command = [sys.executable, "-m", "pytest", f"--doctor-db={small_database.path}", "--doctor-rule=endless"]
    with subprocess.Popen(command, cwd=pytester.path, stdout=subprocess.PIPE, text=True) as process:
        try:
            deadline = time.monotonic() + 60
            while not (tmp_path / "begun").exists() and process.poll() is None and time.monotonic() < deadline:
                time.sleep(0.05)
            process.send_signal(signal.SIGINT)
            out, _ = process.communicate(timeout=LONG)
        finally:
            process.kill()
    assert process.returncode == pytest.ExitCode.INTERRUPTED, out
    assert "KeyboardInterrupt" in out
