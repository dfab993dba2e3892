"""Hooks of every process that collects or runs items: the controller, and each xdist worker."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from pathlib import Path

import pytest

from pytest_panic_doctor.examination.examination import Examination
from pytest_panic_doctor.examination.outcome import to_plain
from pytest_panic_doctor.examination.parsing import absolute
from pytest_panic_doctor.report import text
from pytest_panic_doctor.session.item_reports import agree, combined_outcome
from pytest_panic_doctor.session.items import DoctorFile, DoctorItem


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
                report.sections.append(("fixed", text.repaired(outcome)))
            agree(report, outcome.status, outcome.note or outcome.error)
        if report.when == "teardown":
            item.outcome = None
        return report
