"""Keeps a session alive when xdist workers die. Imported only if pytest-xdist is installed.

xdist learns that a worker died from the end of its output. Before that, a command to a dead worker, or a start that
fails, would end the session. And xdist blames the first item that the worker had not ended: this may be an item that it
had not begun, or one that it had already reported.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import execnet
import pytest
from xdist.scheduler import LoadScopeScheduling, Scheduling
from xdist.workermanage import NodeManager, WorkerController

STARTS = 3
"""How often a worker is started before the session ends: memory may be free again after a moment."""

PAUSE = 1.0
"""Seconds between two starts."""


@dataclass(slots=True)
class WorkerProgress:
    """The progress of all workers, according to the reports that have arrived."""

    running: set[str] = field(default_factory=set)
    """The ids of the items that were begun and have not ended."""
    last: dict[object, str] = field(default_factory=dict)
    """The item that each worker has ended last."""

    def ended(self, node: object, nodeid: str) -> None:
        """Note that a worker has reported an item."""
        self.running.discard(nodeid)
        self.last[node] = nodeid


def ignore_send_errors(node: WorkerController) -> None:
    """Ignore errors of commands to a dead worker; the end of its output will report that it died."""
    send = node.sendcommand

    def sendcommand(name: str, **kwargs: object) -> None:
        # The scheduler counts what was sent as the worker's, and takes it back when it hears that it died.
        with suppress(OSError):
            send(name, **kwargs)

    node.sendcommand = sendcommand


def restart_workers(manager: NodeManager) -> None:
    """Start a worker again if it dies while it starts; end pytest with one sentence after `STARTS` attempts."""
    setup_node = manager.setup_node

    def again(spec: execnet.XSpec, putevent: Callable[[tuple[str, dict[str, object]]], None]) -> WorkerController:
        for left in reversed(range(STARTS)):
            try:
                return setup_node(spec, putevent)
            except (OSError, EOFError, execnet.HostNotFound) as error:
                if not left:
                    why = getattr(error, "strerror", None) or "it died at once"
                    pytest.exit(f"doctor: no worker could be started ({why}): free memory, or run without -n", 1)
                time.sleep(PAUSE)
                spec.id = None
                manager.group.allocate_id(spec)
        raise AssertionError

    manager.setup_node = again


class SurvivingScheduling:
    """Wraps a scheduler of xdist: names the item that a worker died of, and reschedules all others.

    A worker gets its first items only after it has collected.
    """

    def __init__(self, inner: Scheduling, reached: WorkerProgress) -> None:
        """Wrap the scheduler `inner`; `reached` is updated by the hooks that receive reports."""
        self.inner = inner
        self.reached = reached
        self._collecting: list[WorkerController] = []

    def __getattr__(self, name: str) -> object:
        """Return what the scheduler itself has: the rest of the interface, and what other plugins read."""
        if name == "inner":  # before it is set: no endless search
            raise AttributeError(name)
        return getattr(self.inner, name)

    @property
    def nodes(self) -> list[WorkerController]:
        """All workers that are up."""
        return [*self.inner.nodes, *self._collecting]

    def add_node(self, node: WorkerController) -> None:
        """Note a worker that is up and begins to collect."""
        self._collecting.append(node)

    def add_node_collection(self, node: WorkerController, collection: Sequence[str]) -> None:
        """Hand a worker that has collected to the scheduler."""
        self._collecting.remove(node)
        self.inner.add_node(node)
        if not self.inner.collection_is_completed or getattr(self.inner, "collection", True):
            self.inner.add_node_collection(node, collection)

    def schedule(self) -> None:
        """Send items to the workers.

        A worker that was started later gets two rounds, because a worker begins an item only when it knows the next.
        """
        begun = getattr(self.inner, "collection", None) is not None
        self.inner.schedule()
        if begun:
            self.inner.schedule()

    def remove_node(self, node: WorkerController) -> str | None:
        """Remove a worker that has ended, and reschedule its other items.

        Returns:
            The item that the worker died of; None if it ran none.
        """
        if node in self._collecting:
            self._collecting.remove(node)
            return None
        if isinstance(self.inner, LoadScopeScheduling):
            return self._remove_from_scopes(self.inner, node)
        first: str | None = self.inner.remove_node(node)
        if first is None or first == self.reached.last.get(node):
            return None
        if first in self.reached.running:
            return first
        self.inner.mark_test_pending(first)
        return None

    def _remove_from_scopes(self, inner: LoadScopeScheduling, node: WorkerController) -> str | None:
        """Remove a worker from a scheduler by scope, which would otherwise run the deadly item again."""
        died_of: str | None = None
        units = inner.assigned_work.get(node, {})
        for unit in units.values():
            for nodeid, completed in unit.items():
                if not completed and nodeid in self.reached.running:
                    died_of = nodeid
                if nodeid == died_of or nodeid == self.reached.last.get(node):
                    unit[nodeid] = True
        # A worker that is sent an empty unit reports nothing, so it would get no further unit.
        for scope in [scope for scope, unit in units.items() if all(unit.values())]:
            del units[scope]
        inner.remove_node(node)
        return died_of
