"""Times as SQL compares them. The research tool writes `YYYY-MM-DD HH:MM:SS.ffffff`; SQLite reads a dozen spellings."""

from __future__ import annotations

PLAIN = 26
"""Characters of `YYYY-MM-DD HH:MM:SS.ffffff`, without a zone: such texts are in the order of their times."""

YEAR = 5
"""Where the first dash stands, after the year. What SQLite reads as a time too, `now`, a number or a time of day, has
none there, and names no moment."""


def is_no_time(column: str) -> str:
    """The SQL condition that `column` holds something that is no time: true or false, and false for NULL."""
    return (
        f"({column} IS NOT NULL AND (typeof({column}) <> 'text' OR instr({column}, '-') <> {YEAR} "
        f"OR julianday({column}) IS NULL))"
    )


def is_plain(column: str) -> str:
    """The SQL condition that a time is spelt as the research tool spells it; NULL for NULL."""
    return f"(length({column}) = {PLAIN} AND substr({column}, 11, 1) = ' ')"


def is_before(earlier: str, later: str) -> str:
    """The SQL condition that one column's time is before another's: NULL where either is NULL or no time.

    To the millisecond where the spellings differ (`T` or a blank, with a zone or without), to the microsecond where
    both are the research tool's.
    """
    return (
        f"CASE WHEN {is_plain(earlier)} AND {is_plain(later)} THEN {earlier} < {later} "
        f"ELSE julianday({earlier}) < julianday({later}) END"
    )


def is_surely_before(earlier: str, later: str) -> str:
    """The SQL condition that two texts are in order both as times and as texts: then `is_before` is false the other
    way round. It costs half of that, and settles what the research tool wrote; it tells nothing where it is not true.
    """
    return f"(julianday({earlier}) <= julianday({later}) AND {earlier} <= {later})"


def are_surely_in_order(before: str, start: str, end: str) -> str:
    """The SQL condition that `start` and `end` are times in this order, and after `before`, where that is not NULL.

    Texts are told from numbers and blobs by their place in SQL's order of types.
    """
    dated = f"instr({start}, '-') = {YEAR} AND instr({end}, '-') = {YEAR} AND {start} >= '' AND {end} < x''"
    return f"({dated} AND {is_surely_before(start, end)} AND ({before} IS NULL OR {is_surely_before(before, start)}))"
