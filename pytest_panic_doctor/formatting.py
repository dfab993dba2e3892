"""Values as text: counts, sizes, durations, and text of others as a terminal or a shell may have it."""

from __future__ import annotations

import difflib
import re
import shlex
from collections.abc import Iterable

UNITS = {"B": 1}
UNITS |= {f"{prefix}B": 1000**power for power, prefix in enumerate("KMGT", 1)}
UNITS |= {f"{prefix}IB": 1024**power for power, prefix in enumerate("KMGT", 1)}
UNITS |= {prefix: 1000**power for power, prefix in enumerate("KMGT", 1)}


def plural(count: int, one: str, many: str | None = None) -> str:
    """`1 run`, `1,234 runs`."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def verb(count: int, one: str = "is", many: str = "are") -> str:
    """The verb that agrees with the count."""
    return one if count == 1 else many


def parse_size(text: str) -> int:
    """`4GB`, `1.5 GiB`, `800M` in bytes; raises `ValueError`, whose text says what a size looks like.

    A number alone is none: who types 12 means 12 GB, and would get 12 bytes.
    """
    if re.fullmatch(r"\s*\d+(\.\d+)?\s*", text):
        raise ValueError(f"a size needs a unit: give one such as {text.strip()}GB")
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?I?B?)\s*", text, re.IGNORECASE)
    size = int(float(match[1]) * UNITS[match[2].upper()]) if match and match[2].upper() in UNITS else 0
    if size <= 0:
        raise ValueError("that is not a size: give one such as 4GB, 1.5GiB or 800MB")
    return size


def format_size(size: float) -> str:
    """A size in bytes as a person reads it: `312 MB`, `4.0 GB`."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 999.5:
            return f"{size:.1f} {unit}" if unit == "GB" or (unit == "MB" and size < 10) else f"{size:.0f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def format_duration(seconds: float) -> str:
    """A time as a person says it: `8 s`, `40 min`, `3 h`."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    if seconds < 90 * 60:
        return f"{round(seconds / 60)} min"
    return f"{round(seconds / 3600)} h"


def format_duration_exact(seconds: float) -> str:
    """A time as it was given: `0.05 s`, `20 min`, `1 h 30 min`."""
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    parts = ((hours, "h"), (minutes, "min"), (round(rest, 3), "s"))
    return " ".join(f"{number:g} {unit}" for number, unit in parts if number)


def shorten(line: str, width: int) -> str:
    """A text of at most `width` characters, the last of which says where more was."""
    return line if len(line) <= width else line[: width - 1] + "…"


def did_you_mean(text: str, names: Iterable[str]) -> str:
    """`: did you mean X?`, or how to see the names where none is near."""
    near = difflib.get_close_matches(text, list(names), n=1, cutoff=0.5)
    return f": did you mean {near[0]}?" if near else ""


def printable(text: str) -> str:
    """A text on one line: what moves a cursor, ends a line or turns its direction is escaped."""
    return text if text.isprintable() else "".join(each if each.isprintable() else ascii(each)[1:-1] for each in text)


def distinct(text: str) -> str:
    """The same, so that no two texts become one: for names."""
    return printable(text.replace("\\", r"\\"))


def typed(text: str) -> str:
    """A text as a shell takes it back, on one line; Bash, Zsh and ksh know the form that escapes."""
    if text.isprintable():
        return shlex.quote(text)
    escaped = distinct(text).replace("'", r"\'")
    return f"$'{escaped}'"


def install_extra(name: str) -> str:
    """How an extra of this package is installed."""
    return f"pip install '.[{name}]' in the doctor's checkout"
