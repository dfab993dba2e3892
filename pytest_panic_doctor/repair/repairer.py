"""The surgeon: which repair each rule gets, and what an item says of it. Knows no pytest; writes through `repair`."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING

from pytest_panic_doctor.compute.small_clouds import SmallFirst
from pytest_panic_doctor.compute.task import ComputationFailed
from pytest_panic_doctor.database.python_generation import PYTHON
from pytest_panic_doctor.database.subject import Rows, Subject
from pytest_panic_doctor.examination.examiner import RepairNotPossible, RepairResult, SubjectFindings
from pytest_panic_doctor.examination.running_experiments import TO_COME
from pytest_panic_doctor.formatting import name_first, plural
from pytest_panic_doctor.repair import lyapunov, recompute, reembed
from pytest_panic_doctor.repair.batch import Claim, Later
from pytest_panic_doctor.repair.journal.errors import RepairError
from pytest_panic_doctor.repair.journal.size import QuarantinePreview, rows_by_table
from pytest_panic_doctor.repair.quarantine_limit import describe_counts, limit_exceeded
from pytest_panic_doctor.repair.targets import (
    NO_ROWS,
    not_repairable_reason,
    rows_to_quarantine,
    undecided,
)
from pytest_panic_doctor.rules.base import Finding, RepairKind, Rule, Scope
from pytest_panic_doctor.topology.diagram import Diagram

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_panic_doctor.compute.runner import DiagramRunner
    from pytest_panic_doctor.repair.cluster.requests import DiagramRequests
    from pytest_panic_doctor.repair.journal.repair_record import Repair
    from pytest_panic_doctor.repair.result_store import ResultStore
    from pytest_panic_doctor.rules.embedder import Embedder


@dataclass(slots=True)
class DatabaseRepairer:
    """Repairs one database in one process.

    Attributes:
        repairs: The database, and what all its repairs share.
        runner: Returns the runner that computes diagrams, which is made when it is first needed.
        embedder: Embeds outputs by a hook.
        claim: Locks a name against the other workers.
        results: Stores the results of repairs that are made before their own item.
        closing: Called at the end.
        note: Called with the progress of a quarantine: the rule, the rows done and the rows found.
        requests: Requests diagrams that are computed elsewhere; None if this process computes them.
        trust: What is known of the embedding hooks.
        most: The limit of `--doctor-max-quarantine`; None for the default.
    """

    repairs: recompute.RepairContext
    runner: Callable[[], DiagramRunner]
    embedder: Embedder
    claim: Claim
    results: ResultStore
    closing: Callable[[], object] = lambda: None
    note: Callable[[str, int, int], None] = lambda rule, done, found: None  # noqa: ARG005
    requests: DiagramRequests | None = None
    trust: reembed.Trust = field(default_factory=reembed.Trust)
    most: str | None = None

    def repair(
        self, rule: Rule, subject: Subject, findings: tuple[Finding, ...], later: Iterable[SubjectFindings] = ()
    ) -> RepairResult:
        """Repair what a rule found.

        Args:
            rule: The rule.
            subject: The subject of the item.
            findings: What the rule found.
            later: Findings of later items; their small diagrams are computed and written with a small one.

        Raises:
            RepairNotPossible: The repair was not made.
        """
        if rule.repair is None:
            raise RepairNotPossible(rule.manual_fix or "nothing repairs this")
        try:
            match rule.repair:
                case RepairKind.COMPUTE:
                    return self._compute(rule, subject, later)
                case RepairKind.EMBED:
                    return RepairResult(reembed.embed(self.repairs, self.embedder, self.trust, rule.id, subject))
                case RepairKind.LYAPUNOV:
                    return self._compute_lyapunov(rule, subject, findings)
                case RepairKind.KEEP_CURRENT:
                    return self._keep_current(rule, subject, findings)
                case RepairKind.QUARANTINE | RepairKind.KEEP_NEWEST:
                    return self._quarantine(rule, subject, findings)
        except RepairError as error:
            raise RepairNotPossible(str(error), blocked_by=error.blocked_by) from error
        except ComputationFailed as error:
            raise RepairNotPossible(str(error), {"seconds": error.seconds, "peak_memory": error.peak_memory}) from error

    def record_result(self, rule: Rule, subject: Subject, done: RepairResult) -> None:
        """Store the result of a repair that was made by an item of another rule."""
        self.results.save(rule.id, subject, done)

    def find_result(self, rule: Rule, subject: Subject) -> RepairResult | None:
        """Return what this session has repaired for a rule within a subject, in all workers; None if nothing."""
        done = self.repairs.writer.repaired(rule.id, subject)
        if not done:
            return None
        results = list(self.results.find(rule.id, subject))
        if len(results) == 1:
            return results[0]
        return RepairResult(
            describe_repairs(done, self.repairs.writer.database),
            findings=tuple(finding for each in results for finding in each.findings),
        )

    def close(self) -> None:
        """Close the runner and the writer."""
        self.closing()
        self.repairs.writer.close()

    def _keep_current(self, rule: Rule, subject: Subject, findings: tuple[Finding, ...]) -> RepairResult:
        """Keep one of several diagrams; if current diagrams differ, compute the cloud's diagram to decide."""
        if not self.repairs.database.read(lambda db: undecided(self.repairs.context(db, rule.id, subject))):
            return self._quarantine(rule, subject, findings)
        begun = datetime.now()
        seen = self.repairs.snapshot(subject)
        if seen.busy:
            raise RepairNotPossible(seen.busy)
        computed = self.runner().compute(seen.task(ALL_DIMENSIONS))
        done = self._quarantine(rule, subject, findings, computed.diagram)
        left = self.repairs.snapshot(subject)
        how = "the one that is kept has the bars of the cloud, computed again"
        if len(left.diagrams) == 1 and not left.has_bars_of(computed):
            same = left.before.fingerprint == seen.before.fingerprint
            if not same or not self.repairs.write(rule.id, left.before, begun, computed):
                raise RepairNotPossible(recompute.EMBEDDINGS_KEEP_CHANGING)
            how = "none had the bars of the cloud, so the one that is kept was computed anew"
        return RepairResult(f"{done.note}; {how}", recompute.computed_result(len(seen.cloud.points), computed).measures)

    def _quarantine(
        self, rule: Rule, subject: Subject, findings: tuple[Finding, ...], right: Diagram | None = None
    ) -> RepairResult:
        def look(db: sqlite3.Connection) -> tuple[list[Rows], str]:
            rows = rows_to_quarantine(self.repairs.context(db, rule.id, subject), rule.repair, findings, right)
            if rule.id in TO_COME and (busy := self.repairs.busy(db, subject)):
                return rows, busy
            with QuarantinePreview(db, rows) as taken:
                return rows, limit_exceeded(db, taken, self.most, before) if rows else not_repairable_reason(findings)

        # One quarantine at a time among all workers, so that the rows of earlier ones are known.
        with self.claim("quarantine"):
            before = self.repairs.writer.quarantined()
            rows, reason = self.repairs.database.read(look)
            if reason:
                raise RepairNotPossible(reason)
            note = partial(self.note, rule.id)
            done = [repair for each in rows if (repair := self.repairs.writer.quarantine(rule.id, subject, each, note))]
        if not done:
            return RepairResult("another worker was faster")
        summary = describe_repairs(done, self.repairs.writer.database)
        return RepairResult(summary + ("" if rule.scope is Scope.DATABASE else self._incomplete_clusterings(done)))

    def _incomplete_clusterings(self, done: Sequence[Repair]) -> str:
        """Say what to do about the clusterings of which a quarantine took assignments; empty if it took none."""
        generation = self.repairs.database.generation or PYTHON
        counts = rows_by_table(self.repairs.writer.database, [repair.id for repair in done])
        count = counts.get(generation.real_name("embeddingcluster"), 0)
        if not count or "cluster" not in generation.commands:
            return ""
        return f"; their clusterings lack {plural(count, 'cluster assignment')} now: {generation.commands['cluster']}"

    def _compute(self, rule: Rule, subject: Subject, later: Iterable[SubjectFindings]) -> RepairResult:
        if self.requests:
            return self.requests.submit_and_wait(rule.id, subject)
        runner, together = self.runner(), None
        if isinstance(runner, SmallFirst):
            keep = partial(self.record_result, rule)
            together = Later(self.repairs, runner, self.claim, later, keep).write_with
        done = recompute.recompute(self.repairs, runner, self.claim, rule, subject, together)
        by_another = self.find_result(rule, subject) if done is recompute.BY_ANOTHER else None
        return by_another or done

    def _compute_lyapunov(self, rule: Rule, subject: Subject, findings: tuple[Finding, ...]) -> RepairResult:
        """Quarantine surplus results, then compute those that are missing or wrong."""
        surplus = tuple(finding for finding in findings if finding.rows)
        done = [self._quarantine(rule, subject, surplus).note] if surplus else []
        summary = lyapunov.recompute_results(self.repairs, rule.id, subject)
        if summary is not lyapunov.FASTER:
            done.append(summary.note)
        elif not done:
            reason = not_repairable_reason(findings)
            if reason != NO_ROWS:
                raise RepairNotPossible(reason)
            done.append(summary.note)
        return RepairResult("; ".join(done), summary.measures)


ALL_DIMENSIONS = 2
"""The highest dimension of a stored diagram: all dimensions are compared, even if `--doctor-max-dim` is less."""

VERBS = {"quarantine": "quarantined", "update": "rewrote", "insert": "added"}
"""The past tense of each verb of the journal."""


def describe_repairs(repairs: Sequence[Repair], database: Path) -> str:
    """Describe repairs: `quarantined 3 rows: 2 embeddings, 1 run (repair 12)`."""
    ids = name_first([str(repair.id) for repair in repairs], 3)
    verbs = list(dict.fromkeys(VERBS[repair.verb] for repair in repairs))
    counts = rows_by_table(database, [repair.id for repair in repairs]) if verbs == [VERBS["quarantine"]] else {}
    rows = describe_counts(counts) if counts else plural(sum(repair.rows for repair in repairs), "row")
    return f"{' and '.join(verbs)} {rows} (repair {ids})"
