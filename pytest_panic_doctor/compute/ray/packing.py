"""What a task asks of a cluster, and how many may be in flight."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pytest_panic_doctor.compute.budget import GRANT_MARGIN, MOST_HEADROOM

WORKER = 130_000_000
"""Bytes of a Ray worker and of the process that watches in it, before the child; measured: 92 MB idle, 112 at work."""

SPARE_STORE = 0.5
"""The part of a node's object store that clouds in flight may take: more would be spilled to its disk."""

FEWEST_WAITING = 2
"""Tasks that wait on the cluster, so that no node is idle while the next cloud is loaded; or one for each 4 cores."""


@dataclass(frozen=True, slots=True)
class Node:
    """What a node has in all: cores, bytes for tasks, bytes of its object store."""

    cores: int
    memory: int
    store: int


@dataclass(frozen=True, slots=True)
class ResourceRequest:
    """What a task asks for: cores, bytes, and bytes of its cloud in the object store."""

    cores: int
    memory: int
    store: int = 0


def memory_request(child: int) -> int:
    """The bytes that a task asks for so that its child can grow to `child` bytes before its watcher says no."""
    return int((child + WORKER + 2 * GRANT_MARGIN) / (1 - MOST_HEADROOM))


def largest_memory(nodes: Iterable[Node]) -> int:
    """Bytes of the largest node; 0 where there is none."""
    return max((node.memory for node in nodes), default=0)


def total_cores(nodes: Iterable[Node]) -> int:
    """The cores of all nodes."""
    return sum(node.cores for node in nodes)


def threads_for(nodes: Sequence[Node], left: int) -> int:
    """Threads for each task: one, as long as there are diagrams enough to keep every core busy so."""
    most = max((node.cores for node in nodes), default=1)
    return max(1, min(most, total_cores(nodes) // max(1, left)))


def fits(request: ResourceRequest, nodes: Iterable[Node]) -> bool:
    """Whether some node could run it, were it empty."""
    return any(request.cores <= node.cores and request.memory <= node.memory for node in nodes)


def count_waiting(submitted: Iterable[ResourceRequest], nodes: Sequence[Node]) -> int:
    """How many of the tasks in flight cannot run yet: the first node with room takes each, in the order given."""
    free = [[node.cores, node.memory] for node in nodes]
    left = 0
    for request in submitted:
        for room in free:
            if request.cores <= room[0] and request.memory <= room[1]:
                room[0] -= request.cores
                room[1] -= request.memory
                break
        else:
            left += 1
    return left


def has_room(submitted: Sequence[ResourceRequest], nodes: Sequence[Node]) -> bool:
    """Whether one more task may be put in flight: back-pressure follows the cluster as it is now."""
    if not nodes:
        return False
    store = min(node.store for node in nodes) * SPARE_STORE
    if submitted and sum(request.store for request in submitted) >= store:
        return False
    return count_waiting(submitted, nodes) < max(FEWEST_WAITING, math.ceil(total_cores(nodes) / 4))
