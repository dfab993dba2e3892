"""Names and ids that are the same but for their spelling, or for one wrong character."""

from __future__ import annotations

import string
from collections.abc import Iterator


def normalized_id_sql(value: str) -> str:
    """SQL for an id however it is spelt: in either case, with dashes or braces, as a BLOB."""
    return f"lower(replace(trim(CAST({value} AS TEXT), ' {{}}' || char(9, 10, 13)), '-', ''))"


def one_character_variants(name: str) -> Iterator[str]:
    """What differs from `name` by one character: another one, one more, one less; or by one bit."""
    for place, letter in enumerate(name):
        for other in {*string.hexdigits[:16], *(chr(ord(letter) ^ 1 << bit) for bit in range(7))} - {letter}:
            yield name[:place] + other + name[place + 1 :]
        yield name[:place] + name[place + 1 :]
    for place in range(len(name) + 1):
        for more in string.hexdigits[:16]:
            yield name[:place] + more + name[place:]


def nearly_equal(name: str, other: str) -> bool:
    """Whether two names differ in case, or by one character: another one, one more, one less."""
    longer, shorter = sorted((name.lower(), other.lower()), key=len, reverse=True)
    if len(longer) - len(shorter) > 1:
        return False
    same = next((place for place, pair in enumerate(zip(longer, shorter, strict=False)) if pair[0] != pair[1]), None)
    if same is None:
        return True
    rest = longer[same + 1 :]
    return rest in (shorter[same:], shorter[same + 1 :])


def normalized_id(name: str) -> str:
    """What `plainly` makes of an id, in Python."""
    return name.strip(" {}\t\n\r").replace("-", "").lower()
