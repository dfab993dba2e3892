"""Text that a database, a path or foreign code brings, as a terminal or a shell may have it."""

from __future__ import annotations

import shlex


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
