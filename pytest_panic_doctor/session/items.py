"""The database as pytest sees it: a file, an item for each rule and subject, and how each item is run and reported.

Exit status, terminal and JUnit file come from pytest's reports, the JSON report and the page from the outcomes that
travel on them. `agree` keeps a mark or a hook of another plugin from making them differ.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Generator, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_panic_doctor.database.connection import Unreadable
from pytest_panic_doctor.errors import Stopped
from pytest_panic_doctor.examination.foreign_code import Misbehaved, calling
from pytest_panic_doctor.examination.outcome import Outcome, to_plain
from pytest_panic_doctor.examination.parsing import absolute
from pytest_panic_doctor.formatting import printable
from pytest_panic_doctor.report.findings import failure_text, repaired_text
from pytest_panic_doctor.session.failures import FindingsText

if TYPE_CHECKING:
    from pytest_panic_doctor.examination.examination import Examination
    from pytest_panic_doctor.examination.examiner import Examiner
    from pytest_panic_doctor.examination.manifest import Entry

EXAMINATION: pytest.StashKey[Examination] = pytest.StashKey()
EXAMINER: pytest.StashKey[Examiner] = pytest.StashKey()


LEFT_OUT = "not started: another plugin or a conftest.py left it out"
OUT_OF_TIME = "not started: the time of --doctor-budget was over"
UNEXAMINED = "something else failed before the item began, so nothing is known about it"
"""The error of an item that never began."""
TORN_DOWN = "something else failed when the item had ended"
"""The error of an item whose teardown failed."""


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
            raise FindingsRemainError(failure_text(self.outcome, rule, examination, traces=traces))
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


class ExaminationPlugin:
    """Collects the database, runs its items, and puts each outcome on pytest's report."""

    def __init__(self, config: pytest.Config, examination: Examination) -> None:
        """Store the session's config and its examination."""
        self.config = config
        self.examination = examination
        self.deselected: set[pytest.Item] = set()

    def pytest_collect_file(self, file_path: Path, parent: pytest.Collector) -> DoctorFile | None:
        """Collect the database as a file of tests."""
        if absolute(file_path) == self.examination.settings.database:
            return DoctorFile.at(parent, file_path)
        return None

    def pytest_deselected(self, items: Sequence[pytest.Item]) -> None:
        """Remember the items that were left out by -k, -m or a plugin that says so: pytest counts them."""
        self.deselected.update(items)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> Generator[None, None, None]:
        """Bring back the items that a plugin removed from the list without saying so: they are skipped, with a reason.

        Otherwise a session would be green although nobody examined them.
        """
        before = list(items)
        yield
        removed = set(before) - set(items) - self.deselected
        for item in before:
            if item in removed and isinstance(item, DoctorItem):
                item.left_out = True
                items.append(item)

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Restrict repairs to the rules of the collected items, also for an item that needs another rule first."""
        items = (item for item in session.items if isinstance(item, DoctorItem))
        self.examination.collect(item.name for item in items if not item.left_out)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item, nextitem: pytest.Item | None) -> object:
        """Run a doctor item once, by pytest's own protocol, even if a plugin would run a failed item again.

        A database is not flaky: a second run would find the same, and every run would be counted.
        """
        if not isinstance(item, DoctorItem):
            return None
        runner = self.config.pluginmanager.get_plugin("runner")
        assert runner is not None
        return runner.pytest_runtest_protocol(item=item, nextitem=nextitem)

    @pytest.hookimpl(optionalhook=True)
    def pytest_timeout_set_timer(self, item: pytest.Item) -> bool | None:
        """Keep pytest-timeout's clock from a doctor item: a diagram may take hours, and has `--doctor-timeout`."""
        return True if isinstance(item, DoctorItem) else None

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_makereport(self, item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Put the outcome on the report, as plain values, so that it reaches the controller."""
        report = yield
        if not isinstance(item, DoctorItem):
            return report
        if report.when == "call" or not report.passed:
            outcome = combined_outcome(item.outcome, report)
            report.doctor = to_plain(item.entry.rule, outcome)  # type: ignore[attr-defined]
            if outcome.status == "fixed":
                report.sections.append(("fixed", repaired_text(outcome)))
            agree(report, outcome.status, outcome.note or outcome.error)
        if report.when == "teardown":
            item.outcome = None
        return report


def combined_outcome(outcome: Outcome | None, report: pytest.TestReport) -> Outcome:
    """Combine the outcome of an item with pytest's report of it.

    Args:
        outcome: The outcome of the examination; None if the item was not examined.
        report: Pytest's report of one phase of the item.

    Returns:
        The outcome; failed if a fixture or a hook failed, skipped if a mark or a hook skipped the item.
    """
    if report.when == "teardown":
        return replace(outcome or Outcome("failed"), status="failed", error=TORN_DOWN)
    if outcome is not None:
        return outcome
    if report.skipped:
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else getattr(report, "wasxfail", "")
        return Outcome("skipped", note=str(reason).removeprefix("Skipped: ") or "skipped by a mark or a hook")
    return Outcome("failed", error=UNEXAMINED)


def agree(report: pytest.TestReport, word: str, why: str) -> None:
    """Make pytest's report agree with the outcome, even if a mark or a hook has changed the report.

    Args:
        report: The report, which is changed.
        word: The status of the outcome.
        why: The reason, for a report that is made skipped or failed.
    """
    wanted = word if word in ("failed", "skipped") else "passed"
    marked = vars(report).pop("wasxfail", None) is not None
    if wanted == "skipped":
        report.longrepr = (report.nodeid.split("::")[0], 1, f"Skipped: {why}")
    if report.outcome == wanted and not marked:
        return
    report.outcome = wanted  # type: ignore[assignment]
    if wanted == "passed":
        report.longrepr = None
    elif wanted == "failed" and not isinstance(report.longrepr, str | FindingsText):
        report.longrepr = why or "this item failed"
