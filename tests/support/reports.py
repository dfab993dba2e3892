"""Reports for tests: of a database that is really examined and repaired, and of results as many as in production."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from databases import Built

from pytest_panic_doctor.examination.examination import Examination
from pytest_panic_doctor.examination.examiner import Examiner
from pytest_panic_doctor.examination.manifest import Experiment, Manifest, Run
from pytest_panic_doctor.examination.opening import from_database
from pytest_panic_doctor.examination.outcome import Outcome, Result, from_plain, to_plain
from pytest_panic_doctor.examination.parsing import model_types
from pytest_panic_doctor.examination.settings import Settings
from pytest_panic_doctor.repair.controller import RepairController, RepairRun, make_repairer
from pytest_panic_doctor.report.html import write_html
from pytest_panic_doctor.report.results import Results
from pytest_panic_doctor.rules import registry
from pytest_panic_doctor.rules.base import Finding
from pytest_panic_doctor.topology.diagram import Diagram, sorted_bars
from pytest_panic_doctor.topology.payload import encode

HOSTILE = "</script><img src=x onerror=\"document.title='hacked'\">{{ 7*7 }} \u2028 & <b>"


def examined(database: Path, *, fix: bool = False) -> tuple[Examination, Results]:
    """What a session comes to, in this process and without pytest."""
    settings = Settings(database, fix=fix, kinds=model_types((), ()))
    repair_controller = RepairController(settings) if fix else None
    examination = from_database(settings)
    repairer = None
    if repair_controller:
        examination = replace(examination, repair_run=repair_controller.run.as_plain()).scheduled()
        run = RepairRun.from_plain(examination.repair_run)
        repairer = make_repairer(examination, run, lambda *_: None, lambda name: name)
    examiner = Examiner(examination.database, examination.rules, settings.kinds, repairer=repairer)
    results = Results()
    try:
        for entry in examination.entries():
            outcome = examiner.examine(examination.rules[entry.rule], entry.subject)
            nodeid = f"{database.name}::{entry.name}"
            results.items.append(from_plain(nodeid, 0.001, to_plain(entry.rule, outcome)))
    finally:
        if repair_controller and repairer:
            repairer.close()
            repair_controller.finish()
            repair_controller.close()
    return examination, results


def page(database: Path, *, fix: bool = False) -> Path:
    """The page beside a database that was examined."""
    examination, results = examined(database, fix=fix)
    path = database.with_suffix(".html")
    write_html(path, examination, results)
    examination.database.close()
    return path


def make_hostile(built: Built) -> None:
    """Put texts that would be markup into every column that a report shows."""
    with built.open() as db:
        db.execute("UPDATE run SET initial_prompt = ? WHERE id = ?", (HOSTILE, built.run()))
        db.execute("UPDATE experimentconfig SET prompts = json_array(?, 'a pear')", (HOSTILE,))
        db.execute("UPDATE invocation SET model = ? WHERE id = ?", (HOSTILE, built.invocation(3)))
        db.execute("UPDATE persistencediagram SET embedding_model = ? WHERE id = ?", (HOSTILE, built.diagram()))


def identifiers() -> Iterator[str]:
    """Ids as they are stored, the same in every test session."""
    random.seed(5)
    return iter(lambda: f"06b05{random.getrandbits(28):07x}7{random.getrandbits(76):019x}", "")


def many_runs(identifier: Iterator[str]) -> Manifest:
    """3,220 runs in 20 experiments, of one embedding model."""
    return Manifest(
        tuple(
            Experiment(
                next(identifier),
                f"prompt {each}",
                ("Nomic",),
                tuple(Run(next(identifier), f"prompt {each}, variation {k}: FluxDev → Moondream") for k in range(161)),
            )
            for each in range(20)
        )
    )


def large(folder: Path) -> tuple[Examination, Results]:
    """A session of 3,220 runs, each with its diagram, and 13,000 items, a third of which found something."""
    identifier = identifiers()
    manifest = many_runs(identifier)
    database = folder / "large.sqlite"
    store_diagrams(database, manifest, identifier)
    examination = Examination(Settings(database, kinds=model_types((), ())), registry(()), manifest, {"run": 3_220})
    results = [made_up(entry.name, entry.rule, place, identifier) for place, entry in enumerate(examination.entries())]
    return examination, Results(results)


def one_sick_run(folder: Path) -> tuple[Examination, Results]:
    """A session of 3,220 runs, of which only the 2,000th is sick, by one rule."""
    manifest = many_runs(identifiers())
    rules = ("invocation-sequence", "invocation-chain")
    examination = Examination(Settings(folder / "gone.sqlite", rules=rules), registry(()), manifest)
    runs = [(each.id, run.id) for each in manifest.experiments for run in each.runs]
    experiment, run = runs[2_000]
    message = "1 sequence number of 80 is missing: 28"
    finding = Finding(rules[0], message, experiment, run, table="run", ids=(run,), count=1)
    results = Results()
    for entry in examination.entries():
        sick = entry.rule == rules[0] and entry.subject.experiment == experiment
        outcome = Outcome("failed", (finding,)) if sick else Outcome("passed")
        results.items.append(from_plain(f"gone.sqlite::{entry.name}", 0.001, to_plain(entry.rule, outcome)))
    return examination, results


def made_up(name: str, rule: str, place: int, identifier: Iterator[str]) -> Result:
    """One item; a third of those about diagrams are sick, and some have as many row ids as a finding keeps."""
    if random.random() > (1 / 3 if rule.startswith("diagram-") else 0.03):
        return Result("passed", nodeid=f"large.sqlite::{name}", rule=rule, duration=0.002)
    ids = [next(identifier) for _ in range(10_000 if place % 100 == 0 else 2)]
    message = f"{3 * len(ids):,} of 1,159 vectors are unusable: {place:,} NULL, {place % 7} hold NaN"
    finding = Finding(rule, message, embedding_model="Nomic", table="embedding", ids=tuple(ids), count=3 * len(ids))
    return Result("failed", (finding,), nodeid=f"large.sqlite::{name}", rule=rule, duration=0.01)


def store_diagrams(database: Path, manifest: Manifest, identifier: Iterator[str]) -> None:
    """A diagram of 800 bars for each run, no two alike."""
    generator = np.random.default_rng(5)
    db = sqlite3.connect(database)
    db.execute("CREATE TABLE persistencediagram (id, started_at, completed_at, diagram_data, run_id, embedding_model)")
    db.execute("CREATE INDEX diagram_of_run ON persistencediagram (run_id)")
    for subject in manifest.diagram_subjects():
        payload = encode(some_diagram(generator, (400, 250, 150)))
        row = (next(identifier), None, None, payload, subject.run, "Nomic")
        db.execute("INSERT INTO persistencediagram VALUES (?, ?, ?, ?, ?, ?)", row)
    db.commit()
    db.close()


def some_diagram(generator: np.random.Generator, counts: tuple[int, ...]) -> Diagram:
    """Bars of each homology dimension; the last of H0 is the essential class."""
    dimensions = []
    for dimension, count in enumerate(counts):
        birth = generator.uniform(0.3, 0.9, count) * bool(dimension)
        length = generator.exponential(0.05, count) if dimension else generator.uniform(0.1, 0.9, count)
        bars = np.column_stack((birth, birth + length))
        if dimension == 0:
            bars[-1, 1] = np.inf
        dimensions.append(sorted_bars(bars))
    return Diagram(tuple(dimensions))
