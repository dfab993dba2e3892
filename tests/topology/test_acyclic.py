"""The scale that ends a filtration early: nothing lives beyond it, and no bar changes."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from pytest_panic_doctor.topology import truncation
from pytest_panic_doctor.topology.cloud import Filtration, Points, filtration, merge
from pytest_panic_doctor.topology.engines import compute, pick
from pytest_panic_doctor.topology.truncation import acyclic_scale, end_early

gudhi = pytest.importorskip("gudhi")


def bars_of(apart: Filtration, dimensions: int) -> list[NDArray[np.float64]]:
    """Bars by GUDHI's simplex tree, over all scales, without any threshold; sorted."""
    tree = gudhi.RipsComplex(distance_matrix=apart).create_simplex_tree(max_dimension=dimensions)
    tree.compute_persistence(homology_coeff_field=2, persistence_dim_max=False)
    found = [tree.persistence_intervals_in_dimension(each).reshape(-1, 2) for each in range(dimensions)]
    return [each[np.lexsort((each[:, 1], each[:, 0]))] for each in found]


def enclosing_radius(apart: Filtration) -> float:
    return float(apart.max(axis=1).min())


def on_a_sphere(count: int, width: int, seed: int = 0) -> Points:
    points = np.random.default_rng(seed).normal(size=(count, width))
    unit: Points = (points / np.linalg.norm(points, axis=1, keepdims=True)).astype(np.float32)
    return unit


def tied() -> st.SearchStrategy[Filtration]:
    """Any symmetric matrix with few values, metric or not: the lemma asks for no triangle inequality."""

    def symmetric(square: NDArray[np.int8]) -> Filtration:
        upper: Filtration = np.triu(square, 1).astype(np.float32)
        return upper + upper.T

    sizes = st.integers(2, 9)
    return sizes.flatmap(lambda n: arrays(np.int8, (n, n), elements=st.integers(1, 5))).map(symmetric)


def grids() -> st.SearchStrategy[Filtration]:
    """Points of a small grid: real clouds with as many equal distances as can be."""
    shapes = st.tuples(st.integers(2, 10), st.integers(1, 3))
    clouds = shapes.flatmap(lambda shape: arrays(np.int8, shape, elements=st.integers(0, 2)))
    return clouds.map(lambda points: filtration(merge(points.astype(np.float32), 0.0).points)).filter(
        lambda apart: len(apart) > 1
    )


@st.composite
def suspensions(draw: st.DrawFn) -> Filtration:
    """A ring with poles over it, in any order: circles and spheres that are born at 1 and filled later, with ties."""
    ring, poles = draw(st.integers(4, 8)), draw(st.integers(0, 3))
    across, between = draw(st.integers(2, 5)), draw(st.integers(2, 5))
    apart = np.ones((ring + poles, ring + poles), np.float32)
    gaps = np.abs(np.subtract.outer(np.arange(ring), np.arange(ring)))
    apart[:ring, :ring][np.minimum(gaps, ring - gaps) > 1] = across
    apart[ring:, ring:] = between
    np.fill_diagonal(apart, 0)
    order = draw(st.permutations(range(ring + poles)))
    return np.ascontiguousarray(apart[np.ix_(order, order)])


@settings(max_examples=400)
@given(st.one_of(tied(), grids(), suspensions()), st.integers(0, 2))
def test_no_class_lives_at_or_beyond_the_scale(apart: Filtration, degree: int) -> None:
    _, scale = acyclic_scale(apart, degree)
    assert scale <= enclosing_radius(apart)
    for dimension, bars in enumerate(bars_of(apart, degree + 1)):
        lasting = bars[(bars[:, 1] > bars[:, 0]) & (bars[:, 1] > scale)]
        assert lasting.tolist() == ([[0, math.inf]] if dimension == 0 else [])


@settings(max_examples=400)
@given(st.one_of(tied(), grids(), suspensions()), st.integers(0, 2))
def test_ending_early_changes_no_bar(apart: Filtration, degree: int) -> None:
    centre, scale = acyclic_scale(apart, degree)
    lowered = apart.copy()
    np.minimum(lowered[centre], scale, out=lowered[centre])
    lowered[:, centre] = lowered[centre]
    assert enclosing_radius(lowered) == scale
    for one, other in zip(bars_of(apart, degree + 1), bars_of(lowered, degree + 1), strict=True):
        lasting, same = (each[each[:, 1] > each[:, 0]] for each in (one, other))
        assert lasting.tolist() == same.tolist()


@pytest.mark.parametrize("stop", ["search", "at once"])
@pytest.mark.parametrize("max_dim", [0, 1, 2])
@pytest.mark.parametrize(
    "points",
    [on_a_sphere(160, 3), on_a_sphere(160, 40), on_a_sphere(200, 2), np.cumsum(on_a_sphere(180, 8), axis=0) / 4],
    ids=["sphere", "nearly equidistant", "circle", "walk"],
)
def test_a_whole_diagram_is_the_same(points: Points, max_dim: int, stop: str, monkeypatch: pytest.MonkeyPatch) -> None:
    points = points[: 160 if max_dim < 2 else 150].astype(np.float32)
    if stop == "at once":
        monkeypatch.setattr(truncation, "TESTS", 0)
    engine = pick("auto", 3)  # no other is given a filtration that ends early
    early = compute(points, engine=engine, max_dim=max_dim)[0]
    monkeypatch.setattr(truncation, "FEWEST", len(points) + 1)
    whole = compute(points, engine=engine, max_dim=max_dim)[0]
    assert [bars.tobytes() for bars in early.bars] == [bars.tobytes() for bars in whole.bars]


def test_a_circle_is_kept_until_it_is_filled() -> None:
    angles = 2 * math.pi * np.arange(60) / 60
    apart = filtration(np.stack((np.cos(angles), np.sin(angles)), axis=1).astype(np.float32))
    _, scale = acyclic_scale(apart, 2)
    assert scale >= math.sqrt(3) - 1e-6


def test_h0_alone_ends_where_the_cloud_is_connected() -> None:
    points = np.concatenate((on_a_sphere(100, 8), on_a_sphere(100, 8, seed=1) + np.float32(5)))
    apart = filtration(points)
    _, scale = acyclic_scale(apart, 0)
    assert scale == pytest.approx(apart[:100, 100:].min(), rel=0.01)


@pytest.mark.parametrize("walk", ["wandering", "looping", "restless"])
def test_captions_end_long_before_the_enclosing_radius(shared_data: Path, walk: str) -> None:
    vectors = np.load(f"{shared_data}/caption-trajectories.npz")[f"{walk}_vectors"][:400]
    apart = filtration(merge(vectors).points)
    before = enclosing_radius(apart)
    pairs = (apart <= before).sum()
    end_early(apart, 2)
    assert enclosing_radius(apart) < 0.95 * before
    assert (apart <= enclosing_radius(apart)).sum() < 0.7 * pairs


def test_a_search_that_is_stopped_rests_on_what_it_proved(monkeypatch: pytest.MonkeyPatch) -> None:
    apart = filtration(np.cumsum(on_a_sphere(200, 8), axis=0).astype(np.float32))
    full = acyclic_scale(apart, 2)
    monkeypatch.setattr(truncation, "TESTS", 1)
    stopped = acyclic_scale(apart, 2)
    assert stopped[0] == full[0]
    assert full[1] < stopped[1] <= enclosing_radius(apart)


def test_a_small_cloud_is_left_alone() -> None:
    apart = filtration(on_a_sphere(truncation.FEWEST - 1, 5))
    same = apart.copy()
    end_early(apart, 2)
    assert (apart == same).all()
