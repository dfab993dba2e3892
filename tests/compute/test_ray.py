"""A real cluster of several nodes on this machine: answers of tasks, and nodes that join and leave."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from faulty_engines import order as hostile_order
from hypothesis import given
from hypothesis import strategies as st
from ray_cluster import Running, node

from pytest_panic_doctor.compute.budget import GRANT_MARGIN, headroom
from pytest_panic_doctor.compute.ray.client import ClientAnswer, ClusterClient, ClusterUnavailableError
from pytest_panic_doctor.compute.ray.task import WORKER, TaskSpec, memory_request
from pytest_panic_doctor.compute.task import ComputationFailed
from pytest_panic_doctor.topology.cloud import Points, merge
from pytest_panic_doctor.topology.engines import compute, load_engine

pytestmark = pytest.mark.integration

pytest.importorskip("ray", reason="Ray is not installed: pip install 'pytest-panic-doctor[ray]'")

ENGINE = load_engine()


@pytest.fixture
def link(running: Running, tmp_path: Path) -> Iterator[ClusterClient]:
    """A client joined to the cluster."""
    joined = ClusterClient(running.address, 10**9, tmp_path)
    yield joined
    joined.close()


def ordered(engine: str = "auto", *, stored: int = 3, memory: int = 0, timeout: float | None = None) -> TaskSpec:
    return TaskSpec("run model", stored, 2, engine, 1, memory or memory_request(80_000_000), timeout)


def answers(link: ClusterClient, count: int, seconds: float = 30) -> dict[str, ClientAnswer]:
    """The answers by key."""
    found: dict[str, ClientAnswer] = {}
    deadline = time.monotonic() + seconds
    while len(found) < count and time.monotonic() < deadline:
        if answer := link.receive(0.1):
            found[str(answer[0]["key"])] = answer
    return found


def cloud(seed: int, count: int = 80) -> Points:
    """A loop with noise, of which a third returns exactly."""
    random = np.random.default_rng(seed)
    points = random.normal(scale=0.1, size=(count, 16))
    turn = random.uniform(0, 2 * np.pi, count)
    points[:, 0] += np.cos(turn)
    points[:, 1] += np.sin(turn)
    points[2 * count // 3 :] = points[: count - 2 * count // 3]
    return points.astype(np.float32)


def test_the_bars_are_those_of_this_machine(link: ClusterClient) -> None:
    assert str(link.size) == "a Ray cluster of 3 nodes, 3 cores"
    clouds = {str(seed): cloud(seed) for seed in range(5)} | {"one": np.ones((7, 16), np.float32)}
    for key, points in clouds.items():
        link.submit(key, ordered(stored=len(points)), merge(points).points)
    found = answers(link, len(clouds))
    assert found.keys() == clouds.keys()
    for key, (header, bars) in found.items():
        expected, _ = compute(clouds[key], engine=ENGINE)
        assert (header["engine"], header["version"]) == (ENGINE.name, ENGINE.version)
        for mine, theirs in zip(bars, expected.bars, strict=True):
            np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize(
    ("engine", "cloud", "timeout", "kind", "said"),
    [
        ("faulty_engines:hold", hostile_order(60, 50), 1.0, "timeout", "was ended after 1 s, its limit"),
        ("faulty_engines:eat", hostile_order(900, 1), None, "memory", "MB, its limit, after "),
        ("faulty_engines:crash", hostile_order(), None, "died", "its computation died of SIGSEGV twice, at "),
        ("faulty_engines:refuse", hostile_order(), None, "refused", "the cloud is not to my taste"),
        (
            "nowhere:x",
            hostile_order(),
            None,
            "refused",
            "the engine nowhere:x does not exist: no module is called nowhere",
        ),
    ],
)
def test_what_fails_says_so_as_on_one_machine(
    link: ClusterClient, engine: str, cloud: Points, timeout: float | None, kind: str, said: str
) -> None:
    link.submit("1", ordered(engine, stored=2_423, timeout=timeout), cloud)
    header, bars = answers(link, 1)["1"]
    assert (header["kind"], header["why"], bars) == ("failed", kind, [])
    assert said in str(header["happened"])
    assert kind == "refused" or str(header["happened"]).startswith("the diagram of 2,423 points")


def test_a_node_with_another_doctor_is_refused(link: ClusterClient) -> None:
    link.submit("1", replace(ordered(), doctor="0.0.1"), cloud(1))
    header, _ = answers(link, 1)["1"]
    assert header["why"] == "refused"
    assert re.fullmatch(r"the node \S+ has pytest-panic-doctor \S+ and not 0\.0\.1", str(header["happened"]))


def test_a_task_that_was_taken_back_does_not_answer(link: ClusterClient) -> None:
    link.submit("1", ordered("faulty_engines:hold"), hostile_order(100, 50))
    assert not answers(link, 1, seconds=0.5)
    link.cancel("1")
    link.submit("2", ordered("faulty_engines:hold"), hostile_order())
    assert answers(link, 2, seconds=5).keys() == {"2"}


def test_a_node_that_is_lost_loses_no_task(running: Running, link: ClusterClient) -> None:
    link.submit("1", ordered("faulty_engines:hold", memory=800_000_000), hostile_order(60, 3))
    assert not answers(link, 1, seconds=1.5)
    running.kill_last()
    wait_for(link, "a Ray cluster of 2 nodes, 2 cores")
    running.add(node(1, 1000))
    wait_for(link, "a Ray cluster of 3 nodes, 3 cores")
    assert answers(link, 1)["1"][0]["kind"] == "done"


def test_a_task_that_raises_says_what_to_install(link: ClusterClient) -> None:
    spec = ordered()
    link._driver.send({"kind": "submit", "key": "1", "spec": {**spec.as_plain(), "unknown": 1}}, cloud(1))
    header, _ = answers(link, 1)["1"]
    failure = ComputationFailed.from_plain(header)
    assert (failure.kind, failure.advice) == (
        "died",
        "install the same pytest-panic-doctor, with its engine, on every node of the cluster",
    )
    assert re.match(r"the diagram of 3 points: its task ended with «TypeError: .*'unknown'", failure.reason)


@given(st.integers(40_000_000, 64 * 10**9))
def test_what_is_asked_for_leaves_the_child_its_estimate(child: int) -> None:
    memory = memory_request(child)
    assert memory - headroom(memory) >= child + WORKER + GRANT_MARGIN


def wait_for(link: ClusterClient, said: str) -> None:
    deadline = time.monotonic() + 20
    while str(link.size) != said and time.monotonic() < deadline:
        link.receive(0.1)
    assert str(link.size) == said


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1", "no-such-host.invalid:6379", "head", ":"])
def test_what_is_no_cluster_is_one_sentence(address: str, tmp_path: Path) -> None:
    begun = time.monotonic()
    with pytest.raises(
        ClusterUnavailableError, match=f"^the Ray cluster at {address} can(not| not) be .*: correct --doctor-ray"
    ):
        ClusterClient(address, 10**9, tmp_path)
    assert time.monotonic() - begun < 40


def test_one_that_takes_the_connection_and_says_nothing_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import socket

    monkeypatch.setattr("pytest_panic_doctor.compute.ray.client.CONNECT_TIMEOUT", 3.0)
    with (
        socket.create_server(("127.0.0.1", 0)) as mute,
        pytest.raises(ClusterUnavailableError, match=r"did not answer within 3 s"),
    ):
        ClusterClient(f"127.0.0.1:{mute.getsockname()[1]}", 10**9, tmp_path)
