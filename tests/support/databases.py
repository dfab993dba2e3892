"""Small real databases for tests: a healthy one, built once a process, and copied."""

from __future__ import annotations

import functools
import io
import json
import shutil
import sqlite3
import struct
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pytest_panic_doctor.rules import registry
from pytest_panic_doctor.rules.base import Scope
from pytest_panic_doctor.topology.engines import compute, load_engine
from pytest_panic_doctor.topology.payload import encode

ENGINE = load_engine()
"""Imported here, and not within a test: pytester takes back what a test imports, and NumPy cannot be loaded twice."""

Vector = np.ndarray[tuple[int, ...], np.dtype[np.float32]]

WIDTH = 8
LENGTH = 12
NETWORK = ["FluxDev", "Moondream"]
PROMPTS = ["an apple", "a pear"]
MODELS = ["Nomic", "NomicVision"]
TIME = "2025-08-12 09:30:00.000001"
LATER = "2025-08-12 09:30:01.000001"
"""When experiments, embeddings and diagrams began and ended; invocations come one after another before that."""

DDL = """
CREATE TABLE experimentconfig (id CHAR(32) NOT NULL, networks JSON NOT NULL, seeds JSON NOT NULL, prompts JSON NOT NULL,
  embedding_models JSON NOT NULL, max_length INTEGER NOT NULL, started_at DATETIME, completed_at DATETIME,
  PRIMARY KEY (id));
CREATE TABLE run (id CHAR(32) NOT NULL, network JSON NOT NULL, seed INTEGER NOT NULL, max_length INTEGER NOT NULL,
  initial_prompt VARCHAR NOT NULL, experiment_id CHAR(32), PRIMARY KEY (id),
  FOREIGN KEY(experiment_id) REFERENCES experimentconfig (id));
CREATE TABLE invocation (id CHAR(32) NOT NULL, started_at DATETIME, completed_at DATETIME, model VARCHAR NOT NULL,
  type VARCHAR(5) NOT NULL, seed INTEGER NOT NULL, run_id CHAR(32) NOT NULL, sequence_number INTEGER,
  input_invocation_id CHAR(32), output_text VARCHAR, output_image_data BLOB, PRIMARY KEY (id),
  FOREIGN KEY(run_id) REFERENCES run (id), FOREIGN KEY(input_invocation_id) REFERENCES invocation (id));
CREATE TABLE embedding (id CHAR(32) NOT NULL, started_at DATETIME, completed_at DATETIME,
  invocation_id CHAR(32) NOT NULL, embedding_model VARCHAR NOT NULL, vector BLOB, PRIMARY KEY (id)%s,
  FOREIGN KEY(invocation_id) REFERENCES invocation (id));
CREATE TABLE persistencediagram (id CHAR(32) NOT NULL, started_at DATETIME, completed_at DATETIME, diagram_data BLOB,
  run_id CHAR(32) NOT NULL, embedding_model VARCHAR NOT NULL, PRIMARY KEY (id),
  FOREIGN KEY(run_id) REFERENCES run (id));
CREATE TABLE clusteringresult (id CHAR(32) NOT NULL, created_at DATETIME NOT NULL, started_at DATETIME NOT NULL,
  completed_at DATETIME, embedding_model VARCHAR NOT NULL, algorithm VARCHAR NOT NULL, parameters JSON NOT NULL,
  PRIMARY KEY (id));
CREATE TABLE embeddingcluster (id CHAR(32) NOT NULL, embedding_id CHAR(32) NOT NULL,
  clustering_result_id CHAR(32) NOT NULL, medoid_embedding_id CHAR(32), PRIMARY KEY (id));
CREATE INDEX ix_run_experiment_id ON run (experiment_id);
CREATE INDEX ix_invocation_run_id ON invocation (run_id);
CREATE INDEX ix_invocation_input_invocation_id ON invocation (input_invocation_id);
CREATE INDEX ix_embedding_invocation_id ON embedding (invocation_id);
CREATE INDEX ix_persistencediagram_run_id ON persistencediagram (run_id);
CREATE INDEX ix_embeddingcluster_embedding_id ON embeddingcluster (embedding_id);
CREATE INDEX ix_embeddingcluster_clustering_result_id ON embeddingcluster (clustering_result_id);
CREATE INDEX ix_embeddingcluster_medoid_embedding_id ON embeddingcluster (medoid_embedding_id);
"""
UNIQUE = ", CONSTRAINT unique_invocation_embedding_model UNIQUE (invocation_id, embedding_model)"


def uid(kind: int, number: int) -> str:
    """A stored id that tells what it is of: 1 experiment, 2 run, 3 invocation, 4 embedding, 5 diagram, 6 cluster."""
    return f"06b05171{kind:04x}7000{0x8000:04x}{number:012x}"


def span(k: int) -> tuple[str, str]:
    """When invocation k of a run began and ended: it takes 0.8 s, and the next one begins 0.2 s later."""
    begun = f"2025-08-12 09:{k // 60:02}:{k % 60:02}"
    return f"{begun}.100000", f"{begun}.900000"


def webp(body: bytes) -> bytes:
    """Bytes in the frame of a lossless WEBP file; they are no picture."""
    chunk = b"VP8L" + struct.pack("<I", len(body)) + body + b"\x00" * (len(body) % 2)
    return b"RIFF" + struct.pack("<I", 4 + len(chunk)) + b"WEBP" + chunk


@dataclass(frozen=True)
class Built:
    """A database file and its ids."""

    path: Path

    @contextmanager
    def open(self) -> Iterator[sqlite3.Connection]:
        """A writing connection, committed and closed at the end."""
        db = sqlite3.connect(self.path, isolation_level=None)
        try:
            yield db
        finally:
            db.close()

    @property
    def experiment(self) -> str:
        """The experiment's id."""
        return uid(1, 0)

    def run(self, number: int = 0) -> str:
        """A run's id."""
        return uid(2, number)

    def invocation(self, k: int, run: int = 0) -> str:
        """An invocation's id by its sequence number; even ones are images, odd ones texts."""
        return uid(3, run * 1000 + k)

    def embedding(self, k: int, run: int = 0) -> str:
        """The id of the embedding of invocation k."""
        return uid(4, run * 1000 + k)

    def diagram(self, model: str = "Nomic", run: int = 0) -> str:
        """A diagram's id."""
        return uid(5, run * 10 + MODELS.index(model))


def vectors(run: int, image: bool) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    """The cloud of a run: half a loop, so that there is something in H1."""
    random = np.random.default_rng(run * 2 + image)
    turn = np.linspace(0, 5, LENGTH // 2)
    points = random.normal(scale=0.05, size=(LENGTH // 2, WIDTH))
    points[:, 0] += np.cos(turn)
    points[:, 1] += np.sin(turn)
    return points.astype("<f4")


@functools.cache
def template(older: bool, runs: int) -> Path:
    """The healthy database, made once a process."""
    path = Path(tempfile.mkdtemp(prefix="doctor-test-")) / "template.sqlite"
    db = sqlite3.connect(path, isolation_level=None)
    db.executescript(DDL % ("" if older else UNIQUE))
    db.execute("BEGIN")
    prompts = PROMPTS[:runs] + [f"prompt {number}" for number in range(2, runs)]
    add_experiment(db, 0, [-1], prompts)
    for run in range(runs):
        add_run(db, run, prompts[run])
    db.execute(
        "INSERT INTO clusteringresult VALUES (?, ?, ?, ?, 'Nomic', 'hdbscan', '{}')", (uid(6, 0), TIME, TIME, LATER)
    )
    for k in range(1, LENGTH, 2):
        medoid = None if k == 1 else uid(4, 1)
        db.execute("INSERT INTO embeddingcluster VALUES (?, ?, ?, ?)", (uid(7, k), uid(4, k), uid(6, 0), medoid))
    db.execute("COMMIT")
    db.close()
    return path


def outputs_of(prompt: str) -> list[str | bytes]:
    """The outputs of a run that does not stop early: images and captions in turn, none twice, in no other run."""
    images = [webp(b"\x2f" + bytes([k]) * (20 + k) + prompt.encode()) for k in range(LENGTH)]
    return [f"text {k} of {prompt}" if k % 2 else images[k] for k in range(LENGTH)]


def add_run(
    db: sqlite3.Connection,
    run: int,
    prompt: str,
    seed: int = -1,
    *,
    experiment: int = 0,
    outputs: Sequence[str | bytes] | None = None,
) -> None:
    """One whole run, with its embeddings and diagrams; an output that comes again has the vector that it had."""
    said = outputs or outputs_of(prompt)
    db.execute(
        "INSERT INTO run VALUES (?, ?, ?, ?, ?, ?)",
        (uid(2, run), json.dumps(NETWORK), seed, LENGTH, prompt, uid(1, experiment)),
    )
    clouds = [vectors(run, image=False), vectors(run, image=True)]
    stored: tuple[list[Vector], list[Vector]] = ([], [])
    for k, output in enumerate(said):
        image = k % 2 == 0
        before = uid(3, run * 1000 + k - 1) if k else None
        kind, columns = ("IMAGE", (None, output)) if image else ("TEXT", (output, None))
        db.execute(
            "INSERT INTO invocation VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (uid(3, run * 1000 + k), *span(k), NETWORK[k % 2], kind, seed, uid(2, run), k, before, *columns),
        )
        stored[image].append(clouds[image][said.index(output) // 2])
        db.execute(
            "INSERT INTO embedding VALUES (?, ?, ?, ?, ?, ?)",
            (uid(4, run * 1000 + k), TIME, LATER, uid(3, run * 1000 + k), MODELS[image], stored[image][-1].tobytes()),
        )
    for number, model in enumerate(MODELS):
        db.execute(
            "INSERT INTO persistencediagram VALUES (?, ?, ?, ?, ?, ?)",
            (uid(5, run * 10 + number), TIME, LATER, payload(np.stack(stored[number])), uid(2, run), model),
        )


def add_experiment(db: sqlite3.Connection, number: int, seeds: Sequence[int], prompts: Sequence[str]) -> None:
    """The row of one experiment."""
    config = [json.dumps(value) for value in ([NETWORK], list(seeds), list(prompts), MODELS)]
    db.execute(
        "INSERT INTO experimentconfig VALUES (?, ?, ?, ?, ?, ?, ?, ?)", (uid(1, number), *config, LENGTH, TIME, LATER)
    )


def payload(points: np.ndarray[tuple[int, int], np.dtype[np.float32]]) -> bytes:
    """The diagram of a cloud, as the research tool would have stored it: without provenance."""
    return encode(compute(points, engine=ENGINE)[0])


def npz(**arrays: object) -> bytes:
    """Any arrays, as NumPy itself would store them, pickles included."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


def build(path: Path, *, older: bool = False, wal: bool = False, runs: int = 2) -> Built:
    """A healthy database at `path`: one experiment, `runs` runs of 12 invocations, two embedding models."""
    shutil.copy(template(older, runs), path)
    built = Built(path)
    if wal:
        with built.open() as db:
            db.execute("PRAGMA journal_mode = wal")
    return built


payload(vectors(0, image=False))
"""Once here, for all that a computation imports when it is first asked for."""

SUBJECTS = {Scope.DATABASE: 1, Scope.EXPERIMENT: 1, Scope.EXPERIMENT_MODEL: 2, Scope.RUN_MODEL: 4}
"""How many subjects of each scope the test database has."""

DEFAULT = {rule.id: rule for rule in registry().values() if not rule.deep and rule.applies_to("python")}
"""The rules that have items in it without being asked for."""

RULES = len(DEFAULT)
COUNT = sum(SUBJECTS[rule.scope] for rule in DEFAULT.values())
"""How many items the test database has, as long as no rule is switched off."""

Row = tuple[object, ...]


def dump(path: Path) -> dict[str, list[Row]]:
    """Every row of every table in rowid order, typed and byte for byte: a logical dump."""
    db = sqlite3.connect(path)
    db.text_factory = bytes
    names = [
        name.decode() for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")
    ]
    quoted = {name: '"' + name.replace('"', '""') + '"' for name in names}
    bare = {name.decode() for (name,) in db.execute("SELECT name FROM pragma_table_list WHERE wr")}
    rows = {
        name: db.execute(f"SELECT {'0' if name in bare else 'rowid'}, * FROM {quoted[name]} ORDER BY 1").fetchall()
        for name in names
    }
    db.close()
    return rows
