"""What changes while a session runs; everything else about it is fixed when it begins."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from pytest_panic_doctor.database.subject import Subject
from pytest_panic_doctor.rules.base import Finding, Rule

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
