"""Plants the defects of the Python generation's demo; `--doctor-fix` repairs each without a hook."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

import numpy as np

TIME = "2025-08-12 09:45:00.000000"
LOST_ID = "0" * 31
"""An id that no row has, without its last digit."""

SPOILED_STEP = 7
RETIRED = "'RetiredModel'"


@dataclass(frozen=True, slots=True)
class Defect:
    """A defect that was planted.

    Attributes:
        rule: The rule that finds it.
        kind: The kind of defect.
        ids: The ids that the finding names, or (run, embedding model).
    """

    rule: str
    kind: str
    ids: tuple[str, ...]

    def as_dict(self) -> dict[str, object]:
        """Return the defect as `demo-defects.json` has it."""
        return asdict(self)


def plant(db: sqlite3.Connection) -> list[Defect]:
    """Plant all defects in a healthy demo database, each in a run or table of its own; inside a transaction."""
    runs = [str(run) for (run,) in db.execute("SELECT id FROM run ORDER BY id")]
    return [*diagram_defects(db, runs), *embedding_defects(db, runs[4]), *plant_orphans(db)]


def planted_id(digit: int) -> str:
    """Return the id of a planted row.

    It is a UUIDv7 like all others, since the row may be kept; its ffff shows that it was planted.
    """
    return f"06b051ffff{digit:02x}7000800000000000{0:04x}"


def diagram_of(db: sqlite3.Connection, run: str, model: str) -> str:
    """Return the id of a diagram."""
    sql = "SELECT id FROM persistencediagram WHERE run_id = ? AND embedding_model = ?"
    return str(db.execute(sql, (run, model)).fetchone()[0])


def diagram_defects(db: sqlite3.Connection, runs: Sequence[str]) -> Iterator[Defect]:
    """Plant diagrams that are missing, NULL, truncated, stale and doubled, and one of a retired embedding model."""
    db.execute("DELETE FROM persistencediagram WHERE id = ?", (diagram_of(db, runs[0], "Nomic"),))
    yield Defect("diagram-missing", "diagram_gone", (runs[0], "Nomic"))

    null = diagram_of(db, runs[1], "JinaClip")
    db.execute("UPDATE persistencediagram SET diagram_data = NULL WHERE id = ?", (null,))
    yield Defect("diagram-missing", "diagram_null", (runs[1], "JinaClip"))

    half = "substr(diagram_data, 1, length(diagram_data) / 2)"
    torn = diagram_of(db, runs[2], "NomicVision")
    db.execute(f"UPDATE persistencediagram SET diagram_data = {half} WHERE id = ?", (torn,))
    yield Defect("diagram-valid", "diagram_torn", (runs[2], "NomicVision"))

    turned = np.zeros(768, "<f4")
    turned[0] = 1
    db.execute(
        "UPDATE embedding SET vector = ? WHERE embedding_model = 'Nomic' AND invocation_id = "
        "(SELECT id FROM invocation WHERE run_id = ? AND sequence_number = ?)",
        (turned.tobytes(), runs[3], SPOILED_STEP),
    )
    yield Defect("diagram-current", "diagram_stale", (runs[3], "Nomic"))

    copy = (
        "INSERT INTO persistencediagram SELECT ?, started_at, completed_at, diagram_data, run_id, {} "
        "FROM persistencediagram WHERE id = ?"
    )
    original = diagram_of(db, runs[0], "JinaClip")
    db.execute(copy.format("embedding_model"), (planted_id(1), original))
    yield Defect("diagram-duplicate", "diagram_twice", (runs[0], "JinaClip"))

    db.execute(copy.format(RETIRED), (planted_id(2), original))
    yield Defect("diagram-model", "diagram_of_a_retired_model", (planted_id(2),))


def embedding_defects(db: sqlite3.Connection, run: str) -> Iterator[Defect]:
    """Plant, in one run, an embedding twice, and embeddings of images by a text model."""
    ((original,),) = db.execute(
        "SELECT e.id FROM embedding e JOIN invocation i ON i.id = e.invocation_id WHERE i.run_id = ? "
        "AND e.embedding_model = 'JinaClip' AND i.sequence_number = ?",
        (run, SPOILED_STEP),
    )
    db.execute(
        "INSERT INTO embedding SELECT ?, started_at, completed_at, invocation_id, embedding_model, vector "
        "FROM embedding WHERE id = ?",
        (planted_id(3), original),
    )
    yield Defect("embedding-duplicate", "embedding_twice", (planted_id(3), str(original)))

    images = db.execute(
        "SELECT e.id FROM embedding e JOIN invocation i ON i.id = e.invocation_id WHERE i.run_id = ? "
        "AND i.type = 'IMAGE' ORDER BY i.sequence_number LIMIT 4",
        (run,),
    ).fetchall()
    mismatched = tuple(planted_id(digit) for digit in range(4, 4 + len(images)))
    db.executemany(
        "INSERT INTO embedding SELECT ?, started_at, completed_at, invocation_id, 'JinaClip', vector "
        "FROM embedding WHERE id = ?",
        [(own, of) for own, (of,) in zip(mismatched, images, strict=True)],
    )
    yield Defect("embedding-type", "text_model_on_images", mismatched)


def plant_orphans(db: sqlite3.Connection) -> Iterator[Defect]:
    """Plant one orphan in each table."""
    rows: tuple[tuple[str, str, tuple[object, ...]], ...] = (
        ("orphan-run", "run", ('["FluxDev", "Moondream"]', -1, 60, "a lost prompt", LOST_ID + "a")),
        (
            "orphan-invocation",
            "invocation",
            (TIME, TIME, "FluxDev", "IMAGE", -1, LOST_ID + "b", 0, None, None, b"RIFF"),
        ),
        ("orphan-embedding", "embedding", (TIME, TIME, LOST_ID + "c", "Nomic", bytes(3072))),
        ("orphan-diagram", "persistencediagram", (TIME, TIME, None, LOST_ID + "d", "Nomic")),
        ("orphan-cluster", "embeddingcluster", (LOST_ID + "e", LOST_ID + "f", None)),
    )
    for digit, (rule, table, values) in enumerate(rows, start=10):
        own = planted_id(digit)
        places = ", ".join("?" * (1 + len(values)))
        db.execute(f"INSERT INTO {table} VALUES ({places})", (own, *values))
        yield Defect(rule, rule.replace("-", "_"), (own,))
