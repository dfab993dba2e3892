"""Whether diagrams keep to the memory and time given, and what a second worker brings: through real pytest runs.

    python benchmarks/memory.py                  # all four parts: about twelve minutes on 2 cores
    python benchmarks/memory.py --part rows      # or memory, timeout, workers or rows alone
    python benchmarks/memory.py --case orphan    # one case of rows (benchmarks/heavy.py) alone

Each part but `rows` builds a database without diagrams, and repairs it by `pytest --doctor-fix`; `rows` examines,
repairs or undoes under 300 MB what is too large in one thing. The memory is that of the whole
process tree: the sum of what each process has resident, every 50 ms. Pages that processes share count in each, so that
the true number is lower. `../shared/data/caption-trajectories.npz` is looked for beside the checkout, or where --data
says.
"""

from __future__ import annotations

import argparse
import json
import re
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil
from heavy import CASES, made
from numpy.typing import NDArray
from research_models import Base
from sqlalchemy import create_engine

DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "caption-trajectories.npz"
WIDTH = 768
MODEL = "Nomic"
TIME = "2025-08-12 09:30:00.000001"
EVERY = 0.05
"""Seconds between two looks at the process tree."""

LIMIT = 1_000_000_000
SMALL = 300_000_000
SAID = re.compile("--doctor-memory (?!300MB *$)|of memory")
SENTENCE = re.compile(
    r"the diagram of [\d,]+ points reached [\d.]+ [MG]B, its limit, after [\d,]+ s in [\w ]+; "
    r"give it more with --doctor-memory \d+GB, or fewer workers"
)
LATE = re.compile(r"the diagram of 200 points was ended after 5 s, its limit; give it more with --doctor-timeout \d+")

Vectors = NDArray[np.float32]


def uid(kind: int, number: int) -> str:
    """A stored id, in the order of the numbers."""
    return f"06b05171{kind:04x}70008000{number:012x}"


def build(path: Path, clouds: Sequence[Vectors]) -> Path:
    """A database with one run for each cloud, and no diagram."""
    engine = create_engine(f"sqlite:///{path}")
    Base.metadata.create_all(engine)
    engine.dispose()
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("BEGIN")
    longest = max(map(len, clouds))
    columns = [[["Moondream"]], [7], [f"prompt {run}" for run in range(len(clouds))], [MODEL]]
    values = (uid(1, 0), *(json.dumps(each) for each in columns), longest, TIME, TIME)
    db.execute("INSERT INTO experimentconfig VALUES (?, ?, ?, ?, ?, ?, ?, ?)", values)
    for run, cloud in enumerate(clouds):
        add_run(db, run, cloud, longest)
    db.execute("COMMIT")
    db.close()
    return path


def add_run(db: sqlite3.Connection, run: int, cloud: Vectors, longest: int) -> None:
    """A run of captions alone, and their embeddings: `cloud`, its rows filled up with zeros to the usual width."""
    wide = np.zeros((len(cloud), WIDTH), "<f4")
    wide[:, : cloud.shape[1]] = cloud
    values = (uid(2, run), '["Moondream"]', 7, longest, f"prompt {run}", uid(1, 0))
    db.execute("INSERT INTO run VALUES (?, ?, ?, ?, ?, ?)", values)
    for k, point in enumerate(wide):
        this, before = (uid(3, run * 10_000 + step) for step in (k, k - 1))
        db.execute(
            "INSERT INTO invocation VALUES (?, ?, ?, 'Moondream', 'TEXT', 7, ?, ?, ?, ?, NULL)",
            (this, TIME, TIME, uid(2, run), k, before if k else None, f"caption {k}"),
        )
        db.execute(
            "INSERT INTO embedding VALUES (?, ?, ?, ?, ?, ?)",
            (uid(4, run * 10_000 + k), TIME, TIME, this, MODEL, point.tobytes()),
        )


@dataclass
class Tree:
    """The process tree below pytest, looked at all the while."""

    pid: int
    looks: int = 0
    peak: int = 0
    parts: Mapping[str, list[int]] = field(default_factory=dict)
    """MB of each process at the peak: the controller's, the workers', the children's."""

    def watch(self) -> None:
        """Until pytest has ended."""
        while self._look():
            time.sleep(EVERY)

    def _look(self) -> bool:
        try:
            root = psutil.Process(self.pid)
            if root.status() == psutil.STATUS_ZOMBIE:
                return False
            tree = [root, *root.children(recursive=True)]
        except psutil.NoSuchProcess:
            return False
        sizes: dict[str, list[int]] = {}
        for each in tree:
            try:
                what = kind(each, root)
                sizes.setdefault(what, []).append(each.memory_info().rss)
            except psutil.NoSuchProcess:
                continue
        whole = sum(map(sum, sizes.values()))
        self.looks += 1
        if whole > self.peak:
            self.peak, self.parts = whole, sizes
        return True


def kind(process: psutil.Process, root: psutil.Process) -> str:
    """What a process of the tree is."""
    if process == root:
        return "controller"
    line = " ".join(process.cmdline())
    return "child" if "topology" in line and "child" in line else "worker"


@dataclass
class Run:
    """A real pytest run: its time in seconds, the end of each item, and what its processes had."""

    seconds: float
    items: list[dict[str, object]]
    tree: Tree
    left: int
    """Processes of the tree that were there a second after its end."""

    def outcomes(self, word: str) -> list[dict[str, object]]:
        """The items that ended so."""
        return [each for each in self.items if each["outcome"] == word]


def repair(path: Path, workers: int, *args: str, cores: Sequence[int] = ()) -> Run:
    """`pytest --doctor-fix --doctor-rule diagram-missing` on a database, on these cores of the machine or on all."""
    report = path.with_suffix(f".{workers}.json")
    command = [sys.executable, "-m", "pytest", "--doctor-db", str(path), "--doctor-fix", "-n", str(workers), "-q"]
    command += ["--doctor-rule", "diagram-missing", f"--doctor-report={report}", "-p", "no:cacheprovider", *args]
    begun = time.perf_counter()
    with path.with_suffix(".txt").open("w") as output:
        process = subprocess.Popen(command, cwd=path.parent, stdout=output, stderr=subprocess.STDOUT)
        if cores:
            psutil.Process(process.pid).cpu_affinity(list(cores))
        tree = Tree(process.pid)
        watcher = threading.Thread(target=tree.watch)
        watcher.start()
        status = process.wait()
    seconds = time.perf_counter() - begun
    watcher.join()
    if status not in (0, 1):
        raise SystemExit(path.with_suffix(".txt").read_text())
    time.sleep(1)
    left = sum(str(path) in " ".join(each.info["cmdline"] or ()) for each in psutil.process_iter(["cmdline"]))
    return Run(seconds, json.loads(report.read_text())["items"], tree, left)


def written(path: Path) -> int:
    """Diagrams in a database."""
    db = sqlite3.connect(path)
    count = int(db.execute("SELECT count(*) FROM persistencediagram WHERE diagram_data IS NOT NULL").fetchone()[0])
    db.close()
    return count


def equidistant(count: int, seed: int) -> Vectors:
    """Random directions in 768 dimensions, nearly all at the same distance from each other: the worst there is."""
    points = np.random.default_rng(seed).standard_normal((count, WIDTH))
    return np.asarray(points / np.linalg.norm(points, axis=1, keepdims=True), np.float32)


def returning(places: int, visits: int, seed: int) -> Vectors:
    """A trajectory that comes back to the same places, a little beside each time, so that nothing can be merged.

    20 places and 60 visits have more than 1 GB resident within half a minute of computing.
    """
    beside = 1e-3 * equidistant(places * visits, seed + 1)
    return np.asarray(np.tile(equidistant(places, seed), (visits, 1)) + beside, np.float32)


def slices(data: Mapping[str, Vectors], count: int, size: int) -> list[Vectors]:
    """Stretches of the two real trajectories that fall into no loop early, each with points of its own."""
    restless, wandering = data["restless_vectors"], data["wandering_vectors"]
    clouds = [
        restless[begin : begin + size] for begin in np.linspace(0, len(restless) - size, count - count // 4, dtype=int)
    ]
    clouds += [wandering[begin : begin + 2 * size] for begin in np.linspace(0, 1000, count // 4, dtype=int)]
    return clouds


def verdict(good: bool) -> str:
    """For a table."""
    return "ok" if good else "MISSED"


def row(what: str, measured: str, target: str, good: bool) -> None:
    """A row of a table in Markdown."""
    print(f"| {what} | {measured} | {target} | {verdict(good)} |", flush=True)


def head(title: str) -> None:
    """The head of a table."""
    print(f"\n**{title}**\n\n| | measured | target | |\n|---|---|---|---|", flush=True)


def sentence(item: dict[str, object]) -> str:
    """Why an item is not healthy."""
    return str(item.get("note", ""))


def memory(folder: Path, data: Mapping[str, Vectors]) -> None:
    """20 clouds, of which three cannot fit into 1 GB."""
    hopeless = [returning(20, 60, seed) for seed in range(3)]
    path = build(folder / "memory.sqlite", [*slices(data, 17, 300), *hopeless])
    run = repair(path, 2, "--doctor-memory", "1GB")
    failed = run.outcomes("failed")
    head("20 clouds, three of which cannot fit: `--doctor-fix -n 2 --doctor-memory 1GB`")
    row("peak of the process tree", f"{run.tree.peak / 1e6:,.0f} MB", "< 1,000 MB", run.tree.peak < LIMIT)
    row("diagrams written", f"{written(path)}", "17", written(path) == 17)
    said = sum(bool(SENTENCE.search(sentence(item))) for item in failed)
    row("items that failed, with the sentence", f"{len(failed)}, {said}", "3, 3", (len(failed), said) == (3, 3))
    row("processes left a second later", f"{run.left}", "0", run.left == 0)
    print(f"\n{run.seconds:.0f} s, {run.tree.looks:,} looks at the tree. At its peak, in MB:")
    for what, sizes in sorted(run.tree.parts.items()):
        print(f"  {what:<12}{', '.join(f'{size / 1e6:.0f}' for size in sorted(sizes, reverse=True))}")
    for item in failed:
        print(f"  {sentence(item)}")


def timeout(folder: Path, data: Mapping[str, Vectors]) -> None:
    """A cloud that would take hours, among others."""
    path = build(folder / "timeout.sqlite", [*slices(data, 9, 200), equidistant(200, 0)])
    run = repair(path, 2, "--doctor-timeout", "5")
    failed = run.outcomes("failed")
    head("200 near-equidistant points among 9 others: `--doctor-fix -n 2 --doctor-timeout 5`")
    lasted = [float(str(item["duration"])) for item in failed]
    row(
        "the hopeless one ended after",
        ", ".join(f"{each:.2f} s" for each in lasted),
        "< 6 s",
        max(lasted, default=9) < 6,
    )
    said = sum(bool(LATE.search(sentence(item))) for item in failed)
    row("items that failed, with the sentence", f"{len(failed)}, {said}", "1, 1", (len(failed), said) == (1, 1))
    row("diagrams written", f"{written(path)}", "9", written(path) == 9)
    for item in failed:
        print(f"\n  {sentence(item)}")


def workers(folder: Path, data: Mapping[str, Vectors]) -> None:
    """The same 20 clouds by one worker on one core, by two on two, and by one that has two cores and so two threads."""
    clouds = slices(data, 20, 600)
    first, second, *_ = psutil.Process().cpu_affinity()
    seconds = []
    for count, cores in ((1, [first]), (2, [first, second]), (1, [first, second])):
        path = build(folder / f"{count}-{len(cores)}.sqlite", clouds)
        run = repair(path, count, cores=cores)
        seconds.append(run.seconds)
        if written(path) != len(clouds):
            said = "\n".join(sentence(item) for item in run.outcomes("failed"))
            raise SystemExit(f"{written(path)} of {len(clouds)} diagrams were written by {count} workers:\n{said}")
    one, two, threads = seconds
    head("20 middling clouds, start and end of pytest included")
    row("`-n 1` on one core, `-n 2` on two", f"{one:.1f} s, {two:.1f} s", "", True)
    row("throughput of two workers over one", f"{one / two:.2f}", ">= 1.7", one / two >= 1.7)
    row("for comparison: `-n 1` on two cores, where it computes on two threads", f"{threads:.1f} s", "", True)


def asked(path: Path, *args: str) -> tuple[int, float, Tree, str]:
    """A real pytest run of any kind: its exit status, its seconds, its processes, and what it said."""
    command = [sys.executable, "-m", "pytest", "--doctor-db", str(path), "-q", "-p", "no:cacheprovider", *args]
    output = path.with_suffix(".txt")
    begun = time.perf_counter()
    with output.open("w") as stream:
        process = subprocess.Popen(command, cwd=path.parent, stdout=stream, stderr=subprocess.STDOUT)
        tree = Tree(process.pid)
        watcher = threading.Thread(target=tree.watch)
        watcher.start()
        status = process.wait()
    seconds = time.perf_counter() - begun
    watcher.join()
    return status, seconds, tree, output.read_text()


def rows(folder: Path, _: Mapping[str, Vectors], names: Sequence[str] = ()) -> None:
    """One thing that is too large, under 300 MB: within the limit, whether it is examined or refused by name."""
    print("\n**One thing too large: `--doctor-memory 300MB`**\n")
    print("| case | peak of the tree | seconds | status | what is said of memory |\n|---|---|---|---|---|", flush=True)
    for name in names or CASES:
        case = CASES[name]
        with tempfile.TemporaryDirectory(dir=folder) as inner:
            path = made(Path(inner), case.make)
            if case.undo:
                asked(path, "--doctor-fix")
            args = ("--doctor-undo", "all") if case.undo else case.args
            status, seconds, tree, text = asked(path, "--doctor-memory", "300MB", *args)
        said = next((line.strip() for line in text.splitlines() if SAID.search(line)), "")
        fits = verdict(tree.peak < SMALL)
        print(f"| {case.what} | {tree.peak / 1e6:,.0f} MB {fits} | {seconds:.1f} | {status} | {said} |", flush=True)


PARTS: Mapping[str, Callable[[Path, Mapping[str, Vectors]], None]] = {
    "memory": memory,
    "timeout": timeout,
    "workers": workers,
    "rows": rows,
}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=PARTS, action="append", help="this part alone; may be repeated")
    parser.add_argument("--case", choices=CASES, action="append", help="this case of rows alone; may be repeated")
    parser.add_argument("--data", type=Path, default=DATA, help="caption-trajectories.npz")
    args = parser.parse_args()
    if args.case:
        with tempfile.TemporaryDirectory() as folder:
            rows(Path(folder), {}, args.case)
        return
    with np.load(args.data, allow_pickle=False) as file:
        data = {name: np.asarray(file[name], np.float32) for name in file.files if name.endswith("_vectors")}
    for name in args.part or PARTS:
        with tempfile.TemporaryDirectory() as folder:
            PARTS[name](Path(folder), data)


if __name__ == "__main__":
    main()
