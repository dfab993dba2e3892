"""What is said while something is computed or quarantined."""

from __future__ import annotations

import io
import os
import time
from pathlib import Path

import pytest

from pytest_panic_doctor.compute.ledger import Lease, ProcessIdentity
from pytest_panic_doctor.formatting import format_duration, format_duration_exact
from pytest_panic_doctor.repair.controller import RepairRun
from pytest_panic_doctor.report.progress import Forecast, Progress, forecast_line, status_line

HELD = Lease(
    owner=ProcessIdentity(1, 0.0),
    ticket=1,
    child=2,
    grant=500_000_000,
    label="run model",
    points=2423,
    since=100.0,
    resident=412_000_000,
)


def test_the_announcement() -> None:
    said = forecast_line(Forecast(38, 61_200, seconds=4800, seconds_high=14_400, workers=2))
    assert said == "38 diagrams to compute, 61,200 points, about 40 min on 2 workers (up to 2 h)"


def test_the_announcement_names_the_cluster() -> None:
    cluster = "a Ray cluster of 3 nodes, 6 cores"
    said = forecast_line(Forecast(38, 61_200, seconds=14_400, seconds_high=43_200, workers=6, cluster=cluster))
    assert (
        said == "38 diagrams to compute, 61,200 points, about 40 min on a Ray cluster of 3 nodes, 6 cores (up to 2 h)"
    )


def test_the_line_fits_the_terminal() -> None:
    said = status_line([HELD], ["orphan-run: 10 of 99 rows quarantined"], 3, 38, 2280.0, 412.0, 200)
    assert said == (
        "doctor: 3 of 38 diagrams, 38 min left | orphan-run: 10 of 99 rows quarantined | 2,423 points 5 min 412 MB"
    )
    assert len(status_line([HELD] * 9, [], 3, 38, None, 412.0, 80)) == 80


def test_more_than_was_counted_is_never_a_smaller_total() -> None:
    """Invalid and stale diagrams are found on the way."""
    assert status_line([], [], 2, 2, 0.0, 412.0, 200) == "doctor: 2 of 2 diagrams"
    assert status_line([HELD], [], 2, 2, 9.0, 412.0, 200).startswith("doctor: 2 of at least 3 diagrams | ")
    assert status_line([], [], 4, 2, 9.0, 412.0, 200) == "doctor: 4 of at least 4 diagrams"


def test_times_as_a_person_says_them() -> None:
    assert [format_duration(seconds) for seconds in (0.2, 8, 89, 2400, 10_000)] == [
        "1 s",
        "8 s",
        "89 s",
        "40 min",
        "3 h",
    ]


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.05, "0.05 s"), (2, "2 s"), (90, "1 min 30 s"), (1200, "20 min"), (5400, "1 h 30 min"), (7200, "2 h")],
)
def test_a_time_that_was_given_is_said_as_it_is(seconds: float, said: str) -> None:
    assert format_duration_exact(seconds) == said


def test_a_terminal_gets_its_last_row_back() -> None:
    stream = io.StringIO()
    ahead = Forecast(1, 2423, 60.0, 120.0, 1)
    with Progress(stream, print, lambda: [HELD], lambda: 0, list, lambda: ahead):
        deadline = time.monotonic() + 10
        while "2,423 points" not in stream.getvalue() and time.monotonic() < deadline:
            time.sleep(0.05)
    assert "2,423 points" in stream.getvalue()
    assert stream.getvalue().endswith("\x1b[r\x1b8")


def test_notes_of_a_quarantine_come_and_go(tmp_path: Path) -> None:
    repair_run = RepairRun("session", tmp_path, 1, os.getpid())
    repair_run.report_progress("orphan-embedding", 2_000, 100_000)
    assert repair_run.progress_notes() == ["orphan-embedding: 2,000 of 100,000 rows quarantined"]
    repair_run.report_progress("orphan-embedding", 100_000, 100_000)
    assert repair_run.progress_notes() == []
