"""Times joined by SQLite are valid for the doctor exactly if Python reads each of them."""

from __future__ import annotations

import re
import sqlite3
from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_panic_doctor.database.timestamps import are_plain, is_no_time, joined

FORMAT = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{6}", re.ASCII)
VALID = st.datetimes().map(lambda time: time.isoformat(" ", "microseconds"))


@st.composite
def changed(draw: st.DrawFn) -> str:
    """A valid time of which one character is replaced, left out or doubled."""
    time: str = draw(VALID)
    place = draw(st.integers(0, len(time) - 1))
    other: str = draw(st.sampled_from(["", *"0123459-:. xT\0é", time[place] * 2]))
    return time[:place] + other + time[place + 1 :]


def is_read(time: str | None) -> bool:
    """Whether a text has the format of the research tool, and Python reads it."""
    if time is None or not FORMAT.fullmatch(time):
        return False
    try:
        datetime.fromisoformat(time)
    except ValueError:
        return False
    return True


@given(st.lists(st.tuples(*[st.one_of(VALID, VALID, changed(), st.none())] * 2), max_size=6))
def test_joined_times_are_plain_if_python_reads_each(rows: list[tuple[str | None, str | None]]) -> None:
    """Whatever stands in the columns."""
    db = sqlite3.connect(":memory:")
    db.execute("CREATE TABLE t (a DATETIME, b DATETIME)")
    db.executemany("INSERT INTO t VALUES (?, ?)", rows)
    ((count, times),) = db.execute(f"SELECT count(*), {joined('a', 'b')} FROM t").fetchall()
    db.close()
    assert are_plain(times, count) == all(is_read(time) for row in rows for time in row)


@pytest.mark.parametrize(
    ("time", "valid"),
    [
        ("2024-02-29 10:00:00.000000", True),
        ("2000-02-29 10:00:00.000000", True),
        ("1900-02-29 10:00:00.000000", False),
        ("2023-02-29 10:00:00.000000", False),
        ("2024-04-31 10:00:00.000000", False),
        ("2024-00-10 10:00:00.000000", False),
        ("2024-19-10 10:00:00.000000", False),
        ("2024-01-00 10:00:00.000000", False),
        ("2024-01-01 24:00:00.000000", False),
        ("2024-01-01 23:60:00.000000", False),
        ("0000-01-01 10:00:00.000000", False),
    ],
)
def test_dates_that_do_not_exist(time: str, valid: bool) -> None:
    """The pass over joined times and the SQL condition agree."""
    db = sqlite3.connect(":memory:")
    assert are_plain(f"{time}x{time}".encode(), 1) is valid
    assert db.execute(f"SELECT {is_no_time('time')} FROM (SELECT ? AS time)", (time,)).fetchone() == (not valid,)
    db.close()


def test_a_short_time_is_not_made_up_for_by_a_long_one() -> None:
    """Joined without separators, a digit that moved to the next time would be in its place again."""
    times = b"2024-01-01 10:00:00.00000x02024-01-01 10:00:00.000000"
    assert len(times) == 53
    assert not are_plain(times, 1)
