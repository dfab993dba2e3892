"""The database as pytest sees it: a file, and one item for each rule and subject."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_panic_doctor.database.connection import Unreadable
from pytest_panic_doctor.errors import Stopped
from pytest_panic_doctor.examination.foreign_code import Misbehaved, calling
from pytest_panic_doctor.examination.outcome import Outcome
from pytest_panic_doctor.examination.parsing import absolute
from pytest_panic_doctor.formatting import printable
from pytest_panic_doctor.report import text

if TYPE_CHECKING:
    from pytest_panic_doctor.examination.acceptance import AcceptancePolicy
    from pytest_panic_doctor.examination.examination import Examination
    from pytest_panic_doctor.examination.examiner import Examiner
    from pytest_panic_doctor.examination.manifest import Entry

EXAMINATION: pytest.StashKey[Examination] = pytest.StashKey()
EXAMINER: pytest.StashKey[Examiner] = pytest.StashKey()
ACCEPTANCE: pytest.StashKey[AcceptancePolicy] = pytest.StashKey()


LEFT_OUT = "not started: another plugin or a conftest.py left it out"
OUT_OF_TIME = "not started: the time of --doctor-budget was over"


class FindingsRemainError(Exception):
    """Raised by an item that still has findings; the text is what the terminal shows."""


def exit_worker_soon() -> None:
    """End this worker after one second, even if other plugins still wait: the user has pressed Ctrl-C.

    The child process has ended by then and no transaction is open, so nothing is lost.
    """
    timer = threading.Timer(1.0, os._exit, (int(pytest.ExitCode.INTERRUPTED),))
    timer.daemon = True
    timer.start()


def shown(path: str) -> str:
    """Replace the characters of a path that cannot be printed, since pytest prints it as it is."""
    return "".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in path)


class DataFolder(pytest.File):
    """A folder outside of the project, on the way to the database; no code is loaded from it."""

    def collect(self) -> Iterator[pytest.Item | pytest.Collector]:
        """Collect what the command line names in this folder, and the database."""
        config = self.config
        named = [Path(config.invocation_params.dir, arg.split("::")[0]) for arg in config.args]
        below = [path.relative_to(self.path) for path in map(absolute, named) if self.path in path.parents]
        for name in dict.fromkeys(path.parts[0] for path in below):
            path = self.path / name
            if path.is_dir():
                folder = self.session.gethookproxy(self.path).pytest_collect_directory(path=path, parent=self)
                yield from [folder] if folder else []
            else:
                yield from self.session.gethookproxy(path).pytest_collect_file(file_path=path, parent=self)


class ForeignFolderHook:
    """Keeps pytest from loading code of the folder of a database; registered if it is outside of the project."""

    def __init__(self, database: Path) -> None:
        """Store the parent folders of `database`, whose path is the one that is collected."""
        self.folders = frozenset(database.parents)

    @pytest.hookimpl(tryfirst=True)
    def pytest_collect_directory(self, path: Path, parent: pytest.Collector) -> DataFolder | None:
        """Collect a folder on the way to the database as data, not as tests."""
        return DataFolder.from_parent(parent, path=path) if path in self.folders else None


class DoctorFile(pytest.File):
    """The database file."""

    @classmethod
    def at(cls, parent: pytest.Collector, path: Path) -> DoctorFile:
        """Make the collector of the file at `path`; a path that cannot be printed gets an id that can be."""
        file: DoctorFile = cls.from_parent(parent, path=path)
        if not file.nodeid.isprintable():
            file = cls.from_parent(parent, path=path, nodeid=shown(file.nodeid))
        return file

    def collect(self) -> Iterator[DoctorItem]:
        """Yield one item for each entry of the manifest."""
        examination = self.config.stash[EXAMINATION]
        keywords = examination.manifest.keywords()
        marks = {
            rule.id: [getattr(pytest.mark, name) for name in dict.fromkeys(("doctor", rule.id, rule.marker))]
            for rule in examination.selected
        }
        for entry in examination.entries():
            # The id is given whole: pytest splits one that it reads (from the cache, from a report) at the bracket, and
            # an id made from a name alone would not be equal to it.
            nodeid = f"{self.nodeid}::{entry.name}"
            item: DoctorItem = DoctorItem.from_parent(self, name=entry.name, nodeid=nodeid, entry=entry)
            for mark in marks[entry.rule]:
                item.add_marker(mark)
            # One text an item, shared by all of its subject: -k looks for a word anywhere in it.
            if label := keywords.get(entry.subject.run or entry.subject.experiment or ""):
                item.extra_keyword_matches.add(label)
            yield item


class DoctorItem(pytest.Item):
    """One rule for one subject."""

    def __init__(self, *, entry: Entry, **kwargs: object) -> None:
        """Store the `entry` of the manifest."""
        super().__init__(**kwargs)  # type: ignore[arg-type]
        self.entry = entry
        self.outcome: Outcome | None = None
        self.left_out = False
        """Whether another plugin took it from the list of items without a word."""

    def runtest(self) -> None:
        """Examine the subject.

        Raises:
            FindingsRemainError: Findings are left.
            pytest.skip.Exception: There was nothing to examine, or no time.
            pytest.exit.Exception: The user has stopped the session.
        """
        examination = self.config.stash[EXAMINATION]
        rule = examination.rules[self.entry.rule]
        if self.left_out or not examination.in_time():
            self.outcome = Outcome("skipped", note=LEFT_OUT if self.left_out else OUT_OF_TIME, not_started=True)
            pytest.skip(self.outcome.note)
        try:
            with calling("the examination", Unreadable, bug=True):
                self.outcome = self.config.stash[EXAMINER].examine(rule, self.entry.subject)
        except Misbehaved as raised:
            self.outcome = Outcome("failed", error=str(raised), trace=raised.trace, bug=True)
        except Stopped as stopped:
            if hasattr(self.config, "workerinput"):
                exit_worker_soon()
            pytest.exit(f"doctor: {stopped}", returncode=pytest.ExitCode.INTERRUPTED)
        except Unreadable as unreadable:
            # So it is for every other item: one sentence says it of all.
            self.outcome = Outcome("skipped", note=str(unreadable), not_started=True)
            self.session.shouldfail = f"doctor: {printable(str(unreadable))}"
        if self.outcome.status == "failed":
            traces = self.config.get_verbosity() >= 2
            raise FindingsRemainError(text.failure(self.outcome, rule, examination, traces=traces))
        if self.outcome.status == "skipped":
            pytest.skip(printable(self.outcome.note))

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: object = None) -> object:  # type: ignore[override]  # noqa: ARG002
        """Return the findings alone, without pytest's traceback."""
        if isinstance(excinfo.value, FindingsRemainError):
            return str(excinfo.value)
        return super().repr_failure(excinfo, style="long")

    def reportinfo(self) -> tuple[str, int, str]:
        """Return the path and the name, for the heading of a failure."""
        return shown(str(self.path)), 0, self.name
