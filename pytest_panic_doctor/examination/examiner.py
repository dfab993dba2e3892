"""Examine one item: check, repair, check again, `Outcome`. Does not import pytest."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Protocol

from pytest_panic_doctor.database.connection import Database, SharedMemo
from pytest_panic_doctor.database.generations import is_missing_in_file
from pytest_panic_doctor.database.integrity import REMOVE, advice_for, check_file, describe_missing_feature
from pytest_panic_doctor.database.room import MemoryRoom, TooLarge, is_too_big, name_too_large
from pytest_panic_doctor.database.schema import NOUNS
from pytest_panic_doctor.database.subject import Subject
from pytest_panic_doctor.examination.existence import require_subject
from pytest_panic_doctor.examination.foreign_code import Misbehaved, calling, checking, findings_of
from pytest_panic_doctor.examination.named_findings import KeptFindings
from pytest_panic_doctor.examination.outcome import Counts, Number, Outcome
from pytest_panic_doctor.examination.runs import is_of_experiment, located, others_note, runs_of_findings
from pytest_panic_doctor.formatting import join_notes
from pytest_panic_doctor.rules.base import (
    BUILT_IN,
    Finding,
    Kind,
    NotApplicable,
    NotExaminable,
    RepairKind,
    Rule,
    RuleContext,
    remedy_of,
)

if TYPE_CHECKING:
    from pytest_panic_doctor.database.verification import Verification
    from pytest_panic_doctor.examination.running import Running
    from pytest_panic_doctor.rules.embedder import Embedder

UNCOUNTED = "the rule does not say how many rows it looked at, so nothing is known"
UNREADABLE = ("SQLITE_CORRUPT", "SQLITE_NOTADB", "SQLITE_IOERR", "SQLITE_BUSY", "SQLITE_LOCKED", "SQLITE_CANTOPEN")


@dataclass(frozen=True, slots=True)
class CheckResult:
    """The findings of one check, the examined rows, and what it raised before its end."""

    findings: tuple[Finding, ...]
    rows: Counts = field(default_factory=dict)
    raised: Misbehaved | None = None
    absent: str = ""
    """What the check could not examine, after its findings."""
    elsewhere: tuple[Finding, ...] = ()
    """Findings about runs that the user did not choose."""

    @property
    def wrong(self) -> tuple[Finding, ...]:
        """The findings that are not only warnings."""
        return tuple(finding for finding in self.findings if not finding.warning)

    @property
    def nothing(self) -> str:
        """Why there was nothing to examine; empty if there was something, or if the rule does not count."""
        if self.absent or not self.rows or any(self.rows.values()):
            return self.absent
        table = next(iter(self.rows))
        return f"there is no {NOUNS.get(table, table)}"


@dataclass(frozen=True, slots=True)
class RepairResult:
    """The result of a repair: a note, its measures and, if another item needed it, what it repaired."""

    note: str
    measures: Mapping[str, Number] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()


SubjectFindings = tuple[Subject, tuple[Finding, ...]]
"""A subject and the findings of a rule there."""


class RepairNotPossible(Exception):
    """A repair that is not possible; the message is one sentence with the reason and what would help."""

    def __init__(
        self, sentence: str, measures: Mapping[str, Number] | None = None, blocked_by: Iterable[str] = ()
    ) -> None:
        """Keep the message, the measures as in an `Outcome`, and the rules that must be healthy first."""
        super().__init__(sentence)
        self.measures = measures or {}
        self.blocked_by = frozenset(blocked_by)


class Repairer(Protocol):
    """Repairs findings, with `--doctor-fix`."""

    def repair(
        self, rule: Rule, subject: Subject, findings: tuple[Finding, ...], later: Iterable[SubjectFindings] = ()
    ) -> RepairResult:
        """Repair the findings, and those of `later` too if that is cheaper; raises `RepairNotPossible`."""

    def record_result(self, rule: Rule, subject: Subject, done: RepairResult) -> None:
        """Record a repair of this rule that an item of another rule needed, for `find_result`."""

    def find_result(self, rule: Rule, subject: Subject) -> RepairResult | None:
        """Return what any worker of this session has repaired for this rule within this subject; None if nothing."""


class Planner(Protocol):
    """Estimates repairs, with `--doctor-plan`."""

    def plan(self, rule: Rule, subject: Subject, findings: tuple[Finding, ...]) -> tuple[str, Mapping[str, Number]]:
        """Return why the item would not be repaired, or an empty text, and the measures of its repair."""


class Examiner:
    """Examines the items of one database, and repairs them if there is a repairer."""

    def __init__(
        self,
        database: Database,
        rules: Mapping[str, Rule],
        kinds: Mapping[str, Kind],
        repairer: Repairer | None = None,
        planner: Planner | None = None,
        space: MemoryRoom = MemoryRoom(),  # noqa: B008
    ) -> None:
        """Keep what all items share. `rules` are all rules, with or without items: a repair may require them.

        `space` is the memory limit of a check.
        """
        self.database = database
        self.database.largest = space.value
        self.space = space
        self.rules = rules
        self.kinds = kinds
        self.repairer = repairer
        self.planner = planner
        self.verification: Verification | None = None
        """Verifies the file; None: it is not verified."""
        self.embedder: Embedder | None = None
        self.least_cosine: float | None = None
        self.runs: frozenset[str] = frozenset()  # the chosen ones; empty: all
        self.deep = False
        """Whether deep rules recompute what the plugin itself computed."""
        self.timeout: float | None = None
        """Seconds for the computation of one diagram."""
        self.running: Running | None = None
        """The check whether an experiment is running; None: no experiment is."""
        self.repairable_rules: frozenset[str] | None = None
        """The rules of the items that are run, None: all. Others are not repaired, even if an item requires them."""
        self.later: Callable[[Rule, Subject], Iterable[SubjectFindings]] = lambda *_: ()
        """The next subjects of this process with findings of the same rule, in order."""
        self.settled: set[tuple[str, Subject]] = set()
        self._memo = SharedMemo()

    def look(self, rule: Rule, subject: Subject) -> CheckResult:
        """Run one check; raises `NotApplicable`, and `TooLarge` if it does not fit into memory."""

        def check(db: sqlite3.Connection) -> CheckResult:
            integrity = self.verification.integrity if self.verification else check_file
            context = RuleContext(
                *(db, rule.id, subject, self.kinds, self._memo_of(db), integrity),
                space=self.space,
                embedder=self.embedder,
                least_cosine=self.least_cosine,
                deep=self.deep,
                timeout=self.timeout,
                release=partial(self.database.release, db),
            )
            findings, elsewhere = KeptFindings(), KeptFindings()
            require_subject(context)
            raised: Misbehaved | None = None
            absent = ""
            try:
                with checking(rule, NotApplicable, TooLarge, sqlite3.DatabaseError):
                    found = findings_of(rule, rule.check(context))
                    findings.add(located(db, found, self.runs, elsewhere) if is_of_experiment(rule) else found)
            except Misbehaved as error:
                raised = error
            except NotApplicable as nothing:
                if not findings.kept:
                    raise
                absent = str(nothing)
            except sqlite3.DatabaseError:
                seen[:] = findings.all(context)
                raise
            return CheckResult(findings.all(context), context.looked_at, raised, absent, elsewhere.all(context))

        seen: list[Finding] = []
        try:
            return self.database.read(check)
        except sqlite3.DatabaseError as error:
            if is_too_big(error):
                raise self.database.read(lambda db: name_too_large(db, self.space, subject.experiment)) from error
            return self._unreadable(rule, subject, error, seen)

    def _memo_of(self, db: sqlite3.Connection) -> dict[object, object]:
        """Return the cache of this state of the database."""
        return {} if self.verification and self.verification.has_damage else self._memo.of(db)

    def _unreadable(
        self, rule: Rule, subject: Subject, error: sqlite3.DatabaseError, seen: list[Finding]
    ) -> CheckResult:
        """Make the result of a check that SQLite ended with an error; `seen` are its findings until then."""
        name = getattr(error, "sqlite_errorname", "")
        lacking = self.rules.get("schema") is not rule and self.database.read(
            lambda db: is_missing_in_file(db, str(error))
        )
        if lacking and not seen:
            raise NotApplicable(f"{error} (see schema)") from error
        absent = "" if lacking else self.database.read(lambda db: describe_missing_feature(db, error))
        if lacking or not (absent or name.startswith(UNREADABLE)):
            try:
                with checking(rule):
                    raise error
            except Misbehaved as raised:
                return CheckResult(tuple(seen), raised=raised)
        hint = REMOVE if absent else advice_for(rule.id, name)
        message = f"SQLite cannot read what this rule looks at: {absent or error} ({hint})"
        found = Finding(rule.id, message, subject.experiment, subject.run, subject.embedding_model, count=1)
        return CheckResult((*seen, found))

    def examine(self, rule: Rule, subject: Subject) -> Outcome:
        """Examine one item. If the file is damaged where it was read, that is its only result."""
        if self.verification is None:
            return self._examine(rule, subject)
        doubt = self.verification.before_item()
        try:
            outcome = Outcome("failed") if doubt else self._examine(rule, subject)
        except Exception:
            # Values of a damaged file may cause any error, so the damage is reported instead.
            if not (doubt := self.verification.after_item()):
                raise
            return Outcome("failed", note=doubt)
        doubt = doubt or self.verification.after_item()
        return Outcome("failed", note=doubt) if doubt else outcome

    def _examine(self, rule: Rule, subject: Subject) -> Outcome:
        """Examine one item and, with a repairer, repair it.

        The rules that it requires are repaired first, in any order of items: every order and every number of workers
        ends in the same state with the same outcomes.
        """
        try:
            if self.repairer:
                self._repair_prerequisites(rule, subject)
            look = self.look(rule, subject)
        except (NotApplicable, NotExaminable) as why:
            skipped = isinstance(why, NotApplicable)
            return Outcome("skipped", note=str(why)) if skipped else Outcome("failed", note=f"not examined: {why}")
        except TooLarge as large:
            ids = (large.id,) if large.id else ()
            parts = (subject.experiment, subject.run, subject.embedding_model)
            finding = Finding(rule.id, f"not examined: {large}", *parts, large.table, ids, 1)
            return Outcome("failed", (finding,), note="not repaired: what was not examined is not changed")
        warnings = tuple(finding.sentence for finding in look.findings if finding.warning)
        if look.raised:
            outcome = unfinished_outcome(look, look.raised)
        elif look.wrong and (to_come := self.to_come(rule, subject, look.wrong)):
            outcome = Outcome("skipped", note=to_come)
        elif look.wrong:
            outcome = self._repair(rule, subject, look.wrong)
        else:
            outcome = self._unharmed(rule, subject, look)
        if look.elsewhere:
            note = join_notes(outcome.note, others_note(look.elsewhere) if outcome.status != "failed" else "")
            outcome = replace(outcome, accepted=look.elsewhere, accepted_by="run", note=note)
        if not warnings and outcome.rows:
            return outcome
        return replace(outcome, warnings=warnings, rows=outcome.rows or look.rows)

    def to_come(self, rule: Rule, subject: Subject, findings: tuple[Finding, ...]) -> str:
        """Explain why missing rows are not damage: the experiment is running. Empty if it is not."""
        running = self.running
        return self.database.read(lambda db: running.to_come(db, rule, subject.experiment, findings)) if running else ""

    def _unharmed(self, rule: Rule, subject: Subject, look: CheckResult) -> Outcome:
        """Make the outcome of an item without findings; it passes only if something was examined."""
        earlier = self.repairer.find_result(rule, subject) if self.repairer else None
        if earlier:
            return Outcome("fixed", earlier.findings, earlier.note, measures=earlier.measures)
        uncounted = UNCOUNTED if rule.source == BUILT_IN and not look.rows else ""
        reason = look.nothing or uncounted
        return Outcome("skipped", note=reason) if reason else Outcome("passed", rows=look.rows)

    def _repair_prerequisites(self, rule: Rule, subject: Subject) -> None:
        for name in rule.requires:
            first = self.rules[name]
            if (name, subject) in self.settled or self.left_out(name):
                continue
            try:
                look = self.look(first, subject)
                if look.raised:
                    continue
                if look.findings and self.repairer and first.repair:
                    done = self._repaired(self.repairer, first, subject, look.findings)
                    self.repairer.record_result(first, subject, replace(done, findings=look.findings))
            except (NotApplicable, NotExaminable, RepairNotPossible, Misbehaved, TooLarge):
                # The required rule has items of its own that report this. This item checks for itself what it needs.
                continue
            self.settled.add((name, subject))

    def _repaired(
        self, repairer: Repairer, rule: Rule, subject: Subject, findings: tuple[Finding, ...]
    ) -> RepairResult:
        """Repair findings; if the user chose runs, outputs are embedded run by run, since the hook gets a subject."""
        if not self.runs or rule.repair is not RepairKind.EMBED or subject.run:
            return repairer.repair(rule, subject, findings, self.later(rule, subject))
        runs = [run for run in runs_of_findings(findings) if run in self.runs]
        return RepairResult("; ".join(repairer.repair(rule, replace(subject, run=run), findings).note for run in runs))

    def left_out(self, name: str) -> bool:
        """Whether a rule has no item in this session, so that it must not be repaired."""
        return self.repairable_rules is not None and name not in self.repairable_rules

    def _repair(self, rule: Rule, subject: Subject, findings: tuple[Finding, ...]) -> Outcome:
        """Make the outcome of an item with findings; an exception during the repair does not lose them."""
        what = "planning the repair" if self.planner else "the repair"
        try:
            with calling(what, TooLarge, bug=True):
                return self._run_repairer(rule, subject, findings)
        except TooLarge as large:
            return Outcome("failed", findings, f"not repaired: {large}")
        except Misbehaved as raised:
            return Outcome("failed", findings, f"not repaired: {raised}", trace=raised.trace, bug=raised.bug)

    def _run_repairer(self, rule: Rule, subject: Subject, findings: tuple[Finding, ...]) -> Outcome:
        if self.planner and self.verification and (refusal := self.verification.refusal):
            return Outcome("failed", findings, f"not planned: {refusal}")
        if self.planner:
            note, measures = self.planner.plan(rule, subject, findings)
            return Outcome("failed", findings, note, measures=measures, planned=not note)
        if self.repairer is None:
            return Outcome("failed", findings)
        if rule.repair is None:
            remedy = remedy_of(rule, findings)
            return Outcome("failed", findings, note=f"nothing repairs this: {remedy}" if remedy else "")
        try:
            repaired = self._repaired(self.repairer, rule, subject, findings)
            left = self.look(rule, subject)
        except RepairNotPossible as failure:
            note = f"not repaired: {failure}"
            blocking = [name for name in rule.requires if name in failure.blocked_by]
            if left_out := list(filter(self.left_out, blocking)):
                which = "that rule" if len(left_out) == 1 else "those rules"
                note += f"; blocked by {' and '.join(left_out)}: run {which} too"
            return Outcome("failed", findings, note=note, measures=failure.measures)
        except NotApplicable:
            return Outcome("fixed", findings, repaired.note, measures=repaired.measures)
        if left.raised:
            return replace(
                unfinished_outcome(left, left.raised), note=f"checked again after the repair ({repaired.note})"
            )
        if left.wrong:
            note = f"still sick after the repair ({repaired.note})"
            return Outcome("failed", left.wrong, note=note, measures=repaired.measures, rows=left.rows)
        return Outcome("fixed", findings, repaired.note, measures=repaired.measures, rows=left.rows)


def unfinished_outcome(look: CheckResult, raised: Misbehaved) -> Outcome:
    """Make the outcome of an item whose check ended early: failed with its findings, not repaired."""
    return Outcome("failed", look.wrong, error=str(raised), trace=raised.trace, bug=raised.bug, rows=look.rows)
