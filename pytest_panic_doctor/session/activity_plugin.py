"""Hooks that follow the running item in each process, and show in the controller what takes long."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import ExitStack
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


class ActivityPlugin:
    """Follows the items of this process; the controller of a session that repairs nothing shows all of it."""

    def __init__(
        self,
        config: pytest.Config,
        examination: Examination,
        read_ahead: ReadAhead | None = None,
        *,
        shows: bool = False,
    ) -> None:
        """Store what the hooks need.

        Args:
            config: The session's config.
            examination: The session's examination.
            read_ahead: Reads the database into the page cache; None in a worker.
            shows: Whether this process shows what all of them do.
        """
        self.config = config
        self.examination = examination
        self.read_ahead = read_ahead
        self.shows = shows
        self.activity: ItemActivity | None = None

    @pytest.hookimpl(wrapper=True)
    def pytest_runtestloop(self, session: pytest.Session) -> Generator[None, object, object]:
        """Follow the items, and show what they do."""
        if session.testsfailed or not self.examination.scratch:
            return (yield)
        with ExitStack() as stack:
            if session.items:
                self.activity = ItemActivity(Path(self.examination.scratch))
                self.activity.start()
                stack.callback(self.activity.stop)
            if self.shows:
                stack.enter_context(progress(self.config, self.examination, None, self.reading))
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

    def reading(self) -> list[str]:
        """Say how far the database is read into the page cache."""
        known = self.read_ahead.progress() if self.read_ahead else None
        if known is None:
            return []
        done, size, seconds = known
        return [activity_line("reading ahead", done, size, seconds)]
