"""Times as SQL compares them. The research tool writes `YYYY-MM-DD HH:MM:SS.ffffff`; SQLite reads a dozen spellings."""

from __future__ import annotations

PLAIN_LENGTH = 26
"""Characters of `YYYY-MM-DD HH:MM:SS.ffffff`, without a zone: such texts are in the order of their times."""

YEAR = 5
"""Where the first dash stands, after the year. What SQLite reads as a time too, `now`, a number or a time of day, has
none there, and names no moment."""


def day_is_real(column: str) -> str:
    """The SQL condition that a time's month has its day: SQLite reads February 30 as March 2, Python refuses it."""
    return f"(strftime('%d', substr({column}, 1, 10), '+0 days') IS substr({column}, 9, 2))"


def is_no_time(column: str) -> str:
    """The SQL condition that `column` holds something that is no time: true or false, and false for NULL."""
    return (
        f"({column} IS NOT NULL AND (typeof({column}) <> 'text' OR instr({column}, '-') <> {YEAR} "
        f"OR julianday({column}) IS NULL OR instr({column}, char(0)) OR NOT {day_is_real(column)}))"
    )


def is_plain(column: str) -> str:
    """The SQL condition that a time is spelt as the research tool spells it; NULL for NULL."""
    return f"(length({column}) = {PLAIN_LENGTH} AND substr({column}, 11, 1) = ' ')"


def is_before(earlier: str, later: str) -> str:
    """The SQL condition that one column's time is before another's: NULL where either is NULL or no time.

    To the millisecond where the spellings differ (`T` or a blank, with a zone or without), to the microsecond where
    both are the research tool's.
    """
    return (
        f"CASE WHEN {is_plain(earlier)} AND {is_plain(later)} THEN {earlier} < {later} "
        f"ELSE julianday({earlier}) < julianday({later}) END"
    )


def is_sure(column: str) -> str:
    """The SQL condition that a text without NUL is a time as the research tool spells it."""
    real = f"strftime('%d', {column}, '+0 days') = substr({column}, 9, 2)"
    valid = f"CASE WHEN substr({column}, 9, 2) <= '28' THEN julianday({column}) > 0 ELSE {real} END"
    return f"{column} LIKE '____-__-__ __:__:__.______' AND {valid}"


def are_surely_in_order(before: str, start: str, end: str) -> str:
    """The SQL condition that `start` and `end` are times as the research tool spells them, in this order.

    They come after `before` too, where that is not NULL; that `before` is such a time is asked where it is a row's own.
    Texts in this spelling are in the order of their times, so that they are compared as texts, and read as times once.
    Texts are told from numbers and blobs by their place in SQL's order of types.
    """
    ordered = f"{start} <= {end} AND {end} < x'' AND ({before} IS NULL OR {before} <= {start})"
    no_nul = f"instr({start} || {end}, char(0)) = 0"
    return f"CASE WHEN {ordered} AND {no_nul} THEN {is_sure(start)} AND {is_sure(end)} ELSE 0 END"
