"""Times joined by SQLite are valid for the doctor exactly if Python reads each of them."""

from __future__ import annotations

import re
import sqlite3
from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_panic_doctor.database.elixir_generation import ELIXIR
from pytest_panic_doctor.database.python_generation import PYTHON
from pytest_panic_doctor.database.timestamps import HIGHEST_DIGITS, are_plain, is_before, is_no_time, joined

PYTHON_TIME, ECTO_TIME = PYTHON.time_format, ELIXIR.time_format
FORMATS = {
    PYTHON_TIME: re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{6}", re.ASCII),
    ECTO_TIME: re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", re.ASCII),
}
VALID = st.datetimes().map(lambda time: time.isoformat(" ", "microseconds"))


@st.composite
def changed(draw: st.DrawFn) -> str:
    """A valid time of which one character is replaced, left out or doubled."""
    time: str = draw(VALID)
    place = draw(st.integers(0, len(time) - 1))
    other: str = draw(st.sampled_from(["", *"0123459-:. xT\0é", time[place] * 2]))
    return time[:place] + other + time[place + 1 :]


def ecto(time: str) -> str:
    """A time of the Python generation as the Elixir generation writes it."""
    return time.replace(" ", "T") + "Z"


def is_read(time: str | None, form: str) -> bool:
    """Whether a text has a format of the research tool, and Python reads it."""
    if time is None or not FORMATS[form].fullmatch(time):
        return False
    try:
        datetime.fromisoformat(time)
    except ValueError:
        return False
    return True


TIME = st.one_of(VALID, VALID.map(ecto), changed(), changed().map(ecto), st.none())


@given(st.lists(st.tuples(TIME, TIME), max_size=6), st.booleans(), st.sampled_from(list(FORMATS)))
def test_joined_times_are_plain_if_python_reads_each(
    rows: list[tuple[str | None, str | None]], only_one: bool, form: str
) -> None:
    """Whatever stands in the columns."""
    if only_one:
        rows = [
            row
            for row in rows
            if all(time is not None and time[-1:].isdigit() == (form == PYTHON_TIME) for time in row)
        ]
    db = sqlite3.connect(":memory:")
    db.execute("CREATE TABLE t (a DATETIME, b DATETIME)")
    db.executemany("INSERT INTO t VALUES (?, ?)", rows)
    ((count, times),) = db.execute(f"SELECT count(*), {joined('a', 'b')} FROM t").fetchall()
    db.close()
    assert are_plain(times, count, form) == all(is_read(time, form) for row in rows for time in row)


def test_the_format_of_each_generation_is_known() -> None:
    assert {PYTHON.time_format, ELIXIR.time_format} == set(HIGHEST_DIGITS)


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
    for each, form in ((time, PYTHON_TIME), (ecto(time), ECTO_TIME)):
        assert are_plain(f"{each}x{each}".encode(), 1, form) is valid
        assert db.execute(f"SELECT {is_no_time('time')} FROM (SELECT ? AS time)", (each,)).fetchone() == (not valid,)
    db.close()


def test_a_short_time_is_not_made_up_for_by_a_long_one() -> None:
    """Joined without separators, a digit that moved to the next time would be in its place again."""
    times = b"2024-01-01 10:00:00.00000x02024-01-01 10:00:00.000000"
    assert len(times) == 53
    assert not are_plain(times, 1, PYTHON_TIME)


@pytest.mark.parametrize("form", FORMATS)
def test_times_of_one_format_are_compared_by_microseconds(form: str) -> None:
    times = ["2024-01-01 10:00:00.000001", "2024-01-01 10:00:00.000002"]
    early, late = map(ecto, times) if form == ECTO_TIME else times
    assert before(early, late) == 1
    assert before(late, early) == before(early, early) == 0


@pytest.mark.parametrize(
    ("early", "late"),
    [
        ("2024-01-01T10:00:00.000000Z", "2024-01-01 10:00:00.001000"),
        ("2024-01-01 09:00:00.000000", "2024-01-01T10:00:00.00000+1"),
        ("2024-01-01T12:00:00.00+02:00", "2024-01-01T11:00:00.000000Z"),
    ],
)
def test_times_of_two_formats_are_compared_as_times(early: str, late: str) -> None:
    assert before(late, early) != 1


def before(earlier: str, later: str) -> object:
    """What SQLite makes of the condition."""
    db = sqlite3.connect(":memory:")
    ((found,),) = db.execute(f"SELECT {is_before('a', 'b')} FROM (SELECT ? AS a, ? AS b)", (earlier, later)).fetchall()
    db.close()
    return found
