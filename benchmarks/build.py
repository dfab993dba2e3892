"""Builds a healthy database of any size in production's proportions: images on overflow pages, 768-d vectors."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from sqlalchemy import create_engine

from pytest_panic_doctor.store.models import Base
from pytest_panic_doctor.topology.cloud import h0_deaths
from pytest_panic_doctor.topology.diagram import Diagram, in_order
from pytest_panic_doctor.topology.payload import encode

WIDTH = 768
NETWORK = ["FluxDev", "Moondream"]
MODELS = ("Nomic", "JinaClip", "NomicVision")
TIME, LATER = "2025-08-12 09:30:00.000001", "2025-08-12 09:30:01.000001"


@dataclass(frozen=True)
class Shape:
    """How large: `runs` in experiments of at most `per_experiment`, each of `length`, and images of `image` bytes."""

    runs: int = 200
    length: int = 400
    models: Sequence[str] = MODELS
    image: int = 4_000
    per_experiment: int = 50


def uid(kind: int, number: int) -> str:
    """A stored id, in the order of the numbers."""
    return f"06b05171{kind:04x}70008000{number:012x}"


def build(path: Path, shape: Shape, seed: int = 0) -> Path:
    """Build it; an existing file is replaced."""
    path.unlink(missing_ok=True)
    engine = create_engine(f"sqlite:///{path}")
    Base.metadata.create_all(engine)
    engine.dispose()
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("PRAGMA synchronous = OFF")
    random = np.random.default_rng(seed)
    for experiment, first in enumerate(range(0, shape.runs, shape.per_experiment)):
        runs = range(first, min(first + shape.per_experiment, shape.runs))
        db.execute("BEGIN")
        add_experiment(db, experiment, runs, shape)
        for run in runs:
            add_run(db, experiment, run, shape, random)
        db.execute("COMMIT")
    db.close()
    return path


def add_experiment(db: sqlite3.Connection, number: int, runs: Sequence[int], shape: Shape) -> None:
    """The row of one experiment."""
    columns = [[NETWORK], [-1], [f"prompt {run}" for run in runs], list(shape.models)]
    values = (uid(1, number), *(json.dumps(each) for each in columns), shape.length, TIME, LATER)
    db.execute("INSERT INTO experimentconfig VALUES (?, ?, ?, ?, ?, ?, ?, ?)", values)


def add_run(db: sqlite3.Connection, experiment: int, run: int, shape: Shape, random: np.random.Generator) -> None:
    """One run: invocations, embeddings model by model, and diagrams whose H0 is really the cloud's."""
    network = json.dumps(NETWORK)
    db.execute(
        "INSERT INTO run VALUES (?, ?, ?, ?, ?, ?)",
        (uid(2, run), network, -1, shape.length, f"prompt {run}", uid(1, experiment)),
    )
    base = run * shape.length
    db.executemany(
        "INSERT INTO invocation VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            (
                *(uid(3, base + k), TIME, LATER, NETWORK[k % 2], ("IMAGE", "TEXT")[k % 2], -1, uid(2, run), k),
                uid(3, base + k - 1) if k else None,
                f"a caption of step {k}, seen through a crowded market in the rain" if k % 2 else None,
                None if k % 2 else random.bytes(shape.image),
            )
            for k in range(shape.length)
        ),
    )
    for number, model in enumerate(shape.models):
        steps = range(0 if model.endswith("Vision") else 1, shape.length, 2)
        points = np.cumsum(random.standard_normal((len(steps), WIDTH), np.float32), axis=0) * np.float32(0.01)
        identity = base * len(shape.models) + number * shape.length
        db.executemany(
            "INSERT INTO embedding VALUES (?, ?, ?, ?, ?, ?)",
            (
                (uid(4, identity + k), TIME, LATER, uid(3, base + k), model, point.tobytes())
                for k, point in zip(steps, points, strict=True)
            ),
        )
        h0 = [[0, death] for death in h0_deaths(points)] + [[0, np.inf]]
        payload = encode(Diagram((in_order(h0), in_order([[0.5, 0.7]] * 40), in_order([[0.8, 0.9]] * 20))))
        db.execute(
            "INSERT INTO persistencediagram VALUES (?, ?, ?, ?, ?, ?)",
            (uid(5, run * len(shape.models) + number), TIME, LATER, payload, uid(2, run), model),
        )
