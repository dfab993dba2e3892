"""What fits on a cluster, and how many tasks may be submitted."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pytest_panic_doctor.compute.budget import GRANT_MARGIN, headroom
from pytest_panic_doctor.compute.ray.packing import (
    FEWEST_WAITING,
    WORKER,
    Node,
    ResourceRequest,
    count_waiting,
    fits,
    has_room,
    memory_request,
    threads_for,
    total_cores,
)

GB = 10**9
NODES = st.lists(
    st.builds(Node, st.integers(1, 64), st.integers(1, 64).map(lambda size: size * GB), st.just(10 * GB)), max_size=8
)
ASKS = st.lists(
    st.builds(ResourceRequest, st.integers(1, 4), st.integers(1, 32).map(lambda size: size * GB // 2)), max_size=80
)


def in_flight(nodes: list[Node], ask: ResourceRequest) -> int:
    """How many tasks are submitted before back-pressure stops more."""
    flights: list[ResourceRequest] = []
    while has_room(flights, nodes):
        flights.append(ask)
    return len(flights)


def test_the_number_in_flight_follows_the_cluster() -> None:
    task, node = ResourceRequest(1, 2 * GB), Node(16, 64 * GB, 10 * GB)
    assert in_flight([node], task) == 16 + 4
    assert in_flight([node] * 32, task) == 512 + 128
    assert in_flight([Node(1, 4 * GB, GB)], task) == 1 + FEWEST_WAITING


def test_memory_bounds_it_where_cores_do_not() -> None:
    assert in_flight([Node(16, 8 * GB, 10 * GB)] * 2, ResourceRequest(1, 3 * GB)) == 4 + 8


def test_a_full_object_store_bounds_it_too() -> None:
    assert in_flight([Node(64, 999 * GB, 80_000_000)], ResourceRequest(1, GB, 10_000_000)) == 4
    assert in_flight([Node(64, 999 * GB, 80_000_000)], ResourceRequest(1, GB, 10**9)) == 1


def test_without_a_node_nothing_is_sent() -> None:
    assert not has_room([], [])


@given(NODES, ASKS)
def test_what_does_not_wait_fits_together(nodes: list[Node], asks: list[ResourceRequest]) -> None:
    left = count_waiting(asks, nodes)
    assert len(asks) - left <= total_cores(nodes)
    assert left == len(asks) if not nodes else left <= len(asks)
    assert left >= sum(not fits(ask, nodes) for ask in asks)


@given(NODES, ASKS, st.builds(Node, st.integers(1, 64), st.just(64 * GB), st.just(10 * GB)))
def test_another_node_never_makes_one_wait(nodes: list[Node], asks: list[ResourceRequest], another: Node) -> None:
    assert count_waiting(asks, [*nodes, another]) <= count_waiting(asks, nodes)


def test_threads_are_for_the_end_when_cores_are_idle() -> None:
    nodes = [Node(8, GB, GB), Node(4, GB, GB)]
    assert [threads_for(nodes, left) for left in (100, 12, 6, 4, 1, 0)] == [1, 1, 2, 3, 8, 8]
    assert threads_for([], 5) == 1


@given(st.integers(40_000_000, 64 * GB))
def test_what_is_asked_for_leaves_the_child_its_estimate(child: int) -> None:
    memory = memory_request(child)
    assert memory - headroom(memory) >= child + WORKER + GRANT_MARGIN
