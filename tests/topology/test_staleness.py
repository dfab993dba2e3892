"""Whether a diagram belongs to a cloud: by its fingerprint, and by H0 without one."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pytest_panic_doctor.topology.cloud import Points, distances, fingerprint
from pytest_panic_doctor.topology.diagram import Diagram, sorted_bars
from pytest_panic_doctor.topology.engines import compute, load_engine
from pytest_panic_doctor.topology.payload import Payload, Provenance, decode, encode
from pytest_panic_doctor.topology.staleness import why_stale

ENGINE = load_engine()
PROVENANCE = Provenance("", 60, 60, 0.0, ENGINE.name, ENGINE.version, 2, 1.0, 1, "0.1.0")


def trajectory(count: int = 60, width: int = 32, seed: int = 0) -> Points:
    """Unit vectors, as embeddings are."""
    points = np.random.default_rng(seed).normal(size=(count, width)).astype(np.float32)
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    return points


def stored(points: Points, provenance: Provenance | None = None) -> Payload:
    return decode(encode(compute(points, engine=ENGINE, max_dim=0)[0], provenance))


def as_the_research_tool_has_it(points: Points) -> Payload:
    """H0 of the cloud as it is, repeats and all, from giotto-ph's own distances."""
    ripser_parallel = pytest.importorskip("gph").ripser_parallel
    return decode(encode(Diagram((sorted_bars(ripser_parallel(points, maxdim=0)["dgms"][0]),))))


def test_a_diagram_is_of_its_own_cloud() -> None:
    points = trajectory()
    assert why_stale(stored(points), points) == ""
    assert why_stale(as_the_research_tool_has_it(points), points) == ""


@pytest.mark.parametrize("noise", [0.0, 1e-7])
def test_spurious_bars_of_repeats_are_no_difference(noise: float) -> None:
    again = trajectory()[np.random.default_rng(3).integers(0, 60, 400)]
    again += (noise * np.random.default_rng(4).normal(size=again.shape)).astype(np.float32)
    payload = as_the_research_tool_has_it(again)
    lengths = payload.diagram.bars[0][:, 1]
    spurious = int((lengths < 1e-5).sum())
    assert spurious > 20 or not noise, "without spurious bars the test proves nothing"
    assert why_stale(payload, again) == ""


@pytest.mark.parametrize(("length", "same"), [(1e-8, True), (5e-5, True), (3e-4, False)])
def test_bars_below_a_ten_thousandth_are_not_compared(length: float, same: bool) -> None:
    points = trajectory()
    bars = compute(points, engine=ENGINE, max_dim=0)[0].bars[0]
    longer = sorted_bars(np.concatenate((bars, [[0, length]] * 30)))
    assert (why_stale(decode(encode(Diagram((longer,)))), points) == "") == same


def test_a_vector_that_changed_is_noticed() -> None:
    points = trajectory()
    payload = stored(points)
    for row in range(len(points)):
        changed = points.copy()
        changed[row] = trajectory(1, seed=99)[0]
        assert why_stale(payload, changed), row


@pytest.mark.parametrize("size", [1e-3, 1e-2])
def test_a_small_change_of_a_vector_is_noticed(size: float) -> None:
    """Away from its nearest neighbour, to which it has an edge of the tree: elsewhere H0 need not change."""
    points = trajectory()
    payload = stored(points)
    apart = distances(points)
    np.fill_diagonal(apart, np.inf)
    for row, nearest in enumerate(apart.argmin(axis=1)):
        changed = points.copy()
        changed[row] += np.float32(size) * (points[row] - points[nearest])
        assert "of its 59 bars in H0" in why_stale(payload, changed), row


def test_a_point_more_or_less_is_noticed() -> None:
    points = trajectory()
    clause = "its H0 has 59 bars, and that of the embeddings stored now 58"
    assert why_stale(stored(points), points[:-1]) == clause
    assert why_stale(stored(points[:-1]), points) == "its H0 has 58 bars, and that of the embeddings stored now 59"


def test_the_order_of_points_is_no_difference() -> None:
    points = trajectory()
    assert why_stale(stored(points), points[::-1].copy()) == ""


@pytest.mark.parametrize("scale", [1e-6, 1e-3, 1.0, 1e4])
def test_it_is_noticed_at_every_scale(scale: float) -> None:
    points = (trajectory() * np.float32(scale)).astype(np.float32)
    other = (trajectory(seed=1) * np.float32(scale)).astype(np.float32)
    assert why_stale(stored(points), points) == ""
    assert why_stale(as_the_research_tool_has_it(points), points) == ""
    assert why_stale(stored(points), other)


def test_one_point_and_equal_points() -> None:
    one = trajectory(1)
    assert why_stale(stored(one), one) == ""
    assert why_stale(stored(one), np.repeat(one, 5, axis=0)) == ""
    assert why_stale(stored(one), trajectory(2))
    assert why_stale(stored(trajectory(2)), one)


def test_a_fingerprint_tells_what_h0_cannot() -> None:
    points = trajectory()
    known = stored(points, replace(PROVENANCE, fingerprint=fingerprint(points)))
    assert why_stale(known, points) == ""
    clause = "the embeddings have changed since it was computed of 60 points"
    assert why_stale(known, points[::-1].copy()) == clause
    moved = points.copy()
    moved[7, 7] = np.nextafter(moved[7, 7], np.float32(2))
    assert why_stale(known, moved) == clause


def loop(count: int, seed: int = 0) -> Points:
    """A noisy circle, which has a long bar in H1, and some in H2."""
    random = np.random.default_rng(seed)
    turn = np.linspace(0, 2 * np.pi, count, endpoint=False)
    points = random.normal(scale=0.1, size=(count, 6))
    points[:, :2] += np.stack((np.cos(turn), np.sin(turn)), axis=1)
    return points.astype(np.float32)


def whole(points: Points, known: bool = False) -> Payload:
    """All three dimensions, with or without the fingerprint."""
    provenance = replace(PROVENANCE, fingerprint=fingerprint(points)) if known else None
    return decode(encode(compute(points, engine=ENGINE)[0], provenance))


@pytest.mark.parametrize("scale", [1e-6, 1e-3, 1.0, 1e4])
@pytest.mark.parametrize("count", [2, 5, 24, 60])
def test_no_true_bar_is_called_impossible(count: int, scale: float) -> None:
    for seed in range(4):
        points = loop(count, seed) * np.float32(scale)
        again = points[np.random.default_rng(seed).integers(0, count, 2 * count)]
        again += np.float32(1e-7 * scale) * np.random.default_rng(seed + 9).normal(size=again.shape).astype(np.float32)
        for cloud in (points, again):
            assert why_stale(whole(cloud), cloud) == ""
            assert why_stale(whole(cloud, known=True), cloud) == ""


def test_no_true_bar_of_the_research_tool_is_called_impossible() -> None:
    ripser_parallel = pytest.importorskip("gph").ripser_parallel
    for seed in range(6):
        points = np.repeat(loop(40, seed), 2, axis=0)
        bars = tuple(sorted_bars(each) for each in ripser_parallel(points, maxdim=2)["dgms"])
        assert why_stale(decode(encode(Diagram(bars))), points) == ""


def with_bars(points: Points, known: bool, **changed: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> Payload:
    """The diagram of a cloud with the bars of some dimensions exchanged, and entropy and checksum made to fit."""
    bars = list(compute(points, engine=ENGINE)[0].bars)
    for name, new in changed.items():
        bars[int(name[1])] = sorted_bars(new)
    provenance = replace(PROVENANCE, fingerprint=fingerprint(points)) if known else None
    return decode(encode(Diagram(tuple(bars)), provenance))


@pytest.mark.parametrize("known", [False, True], ids=["tool", "doctor"])
def test_bars_that_the_cloud_cannot_have_are_named(known: bool) -> None:
    points, other = loop(40), loop(40, seed=7)
    h0, h1, h2 = compute(points, engine=ENGINE)[0].bars
    theirs = compute(other, engine=ENGINE)[0].bars
    random = np.random.default_rng(0).uniform(0.3, 0.5, size=(20, 2)).cumsum(axis=1).astype(np.float32)
    assert len(h1) > 3
    for clause, changed in (
        ("of its 39 bars in H0 are not those", {"h0": np.concatenate((h0[:1] * np.float32(1.5), h0[1:]))}),
        ("bars in H0", {"h0": theirs[0]}),
        ("in H1 begin or end at a length that no two", {"h1": theirs[1]}),
        ("in H1 begin or end at a length that no two", {"h1": random}),
        ("in H1 begin or end at a length that no two", {"h1": h1 + np.float32(0.01)}),
        ("in H2 begin or end at a length that no two", {"h2": random}),
        ("in H1 last beyond", {"h1": np.concatenate((h1, [[h1[0, 0], 5]]))}),
        ("in H2 last beyond", {"h2": np.concatenate((h2, [[2, 9]]))}),
    ):
        assert clause in why_stale(with_bars(points, known, **changed), points), clause


def test_bars_beyond_a_cloud_of_one_or_of_equal_points_are_named() -> None:
    for points in (trajectory(1), np.repeat(trajectory(1), 5, axis=0)):
        assert "in H1 last beyond 0" in why_stale(with_bars(points, False, h1=np.array([[0.1, 0.2]])), points)


def test_the_diagrams_of_the_research_tool_are_current(shared_data: Path) -> None:
    with sqlite3.connect(f"file:{shared_data}/reference-healthy.sqlite?mode=ro&immutable=1", uri=True) as db:
        rows = db.execute("SELECT run_id, embedding_model, diagram_data FROM persistencediagram").fetchall()
        clouds = [
            b"".join(
                vector
                for (vector,) in db.execute(
                    "SELECT vector FROM invocation i JOIN embedding e ON e.invocation_id = i.id "
                    "WHERE i.run_id = ? AND e.embedding_model = ? ORDER BY sequence_number",
                    (run, model),
                )
            )
            for run, model, _ in rows
        ]
    db.close()
    assert len(rows) > 1
    for mine in range(len(rows)):
        for other in range(len(rows)):
            points = np.frombuffer(clouds[other], np.float32).reshape(-1, 768)
            differs = bool(why_stale(decode(rows[mine][2]), points))
            assert differs == (clouds[mine] != clouds[other])
