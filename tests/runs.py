"""What tests of the plugin read from a run."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

Doctor = Callable[..., pytest.RunResult]


def items(path: Path) -> dict[str, Mapping[str, object]]:
    """The items of a JSON report, by name."""
    report = json.loads(path.read_text())
    return {item["nodeid"].split("::", 1)[1]: item for item in report["items"]}


def outcomes(path: Path) -> dict[str, str]:
    """What became of each item."""
    return {name: str(item["outcome"]) for name, item in items(path).items()}
