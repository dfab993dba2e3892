"""What pytest's reports show of a failed item: one line where they have room for one, else its whole text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Protocol

    class LineWriter(Protocol):
        """The part of pytest's terminal writer that is used here."""

        def line(self, text: str) -> None:
            """Write one line."""


@dataclass(frozen=True, slots=True)
class CrashLine:
    """One line about a failed item, with the attributes that pytest gives to the place of an exception.

    Attributes:
        nodeid: The item.
        message: The sentence, for the JUnit file and the short summary.
        lineno: Always 1, for plugins that read it: a database has no lines.
    """

    nodeid: str
    message: str
    lineno: int = 1

    @property
    def path(self) -> str:
        """The path of the database, as it is in the item's id."""
        return self.nodeid.split("::", 1)[0]

    def __str__(self) -> str:
        """The line of `--tb=line`."""
        return f"{self.nodeid}: {self.message}"


class FindingsText:
    """The text of a failed item in the controller, in the form that pytest, its JUnit file and other plugins read."""

    def __init__(self, text: str, line: CrashLine, *, one_line: bool = False) -> None:
        """Store the text and its line; `one_line` if the user asked for no more than the line (`--tb=line`)."""
        self.text = text
        self.one_line = one_line
        self.reprcrash = line

    def toterminal(self, tw: LineWriter) -> None:
        """Write the text, as pytest does in the section of failures."""
        for line in () if self.one_line else self.text.splitlines():
            tw.line(line)

    def __str__(self) -> str:
        """The whole text."""
        return self.text


class NodeOnly:
    """Stands for a text while the short summary is written, so that it shows the item's id and nothing cut off."""

    def __str__(self) -> str:
        """Nothing."""
        return ""
