"""The documentation is in short, standard English, which a reader with another first language understands."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
BANNED = re.compile(
    r"\b(that (?:is|are) none|for want of|meanwhile|whatever|whoever|said|told|heard|(?:come|comes|came) to"
    r"|in (?:its|the) midst|who waits|heed\w*|settled?s?)\b",
    re.IGNORECASE,
)
LONGEST = 45
"""Words of a sentence. Most have fewer than 25."""


def prose(page: Path) -> str:
    """The text of a page, without code and quoted messages."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"`[^`\n]*`", "CODE", re.sub(r"\]\([^)]*\)", "]", text))


def sentences(page: Path) -> list[str]:
    """The sentences of a page's paragraphs and lists; tables and references are left out."""
    lines = [line for line in prose(page).splitlines() if not line.startswith(("|", "#", "<"))]
    return [each for line in lines for each in re.split(r"(?<=[.:;?!])\s+", line.strip())]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_no_page_has_a_phrase_that_is_hard_to_read(page: Path) -> None:
    assert BANNED.findall(prose(page)) == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_no_sentence_is_too_long(page: Path) -> None:
    assert [each for each in sentences(page) if len(each.split()) > LONGEST] == []


@pytest.mark.parametrize("text", ["a time that is none", "what it comes to", "he was told so", "whatever happens"])
def test_a_hard_phrase_is_seen(text: str) -> None:
    assert BANNED.search(text)
