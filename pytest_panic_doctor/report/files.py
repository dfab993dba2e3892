"""Report files: `.json`, `.html` and `.md` at the end, `.jsonl` line by line, and pytest's JUnit file."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from pytest_panic_doctor.database.connection import Unreadable
from pytest_panic_doctor.database.files import atomic_write, check_writable, check_writable_in_place, create_like
from pytest_panic_doctor.errors import BadOption
from pytest_panic_doctor.examination.outcome import Result
from pytest_panic_doctor.report.junit import enrich
from pytest_panic_doctor.report.markdown import write_markdown
from pytest_panic_doctor.report.results import Results, json_head, json_subjects
from pytest_panic_doctor.report.text import display_path

if TYPE_CHECKING:
    import pytest

    from pytest_panic_doctor.examination.examination import Examination
    from pytest_panic_doctor.examination.settings import Settings


ESCAPED = "backslashreplace"
"""How to write half of a surrogate pair, which UTF-8 does not allow; JSON uses the same escape."""


class ReportFiles:
    """The files of `--doctor-report`."""

    def __init__(self, examination: Examination, junit: Path | None = None, family: str = "") -> None:
        """Open the `.jsonl` files at once, so that each item's line is on disk when it ends.

        Args:
            examination: The session.
            junit: The file that pytest writes.
            family: Its `junit_family`.
        """
        self.examination = examination
        self.junit = junit
        self.family = family
        self.failed: dict[Path, str] = {}
        """Files that could not be written, each with a sentence."""
        self._lines: dict[Path, TextIO] = {}
        for path in examination.settings.reports:
            if path.suffix == ".jsonl":
                with self.trying(path):
                    create_like(path, examination.settings.database)
                    self._lines[path] = path.open("w", encoding="utf-8", errors=ESCAPED)

    def add(self, result: Result) -> None:
        """Write one item to the `.jsonl` files and flush them."""
        if self._lines:
            line = json.dumps(result.as_dict(), ensure_ascii=False)
            for path, file in list(self._lines.items()):
                with self.trying(path):
                    file.write(line + "\n")
                    file.flush()

    def end(self, results: Results, reporter: pytest.TerminalReporter | None) -> None:
        """Close the `.jsonl` files and write the others atomically.

        A page with thousands of diagrams takes seconds, so a terminal shows that it is being written.
        """
        for path, file in list(self._lines.items()):
            with self.trying(path):
                file.close()
        for path in self.examination.settings.reports:
            if path.suffix == ".html" and reporter and reporter.isatty and reporter.verbosity >= 0:
                # The line of dots has not ended yet, and under xdist the reporter does not know that.
                reporter.write_line(f"\nwriting {display_path(path)} …")
            if path.suffix != ".jsonl":
                with self.trying(path):
                    write_report(path, self.examination, results)
        if self.junit and results.items and self.junit.is_file() and self.junit not in self.failed:
            with self.trying(self.junit):
                enrich(self.junit, self.family, self.examination, results)
        results.written = [path for path in self.examination.settings.reports if path not in self.failed]

    def junit_written(self) -> AbstractContextManager[None]:
        """Report with one sentence if pytest cannot write its file."""
        return self.trying(self.junit, theirs=True) if self.junit else nullcontext()

    @contextmanager
    def trying(self, path: Path, *, theirs: bool = False) -> Iterator[None]:
        """Continue if a file cannot be written, so that the other reports are written.

        Args:
            path: The file.
            theirs: Whether other plugins write at the same time, whose errors name other files.
        """
        try:
            yield
        except (OSError, sqlite3.Error, Unreadable) as error:
            if theirs and getattr(error, "filename", "?") not in (None, str(path)):
                raise
            self._lines.pop(path, None)
            self.failed[path] = (
                f"{display_path(path)} could not be written ({getattr(error, 'strerror', None) or error}): "
                "make room for it, "
                "or name another file, and run again"
            )


def check_outputs(settings: Settings, junit: Path | None) -> None:
    """Check that the session can write its files at the end.

    Args:
        settings: The user's choices.
        junit: pytest's own file; pytest makes its folder.

    Raises:
        BadOption: A file cannot be written.
    """
    outputs = [("--doctor-report", path) for path in settings.reports]
    outputs += [("--doctor-baseline", settings.baseline)] if settings.baseline and settings.baseline_write else []
    outputs += [("--junitxml", junit)] if junit else []
    seen: dict[str, str] = {}
    for flag, path in outputs:
        check_apart(flag, path, settings.database)
        if (other := seen.setdefault(os.path.realpath(path), flag)) != flag:
            raise BadOption(f"{flag} {display_path(path)} is the file of {other} too: name another file")
        check_output(flag, path)


def check_output(flag: str, path: Path) -> None:
    """Raise `BadOption` if the file of an option cannot be written."""
    if path.suffix == ".html" and flag == "--doctor-report":
        from pytest_panic_doctor.report.html import require_jinja

        require_jinja(path)
    try:
        if flag == "--junitxml" and not path.parent.exists():
            check_writable(next(each for each in path.parents if each.exists()) / "a folder")
        elif flag == "--junitxml" or path.suffix == ".jsonl":
            check_writable_in_place(path)
        else:
            check_writable(path)
    except OSError as error:
        remedy = f"make {display_path(path.parent)} first" if not path.parent.exists() else "name another file"
        raise BadOption(f"{flag} {display_path(path)} cannot be written ({error.strerror}): {remedy}") from error


def check_apart(flag: str, path: Path, database: Path) -> None:
    """Raise `BadOption` if a file to be written is the database, also by a link, or its journal."""
    from pytest_panic_doctor.repair.journal.identity import journal_path

    for other, what in ((database, "the database itself"), (journal_path(database), "the doctor's journal")):
        same = os.path.realpath(path) == os.path.realpath(other)
        if same or (os.path.exists(path) and os.path.exists(other) and path.samefile(other)):  # noqa: PTH110
            raise BadOption(f"{flag} {display_path(path)} is {what}: name another file")


def write_report(
    path: Path,
    examination: Examination,
    results: Results,
    more: Mapping[str, object] | None = None,
    merged: Sequence[str] | None = None,
) -> None:
    """Write a report of items that have all ended.

    Args:
        path: The file; its suffix is the format.
        examination: The session.
        results: The results of the items.
        more: What only a merged JSON report has.
        merged: Sentences about the reports that were merged; None if none were.
    """
    if path.suffix == ".json":
        write_json(path, examination, results, more)
    elif path.suffix == ".jsonl":
        with path.open("w", encoding="utf-8", errors=ESCAPED) as file:
            file.writelines(json.dumps(item.as_dict(), ensure_ascii=False) + "\n" for item in results.items)
    elif path.suffix == ".md":
        write_markdown(path, examination, results, merged or ())
    else:
        from pytest_panic_doctor.report.html import write_html

        write_html(path, examination, results, merged)


def write_json(
    path: Path, examination: Examination, results: Results, more: Mapping[str, object] | None = None
) -> None:
    """Write the JSON report item by item, so that it needs little memory; `more` is added to `doctor`."""
    plain = json_head(examination, results) | {
        "selected": [rule.id for rule in examination.selected],
        "experiments": json_subjects(examination),
    }
    plain |= dict(more or {})
    with (
        atomic_write(path, like=examination.settings.database) as partial,
        partial.open("w", encoding="utf-8", errors=ESCAPED) as file,
    ):
        file.write('{"doctor": ' + json.dumps(plain, ensure_ascii=False) + ',\n"items": [')
        for index, item in enumerate(results.items):
            file.write(("," if index else "") + "\n" + json.dumps(item.as_dict(), ensure_ascii=False))
        file.write("\n]}\n")
