"""The demo's defects: each is one that `--doctor-fix` repairs without a hook."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

TIME = "2025-08-12 00:00:00.000000"
LOST = "0" * 31


@dataclass(frozen=True, slots=True)
class Defect:
    """What was planted: the rule that finds it, its kind, and the ids that the finding names, or (run, model)."""

    rule: str
    kind: str
    ids: tuple[str, ...]

    def as_dict(self) -> dict[str, object]:
        """As `demo-defects.json` has it."""
        return asdict(self)


def plant(path: Path) -> list[Defect]:
    """Plant all defects in a healthy demo database."""
    db = sqlite3.connect(path, isolation_level=None)
    try:
        db.execute("BEGIN")
        planted = [defect for make in (diagram_defects, orphans, embedding_defects) for defect in make(db)]
        db.execute("COMMIT")
    finally:
        db.close()
    return planted


def runs(db: sqlite3.Connection) -> list[str]:
    """The runs in the order of their ids."""
    return [row for (row,) in db.execute("SELECT id FROM run ORDER BY id")]


def diagram_of(db: sqlite3.Connection, run: str, model: str) -> str:
    """The id of a diagram."""
    sql = "SELECT id FROM persistencediagram WHERE run_id = ? AND embedding_model = ?"
    return str(db.execute(sql, (run, model)).fetchone()[0])


def diagram_defects(db: sqlite3.Connection) -> list[Defect]:
    """A diagram absent, NULL, torn, stale, twice, and one of a retired embedding model."""
    first, second, third, fourth, *_ = runs(db)
    db.execute("DELETE FROM persistencediagram WHERE id = ?", (diagram_of(db, first, "Nomic"),))
    null = diagram_of(db, second, "JinaClip")
    db.execute("UPDATE persistencediagram SET diagram_data = NULL WHERE id = ?", (null,))
    torn = diagram_of(db, third, "NomicVision")
    db.execute(
        "UPDATE persistencediagram SET diagram_data = substr(diagram_data, 1, length(diagram_data) / 2) WHERE id = ?",
        (torn,),
    )
    turned = np.zeros(768, "<f4")
    turned[0] = 1
    db.execute(
        "UPDATE embedding SET vector = ? WHERE embedding_model = 'Nomic' AND invocation_id = "
        "(SELECT id FROM invocation WHERE run_id = ? AND sequence_number = 3)",
        (turned.tobytes(), fourth),
    )
    twice, retired = "2" * 32, "3" * 32
    copy = "INSERT INTO persistencediagram SELECT ?, started_at, completed_at, diagram_data, run_id, {} FROM "
    copy += "persistencediagram WHERE id = ?"
    original = diagram_of(db, first, "JinaClip")
    db.execute(copy.format("embedding_model"), (twice, original))
    db.execute(copy.format("'RetiredModel'"), (retired, original))
    return [
        Defect("diagram-missing", "diagram_gone", (first, "Nomic")),
        Defect("diagram-missing", "diagram_null", (second, "JinaClip")),
        Defect("diagram-valid", "diagram_torn", (third, "NomicVision")),
        Defect("diagram-current", "diagram_stale", (fourth, "Nomic")),
        Defect("diagram-duplicate", "diagram_twice", (first, "JinaClip")),
        Defect("diagram-model", "diagram_of_a_retired_model", (retired,)),
    ]


def orphans(db: sqlite3.Connection) -> list[Defect]:
    """One orphan of each table."""
    insert: dict[str, Callable[[str], tuple[object, ...]]] = {
        "run": lambda own: (own, '["FluxDev", "Moondream"]', -1, 60, "lost", LOST + "a"),
        "invocation": lambda own: (own, TIME, TIME, "FluxDev", "IMAGE", -1, LOST + "b", 0, None, None, b"RIFF"),
        "embedding": lambda own: (own, TIME, TIME, LOST + "c", "Nomic", b"\x00" * 3072),
        "persistencediagram": lambda own: (own, TIME, TIME, None, LOST + "d", "Nomic"),
        "embeddingcluster": lambda own: (own, LOST + "e", LOST + "f", None),
    }
    rules = ("orphan-run", "orphan-invocation", "orphan-embedding", "orphan-diagram", "orphan-cluster")
    planted = []
    for place, ((table, values), rule) in enumerate(zip(insert.items(), rules, strict=True)):
        own = f"{place + 4}" * 32
        row = values(own)
        db.execute(f"INSERT INTO {table} VALUES ({', '.join('?' * len(row))})", row)
        planted.append(Defect(rule, rule.replace("-", "_"), (own,)))
    return planted


def embedding_defects(db: sqlite3.Connection) -> list[Defect]:
    """An embedding twice, and a text model that embedded images, with nothing but NULL."""
    last = runs(db)[-2]
    twice = "b" * 32
    ((original,),) = db.execute(
        "SELECT e.id FROM embedding e JOIN invocation i ON i.id = e.invocation_id WHERE i.run_id = ? "
        "AND e.embedding_model = 'JinaClip' AND i.sequence_number = 7",
        (last,),
    )
    db.execute(
        "INSERT INTO embedding SELECT ?, started_at, NULL, invocation_id, embedding_model, vector FROM embedding "
        "WHERE id = ?",
        (twice, original),
    )
    images = db.execute(
        "SELECT id FROM invocation WHERE run_id = ? AND type = 'IMAGE' ORDER BY sequence_number LIMIT 5", (last,)
    ).fetchall()
    mismatched = tuple(f"{place:x}" * 32 for place in range(12, 16))
    for own, (image,) in zip(mismatched, images, strict=False):
        db.execute("INSERT INTO embedding VALUES (?, ?, ?, ?, 'JinaClip', NULL)", (own, TIME, TIME, image))
    return [
        Defect("embedding-duplicate", "embedding_twice", (twice, original)),
        Defect("embedding-type", "text_model_on_images", mismatched),
    ]
