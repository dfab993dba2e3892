"""Engines: exact answers on small clouds, agreement with independent programs, and what must not change a bar."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pytest_panic_doctor.errors import DoctorError
from pytest_panic_doctor.topology import engines, native, persistence_diagram
from pytest_panic_doctor.topology.cloud import EmptyCloudError, Points, distances, filtration, h0_deaths
from pytest_panic_doctor.topology.diagram import Bars, Diagram, sorted_bars
from pytest_panic_doctor.topology.engines import (
    BUILT_IN_ENGINES,
    ENGINE_NAMES,
    Engine,
    Gudhi,
    compute,
    describe_substitute,
    load_engine,
    resolve_engine,
)

INF = math.inf


@pytest.fixture(params=ENGINE_NAMES, scope="module")
def engine(request: pytest.FixtureRequest) -> Engine:
    """Each built-in engine."""
    try:
        return load_engine(request.param)
    except DoctorError as missing:
        pytest.skip(str(missing))


def cloud(rows: list[list[float]]) -> Points:
    return np.array(rows, np.float32)


def diagram_of(points: Points, engine: Engine, **options: int) -> Diagram:
    return compute(points, engine=engine, **options)[0]


def assert_bars(found: Bars, wanted: Sequence[tuple[float, float]]) -> None:
    assert found.dtype == np.float32
    assert found.shape == (len(wanted), 2)
    np.testing.assert_allclose(found, np.array(wanted).reshape(-1, 2), atol=1e-6)


def assert_same(found: Diagram, other: Sequence[NDArray[np.floating]]) -> None:
    """Assert equal bars one to one, without those of length 0."""
    for mine, theirs in zip(found.bars, other, strict=True):
        ordered = sorted_bars([bar for bar in theirs if bar[1] - bar[0] > 1e-6])
        kept = mine[mine[:, 1] - mine[:, 0] > 1e-6]
        assert len(kept) == len(ordered)
        np.testing.assert_allclose(kept, ordered, atol=1e-6)


def random_cloud(count: int, seed: int) -> Points:
    return np.random.default_rng(seed).normal(size=(count, 3)).astype(np.float32)


def tied_cloud() -> Points:
    """A grid: many equal distances."""
    return np.stack(np.meshgrid(range(4), range(4), range(2)), axis=-1).reshape(-1, 3).astype(np.float32)


def test_square(engine: Engine) -> None:
    found = diagram_of(cloud([[0, 0], [1, 0], [1, 1], [0, 1]]), engine)
    assert_bars(found.bars[0], [(0, 1), (0, 1), (0, 1), (0, INF)])
    assert_bars(found.bars[1], [(1, math.sqrt(2))])
    assert_bars(found.bars[2], [])


def test_octahedron(engine: Engine) -> None:
    """Without its diagonals the Rips complex of the cross-polytope is a sphere (its boundary)."""
    points = np.concatenate((np.eye(3), -np.eye(3))).astype(np.float32)
    found = diagram_of(points, engine)
    assert_bars(found.bars[0], [(0, math.sqrt(2))] * 5 + [(0, INF)])
    assert_bars(found.bars[1], [])
    assert_bars(found.bars[2], [(math.sqrt(2), 2)])


def test_cross_polytope_in_four_dimensions_has_its_sphere_in_h3(engine: Engine) -> None:
    points = np.concatenate((np.eye(4), -np.eye(4))).astype(np.float32)
    found = diagram_of(points, engine, max_dim=3)
    assert len(found.bars) == 4
    assert_bars(found.bars[2], [])
    assert_bars(found.bars[3], [(math.sqrt(2), 2)])


@pytest.mark.parametrize("corners", [6, 9, 20])
def test_regular_polygon(engine: Engine, corners: int) -> None:
    """One circle, born at the side; it dies at the side of the largest inscribed triangle (Adamaszek, Adams, 2017)."""
    angles = 2 * math.pi * np.arange(corners) / corners
    found = diagram_of(np.stack((np.cos(angles), np.sin(angles)), axis=1).astype(np.float32), engine)
    side = 2 * math.sin(math.pi / corners)
    death = 2 * math.sin(math.pi * math.ceil(corners / 3) / corners)
    circle = found.bars[1][np.argmax(found.bars[1][:, 1] - found.bars[1][:, 0])]
    assert_bars(circle[None], [(side, death)])
    assert_bars(found.bars[0], [(0, side)] * (corners - 1) + [(0, INF)])


def test_collinear_points_have_no_cycle(engine: Engine) -> None:
    found = diagram_of(cloud([[0, 0], [1, 2], [2, 4], [4, 8], [8, 16]]), engine)
    root = math.sqrt(5)
    assert_bars(found.bars[0], [(0, root), (0, root), (0, 2 * root), (0, 4 * root), (0, INF)])
    assert [len(bars) for bars in found.bars[1:]] == [0, 0]


@pytest.mark.parametrize("repeats", [1, 2, 500])
def test_one_point_however_often_is_one_essential_class(engine: Engine, repeats: int) -> None:
    found, merged = compute(np.full((repeats, 768), 0.1, np.float32), engine=engine)
    assert_bars(found.bars[0], [(0, INF)])
    assert [len(bars) for bars in found.bars[1:]] == [0, 0]
    assert len(merged.points) == 1
    assert found.entropy.tolist() == [0, 0, 0]


def test_two_points(engine: Engine) -> None:
    found = diagram_of(cloud([[0, 0], [3, 4]]), engine)
    assert_bars(found.bars[0], [(0, 5), (0, INF)])
    assert [len(bars) for bars in found.bars[1:]] == [0, 0]


def test_no_point_is_refused(engine: Engine) -> None:
    with pytest.raises(EmptyCloudError, match="without a point"):
        compute(np.empty((0, 768), np.float32), engine=engine)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_values_that_are_not_finite_are_refused(engine: Engine, value: float) -> None:
    with pytest.raises(ValueError, match="NaN or infinity"):
        compute(cloud([[0, 1], [value, 2], [3, 4]]), engine=engine)


def test_distances_beyond_float32_are_refused(engine: Engine) -> None:
    with pytest.raises(ValueError, match="float32"):
        compute(cloud([[3e38, 0], [-3e38, 0], [0, 1]]), engine=engine)


@pytest.mark.parametrize(("count", "seed"), [(20, 0), (40, 1), (60, 2)])
def test_bars_are_those_of_ripser(engine: Engine, count: int, seed: int) -> None:
    ripser = pytest.importorskip("ripser").ripser
    points = random_cloud(count, seed)
    assert_same(diagram_of(points, engine), ripser(distances(points), maxdim=2, distance_matrix=True)["dgms"])


@pytest.mark.parametrize("points", [random_cloud(20, 3), random_cloud(60, 4), tied_cloud()], ids=["20", "60", "grid"])
def test_bars_are_those_of_a_simplex_tree(engine: Engine, points: Points) -> None:
    """GUDHI's simplex tree shares nothing with its `RipsPersistence`, nor with giotto-ph."""
    gudhi = pytest.importorskip("gudhi")
    tree = gudhi.RipsComplex(distance_matrix=distances(points)).create_simplex_tree(max_dimension=3)
    tree.compute_persistence(homology_coeff_field=2)
    assert_same(diagram_of(points, engine), [tree.persistence_intervals_in_dimension(each) for each in range(3)])


def test_engines_agree_on_captions(engine: Engine, shared_data: object) -> None:
    points = np.load(f"{shared_data}/caption-trajectories.npz")["wandering_vectors"][:150]
    assert_same(diagram_of(points, engine), list(diagram_of(points, load_engine()).bars))


@pytest.mark.parametrize("seed", range(3))
def test_h0_dies_at_the_edges_of_the_minimum_spanning_tree(engine: Engine, seed: int) -> None:
    points = random_cloud(80, seed)
    found = diagram_of(points, engine).bars[0]
    np.testing.assert_allclose(found[:-1, 1], h0_deaths(points), rtol=1e-6)


@pytest.mark.parametrize("points", [random_cloud(50, 5), tied_cloud()], ids=["random", "grid"])
def test_the_order_of_points_changes_no_bar(engine: Engine, points: Points) -> None:
    shuffled = points[np.random.default_rng(0).permutation(len(points))]
    assert_same(diagram_of(shuffled, engine), list(diagram_of(points, engine).bars))


def test_the_number_of_threads_changes_no_bar(engine: Engine) -> None:
    points = random_cloud(60, 6)
    one, two = (diagram_of(points, engine, threads=threads) for threads in (1, 2))
    assert [bars.tobytes() for bars in one.bars] == [bars.tobytes() for bars in two.bars]


@pytest.mark.parametrize("noise", [0.0, 1e-7])
def test_repeats_change_no_bar(engine: Engine, noise: float) -> None:
    points = random_cloud(40, 7)
    again = points[np.random.default_rng(1).integers(0, 40, 200)]
    again = (again + noise * np.random.default_rng(2).choice([-1, 0, 1], again.shape)).astype(np.float32)
    found, merged = compute(np.concatenate((points, again)), engine=engine)
    assert len(merged.points) == 40
    assert merged.index[:40].tolist() == list(range(40))
    assert [bars.tobytes() for bars in found.bars] == [bars.tobytes() for bars in diagram_of(points, engine).bars]


def test_merging_moves_bars_by_no_more_than_the_theorem_says(engine: Engine) -> None:
    gudhi = pytest.importorskip("gudhi")
    points = random_cloud(60, 8)
    tolerance = 0.6
    exact = compute(points, engine=engine, tolerance=0.0)[0]
    blurred, merged = compute(points, engine=engine, tolerance=tolerance)
    assert len(merged.points) < 50
    for one, other in zip(exact.bars[1:], blurred.bars[1:], strict=True):
        assert gudhi.bottleneck_distance(one, other) <= 2 * tolerance


def test_no_bar_has_no_length(engine: Engine) -> None:
    for bars in diagram_of(tied_cloud(), engine).bars:
        assert (bars[:, 1] > bars[:, 0]).all()


def test_the_cloud_is_left_as_it_was(engine: Engine) -> None:
    points = random_cloud(30, 9)
    points.setflags(write=False)
    compute(points, engine=engine)


def test_homology_is_that_over_two_elements(engine: Engine) -> None:
    """The projective plane has a class in H2 over Z/2, and over no other field; subdivided, it is a flag complex."""
    faces = ["125", "126", "134", "136", "145", "234", "235", "246", "356", "456"]
    parts = {frozenset(part) for face in faces for size in (1, 2, 3) for part in combinations(face, size)}
    cells = sorted(parts, key=lambda cell: (len(cell), sorted(cell)))
    apart = np.array([[0 if a == b else 1 if a < b or b < a else 2 for b in cells] for a in cells], np.float32)
    found = engine.bars(apart, 2, 1)
    for dimension in (1, 2):
        assert_bars(sorted_bars(found[dimension]), [(1, 2)])


def test_edge_collapse_changes_no_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("gudhi")
    for points in (random_cloud(60, 11), tied_cloud()):
        apart = filtration(points)
        plain = [sorted_bars(bars) for bars in Gudhi().bars(apart, 2, 1)]
        monkeypatch.setattr(engines, "COLLAPSED", 0)
        collapsed = [sorted_bars(bars) for bars in Gudhi().bars(apart, 2, 1)]
        monkeypatch.undo()
        assert [bars.tobytes() for bars in plain] == [bars.tobytes() for bars in collapsed]


def test_an_engine_of_somebody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    class Handmade:
        name = "handmade"
        version = "1"

        def bars(self, apart: NDArray[np.float32], max_dim: int, threads: int) -> list[NDArray[np.float64]]:
            del threads
            assert apart.dtype == np.float32
            some = np.array([[6, 7], [5, 5], [5, 5 + 1e-9], [5, 6]])
            return [np.array([[0, INF], [0, apart.max()]])] + [some] * max_dim

    monkeypatch.setattr(sys.modules[__name__], "HANDMADE", Handmade(), raising=False)
    monkeypatch.setitem(sys.modules, "handmade_engine", sys.modules[__name__])
    found = diagram_of(cloud([[0, 0], [3, 4]]), load_engine("handmade_engine:HANDMADE"))
    assert_bars(found.bars[0], [(0, 5), (0, INF)])
    assert_bars(found.bars[2], [(5, 6), (6, 7)])


def without(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """As if these engines were not installed."""
    for name in names:
        monkeypatch.setitem(BUILT_IN_ENGINES, name, (lambda: False, BUILT_IN_ENGINES[name][1]))
    if "native" in names:
        monkeypatch.setattr(native, "is_built", lambda: False)


@pytest.mark.parametrize("name", [None, "", "auto"])
def test_the_first_engine_installed_is_taken(name: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    there = [each for each in ENGINE_NAMES if BUILT_IN_ENGINES[each][0]()]
    assert ENGINE_NAMES == ("native", "gudhi", "giotto-ph")
    for missing, best in enumerate(there):
        without(monkeypatch, *there[:missing])
        assert resolve_engine(name) == best
        assert load_engine(name).name == best
    without(monkeypatch, *ENGINE_NAMES)
    with pytest.raises(DoctorError, match="no engine for H2 is installed: pip install giotto-ph"):
        load_engine(name)


@pytest.mark.parametrize("name", ["auto", "native"])
def test_above_h2_the_next_engine_computes_and_that_is_said(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    next_one = resolve_engine(name, 3)
    assert next_one in ENGINE_NAMES[1:]
    if native.is_built():
        assert describe_substitute(name, 2) is None
        assert (
            describe_substitute(name, 3) == f"diagrams are computed by {next_one}: native computes H0 to H2, and not H3"
        )
    assert len(compute(random_cloud(12, 0), engine=load_engine(name, 3), max_dim=3)[0].bars) == 4
    without(monkeypatch, *ENGINE_NAMES[1:])
    with pytest.raises(DoctorError, match="no engine for H3"):
        resolve_engine(name, 3)


def test_an_engine_that_was_not_built_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch, "native")
    assert describe_substitute("auto", 2) == (
        f"diagrams are computed by {resolve_engine('auto')}, slower: native was not built, "
        "since there was no C++20 compiler"
    )
    with pytest.raises(DoctorError, match="native was not built when the doctor was installed"):
        resolve_engine("native")
    assert describe_substitute(ENGINE_NAMES[1], 5) is None
    assert describe_substitute("somebody:else", 5) is None


def test_a_diagram_for_whoever_only_wants_one() -> None:
    points = random_cloud(60, 12)
    found = persistence_diagram(points, engine="auto")
    assert_same(found, list(diagram_of(points, load_engine()).bars))
    assert len(persistence_diagram(points, 1, "auto").bars) == 2
    assert len(persistence_diagram(points.tolist(), 3, "auto").bars) == 4
    h0, h1, h2 = persistence_diagram([[0, 0], [3, 4]], engine="auto").bars
    assert_bars(h0, [(0, 5), (0, INF)])
    assert len(h1) == len(h2) == 0


@pytest.mark.parametrize(
    ("points", "options", "said"),
    [
        ([0, 1], {}, r"shape \(2,\): give \(n, d\)"),
        (np.empty((0, 3)), {}, "without a point"),
        ([[0, math.nan]], {}, "NaN or infinity"),
        ([[0]], {"max_dim": -1}, "there is no H-1"),
        ([[0]], {"max_dim": 3, "timeout": 1}, "limits of the engine native"),
    ],
)
def test_a_mistake_is_one_sentence(points: object, options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        persistence_diagram(points, engine="auto", **options)  # type: ignore[arg-type]


@pytest.mark.skipif(not native.is_built(), reason="the engine native was not built")
def test_a_diagram_ends_at_its_limits() -> None:
    hard = np.random.default_rng(0).normal(size=(200, 768))
    hard /= np.linalg.norm(hard, axis=1, keepdims=True)
    with pytest.raises(native.DeadlineReached, match=r"ended after 0\.3 s, its limit, in "):
        persistence_diagram(hard, timeout=0.3)
    with pytest.raises(native.MemoryReached, match=r"ended at 1,000,000 bytes, its limit, in H[12], column"):
        persistence_diagram(hard, memory=1_000_000)


def test_the_package_is_light_to_import() -> None:
    script = "import sys; from pytest_panic_doctor.topology import persistence_diagram; print('numpy' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == ["False"]


@pytest.mark.parametrize("name", ["dionysus", "no_such_module:engine", "math:no_such_engine"])
def test_an_engine_that_is_not_there_is_named(name: str) -> None:
    with pytest.raises(DoctorError, match=name):
        load_engine(name)
