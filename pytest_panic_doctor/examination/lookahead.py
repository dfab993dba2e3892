"""What the next items of this process will find sick by the same rule, so that it can be repaired with the first.

Only what an item would repair at once is told ahead of it: the rules before its own find nothing, so that its cloud is
whole and no embedding is repaired on the way. Knows no pytest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice

from pytest_panic_doctor.database.connection import Unreadable
from pytest_panic_doctor.database.room import TooLarge
from pytest_panic_doctor.database.subject import Subject
from pytest_panic_doctor.examination.examiner import Examiner, SubjectFindings
from pytest_panic_doctor.examination.foreign_code import Misbehaved
from pytest_panic_doctor.examination.manifest import Entry
from pytest_panic_doctor.rules.base import Finding, NotApplicable, RepairKind, Rule

FARTHEST = 64
"""Items of the same rule that are looked at ahead of their turn, at most."""

IN_VAIN = 3
"""After so many in a row that need nothing, or not this, no further one is looked at."""


class Lookahead:
    """The items of one process, by the rules that compute diagrams."""

    def __init__(self, examiner: Examiner, entries: Iterable[Entry], in_time: Callable[[], bool]) -> None:
        """`entries` are the items that are run, in their order; `in_time` says whether a further one is begun."""
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
        """The subjects of the next items of `rule` that are sick and can be repaired now, each with its findings."""
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
        """What the rule finds that is repaired at once; nothing where something else has to be done or said first."""
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
        """Whether a rule that comes first finds nothing, or is not to be asked."""
        examiner = self._examiner
        if (name, subject) in examiner.settled or examiner.left_out(name):
            return True
        try:
            look = examiner.look(examiner.rules[name], subject)
        except NotApplicable:
            return True
        if look.findings or look.raised:
            return False
        examiner.settled.add((name, subject))
        return True
