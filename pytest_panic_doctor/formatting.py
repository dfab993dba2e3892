"""Formats values as text: counts, sizes, durations, and text of others for a terminal or a shell."""

from __future__ import annotations

import difflib
import re
import shlex
from collections.abc import Iterable, Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError, version

UNITS = {"B": 1}
UNITS |= {f"{prefix}B": 1000**power for power, prefix in enumerate("KMGT", 1)}
UNITS |= {f"{prefix}IB": 1024**power for power, prefix in enumerate("KMGT", 1)}
UNITS |= {prefix: 1000**power for power, prefix in enumerate("KMGT", 1)}
"""Bytes of each unit that a size may have, in upper case."""


WIDTH = 80
"""Characters of a line of output."""


@cache
def doctor_version() -> str:
    """Return the installed version of this package."""
    try:
        return version("pytest-panic-doctor")
    except PackageNotFoundError:
        return "not installed"


def plural(count: int, noun: str) -> str:
    """Format a count with its noun: `1 run`, `1,234 runs`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def name_first(names: Sequence[str], most: int, count: int | None = None) -> str:
    """Name the first few: `a, b and 3 more`.

    Args:
        names: The names, or the first of them.
        most: The number of names that are shown.
        count: The number of all; that of `names` if it is None.
    """
    left = (len(names) if count is None else count) - most
    return ", ".join(names[:most]) + (f" and {left:,} more" if left > 0 else "")


def join_notes(*notes: str) -> str:
    """Join the notes that are not empty."""
    return "; ".join(filter(None, notes))


def verb(count: int, one: str = "is", many: str = "are") -> str:
    """Return the form of a verb that agrees with a count."""
    return one if count == 1 else many


def parse_size(text: str) -> int:
    """Parse a size such as `4GB`, `1.5 GiB` or `800M`.

    Args:
        text: The size. A number without a unit is refused: a user who types 12 means 12 GB, and would get 12 bytes.

    Returns:
        The size in bytes.

    Raises:
        ValueError: The text is not a size; the message shows what a size looks like.
    """
    if re.fullmatch(r"\s*\d+(\.\d+)?\s*", text):
        raise ValueError(f"a size needs a unit: give one such as {text.strip()}GB")
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?I?B?)\s*", text, re.IGNORECASE)
    size = int(float(match[1]) * UNITS[match[2].upper()]) if match and match[2].upper() in UNITS else 0
    if size <= 0:
        raise ValueError("that is not a size: give one such as 4GB, 1.5GiB or 800MB")
    return size


def format_size(size: float) -> str:
    """Format a size in bytes: `312 MB`, `4.0 GB`."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 999.5:
            return f"{size:.1f} {unit}" if unit == "GB" or (unit == "MB" and size < 10) else f"{size:.0f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def format_duration(seconds: float) -> str:
    """Format seconds roughly: `8 s`, `40 min`, `3 h`."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    if seconds < 90 * 60:
        return f"{round(seconds / 60)} min"
    return f"{round(seconds / 3600)} h"


def format_duration_exact(seconds: float) -> str:
    """Format seconds exactly: `0.05 s`, `20 min`, `1 h 30 min`."""
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    parts = ((hours, "h"), (minutes, "min"), (round(rest, 3), "s"))
    return " ".join(f"{number:g} {unit}" for number, unit in parts if number)


def shorten(line: str, width: int) -> str:
    """Cut a text to at most `width` characters; an ellipsis marks the cut."""
    return line if len(line) <= width else line[: width - 1] + "…"


def did_you_mean(text: str, names: Iterable[str]) -> str:
    """Return `: did you mean X?` for the name that is nearest to a text, or an empty string if none is near."""
    near = difflib.get_close_matches(text, list(names), n=1, cutoff=0.5)
    return f": did you mean {near[0]}?" if near else ""


def printable(text: str) -> str:
    """Escape the characters that move a cursor, end a line or turn its direction, so that a text stays on one line."""
    return text if text.isprintable() else "".join(each if each.isprintable() else ascii(each)[1:-1] for each in text)


def distinct(text: str) -> str:
    """Escape a name as `printable` does, and backslashes too, so that two different names stay different."""
    return printable(text.replace("\\", r"\\"))


def typed(text: str) -> str:
    """Quote a text for a shell, on one line.

    Characters that cannot be printed take the form `$'…'`, which Bash, Zsh and ksh read.
    """
    if text.isprintable():
        return shlex.quote(text)
    escaped = distinct(text).replace("'", r"\'")
    return f"$'{escaped}'"


def install_extra(name: str) -> str:
    """Return the command that installs an extra of this package."""
    return f"pip install '.[{name}]' in the doctor's checkout"
