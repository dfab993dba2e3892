"""Forecasts against what it took: diagrams by the engine's arithmetic, and whole repairs by the end of the plan.

    python benchmarks/forecast.py                 # diagrams of captions, of the demo, of production's shape, of files
    python benchmarks/forecast.py --sessions      # also: what a plan says of the demo's repair, and what it took

The seconds of a diagram are those of the processor, which other programs on the machine blur less; each is the least of
five. A session is timed by the clock, on a machine that should have nothing else to do.
"""

from __future__ import annotations

import argparse
import json
import re
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from build import walk
from numpy.typing import NDArray

from pytest_panic_doctor.compute.estimate import estimate
from pytest_panic_doctor.topology.cloud import sampled_share
from pytest_panic_doctor.topology.engines import Engine, compute, load_engine

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
LENGTHS = (30, 60, 100, 200, 400, 800, 1500, 2500)
WALKS = (30, 60, 100, 250, 500, 1000)
TIMES = 5
TARGET = 0.3
"""The median error of a forecast that is good enough."""

Cloud = NDArray[np.float32]


@dataclass(frozen=True)
class Measured:
    """One diagram: its distinct points, the forecast and the time in seconds."""

    distinct: int
    forecast: float
    took: float

    @property
    def error(self) -> float:
        """How far the forecast is off, as a part of the time."""
        return abs(self.forecast - self.took) / self.took


def captions() -> Iterator[Cloud]:
    """Beginnings of real trajectories of captions."""
    data = np.load(SHARED / "caption-trajectories.npz")
    for name in ("wandering", "looping", "restless"):
        vectors = data[f"{name}_vectors"].astype(np.float32)
        yield from (vectors[:length] for length in LENGTHS if length <= len(vectors))


def walks() -> Iterator[Cloud]:
    """Clouds as the benchmark of production's size has them."""
    random = np.random.default_rng(0)
    yield from (walk(length, random) for length in WALKS)


def of_file(path: Path) -> Iterator[Cloud]:
    """The clouds of a database of the Python generation that have a diagram's worth of whole vectors."""
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as db:
        pairs = db.execute(
            "SELECT DISTINCT i.run_id, e.embedding_model FROM invocation i JOIN embedding e ON e.invocation_id = i.id"
        ).fetchall()
        for pair in pairs:
            rows = db.execute(
                "SELECT e.vector FROM invocation i JOIN embedding e ON e.invocation_id = i.id"
                " WHERE i.run_id = ? AND e.embedding_model = ? AND typeof(e.vector) = 'blob' ORDER BY sequence_number",
                pair,
            ).fetchall()
            widths = {len(vector) for (vector,) in rows}
            cloud = np.frombuffer(b"".join(vector for (vector,) in rows), np.float32) if len(widths) == 1 else None
            if cloud is not None and len(rows) > 2 and np.isfinite(cloud).all():
                yield cloud.reshape(len(rows), -1)


def measured(cloud: Cloud, engine: Engine) -> Measured:
    """Forecast a diagram, then compute it."""
    distinct = np.unique(cloud, axis=0)
    forecast = estimate(len(distinct), "native", sampled_share(distinct)).seconds
    took = []
    for _ in range(TIMES):
        began = time.thread_time()
        compute(cloud, engine=engine)
        took.append(time.thread_time() - began)
    return Measured(len(distinct), forecast, min(took))


def sessions(folder: Path) -> None:
    """Print what the plan says of the demo's repair, and what the repair took."""
    words = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", "--tb=no"]
    done = subprocess.run([*words, "--doctor-demo"], cwd=folder, check=False, capture_output=True, text=True)
    database = next(folder.rglob("trajectory_data.sqlite"))
    words += ["--doctor-db", str(database), "--rootdir", str(folder)]
    planned = subprocess.run([*words, "--doctor-plan"], cwd=folder, check=False, capture_output=True, text=True).stdout
    found = re.search(r"about (.*?) with (\d) worker", planned)
    if found is None:
        raise SystemExit(done.stdout + planned)
    began = time.monotonic()
    subprocess.run(
        [*words, "--doctor-fix", "-n", found[2], "--doctor-report", "r.json"],
        cwd=folder,
        check=False,
        capture_output=True,
    )
    took = time.monotonic() - began
    fixed = json.loads((folder / "r.json").read_text())["doctor"]["totals"]["fixed"]
    print(f"\nthe demo's repair, {fixed} items fixed: forecast {found[1]}, took {took:.1f} s")


def main() -> int:
    """Print a table of the errors, and end with 1 if a median is above the target."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sessions", action="store_true", help="also a whole repair of the demo")
    parser.add_argument("--all", action="store_true", help="print each diagram")
    chosen = parser.parse_args()
    engine = load_engine("native")
    compute(walk(30, np.random.default_rng(1)), engine=engine)
    print("| clouds | diagrams | distinct points | median error | largest | forecast of all / time of all |")
    print("|---|---|---|---|---|---|")
    worst = 0.0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        subprocess.run(
            [sys.executable, "-m", "pytest_panic_doctor.session.demo", name], check=True, capture_output=True
        )
        kinds = {
            "captions": captions(),
            "production's shape": walks(),
            "the demo": of_file(folder / "trajectory_data.sqlite"),
            "reference-healthy": of_file(SHARED / "reference-healthy.sqlite"),
            "reference-sick": of_file(SHARED / "reference-sick.sqlite"),
        }
        for kind, clouds in kinds.items():
            every = [measured(cloud, engine) for cloud in clouds]
            for each in every if chosen.all else ():
                print(f"    {each.distinct:5} forecast {each.forecast:.4f} s, took {each.took:.4f} s")
            median = statistics.median(each.error for each in every)
            worst = max(worst, median)
            total = sum(each.forecast for each in every) / sum(each.took for each in every)
            points = f"{min(each.distinct for each in every):,} to {max(each.distinct for each in every):,}"
            largest = max(each.error for each in every)
            print(f"| {kind} | {len(every)} | {points} | {median:.0%} | {largest:.0%} | {total:.2f} |", flush=True)
    if chosen.sessions:
        with tempfile.TemporaryDirectory() as name:
            sessions(Path(name))
    return int(worst > TARGET)


if __name__ == "__main__":
    sys.exit(main())
