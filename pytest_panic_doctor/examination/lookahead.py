"""Find subjects ahead that need the same repair, so that they can be repaired with the first one.

Only subjects that their item would repair at once count: the rules it requires find nothing, so that the cloud is
complete and no embedding has to be repaired first. Does not import pytest.
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
"""Maximum number of items of the same rule that are examined ahead."""

IN_VAIN = 3
"""The search ends after so many items in a row without this repair."""


class Lookahead:
    """The items of one process, by the rules that compute diagrams."""

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
