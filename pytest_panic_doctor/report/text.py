"""Messages for people."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_panic_doctor.database.clouds import MODEL_TYPE_KEY
from pytest_panic_doctor.database.integrity import ABSENT
from pytest_panic_doctor.database.schema import NOUNS
from pytest_panic_doctor.database.spelling import dashed
from pytest_panic_doctor.examination.manifest import item_name, rule_of
from pytest_panic_doctor.examination.options import selection_again
from pytest_panic_doctor.formatting import plural, printable, typed
from pytest_panic_doctor.report.command_line import invoked_command
from pytest_panic_doctor.rules.base import Finding, RepairKind, remedy_of

if TYPE_CHECKING:
    from pytest_panic_doctor.examination.examination import Examination
    from pytest_panic_doctor.examination.outcome import Outcome
    from pytest_panic_doctor.examination.settings import Settings
    from pytest_panic_doctor.rules.base import Rule

FINDINGS_SHOWN = 20
IDS_SHOWN = 20
RUNS_SHOWN = 5
LABEL_WIDTH = 48


def failure(outcome: Outcome, rule: Rule, examination: Examination, *, traces: bool = False) -> str:
    """Make the text of a failed item: its findings, worst first, the result of a repair, and the next command.

    Args:
        outcome: The outcome of the item.
        rule: Its rule.
        examination: The session.
        traces: Whether to show the traceback of foreign code; that of a bug of this package is always shown.
    """
    worst = sorted(outcome.findings, key=lambda finding: -finding.count)
    lines: list[str] = []
    for finding in worst[:FINDINGS_SHOWN]:
        lines += [finding.sentence, *subject_lines(finding, examination), *row_lines(finding, examination)]
    if len(worst) > FINDINGS_SHOWN:
        lines.append(
            f"… and {plural(len(worst) - FINDINGS_SHOWN, 'more finding')} (showing {FINDINGS_SHOWN} of {len(worst):,})"
        )
    lines += [outcome.note] if outcome.note else []
    if outcome.error:
        lines.append(f"not examined to the end: {outcome.error}")
    lines = [printable(line) for line in lines]
    if outcome.trace:
        lines.append(outcome.trace if traces or outcome.bug else "(-vv shows the traceback)")
    if outcome.note or outcome.error:
        return "\n".join(lines)
    if examination.verification.damaged and rule.repair is not None:
        lines.append(examination.verification.refusal)
    elif not examination.settings.fix:
        lines.append(next_step(rule, examination, [outcome.findings]))
    return "\n".join(lines)


def repaired(outcome: Outcome) -> str:
    """Make the text of a fixed item for reports that only have passed and failed: the findings and the repair."""
    found = [finding.sentence for finding in outcome.findings[:FINDINGS_SHOWN]]
    if len(outcome.findings) > FINDINGS_SHOWN:
        found.append(f"… and {plural(len(outcome.findings) - FINDINGS_SHOWN, 'more finding')}")
    return "\n".join(map(printable, [*found, outcome.note]))


def subject_lines(finding: Finding, examination: Examination) -> Iterator[str]:
    """Yield the run and the experiment of a finding, by id and label."""
    for noun, stored in (("run", finding.run), ("experiment", finding.experiment)):
        if stored:
            label = examination.labels.get(stored, "")
            yield f"  {noun:<10} {dashed(stored)}  {label}".rstrip()
    for run, count in list(finding.runs.items())[:RUNS_SHOWN]:
        yield f"  {'run':<10} {dashed(run)}  {examination.labels.get(run, '')} ({plural(count, 'row')})"
    if len(finding.runs) > RUNS_SHOWN:
        yield f"  … and {plural(len(finding.runs) - RUNS_SHOWN, 'more run')}"


def row_lines(finding: Finding, examination: Examination) -> Iterator[str]:
    """Yield the rows of a finding: at most 20, two in a line, with the exact count."""
    if not finding.table or not finding.ids or finding.ids == (finding.run,) or finding.ids == (finding.experiment,):
        return
    shown = finding.ids[:IDS_SHOWN]
    more = f" (showing {len(shown)} of {finding.count:,})" if finding.count > len(shown) else ""
    yield f"  {examination.described.real_name(finding.table)}{more}"
    for start in range(0, len(shown), 2):
        yield f"    {'  '.join(shown[start : start + 2])}"


def is_unrepairable(rule: Rule, examination: Examination, findings: Sequence[Finding]) -> bool:
    """Whether --doctor-fix cannot repair an item with these findings."""
    no_hook = rule.repair is RepairKind.EMBED and not examination.embeds
    excluded = bool(findings) and all(each.not_repaired for each in findings)
    nothing = rule.repair is None or not examination.repairable
    return nothing or no_hook or excluded or bool(blocked_by(rule, findings))


def blocked_by(rule: Rule, findings: Sequence[Finding]) -> list[str]:
    """List what must be corrected before an item can be repaired: rules in the order of `requires`, or an ini key."""
    named = {name for each in findings for name in each.blocked_by}
    return [name for name in (MODEL_TYPE_KEY, *rule.requires) if name in named]


def next_step(rule: Rule, examination: Examination, items: Sequence[Sequence[Finding]]) -> str:
    """Describe what to do about a sick rule.

    Args:
        rule: The rule.
        examination: The session.
        items: The findings of each failed item of the rule.

    Returns:
        One clause for a person.
    """
    found = [each for findings in items for each in findings]
    if any(ABSENT in each.message for each in found):
        return "nothing repairs this until that is removed"
    if rule.repair is None:
        remedy = remedy_of(rule, found)
        return f"nothing repairs this: {remedy}" if remedy else "nothing repairs this"
    if not examination.repairable:
        return f"not repaired: this doctor only examines a database of {examination.origin.split(',')[0]}"
    if rule.repair is RepairKind.EMBED and not examination.embeds:
        return "repaired by --doctor-fix where a conftest.py provides an embedding hook (pytest_doctor_embed)"
    if items and all(is_unrepairable(rule, examination, each) for each in items):
        first = blocked_by(rule, found)
        if MODEL_TYPE_KEY in first:
            return f"blocked: say in {MODEL_TYPE_KEY} or doctor_image_models what the model embeds"
        if not first:
            return "nothing repairs this until what the findings name is corrected"
        return f"blocked by {' and '.join(first)}: repair {'that' if len(first) == 1 else 'those'} first"
    return f"next: {rerun_command(examination, next_option(examination).split()[0], rules=(rule.id,))}"


def next_option(examination: Examination) -> str:
    """Return the option of the next command: after an examination the plan, after a plan the repair."""
    if not examination.settings.plan:
        return "--doctor-plan"
    return "--doctor-fix -n 2" if examination.distributes else "--doctor-fix"


NOT_COUNTED = "rows not counted"


def looked_at(rows: Mapping[str, int]) -> str:
    """Describe what an item examined, e.g. `24 invocations, 2 runs`."""
    return ", ".join(plural(count, NOUNS.get(table, table)) for table, count in rows.items()) or NOT_COUNTED


def command(settings: Settings, *options: str, program: str = "") -> str:
    """Make a command line for the same database with other options; `program` is how pytest was called."""
    base = f"--doctor-db {shown_path(settings)}"
    return " ".join((program or invoked_command(), base, *options))


def rerun_command(examination: Examination, *options: str, rules: Sequence[str] | None = None) -> str:
    """Make a command line for the same items, or those of `rules`, with other options."""
    settings = examination.settings if rules is None else replace(examination.settings, rules=tuple(rules))
    chosen = (*selection_again(settings), *chosen_words(examination, rules))
    return command(settings, *options, *chosen, program=examination.program)


def chosen_words(examination: Examination, rules: Sequence[str] | None) -> Iterator[str]:
    """Yield the user's selection by pytest's own options; if `rules` are given, only node ids of these rules."""
    words = iter(examination.chosen_by)
    for word in words:
        if word in ("-k", "-m", "--deselect"):
            yield word
            yield next(words)
        elif rules is None or "::" not in word or "--deselect=" in word or rule_of(item_name(word.strip("'"))) in rules:
            yield word


def shown_path(settings: Settings) -> str:
    """Return the database's path, relative if it is in the current folder."""
    return display_path(settings.database)


def display_path(path: Path) -> str:
    """Return a path as it is typed in the current folder."""
    relative = os.path.relpath(path)
    shown = min(relative, str(path), key=len)
    return typed(f"./{shown}" if shown.startswith("-") else shown)
