"""Time and memory of diagrams, H0 to H2: giotto-ph alone, and this engine, side by side in fresh processes.

    python benchmarks/diagrams.py            # real clouds and made ones: about ten minutes
    python benchmarks/diagrams.py --long     # also the longest: a few minutes more
    python benchmarks/diagrams.py --only looping --ways walked,engine

Every computation is a fresh process, one thread unless --threads says more. Seconds are those of the processor from the
vectors to the bars, imports excluded, which another program on the machine does not blur; elapsed ones with --threads.
Memory is the most that the process ever had resident, imports included. `../shared/data/caption-trajectories.npz` is
looked for beside the checkout (or where --data says); the made clouds need nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pytest_panic_doctor.topology.cloud import Points, h0_deaths, merge
from pytest_panic_doctor.topology.engines import compute, load_engine

DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "caption-trajectories.npz"
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")

NOTHING = 1e-300
"""GUDHI computes a bottleneck distance to within the least positive number, not to 0."""

WAYS = ("stored", "walked", "engine", "gudhi")
"""giotto-ph on the cloud as stored; on the merged cloud in its walked order; this engine; this engine with GUDHI."""

COLUMNS = {
    "stored": "giotto-ph as stored",
    "walked": "giotto-ph merged",
    "engine": "this engine",
    "gudhi": "with GUDHI",
}


@dataclass(frozen=True)
class Case:
    """A cloud; `cap` is how many seconds giotto-ph gets for it as stored, 0: it is not tried.

    A `long` one, of 2,500 distinct points, is not given to giotto-ph at all: it would take most of an hour.
    """

    name: str
    kind: str
    count: int
    cap: int
    long: bool = False


CASES = (
    Case("wandering, first 800", "wandering", 800, 120),
    Case("restless, 800", "restless", 800, 90),
    Case("looping, 2,500", "looping", 2500, 60),
    Case("wandering, 2,500", "wandering", 2500, 30),
    Case("made: random walk, 600", "walk", 600, 30),
    Case("made: noisy loop, 600", "loop", 600, 60),
    Case("made: 300 places revisited, 900", "revisits", 900, 60),
    Case("restless tiled and perturbed, 1,250", "restless-tiled", 1250, 0),
    Case("wandering tiled and perturbed, 2,500", "wandering-tiled", 2500, 0, long=True),
)


@dataclass(frozen=True)
class Cost:
    """What one process took: seconds, and bytes resident at most; `bars` is None where it was ended at its cap."""

    seconds: float
    peak: int
    distinct: int
    bars: list[NDArray[np.float32]] | None

    def __str__(self) -> str:
        """As a cell of the table."""
        return f"{self.seconds:.2f} s, {self.peak / 1e6:,.0f} MB" if self.bars else f"ended at {self.seconds:.0f} s"


def cloud(kind: str, count: int, data: Path) -> Points:
    """The points of a case, float32, shape (count, d)."""
    if kind in MADE:
        return unit(MADE[kind](count))
    name, _, tiled = kind.partition("-")
    with np.load(data, allow_pickle=False) as file:
        points: Points = file[f"{name}_vectors"].astype(np.float32, copy=False)
    if not tiled:
        return points[:count]
    distinct = merge(points).points
    rows = np.arange(count) % len(distinct)
    lap = (np.arange(count) // len(distinct))[:, None]
    step = np.random.default_rng(0).normal(size=(count, points.shape[1]))
    step *= 0.3 / np.linalg.norm(step, axis=1, keepdims=True)
    return unit(distinct[rows] + step * (lap > 0))


def unit(points: NDArray[np.floating]) -> Points:
    """Points moved to the unit sphere, where embeddings live."""
    moved: Points = np.divide(points, np.linalg.norm(points, axis=1, keepdims=True), dtype=np.float64).astype(
        np.float32
    )
    return moved


def random_walk(count: int) -> NDArray[np.float64]:
    """A walk through 768 dimensions that forgets where it came from."""
    random = np.random.default_rng(1)
    position = random.normal(size=768)
    steps = []
    for _ in range(count):
        position = 0.9 * position + 0.436 * random.normal(size=768) * np.linspace(1.5, 0.1, 768) ** 2
        steps.append(position)
    return np.array(steps)


def noisy_loop(count: int) -> NDArray[np.float64]:
    """Ten laps of a circle in 768 dimensions."""
    random = np.random.default_rng(2)
    turn = np.linspace(0, 20 * np.pi, count)
    points = random.normal(scale=0.01, size=(count, 768))
    points[:, 0] += np.cos(turn)
    points[:, 1] += np.sin(turn)
    return points


def revisits(count: int) -> NDArray[np.float64]:
    """300 places of a walk, visited again and again with the last bits changed, as another batch would."""
    places = random_walk(300)
    random = np.random.default_rng(3)
    rows = np.concatenate((np.arange(300), random.integers(0, 300, count)))[:count]
    return places[rows] * (1 + 1e-7 * random.choice([-1, 0, 1], (count, 768)))


MADE = {"walk": random_walk, "loop": noisy_loop, "revisits": revisits}


def one(way: str, points: Points, threads: int) -> tuple[float, int, list[NDArray[np.float32]]]:
    """Seconds, distinct points and bars of one computation in this process."""
    clock = time.process_time if threads == 1 else time.perf_counter
    if way in ("engine", "gudhi"):
        engine = load_engine("gudhi" if way == "gudhi" else None)
        begun = clock()
        diagram, merged = compute(points, engine=engine, threads=threads)
        return clock() - begun, len(merged.points), list(diagram.bars)
    from gph import ripser_parallel

    begun = clock()
    if way == "walked":
        points = merge(points).points
    bars = ripser_parallel(points, maxdim=2, n_threads=threads)["dgms"]
    return clock() - begun, len(points), bars


def measure(case: Case, way: str, data: Path, threads: int) -> Cost:
    """The same in a fresh process, ended at the case's cap where giotto-ph gets the cloud as stored."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "bars.npz"
        cap = case.cap if way == "stored" else 0
        told = [way, case.kind, str(case.count), str(threads), str(data), str(out), str(cap * threads)]
        ended = subprocess.run([sys.executable, __file__, "--child", *told], check=False, env=os.environ | ONE_THREAD)
        if ended.returncode == -signal.SIGXCPU:
            return Cost(case.cap, 0, 0, None)
        ended.check_returncode()
        with np.load(out, allow_pickle=False) as file:
            seconds, peak, distinct = json.loads(str(file["facts"]))
            return Cost(seconds, peak, distinct, [file[f"h{dimension}"] for dimension in range(3)])


def child(way: str, kind: str, count: str, threads: str, data: str, out: str, cap: str) -> None:
    """One computation; its cost and its bars go to `out`. The kernel ends it after `cap` seconds of the processor."""
    if int(cap):
        resource.setrlimit(resource.RLIMIT_CPU, (int(cap), resource.RLIM_INFINITY))
    seconds, distinct, bars = one(way, cloud(kind, int(count), Path(data)), int(threads))
    unit_of_rss = 1 if sys.platform == "darwin" else 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit_of_rss
    held = {f"h{dimension}": each for dimension, each in enumerate(bars)}
    np.savez(out, allow_pickle=False, facts=np.array(json.dumps([seconds, peak, distinct])), **held)


def bottleneck(one: Sequence[NDArray[np.float32]], other: Sequence[NDArray[np.float32]]) -> str:
    """The bottleneck distance by dimension, H0 first."""
    from gudhi import bottleneck_distance

    distances = [float(bottleneck_distance(a, b)) for a, b in zip(one, other, strict=True)]
    return " ".join("0" if each < NOTHING else f"{each:.0e}" for each in distances)


def tree_distance(points: Points, bars: NDArray[np.float32]) -> float:
    """The largest difference between deaths in H0 and the edges of the minimum spanning tree of the merged cloud."""
    edges = h0_deaths(merge(points).points)
    deaths = np.sort(bars[np.isfinite(bars[:, 1]), 1])
    return float(np.abs(edges - deaths).max(initial=0)) if len(edges) == len(deaths) else float("inf")


def ratio(other: Cost | None, engine: Cost) -> str:
    """How many times as fast, and with which part of the memory, the engine is."""
    if other is None:
        return "-"
    times = other.seconds / engine.seconds
    return f"{times:.1f}x, {engine.peak / other.peak:.2f}" if other.bars else f"> {times:.0f}x"


def rows(cases: Sequence[Case], data: Path, threads: int, ways: Collection[str]) -> Iterator[list[str]]:
    """The table, a case at a time; what is not among `ways` is not tried."""
    for case in cases:
        costs = {
            way: measure(case, way, data, threads)
            for way in WAYS
            if way in ways and (case.cap or way not in ("stored", "gudhi")) and not (case.long and way == "walked")
        }
        engine = costs["engine"]
        assert engine.bars
        compared = [
            bottleneck(engine.bars, costs[way].bars or []) if way in costs and costs[way].bars else "-"
            for way in ("stored", "walked", "gudhi")
        ]
        yield [
            f"{case.name} ({engine.distinct:,} distinct)",
            *[str(costs.get(way, "not tried")) for way in WAYS],
            ratio(costs.get("stored"), engine),
            ratio(costs.get("walked"), engine),
            *compared,
            f"{tree_distance(cloud(case.kind, case.count, data), engine.bars[0]):.0e}",
        ]


HEAD = [
    "cloud",
    *COLUMNS.values(),
    "engine to stored",
    "engine to merged",
    "bottleneck H0 H1 H2 to stored",
    "to merged",
    "to GUDHI",
    "H0 to tree",
]


def middling(seed: int) -> int:
    """One of many clouds of a usual size; the number of its bars."""
    points = unit(random_walk(450 + seed))
    return sum(map(len, compute(points, engine=load_engine())[0].bars))


def throughput(count: int = 20) -> tuple[float, float]:
    """Seconds that one process and that two processes, warm, one thread each, take for the same clouds."""
    taken = []
    for workers in (1, 2):
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
            list(pool.map(middling, [-350] * workers * 2))
            begun = time.perf_counter()
            list(pool.map(middling, reversed(range(count))))
            taken.append(time.perf_counter() - begun)
    return taken[0], taken[1]


def line(cells: Sequence[str]) -> None:
    """A row of a Markdown table."""
    print("|", " | ".join(cells), "|", flush=True)


def main() -> None:
    """The command line."""
    if sys.argv[1:2] == ["--child"]:
        return child(*sys.argv[2:])
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--long", action="store_true", help="also the longest cloud")
    parser.add_argument("--only", metavar="TEXT", default="", help="only clouds with this in their name")
    parser.add_argument("--ways", default=",".join(WAYS), help=f"of {', '.join(WAYS)}; engine is always one")
    parser.add_argument("--threads", type=int, default=1, help="threads of each computation (default: 1)")
    parser.add_argument("--data", type=Path, default=DATA, help="caption-trajectories.npz")
    chosen = parser.parse_args()
    cases = [each for each in CASES if chosen.only in each.name and (chosen.long or not each.long)]
    if not chosen.data.is_file():
        print(f"no real clouds: {chosen.data.name} is not there (--data)\n")
        cases = [each for each in cases if each.kind in MADE]
    line(HEAD)
    line(["---"] * len(HEAD))
    for cells in rows(cases, chosen.data, chosen.threads, {*chosen.ways.split(","), "engine"}):
        line(cells)
    if not chosen.only:
        alone, together = throughput()
        print(f"\n20 middling clouds: {alone:.1f} s in one process, {together:.1f} s in two: {alone / together:.2f}x")
    return None


if __name__ == "__main__":
    main()
