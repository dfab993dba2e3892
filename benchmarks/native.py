"""The engine `native` against others, and against anything that may be thrown at it.

    python benchmarks/native.py compare 3000         # random matrices, bar by bar with GUDHI
    python benchmarks/native.py fuzz 3600            # seconds of hostile matrices: a diagram, a ValueError, or a limit
    python benchmarks/native.py time                 # CPU seconds and ratio to GUDHI

`.ci/run` does `fuzz 8` and `compare 300 --kernels` with the sanitizers for addresses and undefined behaviour built in.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "support"))

from matrices import KINDS, Random, a_matrix, bars_of_gudhi, differences, lasting, symmetric

from pytest_panic_doctor.topology.cloud import Filtration, filtration, merge
from pytest_panic_doctor.topology.engines import load_engine
from pytest_panic_doctor.topology.native import LimitReached, rips_bars, room

HOSTILE = (np.nan, np.inf, -np.inf, -1.0, -0.0, 0.0, 1e-45, 1e-38, 3.4e38, 1.0)
"""Values that are put into matrices: not finite, negative, denormal, the largest."""


def compare(count: int, kernels: bool) -> None:
    """Bars of random matrices against GUDHI's, or, for sanitizers, among the kernels."""
    differ = 0
    for seed in range(100_000, 100_000 + count):
        distances = a_matrix(seed)
        mine = lasting(rips_bars(within_room(distances), overwrite=True))
        other = lasting(rips_bars(distances, kernel="baseline")) if kernels else bars_of_gudhi(distances)
        if said := differences(mine, other):
            differ += 1
            print(f"seed {seed}, {len(distances)} points, {KINDS[seed % len(KINDS)].__name__}: {said}")
    print(f"{count:,} matrices, {differ} differ")
    sys.exit(differ > 0)


def within_room(distances: Filtration) -> Filtration:
    """A copy that may be computed over, with what is hostile beyond the last point."""
    matrix = room(len(distances))
    matrix[:] = np.nan
    matrix[:, : len(distances)] = distances
    return matrix


def hostile(random: Random) -> Filtration:
    """Any float32 matrix: bits at random, values that are hostile, or a good one with a few of them in it."""
    count = int(random.integers(0, 40))
    kind = random.integers(4)
    if kind == 0:
        return random.integers(0, 1 << 32, (count, count), dtype=np.uint32).view(np.float32)
    if kind == 1:
        square = random.choice(np.array(HOSTILE[4:], np.float32), (count, count))
        return symmetric(square)
    distances = a_matrix(int(random.integers(1 << 30)), most=60)
    for _ in range(int(random.integers(3)) if kind == 2 else 0):
        row, column = random.integers(0, len(distances), 2)
        distances[row, column] = random.choice(HOSTILE)
        if random.random() < 0.7:
            distances[column, row] = distances[row, column]
    return distances


def fuzz(seconds: float) -> None:
    """For so long; a crash ends the process, anything else but the three ends it with a traceback."""
    random = np.random.default_rng()
    ends: Counter[str] = Counter()
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        distances = hostile(random)
        limits: dict[str, int | float] = {"timeout": 5.0}
        if random.random() < 0.3:
            limits["memory"] = int(random.integers(0, 1 << int(random.integers(8, 23))))
        if random.random() < 0.2:
            limits["timeout"] = float(random.random()) / 1000
        try:
            over = random.random() < 0.5
            found = rips_bars(
                within_room(distances) if over else distances,
                int(random.integers(3)),
                timeout=float(limits["timeout"]),
                memory=int(limits["memory"]) if "memory" in limits else None,
                kernel=[None, "baseline"][int(random.integers(2))],
                overwrite=over,
            )
        except (ValueError, LimitReached) as end:
            ends[type(end).__name__] += 1
        else:
            assert np.isinf(found[0]).sum() == 1
            ends["diagram"] += 1
    print(f"{sum(ends.values()):,} matrices: {dict(ends)}")


def clock(data: Path) -> None:
    """One run: CPU seconds of native and of GUDHI, from the merged vectors."""
    from diagrams import CASES, cloud

    other = load_engine("gudhi")
    print("| cloud | GUDHI | native | ratio |\n|---|---|---|---|")
    for case in CASES:
        points = merge(cloud(case.kind, case.count, data)).points
        taken = []
        for _ in range(3):
            begun = time.process_time()
            mine = lasting(rips_bars(filtration(points, room(len(points))), overwrite=True))
            taken.append(time.process_time() - begun)
        native = sorted(taken)[1]
        if case.long:
            print(f"| {case.name} ({len(points):,}) | not tried | {native:.2f} s | |", flush=True)
            continue
        begun = time.process_time()
        theirs = lasting(other.bars(filtration(points), 2, 1))
        today = time.process_time() - begun
        said = differences(mine, theirs) or f"{today / native:.0f} x"
        print(f"| {case.name} ({len(points):,}) | {today:.2f} s | {native:.2f} s | {said} |", flush=True)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["compare", "fuzz", "time"])
    parser.add_argument("amount", nargs="?", type=float, default=3000, help="matrices, or seconds")
    parser.add_argument("--kernels", action="store_true", help="compare kernels, and not GUDHI")
    parser.add_argument("--data", type=Path, default=Path(__file__).resolve().parents[2] / "shared/data")
    chosen = parser.parse_args()
    if chosen.what == "compare":
        compare(int(chosen.amount), chosen.kernels)
    elif chosen.what == "fuzz":
        fuzz(chosen.amount)
    else:
        clock(chosen.data / "caption-trajectories.npz")


if __name__ == "__main__":
    main()
