"""The Markdown report, for the summary of a CI job: at most 60 lines, however much was found."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_panic_doctor.database.files import atomic_write
from pytest_panic_doctor.formatting import doctor_version, plural, printable, shorten
from pytest_panic_doctor.report.remaining_work import TodoEntry, named_runs, tasks
from pytest_panic_doctor.report.results import VERDICT_ORDER, Results, largest_of, verdict

if TYPE_CHECKING:
    from pytest_panic_doctor.examination.examination import Examination
    from pytest_panic_doctor.examination.outcome import Result

MOST_LINES = 60
"""Maximum number of lines of the report."""
TASKS_SHOWN = 8
RUNS_LISTED = 3
"""Maximum number of runs of a task that are named."""
SENTENCES_SHOWN = 5
"""Maximum number of notes."""
MESSAGE_WIDTH = 160


def write_markdown(path: Path, examination: Examination, results: Results, merged: Sequence[str] = ()) -> None:
    """Write the report atomically.

    Args:
        path: The file.
        examination: The session.
        results: Its results.
        merged: Sentences about merged reports.
    """
    lines = markdown_lines(examination, results, merged)
    with atomic_write(path, like=examination.settings.database) as partial:
        partial.write_text("\n".join(lines) + "\n", encoding="utf-8", errors="replace")


def markdown_lines(examination: Examination, results: Results, merged: Sequence[str] = ()) -> list[str]:
    """Return the lines: the verdict, what is in doubt, what has to be done, and the sick rules, worst first."""
    verdicts, totals = results.verdicts(), results.totals()
    rules = ", ".join(f"{verdicts[name]:,} {name}" for name in VERDICT_ORDER if verdicts[name]) or "no rule"
    items = ", ".join(f"{count:,} {outcome}" for outcome, count in totals.items() if count) or "none"
    lines = [
        f"# {escape(examination.settings.database.name)}: {rules}",
        "",
        f"{plural(sum(totals.values()), 'item')}: {items}. pytest-panic-doctor {escape(doctor_version())}.",
    ]
    notes = [*merged, *results.notes, *unexamined(results), *comparison_lines(results)]
    if notes:
        left = [f"{len(notes) - SENTENCES_SHOWN:,} more notes"] if len(notes) > SENTENCES_SHOWN else []
        lines += ["", *(f"- {shorten(escape(each), 2 * MESSAGE_WIDTH)}" for each in notes[:SENTENCES_SHOWN] + left)]
    if todo := tasks(examination, results.items):
        lines += ["", "## To do", "", *task_lines(examination, todo)]
    lines += finding_lines(examination, results, MOST_LINES - len(lines))
    return lines


def unexamined(results: Results) -> Iterator[str]:
    """Yield a sentence about the rules that were not examined."""
    names = [name for name, outcomes in results.by_rule().items() if verdict(outcomes) == "not examined"]
    if names:
        yield f"not examined: {', '.join(sorted(names))}"


def comparison_lines(results: Results) -> Iterator[str]:
    """Yield a sentence about the baseline."""
    if results.compared is not None:
        healed = sum(map(len, results.compared.healed.values()))
        yield f"baseline: {results.compared.new:,} new, {results.compared.known:,} known, {healed:,} healed"


def task_lines(examination: Examination, todo: Sequence[TodoEntry]) -> Iterator[str]:
    """Yield what has to be done, the first tasks with their command and some runs."""
    for task in todo[:TASKS_SHOWN]:
        command = f": {code(task.command)}" if task.command else ""
        yield f"- {shorten(escape(task.text), 2 * MESSAGE_WIDTH)}{command}"
        for run in named_runs(examination, task.runs, RUNS_LISTED):
            yield f"  - {escape(run)}"
    if len(todo) > TASKS_SHOWN:
        yield f"- … and {len(todo) - TASKS_SHOWN:,} more"


def finding_lines(examination: Examination, results: Results, room: int) -> Iterator[str]:
    """Yield a table of the rules with failed items, worst first, with the largest finding of each.

    Args:
        examination: The session.
        results: All results.
        room: The number of lines that the report has left.
    """
    failed = results.failed_by_rule()
    names = list(failed)
    if not names:
        return
    yield from ("", "## Sick", "", "| rule | items | largest finding | where |", "|---|---|---|---|")
    shown = names if len(names) <= room - 5 else names[: room - 6]
    for name in shown:
        yield rule_row(examination, name, failed[name], results.by_rule()[name].total())
    if len(shown) < len(names):
        yield f"| … and {len(names) - len(shown):,} more rules | | | |"


def rule_row(examination: Examination, name: str, items: Sequence[Result], total: int) -> str:
    """Make the row of one rule."""
    if findings := [each for item in items for each in item.findings]:
        worst, message, more = largest_of(findings)
        runs = [worst.run] if worst.run else list(worst.runs)
        where = next(named_runs(examination, runs), "") or examination.labels.get(str(worst.experiment), "")
    else:
        message, where, more = items[0].error or items[0].note, "", ""
    cells = (
        escape(name),
        f"{len(items):,} of {total:,}",
        shorten(escape(message), MESSAGE_WIDTH) + more,
        shorten(escape(where), MESSAGE_WIDTH),
    )
    return f"| {' | '.join(cells)} |"


def escape(line: str) -> str:
    """Escape what Markdown or HTML would take as markup, on one line; a name after @ notifies nobody."""
    shown = re.sub(r"([\\`*_\[\]#|~])", r"\\\1", printable(line))
    return shown.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("@", "&#64;")


def code(line: str) -> str:
    """Format a command as code, with as many backticks as it needs."""
    shown = printable(line)
    ticks = "`" * (1 + max(map(len, re.findall("`+", shown)), default=0))
    return f"{ticks} {shown} {ticks}" if ticks != "`" else f"`{shown}`"
