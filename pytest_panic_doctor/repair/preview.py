"""What `--doctor-fix` would do about an item: measured on the database, done to nothing."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from pytest_panic_doctor.compute import estimate
from pytest_panic_doctor.database.connection import Database
from pytest_panic_doctor.database.subject import Subject
from pytest_panic_doctor.examination.outcome import Number
from pytest_panic_doctor.repair import lyapunov
from pytest_panic_doctor.repair.journal.errors import RepairError
from pytest_panic_doctor.repair.journal.size import QuarantinePreview, SessionTotals, quarantine_size
from pytest_panic_doctor.repair.quarantine_limit import limit_exceeded
from pytest_panic_doctor.repair.recompute import readable, snapshot
from pytest_panic_doctor.repair.targets import (
    QUARANTINES,
    not_repairable_reason,
    other_choices,
    rows_to_quarantine,
    undecided,
)
from pytest_panic_doctor.rules.base import Finding, Kind, RepairKind, Rule, RuleContext, remedy_of
from pytest_panic_doctor.topology.cloud import sampled_share

NO_HOOK = "needs an embedding hook (pytest_doctor_embed)"
"""The reason if no plugin implements the hook."""


@dataclass(slots=True)
class DatabasePlanner:
    """Estimates repairs without writing.

    Attributes:
        database: The database, which is only read.
        kinds: What each embedding model embeds.
        totals: Counts the rows of all items, each once.
        embeds: Whether an embedding hook exists. The models that it knows are not asked for, since it might load them.
        most: The limit of `--doctor-max-quarantine`; None for the default.
        engine: The engine that would compute.
    """

    database: Database
    kinds: Mapping[str, Kind]
    totals: SessionTotals
    embeds: bool = False
    most: str | None = None
    engine: str = "native"

    def plan(self, rule: Rule, subject: Subject, findings: tuple[Finding, ...]) -> tuple[str, dict[str, Number]]:
        """Estimate the repair of one item.

        Args:
            rule: The rule.
            subject: The subject of the item.
            findings: What the rule found.

        Returns:
            Why the item could not be repaired, empty if it could; and the measures of the repair. For a quarantine
            these are `rows` and `bytes`, as the journal would record them if the item were repaired alone, and
            `bytes_high` if the repair of the embeddings may change which diagram is kept. For a computation: `points`,
            `distinct`, `seconds` and `seconds_high` (middle and upper end of the estimate) and `peak_memory` in bytes,
            or `rewritten` if nothing is computed. For embeddings: `outputs` if a hook exists.
        """
        if rule.repair is None:
            return remedy_of(rule, findings) or "nothing repairs this", {}
        if rule.repair is RepairKind.EMBED:
            count = sum(each.count for each in findings)
            return ("", {"outputs": count}) if self.embeds else (NO_HOOK, {"rows": count})
        try:
            if rule.repair in QUARANTINES:
                return self._quarantine(rule, subject, findings)
            if rule.repair is RepairKind.LYAPUNOV:
                return self._lyapunov(rule, subject, findings)
            return self.database.read(lambda db: self._compute(db, rule, subject))
        except RepairError as error:
            return str(error), {}

    def _quarantine(self, rule: Rule, subject: Subject, findings: tuple[Finding, ...]) -> tuple[str, dict[str, Number]]:
        def look(db: sqlite3.Connection) -> tuple[QuarantinePreview | None, int, str]:
            context = RuleContext(db, rule.id, subject, self.kinds)
            if rule.repair is RepairKind.KEEP_CURRENT and not self.embeds:
                undecided(context)
            rows = rows_to_quarantine(context, rule.repair, findings)
            others = other_choices(context) if rule.repair is RepairKind.KEEP_CURRENT else []
            high = max((quarantine_size(db, [each])[1] for each in others), default=0)
            taken = QuarantinePreview(db, rows) if rows else None
            return taken, high, limit_exceeded(db, taken, self.most, self.totals.besides(taken)) if taken else ""

        taken, high, large = self.database.read(look)
        if taken is None:
            return not_repairable_reason(findings), {}
        with taken:
            if large:
                return large, {}
            self.totals.add(rule.id, taken)
            rows, size = taken.weight
        measures: dict[str, Number] = {"rows": rows, "bytes": size}
        return "", measures | ({"bytes_high": high} if high > size else {})

    def _lyapunov(self, rule: Rule, subject: Subject, findings: tuple[Finding, ...]) -> tuple[str, dict[str, Number]]:
        """Plan the quarantine of surplus results, and count those that are computed."""
        surplus = tuple(finding for finding in findings if finding.rows)
        reason, measures = self._quarantine(rule, subject, surplus) if surplus else ("", {})
        if reason:
            return reason, {}
        found = self.database.read(lambda db: lyapunov.computable(RuleContext(db, rule.id, subject, self.kinds), ""))
        if not found and not surplus:
            return not_repairable_reason(findings), {}
        return "", measures | ({"results": len(found)} if found else {})

    def _compute(self, db: sqlite3.Connection, rule: Rule, subject: Subject) -> tuple[str, dict[str, Number]]:
        seen = snapshot(RuleContext(db, rule.id, subject, self.kinds), "")
        cloud = seen.cloud
        if not rule.deep and readable(seen):
            return "", {"rewritten": 1}
        if not cloud.complete:
            unless = ", unless the embedding hook helps" if self.embeds else ""
            return f"blocked{unless}: {'; '.join(cloud.blocks.values())}", {}
        if seen.forbidden:
            return f"rows of its run are damaged: {seen.forbidden}", {}
        merged = np.unique(cloud.points, axis=0)
        distinct = len(merged)
        guess = estimate.estimate(distinct, self.engine, sampled_share(merged))
        return "", {
            "points": len(cloud.points),
            "distinct": distinct,
            "seconds": round(guess.seconds, 2),
            "seconds_high": round(guess.seconds_high, 2),
            "peak_memory": estimate.memory(distinct, self.engine, cloud.points.nbytes),
        }
