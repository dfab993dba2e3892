"""Hooks of a session that repairs, in the controller and in each xdist worker."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from pytest_panic_doctor.examination.examination import Examination
from pytest_panic_doctor.examination.examiner import Lookahead
from pytest_panic_doctor.session.items import EXAMINER, DoctorItem

if TYPE_CHECKING:
    from pytest_panic_doctor.repair.cluster.controller import ClusterRepair
    from pytest_panic_doctor.repair.controller import RepairController


@dataclass(eq=False)
class RepairPlugin:
    """Lets repairs of a process take the next items along, and a cluster compute while the items run.

    Attributes:
        config: The session's config.
        examination: The session's examination.
        controller: The controller's part of the repair; None in a worker.
        cluster: The connection to a Ray cluster; None if this machine computes, and in a worker.
    """

    config: pytest.Config
    examination: Examination
    controller: RepairController | None = None
    cluster: ClusterRepair | None = None

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Let one repair take the next items along, unless the session may end after any item."""
        examiner = self.config.stash[EXAMINER]
        ends_early = any(self.config.getoption(name, 0) for name in ("maxfail", "stepwise"))
        if examiner.repairer and not ends_early:
            items = (item for item in session.items if isinstance(item, DoctorItem))
            entries = (item.entry for item in items if not item.left_out)
            self.examination.state.later = Lookahead(examiner, entries, self.examination.in_time)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtestloop(self, session: pytest.Session) -> Generator[None, object, object]:
        """Let a cluster compute while the items run."""
        # After an error of the collection, pytest runs no item.
        if self.cluster is None or session.testsfailed:
            return (yield)
        with self.cluster.dispatching():
            if session.items:
                self.cluster.collected()
            return (yield)

    def pytest_keyboard_interrupt(self) -> None:
        """Tell the workers, before xdist waits for them."""
        if self.controller:
            self.controller.run.stop()
