"""A database of production's shape at a fraction of its size: examined, planned, repaired, and extrapolated to 1/1.

    python benchmarks/production.py                       # all parts at 1/80, 1/40 and 1/20: some 15 minutes on 2 cores
    python benchmarks/production.py --part naive          # growth, cold, items, schedule or naive alone
    python benchmarks/production.py --fraction 1/10 --image 20000 --folder /large

growth    examines, plans and repairs a seeded 2 % of damage at a quarter, a half and the whole of --fraction
items     60,000 items on small rows: the time to the first, and the controller's memory
schedule  measures what diagrams take, and simulates the repair of production's 6,440 on 2, 32 and 512 cores
cold      examines a file that is in no cache, with reading ahead and without
naive     the research tool's nine checks, query by query, and the doctor's rules that look at the same

Times «of the CPU» are those of all processes together, for a machine has other things to do. `caption-trajectories.npz`
is looked for in ../shared/data beside the checkout, or where --data says.
"""

from __future__ import annotations

import argparse
import os
import sqlite3
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import naive
import numpy as np
from build import KINDS, Shape, build
from growth import growth
from memory import DATA
from schedule import makespan
from shape import FOUR, LENGTHS, PER_EXPERIMENT, RUNS, TWO, Captions, counted, plant, shapes
from watched import Watched, make_cold, pytest_run

from pytest_panic_doctor.database.connection import Database
from pytest_panic_doctor.examination import manifest as manifests
from pytest_panic_doctor.examination.examiner import Examiner
from pytest_panic_doctor.rules import registry

FULL = {"run": RUNS, "invocation": 3_732_000, "embedding": 7_029_100}
DIAGRAMS = 6_440
DAMAGE, SEED = 0.02, 7
TIMES = 2
"""Examinations of each size: the spread between them is part of the uncertainty."""

ALL = "--doctor-max-quarantine=100%"
"""What was planted may go: a fiftieth of all rows would ask."""

SAMPLED = 10
"""Runs of each length whose diagrams are computed for the simulation, by two embedding models each."""


@dataclass
class Options:
    """What the command line says."""

    fraction: Fraction
    image: int
    folder: Path
    captions: Captions

    def database(self, name: str, fraction: Fraction) -> Path:
        """A healthy database of production's shape."""
        return build(self.folder / f"{name}.sqlite", *shapes(float(fraction), self.captions.cloud, self.image))


def megabytes(count: float) -> str:
    """A size, for a table."""
    return f"{count / 1e6:,.0f} MB"


def table(*columns: str) -> None:
    """The head of a table in Markdown."""
    print(f"\n| {' | '.join(columns)} |\n|{'---|' * len(columns)}", flush=True)


def row(*cells: object) -> None:
    """A row of it."""
    print(f"| {' | '.join(map(str, cells))} |", flush=True)


def verdict(good: bool) -> str:
    """Whether a target is met."""
    return "ok" if good else "MISSED"


@dataclass
class Series:
    """What grows: the rows of invocations and embeddings at each run, and what was measured there."""

    rows: list[int] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    asked: list[float] = field(default_factory=list)
    memory: list[float] = field(default_factory=list)
    items: list[int] = field(default_factory=list)

    def add(self, rows: int, run: Watched) -> None:
        """One run."""
        self.rows.append(rows)
        self.seconds.append(run.cpu)
        self.asked.append(run.asked)
        self.memory.append(run.peaks["tree"])
        self.items.append(len(run.items))


def grow(options: Options) -> None:
    """Examine, plan and repair at three sizes, then fit."""
    series = {name: Series() for name in ("examine", "plan", "repair")}
    table("fraction", "phase", "items", "clock", "CPU", "first item", "peak: tree, controller", "asked for, from disk")
    for part in (4, 2, 1):
        fraction = options.fraction / part
        path = options.database(f"grow{part}", fraction)
        there = counted(path)
        rows = there["invocation"] + there["embedding"]
        what = f"{there['run']} runs, {there['embedding']:,} embeddings, {megabytes(path.stat().st_size)}"
        row(f"**{fraction}**", what, *[""] * 6)
        for turn in range(TIMES):
            make_cold(path)
            told(fraction, "examine, cold", series["examine"], rows, pytest_run(path))
            if turn == 0:
                told(fraction, "examine, warm", None, rows, pytest_run(path))
        damage = plant(path, DAMAGE, SEED)
        told(fraction, "plan", series["plan"], rows, pytest_run(path, "--doctor-plan", ALL))
        fixed = pytest_run(path, "--doctor-fix", ALL, "-n", "2")
        told(fraction, "repair, `-n 2`", series["repair"], rows, fixed)
        row("", f"{damage.diagrams} diagrams, {damage.orphans:,} orphans: {dict(fixed.outcomes())}", *[""] * 6)
        for file in path.parent.glob(f"{path.stem}.*"):
            file.unlink()
    fitted(series)


def told(fraction: Fraction, phase: str, series: Series | None, rows: int, run: Watched) -> None:
    """A row of the table, and a point of the fit."""
    if series is not None:
        series.add(rows, run)
    memory = f"{megabytes(run.peaks['tree'])}, {megabytes(run.peaks['controller'])}"
    clock, cpu, first = (f"{each:.1f} s" for each in (run.seconds, run.cpu, run.first))
    row(
        fraction,
        phase,
        f"{len(run.items):,}",
        clock,
        cpu,
        first,
        memory,
        f"{megabytes(run.asked)}, {megabytes(run.read)}",
    )


def fitted(series: dict[str, Series]) -> None:
    """What grows how, and what it comes to at 1/1."""
    full = FULL["invocation"] + FULL["embedding"]
    table("what", "grows as rows to the", "at 1/1 (95 %)", "target", "")
    for name, each in series.items():
        found = growth(each.rows, each.seconds, full)
        good = found.power - found.power_off <= 1
        target = "1 at most" if name == "examine" else ""
        power = f"{found.power:.2f} ± {found.power_off:.2f}"
        hours = f"{found.at_full / 60:,.0f} ± {found.at_full_off / 60:,.0f} min"
        row(f"{name}, CPU", power, hours, target, verdict(good) if target else "")
    each = series["examine"]
    found = growth(each.rows, each.asked, full)
    row("examine, bytes asked for", f"{found.power:.2f} ± {found.power_off:.2f}", megabytes(found.at_full), "", "")
    found = growth(each.rows, each.memory, full)
    row("examine, peak memory", f"{found.power:.2f} ± {found.power_off:.2f}", megabytes(found.at_full), "", "")
    more = (max(each.memory) - min(each.memory)) / max(1, max(each.items) - min(each.items))
    row("the same, for each item more", f"{more / 1e3:.1f} kB", "", "none", verdict(more <= 0))


def many_items(options: Options) -> None:
    """As many items as production has, on rows so few that they cost nothing."""
    path = build(options.folder / "items.sqlite", Shape(RUNS + 320, 2, FOUR, 100, PER_EXPERIMENT))
    table("items, `-n 2`", "measured", "target", "")
    run = pytest_run(path, "-n", "2")
    count = len(run.items)
    limit = 3 + count / 10_000
    row(f"{count:,}: start to the end of the first", f"{run.first:.1f} s", f"{limit:.1f} s", verdict(run.first < limit))
    most = run.peaks["controller"]
    row("the controller's memory", megabytes(most), "400 MB", verdict(most < 400e6))
    row("a worker's", megabytes(run.peaks["worker"]), "", "")
    row("all together, clock and CPU", f"{run.seconds:.0f} s, {run.cpu:.0f} s", "", "")


def schedule(options: Options) -> None:
    """What diagrams take, and what all of them take on many cores."""
    random = options.captions.cloud
    path = build(
        options.folder / "costs.sqlite",
        *(Shape(SAMPLED, length, TWO, 100, SAMPLED, random) for length, _ in LENGTHS),
    )
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("DELETE FROM persistencediagram")
    db.close()
    run = pytest_run(path, "--doctor-fix", "-n", "2", "--doctor-rule", "diagram-missing")
    costs: Mapping[int, list[float]] = defaultdict(list)
    memory: dict[int, list[float]] = defaultdict(list)
    overheads = []
    for item in run.items:
        measures = item["measures"]
        if item["outcome"] != "fixed" or not isinstance(measures, dict):
            raise SystemExit(f"{item['nodeid']} was not repaired: {item.get('note')}")
        costs[measures["points"]].append(float(str(item["duration"])))
        memory[measures["points"]].append(measures["peak_memory"])
        overheads.append(float(str(item["duration"])) - measures["seconds"])
    # Others want the cores too: what items took on the clock is scaled to what all processes took of the CPU.
    share = min(1.0, run.cpu / sum(map(sum, costs.values())))
    costs = {points: [share * each for each in found] for points, found in costs.items()}
    write = max(0.001, share * min(overheads))
    print(f"\nThe cores were others' too: {share:.0%} of what items took on the clock is CPU time, and counted.")
    table("points", "diagrams measured", "seconds: least, median, most", "peak of the child")
    for points in sorted(costs, reverse=True):
        least, middle, most = np.quantile(costs[points], [0, 0.5, 1])
        peak = megabytes(max(memory[points]))
        row(f"{points:,}", len(costs[points]), f"{least:.2f}, {middle:.2f}, {most:.2f}", peak)
    counts = {length // 2: round(DIAGRAMS * share) for length, share in LENGTHS}
    print(
        f"\nThe writer takes {write * 1000:.0f} ms of a diagram: the least that any item took beside its computation."
    )
    table(
        f"cores, {DIAGRAMS:,} diagrams",
        "time (90 %)",
        "cores busy",
        "bound by",
        "lower bounds: computing, longest, writer",
    )
    for cores in (2, 32, 512):
        found = makespan(costs, counts, cores, write)
        bounds = ", ".join(f"{each:,.0f} s" for each in (found.work, found.longest, found.writing))
        spread = f"{found.seconds:,.0f} s ({found.low:,.0f} to {found.high:,.0f})"
        row(cores, spread, f"{found.utilisation:.0%}", found.bound, bounds)


@dataclass
class Timed:
    """Seconds on the clock and of the CPU."""

    clock: float
    cpu: float


def timed(work: Callable[[], object]) -> Timed:
    """What a call in this process takes."""
    begun, cpu = time.perf_counter(), time.process_time()
    work()
    return Timed(time.perf_counter() - begun, time.process_time() - cpu)


def by_doctor(path: Path, names: Sequence[str]) -> None:
    """The items of these rules in this process; raises SystemExit where one fails, for the database is healthy."""
    rules, database = registry(), Database(path)
    examiner = Examiner(database, rules, KINDS)
    chosen = [rule for rule in rules.values() if rule.id in names]
    for entry in database.read(manifests.build_manifest).entries(chosen):
        if examiner.examine(rules[entry.rule], entry.subject).status == "failed":
            raise SystemExit(f"{entry.name} failed on a healthy database")
    database.close()


def by_query(path: Path, way: Callable[[sqlite3.Connection], dict[str, int]]) -> None:
    """The nine checks; raises SystemExit where one finds something."""
    db = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    if sum(way(db).values()):
        raise SystemExit(f"{way.__name__} found something in a healthy database")
    db.close()


def compare(options: Options) -> None:
    """The nine checks in three ways, cold and warm, and through pytest on one worker and on two."""
    path = options.database("naive", options.fraction)
    same = sorted({name for names in naive.SAME.values() for name in names})
    light = [name for name in same if name != "embedding-vector"]
    ways: dict[str, Callable[[], object]] = {
        "naive, run by run, SQL": lambda: by_query(path, naive.by_columns),
        "naive, run by run, SQLModel": lambda: by_query(path, naive.by_mapper),
        "the doctor's rules for the same": lambda: by_doctor(path, same),
        "the same without embedding-vector": lambda: by_doctor(path, light),
    }
    print(f"\n{path.stat().st_size / 1e6:,.0f} MB, images of {options.image:,} bytes; one process, without pytest:")
    table("what", "cold: clock", "warm: clock", "warm: CPU", "naive in SQL, by SQLModel, over it (CPU)")
    warm: dict[str, Timed] = {}
    for name, way in ways.items():
        make_cold(path)
        cold = timed(way)
        warm[name] = min((timed(way) for _ in range(3)), key=lambda each: each.cpu)
        in_sql, mapped = (list(warm.values())[place].cpu / warm[name].cpu for place in (0, min(1, len(warm) - 1)))
        row(
            name,
            f"{cold.clock:.2f} s",
            f"{warm[name].clock:.2f} s",
            f"{warm[name].cpu:.2f} s",
            f"{in_sql:.1f}, {mapped:.1f}",
        )
    rules = [part for name in same for part in ("--doctor-rule", name)]
    table("through pytest, warm", "`-n 1`: clock, CPU", "`-n 2`: clock, CPU", "ratio of clocks (target 1.7)")
    for name, chosen in (("the same rules", rules), ("all rules", [])):
        one, two = (pytest_run(path, "-n", workers, *chosen, every=1.0) for workers in "12")
        cells = [f"{each.seconds:.1f} s, {each.cpu:.1f} s" for each in (one, two)]
        row(f"{name}, {len(one.items):,} items", *cells, f"{one.seconds / two.seconds:.2f}")


def cold(options: Options) -> None:
    """An examination of a file that is in no cache, with reading ahead and without."""
    path = options.database("cold", options.fraction)
    with path.open("rb", buffering=0) as file:
        make_cold(path)
        begun, block = time.perf_counter(), bytearray(1 << 20)
        while file.readinto(block):
            pass
        disk = time.perf_counter() - begun
    print(f"\n{megabytes(path.stat().st_size)}, which the disk gives from front to end in {disk:.1f} s:")
    table("cold", "clock, `-n 1`", "clock, `-n 2`", "CPU, `-n 1`", "from disk")
    os.environ["PYTHONPATH"] = str(Path(__file__).parent)
    for name, more in (("without reading ahead", ["-p", "nothing_ahead"]), ("with", [])):
        runs = []
        for workers in "12":
            make_cold(path)
            runs.append(pytest_run(path, "-n", workers, *more))
        one, two = runs
        row(name, f"{one.seconds:.1f} s", f"{two.seconds:.1f} s", f"{one.cpu:.1f} s", megabytes(one.read))


PARTS = {"growth": grow, "cold": cold, "items": many_items, "schedule": schedule, "naive": compare}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=PARTS, action="append", help="this part alone; may be repeated")
    parser.add_argument(
        "--fraction", type=Fraction, default=Fraction(1, 20), help="of production's runs (default: 1/20)"
    )
    parser.add_argument(
        "--image", type=int, default=100, help="bytes of an image (default: 100; in production about 60,000)"
    )
    parser.add_argument("--data", type=Path, default=DATA, help="caption-trajectories.npz")
    parser.add_argument("--folder", type=Path, default=None, help="where to build (default: a temporary folder)")
    args = parser.parse_args()
    if not 0 < args.fraction <= 1:
        parser.error(f"--fraction {args.fraction} is not above 0 and at most 1")
    for name in args.part or PARTS:
        with tempfile.TemporaryDirectory(dir=args.folder) as folder:
            print(f"\n**{name}**", flush=True)
            PARTS[name](Options(args.fraction, args.image, Path(folder), Captions(args.data)))


if __name__ == "__main__":
    main()
