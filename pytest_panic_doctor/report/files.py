"""The reports that go to files: `.json` and `.html` at the end, `.jsonl` line by line; JUnit is completed."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from pytest_panic_doctor.database.connection import Unreadable
from pytest_panic_doctor.database.files import atomic_write, check_writable, check_writable_in_place, create_like
from pytest_panic_doctor.errors import BadOption
from pytest_panic_doctor.examination.result import Result
from pytest_panic_doctor.repair.journal.journal import journal_path as journal_of
from pytest_panic_doctor.report.html import require_jinja, write_html
from pytest_panic_doctor.report.junit import enrich
from pytest_panic_doctor.report.results import Results, json_head, json_subjects
from pytest_panic_doctor.report.text import display_path

if TYPE_CHECKING:
    import pytest

    from pytest_panic_doctor.examination.examination import Examination
    from pytest_panic_doctor.examination.settings import Settings


ESCAPED = "backslashreplace"
"""Half of a surrogate pair, which UTF-8 has not, as JSON escapes it too."""


class ReportFiles:
    """The files that `--doctor-report` names."""

    def __init__(self, examination: Examination, version: str, junit: Path | None = None, family: str = "") -> None:
        """Open the `.jsonl` ones at once, so that each item's line is on disk when it ended.

        `junit` is the file that pytest writes, and `family` its `junit_family`.
        """
        self.examination = examination
        self.version = version
        self.junit = junit
        self.family = family
        self.failed: dict[Path, str] = {}
        """What could not be written, a sentence each."""
        self._lines: dict[Path, TextIO] = {}
        for path in examination.settings.reports:
            if path.suffix == ".jsonl":
                with self.trying(path):
                    create_like(path, examination.settings.database)
                    self._lines[path] = path.open("w", encoding="utf-8", errors=ESCAPED)

    def add(self, result: Result) -> None:
        """Write one item to the `.jsonl` files and flush it."""
        if self._lines:
            line = json.dumps(result.as_dict(), ensure_ascii=False)
            for path, file in list(self._lines.items()):
                with self.trying(path):
                    file.write(line + "\n")
                    file.flush()

    def end(self, results: Results, reporter: pytest.TerminalReporter | None) -> None:
        """Close the `.jsonl` files and write the `.json` and `.html` ones, each whole or not at all.

        A page with thousands of diagrams takes seconds, so who waits at a terminal is told.
        """
        for path, file in list(self._lines.items()):
            with self.trying(path):
                file.close()
        for path in self.examination.settings.reports:
            with self.trying(path):
                if path.suffix == ".json":
                    write_json(path, self.examination, results, self.version)
                elif path.suffix == ".html":
                    if reporter and reporter.isatty and reporter.verbosity >= 0:
                        # The line of dots has no end yet, and under xdist the reporter does not know.
                        reporter.write_line(f"\nwriting {display_path(path)} …")
                    write_html(path, self.examination, results, self.version)
        if self.junit and results.items and self.junit.is_file() and self.junit not in self.failed:
            with self.trying(self.junit):
                enrich(self.junit, self.family, self.examination, results, self.version)
        results.written = [path for path in self.examination.settings.reports if path not in self.failed]

    def junit_written(self) -> AbstractContextManager[None]:
        """Say it in a sentence where pytest cannot write its file."""
        return self.trying(self.junit, theirs=True) if self.junit else nullcontext()

    @contextmanager
    def trying(self, path: Path, *, theirs: bool = False) -> Iterator[None]:
        """Go on without a file that cannot be written: what the items came to is told all the same.

        Where `theirs`, others write at the same time, whose errors name other files.
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
    """Raise `BadOption`, in one sentence, where a file that the session is to write at its end cannot be written.

    `junit` is pytest's own; pytest makes its folder.
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
    """Raise `BadOption` where a file that `flag` names cannot be written."""
    if path.suffix == ".html" and flag == "--doctor-report":
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
    """Raise `BadOption` where a file to be written is the database, by whatever name, or its journal."""
    for other, what in ((database, "the database itself"), (journal_of(database), "the doctor's journal")):
        same = os.path.realpath(path) == os.path.realpath(other)
        if same or (os.path.exists(path) and os.path.exists(other) and path.samefile(other)):  # noqa: PTH110
            raise BadOption(f"{flag} {display_path(path)} is {what}: name another file")


def write_lines(path: Path, results: Results) -> None:
    """A `.jsonl` report of items that have all ended."""
    with path.open("w", encoding="utf-8", errors=ESCAPED) as file:
        file.writelines(json.dumps(item.as_dict(), ensure_ascii=False) + "\n" for item in results.items)


def write_json(
    path: Path, examination: Examination, results: Results, version: str, more: Mapping[str, object] | None = None
) -> None:
    """The JSON report, item by item, so that its size costs no memory; `more` stands in its `doctor` part too."""
    told = json_head(examination, results, version) | {
        "selected": [rule.id for rule in examination.selected],
        "experiments": json_subjects(examination),
    }
    told |= dict(more or {})
    with (
        atomic_write(path, like=examination.settings.database) as partial,
        partial.open("w", encoding="utf-8", errors=ESCAPED) as file,
    ):
        file.write('{"doctor": ' + json.dumps(told, ensure_ascii=False) + ',\n"items": [')
        for index, item in enumerate(results.items):
            file.write(("," if index else "") + "\n" + json.dumps(item.as_dict(), ensure_ascii=False))
        file.write("\n]}\n")
