"""All that knows pytest-xdist: how many workers, what they are told, and what happens when one dies."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Collection, Generator, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from pytest_panic_doctor.errors import BadOption
from pytest_panic_doctor.examination.examiner import Outcome
from pytest_panic_doctor.examination.manifest import item_name, rule_of
from pytest_panic_doctor.examination.result import to_plain
from pytest_panic_doctor.examination.settings import Settings
from pytest_panic_doctor.session.items import EXAMINATION

if TYPE_CHECKING:
    from execnet import XSpec
    from xdist.scheduler import Scheduling
    from xdist.workermanage import WorkerController

    from pytest_panic_doctor.session.dying_workers import WorkerProgress

WORKER_MEMORY = 250_000_000
"""Bytes that a worker and its idle child need between them, measured: below that a worker could not compute at all."""

CONTROLLER_MEMORY = 120_000_000
"""Bytes of the controlling pytest."""

REFUSED = ("loadgroup", "loadfile", "loadscope")

DEATHS_IN_A_ROW = 3
"""Times the number of workers: so many deaths with no item between them end the session."""


@dataclass(frozen=True, slots=True)
class Limit:
    """One reason for not having more workers."""

    workers: int
    reason: str


Provider = Callable[[Settings], Limit | None]


def core_limit(_: Settings) -> Limit | None:
    """A worker computes, so more workers than cores only fight."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return Limit(cores, f"{cores} core{'s' if cores != 1 else ''}")


def option_limit(settings: Settings) -> Limit | None:
    """`--doctor-max-workers`."""
    most = settings.max_workers
    return Limit(most, f"--doctor-max-workers {most}") if most else None


def memory_limit(settings: Settings) -> Limit | None:
    """As many workers as fit, with an idle child each, into the memory that was given."""
    from pytest_panic_doctor.compute.memory import available_memory
    from pytest_panic_doctor.formatting import format_size

    memory = settings.memory or int(0.8 * available_memory())
    fit = max(1, (memory - CONTROLLER_MEMORY) // WORKER_MEMORY)
    return Limit(fit, f"{format_size(memory)} of memory for {fit:,}")


PROVIDERS: tuple[Provider, ...] = (core_limit, option_limit, memory_limit)


def worker_limit(settings: Settings) -> Limit:
    """The smallest of all limits, and its reason."""
    limits = [limit for provider in PROVIDERS if (limit := provider(settings))]
    return min(limits, key=lambda limit: limit.workers)


def limit_workers(config: pytest.Config, settings: Settings) -> None:
    """Cap the number of workers and choose a distribution, before xdist turns `-n` into workers.

    Raises `BadOption` for a distribution that hangs or repeats the killer when a worker dies.
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
    limit = worker_limit(settings)
    option.maxprocesses = min(option.maxprocesses or limit.workers, limit.workers)
    if option.dist == "no" and not option.distload:
        option.dist = "worksteal"


def describe_workers(config: pytest.Config, settings: Settings) -> str | None:
    """`2 workers (64 asked, 2 cores)` for the header; None where nothing is distributed."""
    asked = config.option.numprocesses
    if asked in (None, 0):
        return None
    limit = worker_limit(settings)
    count = len(config.option.tx or ())
    noun = f"{count} worker{'s' if count != 1 else ''}"
    return f"{noun} ({asked} asked, {limit.reason})" if count < asked else f"{noun} ({asked} asked)"


class XdistHooks:
    """Registered only where pytest-xdist is, and only in the controller."""

    def __init__(self, rules: Collection[str], collected: Callable[[Iterable[str]], None]) -> None:
        """`rules` are the ids of all rules; `collected` is told what the first worker collected, as all others do."""
        from pytest_panic_doctor.session.dying_workers import WorkerProgress

        self.rules = rules
        self.collected = collected
        self.reached: WorkerProgress = WorkerProgress()
        self._told = False
        self._deaths = 0

    @pytest.hookimpl
    def pytest_xdist_node_collection_finished(self, node: WorkerController, ids: Sequence[str]) -> None:
        """Only the workers collect."""
        del node
        if not self._told:
            self._told = True
            self.collected(ids)

    @pytest.hookimpl
    def pytest_xdist_setupnodes(self, config: pytest.Config, specs: Sequence[XSpec]) -> None:
        """Where a worker dies while it starts, start another."""
        from pytest_panic_doctor.session.dying_workers import restart_workers

        del specs
        restart_workers(config.pluginmanager.get_plugin("dsession").nodemanager)  # type: ignore[union-attr]

    @pytest.hookimpl
    def pytest_configure_node(self, node: WorkerController) -> None:
        """Hand the session to a worker, so that all collect the same items whatever happens to the database."""
        from pytest_panic_doctor.session.dying_workers import ignore_send_errors

        examination = node.config.stash[EXAMINATION]
        examination.workers = len(node.config.option.tx or ()) or 1
        node.workerinput["doctor"] = examination.for_worker()
        ignore_send_errors(node)

    @pytest.hookimpl(wrapper=True)
    def pytest_xdist_make_scheduler(self) -> Generator[None, Scheduling, Scheduling]:
        """The scheduler that was chosen, for workers that may die at any moment."""
        from pytest_panic_doctor.session.dying_workers import SurvivingScheduling

        return SurvivingScheduling((yield), self.reached)

    @pytest.hookimpl
    def pytest_runtest_logstart(self, nodeid: str) -> None:
        """A worker has begun an item."""
        self.reached.running.add(nodeid)

    @pytest.hookimpl
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """A worker has told what an item came to."""
        self._deaths = 0
        if report.when == "teardown" or getattr(report, "doctor", None) is not None:
            self.reached.ended(getattr(report, "node", None), report.nodeid)

    @pytest.hookimpl
    def pytest_testnodedown(self, node: WorkerController, error: object) -> None:
        """End the session, in one sentence, where workers do nothing but die."""
        if not error:
            return
        self._deaths += 1
        most = DEATHS_IN_A_ROW * (len(node.config.option.tx or ()) or 1)
        if self._deaths > most:
            session = node.config.pluginmanager.get_plugin("dsession")
            session.shouldstop = (
                f"doctor: the last {self._deaths} workers died before any item ended: free memory, or run without -n"
            )

    @pytest.hookimpl
    def pytest_handlecrashitem(self, crashitem: str, report: pytest.TestReport) -> None:
        """An item whose worker died is an item of which nothing is known: failed, with its rule and the reason."""
        rule = rule_of(item_name(crashitem))
        if rule not in self.rules:
            return
        note = f"{report.longrepr}: nothing is known about this item; run it again alone"
        report.longrepr = note
        report.doctor = to_plain(rule, Outcome("failed", note=note))  # type: ignore[attr-defined]
