"""JSON columns, whatever they hold."""

from __future__ import annotations

import json


def loaded(text: object) -> object:
    """The value that a JSON column holds; None where it holds no JSON, or is nested too deeply for Python."""
    try:
        value: object = json.loads(text) if isinstance(text, str | bytes) else None
    except (ValueError, RecursionError):
        return None
    return value
