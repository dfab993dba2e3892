"""A repair that is killed at some moment: what is left, and whether the next one ends where an undisturbed one does."""

from __future__ import annotations

import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
from databases import Built, build, dump
from defects import DAMAGES
from pytest_runs import ALONE
from small_database import SmallDatabase

from pytest_panic_doctor.database import elixir_payload
from pytest_panic_doctor.database.generation import Codec
from pytest_panic_doctor.session.demo import build as demo
from pytest_panic_doctor.topology import payload as npz

DEFECTS = (
    "run_of_lost_experiment",
    "invocation_of_lost_run",
    "embedding_of_lost_invocation",
    "diagram_of_lost_run",
    "assignment_of_lost_embedding",
    "assignment_of_lost_result",
    "assignment_of_lost_medoid",
    "embedding_twice",
    "diagram_twice",
    "diagram_of_an_unused_model",
)
RUNS = 12
TABLES = ("run", "invocation", "embedding", "persistencediagram", "embeddingcluster")
TARGETS = ("controller", "worker", "child")

Row = tuple[object, ...]


def sick(path: Path) -> Built:
    """A database with 40 defects: ten kinds of rows to quarantine, thirty diagrams to compute."""
    built = build(path, older=True, runs=RUNS)
    with built.open() as db:
        for number, name in enumerate(DEFECTS):
            DAMAGES[name].plant(db, built)
            for table in TABLES:
                db.execute(f"UPDATE {table} SET id = ? WHERE id = ?", (f"{number:x}" * 32, "f" * 32))
        lost = [row for (row,) in db.execute("SELECT id FROM persistencediagram WHERE id LIKE '06b0%' ORDER BY id")]
        for place, row in enumerate(lost[: RUNS * 2]):
            change = "NULL" if place % 3 else "substr(diagram_data, 1, 99)"
            if place % 7 == 3:
                db.execute("DELETE FROM persistencediagram WHERE id = ?", (row,))
            else:
                db.execute(f"UPDATE persistencediagram SET diagram_data = {change} WHERE id = ?", (row,))
    return built


def sick_elixir(path: Path) -> Path:
    """A database of the Elixir generation with the demo's defects, and half of its diagrams NULL, torn or gone."""
    folder = path.parent / f"{path.stem}-demo"
    demo.build(folder, generation="elixir").rename(path)
    shutil.rmtree(folder)
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("UPDATE persistence_diagrams SET diagram_data = NULL WHERE rowid % 4 = 0")
        db.execute("UPDATE persistence_diagrams SET diagram_data = substr(diagram_data, 1, 99) WHERE rowid % 4 = 1")
        db.execute("DELETE FROM persistence_diagrams WHERE rowid % 8 = 3 AND embedding_model = 'Qwen3Embed'")
        db.execute("UPDATE lyapunov_results SET lyapunov_data = NULL WHERE rowid % 3 = 0")
    return path


def command(path: Path, engine: str = "auto") -> list[str]:
    """`--doctor-fix -n 2` on it."""
    options = ["--doctor-db", path.name, "--doctor-fix", "-n", "2", "-q", "-p", "no:cacheprovider"]
    return [sys.executable, "-m", "pytest", *ALONE, *options, "--doctor-engine", engine]


def start(path: Path, engine: str) -> subprocess.Popen[bytes]:
    """Begin a repair."""
    return subprocess.Popen(
        command(path, engine), cwd=path.parent, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


def essence(path: Path) -> dict[str, list[Row]]:
    """A logical dump without what no two computations share: a new diagram's id, times and measured seconds."""
    if "runs" in (dumped := dump(path)):
        return essence_elixir(path, dumped)
    rows: dict[str, list[Row]] = {table: [row[1:] for row in found] for table, found in dumped.items()}
    rows["persistencediagram"] = sorted((row[4], row[5], bars(row[3])) for row in rows["persistencediagram"])
    return rows


def essence_elixir(path: Path, dumped: dict[str, list[Row]]) -> dict[str, list[Row]]:
    """The same for a database of the Elixir generation."""
    rows = {table: [row[1:] for row in found] for table, found in dumped.items()}
    with closing(sqlite3.connect(path)) as db:
        found = db.execute("SELECT run_id, embedding_model, diagram_data FROM persistence_diagrams").fetchall()
        rows["persistence_diagrams"] = sorted((*place, bars(data, elixir_payload)) for *place, data in found)
        rows["lyapunov_results"] = db.execute(
            "SELECT experiment_id, network, prompt, embedding_model, lyapunov_data FROM lyapunov_results "
            "ORDER BY 1, 2, 3, 4, id"
        ).fetchall()
    return rows


def bars(payload: object, codec: Codec = npz) -> str:
    """The bars of a payload."""
    if not isinstance(payload, bytes):
        return "NULL"
    return str([each.tolist() for each in codec.decode(payload).diagram.bars])


@dataclass(frozen=True)
class Verdict:
    """One kill: whom, after how many seconds, and whether the repair was still running."""

    target: str
    after: float
    running: bool


def strike(path: Path, template: Path, expected: dict[str, list[Row]], seed: int, longest: float) -> Verdict:
    """Kill a repair of a copy of `template` at a seeded moment, and check every promise. Raises AssertionError."""
    chance = random.Random(seed)
    for old in path.parent.glob(f"{path.stem}.*"):
        old.unlink()
    shutil.copy(template, path)
    small_database = SmallDatabase(path)
    original = small_database.dump()
    target, after = chance.choice(TARGETS), chance.uniform(0.3, longest)
    # Small clouds are computed in the workers, several together, unless by an engine that has a child for itself.
    process = start(path, "giotto-ph" if target == "child" else "auto")
    time.sleep(after)
    running = process.poll() is None
    victims = find(process.pid, target)
    for victim in victims[:1]:
        # It may have ended since it was found.
        with suppress(ProcessLookupError):
            os.kill(victim, signal.SIGKILL)
    family = [psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []]
    process.wait(timeout=600)
    psutil.wait_procs([each for part in family for each in part], timeout=15)
    small_database.check_nothing_lost(original)
    again = subprocess.run(command(path), cwd=path.parent, capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stdout + again.stderr
    small_database.check_nothing_lost(original)
    assert essence(path) == expected
    assert "runs" not in original or small_database.dangling() == set()
    return Verdict(target, after, running)


def find(controller: int, target: str) -> list[int]:
    """The processes of a repair that are the controller, a worker, or a child that computes."""
    if target == "controller":
        return [controller]
    try:
        below = psutil.Process(controller).children(recursive=True)
    except psutil.NoSuchProcess:
        return []
    found = []
    for each in below:
        try:
            is_child = "pytest_panic_doctor.compute.child" in each.cmdline()
        except psutil.NoSuchProcess:
            continue
        if is_child == (target == "child"):
            found.append(each.pid)
    return found
