"""A pytest plugin that kills workers at chosen moments: in the controller right before it sends, or in the worker.

`DYING` is JSON: a moment for each worker's id. A worker that another is to wait for comes to its first item and then
waits until every moment has come.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

if TYPE_CHECKING:
    from execnet import Gateway
    from xdist.workermanage import WorkerController

MOMENTS: dict[str, str] = json.loads(os.environ.get("DYING", "{}"))
HERE = os.environ.get("PYTEST_XDIST_WORKER", "")
STARTED: dict[str, int] = {}
"""The pids of the workers, in the controller."""


def mark(worker: str) -> None:
    """Note that a moment has come."""
    Path(f"died-{worker}").touch()


def kill(worker: str, number: signal.Signals = signal.SIGKILL) -> None:
    """Kill a worker, and go on when it is dead and its pipes are closed."""
    mark(worker)
    process = psutil.Process(STARTED[worker])
    process.send_signal(number)
    with suppress(psutil.NoSuchProcess):
        while number == signal.SIGKILL and process.status() != psutil.STATUS_ZOMBIE:
            time.sleep(0.01)


def at(worker: str, moment: str) -> bool:
    """Whether this worker dies now."""
    return MOMENTS.get(worker) == moment and not Path(f"died-{worker}").exists()


def die(moment: str) -> None:
    """In a worker: die, if it is the moment."""
    if at(HERE, moment):
        mark(HERE)
        os.kill(os.getpid(), signal.SIGKILL)


class Controller:
    """Kills from without."""

    @pytest.hookimpl
    def pytest_xdist_newgateway(self, gateway: Gateway) -> None:
        mine = psutil.Process().children()
        STARTED[gateway.id] = max(mine, key=lambda each: (each.create_time(), each.pid)).pid
        if at(gateway.id, "gateway"):
            kill(gateway.id)

    @pytest.hookimpl(tryfirst=True)
    def pytest_configure_node(self, node: WorkerController) -> None:
        worker = node.gateway.id
        if at(worker, "configure"):
            kill(worker)
        node.sendcommand = self.before(worker, node.sendcommand)

    @staticmethod
    def before(worker: str, send: Callable[..., None]) -> Callable[..., None]:
        """Kill right before a command is sent."""

        def sendcommand(name: str, **kwargs: object) -> None:
            if at(worker, name):
                kill(worker)
            if at(worker, f"stopped {name}"):
                kill(worker, signal.SIGSTOP)
                send(name, **kwargs)
                psutil.Process(STARTED[worker]).kill()
                return
            send(name, **kwargs)

        return sendcommand

    @pytest.hookimpl
    def pytest_testnodeready(self, node: WorkerController) -> None:
        if at(node.gateway.id, "ready"):
            kill(node.gateway.id)

    @pytest.hookimpl
    def pytest_xdist_node_collection_finished(self, node: WorkerController) -> None:
        if at(node.gateway.id, "collected"):
            kill(node.gateway.id)


class Worker:
    """Dies by itself."""

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionstart(self) -> None:
        die("session")

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_finish(self) -> None:
        die("collecting")

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_logstart(self) -> Generator[None, None, None]:
        die("before an item")
        yield
        die("item begun")

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self) -> Iterator[None]:
        if os.environ.get("WAITS") == HERE:
            for _ in range(3000):
                if all(Path(f"died-{worker}").exists() for worker in MOMENTS):
                    break
                time.sleep(0.01)
        yield
        die("item")

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> Generator[None, None, None]:
        yield
        if report.when == "call":
            die("verdict told")
        if report.when == "teardown":
            die("item ended")

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self) -> None:
        die("end")


def pytest_configure(config: pytest.Config) -> None:
    """As a conftest or with `-p dying`."""
    config.pluginmanager.register(Worker() if HERE else Controller(), "killing-workers")
