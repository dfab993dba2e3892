"""JSON columns, whatever they hold."""

from __future__ import annotations

import json


def load_json(text: object) -> object:
    """The value that a JSON column holds; None where it holds no JSON, or is nested too deeply for Python.

    Half of a surrogate pair, which JSON can spell and no file, terminal or database can hold, becomes U+FFFD.
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
    """A non-empty string, without NUL, which ends a string in SQLite's functions, and without half a surrogate pair."""
    return isinstance(value, str) and value != "" and "\0" not in value and "\ufffd" not in value
