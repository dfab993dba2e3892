"""Hooks that follow the running item in each process, and show in the controller what takes long."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_panic_doctor.database.progress import progress_to
from pytest_panic_doctor.report.activity import ItemActivity, activity_line
from pytest_panic_doctor.report.progress import progress
from pytest_panic_doctor.session.items import DoctorItem

if TYPE_CHECKING:
    from pytest_panic_doctor.database.readahead import ReadAhead
    from pytest_panic_doctor.examination.examination import Examination
    from pytest_panic_doctor.repair.controller import RepairRun


@dataclass(eq=False)
class ActivityPlugin:
    """Follows the items of this process; the controller shows all of it, and what is being computed.

    Attributes:
        config: The session's config.
        examination: The session's examination.
        status: Describes what is done besides; None in a worker, which shows nothing.
        repair_run: What the processes of a repairing session share; None if nothing is repaired, and in a worker.
        activity: Follows the running item; None until the items run.
    """

    config: pytest.Config
    examination: Examination
    status: Callable[[], Sequence[str]] | None = None
    repair_run: RepairRun | None = None
    activity: ItemActivity | None = None

    @pytest.hookimpl(wrapper=True)
    def pytest_runtestloop(self, session: pytest.Session) -> Generator[None, object, object]:
        """Follow the items, and show what they do."""
        # After an error of the collection, pytest runs no item.
        if session.testsfailed:
            return (yield)
        with ExitStack() as stack:
            if session.items:
                self.activity = ItemActivity(Path(self.examination.scratch))
                self.activity.start()
                stack.callback(self.activity.stop)
            if self.status:
                stack.enter_context(progress(self.config, self.examination, self.repair_run, self.status))
            return (yield)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Generator[None, None, None]:
        """Follow one item."""
        if self.activity is None or not isinstance(item, DoctorItem):
            return (yield)
        self.activity.begin(item.name)
        try:
            with progress_to(self.activity):
                return (yield)
        finally:
            self.activity.begin("")


def reading(read_ahead: ReadAhead) -> list[str]:
    """Say how far the database is read into the page cache."""
    known = read_ahead.progress()
    return [activity_line("reading ahead", *known)] if known else []
