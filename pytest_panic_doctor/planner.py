"""What `--doctor-fix` would do about an item: measured on the database, done to nothing."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping

import numpy as np

from pytest_panic_doctor.examine import Number
from pytest_panic_doctor.repair.weigh import weigh
from pytest_panic_doctor.rules.model import Finding, Kind, RepairKind, Rule
from pytest_panic_doctor.store.session import Database
from pytest_panic_doctor.store.subject import Subject
from pytest_panic_doctor.topology import stored
from pytest_panic_doctor.topology.estimate import estimate

QUARANTINES = (RepairKind.QUARANTINE, RepairKind.KEEP_NEWEST, RepairKind.KEEP_CURRENT)


class Planner:
    """Weighs repairs, read only."""

    def __init__(self, database: Database, kinds: Mapping[str, Kind]) -> None:
        """`kinds` as those of the settings."""
        self.database = database
        self.kinds = kinds

    def plan(self, rule: Rule, subject: Subject, findings: tuple[Finding, ...]) -> tuple[str, dict[str, Number]]:
        """Why the item would stay sick, empty where it would not; and the measures of its repair.

        Quarantine: `rows` and `bytes`, from above where some of several rows are kept. Compute: `points`, `distinct`,
        `seconds` and `peak_memory` (bytes), middle of the estimate, and `seconds_high`.
        """
        if rule.repair is None:
            return rule.remedy or "nothing repairs this", {}
        if rule.repair is RepairKind.EMBED:
            return "needs an embedding hook (pytest_doctor_embed)", {"rows": sum(each.count for each in findings)}
        if rule.repair in QUARANTINES:
            found = [each.rows for each in findings if each.rows]
            weights = self.database.read(lambda db: [weigh(db, rows) for rows in found])
            return "", {"rows": sum(rows for rows, _ in weights), "bytes": sum(size for _, size in weights)}
        return self.database.read(lambda db: self._compute(db, subject))

    def _compute(self, db: sqlite3.Connection, subject: Subject) -> tuple[str, dict[str, Number]]:
        run, model = str(subject.run), str(subject.embedding_model)
        width = stored.width_of(db, str(subject.experiment), model)
        cloud = stored.load(db, run, model, self.kinds.get(model), width)
        if not cloud.whole:
            return f"blocked: {'; '.join(cloud.blocks)}", {}
        distinct = len(np.unique(cloud.points, axis=0))
        guess = estimate(distinct)
        return "", {
            "points": len(cloud.points),
            "distinct": distinct,
            "seconds": round(guess.seconds, 2),
            "seconds_high": round(guess.seconds_high, 2),
            "peak_memory": guess.memory,
        }
