"""What one dispatcher can feed: diagrams a second that it loads, merges, sends, and writes when they come back.

    python benchmarks/cluster.py                 # 40 clouds of 500 and of 1,200 points: under a minute
    python benchmarks/cluster.py --ray           # and the same repair by -n 2 and on a local Ray, small clouds

The cluster of the first part answers at once, with a diagram that was computed before: what is measured is the pytest
side alone, which is what bounds a cluster of hundreds of cores.
"""

from __future__ import annotations

import argparse
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from pathlib import Path

import numpy as np
import psutil
from build import Shape, build

from pytest_panic_doctor.compute.budget import Budget
from pytest_panic_doctor.compute.ray.client import ClientAnswer, ClusterSize
from pytest_panic_doctor.compute.ray.task import TaskSpec
from pytest_panic_doctor.database.connection import Database
from pytest_panic_doctor.database.shared_folder import SharedFolder
from pytest_panic_doctor.database.subject import Subject
from pytest_panic_doctor.repair.cluster.dispatcher import Dispatcher
from pytest_panic_doctor.repair.cluster.requests import ComputeOptions, DiagramRequests
from pytest_panic_doctor.repair.journal.writer import Writer
from pytest_panic_doctor.repair.recompute import RepairContext
from pytest_panic_doctor.repair.result_store import ResultStore
from pytest_panic_doctor.topology.cloud import Points

COUNT = 40


class Instant:
    """A cluster of 512 cores that holds what it was given for a while, and then answers at once."""

    address = "instant"
    busy = False
    size = ClusterSize(16, 512, 32, 128_000_000_000)

    def __init__(self, hold: int) -> None:
        """`hold` tasks are in flight before the first answer."""
        self.hold = hold
        self.flights: deque[tuple[str, int]] = deque()

    def submit(self, key: str, order: TaskSpec, points: Points) -> None:
        """Note a task; its points are let go of."""
        del order
        self.flights.append((key, len(points)))

    def cancel(self, key: str) -> None:
        """Nothing is ever cancelled."""

    def receive(self, seconds: float) -> ClientAnswer | None:
        """The oldest answer, once enough are in flight."""
        if len(self.flights) < self.hold:
            time.sleep(min(seconds, 0.001))
            return None
        key, count = self.flights.popleft()
        deaths = np.append(np.linspace(0.1, 1, count - 1), np.inf)
        bars = [np.column_stack((np.zeros(count), deaths)).astype(np.float32)]
        bars += [np.column_stack((np.full(count, 0.4 + k), np.full(count, 0.6 + k))).astype(np.float32) for k in (0, 1)]
        header = {"kind": "done", "key": key, "engine": "none", "version": "0", "seconds": 60.0, "peak": 10**8}
        return header, bars


def without_diagrams(path: Path, points: int, runs: int = COUNT) -> list[Subject]:
    """A database of `runs` clouds of `points` points, and their subjects."""
    build(path, Shape(runs, 2 * points, ("Nomic",), image=100))
    db = sqlite3.connect(path)
    db.execute("UPDATE persistencediagram SET diagram_data = NULL")
    db.commit()
    found = db.execute("SELECT experiment_id, id FROM run").fetchall()
    db.close()
    return [Subject(experiment, run, "Nomic") for experiment, run in found]


def fed(folder: Path, points: int) -> str:
    """A row of the table."""
    path = folder / f"{points}.sqlite"
    subjects = without_diagrams(path, points)
    link = Instant(hold=COUNT + 1)
    shared = SharedFolder(folder / f"shared-{points}")
    dispatcher = Dispatcher(
        link,  # type: ignore[arg-type]
        RepairContext(Database(path, shared=True), Writer(path, "session", lambda: True), {"Nomic": "TEXT"}),
        DiagramRequests(shared),
        ResultStore(shared),
        Budget(folder / f"budget-{points}", 10**11),
        ComputeOptions("auto", None, None),
        lambda: True,
    )
    dispatcher.prefetch(subjects, {})
    before, begun = psutil.Process().memory_info().rss, time.monotonic()
    dispatcher.start()
    while len(link.flights) < COUNT:
        time.sleep(0.01)
    sent, grown = time.monotonic() - begun, psutil.Process().memory_info().rss - before
    link.hold, begun = 1, time.monotonic()
    while dispatcher.submitted:
        time.sleep(0.01)
    back = time.monotonic() - begun
    dispatcher.close()
    each = sent / COUNT, back / COUNT
    rate = COUNT / (sent + back)
    return f"| {points:,} | {1000 * each[0]:.0f} ms | {1000 * each[1]:.0f} ms | {rate:.1f} | {grown / 1e6:.0f} MB |"


def repaired(folder: Path, *args: str) -> str:
    """Seconds of a whole repair, and the peak of the controlling pytest."""
    path = folder / "x.sqlite"
    without_diagrams(path, 120)
    for sidecar in folder.glob("x.doctor*"):
        sidecar.unlink()
    command = [sys.executable, "-m", "pytest", f"--doctor-db={path}", "--doctor-fix", "--doctor-rule=diagram-missing"]
    begun, peak = time.monotonic(), 0
    process = subprocess.Popen([*command, *args], cwd=folder, stdout=subprocess.PIPE, text=True)
    reader = threading.Thread(target=process.communicate)
    reader.start()
    while reader.is_alive():
        try:
            peak = max(peak, psutil.Process(process.pid).memory_info().rss)
        except psutil.NoSuchProcess:
            break
        time.sleep(0.1)
    reader.join()
    return f"| {' '.join(args) or 'one process'} | {time.monotonic() - begun:.1f} s | {peak / 1e6:.0f} MB |"


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--ray", action="store_true", help="also repair by -n 2 and on a local Ray")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="doctor-bench-") as name:
        print(
            "| points | load, merge, send | write | diagrams a second | 40 in flight, grown by |\n|---|---|---|---|---|"
        )
        for points in (500, 1_200):
            print(fed(Path(name), points), flush=True)
        if chosen.ray:
            print(f"\n| {COUNT} clouds of 120 points | whole repair | controller |\n|---|---|---|")
            for args in (("-n2",), ("--doctor-engine=ray",)):
                print(repaired(Path(name), *args), flush=True)


if __name__ == "__main__":
    main()
