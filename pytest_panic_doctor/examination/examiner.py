"""Examine one item: check, repair, check again, `Outcome`. Does not import pytest."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import TYPE_CHECKING, Protocol

from pytest_panic_doctor.database.connection import Unreadable
from pytest_panic_doctor.database.memory_room import TooLarge
from pytest_panic_doctor.database.subject import Subject
from pytest_panic_doctor.examination.check import Checker, CheckResult
from pytest_panic_doctor.examination.foreign_code import Misbehaved, calling
from pytest_panic_doctor.examination.manifest import Entry, name_of
from pytest_panic_doctor.examination.outcome import Number, Outcome
from pytest_panic_doctor.examination.run_selection import others_note, runs_of_findings
from pytest_panic_doctor.formatting import join_notes
from pytest_panic_doctor.rules.base import (
    BUILT_IN,
    Finding,
    NotApplicable,
    NotExaminable,
    RepairKind,
    Rule,
    remedy_of,
)

if TYPE_CHECKING:
    from pytest_panic_doctor.examination.acceptance import AcceptancePolicy
    from pytest_panic_doctor.examination.running_experiments import Running

UNCOUNTED = "the rule does not say how many rows it looked at, so nothing is known"

FARTHEST = 64
"""Maximum number of items of the same rule that are examined ahead."""

IN_VAIN = 3
"""The search ends after so many items in a row without this repair."""


@dataclass(frozen=True, slots=True)
class RepairResult:
    """The result of a repair: a note, its measures and, if another item needed it, what it repaired."""

    note: str
    measures: Mapping[str, Number] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()


SubjectFindings = tuple[Subject, tuple[Finding, ...]]
"""A subject and the findings of a rule there."""


def nothing_later(_rule: Rule, _subject: Subject) -> Iterable[SubjectFindings]:
    """Return no subject: each is repaired alone."""
    return ()


@dataclass(slots=True)
class RunState:
    """What changes during the session of one process.

    Attributes:
        collected: The names of the items that are run; None until pytest has collected them.
        repairable_rules: The rules of these items; None: all. Others are not repaired, even if an item requires them.
        later: Returns the next subjects of this process with findings of the same rule, in order.
        cluster: The description of the Ray cluster that computes; empty if this machine computes.
        cores: The cores of the cluster; 0 if there is none.
    """

    collected: frozenset[str] | None = None
    repairable_rules: frozenset[str] | None = None
    later: Callable[[Rule, Subject], Iterable[SubjectFindings]] = nothing_later
    cluster: str = ""
    cores: int = 0


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


Planner = Callable[[Rule, Subject, tuple[Finding, ...]], tuple[str, Mapping[str, Number]]]
"""Returns why `--doctor-fix` would not repair an item, or an empty text, and the measures of its repair."""


@dataclass(eq=False, kw_only=True)
class Examiner(Checker):
    """Examines the items of one database, and repairs them if there is a repairer.

    Attributes:
        repairer: Repairs findings; None: they are reported.
        planner: Estimates repairs instead of making them.
        running: The check whether an experiment is running; None: no experiment is.
        acceptance: The project's own choices; None: every finding fails its item.
        state: What changes during the session.
        prerequisites_done: The rules that were repaired, or found healthy, for a subject.
    """

    repairer: Repairer | None = None
    planner: Planner | None = None
    running: Running | None = None
    acceptance: AcceptancePolicy | None = None
    state: RunState = field(default_factory=RunState)
    prerequisites_done: set[tuple[str, Subject]] = field(default_factory=set, init=False)

    def examine(self, rule: Rule, subject: Subject) -> Outcome:
        """Examine one item: what it found, what was repaired, and what the project accepts."""
        outcome = self._examine_verified(rule, subject)
        return self.acceptance.apply(rule.id, name_of(rule, subject), outcome) if self.acceptance else outcome

    def _examine_verified(self, rule: Rule, subject: Subject) -> Outcome:
        """Examine one item. If the file is damaged where it was read, that is its only result."""
        verification = self.options.verification
        if verification is None:
            return self._examine(rule, subject)
        doubt = verification.before_item()
        try:
            outcome = Outcome("failed") if doubt else self._examine(rule, subject)
        except Exception:
            # Values of a damaged file may cause any error, so the damage is reported instead.
            if not (doubt := verification.after_item()):
                raise
            return Outcome("failed", note=doubt)
        doubt = doubt or verification.after_item()
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
            if (name, subject) in self.prerequisites_done or self.left_out(name):
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
            self.prerequisites_done.add((name, subject))

    def _repaired(
        self, repairer: Repairer, rule: Rule, subject: Subject, findings: tuple[Finding, ...]
    ) -> RepairResult:
        """Repair findings; if the user chose runs, outputs are embedded run by run, since the hook gets a subject."""
        if not self.options.runs or rule.repair is not RepairKind.EMBED or subject.run:
            return repairer.repair(rule, subject, findings, self.state.later(rule, subject))
        runs = [run for run in runs_of_findings(findings) if run in self.options.runs]
        return RepairResult("; ".join(repairer.repair(rule, replace(subject, run=run), findings).note for run in runs))

    def left_out(self, name: str) -> bool:
        """Whether a rule has no item in this session, so that it must not be repaired."""
        return self.state.repairable_rules is not None and name not in self.state.repairable_rules

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
        if self.planner:
            if self.options.verification and (refusal := self.options.verification.refusal):
                return Outcome("failed", findings, f"not planned: {refusal}")
            note, measures = self.planner(rule, subject, findings)
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


class Lookahead:
    """Finds the next items of a process that need the same repair, so that they are repaired with the first one.

    Only subjects that their item would repair at once count: the rules it requires find nothing, so that the cloud is
    complete and no embedding has to be repaired first.
    """

    def __init__(self, examiner: Examiner, entries: Iterable[Entry], in_time: Callable[[], bool]) -> None:
        """Keep the items.

        Args:
            examiner: Runs the checks.
            entries: The items that are run, in order.
            in_time: Whether a further item may be started.
        """
        self._examiner = examiner
        self._in_time = in_time
        self._places: dict[str, dict[Subject, int]] = {
            rule.id: {} for rule in examiner.rules.values() if rule.repair is RepairKind.COMPUTE and not rule.deep
        }
        for entry in entries:
            if entry.rule in self._places:
                places = self._places[entry.rule]
                places.setdefault(entry.subject, len(places))
        self._subjects: Mapping[str, list[Subject]] = {rule: list(places) for rule, places in self._places.items()}

    def __call__(self, rule: Rule, subject: Subject) -> Iterator[SubjectFindings]:
        """Yield the next subjects of a rule that can be repaired now, each with its findings."""
        place = self._places.get(rule.id, {}).get(subject)
        if place is None:
            return
        in_vain = 0
        for each in islice(self._subjects[rule.id], place + 1, place + 1 + FARTHEST):
            if in_vain == IN_VAIN or not self._in_time():
                return
            findings = self._findings(rule, each)
            in_vain = 0 if findings else in_vain + 1
            if findings:
                yield each, findings

    def _findings(self, rule: Rule, subject: Subject) -> tuple[Finding, ...]:
        """Return the findings that are repaired at once; empty if something else has to be done first."""
        examiner = self._examiner
        try:
            if not all(self._healthy(name, subject) for name in rule.requires):
                return ()
            look = examiner.look(rule, subject)
            if look.raised or (look.wrong and examiner.to_come(rule, subject, look.wrong)):
                return ()
        except (NotApplicable, TooLarge, Misbehaved, Unreadable):
            return ()
        return look.wrong

    def _healthy(self, name: str, subject: Subject) -> bool:
        """Whether a required rule finds nothing, or is not asked."""
        examiner = self._examiner
        if (name, subject) in examiner.prerequisites_done or examiner.left_out(name):
            return True
        try:
            look = examiner.look(examiner.rules[name], subject)
        except NotApplicable:
            return True
        if look.findings or look.raised:
            return False
        examiner.prerequisites_done.add((name, subject))
        return True
