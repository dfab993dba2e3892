"""Databases that are small or ordinary but for one thing that is too large, for `benchmarks/memory.py --part rows`."""

from __future__ import annotations

import io
import json
import sqlite3
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from build import LATER, TIME, Shape, build, uid

Make = Callable[[sqlite3.Connection], None]


@dataclass(frozen=True)
class Case:
    """What is too large, how pytest is asked (`undo`: after a repair without a limit), and how it is made."""

    what: str
    make: Make
    args: tuple[str, ...] = ()
    undo: bool = False


def made(folder: Path, make: Make) -> Path:
    """A healthy database of one run, and then what `make` does to it."""
    path = build(folder / "heavy.sqlite", Shape(1, 40, ("Nomic", "NomicVision"), image=1_000))
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("PRAGMA synchronous = OFF")
    db.execute("BEGIN")
    make(db)
    if db.in_transaction:
        db.execute("COMMIT")
    db.close()
    return path


def product(db: sqlite3.Connection) -> None:
    """An experiment that asks for 130 networks x 130 seeds x 130 prompts."""
    lists = [[[f"m{k}"] for k in range(130)], list(range(130)), [f"p{k}" for k in range(130)]]
    db.execute("UPDATE experimentconfig SET networks = ?, seeds = ?, prompts = ?", [json.dumps(each) for each in lists])


def config(column: str, value: Callable[[], object]) -> Make:
    """One list of the experiment is another."""

    def make(db: sqlite3.Connection) -> None:
        db.execute(f"UPDATE experimentconfig SET {column} = ?", (json.dumps(value()),))

    return make


def runs(count: int) -> Make:
    """So many runs, empty."""

    def make(db: sqlite3.Connection) -> None:
        db.executemany(
            "INSERT INTO run VALUES (?, ?, ?, ?, ?, ?)",
            ((uid(2, k), '["FluxDev", "Moondream"]', -1, 40, "prompt 0", uid(1, 0)) for k in range(1, count)),
        )

    return make


def bomb(bars: int) -> bytes:
    """A payload of few bytes and many bars: all equal, so that they pack well."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for dimension in range(3):
            each = np.tile(np.array([[0, 1]], np.float32), (bars, 1))
            if dimension == 0:
                each[-1, 1] = np.inf
            with archive.open(f"dgms_{dimension}.npy", "w") as member:
                np.lib.format.write_array(member, each, allow_pickle=False)
        entropy = np.array([np.log(bars - 1), np.log(bars), np.log(bars)], np.float32)
        for name, array in (("dgms_count", np.array([3])), ("entropy", entropy)):
            with archive.open(f"{name}.npy", "w") as member:
                np.lib.format.write_array(member, array, allow_pickle=False)
    return buffer.getvalue()


def duplicates(db: sqlite3.Connection) -> None:
    """12 diagrams of one run, each of which unpacks to as much as a payload may."""
    payload = bomb(2**21 - 16)
    db.execute("DELETE FROM persistencediagram WHERE embedding_model = 'Nomic'")
    db.executescript(
        """CREATE TABLE old AS SELECT * FROM persistencediagram; DROP TABLE persistencediagram;
        CREATE TABLE persistencediagram (id CHAR(32) PRIMARY KEY, started_at DATETIME, completed_at DATETIME,
            diagram_data BLOB, run_id CHAR(32), embedding_model VARCHAR);
        INSERT INTO persistencediagram SELECT * FROM old; DROP TABLE old;
        CREATE INDEX ix_persistencediagram_run_id ON persistencediagram (run_id);"""
    )
    db.executemany(
        "INSERT INTO persistencediagram VALUES (?, ?, ?, ?, ?, 'Nomic')",
        ((uid(8, k), TIME, LATER, payload, uid(2, 0)) for k in range(12)),
    )


def one(table: str, column: str, size: int, where: str, *, text: bool = False) -> Make:
    """One value of so many bytes."""

    def make(db: sqlite3.Connection) -> None:
        value: object = "x" * size if text else bytes(size)
        db.execute(f"UPDATE {table} SET {column} = ? WHERE id = (SELECT min(id) FROM {table} WHERE {where})", (value,))

    return make


def orphan(size: int) -> Make:
    """An invocation of a run that does not exist, with an image of so many bytes."""

    def make(db: sqlite3.Connection) -> None:
        values = (uid(3, 10**6), TIME, LATER, uid(2, 999), bytes(size))
        db.execute("INSERT INTO invocation VALUES (?, ?, ?, 'FluxDev', 'IMAGE', -1, ?, 0, NULL, NULL, ?)", values)

    return make


def crowd(db: sqlite3.Connection) -> None:
    """A run of 150,000 captions with their embeddings, all of one experiment."""
    vector = np.ones(768, "<f4").tobytes()
    for k in range(41, 150_041):
        row = (uid(3, k), TIME, LATER, uid(2, 0), k, uid(3, k - 1))
        db.execute("INSERT INTO invocation VALUES (?, ?, ?, 'Moondream', 'TEXT', -1, ?, ?, ?, 'caption', NULL)", row)
        db.execute("INSERT INTO embedding VALUES (?, ?, ?, ?, 'Nomic', ?)", (uid(9, k), TIME, LATER, uid(3, k), vector))


def strays(db: sqlite3.Connection) -> None:
    """400,000 diagrams of models that nobody names, of one run."""
    db.executemany(
        "INSERT INTO persistencediagram VALUES (?, ?, ?, x'00', ?, ?)",
        ((uid(8, k), TIME, LATER, uid(2, 0), f"model {k}") for k in range(400_000)),
    )


FIX = ("--doctor-fix",)
CASES: Mapping[str, Case] = {
    "product": Case("an experiment of 130 networks x 130 seeds x 130 prompts", product),
    "duplicates": Case("12 duplicate diagrams of 74 kB, 50 MB unpacked", duplicates),
    "runs": Case("60,000 runs", runs(60_000)),
    "shard": Case("60,000 runs, in parts", runs(60_000), ("--doctor-shard", "1/40")),
    "models": Case("10,000 embedding models", config("embedding_models", lambda: [f"m{k}" for k in range(10_000)])),
    "orphan": Case("one orphan image of 300 MB, repaired", orphan(300_000_000), FIX),
    "undo": Case("the same, taken back", orphan(300_000_000), undo=True),
    "prompts": Case("three prompts of 20 MB", config("prompts", lambda: ["x" * 20_000_000 + str(k) for k in range(3)])),
    "prompt": Case("a run's prompt of 60 MB", one("run", "initial_prompt", 60_000_000, "1", text=True)),
    "many prompts": Case("200,000 prompts", config("prompts", lambda: [f"prompt {k}" for k in range(200_000)])),
    "networks": Case("a JSON list of 50 MB", config("networks", lambda: [[1]] * 10_000_000)),
    "vector": Case("a vector of 500 MB", one("embedding", "vector", 500_000_000, "1")),
    "text": Case("an output text of 200 MB", one("invocation", "output_text", 200_000_000, "type = 'TEXT'", text=True)),
    "payload": Case("a diagram of 300 MB", one("persistencediagram", "diagram_data", 300_000_000, "1"), FIX),
    "crowd": Case("a run of 150,000 embeddings, 461 MB", crowd),
    "strays": Case("400,000 diagrams of unknown models", strays, FIX),
}
