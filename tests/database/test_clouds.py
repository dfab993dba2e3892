"""The stored cloud: the newest usable vectors in sequence order, and the reasons if it is incomplete."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

import numpy as np
import pytest

from pytest_panic_doctor.database import clouds
from pytest_panic_doctor.database.subject import DiagramTarget

NAN = np.full(4, np.nan, "<f4").tobytes()
ZERO = bytes(16)


@pytest.fixture
def db() -> Iterator[sqlite3.Connection]:
    """Two runs of an experiment: invocations 0, 2, 4, … are images, 1, 3, 5, … texts; inserted backwards."""
    db = sqlite3.connect(":memory:", isolation_level=None)
    db.executescript(
        """
        CREATE TABLE run (id, experiment_id);
        CREATE TABLE invocation (id, run_id, type, sequence_number);
        CREATE TABLE embedding (id, invocation_id, embedding_model, vector, started_at, completed_at);
        CREATE TABLE persistencediagram (id, run_id, embedding_model, diagram_data, started_at, completed_at);
        CREATE INDEX a ON invocation (run_id);
        CREATE INDEX b ON embedding (invocation_id);
        """
    )
    for run in ("r", "s"):
        db.execute("INSERT INTO run VALUES (?, 'x')", (run,))
        for k in reversed(range(10)):
            kind = ("IMAGE", "TEXT")[k % 2]
            db.execute("INSERT INTO invocation VALUES (?, ?, ?, ?)", (f"{run}{k}", run, kind, k))
            add(db, f"{run}{k}", vector(k), model=("NomicVision", "Nomic")[k % 2])
    yield db
    db.close()


def vector(value: float, width: int = 4) -> bytes:
    return np.full(width, value + 1, "<f4").tobytes()


def add(
    db: sqlite3.Connection, invocation: str, blob: object, done: str | None = "2025-01-01", model: str = "Nomic"
) -> None:
    row = f"{db.execute('SELECT count(*) FROM embedding').fetchone()[0]:032x}"
    db.execute("INSERT INTO embedding VALUES (?, ?, ?, ?, '2025', ?)", (row, invocation, model, blob, done))


def change(db: sqlite3.Connection, invocation: str, blob: object) -> None:
    db.execute("UPDATE embedding SET vector = ? WHERE invocation_id = ?", (blob, invocation))


def values(cloud: clouds.StoredCloud) -> list[float]:
    assert cloud.points.dtype == np.float32
    assert (cloud.points == cloud.points[:, :1]).all()
    return [float(value) - 1 for value in cloud.points[:, 0]]


def test_a_cloud_is_in_sequence_order(db: sqlite3.Connection) -> None:
    cloud = clouds.load_cloud(db, DiagramTarget("r", "Nomic"), "TEXT", 4)
    assert values(cloud) == [1, 3, 5, 7, 9]
    assert cloud.complete
    assert cloud.invocations == 5
    assert values(clouds.load_cloud(db, DiagramTarget("s", "NomicVision"), "IMAGE", 4)) == [0, 2, 4, 6, 8]


def test_a_run_without_invocations_has_no_point(db: sqlite3.Connection) -> None:
    cloud = clouds.load_cloud(db, DiagramTarget("nobody", "Nomic"), "TEXT", 4)
    assert cloud.points.shape == (0, 4)
    assert cloud.invocations == 0


def test_embeddings_of_the_other_type_are_no_points(db: sqlite3.Connection) -> None:
    add(db, "r2", vector(2))
    assert values(clouds.load_cloud(db, DiagramTarget("r", "Nomic"), "TEXT", 4)) == [1, 3, 5, 7, 9]


def test_the_newest_of_two_is_taken(db: sqlite3.Connection) -> None:
    add(db, "r3", vector(30), "2025-02-02")
    add(db, "r5", vector(50), "2024-02-02")
    add(db, "r7", vector(70), None)
    cloud = clouds.load_cloud(db, DiagramTarget("r", "Nomic"), "TEXT", 4)
    assert values(cloud) == [1, 30, 5, 7, 9]
    assert cloud.complete


@pytest.mark.parametrize("flawed", [None, NAN, ZERO, b"", b"abc", vector(3, 5), "text", 7])
def test_an_unusable_vector_gives_way_to_an_older_one(db: sqlite3.Connection, flawed: object) -> None:
    add(db, "r3", flawed, "2026-01-01")
    cloud = clouds.load_cloud(db, DiagramTarget("r", "Nomic"), "TEXT", 4)
    assert values(cloud) == [1, 3, 5, 7, 9]
    assert cloud.complete


@pytest.mark.parametrize(
    ("flawed", "clause"),
    [
        (None, "1 NULL"),
        (NAN, "1 holds NaN or infinity"),
        (ZERO, "1 is zero"),
        (b"abc", "1 has 3 bytes instead of 16"),
        (vector(3, 5), "1 has 5 values instead of 4"),
        ("text", "1 is not a blob"),
    ],
)
def test_an_unusable_vector_blocks_the_cloud(db: sqlite3.Connection, flawed: object, clause: str) -> None:
    change(db, "r3", flawed)
    cloud = clouds.load_cloud(db, DiagramTarget("r", "Nomic"), "TEXT", 4)
    assert not cloud.complete
    assert values(cloud) == [1, 5, 7, 9]
    assert cloud.blocks == {"embedding-vector": f"1 of 5 vectors is unusable: {clause} (embedding-vector)"}


def test_everything_that_blocks_is_counted(db: sqlite3.Connection) -> None:
    db.execute("DELETE FROM embedding WHERE invocation_id IN ('r1', 'r9')")
    change(db, "r3", None)
    change(db, "r5", None)
    change(db, "r7", ZERO)
    assert clouds.load_cloud(db, DiagramTarget("r", "Nomic"), "TEXT", 4).blocks == {
        "embedding-missing": "2 of 5 invocations have no embedding (embedding-missing)",
        "embedding-vector": "3 of 5 vectors are unusable: 2 NULL, 1 is zero (embedding-vector)",
    }


def test_a_model_of_unknown_type_is_blocked(db: sqlite3.Connection) -> None:
    cloud = clouds.load_cloud(db, DiagramTarget("r", "New"), None, 4)
    assert not cloud.complete
    assert "doctor_text_models" in cloud.blocks["doctor_text_models"]


def test_one_query_by_index_loads_a_cloud(db: sqlite3.Connection) -> None:
    seen: list[str] = []
    db.set_trace_callback(seen.append)
    clouds.load_cloud(db, DiagramTarget("r", "Nomic"), "TEXT", 4)
    db.set_trace_callback(None)
    assert len(seen) == 1
    plan = [row[3] for row in db.execute(f"EXPLAIN QUERY PLAN {seen[0]}")]
    assert not any(step.startswith("SCAN") for step in plan), plan


def test_the_width_is_that_of_the_others(db: sqlite3.Connection) -> None:
    assert clouds.vector_width(db, "x", "Nomic") == 4
    for k in (1, 3, 5):
        change(db, f"r{k}", vector(k, 7))
    assert clouds.vector_width(db, "x", "Nomic") == 4
    change(db, "s1", vector(1, 7))
    for k in (3, 5, 7, 9):
        change(db, f"s{k}", vector(k, 7))
    assert clouds.vector_width(db, "x", "Nomic") == 7
    assert clouds.vector_width(db, "x", "Unused") == 0


@pytest.mark.parametrize("runs", ["", "tuvw"], ids=["few runs", "many runs"])
def test_the_width_is_not_that_of_damaged_first_vectors(db: sqlite3.Connection, runs: str) -> None:
    for run in runs:
        db.execute("INSERT INTO run VALUES (?, 'x')", (run,))
        for k in (1, 3, 5):
            db.execute("INSERT INTO invocation VALUES (?, ?, 'TEXT', ?)", (f"{run}{k}", run, k))
            add(db, f"{run}{k}", vector(k))
    db.execute(
        "UPDATE embedding SET vector = ? WHERE embedding_model = 'Nomic' AND invocation_id IN "
        "(SELECT id FROM invocation i WHERE i.rowid = (SELECT min(rowid) FROM invocation j "
        "WHERE j.run_id = i.run_id AND j.type = 'TEXT'))",
        (vector(1, 3),),
    )
    assert clouds.vector_width(db, "x", "Nomic") == 4


def test_widths_that_are_no_multiple_of_four_bytes_are_not_the_width(db: sqlite3.Connection) -> None:
    db.execute("UPDATE embedding SET vector = X'010203' WHERE invocation_id LIKE 's%'")
    assert clouds.vector_width(db, "x", "Nomic") == 4


def test_diagrams_come_newest_first(db: sqlite3.Connection) -> None:
    rows = [("a", b"1", "2025-01-01"), ("b", None, None), ("c", "text", "2025-03-03"), ("d", b"4", "2025-01-01")]
    for row_id, data, done in rows:
        db.execute("INSERT INTO persistencediagram VALUES (?, 'r', 'Nomic', ?, '2025', ?)", (row_id, data, done))
    found = list(clouds.iterate_diagrams(db, DiagramTarget("r", "Nomic")))
    assert [(each.id, each.payload) for each in found] == [("c", b""), ("d", b"4"), ("a", b"1"), ("b", None)]
    assert sorted(clouds.has_payload(db, DiagramTarget("r", "Nomic"))) == [False, True, True, True]
    assert clouds.has_payload(db, DiagramTarget("s", "Nomic")) == []


def test_points_are_counted_by_type(db: sqlite3.Connection) -> None:
    assert clouds.invocation_count(db, "r", "TEXT") == 5
    assert clouds.invocation_count(db, "nobody", "TEXT") == 0


def test_the_width_is_sampled_in_steps_that_do_not_grow_with_the_runs(db: sqlite3.Connection) -> None:
    steps: dict[int, int] = {}
    db.executescript(
        "DELETE FROM run; DELETE FROM invocation; DELETE FROM embedding; CREATE INDEX r ON run (experiment_id)"
    )
    for runs in (100, 1_000):
        for run in range(len(steps) * 100, runs):
            db.execute("INSERT INTO run VALUES (?, 'e')", (f"r{run:05}",))
            db.execute("INSERT INTO invocation VALUES (?, ?, 'TEXT', 1)", (f"i{run:05}", f"r{run:05}"))
            db.execute(
                "INSERT INTO embedding VALUES (?, ?, 'Nomic', zeroblob(32), '', '')", (f"e{run:05}", f"i{run:05}")
            )
        counted = [0]

        def count(counted: list[int] = counted) -> int:
            counted[0] += 1
            return 0

        db.set_progress_handler(count, 10)
        assert clouds.vector_width(db, "e", "Nomic") == 8
        db.set_progress_handler(None, 0)
        steps[runs] = counted[0]
    assert steps[1_000] < 1.2 * steps[100]
