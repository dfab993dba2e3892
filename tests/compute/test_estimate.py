"""What a diagram will take: more points never less, and each engine by its own law."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_panic_doctor.compute.estimate import estimate, memory
from pytest_panic_doctor.topology.cloud import sampled_share
from pytest_panic_doctor.topology.engines import ENGINE_NAMES
from pytest_panic_doctor.topology.native import memory_need


@given(st.integers(1, 65_534), st.sampled_from([*ENGINE_NAMES, "somebody:else"]))
def test_more_points_take_more(distinct: int, engine: str) -> None:
    less, more = estimate(distinct, engine), estimate(distinct + 1, engine)
    assert 0 < less.seconds < less.seconds_high
    assert less.seconds < more.seconds
    assert memory(distinct, engine) <= memory(distinct + 1, engine)


def test_memory_of_native_is_arithmetic_and_the_cloud_is_there_twice() -> None:
    assert (
        memory(2_000, "native", 10**6) - memory(1_000, "native") == memory_need(2_000) - memory_need(1_000) + 2 * 10**6
    )
    assert memory_need(1_000, 400_000) == 4 * 1_000 * 1_008 + 10 * 400_000 + 400_000 // 8 + 1_000 * 128


@pytest.mark.parametrize(
    ("distinct", "engine", "seconds", "megabytes"),
    [(1_124, "native", 0.27, 61), (2_500, "native", 1.7, 105), (1_124, "giotto-ph", 69, 488), (783, "gudhi", 19, 259)],
)
def test_it_is_near_what_was_measured(distinct: int, engine: str, seconds: float, megabytes: float) -> None:
    """CPU seconds and peaks of complete processes (benchmarks/README.md)."""
    assert estimate(distinct, engine).seconds == pytest.approx(seconds, rel=0.4)
    assert memory(distinct, engine, distinct * 3072) == pytest.approx(megabytes * 1e6, rel=0.3)


def test_fewer_edges_within_the_radius_take_less() -> None:
    assert estimate(1_000, "native", 0.3).seconds < 0.5 * estimate(1_000, "native").seconds
    assert estimate(1_000, "gudhi", 0.3) == estimate(1_000, "gudhi")


@pytest.mark.parametrize("count", [3, 40, 200, 1_000])
def test_the_share_of_edges_is_near_that_of_all_pairs(count: int) -> None:
    random = np.random.default_rng(3)
    points = np.cumsum(random.standard_normal((count, 8)), axis=0).astype(np.float32)
    apart = np.linalg.norm(points[:, None].astype(np.float64) - points[None], axis=2)
    pairs = apart[np.triu_indices(count, 1)]
    share = np.count_nonzero(pairs <= apart.max(axis=1).min()) / len(pairs)
    assert sampled_share(points) == pytest.approx(share, abs=0.15)
    assert sampled_share(points[:2]) == 1.0
