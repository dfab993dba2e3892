"""Text of the database forges no line of the terminal."""

from __future__ import annotations

import pytest

from pytest_panic_doctor.report.text import printable


@pytest.mark.parametrize(
    "mark", ["\x1b[2K", "\x07", "\r", "\n", "\x00", "\u202e", "\u2066", "\ud800", "\u2028", "\x9b"]
)
def test_what_is_no_letter_is_escaped(mark: str) -> None:
    shown = printable(f"a pear{mark}PASSED")
    assert shown.isprintable()
    assert shown.startswith("a pear\\")


def test_words_in_any_script_stay() -> None:
    assert printable("«café» ☕ 梨 → é") == "«café» ☕ 梨 → é"
