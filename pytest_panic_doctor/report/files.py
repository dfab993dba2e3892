"""The reports that go to files: `.json` and `.html` at the end, `.jsonl` line by line."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from pytest_panic_doctor.report.html import require_jinja, write_html
from pytest_panic_doctor.report.results import Result, Results, head, subjects
from pytest_panic_doctor.report.text import short
from pytest_panic_doctor.store.whole import whole

if TYPE_CHECKING:
    import pytest

    from pytest_panic_doctor.doctor import Doctor


class ReportFiles:
    """The files that `--doctor-report` names."""

    def __init__(self, doctor: Doctor, version: str) -> None:
        """Open the `.jsonl` ones at once, so that each item's line is on disk when it ended."""
        self.doctor = doctor
        self.version = version
        for path in doctor.settings.reports:
            if path.suffix == ".html":
                require_jinja(path)
        self.failed: list[str] = []
        """What could not be written, a sentence each."""
        self._lines: dict[Path, TextIO] = {}
        for path in doctor.settings.reports:
            if path.suffix == ".jsonl":
                with self._trying(path):
                    self._lines[path] = path.open("w", encoding="utf-8")

    def add(self, result: Result) -> None:
        """Write one item to the `.jsonl` files and flush it."""
        if self._lines:
            line = json.dumps(result.as_dict(), ensure_ascii=False)
            for path, file in list(self._lines.items()):
                with self._trying(path):
                    file.write(line + "\n")
                    file.flush()

    def end(self, results: Results, reporter: pytest.TerminalReporter | None) -> None:
        """Close the `.jsonl` files and write the `.json` and `.html` ones, each whole or not at all.

        A page with thousands of diagrams takes seconds, so who waits at a terminal is told.
        """
        for path, file in list(self._lines.items()):
            with self._trying(path):
                file.close()
        for path in self.doctor.settings.reports:
            with self._trying(path):
                if path.suffix == ".json":
                    write_json(path, self.doctor, results, self.version)
                elif path.suffix == ".html":
                    if reporter and reporter.isatty and reporter.verbosity >= 0:
                        # The line of dots has no end yet, and under xdist the reporter does not know.
                        reporter.write_line(f"\nwriting {short(path)} …")
                    write_html(path, self.doctor, results, self.version)

    @contextmanager
    def _trying(self, path: Path) -> Iterator[None]:
        """Go on without a report that cannot be written: what the items came to is told all the same."""
        try:
            yield
        except OSError as error:
            self._lines.pop(path, None)
            self.failed.append(
                f"{short(path)} could not be written ({error.strerror}): make room for it, or name another file, "
                "and run again"
            )


def write_lines(path: Path, results: Results) -> None:
    """A `.jsonl` report of items that have all ended."""
    with path.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(item.as_dict(), ensure_ascii=False) + "\n" for item in results.items)


def write_json(
    path: Path, doctor: Doctor, results: Results, version: str, more: Mapping[str, object] | None = None
) -> None:
    """The JSON report, item by item, so that its size costs no memory; `more` stands in its `doctor` part too."""
    told = head(doctor, results, version) | {
        "selected": [rule.id for rule in doctor.selected],
        "experiments": subjects(doctor),
    }
    told |= dict(more or {})
    with whole(path) as partial, partial.open("w", encoding="utf-8") as file:
        file.write('{"doctor": ' + json.dumps(told, ensure_ascii=False) + ',\n"items": [')
        for index, item in enumerate(results.items):
            file.write(("," if index else "") + "\n" + json.dumps(item.as_dict(), ensure_ascii=False))
        file.write("\n]}\n")
