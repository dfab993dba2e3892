"""Runs one rule on all of its subjects, and finds what is wrong with the rule itself. Does not import pytest."""

from __future__ import annotations

import re
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace

from pytest_panic_doctor.database.schema import NOUNS
from pytest_panic_doctor.examination.check import Checker, CheckResult
from pytest_panic_doctor.examination.examination import Examination
from pytest_panic_doctor.examination.foreign_code import cut, findings_of
from pytest_panic_doctor.examination.manifest import Entry
from pytest_panic_doctor.formatting import format_duration_exact, plural
from pytest_panic_doctor.rules.base import Finding, NotApplicable, NotExaminable, RepairKind, Rule, RuleContext, Scope

LARGE_TABLE = 1_000
"""Rows of a table from which on a full scan for each of several items is slow."""

SLOW_ITEM = 1.0
"""Seconds that an item of a narrow scope may take."""

STATEMENTS = 10
"""Maximum number of different statements whose plan is made."""

WRITES = re.compile(r"readonly database|not authorized|query_only", re.IGNORECASE)
"""What SQLite says if a rule writes."""

VALUE = re.compile(r"'(?:[^']|'')*'|\b\d+\b|x'[0-9a-f]*'")
SCAN = re.compile(r"^SCAN (\S+)(?! USING)")

Count = Callable[[str, float, float], None]
"""Called with what is done, how many items are done, and how many there are."""


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement of a rule and its query plan: lines, each indented by its depth."""

    sql: str
    plan: tuple[str, ...]


@dataclass
class Trial:
    """What one rule does on one database.

    Attributes:
        rule: The rule.
        items: The number of its items.
        skipped: Why items were skipped, and how many of them.
        failed: The number of items in which the rule raised or yielded something that is not a finding.
        found: Each item with findings, and its findings.
        rows: The number of examined rows by table; empty if the rule does not count them.
        seconds: The time of all checks.
        slowest: The seconds and the name of the item that took longest.
        statements: The different statements, values left out.
        problems: What is wrong with the rule, one sentence each, worst first.
    """

    rule: Rule
    items: int = 0
    skipped: dict[str, int] = field(default_factory=dict)
    failed: int = 0
    found: list[tuple[Entry, tuple[Finding, ...]]] = field(default_factory=list)
    rows: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    slowest: tuple[float, str] = (0.0, "")
    statements: list[Statement] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def try_rule(examination: Examination, checker: Checker, rule: Rule, count: Count) -> Trial:
    """Run a rule on all of its subjects, and examine the rule.

    Args:
        examination: A session with this rule alone.
        checker: Runs its checks.
        rule: The rule.
        count: Called before each item.
    """
    trial = Trial(rule)
    statements: dict[str, str] = {}
    entries = list(examination.entries())
    raised: dict[str, int] = {}
    for number, entry in enumerate(entries):
        count("trying the rule, by items", number, len(entries))
        began = time.perf_counter()
        result = run_one(checker, traced_rule(rule, statements), entry, trial)
        seconds = time.perf_counter() - began
        trial.items += 1
        trial.seconds += seconds
        trial.slowest = max(trial.slowest, (seconds, entry.name))
        if result is None:
            continue
        for table, rows in result.rows.items():
            trial.rows[table] = trial.rows.get(table, 0) + rows
        if result.findings and not result.raised:
            trial.found.append((entry, result.findings))
        if result.raised:
            trial.failed += 1
            raised[str(result.raised)] = raised.get(str(result.raised), 0) + 1
    trial.statements = [
        Statement(shape, plan) for shape, sql in statements.items() if (plan := query_plan(checker, sql))
    ]
    trial.problems = list(find_flaws(trial, raised, examination))
    return trial


def run_one(checker: Checker, rule: Rule, entry: Entry, trial: Trial) -> CheckResult | None:
    """Run a rule on one subject; None if it does not apply there."""
    try:
        return checker.look(rule, entry.subject)
    except (NotApplicable, NotExaminable) as why:
        reason = str(why)
    trial.skipped[reason] = trial.skipped.get(reason, 0) + 1
    return None


def traced_rule(rule: Rule, statements: dict[str, str]) -> Rule:
    """Return the rule with a check that records its statements by their text without values, the first complete."""

    def record(sql: str) -> None:
        if len(statements) < STATEMENTS:
            statements.setdefault(" ".join(VALUE.sub("?", sql).split()), sql)

    def check(context: RuleContext) -> Iterator[Finding]:
        context.db.set_trace_callback(record)
        try:
            yield from findings_of(rule, rule.check(context))
        finally:
            context.db.set_trace_callback(None)

    return replace(rule, check=check)


def query_plan(checker: Checker, sql: str) -> tuple[str, ...]:
    """Return SQLite's plan of a statement, as lines; empty if it has none."""

    def look(db: sqlite3.Connection) -> tuple[str, ...]:
        depth = {0: 0}
        lines = []
        for number, parent, _, detail in db.execute(f"EXPLAIN QUERY PLAN {sql}"):
            depth[number] = depth.get(parent, 0) + 1
            lines.append(f"{'  ' * (depth[number] - 1)}{detail}")
        return tuple(lines)

    with suppress(sqlite3.Error):
        return checker.database.read(look)
    return ()


def find_flaws(trial: Trial, raised: dict[str, int], examination: Examination) -> Iterator[str]:
    """Yield what is wrong with a rule, worst first."""
    for sentence, count in raised.items():
        in_items = f" ({plural(count, 'item')})" if count > 1 else ""
        if WRITES.search(sentence):
            yield f"it writes, and a rule only reads{in_items}: {sentence}"
        else:
            yield f"{sentence}{in_items}"
    if not trial.items:
        yield f"it has no item here: the database has no {trial.rule.scope} for it"
    if trial.items and trial.items == sum(trial.skipped.values()):
        yield f"it applies to no item: {next(iter(trial.skipped))}"
    yield from wrong_rows(trial)
    several = trial.rule.scope is not Scope.DATABASE and trial.items > 1
    for table, rows in scanned(trial, examination).items() if several else ():
        yield (
            f"it reads all {plural(rows, NOUNS.get(table, 'row'))} for each of its {trial.items:,} items: begin with "
            "the rows of :experiment or :run, which have an index"
        )
    if several and trial.slowest[0] > SLOW_ITEM:
        yield f"it is slow: {trial.slowest[1]} takes {format_duration_exact(round(trial.slowest[0], 1))}"
    if not trial.rows and trial.items > sum(trial.skipped.values()) and not raised:
        yield (
            "it does not say how many rows it examined: give of=… to finding_for_rows, or call context.examined(…); "
            "it works without"
        )


def wrong_rows(trial: Trial) -> Iterator[str]:
    """Yield what is wrong with the findings."""
    every = [finding for _, findings in trial.found for finding in findings]
    if trial.rule.repair is RepairKind.QUARANTINE and any(each.rows is None for each in every):
        yield "it has a finding without rows, so nothing is quarantined: yield from context.finding_for_rows(…)"
    if empty := next((each for each in every if each.table and not each.ids and not each.count), None):
        yield f"it yields a finding about no row ({cut(empty.message)}): yield nothing if all is well"
    names = {each.message for each in every}
    if len(every) > 1 and len(names) == 1 and not re.search(r"\d", next(iter(names))):
        yield f"its sentence has no number ({cut(next(iter(names)))}): say how many rows, or which value"


def scanned(trial: Trial, examination: Examination) -> dict[str, int]:
    """Return the large tables that a statement reads completely, without an index, and their number of rows."""
    names = {table.lower(): rows for table, rows in examination.rows.items() if rows >= LARGE_TABLE}
    found: dict[str, int] = {}
    for statement in trial.statements:
        for line in statement.plan:
            if match := SCAN.match(line.strip()):
                table = table_of(match[1], statement.sql)
                if table in names:
                    found[table] = names[table]
    return found


def table_of(alias: str, sql: str) -> str:
    """Return the table that an alias of a statement stands for, in lower case."""
    match = re.search(rf"\b(?:FROM|JOIN)\s+(?:main\.)?\"?(\w+)\"?\s+(?:AS\s+)?{re.escape(alias)}\b", sql, re.IGNORECASE)
    return (match[1] if match else alias).lower()
