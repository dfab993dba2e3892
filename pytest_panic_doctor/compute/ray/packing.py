"""Resources of a cluster: what a task requests, and how many tasks may be submitted."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pytest_panic_doctor.compute.budget import GRANT_MARGIN, MOST_HEADROOM

WORKER = 130_000_000
"""Bytes of a Ray worker with the watching process, without the child; measured: 92 MB idle, 112 MB busy."""

SPARE_STORE = 0.5
"""Fraction of a node's object store that submitted clouds may take; more would be spilled to disk."""

FEWEST_WAITING = 2
"""Tasks kept waiting on the cluster, so that no node is idle while the next cloud loads; at least 1 per 4 cores."""


@dataclass(frozen=True, slots=True)
class Node:
    """Total resources of a node: cores, bytes for tasks, bytes of its object store."""

    cores: int
    memory: int
    store: int


@dataclass(frozen=True, slots=True)
class ResourceRequest:
    """Resources that a task requests: cores, bytes, and bytes of its cloud in the object store."""

    cores: int
    memory: int
    store: int = 0


def memory_request(child: int) -> int:
    """Bytes that a task requests so that its child can grow to `child` bytes."""
    return int((child + WORKER + 2 * GRANT_MARGIN) / (1 - MOST_HEADROOM))


def largest_memory(nodes: Iterable[Node]) -> int:
    """Bytes of the largest node; 0 without nodes."""
    return max((node.memory for node in nodes), default=0)


def total_cores(nodes: Iterable[Node]) -> int:
    """Cores of all nodes."""
    return sum(node.cores for node in nodes)


def threads_for(nodes: Sequence[Node], left: int) -> int:
    """Threads for each task: one, while enough diagrams are left to keep every core busy."""
    most = max((node.cores for node in nodes), default=1)
    return max(1, min(most, total_cores(nodes) // max(1, left)))


def fits(request: ResourceRequest, nodes: Iterable[Node]) -> bool:
    """Whether an empty node could run the task."""
    return any(request.cores <= node.cores and request.memory <= node.memory for node in nodes)


def count_waiting(submitted: Iterable[ResourceRequest], nodes: Sequence[Node]) -> int:
    """Number of submitted tasks that cannot run yet, if each takes the first node with room, in the given order."""
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
    """Whether one more task may be submitted."""
    if not nodes:
        return False
    store = min(node.store for node in nodes) * SPARE_STORE
    if submitted and sum(request.store for request in submitted) >= store:
        return False
    return count_waiting(submitted, nodes) < max(FEWEST_WAITING, math.ceil(total_cores(nodes) / 4))
