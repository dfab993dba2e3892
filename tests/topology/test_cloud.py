"""The cloud: fingerprints, distances, merged repeats and spanning trees, against references and by property."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from pytest_panic_doctor.topology.cloud import (
    Points,
    default_tolerance,
    distances,
    fingerprint,
    h0_deaths,
    merge,
    spanning_tree,
)

EPS = float(np.finfo(np.float32).eps)


def random_cloud(count: int, width: int = 16, seed: int = 0) -> Points:
    return np.random.default_rng(seed).normal(size=(count, width)).astype(np.float32)


def reference(points: Points) -> NDArray[np.float64]:
    wide = points.astype(np.float64)
    apart: NDArray[np.float64] = np.linalg.norm(wide[:, None] - wide[None, :], axis=2)
    return apart


def kruskal(apart: NDArray[np.float64]) -> list[float]:
    """The edge lengths of the minimum spanning tree, by joining components edge by edge."""
    component = list(range(len(apart)))
    lengths = []
    rows, columns = np.triu_indices(len(apart), 1)
    for edge in np.argsort(apart[rows, columns]):
        one, other = component[rows[edge]], component[columns[edge]]
        if one != other:
            component = [one if each == other else each for each in component]
            lengths.append(float(apart[rows[edge], columns[edge]]))
    return lengths


def small_clouds() -> st.SearchStrategy[Points]:
    """Clouds on a coarse grid with a little noise: repeats, near repeats and chains are common."""
    shapes = st.tuples(st.integers(1, 25), st.integers(1, 3))
    return shapes.flatmap(
        lambda shape: st.tuples(
            arrays(np.int8, shape, elements=st.integers(-3, 3)), arrays(np.int8, shape, elements=st.integers(-4, 4))
        )
    ).map(lambda pair: (pair[0] + pair[1] * 0.01).astype(np.float32))


@pytest.mark.parametrize("count", [1, 2, 255, 256, 257, 600])
def test_distances_are_those_of_float64(count: int) -> None:
    points = random_cloud(count)
    apart = distances(points)
    np.testing.assert_allclose(apart, reference(points), rtol=1e-12, atol=0)
    assert (np.diagonal(apart) == 0).all()
    assert (apart == apart.T).all()


@pytest.mark.parametrize("gap", [1e-3, 1e-5, 1e-6])
def test_near_points_keep_their_distance_far_from_the_origin(gap: float) -> None:
    points = random_cloud(300) + np.float32(2)
    points[200:] = points[100:200] + np.float32(gap) * random_cloud(100, seed=1)
    np.testing.assert_allclose(distances(points), reference(points), rtol=1e-9, atol=0)


def test_a_common_offset_does_not_blur_distances() -> None:
    points = random_cloud(300) + np.float32(3000)
    np.testing.assert_allclose(distances(points), reference(points), rtol=1e-13, atol=0)


def test_equal_points_are_at_distance_zero_wherever_they_are() -> None:
    points = np.concatenate((random_cloud(300), random_cloud(300)))
    apart = distances(points)
    assert (apart[np.arange(300), np.arange(300) + 300] == 0).all()


def test_no_point_has_no_distance() -> None:
    assert distances(np.empty((0, 3), np.float32)).shape == (0, 0)


@given(small_clouds(), st.sampled_from([0.0, 1e-7, 0.011, 0.05, 1.0, 20.0]))
def test_every_point_is_within_the_tolerance_of_the_one_that_stands_for_it(points: Points, tolerance: float) -> None:
    merged = merge(points, tolerance)
    stands = merged.points[merged.index].astype(np.float64)
    apart = np.linalg.norm(points.astype(np.float64) - stands, axis=1)
    assert (apart <= tolerance * (1 + 1e-9)).all()
    assert len(merged.index) == len(points)
    assert set(merged.index) == set(range(len(merged.points)))


@given(small_clouds(), st.sampled_from([0.0, 0.011, 0.05, 1.0]))
def test_those_that_stand_for_others_are_stored_points_farther_apart_than_the_tolerance(
    points: Points, tolerance: float
) -> None:
    merged = merge(points, tolerance)
    rows = {row.tobytes() for row in points}
    assert all(row.tobytes() in rows for row in merged.points)
    apart = reference(merged.points)
    np.fill_diagonal(apart, np.inf)
    assert (apart > tolerance * (1 - 1e-9)).all()


@given(small_clouds(), st.sampled_from([0.0, 0.01137, 1.0437]))
def test_merging_twice_is_merging_once(points: Points, tolerance: float) -> None:
    once, again = merge(points, tolerance), merge(points.copy(), tolerance)
    assert once.points.tobytes() == again.points.tobytes()
    assert (once.index == again.index).all()
    assert merge(once.points, tolerance).points.tobytes() == once.points.tobytes()


@given(small_clouds())
def test_tolerance_zero_merges_equal_points_and_no_other(points: Points) -> None:
    merged = merge(points, 0.0)
    assert len(merged.points) == len(np.unique(points, axis=0))
    assert (merged.points[merged.index] == points).all()


def test_a_chain_of_near_points_does_not_drift() -> None:
    chain = (np.arange(200, dtype=np.float32) * np.float32(0.9))[:, None]
    merged = merge(chain, 1.0)
    assert len(merged.points) == 100
    assert np.abs(chain - merged.points[merged.index]).max() <= 1.0


def test_a_merged_cloud_keeps_the_first_of_each_group_in_sequence_order() -> None:
    points = np.array([[3], [1], [3], [2], [1], [1.0001]], np.float32)
    merged = merge(points, 0.001)
    assert merged.points.ravel().tolist() == [3, 1, 2]
    assert merged.index.tolist() == [0, 1, 0, 2, 1, 1]


def test_a_point_near_two_is_of_the_first() -> None:
    assert merge(np.array([[0], [1.5], [0.9]], np.float32), 1.0).index.tolist() == [0, 1, 0]


def test_minus_zero_is_zero() -> None:
    assert len(merge(np.array([[0.0, 1], [-0.0, 1]], np.float32), 0.0).points) == 1


def test_repeats_that_differ_in_the_last_bits_are_one_by_default() -> None:
    points = random_cloud(50, 384)
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    signs = np.random.default_rng(2).choice([-1, 0, 1], points.shape)
    twice = np.concatenate((points, np.nextafter(points, points + signs.astype(np.float32))))
    assert len(np.unique(twice, axis=0)) == 100
    merged = merge(twice)
    assert merged.index.tolist() == [*range(50), *range(50)]


def test_the_default_tolerance_is_a_few_ulps_of_the_diameter() -> None:
    points = random_cloud(100)
    diameter = reference(points).max()
    assert 4 * EPS * diameter <= default_tolerance(points) <= 16 * EPS * diameter
    assert default_tolerance(points + np.float32(8)) == pytest.approx(default_tolerance(points), rel=1e-4)
    assert default_tolerance(np.ones((5, 3), np.float32)) == 0


def test_the_default_tolerance_of_huge_values_is_finite() -> None:
    points = np.array([[3e38], [3e38], [-3e38]], np.float32)
    assert 0 < default_tolerance(points) < 1e33
    assert merge(points).index.tolist() == [0, 0, 1]


def test_any_bit_changes_the_fingerprint() -> None:
    points = random_cloud(5, 4)
    same = fingerprint(points)
    assert fingerprint(np.asfortranarray(points)) == same
    assert len(same) == 64
    changed = points.copy()
    changed[4, 3] = np.nextafter(changed[4, 3], np.float32(9))
    assert len({same, fingerprint(changed), fingerprint(points[::-1]), fingerprint(points.reshape(4, 5))}) == 4


def test_h0_dies_at_the_edges_of_a_known_tree() -> None:
    line = np.array([[0], [1], [3], [3], [7]], np.float32)
    assert h0_deaths(line).tolist() == [0, 1, 2, 4]
    assert h0_deaths(line[:1]).tolist() == []
    assert h0_deaths(line[:0]).tolist() == []
    assert h0_deaths(line[[2, 3, 2]]).tolist() == [0, 0]


@pytest.mark.parametrize("seed", range(3))
def test_h0_dies_at_the_edges_of_the_minimum_spanning_tree(seed: int) -> None:
    points = random_cloud(120, 5, seed)
    np.testing.assert_allclose(h0_deaths(points), kruskal(reference(points)), rtol=1e-12)


@pytest.mark.parametrize("count", [2, 3, 20, 255, 256, 257, 400])
def test_the_spanning_tree_is_the_same_however_its_distances_are_come_by(count: int) -> None:
    random = np.random.default_rng(count)
    points = random.normal(size=(count, 12)).astype(np.float32)
    points[count // 2 :] = points[: count - count // 2]
    points[-1, 0] = np.nextafter(points[-1, 0], np.float32(9))
    wanted = kruskal(reference(points))
    np.testing.assert_allclose(h0_deaths(points), wanted, rtol=1e-7, atol=1e-12)
    np.testing.assert_allclose(spanning_tree(points, most=0).lengths, wanted, rtol=1e-9, atol=1e-12)
    radius = reference(points).max(axis=1).min()
    assert spanning_tree(points).radius == pytest.approx(radius, rel=1e-6)
    assert spanning_tree(points, most=0).radius == pytest.approx(radius, rel=1e-6)
