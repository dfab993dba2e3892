"""What lasts longer than three seconds says what it is doing, how far it is, and how long it will take."""

from __future__ import annotations

import io
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from databases import Built, build
from pytest_runs import ALONE

from pytest_panic_doctor.compute.ledger import Lease, ProcessIdentity
from pytest_panic_doctor.database import progress as progress_module
from pytest_panic_doctor.database.integrity import Problem, check_file
from pytest_panic_doctor.database.progress import count_done, pages_read, progress_to
from pytest_panic_doctor.database.readahead import ReadAhead
from pytest_panic_doctor.examination.settings import Settings
from pytest_panic_doctor.repair.controller import RepairController
from pytest_panic_doctor.report.activity import Activity, ItemActivity, activity_line, activity_notes
from pytest_panic_doctor.report.progress import Forecast, columns_done, status_line


class Terminal(io.StringIO):
    """A stream that is a terminal."""

    def isatty(self) -> bool:
        return True


class Clock:
    """A time that a test sets."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


class Recorder(progress_module.Receiver):
    """Records what it receives."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, float, float]] = []

    def take(self, what: str, done: float, of: float, *, sizes: bool) -> None:
        del sizes
        self.seen.append((what, done, of))


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress_module, "SAMPLE_EVERY", 0.001)


@pytest.mark.parametrize(
    ("done", "of", "seconds", "sizes", "line"),
    [
        (2.1e9, 6.5e9, 40, True, "copying: 2.1 GB of 6.5 GB, 32 %, 84 s left"),
        (30, 40, 6, False, "copying: 30 of 40, 75 %, 2 s left"),
        (0, 40, 6, False, "copying: 0 of 40, 0 %"),
        (41, 40, 6, False, "copying: 40 of 40, 100 %"),
        (5e6, 0, 12, True, "copying: 5.0 MB, 12 s so far"),
    ],
)
def test_a_line_has_how_far_and_how_long(done: float, of: float, seconds: float, sizes: bool, line: str) -> None:
    assert activity_line("copying", done, of, seconds, sizes=sizes) == line


def test_a_step_is_silent_for_three_seconds_and_then_says_it_once_a_minute() -> None:
    stream, clock = io.StringIO(), Clock()
    with Activity(stream, clock=clock) as activity:
        for second in range(0, 70, 2):
            clock.now = 100 + second
            activity.count("copying", second, 70)
        clock.now = 171
        activity.count("renaming", 0, 1)
    assert stream.getvalue().splitlines() == [
        "doctor: copying: 4 of 70, 6 %, 66 s left",
        "doctor: copying: 64 of 70, 91 %, 6 s left",
    ]


def test_on_a_terminal_one_line_is_written_again_and_cleared() -> None:
    stream, clock = Terminal(), Clock()
    with Activity(stream, clock=clock) as activity:
        for second in (0, 4, 4.1, 5):
            clock.now = 100 + second
            activity.report("copying", second * 1e6, 10e6)
    lines = [line.strip() for line in stream.getvalue().split("\r") if line.strip()]
    assert lines == [
        "doctor: copying: 4.0 MB of 10 MB, 40 %, 6 s left",
        "doctor: copying: 5.0 MB of 10 MB, 50 %, 5 s left",
    ]
    assert stream.getvalue().endswith("\r")
    quiet = Terminal()
    with Activity(quiet, quiet=True, clock=clock) as activity:
        clock.now += 60
        activity.report("copying", 1, 2)
    assert quiet.getvalue() == ""


def test_the_check_of_a_file_reports_its_pages_and_then_the_comparison(tmp_path: Path) -> None:
    path = tmp_path / "x.sqlite"
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE t (a PRIMARY KEY, b)")
        rows = ((f"{number * 7919 % 40_000:032x}", "x" * 400) for number in range(40_000))
        db.executemany("INSERT INTO t VALUES (?, ?)", rows)
        db.commit()
        db.execute("PRAGMA cache_size = 10")
        recorder = Recorder()
        with progress_to(recorder):
            assert check_file(db).problems == ()
        check_file(db)
    size = path.stat().st_size
    assert {what for what, _, _ in recorder.seen} == {"checking every page", "comparing rows with indexes"}
    pages = [(done, of) for what, done, of in recorder.seen if what == "checking every page"]
    assert all(done < of == size for done, of in pages)
    assert [done for done, _ in pages] == sorted(done for done, _ in pages)


def test_a_step_reports_to_whoever_shows_it_and_to_nobody_otherwise(tmp_path: Path) -> None:
    recorder = Recorder()
    count_done("a", 0, 2)
    with progress_to(recorder):
        count_done("b", 1, 2)
    with pages_read("x", "y", 10):
        (tmp_path / "x").write_text("x")
    count_done("c", 2, 2)
    assert recorder.seen == [("b", 1, 2)]


def test_before_the_first_write_the_check_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built = build(tmp_path / "x.sqlite")
    recorder = Recorder()

    def slow(db: sqlite3.Connection, pragma: str) -> list[Problem]:
        db.execute(pragma).fetchall()
        time.sleep(0.05)
        return []

    monkeypatch.setattr("pytest_panic_doctor.database.integrity.run_check", slow)
    with progress_to(recorder):
        controller = RepairController(Settings(built.path, fix=True))
    controller.close()
    assert recorder.seen


def test_the_note_of_an_item_says_its_step(tmp_path: Path) -> None:
    clock = Clock()
    activity = ItemActivity(tmp_path, clock)
    activity.begin("embedding-vector[x-Nomic]")
    activity.count("reading vectors, by runs", 0, 8)
    clock.now += 2.9
    assert activity.note() == ""
    clock.now += 1.1
    assert activity.note() == "embedding-vector[x-Nomic]: reading vectors, by runs: 0 of 8, 0 %"
    activity.count("reading vectors, by runs", 2, 8)
    assert activity.note() == "embedding-vector[x-Nomic]: reading vectors, by runs: 2 of 8, 25 %, 12 s left"
    activity.begin("schema")
    clock.now += 5
    assert activity.note() == "schema: 5 s so far"
    activity.begin("")
    clock.now += 5
    assert activity.note() == ""


def test_notes_are_written_while_an_item_lasts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pytest_panic_doctor.report.activity.NOTE_EVERY", 0.01)
    monkeypatch.setattr("pytest_panic_doctor.report.activity.SILENT_FOR", 0.0)
    activity = ItemActivity(tmp_path)
    activity.start()
    activity.begin("schema")
    wait_for(lambda: activity_notes(tmp_path) == ["schema: 1 s so far"])
    activity.begin("")
    wait_for(lambda: activity_notes(tmp_path) == [])
    activity.begin("schema")
    wait_for(lambda: activity_notes(tmp_path) != [])
    activity.stop()
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def wait_for(condition: object) -> None:
    """Wait until a condition holds."""
    assert callable(condition)
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


SLOW = """
import time

import pytest_panic_doctor.report.activity as item_activity
import pytest_panic_doctor.report.progress as progress
from pytest_panic_doctor import Scope, rule
from pytest_panic_doctor.database.progress import count_done

item_activity.SILENT_FOR = 0.0
item_activity.NOTE_EVERY = 0.02
progress.PLAIN_EVERY = 0.05


@rule("slow", scope=Scope.DATABASE, description="it takes its time")
def slow(context):
    count_done("thinking", 1, 4)
    time.sleep(1.5)
    return
    yield


def pytest_doctor_rules():
    return [slow]
"""


@pytest.mark.parametrize("mode", [(), ("-n", "1")], ids=["plain", "n1"])
def test_a_session_that_only_examines_shows_it_too(pytester: pytest.Pytester, mode: tuple[str, ...]) -> None:
    pytester.makeconftest(SLOW)
    built: Built = build(pytester.path / "x.sqlite")
    words = ("--doctor-db", built.path.name, "--doctor-rule=slow", *mode, *ALONE)
    result = pytester.runpytest_subprocess(*words, timeout=120)
    assert result.ret == 0
    result.stdout.fnmatch_lines(["doctor: slow: thinking: 1 of 4, 25 %*"])


def test_how_far_a_diagram_is_comes_from_the_engine() -> None:
    assert columns_done("H2, column 1,204 of 1,862") == " H2 65 % of 1,862 columns"
    assert columns_done("the links, edge 10 of 40") == " the links 25 % of 40 edges"
    assert columns_done("") == ""
    held = Lease(ProcessIdentity(1, 0.0), 1, 2, 5, "x", 2423, 100.0, "H0 to H2", "H1, column 5 of 10", 412_000_000)
    assert status_line([held], [], 0, 3, None, 160.0, 200) == (
        "doctor: 0 of 3 diagrams | 2,423 points 60 s 412 MB H1 50 % of 10 columns"
    )
    assert status_line([], ["reading ahead: 1 of 2"], 0, 0, None, 1.0, 200) == "doctor: reading ahead: 1 of 2"


def test_the_time_left_weighs_diagrams_by_their_forecast() -> None:
    ahead = Forecast(4, 100, 10.0, 20.0, 1, each=(6.0, 2.0, 1.0, 1.0))
    assert [ahead.left(done) for done in (1, 2, 4)] == [pytest.approx(4 / 6), 0.25, 0.0]
    assert Forecast(4, 100, 10.0, 20.0, 1).left(1) == 3.0


@pytest.fixture
def sparse(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "large"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    yield path
    path.unlink()


def test_reading_ahead_says_how_far_it_is(sparse: Path) -> None:
    if not Path("/proc/self/io").exists():
        pytest.skip("this system has no /proc")
    ahead = ReadAhead(sparse, 1 << 42)
    assert ahead.progress() is None
    ahead.start()
    try:
        wait_for(lambda: (ahead.progress() or (0, 0, 0))[0] > 1_000_000)
        done, size, seconds = ahead.progress() or (0, 0, 0.0)
        assert done < size == 1 << 40
        assert seconds > 0
    finally:
        ahead.stop()
    assert ahead.progress() is None
