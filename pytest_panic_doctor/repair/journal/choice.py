"""Decides which repairs an undo, a redo or a list is about: by id, range, session, rule, run and experiment."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from pytest_panic_doctor.database.spelling import normalized_id
from pytest_panic_doctor.repair.journal.errors import RepairRefused
from pytest_panic_doctor.repair.journal.repair_record import Repair

ALL = "all"
SESSION = "session:"
"""What stands before the id of a session whose repairs are taken back."""
IDS = re.compile(r"\d+(-\d+)?(,\d+(-\d+)?)*")
SESSION_PREFIX = 4
"""Minimum number of characters by which a session is named."""
SESSION_SHOWN = 8
"""Number of characters of a session's id that are shown, if they are unique."""


@dataclass(frozen=True, slots=True)
class RepairFilter:
    """The repairs of some rules, runs and experiments; an empty tuple stands for all.

    Attributes:
        rules: The ids of the rules.
        runs: The ids of the runs.
        experiments: The ids of the experiments.
    """

    rules: tuple[str, ...] = ()
    runs: tuple[str, ...] = ()
    experiments: tuple[str, ...] = ()

    @property
    def is_empty(self) -> bool:
        """Whether nothing is left out."""
        return not (self.rules or self.runs or self.experiments)

    def takes(self, repair: Repair) -> bool:
        """Return whether a repair is of these rules, runs and experiments."""
        wanted = ((self.rules, repair.rule), (self.runs, repair.subject.run))
        within = all(not names or value in names for names, value in wanted)
        experiment = normalized_id(repair.subject.experiment or "")
        return within and (not self.experiments or experiment in map(normalized_id, self.experiments))


EVERY = RepairFilter()


def is_group(which: str) -> bool:
    """Return whether a text may name several repairs, so that one with nothing to take back is passed over."""
    return not which.isdecimal()


def numbers(which: str) -> list[range]:
    """Return the ranges of ids that a text such as `7`, `3-9` or `3,7-9` names.

    Raises:
        RepairRefused: A range ends before it begins.
    """
    found = []
    for part in which.split(","):
        first, _, last = part.partition("-")
        found.append(range(int(first), int(last or first) + 1))
        if not found[-1]:
            raise RepairRefused(f"The range {part} ends before it begins: give the smaller id first.")
    return found


def session_named(found: Sequence[Repair], text: str) -> str | None:
    """Return the only session whose id begins with a text; None if there is none.

    Raises:
        RepairRefused: Several do.
    """
    sessions = list(dict.fromkeys(each.session for each in found))
    if text in sessions:
        return text
    near = [each for each in sessions if each.startswith(text)] if len(text) >= SESSION_PREFIX else []
    if len(near) > 1:
        few = ", ".join(near[:3])
        raise RepairRefused(f"{text} begins the ids of {len(near):,} sessions: give more of it ({few}).")
    return near[0] if near else None


def shortest(session: str, sessions: Sequence[str]) -> str:
    """Return the shown part of a session's id: 8 characters, or as many as make it unique."""
    for length in range(SESSION_SHOWN, len(session)):
        if not any(other != session and other.startswith(session[:length]) for other in sessions):
            return session[:length]
    return session


def named(found: Sequence[Repair], which: str, flag: str) -> list[Repair]:
    """Return the repairs that a text names, in their order.

    Args:
        found: All repairs of the journal.
        which: `all`, ids and ranges with commas, or `session:` and the beginning of a session's id.
        flag: The option, for messages.

    Raises:
        RepairRefused: The text names no repair.
    """
    if which == ALL:
        return list(found)
    if which.startswith(SESSION):
        text = which.removeprefix(SESSION)
        session = session_named(found, text)
        if session is None:
            raise RepairRefused(f"There is no session {text} in the journal: --doctor-undo lists them.")
        return [each for each in found if each.session == session]
    if not IDS.fullmatch(which):
        raise RepairRefused(
            f"{flag} {which}: give an id, a range such as 3-9, session:ID or «all»; --doctor-undo alone lists them."
        )
    ranges = numbers(which)
    chosen = [each for each in found if any(each.id in ids for ids in ranges)]
    if not chosen:
        raise RepairRefused(f"There is no repair {which} in the journal: --doctor-undo lists them.")
    return chosen
