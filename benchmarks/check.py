"""Examines a database of a chosen size rule by rule, and through pytest: seconds, rows, memory, and ratios.

Seconds are those of the CPU, for the file is warm and a machine has other things to do; pytest's are on the clock.

python benchmarks/check.py                 # 200 runs x 400 invocations x 3 embedding models, about 700 MB
python benchmarks/check.py --runs 50 --length 1000 --models Nomic,DummyVision
python benchmarks/check.py --ten           # and the same at ten times the rows (about 7 GB of disk)
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).parent))
from build import KINDS, MODELS, Shape, build

from pytest_panic_doctor.database.connection import Database
from pytest_panic_doctor.database.schema import TABLES
from pytest_panic_doctor.examination import manifest as manifests
from pytest_panic_doctor.examination.examiner import Examiner
from pytest_panic_doctor.examination.parsing import model_types
from pytest_panic_doctor.rules import registry

VECTORS = ("embedding-vector",)
PAYLOADS = ("diagram-valid", "diagram-current")
READS = {
    "file-integrity": "all",
    "schema": "all",
    "orphan-run": "run",
    "orphan-invocation": "invocation",
    "orphan-embedding": "embedding",
    "orphan-cluster": "embeddingcluster",
    "embedding-missing": "invocation",
    "embedding-type": "embedding",
    "embedding-duplicate": "embedding",
    "embedding-vector": "embedding",
    "experiment-config": "experimentconfig",
    "experiment-runs": "run",
}


@dataclass
class Times:
    """CPU seconds by rule, items, and those of SQLite's own check on the same warm file."""

    quick_check: float = 0.0
    rules: dict[str, float] = field(default_factory=dict)
    items: Counter[str] = field(default_factory=Counter)
    rows: dict[str, int] = field(default_factory=dict)

    def together(self, names: set[str]) -> float:
        """Seconds of some rules."""
        return sum(seconds for name, seconds in self.rules.items() if name in names)


def timed(path: Path) -> Times:
    """Every item in this process, the file read once before."""
    rules = {name: rule for name, rule in registry().items() if not rule.deep}
    database = Database(path)
    examiner = Examiner(database, rules, model_types([], []))
    times = Times(rows=database.read(lambda db: manifests.count_table_rows(db, TABLES)))
    times.quick_check = min(quick_check(database) for _ in range(4))
    for entry in database.read(manifests.build_manifest).entries(rules.values()):
        begun = time.process_time()
        outcome = examiner.examine(rules[entry.rule], entry.subject)
        times.rules[entry.rule] = times.rules.get(entry.rule, 0.0) + time.process_time() - begun
        times.items[entry.rule] += 1
        if outcome.status == "failed":
            raise SystemExit(f"{entry.name}: {outcome.findings[0].sentence}")
    database.close()
    return times


def quick_check(database: Database) -> float:
    """CPU seconds of SQLite's own check."""
    begun = time.process_time()
    database.read(lambda db: db.execute("PRAGMA quick_check").fetchall())
    return time.process_time() - begun


@dataclass
class Run:
    """One real pytest run: seconds on the clock and of the CPU, items, and the peak of its tree's memory in bytes."""

    seconds: float
    cpu: float
    items: int
    peak: int


def through_pytest(path: Path, *args: str) -> Run:
    """Run pytest on the file, and sample the memory of its process tree every 50 ms."""
    report = path.with_suffix(".json")
    command = [sys.executable, "-m", "pytest", "--doctor-db", str(path), f"--doctor-report={report}", "-q", *args]
    begun = time.perf_counter()
    process = subprocess.Popen([*command, "-p", "no:cacheprovider"], cwd=path.parent, stdout=subprocess.DEVNULL)
    peak = [0]
    watcher = threading.Thread(target=watch, args=(process.pid, peak))
    watcher.start()
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - begun
    process.returncode = os.waitstatus_to_exitcode(status)
    watcher.join()
    if process.returncode:
        raise SystemExit(f"pytest ended with status {process.returncode} on a healthy database")
    items = len(json.loads(report.read_text())["items"])
    return Run(seconds, usage.ru_utime + usage.ru_stime, items, peak[0])


def watch(pid: int, peak: list[int]) -> None:
    """Keep the highest sum of resident memory of a process and its children."""
    while True:
        try:
            root = psutil.Process(pid)
            if root.status() == psutil.STATUS_ZOMBIE:
                return
            tree = [root, *root.children(recursive=True)]
            peak[0] = max(peak[0], sum(each.memory_info().rss for each in tree))
        except psutil.NoSuchProcess:
            return
        time.sleep(0.05)


def show(times: Times, run: Run) -> None:
    """The table of one file."""
    print(f"\n{'rule':<22}{'items':>8}{'seconds':>10}{'rows':>12}{'/quick_check':>14}")
    for name, seconds in sorted(times.rules.items(), key=lambda pair: -pair[1]):
        table = READS.get(name, "persistencediagram" if "diagram" in name else "invocation")
        rows = times.rows.get(table, sum(times.rows.values()))
        print(f"{name:<22}{times.items[name]:>8,}{seconds:>10.3f}{rows:>12,}{seconds / times.quick_check:>14.2f}")
    cheap = set(times.rules) - {*VECTORS, *PAYLOADS, "file-integrity"}
    print(f"\nquick_check, warm                         {times.quick_check:8.3f} s")
    print(f"rules that read no vector and no payload  {times.together(cheap) / times.quick_check:8.2f} x (target 1.5)")
    print(f"embedding-vector                          {times.rules[VECTORS[0]] / times.quick_check:8.2f} x (target 3)")
    share = (run.cpu - times.together(set(times.rules))) / run.items * 1000
    print(f"pytest: {run.items:,} items in {run.seconds:.1f} s, {run.items / run.seconds:,.0f} items/s")
    print(f"pytest's own share                        {share:8.2f} ms an item, start-up included (target 2)")
    print(f"peak memory of pytest                     {run.peak / 1e6:8.0f} MB (target 300)")


def known_models(text: str) -> tuple[str, ...]:
    """Embedding models, separated by commas."""
    models = tuple(text.split(","))
    if unknown := [model for model in models if model not in KINDS]:
        raise argparse.ArgumentTypeError(f"{unknown[0]!r} is no embedding model: choose among {', '.join(KINDS)}")
    return models


def main() -> None:
    """Build, examine, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--length", type=int, default=400)
    parser.add_argument("--models", type=known_models, default=MODELS, help="of embeddings, separated by commas")
    parser.add_argument("--image", type=int, default=4_000, help="bytes of an image")
    parser.add_argument("--ten", action="store_true", help="also at ten times the runs")
    parser.add_argument("--folder", type=Path, default=None, help="where to build (default: a temporary folder)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        results = []
        for factor in (1, 10) if args.ten else (1,):
            shape = Shape(args.runs * factor, args.length, args.models, args.image)
            path = build(Path(folder) / f"x{factor}.sqlite", shape)
            size = f"{shape.runs:,} runs x {shape.length:,} invocations x {len(shape.models)} embedding models"
            print(f"\n{size}: {path.stat().st_size / 1e6:,.0f} MB")
            times, run = timed(path), through_pytest(path)
            show(times, run)
            results.append((times, run))
            path.unlink()
        if args.ten:
            one, ten = results
            for name in ("all rules", *one[0].rules):
                chosen = set(one[0].rules) if name == "all rules" else {name}
                ratio = ten[0].together(chosen) / max(one[0].together(chosen), 1e-4)
                print(
                    f"ten times the rows: {name:<22} {ratio:6.1f} x the time" + (" (target 11)" if " " in name else "")
                )
            print(f"ten times the rows: peak memory {ten[1].peak / 1e6:.0f} MB instead of {one[1].peak / 1e6:.0f} MB")


if __name__ == "__main__":
    main()
