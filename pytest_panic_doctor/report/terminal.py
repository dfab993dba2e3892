"""The terminal output around the items: a header, and at the end the rules, worst first."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from typing import TYPE_CHECKING

from pytest_panic_doctor.database.connection import Unreadable
from pytest_panic_doctor.database.schema import NOUNS
from pytest_panic_doctor.database.spelling import dashed
from pytest_panic_doctor.examination.manifest import item_name, name_of
from pytest_panic_doctor.formatting import WIDTH, format_duration_exact, format_size, plural, printable, shorten
from pytest_panic_doctor.report import text
from pytest_panic_doctor.report.findings import wrap
from pytest_panic_doctor.report.progress import expected, forecast_line
from pytest_panic_doctor.report.remaining_work import is_unrepairable, named_runs, next_option, tasks
from pytest_panic_doctor.report.results import OUTCOME_WORDS, VERDICT_ORDER, Results, verdict, worst_first

if TYPE_CHECKING:
    import pytest

    from pytest_panic_doctor.examination.examination import Examination
    from pytest_panic_doctor.examination.scheduling import MissingDiagram
    from pytest_panic_doctor.repair.journal.repair_record import Repair

MODES = {(False, False): "examine, read only", (True, False): "examine and repair", (False, True): "plan a repair"}
COLOURS = {"sick": "red", "warned": "yellow", "fixed": "cyan", "not examined": "yellow", "healthy": "green"}
NAMED_RULES = 3
"""Up to so many rules whose items were not reached have a line each; more have one together."""
COLUMN = 13
"""Width of the first column of the summary."""
LEFT = "left: the same command computes only those"
FAILED = "not computed: the items above say why"
BEYOND = "also missing: this command did not choose them"


class PlainWriter:
    """Writes lines like pytest's terminal reporter, without colours, for commands without a session."""

    def write(self, text: str, **markup: bool) -> None:
        """Write a part of a line."""
        del markup
        print(printable(text), end="")

    def line(self, text: str, **markup: bool) -> None:
        """Write the rest of a line."""
        del markup
        print(printable(text))


def header(examination: Examination, worker_limit: str | None) -> list[str]:
    """Return the lines that pytest prints before collection."""
    path = examination.settings.database
    rows = [plural(count, NOUNS[table]) for table, count in examination.rows.items()]
    count = sum(1 for _ in examination.entries())
    items = plural(count, "item")
    if examination.settings.shard:
        whole = sum(1 for _ in examination.manifest.entries(examination.selected))
        items = f"{examination.shard.named}: {count:,} of {plural(whole, 'item')}"
    mode = MODES[examination.settings.fix, examination.settings.plan]
    lines = [f"doctor: {text.display_path(examination.settings.database)}, {format_size(path.stat().st_size)}, {mode}"]
    if examination.origin:
        lines.append(f"doctor: a database of {examination.origin}")
    lines += [f"doctor: only run {shorten(run_of(run, examination), 63)}" for run in examination.settings.runs]
    lines += [f"doctor: {line}" for line in wrapped(rows)]
    off = f", {examination.switched_off:,} more switched off by doctor_severity" if examination.switched_off else ""
    lines.append(f"doctor: {plural(len(examination.selected), 'rule')}, {items}{off}")
    lines += [f"doctor: {line}" for line in limits(examination)]
    if examination.missing_diagrams:
        most = "at most " if examination.chosen_by else ""
        forecast = forecast_line(
            expected(
                examination.missing_diagrams,
                examination.state.cores or examination.workers,
                examination.state.cluster,
                examination.engine,
            )
        )
        lines.append(f"doctor: {most}{forecast}")
    if worker_limit:
        lines.append(f"doctor: {worker_limit}")
    return list(map(printable, lines))


def run_of(run: str, examination: Examination) -> str:
    """Name a run by its id, prompt and network."""
    return f"{dashed(run)}  {examination.labels.get(run, '')}"


def limits(examination: Examination) -> Iterator[str]:
    """Describe what this session leaves out by its options."""
    if examination.settings.sample:
        sample = examination.settings.sample
        taken, available = examination.sample_size()
        yield f"sample {sample.number} of {sample.of}: {taken:,} of {plural(available, 'item')} of expensive rules"
    if examination.settings.budget:
        yield f"no item is started after {format_duration_exact(examination.settings.budget)}"


def wrapped(parts: list[str], width: int = WIDTH - len("doctor: ")) -> Iterator[str]:
    """Join parts by commas, in lines of at most `width` characters."""
    line = ""
    for part in parts:
        if line and len(line) + len(part) + 3 > width:
            yield line + ","
            line = ""
        line += f", {part}" if line else part
    if line:
        yield line


def summary(writer: pytest.TerminalReporter, examination: Examination, results: Results, width: int = WIDTH) -> None:
    """Write the section at the end: rules that are not healthy, their number, what has to be done, the next command.

    Args:
        writer: Where to write.
        examination: The session.
        results: All results.
        width: The number of columns.
    """
    ran = results.items or results.unreached
    if not ran and not examination.missing_diagrams:
        return
    writer.section("doctor", sep="=")
    if ran:
        verdict_lines(writer, results, done(examination, results, reported=True), width)
        for line in todo_lines(examination, results, width):
            writer.line(line)
    for line in (
        *extra_repairs(examination, results),
        *(planned_lines(examination, results) if examination.settings.plan else ()),
        *baseline_lines(examination, results),
        *remaining_lines(examination, results),
        *(f"{'report':<{COLUMN}}{text.display_path(path)}" for path in results.written),
        *next_command(examination, results),
    ):
        writer.line(printable(line))


def verdict_lines(
    writer: pytest.TerminalReporter | PlainWriter,
    results: Results,
    repaired: Mapping[str, str] | None = None,
    width: int = WIDTH,
) -> None:
    """Write the rules that are not healthy, worst first, the warnings, and the count of each verdict.

    Args:
        writer: Where to write.
        results: All results.
        repaired: Descriptions of repairs by rule.
        width: The number of columns.
    """
    counted = results.by_rule()
    together = {
        word for word in OUTCOME_WORDS if sum(unstarted(each) == word for each in counted.values()) > NAMED_RULES
    }
    for name, outcomes in worst_first(counted.items()):
        state = verdict(outcomes)
        if outcomes and unstarted(outcomes) not in together and (state != "healthy" or outcomes["skipped"]):
            writer.write(f"{state:<13}", **{COLOURS[state]: True})
            writer.line(f"{name:<21} {outcome_counts(outcomes)}")
            for line in beside("", (repaired or {}).get(name, ""), width):
                writer.line(line)
    for line in unstarted_lines(counted, together, width):
        writer.line(line, yellow=True)
    for rules, why in (
        (results.itemless, "since the database has nothing for them to examine"),
        (results.unsampled, "since the sample holds none of theirs"),
    ):
        for line in beside("not examined", f"{', '.join(rules)}: no item, {why}", width) if rules else ():
            writer.line(line, yellow=True)
    for warning in warnings(results):
        for line in beside("warning", warning, width):
            writer.line(line, yellow=True)
    verdicts = results.verdicts()
    order = [name for name in VERDICT_ORDER if verdicts[name] or name == "healthy"]
    parts = ", ".join(f"{verdicts[name]:,} {name}" for name in order)
    worst = next(name for name in COLOURS if verdicts[name])
    writer.line(f"{plural(len(counted), 'rule')}: {parts}", bold=True, **{COLOURS[worst]: True})


def beside(word: str, line: str, width: int) -> list[str]:
    """Wrap a line in the second column of the summary, with a word in the first column of its first line."""
    parts = wrap(line, max(20, width - COLUMN), "")
    return [f"{word if not number else '':<{COLUMN}}{part}" for number, part in enumerate(parts)]


def unstarted(outcomes: Counter[str]) -> str:
    """Return the worst word for a rule that is not examined since items were not reached or not started."""
    words = ("late", "unreached")
    return next((word for word in words if outcomes[word] and verdict(outcomes) == "not examined"), "")


def unstarted_lines(counted: Mapping[str, Counter[str]], together: Collection[str], width: int) -> Iterator[str]:
    """Yield one line for all rules whose items were not reached, and one for those whose items were not started."""
    for status, words in OUTCOME_WORDS.items():
        rules = [outcomes for outcomes in counted.values() if unstarted(outcomes) == status]
        if status in together:
            left, items = sum(each[status] for each in rules), sum(each.total() for each in rules)
            line = f"{plural(len(rules), 'rule')}: {left:,} of {plural(items, 'item')} {words}"
            yield from beside("not examined", line, width)


def todo_lines(examination: Examination, results: Results, width: int) -> Iterator[str]:
    """Yield what has to be done about what was found, by who does it."""
    word = "to do"
    for task in tasks(examination, results.items):
        yield from beside(word, task.text + (":" if task.runs else ""), width)
        for run in named_runs(examination, task.runs):
            yield f"{'':<{COLUMN}}{shorten(run, max(20, width - COLUMN))}"
        if task.command:
            yield f"{'':<{COLUMN}}{task.command}"
        word = ""


def warnings(results: Results) -> list[str]:
    """List the warnings: those of items, and findings that `doctor_severity` accepts, largest first.

    At most 20 are listed, and the number of the others.
    """
    accepted = [finding for item in results.items if item.accepted_by == "severity" for finding in item.accepted]
    accepted.sort(key=lambda finding: -finding.count)
    messages = [warning for item in results.items for warning in item.warnings]
    messages += [each.sentence for each in accepted]
    more = [f"… and {len(messages) - text.FINDINGS_SHOWN:,} more"] if len(messages) > text.FINDINGS_SHOWN else []
    return messages[: text.FINDINGS_SHOWN] + more


def baseline_lines(examination: Examination, results: Results) -> Iterator[str]:
    """Describe what is new, known and healed compared with the baseline, and what was written to it."""
    compared, path = results.compared, examination.settings.baseline
    if compared is None or path is None:
        return
    healed = [(name, each) for name, found in sorted(compared.healed.items()) for each in sorted(found)]
    unlooked = f", {compared.unlooked:,} not looked at" if compared.unlooked else ""
    yield f"{'baseline':<13}{compared.new:,} new, {compared.known:,} known, {len(healed):,} healed{unlooked}"
    for name, each in healed[: text.FINDINGS_SHOWN]:
        yield f"{'healed':<13}{name}: {' '.join(part for part in (each.table, each.id, each.message) if part)}"
    if len(healed) > text.FINDINGS_SHOWN:
        yield f"{'healed':<13}… and {len(healed) - text.FINDINGS_SHOWN:,} more"
    if compared.written:
        count = sum(len(found) for found in compared.accepted.values())
        yield f"{'baseline':<13}{plural(count, 'finding')} written to {text.display_path(path)}"


def planned_lines(examination: Examination, results: Results) -> Iterator[str]:
    """Yield the plan; only a session that plans loads what repairs."""
    from pytest_panic_doctor.report.plan import plan_end, plan_lines

    yield from plan_lines(results)
    yield from plan_end(examination, results)


def outcome_counts(outcomes: Counter[str]) -> str:
    """Format outcomes, e.g. `3 of 12 items failed, 1 skipped`."""
    total = outcomes.total()
    first, *rest = [f"{outcomes[word]:,} {name}" for word, name in OUTCOME_WORDS.items() if outcomes[word]]
    number, word = first.split(" ", 1)
    return ", ".join([f"{number} of {plural(total, 'item')} {word}", *rest])


def done(examination: Examination, results: Results, *, reported: bool) -> dict[str, str]:
    """Describe the repairs of each rule: those `reported` by its own fixed items, or the others."""
    fixed = {item_name(item.nodeid) for item in results.items if item.status == "fixed"}
    by_rule: dict[str, list[Repair]] = {}
    for repair in results.repairs:
        rule = examination.rules.get(repair.rule)
        if (rule is not None and name_of(rule, repair.subject) in fixed) is reported:
            by_rule.setdefault(repair.rule, []).append(repair)
    if not by_rule:
        return {}
    # An examination has none, and does not load what repairs.
    from pytest_panic_doctor.repair.repairer import describe_repairs

    return {name: describe_repairs(repairs, examination.settings.database) for name, repairs in sorted(by_rule.items())}


def extra_repairs(examination: Examination, results: Results) -> Iterator[str]:
    """Describe repairs made for other items and not reported by an item of their own."""
    for name, what in done(examination, results, reported=False).items():
        yield f"{'also done':<13}{name:<21} {what}"


def remaining_lines(examination: Examination, results: Results) -> Iterator[str]:
    """Describe after a repair how many diagrams are still missing, and how to compute them."""
    try:
        left = examination.missing_now() if examination.missing_diagrams else []
    except (Unreadable, sqlite3.Error):
        # The items have reported this; the next session shows what is left.
        return
    if not left:
        return
    ended = {item_name(item.nodeid) for item in results.items if not item.not_started}
    computing = examination.items_by_diagram()
    groups: dict[str, list[MissingDiagram]] = {}
    for each in left:
        names = computing.get(each.subject.target)
        groups.setdefault(BEYOND if names is None else FAILED if ended.intersection(names) else LEFT, []).append(each)
    for why in (LEFT, FAILED, BEYOND):
        if found := groups.get(why):
            what = f"{plural(len(found), 'diagram')} of {plural(sum(each.points for each in found), 'point')}"
            yield f"{what} {why}"


def next_command(examination: Examination, results: Results) -> Iterator[str]:
    """Yield the command to type next, if there is one."""
    path = text.display_path(examination.settings.baseline) if examination.settings.baseline else ""
    sick = {item.rule for item in results.items if item.status == "failed"}
    able = (
        examination.repairable
        and not examination.verification.damaged
        and any(
            item.findings and not is_unrepairable(examination.rules[item.rule], examination, item.findings)
            for item in results.items
            if item.status == "failed"
        )
    )
    if results.repairs:
        yield f"undo: {text.command(examination.settings, '--doctor-undo', program=examination.program)}"
    if able and not examination.settings.fix:
        options = next_option(examination)
        yield f"next: {text.rerun_command(examination, options)}"
    elif not sick and results.compared and results.compared.healed and not results.compared.written:
        yield f"next: {text.rerun_command(examination, f'--doctor-baseline {path} --doctor-baseline-write')}"
