"""Builds a healthy database of any size in production's proportions: images on overflow pages, 768-d vectors, walks
that return to earlier captions, diagrams whose H0 is the cloud's, and one clustering of the first embedding model."""

from __future__ import annotations

import json
import sqlite3
import struct
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import create_engine

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "support"))

from research_models import Base

from pytest_panic_doctor.examination.parsing import model_types
from pytest_panic_doctor.topology.cloud import h0_deaths
from pytest_panic_doctor.topology.diagram import Bars, Diagram, sorted_bars
from pytest_panic_doctor.topology.payload import encode

WIDTH = 768
NETWORK = ["FluxDev", "Moondream"]
MODELS = ("Nomic", "JinaClip", "NomicVision")
KINDS = model_types([], [])
LOOP = 4
"""One in so many captions repeats an earlier one, to the bit."""

SOME = 40
"""Points whose distances are measured for the bars of H1 and H2."""

NEAR = 0.7
"""The part of the largest distance that is below the enclosing radius of any cloud of these."""

OUTLIERS = 7
"""One in so many embeddings belongs to no cluster."""

TIME, LATER = "2025-08-12 09:30:00.000001", "2025-08-12 09:30:01.000001"
FIRST = datetime(2025, 8, 11, 0, 0, 0, 1)

LONGEST = 10_000
"""No run is longer, so that ids are in the order of runs and steps."""

Cloud = Callable[[int, np.random.Generator], NDArray[np.float32]]
"""Makes a cloud of so many points: float32, shape (n, 768), in sequence order."""


@dataclass(frozen=True)
class Shape:
    """How large: `runs` in experiments of at most `per_experiment`, each of `length`, and images of `image` bytes.

    `cloud` makes the embeddings of a run by one embedding model; a random walk where it is None.
    """

    runs: int = 200
    length: int = 400
    models: Sequence[str] = MODELS
    image: int = 4_000
    per_experiment: int = 50
    cloud: Cloud | None = None


def uid(kind: int, number: int) -> str:
    """A stored id, in the order of the numbers."""
    return f"06b05171{kind:04x}70008000{number:012x}"


def span(k: int) -> tuple[str, str]:
    """When invocation k of a run began and ended: a second each, one after another, before `TIME`."""
    begun = FIRST + timedelta(seconds=k)
    return f"{begun:%Y-%m-%d %H:%M:%S.%f}", f"{begun + timedelta(seconds=0.8):%Y-%m-%d %H:%M:%S.%f}"


def webp(body: bytes) -> bytes:
    """Bytes in the frame of a lossless WEBP file; they are no picture."""
    chunk = b"VP8L" + struct.pack("<I", len(body)) + body + b"\x00" * (len(body) % 2)
    return b"RIFF" + struct.pack("<I", 4 + len(chunk)) + b"WEBP" + chunk


def build(path: Path, *shapes: Shape, seed: int = 0) -> Path:
    """Build a database of experiments of these shapes; an existing file is replaced."""
    path.unlink(missing_ok=True)
    engine = create_engine(f"sqlite:///{path}")
    Base.metadata.create_all(engine)
    engine.dispose()
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("PRAGMA synchronous = OFF")
    clustering = (uid(6, 0), TIME, TIME, LATER, shapes[0].models[0], "hdbscan", "{}")
    db.execute("INSERT INTO clusteringresult VALUES (?, ?, ?, ?, ?, ?, ?)", clustering)
    random = np.random.default_rng(seed)
    for experiment, (runs, shape) in enumerate(experiments(shapes)):
        db.execute("BEGIN")
        add_experiment(db, experiment, runs, shape)
        for run in runs:
            add_run(db, experiment, run, shape, random)
        db.execute("COMMIT")
    db.close()
    return path


def experiments(shapes: Sequence[Shape]) -> Iterator[tuple[range, Shape]]:
    """The numbers of each experiment's runs, and its shape."""
    begun = 0
    for shape in shapes:
        for first in range(begun, begun + shape.runs, shape.per_experiment):
            yield range(first, min(first + shape.per_experiment, begun + shape.runs)), shape
        begun += shape.runs


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
    base = run * LONGEST
    db.executemany(
        "INSERT INTO invocation VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            (
                *(uid(3, base + k), *span(k), NETWORK[k % 2], ("IMAGE", "TEXT")[k % 2], -1, uid(2, run), k),
                uid(3, base + k - 1) if k else None,
                f"a caption of step {k}, seen through a crowded market in the rain" if k % 2 else None,
                None if k % 2 else webp(random.bytes(shape.image)),
            )
            for k in range(shape.length)
        ),
    )
    for number, model in enumerate(shape.models):
        steps = range(0 if KINDS[model] == "IMAGE" else 1, shape.length, 2)
        points = (shape.cloud or walk)(len(steps), random)
        identity = base * len(KINDS) + number * LONGEST
        ids = [uid(4, identity + k) for k in steps]
        db.executemany(
            "INSERT INTO embedding VALUES (?, ?, ?, ?, ?, ?)",
            (
                (row_id, TIME, LATER, uid(3, base + k), model, point.tobytes())
                for row_id, k, point in zip(ids, steps, points, strict=True)
            ),
        )
        db.execute(
            "INSERT INTO persistencediagram VALUES (?, ?, ?, ?, ?, ?)",
            (uid(5, run * len(KINDS) + number), TIME, LATER, payload(points, random), uid(2, run), model),
        )
        if number == 0:
            db.executemany(
                "INSERT INTO embeddingcluster VALUES (?, ?, ?, ?)",
                (
                    (uid(7, base + k), row_id, uid(6, 0), ids[0] if k % OUTLIERS else None)
                    for k, row_id in enumerate(ids)
                ),
            )


def walk(count: int, random: np.random.Generator) -> NDArray[np.float32]:
    """A random walk, float32 of shape (count, 768), whose last steps go over its first points again."""
    points = np.cumsum(random.standard_normal((count, WIDTH), np.float32), axis=0) * np.float32(0.01)
    again = count // LOOP
    points[count - again :] = points[:again]
    return points


def payload(points: NDArray[np.float32], random: np.random.Generator) -> bytes:
    """A diagram whose H0 is that of `points`; of H1 and H2, which no rule recomputes, it has plausibly many bars."""
    deaths = h0_deaths(points)
    h0 = [[0, death] for death in deaths[deaths > 0]] + [[0, np.inf]]
    lengths = some_distances(points, random)
    return encode(
        Diagram(
            (sorted_bars(h0), higher(len(points) // 4, lengths, random), higher(len(points) // 12, lengths, random))
        )
    )


def some_distances(points: NDArray[np.float32], random: np.random.Generator) -> NDArray[np.float64]:
    """Distances of pairs of points below the cloud's enclosing radius: among them are all births and deaths."""
    some = points[random.permutation(len(points))[:SOME]].astype(np.float64)
    apart: NDArray[np.float64] = np.linalg.norm(some[:, None] - points[None].astype(np.float64)[:, :SOME], axis=2)
    below: NDArray[np.float64] = apart[(apart > 0) & (apart < apart.max(axis=1).min() * NEAR)]
    return below


def higher(count: int, lengths: NDArray[np.float64], random: np.random.Generator) -> Bars:
    """Bars of a homology dimension above 0 that begin and end at some of `lengths`."""
    if not len(lengths):
        return sorted_bars([])
    return sorted_bars(np.sort(random.choice(lengths, size=(count, 2)), axis=1))
