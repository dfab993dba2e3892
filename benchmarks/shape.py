"""Production's shape at a fraction of its size: how long runs are, how clouds lie, and damage as it was found there.

Production has 3,220 runs of 1,159 invocations on average, none longer than 5,000, and 7,029,100 embeddings of 768
floats, 1.88 for each invocation: so that most experiments have two embedding models for texts and two for images, and
some only one of each. Lengths are 5,000, 1,000 and 400, which gives that average.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from build import LATER, TIME, WIDTH, Cloud, Shape, uid
from numpy.typing import NDArray

RUNS = 3_220
LENGTHS = ((5_000, 0.10), (1_000, 0.50), (400, 0.40))
FOUR = ("Nomic", "JinaClip", "NomicVision", "JinaClipVision")
TWO = ("Nomic", "NomicVision")
OF_FOUR = 0.88
"""The part of the runs that have four embedding models."""

PER_EXPERIMENT = 25
JITTER = 0.02
"""How far, in parts of a vector's length, a caption's vector is moved, so that no two runs have the same cloud."""

Points = NDArray[np.float32]


def shapes(fraction: float, cloud: Cloud, image: int) -> list[Shape]:
    """The experiments of a database of `fraction` of production's runs, images of `image` bytes."""
    found = []
    for models, part in ((FOUR, OF_FOUR), (TWO, 1 - OF_FOUR)):
        for length, share in LENGTHS:
            runs = round(RUNS * fraction * part * share)
            found.append(Shape(max(1, runs), length, models, image, PER_EXPERIMENT, cloud))
    return found


class Captions:
    """Clouds that lie as those of real trajectories: stretches of three of them, repeats and all.

    A caption that returns has the same vector to the bit, moved by its own jitter; 384 values are filled up to 768.
    """

    def __init__(self, path: Path) -> None:
        """`path` is that of `caption-trajectories.npz`."""
        with np.load(path, allow_pickle=False) as file:
            names = ("wandering_vectors", "looping_vectors", "restless_vectors")
            self._walks = [np.asarray(file[name], np.float32) for name in names]

    def cloud(self, count: int, random: np.random.Generator) -> Points:
        """A stretch of `count` points of one of those that are long enough; float32, shape (count, 768)."""
        walks = [walk for walk in self._walks if len(walk) >= count]
        walk = walks[random.integers(len(walks))]
        start = int(random.integers(len(walk) - count + 1))
        stretch = walk[start : start + count]
        distinct, index = np.unique(stretch, axis=0, return_inverse=True)
        wide = random.normal(scale=JITTER / np.sqrt(WIDTH), size=(len(distinct), WIDTH)).astype(np.float32)
        wide[:, : stretch.shape[1]] += distinct
        return np.ascontiguousarray(wide[index.ravel()])


@dataclass(frozen=True)
class Damage:
    """What was planted: diagrams without a payload, rows of diagrams that are twice there, and lost embeddings."""

    diagrams: int
    duplicates: int
    orphans: int


def plant(path: Path, part: float, seed: int) -> Damage:
    """Damage `part` of the diagrams (a third each absent, NULL and torn), and of the rows, in the same way each time.

    As many again are there twice; and as many embeddings as `part` of all are added, of invocations that do not exist.
    """
    random = np.random.default_rng(seed)
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("BEGIN")
    ids = [row_id for (row_id,) in db.execute("SELECT id FROM persistencediagram ORDER BY id")]
    chosen = [ids[place] for place in random.permutation(len(ids))]
    broken = chosen[: max(3, round(part * len(ids)))]
    db.executemany("DELETE FROM persistencediagram WHERE id = ?", [(each,) for each in broken[::3]])
    db.executemany("UPDATE persistencediagram SET diagram_data = NULL WHERE id = ?", [(each,) for each in broken[1::3]])
    torn = "UPDATE persistencediagram SET diagram_data = substr(diagram_data, 1, 100) WHERE id = ?"
    db.executemany(torn, [(each,) for each in broken[2::3]])
    twice = chosen[len(broken) : 2 * len(broken)]
    copy = (
        "INSERT INTO persistencediagram SELECT ?, started_at, completed_at, diagram_data, run_id, embedding_model "
        "FROM persistencediagram WHERE id = ?"
    )
    if not unique(db):
        db.executemany(copy, [(uid(8, number), each) for number, each in enumerate(twice)])
    else:
        twice = []
    ((embeddings,),) = db.execute("SELECT count(*) FROM embedding")
    orphans = round(part * embeddings)
    vector = random.standard_normal(WIDTH).astype("<f4").tobytes()
    db.executemany(
        "INSERT INTO embedding VALUES (?, ?, ?, ?, 'Nomic', ?)",
        ((uid(9, number), TIME, LATER, uid(10, number), vector) for number in range(orphans)),
    )
    db.execute("COMMIT")
    db.close()
    return Damage(len(broken), len(twice), orphans)


def unique(db: sqlite3.Connection) -> bool:
    """Whether the file allows one diagram a (run, embedding model) alone."""
    return any(row[2] for row in db.execute("PRAGMA index_list(persistencediagram)") if row[3] == "u")


def counted(path: Path) -> Counter[str]:
    """Rows of the large tables."""
    db = sqlite3.connect(path)
    tables = ("run", "invocation", "embedding", "persistencediagram")
    found = Counter({table: int(db.execute(f"SELECT count(*) FROM {table}").fetchone()[0]) for table in tables})
    db.close()
    return found
