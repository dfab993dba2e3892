"""Findings as text: those of one item, and those of a session by rule, the same message once."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_panic_doctor.database.spelling import dashed
from pytest_panic_doctor.examination.outcome import Result
from pytest_panic_doctor.formatting import plural, printable, shorten
from pytest_panic_doctor.report import text
from pytest_panic_doctor.report.remaining_work import next_step
from pytest_panic_doctor.report.results import Results

if TYPE_CHECKING:
    from pytest_panic_doctor.examination.examination import Examination
    from pytest_panic_doctor.examination.outcome import Outcome
    from pytest_panic_doctor.rules.base import Finding, Rule


def failure_text(outcome: Outcome, rule: Rule, examination: Examination, *, traces: bool = False) -> str:
    """Make the text of a failed item: its findings, worst first, the result of a repair, and the next command.

    Args:
        outcome: The outcome of the item.
        rule: Its rule.
        examination: The session.
        traces: Whether to show the traceback of foreign code; that of a bug of this package is always shown.
    """
    worst = sorted(outcome.findings, key=lambda finding: -finding.count)
    lines: list[str] = []
    for finding in worst[: text.FINDINGS_SHOWN]:
        lines += [finding.sentence, *subject_lines(finding, examination), *row_lines(finding, examination)]
    if len(worst) > text.FINDINGS_SHOWN:
        more = plural(len(worst) - text.FINDINGS_SHOWN, "more finding")
        lines.append(f"… and {more} (showing {text.FINDINGS_SHOWN} of {len(worst):,})")
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


def repaired_text(outcome: Outcome) -> str:
    """Make the text of a fixed item for reports that only have passed and failed: the findings and the repair."""
    found = [finding.sentence for finding in outcome.findings[: text.FINDINGS_SHOWN]]
    if len(outcome.findings) > text.FINDINGS_SHOWN:
        found.append(f"… and {plural(len(outcome.findings) - text.FINDINGS_SHOWN, 'more finding')}")
    return "\n".join(map(printable, [*found, outcome.note]))


def subject_lines(finding: Finding, examination: Examination) -> Iterator[str]:
    """Yield the run and the experiment of a finding, by id and label."""
    for noun, stored in (("run", finding.run), ("experiment", finding.experiment)):
        if stored:
            label = examination.labels.get(stored, "")
            yield f"  {noun:<10} {dashed(stored)}  {label}".rstrip()
    for run, count in list(finding.runs.items())[: text.RUNS_SHOWN]:
        yield f"  {'run':<10} {dashed(run)}  {examination.labels.get(run, '')} ({plural(count, 'row')})"
    if len(finding.runs) > text.RUNS_SHOWN:
        yield f"  … and {plural(len(finding.runs) - text.RUNS_SHOWN, 'more run')}"


def row_lines(finding: Finding, examination: Examination) -> Iterator[str]:
    """Yield the rows of a finding: at most 20, two in a line, with the exact count."""
    if not finding.table or not finding.ids or finding.ids == (finding.run,) or finding.ids == (finding.experiment,):
        return
    shown = finding.ids[: text.IDS_SHOWN]
    more = f" (showing {len(shown)} of {finding.count:,})" if finding.count > len(shown) else ""
    yield f"  {examination.described.real_name(finding.table)}{more}"
    for start in range(0, len(shown), 2):
        yield f"    {'  '.join(shown[start : start + 2])}"


@dataclass(frozen=True, slots=True)
class ShownAmounts:
    """How much is shown: messages of a rule, subjects of a message, and row ids of a finding; None for all."""

    messages: int | None
    subjects: int | None
    ids: int | None


LIMITS = (ShownAmounts(5, 3, 4), ShownAmounts(20, 20, 20), ShownAmounts(None, None, None))
"""The limits without `-v`, with `-v`, and with `-vv`."""


def limits_of(verbosity: int) -> ShownAmounts:
    """Return the limits for a verbosity of pytest."""
    return LIMITS[min(max(verbosity, 0), len(LIMITS) - 1)]


@dataclass(frozen=True, slots=True)
class Line:
    """One line; `heading` if it is part of a finding's sentence."""

    text: str
    heading: bool = False


def wrap(line: str, width: int, indent: str = "  ") -> list[str]:
    """Wrap a line between words; `indent` begins the lines after the first. A word longer than a line stays whole."""
    return textwrap.wrap(
        printable(line), width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )


def failure_lines(examination: Examination, results: Results, width: int, limits: ShownAmounts) -> Iterator[Line]:
    """Yield the findings of all failed items, worst rule first.

    Args:
        examination: The session.
        results: All results.
        width: The number of columns.
        limits: How much is shown.
    """
    for name, items in results.failed_by_rule().items():
        if ended := [item for item in items if item.findings and not item.error]:
            yield from rule_lines(examination, name, ended, width, limits)


def rule_lines(
    examination: Examination, name: str, items: Sequence[Result], width: int, limits: ShownAmounts
) -> Iterator[Line]:
    """Yield the findings of one rule, the largest first, and what has to be done if `--doctor-fix` cannot."""
    groups: dict[tuple[str, str], list[Finding]] = {}
    for item in items:
        for finding in item.findings:
            groups.setdefault((finding.sentence, item.note), []).append(finding)
    ordered = sorted(groups.items(), key=lambda pair: (-sum(each.count for each in pair[1]), pair[0]))
    notes = {note for (_, note), _ in ordered}
    shared = notes.pop() if len(notes) == 1 else ""
    for (sentence, note), findings in ordered[: limits.messages]:
        yield from (Line(line, heading=True) for line in wrap(sentence, width))
        for line in (
            *grouped_subject_lines(examination, findings, width, limits),
            *grouped_row_lines(examination, findings, width, limits),
        ):
            yield Line(line)
        yield from map(Line, wrap(f"  {note}", width, "  ") if note and note != shared else ())
    if left := len(ordered) - len(ordered[: limits.messages]):
        yield Line(f"  … and {plural(left, 'more message')} of {name} (-vv shows all)")
    last = shared or ("" if notes or examination.settings.fix else why_not_repaired(examination, name, items))
    yield from map(Line, wrap(f"  {last}", width, "  ") if last else ())


def why_not_repaired(examination: Examination, name: str, items: Sequence[Result]) -> str:
    """Say why `--doctor-fix` does not repair a rule; empty if it does."""
    rule = examination.rules[name]
    if examination.verification.damaged and rule.repair is not None:
        return examination.verification.refusal
    step = next_step(rule, examination, [item.findings for item in items])
    return "" if step.startswith("next: ") else step


def grouped_subject_lines(
    examination: Examination, findings: Sequence[Finding], width: int, limits: ShownAmounts
) -> Iterator[str]:
    """Yield the runs that findings with one message are about, else their experiments, with prompt and network."""
    runs: dict[str, int] = {}
    for each in findings:
        for run, count in (each.runs or ({each.run: 0} if each.run else {})).items():
            runs[run] = runs.get(run, 0) + count
    several = len(runs) > 1
    for run in list(runs)[: limits.subjects]:
        rows = f" ({plural(runs[run], 'row')})" if several and runs[run] else ""
        yield subject_line("run", run, examination, width, rows)
    if limits.subjects is not None and len(runs) > limits.subjects:
        yield f"  … and {plural(len(runs) - limits.subjects, 'more run')}"
    if not runs:
        experiments = list(dict.fromkeys(each.experiment for each in findings if each.experiment))
        for experiment in experiments[: limits.subjects]:
            yield subject_line("experiment", experiment, examination, width)
        if limits.subjects is not None and len(experiments) > limits.subjects:
            yield f"  … and {plural(len(experiments) - limits.subjects, 'more experiment')}"


def subject_line(noun: str, stored: str, examination: Examination, width: int, rows: str = "") -> str:
    """Make the line of one run or experiment; its label is shortened to the width."""
    begins = f"  {noun} {dashed(stored)}  "
    label = printable(examination.labels.get(stored, ""))
    return (begins + shorten(label, max(12, width - len(begins) - len(rows))) + rows).rstrip()


def grouped_row_lines(
    examination: Examination, findings: Sequence[Finding], width: int, limits: ShownAmounts
) -> Iterator[str]:
    """Yield the rows of findings with one message: the table, the first ids, and the exact count."""
    about = {value for each in findings for value in (each.run, each.experiment)}
    ids = [row for each in findings for row in each.ids if row not in about]
    table = findings[0].table
    if not ids or not table:
        return
    count = sum(each.count for each in findings)
    shown = ids[: limits.ids]
    more = [f"(showing {len(shown)} of {count:,})"] if count > len(shown) else []
    yield from wrap(" ".join(("", "", examination.described.real_name(table), *more, *shown)), width, "    ")
