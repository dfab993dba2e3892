"""SQL conditions and array checks that decide whether stored times are valid and in order.

The Python generation of the research tool writes `YYYY-MM-DD HH:MM:SS.ffffff`, the Elixir generation
`YYYY-MM-DDTHH:MM:SS.ffffffZ`; SQLite reads a dozen formats.
"""

from __future__ import annotations

from calendar import isleap
from functools import cache

import numpy as np
from numpy.typing import NDArray

HIGHEST_DIGITS = {
    "YYYY-MM-DD HH:MM:SS.ffffff": "9999-19-39 29:59:59.999999",
    "YYYY-MM-DDTHH:MM:SS.ffffffZ": "9999-19-39T29:59:59.999999Z",
}
"""The formats of the two generations, with the highest digit of each position. Texts of one format sort by time."""

YEAR = 5
"""Position of the first dash, after the year.

Other values that SQLite accepts, such as `now`, a number or a time of day, have no dash there, and are not a time.
"""


def day_is_real(column: str) -> str:
    """Condition that the month has this day: SQLite reads February 30 as March 2, Python refuses it."""
    return f"(strftime('%d', substr({column}, 1, 10), '+0 days') IS substr({column}, 9, 2))"


def is_no_time(column: str) -> str:
    """Condition that `column` is neither NULL nor a valid time; never NULL.

    SQLite reads the year 0 and the hour 24, Python neither.
    """
    return (
        f"({column} IS NOT NULL AND (typeof({column}) <> 'text' OR instr({column}, '-') <> {YEAR} "
        f"OR julianday({column}) IS NULL OR instr({column}, char(0)) OR NOT {day_is_real(column)} "
        f"OR substr({column}, 1, 4) = '0000' OR substr({column}, 12, 2) >= '24'))"
    )


def is_plain(column: str, form: str) -> str:
    """Condition that a time has one of the formats of the research tool; NULL for NULL."""
    zone = f" AND substr({column}, {len(form)}) = 'Z'" if form.endswith("Z") else ""
    return f"(length({column}) = {len(form)} AND substr({column}, 11, 1) = '{form[10]}'{zone})"


ECTO_TIME = "0000-00-00T00:56:56.000000Z".replace("0", "[0-9]").replace("5", "[0-5]").replace("6", "[0-9]")
"""A pattern of times as the Elixir generation of the research tool writes them."""


def is_ecto_time(column: str) -> str:
    """Condition that a text is certainly a valid time of the Elixir generation; also false on days after the 28th.

    Such texts sort by time. It takes a fraction of `is_no_time`, which decides about the others.
    """
    return (
        f"(typeof({column}) = 'text' AND {column} GLOB '{ECTO_TIME}' AND substr({column}, 6, 2) BETWEEN '01' AND '12' "
        f"AND substr({column}, 9, 2) BETWEEN '01' AND '28' AND substr({column}, 12, 2) < '24' "
        f"AND {column} >= '0001')"
    )


def is_before(earlier: str, later: str) -> str:
    """Condition that one column's time is before another's; NULL if either is NULL or invalid.

    Compared by microseconds if both have the same format of the research tool, else by milliseconds.
    """
    same = " OR ".join(f"({is_plain(earlier, each)} AND {is_plain(later, each)})" for each in HIGHEST_DIGITS)
    return f"CASE WHEN {same} THEN {earlier} < {later} ELSE julianday({earlier}) < julianday({later}) END"


SEPARATOR = "x"
"""Stands between two joined times, and in none."""

DAYS = np.array([0, 31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31, *[0] * 7], np.uint8)
"""Days of a month, the leap day included, at the month's number; none for numbers that no month has."""


def are_in_order(before: str, start: str, end: str) -> str:
    """Condition that two times of one format of the research tool are in order; NULL or 0 for others that are not text.

    Such texts sort by time. A plus takes the type of the column away, for SQLite would try to read each text as a
    number. Numbers and blobs are excluded by SQL's order of types.

    Args:
        before: A time that must not be after `start`; NULL is accepted. Its format is checked in its own row.
        start: The first time.
        end: The second time.
    """
    return f"(+{start} <= +{end} AND +{end} < x'' AND ({before} IS NULL OR +{before} <= +{start}))"


def joined(start: str, end: str) -> str:
    """Aggregate that joins all times of two columns, for `are_plain`."""
    return f"CAST(group_concat({start} || '{SEPARATOR}' || {end}, '{SEPARATOR}') AS BLOB)"


@cache
def bounds(form: str) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return each character's lowest value in a format and its separator, and how far above it the highest is."""
    highest = HIGHEST_DIGITS[form] + SEPARATOR
    lowest = np.frombuffer("".join("0" if each.isdigit() else each for each in highest).encode(), np.uint8)
    return lowest, np.frombuffer(highest.encode(), np.uint8) - lowest


def are_plain(times: bytes | None, rows: int, form: str) -> bool:
    """Whether joined times are all valid, and in the format of the file's generation.

    One pass over the text of a whole run costs a third of what SQLite needs to parse each time.

    Args:
        times: The result of `joined`.
        rows: How many rows were joined. A row with a NULL is not in `times`, and makes the result False.
        form: The format, a key of `HIGHEST_DIGITS`.
    """
    lowest, above = bounds(form)
    joint = np.frombuffer(times + SEPARATOR.encode() if times else b"", np.uint8)
    if len(joint) != rows * 2 * len(lowest):
        return False
    digits = joint.reshape(-1, len(lowest)) - lowest
    if (digits > above).any():
        return False
    month, day, hour = (digits[:, place] * np.uint8(10) + digits[:, place + 1] for place in (5, 8, 11))
    if (day == 0).any() or (day > DAYS[month]).any() or (hour > 23).any():
        return False
    if not digits[:, 0].all() and not digits[:, :4].any(axis=1).all():
        return False
    leap_days = digits[(month == 2) & (day == 29), :4] @ np.array([1000, 100, 10, 1])
    return all(isleap(int(year)) for year in np.unique(leap_days))
