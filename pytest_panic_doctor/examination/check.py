"""Runs the check of one rule on one subject: what it found, what it examined, and what it raised."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from pytest_panic_doctor.database.connection import Database, SharedMemo
from pytest_panic_doctor.database.generations import is_missing_in_file
from pytest_panic_doctor.database.integrity import REMOVE, advice_for, check_file, describe_missing_feature
from pytest_panic_doctor.database.memory_room import MemoryRoom, TooLarge, is_too_big, name_too_large
from pytest_panic_doctor.database.schema import NOUNS
from pytest_panic_doctor.database.subject import Subject
from pytest_panic_doctor.examination.foreign_code import Misbehaved, checking, findings_of
from pytest_panic_doctor.examination.outcome import Counts
from pytest_panic_doctor.examination.run_selection import is_of_experiment, located
from pytest_panic_doctor.formatting import plural
from pytest_panic_doctor.rules.base import (
    IDS_KEPT,
    Finding,
    Kind,
    NotApplicable,
    NotExaminable,
    Rule,
    RuleContext,
)

if TYPE_CHECKING:
    from pytest_panic_doctor.database.verification import Verification
    from pytest_panic_doctor.rules.embedder import Embedder

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
class CheckOptions:
    """What all checks of a session share.

    Attributes:
        space: The memory limit of a check.
        runs: The runs that the user chose; empty: all.
        deep: Whether deep rules recompute what the plugin itself computed.
        timeout: Seconds for the computation of one diagram; None for no limit.
        embedder: The embedding hooks; None if there are none.
        least_cosine: Minimum cosine between a hook's vector and the stored one, as in `RuleContext`.
        verification: Verifies the file; None: it is not verified.
    """

    space: MemoryRoom = field(default_factory=MemoryRoom)
    runs: frozenset[str] = frozenset()
    deep: bool = False
    timeout: float | None = None
    embedder: Embedder | None = None
    least_cosine: float | None = None
    verification: Verification | None = None


@dataclass(eq=False)
class Checker:
    """Runs checks on one database.

    Attributes:
        database: The database.
        rules: All rules, with or without items: a repair may require them.
        kinds: What each embedding model embeds.
        options: The options of all checks.
    """

    database: Database
    rules: Mapping[str, Rule]
    kinds: Mapping[str, Kind]
    options: CheckOptions = field(default_factory=CheckOptions)
    _memo: SharedMemo = field(default_factory=SharedMemo, init=False)

    def __post_init__(self) -> None:
        """Let the database refuse values that do not fit into the memory."""
        self.database.largest = self.options.space.value

    def look(self, rule: Rule, subject: Subject) -> CheckResult:
        """Run one check; raises `NotApplicable`, and `TooLarge` if it does not fit into memory."""

        def check(db: sqlite3.Connection) -> CheckResult:
            context = RuleContext(
                *(db, rule.id, subject, self.kinds, self._memo_of(db)),
                integrity=given.verification.integrity if given.verification else check_file,
                space=given.space,
                embedder=given.embedder,
                least_cosine=given.least_cosine,
                deep=given.deep,
                timeout=given.timeout,
                release=partial(self.database.release, db),
            )
            findings, elsewhere = KeptFindings(), KeptFindings()
            require_subject(context)
            raised: Misbehaved | None = None
            absent = ""
            try:
                with checking(rule, NotApplicable, TooLarge, sqlite3.DatabaseError):
                    found = findings_of(rule, rule.check(context))
                    findings.add(located(db, found, given.runs, elsewhere.add) if is_of_experiment(rule) else found)
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

        given = self.options
        seen: list[Finding] = []
        try:
            return self.database.read(check)
        except sqlite3.DatabaseError as error:
            if is_too_big(error):
                raise self.database.read(lambda db: name_too_large(db, given.space, subject.experiment)) from error
            return self._unreadable(rule, subject, error, seen)

    def _memo_of(self, db: sqlite3.Connection) -> dict[object, object]:
        """Return the cache of this state of the database."""
        verification = self.options.verification
        return {} if verification and verification.has_damage else self._memo.of(db)

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


class KeptFindings:
    """The findings of one check: the first 10,000 by name, the others by number."""

    def __init__(self) -> None:
        """Start without findings."""
        self.kept: list[Finding] = []
        self.findings = self.rows = 0

    def add(self, found: Iterable[Finding]) -> None:
        """Add findings one by one."""
        for finding in found:
            if len(self.kept) < IDS_KEPT or finding.warning:
                self.kept.append(finding)
            else:
                self.findings += 1
                self.rows += finding.count

    def all(self, context: RuleContext) -> tuple[Finding, ...]:
        """Return the kept findings, and one more for the rest."""
        if self.findings:
            text = f"{plural(self.findings, 'more finding')}, of which none is named (at most {IDS_KEPT:,} are)"
            return (*self.kept, context.finding(text, count=self.rows))
        return tuple(self.kept)


def require_subject(context: RuleContext) -> None:
    """Check that the subject's experiment and run can be found by their ids.

    An id that is not UTF-8 changes when it is read. No row would be found by it, and every rule would pass.

    Raises:
        NotExaminable: One of them cannot be found.
    """
    for noun, table, row_id in (
        ("experiment", "experimentconfig", context.subject.experiment),
        ("run", "run", context.subject.run),
    ):
        if row_id is None or (table, row_id) in context.memo:
            continue
        if context.db.execute(f"SELECT 1 FROM {table} WHERE id = ?", (row_id,)).fetchone():
            context.memo[table, row_id] = True
            continue
        if "\\x" in row_id:
            why = f"the id of the {noun} is not UTF-8, so that its rows cannot be queried (see id-format)"
            raise NotExaminable(why)
        raise NotExaminable(f"the {noun} was deleted after the examination began: run again")
