"""What pytest shows for an item while it runs: its letter, or with `-v` its word, run and rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from pytest_panic_doctor.formatting import printable, shorten
from pytest_panic_doctor.report import text

if TYPE_CHECKING:
    import pytest

DASHED = 36
"""Number of characters of a UUID with dashes."""
STATES = {
    "passed": ("passed", ".", ("PASSED", {"green": True})),
    "failed": ("failed", "F", ("FAILED", {"red": True})),
    "skipped": ("skipped", "s", ("SKIPPED", {"yellow": True})),
    "fixed": ("fixed", "+", ("FIXED", {"cyan": True})),
}
"""Pytest's category, letter, word and colour of each status of an item."""


def item_status(
    report: pytest.TestReport, plain: Mapping[str, object], labels: Mapping[str, str], verbosity: int
) -> tuple[str, str, tuple[str, dict[str, bool]]] | None:
    """Decide which letter pytest shows for an item, and with `-v` which word.

    With `-v` the word is followed by the run that the item is about, and how many rows it examined.

    Args:
        report: Pytest's report of the item.
        plain: The item's outcome, as it is on the report.
        labels: The descriptions of runs and experiments by id.
        verbosity: Pytest's verbosity.

    Returns:
        Category, letter, word and colour; None for pytest's own.
    """
    status = "fixed" if plain["outcome"] == "fixed" and report.passed else report.outcome
    category, letter, (word, colour) = STATES[status]
    if verbosity < 1:
        return STATES[status] if status == "fixed" else None
    rows = text.looked_at(plain.get("rows", {})) if report.passed or "rows" in plain else ""  # type: ignore[arg-type]
    details = "; ".join(filter(None, (label_of(report.nodeid, labels), rows)))
    return category, letter, (f"{word} ({details})" if details else word, colour)


def label_of(nodeid: str, labels: Mapping[str, str]) -> str:
    """Return the shortened label of an item's run or experiment; empty for the database."""
    subject = nodeid.split("[", 1)[1] if "[" in nodeid else ""
    return shorten(printable(labels.get(subject[:DASHED], "")), text.LABEL_WIDTH)
