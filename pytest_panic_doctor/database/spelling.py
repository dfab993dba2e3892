"""Compares names and ids that may be misspelt: by letter case, dashes, or one wrong character."""

from __future__ import annotations

import string
from collections.abc import Iterator


def normalized_id_sql(value: str) -> str:
    """SQL that normalises an id: lower case, without dashes or braces, as text."""
    return f"lower(replace(trim(CAST({value} AS TEXT), ' {{}}' || char(9, 10, 13)), '-', ''))"


def one_character_variants(name: str) -> Iterator[str]:
    """Strings that differ from `name` by one character (replaced, added or removed) or by one bit."""
    for place, letter in enumerate(name):
        for other in {*string.hexdigits[:16], *(chr(ord(letter) ^ 1 << bit) for bit in range(7))} - {letter}:
            yield name[:place] + other + name[place + 1 :]
        yield name[:place] + name[place + 1 :]
    for place in range(len(name) + 1):
        for more in string.hexdigits[:16]:
            yield name[:place] + more + name[place:]


def nearly_equal(name: str, other: str) -> bool:
    """Whether two names differ only in case, or by one character (replaced, added or removed)."""
    longer, shorter = sorted((name.lower(), other.lower()), key=len, reverse=True)
    if len(longer) - len(shorter) > 1:
        return False
    same = next((place for place, pair in enumerate(zip(longer, shorter, strict=False)) if pair[0] != pair[1]), None)
    if same is None:
        return True
    rest = longer[same + 1 :]
    return rest in (shorter[same:], shorter[same + 1 :])


def normalized_id(name: str) -> str:
    """An id as both generations of the research tool compare it: the result of `normalized_id_sql`, in Python."""
    return name.strip(" {}\t\n\r").replace("-", "").lower()


def dashed(stored: str) -> str:
    """Format a stored id as a UUID with dashes; another text stays as it is."""
    if len(stored) != 32:
        return stored
    return f"{stored[:8]}-{stored[8:12]}-{stored[12:16]}-{stored[16:20]}-{stored[20:]}"
