"""Workers that die at any moment, of whatever: what pytest-xdist does not expect of them. Imported only where it is.

xdist learns of a death from the end of the worker's output. What it does before that with a worker that is dead already
ends the whole session: a send fails (tests, a request to give some back), or a start. And it blames the first item that
the worker had not ended, though that may be one that it had not begun, or one whose verdict it had told.
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
"""How often a worker is started before the session ends: where a machine has no memory for it, a moment may help."""

PAUSE = 1.0
"""Seconds between two starts."""


@dataclass(slots=True)
class WorkerProgress:
    """How far the workers are, as far as the controller has heard."""

    running: set[str] = field(default_factory=set)
    """The ids of the items that were begun and have not ended."""
    last: dict[object, str] = field(default_factory=dict)
    """The item that each worker has ended last."""

    def ended(self, node: object, nodeid: str) -> None:
        """The verdict of an item is known, whatever becomes of its worker."""
        self.running.discard(nodeid)
        self.last[node] = nodeid


def ignore_send_errors(node: WorkerController) -> None:
    """Let no command to a dead worker end the session: the end of its output, which says that it died, is under way."""
    send = node.sendcommand

    def sendcommand(name: str, **kwargs: object) -> None:
        # The scheduler counts what was sent as the worker's, and takes it back when it hears that it died.
        with suppress(OSError):
            send(name, **kwargs)

    node.sendcommand = sendcommand


def restart_workers(manager: NodeManager) -> None:
    """Let a worker that dies while it starts be started again; pytest ends, in one sentence, where none can be."""
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
    """One of xdist's schedulers, which then names the item that a worker died of, and hands on all others.

    A worker gets its first items when it has collected, and not before.
    """

    def __init__(self, inner: Scheduling, reached: WorkerProgress) -> None:
        """`reached` is kept by whoever hears the workers."""
        self.inner = inner
        self.reached = reached
        self._collecting: list[WorkerController] = []

    def __getattr__(self, name: str) -> object:
        """What other plugins read of a scheduler beside xdist's interface: pytest-rerunfailures asks for `config`."""
        if name == "inner":  # before it is set: no endless search
            raise AttributeError(name)
        return getattr(self.inner, name)

    @property
    def nodes(self) -> list[WorkerController]:
        """All workers that are up."""
        return [*self.inner.nodes, *self._collecting]

    @property
    def collection_is_completed(self) -> bool:
        """Whether the first workers have collected."""
        return bool(self.inner.collection_is_completed)

    @property
    def tests_finished(self) -> bool:
        """Whether every item was sent to a worker that will run it."""
        return bool(self.inner.tests_finished)

    @property
    def has_pending(self) -> bool:
        """Whether items are left."""
        return bool(self.inner.has_pending)

    def add_node(self, node: WorkerController) -> None:
        """A worker is up, and begins to collect."""
        self._collecting.append(node)

    def add_node_collection(self, node: WorkerController, collection: Sequence[str]) -> None:
        """A worker has collected."""
        self._collecting.remove(node)
        self.inner.add_node(node)
        if not self.inner.collection_is_completed or getattr(self.inner, "collection", True):
            self.inner.add_node_collection(node, collection)

    def schedule(self) -> None:
        """Hand out items: to a worker that came later two at once, for it begins one when it knows the next."""
        begun = getattr(self.inner, "collection", None) is not None
        self.inner.schedule()
        if begun:
            self.inner.schedule()

    def mark_test_complete(self, node: WorkerController, item_index: int, duration: float = 0) -> None:
        """A worker has ended an item."""
        self.inner.mark_test_complete(node, item_index, duration)

    def mark_test_pending(self, item: str) -> None:
        """An item is to be run again."""
        self.inner.mark_test_pending(item)

    def remove_pending_tests_from_node(self, node: WorkerController, indices: Sequence[int]) -> None:
        """A worker has given items back."""
        self.inner.remove_pending_tests_from_node(node, indices)

    def remove_node(self, node: WorkerController) -> str | None:
        """A worker is gone: the item that it died of, None where it ran none. Its other items are handed on."""
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
        """The same for schedulers that would hand on the item that killed, to kill again."""
        died_of: str | None = None
        units = inner.assigned_work.get(node, {})
        for unit in units.values():
            for nodeid, completed in unit.items():
                if not completed and nodeid in self.reached.running:
                    died_of = nodeid
                if nodeid == died_of or nodeid == self.reached.last.get(node):
                    unit[nodeid] = True
        # An empty unit would be handed to a worker of which nothing is heard then, and which so gets no other.
        for scope in [scope for scope, unit in units.items() if all(unit.values())]:
            del units[scope]
        inner.remove_node(node)
        return died_of
