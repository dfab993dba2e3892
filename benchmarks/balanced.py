"""An Elixir database of the size of the tool's largest configuration, `balanced_panel_5x5`: built, examined, repaired.

    python benchmarks/balanced.py                   # 2,000 runs of 50: 100,000 invocations, 2,000 diagrams of 25 points
    python benchmarks/balanced.py --runs 1 --rules  # 400 runs, and what each rule takes
    python benchmarks/balanced.py --repair          # and all diagrams are deleted and computed again

25 networks x 16 prompts x 5 runs, one embedding model for texts, a clustering in two layers. Ratios are to SQLite's own
`PRAGMA quick_check` of the same warm file in the same run, which a busy machine slows down as well.
"""

from __future__ import annotations

import argparse
import json
import sqlite3
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from production import megabytes, row, table, verdict
from watched import Watched, pytest_run

from pytest_panic_doctor.database.connection import Database
from pytest_panic_doctor.database.elixir_generation import ELIXIR
from pytest_panic_doctor.database.elixir_payload import encode, encode_lyapunov
from pytest_panic_doctor.database.spelling import dashed
from pytest_panic_doctor.examination import manifest as manifests
from pytest_panic_doctor.examination.examiner import Examiner
from pytest_panic_doctor.examination.parsing import model_types
from pytest_panic_doctor.rules import registry
from pytest_panic_doctor.session.demo.elixir_defects import record_migrations
from pytest_panic_doctor.session.demo.story import avif
from pytest_panic_doctor.session.demo.tables import create_tables
from pytest_panic_doctor.topology.engines import compute, load_engine
from pytest_panic_doctor.topology.lyapunov import lyapunov

PAINTERS = ("SD35Medium", "Flux2Klein", "Flux2Dev", "ZImageTurbo", "HunyuanImage")
CAPTIONERS = ("Moondream", "Qwen25VL", "Gemma3n", "Pixtral", "LLaMA32Vision")
NETWORKS = tuple(product(PAINTERS, CAPTIONERS))
MODEL, WIDTH = "Qwen3Embed", 256
PROMPTS = 16
PLACES = 12
"""Places to which trajectories go, whose embeddings are clusters."""

MOMENT = "2026-06-01T{:02}:{:02}:{:02}.{:06}Z"
EXAMINED_IN, REPAIRED_IN, MEMORY = 30.0, 60.0, 300e6
"""The targets: seconds, and bytes of all processes together."""


@dataclass(frozen=True)
class Panel:
    """How large: `runs` of each network and prompt, each of `length`."""

    runs: int
    length: int

    @property
    def all_runs(self) -> int:
        """The number of runs of the file."""
        return len(NETWORKS) * PROMPTS * self.runs


def moment(second: float) -> str:
    """A time so many seconds after the start, as the tool writes it."""
    whole = int(second)
    return MOMENT.format(whole // 3600, whole // 60 % 60, whole % 60, int((second - whole) * 1e6))


def identify(kind: int, number: int) -> str:
    """An id of version 7, in the order of the numbers."""
    return dashed(f"019e{kind:04x}{number % 16**4:04x}7{0:03x}8000{number:012x}")


def insert(db: sqlite3.Connection, name: str, columns: str, rows: Iterator[tuple[object, ...]], at: float) -> None:
    """Insert rows that were all written at one time."""
    names = [*columns.split(), "inserted_at", "updated_at"]
    places = ", ".join("?" * len(names))
    stamps = (moment(at), moment(at))
    db.executemany(f"INSERT INTO {name} ({', '.join(names)}) VALUES ({places})", (each + stamps for each in rows))


def build_panel(path: Path, panel: Panel, seed: int = 0) -> Path:
    """Build a healthy database; an existing file is replaced."""
    for end in ("", "-wal", "-shm"):
        path.with_name(path.name + end).unlink(missing_ok=True)
    random = np.random.default_rng(seed)
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        create_tables(db, ELIXIR)
        record_migrations(db)
        db.execute("PRAGMA synchronous = OFF")
        db.execute("BEGIN")
        clouds = trajectories(panel, random)
        add_runs(db, panel)
        add_embeddings(db, panel, clouds)
        add_results(db, panel, clouds)
        add_clustering(db, panel, clouds)
        db.execute("COMMIT")
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return path


def trajectories(panel: Panel, random: np.random.Generator) -> NDArray[np.float32]:
    """Unit vectors by run and step: from the prompt's place to one of a few others, and around it."""
    starts = random.standard_normal((PROMPTS, WIDTH))
    places = random.standard_normal((PLACES, WIDTH))
    steps = panel.length // 2
    near = np.minimum(1, 1.6 * np.arange(steps) / max(1, steps - 1))[:, None]
    clouds = np.empty((panel.all_runs, steps, WIDTH), np.float32)
    for number in range(panel.all_runs):
        prompt = number // panel.runs % PROMPTS
        end = places[int(random.integers(PLACES))]
        wander = random.standard_normal((steps, WIDTH)) * 0.25
        points = (1 - near) * starts[prompt] + near * end + wander
        clouds[number] = points / np.linalg.norm(points, axis=1, keepdims=True)
    return clouds


def groups(panel: Panel) -> Iterator[tuple[int, str, str]]:
    """The number of each run, in order, with its network and prompt."""
    for number in range(panel.all_runs):
        network = json.dumps(NETWORKS[number // panel.runs // PROMPTS], separators=(",", ":"))
        yield number, network, f"prompt {number // panel.runs % PROMPTS}"


def add_runs(db: sqlite3.Connection, panel: Panel) -> None:
    """The experiment, its runs, and the invocations, all runs of a network step by step."""
    lists = [[list(each) for each in NETWORKS], [f"prompt {each}" for each in range(PROMPTS)], [MODEL]]
    values = (identify(1, 0), *(json.dumps(each, separators=(",", ":")) for each in lists))
    columns = "id networks prompts embedding_models num_runs max_length started_at completed_at"
    one = iter([(*values, panel.runs, panel.length, moment(1), moment(80_000))])
    insert(db, "experiments", columns, one, 0)
    columns = "id experiment_id network initial_prompt run_number max_length"
    runs = (
        (identify(2, number), identify(1, 0), network, prompt, number % panel.runs, panel.length)
        for number, network, prompt in groups(panel)
    )
    insert(db, "runs", columns, runs, 1)
    of_network = PROMPTS * panel.runs
    columns = (
        "id run_id sequence_number input_invocation_id type model output_text output_image started_at completed_at"
    )
    for place, network in enumerate(NETWORKS):
        for step in range(panel.length):
            at = 10 + (place * panel.length + step) * 20.0
            invocations = (
                (
                    identify(3, number * panel.length + step),
                    identify(2, number),
                    step,
                    identify(3, number * panel.length + step - 1) if step else None,
                    ("image", "text")[step % 2],
                    network[step % 2],
                    f"a caption of step {step} of run {number}, in the rain" if step % 2 else None,
                    None if step % 2 else avif(f"{number}", step),
                    moment(at),
                    moment(at + 19),
                )
                for number in range(place * of_network, (place + 1) * of_network)
            )
            insert(db, "invocations", columns, invocations, at + 19)


def add_embeddings(db: sqlite3.Connection, panel: Panel, clouds: NDArray[np.float32]) -> None:
    """The embeddings of all texts, run by run."""
    columns = "id invocation_id embedding_model vector started_at completed_at"
    rows = (
        (
            identify(4, number * panel.length + 2 * place + 1),
            identify(3, number * panel.length + 2 * place + 1),
            MODEL,
            point.astype("<f4").tobytes(),
            moment(60_000),
            moment(60_001),
        )
        for number, cloud in enumerate(clouds)
        for place, point in enumerate(cloud)
    )
    insert(db, "embeddings", columns, rows, 60_001)


def add_results(db: sqlite3.Connection, panel: Panel, clouds: NDArray[np.float32]) -> None:
    """The diagram of each run, and the Lyapunov result of each network and prompt."""
    engine = load_engine()
    times = (moment(70_000), moment(70_001))
    diagrams = (
        (identify(5, number), identify(2, number), MODEL, encode(compute(cloud, engine=engine)[0]), *times)
        for number, cloud in enumerate(clouds)
    )
    insert(
        db, "persistence_diagrams", "id run_id embedding_model diagram_data started_at completed_at", diagrams, 70_001
    )
    if panel.runs < 2:
        return
    results = (
        (
            identify(6, number),
            identify(1, 0),
            network,
            prompt,
            MODEL,
            encode_lyapunov(lyapunov(list(clouds[number : number + panel.runs]))),
            *times,
        )
        for number, network, prompt in groups(panel)
        if number % panel.runs == 0
    )
    columns = "id experiment_id network prompt embedding_model lyapunov_data started_at completed_at"
    insert(db, "lyapunov_results", columns, results, 70_001)


def add_clustering(db: sqlite3.Connection, panel: Panel, clouds: NDArray[np.float32]) -> None:
    """Two layers: the last places, and halves of them; the first steps of each run are outliers."""
    steps = clouds.shape[1]
    ends = clouds[:, -1].argmax(axis=1) % PLACES
    parameters = {"n_layers": 2, "n_embeddings": panel.all_runs * steps, "dimension": WIDTH, "random_state": 42}
    text = json.dumps(parameters, separators=(",", ":"), sort_keys=True)
    times = (moment(85_000), moment(85_001))
    for layer in range(2):
        columns = "id embedding_model algorithm layer parameters started_at completed_at"
        one = iter([(identify(7, layer), MODEL, "evoc", layer, text, *times)])
        insert(db, "clustering_results", columns, one, 85_001)
        medoids: dict[int, str] = {}
        rows: list[tuple[object, ...]] = []
        for number, place in product(range(panel.all_runs), range(steps)):
            embedding = identify(4, number * panel.length + 2 * place + 1)
            cluster = int(ends[number]) // (1 + layer)
            medoid = medoids.setdefault(cluster, embedding) if place > steps // 2 else None
            rows.append((identify(8 + layer, len(rows)), embedding, identify(7, layer), medoid))
        insert(db, "embedding_clusters", "id embedding_id clustering_result_id medoid_embedding_id", iter(rows), 85_001)


def quick_check(path: Path) -> float:
    """CPU seconds of SQLite's own check of the warm file, the best of three."""
    found = []
    for _ in range(3):
        with closing(sqlite3.connect(path)) as db:
            begun = time.process_time()
            db.execute("PRAGMA quick_check").fetchall()
            found.append(time.process_time() - begun)
    return min(found)


def by_rule(path: Path, base: float) -> None:
    """What each rule takes in this process, the most first."""
    database = Database(path)
    rules = {name: each for name, each in registry().items() if not each.deep and each.applies_to(ELIXIR.key)}
    examiner = Examiner(database, rules, model_types([], []))
    seconds: Counter[str] = Counter()
    items: Counter[str] = Counter()
    for entry in database.read(manifests.build_manifest).entries(rules.values()):
        begun = time.process_time()
        examiner.examine(rules[entry.rule], entry.subject)
        seconds[entry.rule] += time.process_time() - begun  # type: ignore[assignment]
        items[entry.rule] += 1
    database.close()
    table("rule", "items", "CPU", "ratio")
    for name, took in seconds.most_common(12):
        row(name, f"{items[name]:,}", f"{took:.2f} s", f"{took / base:.1f} x")


def shown(what: str, run: Watched, base: float, target: float) -> None:
    """A row of the table; an unhealthy outcome ends the benchmark."""
    outcomes = dict(run.outcomes())
    if "failed" in outcomes:
        raise SystemExit(f"{what}: {outcomes}")
    good = run.seconds < target and run.peaks["tree"] < MEMORY
    took = f"{run.seconds:.1f} s", f"{run.cpu:.1f} s", f"{run.cpu / base:.1f} x"
    row(what, f"{len(run.items):,}", *took, megabytes(run.peaks["tree"]), f"{target:.0f} s, {verdict(good)}")


def main() -> None:
    """Build the database, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5, help="of each network and prompt (default: %(default)s)")
    parser.add_argument("--length", type=int, default=50, help="of a run (default: %(default)s)")
    parser.add_argument("--rules", action="store_true", help="also measure each rule by itself")
    parser.add_argument("--repair", action="store_true", help="also delete all diagrams and compute them again")
    parser.add_argument("--folder", type=Path, help="keep the database there")
    given = parser.parse_args()
    panel = Panel(given.runs, given.length)
    with tempfile.TemporaryDirectory() as scratch:
        folder: Path = given.folder or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        path = build_panel(folder / "balanced.sqlite", panel)
        base = quick_check(path)
        runs = panel.all_runs
        print(f"{runs:,} runs, {runs * panel.length:,} invocations, {megabytes(path.stat().st_size)}")
        table("what", "items", "clock", "CPU", "CPU / quick_check", "peak of all processes", "target")
        row("`PRAGMA quick_check`", "", "", f"{base:.2f} s", "1 x", "", "")
        shown("examine", pytest_run(path), base, EXAMINED_IN)
        shown("examine, `-n 2`", pytest_run(path, "-n", "2"), base, EXAMINED_IN)
        if given.repair:
            with closing(sqlite3.connect(path)) as db, db:
                db.execute("DELETE FROM persistence_diagrams")
            shown("repair, `-n 2`", pytest_run(path, "--doctor-fix", "-n", "2"), base, REPAIRED_IN)
        if given.rules:
            by_rule(path, base)


if __name__ == "__main__":
    main()
