"""The order of cost: always an order, and one in which few vertices are tried before one covers a triangle."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from pytest_panic_doctor.topology.cloud import Filtration, Points, filtration, merge
from pytest_panic_doctor.topology.vertex_order import cost_order, covered, diameter, triangles


def noisy_loop(count: int = 300, noise: float = 0.25) -> Points:
    """A circle on the unit sphere, all of whose points are about as far from the others on the average."""
    random = np.random.default_rng(0)
    turn = np.linspace(0, 6 * math.pi, count)
    points = random.normal(scale=noise / math.sqrt(100), size=(count, 100)).astype(np.float32)
    points[:, 0] += np.cos(turn)
    points[:, 1] += np.sin(turn)
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    return points


def scattered(count: int = 300) -> Points:
    return np.random.default_rng(1).normal(size=(count, 6)).astype(np.float32)


def tried(apart: Filtration, order: NDArray[np.intp]) -> float:
    """How many vertices are tried, from the last on, until one covers a triangle, on the average."""
    random = np.random.default_rng(9)
    corners = random.permuted(np.tile(np.arange(len(apart)), (2000, 1)), axis=1)[:, :3]
    corners = corners[diameter(apart, corners) <= apart.max(axis=1).min()]
    hits = covered(apart, corners)[:, order[::-1]]
    return float(np.where(hits.any(axis=1), hits.argmax(axis=1), len(apart)).mean())


@given(arrays(np.int8, st.tuples(st.integers(2, 30), st.integers(1, 3)), elements=st.integers(-5, 5)))
def test_it_is_an_order(grid: NDArray[np.int8]) -> None:
    apart = filtration(merge(grid.astype(np.float32)).points)
    order = cost_order(apart)
    assert sorted(order) == list(range(len(apart)))
    assert (cost_order(apart.copy()) == order).all()


@pytest.mark.parametrize("count", [1, 2, 3])
def test_few_points_have_an_order(count: int) -> None:
    assert sorted(cost_order(filtration(scattered(count)))) == list(range(count))


@pytest.mark.parametrize(("points", "least"), [(noisy_loop(), 5), (scattered(), 1.1)], ids=["loop", "scattered"])
def test_fewer_vertices_are_tried_than_in_other_orders(points: Points, least: float) -> None:
    apart = filtration(points)
    found = tried(apart, cost_order(apart))
    farthest_first = np.argsort(-apart.mean(axis=1), kind="stable")
    assert found * least < tried(apart, farthest_first)
    assert found * 1.2 < tried(apart, np.arange(len(apart)))
    assert found * 1.2 < tried(apart, np.random.default_rng(0).permutation(len(apart)))


def test_triangles_are_below_the_enclosing_radius() -> None:
    apart = filtration(scattered())
    found = triangles(apart)
    assert len(found) == 5000
    assert all(len({*corners}) == 3 for corners in found.tolist())
    assert diameter(apart, found).max() <= apart.max(axis=1).min()


def test_covers_are_those_of_the_definition() -> None:
    apart = filtration(scattered(12))
    corners = triangles(apart)[:300]
    found = covered(apart, corners)
    for row, triangle in zip(found, corners.tolist(), strict=True):
        longest = max(apart[a, b] for a in triangle for b in triangle)
        wanted = [v not in triangle and all(apart[v, a] <= longest for a in triangle) for v in range(12)]
        assert row.tolist() == wanted
