"""The database as pytest sees it: a file, and an item for each (rule, subject)."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_panic_doctor.database.connection import Unreadable
from pytest_panic_doctor.errors import Stopped
from pytest_panic_doctor.examination.examiner import Outcome
from pytest_panic_doctor.examination.foreign_code import Misbehaved, calling
from pytest_panic_doctor.formatting import printable
from pytest_panic_doctor.report import text
from pytest_panic_doctor.session.options import absolute

if TYPE_CHECKING:
    from pytest_panic_doctor.examination.acceptance import AcceptancePolicy
    from pytest_panic_doctor.examination.examination import Examination
    from pytest_panic_doctor.examination.examiner import Examiner
    from pytest_panic_doctor.examination.manifest import Entry

EXAMINATION: pytest.StashKey[Examination] = pytest.StashKey()
EXAMINER: pytest.StashKey[Examiner] = pytest.StashKey()
ACCEPTANCE: pytest.StashKey[AcceptancePolicy] = pytest.StashKey()


class FindingsRemainError(Exception):
    """An item whose findings are left; carries the text that a person reads."""


def exit_worker_soon() -> None:
    """End this worker a second from now, whatever other plugins still want to do: the user has pressed Ctrl-C.

    Its child is gone by now and no transaction is open, so there is nothing that it could still save.
    """
    timer = threading.Timer(1.0, os._exit, (int(pytest.ExitCode.INTERRUPTED),))
    timer.daemon = True
    timer.start()


def shown(path: str) -> str:
    """A path for a terminal, where pytest prints it as it is: what moves a cursor is replaced."""
    return "".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in path)


class DataFolder(pytest.File):
    """A folder outside of the project, on the way to the database; pytest loads code from folders of tests alone."""

    def collect(self) -> Iterator[pytest.Item | pytest.Collector]:
        """What the command line names in it, and the database."""
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
    """The hook that lets the folder of a database bring no code; registered where it is outside of the project."""

    def __init__(self, database: Path) -> None:
        """As it is collected."""
        self.folders = frozenset(database.parents)

    @pytest.hookimpl(tryfirst=True)
    def pytest_collect_directory(self, path: Path, parent: pytest.Collector) -> DataFolder | None:
        """A folder on the way to it is none of tests."""
        return DataFolder.from_parent(parent, path=path) if path in self.folders else None


class DoctorFile(pytest.File):
    """The database file."""

    @classmethod
    def at(cls, parent: pytest.Collector, path: Path) -> DoctorFile:
        """The file at a path; where that could not be printed as it is, it has an id that can be."""
        file: DoctorFile = cls.from_parent(parent, path=path)
        if not file.nodeid.isprintable():
            file = cls.from_parent(parent, path=path, nodeid=shown(file.nodeid))
        return file

    def collect(self) -> Iterator[DoctorItem]:
        """One item an entry of the manifest."""
        examination = self.config.stash[EXAMINATION]
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
            if label := examination.labels.get(entry.subject.run or entry.subject.experiment or ""):
                item.extra_keyword_matches.add(label)
            yield item


class DoctorItem(pytest.Item):
    """One rule, one subject."""

    def __init__(self, *, entry: Entry, **kwargs: object) -> None:
        """`entry` is the manifest's."""
        super().__init__(**kwargs)  # type: ignore[arg-type]
        self.entry = entry
        self.outcome: Outcome | None = None

    def runtest(self) -> None:
        """Examine; raise `FindingsRemainError` where findings are left, skip where there was nothing to look at."""
        examination = self.config.stash[EXAMINATION]
        rule = examination.rules[self.entry.rule]
        if not examination.in_time():
            self.outcome = Outcome(
                "skipped", note="not started: the time of --doctor-budget was over", not_started=True
            )
            pytest.skip(self.outcome.note)
        try:
            with calling("the examination", Unreadable, bug=True):
                outcome = self.config.stash[EXAMINER].examine(rule, self.entry.subject)
                self.outcome = self.config.stash[ACCEPTANCE].apply(rule.id, self.entry.name, outcome)
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
        """The findings alone, without pytest's traceback."""
        if isinstance(excinfo.value, FindingsRemainError):
            return str(excinfo.value)
        return super().repr_failure(excinfo, style="long")

    def reportinfo(self) -> tuple[str, int, str]:
        """Where the item is, for the heading of its failure."""
        return shown(str(self.path)), 0, self.name
