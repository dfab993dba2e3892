"""Integrates pytest-xdist: the number of workers, what they are sent, and what happens when one dies."""

from __future__ import annotations

import os
import sys
from collections.abc import Generator, Sequence
from operator import itemgetter
from typing import TYPE_CHECKING

import pytest

from pytest_panic_doctor.compute.memory import available_memory
from pytest_panic_doctor.errors import BadOption
from pytest_panic_doctor.examination.manifest import item_name, rule_of
from pytest_panic_doctor.examination.outcome import Outcome, to_plain
from pytest_panic_doctor.examination.settings import Settings
from pytest_panic_doctor.examination.worker_input import worker_input
from pytest_panic_doctor.formatting import format_size, plural

if TYPE_CHECKING:
    from execnet import XSpec
    from xdist.scheduler import Scheduling
    from xdist.workermanage import WorkerController

    from pytest_panic_doctor.examination.examination import Examination
    from pytest_panic_doctor.repair.cluster.controller import ClusterRepair
    from pytest_panic_doctor.session.dying_workers import WorkerProgress

WORKER_MEMORY = 250_000_000
"""Bytes that a worker and its idle child process need together (measured); with less, a worker cannot compute."""

CONTROLLER_MEMORY = 120_000_000
"""Bytes that the controlling pytest needs."""

REFUSED = ("loadgroup", "loadfile", "loadscope")
"""Distributions that cannot be used with a repair."""

DEATHS_IN_A_ROW = 3
"""Times the number of workers: this many deaths without an item between them end the session."""


def worker_count(config: pytest.Config) -> int:
    """Return the number of xdist workers; 0 if this process runs the items."""
    return len(config.getoption("tx", None) or ())


def worker_limit(settings: Settings) -> tuple[int, str]:
    """Return the greatest number of workers, each with an idle child process, and what limits it.

    More workers than cores compute no faster.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    memory = settings.memory or int(0.8 * available_memory())
    fit = max(1, (memory - CONTROLLER_MEMORY) // WORKER_MEMORY)
    most = settings.max_workers or cores
    limits = [
        (cores, plural(cores, "core")),
        (most, f"--doctor-max-workers {most}"),
        (fit, f"{format_size(memory)} of memory for {fit:,}"),
    ]
    return min(limits, key=itemgetter(0))


def limit_workers(config: pytest.Config, settings: Settings) -> None:
    """Limit the number of workers and choose a distribution, before xdist turns `-n` into workers.

    Raises:
        BadOption: The distribution would hang, or would repeat the deadly item when a worker dies.
    """
    option = config.option
    if option.maxworkerrestart is None:
        # xdist gives up after four deaths a worker, however far apart; see `XdistHooks.pytest_testnodedown`.
        option.maxworkerrestart = str(sys.maxsize)
    if option.dist == "each":
        raise BadOption("--dist each would examine every item once per worker: leave it out, or give --dist worksteal")
    if settings.fix and option.dist in REFUSED:
        raise BadOption(
            f"--dist {option.dist} cannot be used with --doctor-fix: leave it out, or give --dist worksteal"
        )
    if option.numprocesses in (None, 0):
        return
    most, _ = worker_limit(settings)
    option.maxprocesses = min(option.maxprocesses or most, most)
    if option.dist == "no" and not option.distload:
        option.dist = "worksteal"


def describe_workers(config: pytest.Config, settings: Settings) -> str | None:
    """Return `2 workers (64 asked, 2 cores)` for the header; None if nothing is distributed."""
    requested = config.option.numprocesses
    if requested in (None, 0):
        return None
    _, reason = worker_limit(settings)
    count = worker_count(config)
    reasons = f", {reason}" if count < requested else ""
    return f"{plural(count, 'worker')} ({requested} asked{reasons})"


class XdistHooks:
    """Hooks of pytest-xdist; registered only if it is installed, and only in the controller."""

    def __init__(self, examination: Examination, cluster: ClusterRepair | None) -> None:
        """Store the session's `examination` and the connection to a Ray cluster, None if this machine computes."""
        from pytest_panic_doctor.session.dying_workers import WorkerProgress

        self.examination = examination
        self.cluster = cluster
        self.reached: WorkerProgress = WorkerProgress()
        self._collected = False
        self._deaths = 0

    @pytest.hookimpl
    def pytest_xdist_node_collection_finished(self, node: WorkerController, ids: Sequence[str]) -> None:
        """Take the list of items from the first worker, since only the workers collect."""
        del node
        if not self._collected:
            self._collected = True
            self.examination.collect(map(item_name, ids))
            if self.cluster:
                self.cluster.collected()

    @pytest.hookimpl
    def pytest_xdist_setupnodes(self, config: pytest.Config, specs: Sequence[XSpec]) -> None:
        """Let a worker that dies while it starts be started again."""
        from pytest_panic_doctor.session.dying_workers import restart_workers

        del specs
        restart_workers(config.pluginmanager.get_plugin("dsession").nodemanager)  # type: ignore[union-attr]

    @pytest.hookimpl
    def pytest_configure_node(self, node: WorkerController) -> None:
        """Send the examination to a worker, so that all workers collect the same items even if the database changes."""
        from pytest_panic_doctor.session.dying_workers import ignore_send_errors

        node.workerinput["doctor"] = worker_input(self.examination)
        ignore_send_errors(node)

    @pytest.hookimpl(wrapper=True)
    def pytest_xdist_make_scheduler(self) -> Generator[None, Scheduling, Scheduling]:
        """Wrap the chosen scheduler, so that it survives the death of a worker."""
        from pytest_panic_doctor.session.dying_workers import SurvivingScheduling

        return SurvivingScheduling((yield), self.reached)

    @pytest.hookimpl
    def pytest_runtest_logstart(self, nodeid: str) -> None:
        """Note that a worker has begun an item."""
        self.reached.running.add(nodeid)

    @pytest.hookimpl
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note that a worker has reported an item."""
        self._deaths = 0
        if report.when == "teardown" or getattr(report, "doctor", None) is not None:
            self.reached.ended(getattr(report, "node", None), report.nodeid)

    @pytest.hookimpl
    def pytest_testnodedown(self, node: WorkerController, error: object) -> None:
        """End the session with one sentence if workers die without ending an item."""
        if not error:
            return
        self._deaths += 1
        most = DEATHS_IN_A_ROW * (worker_count(node.config) or 1)
        if self._deaths > most:
            session = node.config.pluginmanager.get_plugin("dsession")
            session.shouldstop = (
                f"doctor: the last {self._deaths} workers died before any item ended: free memory, or run without -n"
            )

    @pytest.hookimpl
    def pytest_handlecrashitem(self, crashitem: str, report: pytest.TestReport) -> None:
        """Fail an item whose worker died, with its rule and the reason: nothing is known about it."""
        rule = rule_of(item_name(crashitem))
        if rule not in self.examination.rules:
            return
        note = f"{report.longrepr}: nothing is known about this item; run it again alone"
        report.longrepr = note
        report.doctor = to_plain(rule, Outcome("failed", note=note))  # type: ignore[attr-defined]
