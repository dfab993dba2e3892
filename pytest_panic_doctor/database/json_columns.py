"""Parses JSON columns that may hold any text."""

from __future__ import annotations

import json


def load_json(text: object) -> object:
    """Parse the value of a JSON column.

    Half of a surrogate pair, which JSON can express but no file, terminal or database can hold, becomes U+FFFD.

    Returns:
        The value; None if the text is not JSON, or is nested too deeply for Python.
    """
    try:
        value: object = json.loads(text) if isinstance(text, str | bytes) else None
        plain = json.dumps(value, ensure_ascii=False)
        if any("\ud800" <= letter <= "\udfff" for letter in plain):
            value = json.loads(plain.encode("utf-16", "surrogatepass").decode("utf-16", "replace"))
    except (ValueError, RecursionError):
        return None
    return value


def is_name(value: object) -> bool:
    """Whether a value is a non-empty string without NUL, which ends SQLite's strings, or half a surrogate pair."""
    return isinstance(value, str) and value != "" and "\0" not in value and "\ufffd" not in value
