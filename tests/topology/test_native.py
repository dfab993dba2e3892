"""The engine `native`: equal to others on every kind of matrix, exact in its limits, and never a crash."""

from __future__ import annotations

import contextlib
import math
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from matrices import KINDS, a_matrix, bars_of_gudhi, differences, equidistant, lasting, symmetric
from numpy.typing import NDArray

from pytest_panic_doctor.topology import native
from pytest_panic_doctor.topology.cloud import Filtration, filtration, h0_deaths, merge
from pytest_panic_doctor.topology.native import (
    ComputationProgress,
    DeadlineReached,
    MemoryReached,
    StopRequested,
    memory_need,
    rips_bars,
    room,
)

INF = math.inf
KERNELS = ("baseline", "avx2", "avx512")

pytestmark = pytest.mark.skipif(not native.is_built(), reason="the engine native was not built")


def bars_of(distances: Filtration, max_dim: int = 2) -> list[list[list[float]]]:
    return [each.tolist() for each in lasting(rips_bars(distances, max_dim))]


def hard(count: int = 200) -> Filtration:
    """Near-equidistant points, whose H2 is infeasible."""
    points = np.random.default_rng(0).normal(size=(count, 768))
    return filtration((points / np.linalg.norm(points, axis=1, keepdims=True)).astype(np.float32))


def test_a_square() -> None:
    root = math.sqrt(2)
    distances = np.array([[0, 1, root, 1], [1, 0, 1, root], [root, 1, 0, 1], [1, root, 1, 0]], np.float32)
    assert bars_of(distances) == [[[0, 1]] * 3 + [[0, INF]], [[1, float(np.float32(root))]], []]


@pytest.mark.parametrize("pairs", [2, 3, 4, 5])
def test_a_cross_polytope_is_a_sphere(pairs: int) -> None:
    """n far pairs, all else near: the sphere of dimension n - 1."""
    distances = 1 - np.eye(2 * pairs, dtype=np.float32)
    for one in range(0, 2 * pairs, 2):
        distances[one, one + 1] = distances[one + 1, one] = 2
    found = bars_of(distances)
    assert found[0] == [[0, 1]] * (2 * pairs - 1) + [[0, INF]]
    assert found[1:] == [[[1, 2]] if dimension == pairs - 1 else [] for dimension in (1, 2)]


def test_one_point_and_two() -> None:
    assert bars_of(np.zeros((1, 1), np.float32)) == [[[0, INF]], [], []]
    assert bars_of(np.array([[0, 3], [3, 0]], np.float32)) == [[[0, 3], [0, INF]], [], []]


def test_points_at_no_distance_give_no_bar_but_one() -> None:
    assert bars_of(np.zeros((9, 9), np.float32)) == [[[0, INF]], [], []]


def test_negative_zero_is_zero() -> None:
    distances = a_matrix(0)
    signed = distances.copy()
    np.fill_diagonal(signed, -0.0)
    signed[0, 1] = -0.0
    distances[0, 1] = distances[1, 0] = signed[1, 0] = 0
    assert bars_of(signed) == bars_of(distances)


@pytest.mark.parametrize("max_dim", [0, 1, 2])
def test_only_the_dimensions_that_are_asked_for(max_dim: int) -> None:
    distances = a_matrix(2)
    assert bars_of(distances, max_dim) == bars_of(distances)[: max_dim + 1]


@pytest.mark.parametrize("kind", range(len(KINDS)), ids=[kind.__name__ for kind in KINDS])
def test_bars_are_those_of_gudhi(kind: int) -> None:
    pytest.importorskip("gudhi")
    for seed in range(kind, 240, len(KINDS)):
        distances = a_matrix(seed)
        assert not differences(lasting(rips_bars(distances)), bars_of_gudhi(distances)), seed


@pytest.mark.slow
def test_bars_are_those_of_gudhi_on_thousands() -> None:
    for seed in range(1_000, 5_000):
        distances = a_matrix(seed)
        assert not differences(lasting(rips_bars(distances)), bars_of_gudhi(distances)), seed


@settings(max_examples=300, deadline=None)
@given(st.integers(2, 10).flatmap(lambda n: arrays(np.int8, (n, n), elements=st.integers(0, 5))))
def test_bars_are_those_of_a_simplex_tree(square: NDArray[np.int8]) -> None:
    """By GUDHI's simplex tree over all scales, which shares nothing with Ripser; zeros beside the diagonal too."""
    gudhi = pytest.importorskip("gudhi")
    distances = symmetric(square)
    tree = gudhi.RipsComplex(distance_matrix=distances).create_simplex_tree(max_dimension=3)
    tree.compute_persistence(homology_coeff_field=2)
    wanted = lasting([tree.persistence_intervals_in_dimension(each) for each in range(3)])
    assert bars_of(distances) == [each.tolist() for each in wanted]


@pytest.mark.parametrize("walk", ["wandering", "looping", "restless"])
def test_bars_of_captions_are_those_of_gudhi(shared_data: Path, walk: str) -> None:
    pytest.importorskip("gudhi")
    with np.load(shared_data / "caption-trajectories.npz", allow_pickle=False) as file:
        distances = filtration(merge(file[f"{walk}_vectors"][:260]).points)
    assert not differences(lasting(rips_bars(distances)), bars_of_gudhi(distances))


@pytest.mark.slow
@pytest.mark.parametrize("walk", ["wandering", "looping", "restless"])
def test_bars_of_all_captions_are_those_of_others(shared_data: Path, walk: str) -> None:
    ripser_parallel = pytest.importorskip("gph").ripser_parallel
    with np.load(shared_data / "caption-trajectories.npz", allow_pickle=False) as file:
        distances = filtration(merge(file[f"{walk}_vectors"]).points)
    mine = lasting(rips_bars(distances))
    assert not differences(mine, bars_of_gudhi(distances))
    theirs = ripser_parallel(distances, maxdim=2, metric="precomputed", n_threads=1)["dgms"]
    assert not differences(mine, lasting(theirs))


@pytest.mark.parametrize("seed", range(8, 16))
def test_bars_are_those_of_ripser(seed: int) -> None:
    ripser = pytest.importorskip("ripser").ripser
    distances = a_matrix(seed, least=20, most=50)
    computed = ripser(distances, maxdim=2, distance_matrix=True)["dgms"]
    assert not differences(lasting(rips_bars(distances)), lasting(computed))


@pytest.mark.parametrize("seed", range(3))
def test_h0_dies_at_the_edges_of_the_minimum_spanning_tree(seed: int) -> None:
    points = np.random.default_rng(seed).normal(size=(300, 4)).astype(np.float32)
    (found,) = lasting(rips_bars(filtration(points), 0))
    np.testing.assert_allclose(found[:-1, 1], h0_deaths(points), rtol=1e-6)


@pytest.mark.parametrize("seed", range(2 * len(KINDS)))
def test_the_order_of_the_points_changes_no_bar(seed: int) -> None:
    distances = a_matrix(seed, least=30)
    order = np.random.default_rng(seed).permutation(len(distances))
    assert bars_of(np.ascontiguousarray(distances[np.ix_(order, order)])) == bars_of(distances)


@pytest.mark.parametrize("kernel", KERNELS)
def test_every_kind_of_processor_finds_the_same(kernel: str) -> None:
    for seed in range(40, 40 + 2 * len(KINDS)):
        distances = a_matrix(seed, least=40)
        try:
            found = rips_bars(distances, kernel=kernel)
        except ValueError as missing:
            pytest.skip(str(missing))
        assert [each.tolist() for each in lasting(found)] == bars_of(distances)


@pytest.mark.parametrize("count", [15, 16, 17, 63, 64, 65, 511, 512, 513, 529, 1025])
def test_any_number_of_points_fills_rows_of_bits_and_ranks(count: int) -> None:
    """A circle lives until the side of the largest inscribed triangle (Adamaszek, Adams, 2017)."""
    turn = 2 * np.pi * np.arange(count) / count
    distances = filtration(np.stack((np.cos(turn), np.sin(turn)), axis=1).astype(np.float32))
    circles = rips_bars(distances, 1)[1]
    longest = circles[np.argmax(circles[:, 1] - circles[:, 0])]
    wanted = 2 * math.sin(math.pi / count), 2 * math.sin(math.pi * math.ceil(count / 3) / count)
    np.testing.assert_allclose(longest, wanted, atol=1e-6)


# What is refused.


def damaged(change: Callable[[Filtration], object]) -> Filtration:
    distances = a_matrix(0, least=20)
    change(distances)
    return distances


def put(*values: tuple[int, int, float]) -> Callable[[Filtration], object]:
    def change(distances: Filtration) -> None:
        for row, column, value in values:
            distances[row, column] = value

    return change


@pytest.mark.parametrize(
    ("distances", "said"),
    [
        (np.empty((0, 0), np.float32), "no points"),
        (np.zeros((2, 3), np.float32), "no square matrix"),
        (np.zeros(4, np.float32), "no square matrix"),
        (np.zeros((2, 2, 2), np.float32), "no square matrix"),
        (np.zeros((2, 2)), "float32"),
        (np.zeros((2, 2), np.int32), "float32"),
        (np.zeros((2, 2), ">f4"), "float32"),
        (np.zeros((4, 4), np.float32)[::2, ::2], "contiguous"),
        (np.zeros((3, 2), np.float32).T[:2, :2], "contiguous"),
        (np.frombuffer(bytes(17), np.float32, 4, 1).reshape(2, 2), "aligned"),
        ([[0.0]], "not an array"),
        (None, "not an array"),
        (damaged(put((3, 1, math.nan), (1, 3, math.nan))), r"entry \(3, 1\) is NaN or infinity"),
        (damaged(put((1, 3, math.nan))), "not symmetric"),
        (damaged(put((3, 1, INF), (1, 3, INF))), "NaN or infinity"),
        (damaged(put((3, 1, -1), (1, 3, -1))), "negative"),
        (damaged(put((1, 3, 99))), r"entry \(3, 1\) differs from entry \(1, 3\)"),
        (damaged(put((5, 5, 1e-40))), r"entry \(5, 5\), on the diagonal, is not 0"),
    ],
)
def test_what_is_no_distance_matrix_is_refused(distances: Filtration, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        rips_bars(distances)


def test_other_dimensions_and_more_points_are_refused() -> None:
    for dimension in (-1, 3):
        with pytest.raises(ValueError, match="H0 to H2"):
            rips_bars(a_matrix(0), dimension)
    many = np.lib.stride_tricks.as_strided(np.zeros(1, np.float32), (65_536, 65_536), (0, 0))
    with pytest.raises(ValueError, match="contiguous"):
        rips_bars(many)


@settings(max_examples=300, deadline=None)
@given(
    arrays(
        np.float32,
        st.one_of(st.integers(0, 9).map(lambda n: (n, n)), array_shapes(min_dims=1, max_dims=3, max_side=5)),
        elements=st.floats(width=32),
    ),
    st.booleans(),
)
def test_any_floats_end_in_a_diagram_or_a_sentence(square: NDArray[np.float32], mirrored: bool) -> None:
    if mirrored and square.ndim == 2 and square.shape[0] == square.shape[1]:
        with np.errstate(all="ignore"):
            square = symmetric(np.abs(square))
    with contextlib.suppress(ValueError):
        assert rips_bars(square)[0].max() == INF


# Limits.


def test_a_deadline_ends_it_at_once_and_says_how_far_it_came() -> None:
    """Measured in CPU seconds, which other processes do not lengthen."""
    progress = ComputationProgress()
    distances = hard()
    begun = time.thread_time()
    with pytest.raises(DeadlineReached, match=r"ended after 0.6 s, its limit, in H[12], column [\d,]+ of [\d,]+"):
        rips_bars(distances, timeout=0.6, progress=progress)
    assert time.thread_time() - begun < 0.6 + 0.1
    assert progress.memory == 0
    assert progress.peak > 500_000
    assert progress.dimension in (1, 2)
    assert 0 < progress.done < progress.to_do


def test_a_deadline_that_is_over_ends_it_before_it_begins() -> None:
    for timeout in (0.0, -5.0):
        with pytest.raises(DeadlineReached, match="in the ranks of the edges"):
            rips_bars(hard(), timeout=timeout)


@pytest.mark.parametrize("memory", [0, 1, 10_000, 100_000, 300_000, 1_000_000, 3_000_000])
def test_memory_is_never_more_than_was_given(memory: int) -> None:
    progress = ComputationProgress()
    with pytest.raises(MemoryReached, match=f"ended at {memory:,} bytes, its limit, in "):
        rips_bars(hard(), memory=memory, progress=progress, timeout=60)
    assert progress.memory == 0
    assert progress.peak <= memory


def test_what_it_needs_is_enough() -> None:
    progress = ComputationProgress()
    distances = a_matrix(7, least=40)
    wanted = bars_of(distances)
    rips_bars(distances, progress=progress)
    assert progress.memory == 0
    again = rips_bars(distances, memory=progress.peak)
    assert [each.tolist() for each in lasting(again)] == wanted
    with pytest.raises(MemoryReached):
        rips_bars(distances, memory=progress.peak - 1)


def test_another_thread_sees_how_far_it_is_and_stops_it() -> None:
    progress, failures, seen = ComputationProgress(), list[StopRequested](), set[int]()

    def work() -> None:
        try:
            rips_bars(hard(), progress=progress, timeout=60)
        except StopRequested as failure:
            failures.append(failure)

    thread = threading.Thread(target=work)
    thread.start()
    while progress.dimension != 2 or progress.done < 2:
        seen.add(progress.done)
        time.sleep(0.001)
    assert str(progress).startswith("in H2, column ")
    assert progress.memory > 0
    progress.stop()
    thread.join(5)
    assert not thread.is_alive()
    assert len(seen) > 1
    assert isinstance(failures[0], StopRequested)
    assert str(failures[0]).startswith("stopped in H2, column ")
    assert progress.memory == 0


def test_two_computations_at_once_do_not_meet() -> None:
    wanted = [bars_of(a_matrix(seed)) for seed in range(16)]
    found: list[object] = [None] * 16

    def work(seed: int) -> None:
        found[seed] = bars_of(a_matrix(seed))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == wanted


INTERRUPTED = """
import signal, sys, threading, time
sys.path.insert(0, {tests!r})
import numpy as np
from matrices import equidistant
from pytest_panic_doctor.topology.native import rips_bars
distances = np.load({path!r})
threading.Timer(0.5, lambda: signal.raise_signal(signal.SIGINT)).start()
begun = time.perf_counter()
try:
    rips_bars(distances, timeout=60)
except KeyboardInterrupt:
    print("interrupted", time.perf_counter() - begun < 5)
"""


def test_ctrl_c_ends_it(tmp_path: Path) -> None:
    np.save(tmp_path / "distances.npy", hard())
    script = INTERRUPTED.format(tests=str(Path(__file__).parents[1] / "support"), path=str(tmp_path / "distances.npy"))
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == ["interrupted", "True"]


def test_the_matrix_is_only_read() -> None:
    distances = a_matrix(4)
    before = distances.copy()
    distances.setflags(write=False)
    rips_bars(distances)
    assert (distances == before).all()


def within_room(distances: Filtration) -> Filtration:
    """A copy that may be overwritten; what is beyond the last point must not be read."""
    matrix = room(len(distances))
    matrix[:] = np.nan
    matrix[:, : len(distances)] = distances
    return matrix


@pytest.mark.parametrize("seed", range(3 * len(KINDS)))
def test_over_the_distances_it_computes_the_same(seed: int) -> None:
    distances = a_matrix(seed)
    found = lasting(rips_bars(within_room(distances), overwrite=True))
    assert [each.tolist() for each in found] == bars_of(distances)


def test_only_a_room_is_written_over() -> None:
    for unfit in (a_matrix(0, least=20, most=31), room(40)[:, :32], room(40)[:, 16:]):
        with pytest.raises(ValueError, match=r"contiguous|another length|not aligned"):
            rips_bars(unfit, overwrite=True)
    shifted = np.zeros(16 * 16 + 1, np.float32)[1:].reshape(16, 16)
    other = np.zeros(16 * 16 + 2, np.float32)[2:].reshape(16, 16)
    for unfit in (shifted, other):
        if unfit.ctypes.data % 64:
            with pytest.raises(ValueError, match="not aligned"):
                rips_bars(unfit, overwrite=True)
    locked = within_room(a_matrix(0))
    locked.setflags(write=False)
    with pytest.raises((ValueError, BufferError), match=r"read-only|not writable"):
        rips_bars(locked, overwrite=True)
    assert not native.is_room(locked)


@pytest.mark.parametrize("count", [400, 640, 1025])
@pytest.mark.parametrize("width", [2, 40])
def test_what_it_needs_is_known_beforehand(count: int, width: int) -> None:
    """Equal to the engine's own count within 1 % if there are hardly any columns; an upper bound with all pairs."""
    distances = filtration(np.random.default_rng(count).normal(size=(count, width)).astype(np.float32))
    edges = int((distances[np.triu_indices(count, 1)] <= distances.max(axis=1).min()).sum())
    progress, matrix = ComputationProgress(), within_room(distances)
    rips_bars(matrix, 1, overwrite=True, progress=progress)
    columns = 300_000
    assert (
        0.99 * memory_need(count, edges) <= progress.peak + matrix.nbytes <= memory_need(count, edges) * 1.01 + columns
    )
    assert memory_need(count, edges) <= memory_need(count)


def test_near_equidistant_points() -> None:
    pytest.importorskip("gudhi")
    distances = equidistant(np.random.default_rng(0), 30)
    assert not differences(lasting(rips_bars(distances)), bars_of_gudhi(distances))
    assert len(rips_bars(hard(100))[2]) > 500
