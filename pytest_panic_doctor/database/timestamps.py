"""SQL conditions about times.

The research tool writes `YYYY-MM-DD HH:MM:SS.ffffff`; SQLite reads a dozen formats.
"""

from __future__ import annotations

PLAIN_LENGTH = 26
"""Length of `YYYY-MM-DD HH:MM:SS.ffffff`, without a zone. Such texts sort by time."""

YEAR = 5
"""Position of the first dash, after the year.

Other values that SQLite accepts, such as `now`, a number or a time of day, have no dash there, and are not a time.
"""


def day_is_real(column: str) -> str:
    """Condition that the month has this day: SQLite reads February 30 as March 2, Python refuses it."""
    return f"(strftime('%d', substr({column}, 1, 10), '+0 days') IS substr({column}, 9, 2))"


def is_no_time(column: str) -> str:
    """Condition that `column` is neither NULL nor a valid time; never NULL."""
    return (
        f"({column} IS NOT NULL AND (typeof({column}) <> 'text' OR instr({column}, '-') <> {YEAR} "
        f"OR julianday({column}) IS NULL OR instr({column}, char(0)) OR NOT {day_is_real(column)}))"
    )


def is_plain(column: str) -> str:
    """Condition that a time has the format of the research tool; NULL for NULL."""
    return f"(length({column}) = {PLAIN_LENGTH} AND substr({column}, 11, 1) = ' ')"


def is_before(earlier: str, later: str) -> str:
    """Condition that one column's time is before another's; NULL if either is NULL or invalid.

    Compared by microseconds if both have the format of the research tool, else by milliseconds.
    """
    return (
        f"CASE WHEN {is_plain(earlier)} AND {is_plain(later)} THEN {earlier} < {later} "
        f"ELSE julianday({earlier}) < julianday({later}) END"
    )


def is_sure(column: str) -> str:
    """Condition that a text without NUL is a time in the format of the research tool."""
    real = f"strftime('%d', {column}, '+0 days') = substr({column}, 9, 2)"
    valid = f"CASE WHEN substr({column}, 9, 2) <= '28' THEN julianday({column}) > 0 ELSE {real} END"
    return f"{column} LIKE '____-__-__ __:__:__.______' AND {valid}"


def are_surely_in_order(before: str, start: str, end: str) -> str:
    """Condition that two times have the format of the research tool and are in order.

    Such texts sort by time, so they are compared as texts and parsed once. Numbers and blobs are excluded by SQL's
    order of types.

    Args:
        before: A time that must not be after `start`; NULL is accepted. Its format is checked in its own row.
        start: The first time.
        end: The second time.
    """
    ordered = f"{start} <= {end} AND {end} < x'' AND ({before} IS NULL OR {before} <= {start})"
    no_nul = f"instr({start} || {end}, char(0)) = 0"
    return f"CASE WHEN {ordered} AND {no_nul} THEN {is_sure(start)} AND {is_sure(end)} ELSE 0 END"
