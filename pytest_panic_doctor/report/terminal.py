"""What the terminal shows around the items: a header, and at the end the rules, worst first."""

from __future__ import annotations

import sqlite3
import textwrap
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from pytest_panic_doctor.database.connection import Unreadable
from pytest_panic_doctor.database.schema import NOUNS
from pytest_panic_doctor.examination.manifest import item_name, name_of
from pytest_panic_doctor.formatting import format_duration_exact, format_size, plural, printable
from pytest_panic_doctor.repair.repairer import said_of
from pytest_panic_doctor.report import text
from pytest_panic_doctor.report.plan import plan_lines
from pytest_panic_doctor.report.progress import announcement, expected
from pytest_panic_doctor.report.results import VERDICT_ORDER, Results, sickest, verdict
from pytest_panic_doctor.rules.base import sentence

if TYPE_CHECKING:
    import pytest

    from pytest_panic_doctor.examination.examination import Doctor
    from pytest_panic_doctor.examination.scheduling import Todo
    from pytest_panic_doctor.repair.journal.journal import Repair

MODES = {(False, False): "examine, read only", (True, False): "examine and repair", (False, True): "plan a repair"}
COLOURS = {"sick": "red", "warned": "yellow", "fixed": "cyan", "not examined": "yellow", "healthy": "green"}
SHARES = (
    ("failed", "failed"),
    ("late", "not started"),
    ("unreached", "not reached"),
    ("fixed", "fixed"),
    ("warned", "warned"),
    ("skipped", "skipped"),
)
LEFT = "left: the same command computes only those"
FAILED = "not computed: the items above say why"
BEYOND = "also missing: this command did not choose them"


class Plain:
    """Writes lines as pytest's terminal does, without colours: where there is no session."""

    def write(self, text: str, **markup: bool) -> None:
        """A part of a line."""
        del markup
        print(printable(text), end="")

    def line(self, text: str, **markup: bool) -> None:
        """The rest of one."""
        del markup
        print(printable(text))


def header(doctor: Doctor, cap: str | None) -> list[str]:
    """The lines that pytest prints before it collects."""
    path = doctor.settings.database
    rows = [plural(count, NOUNS[table]) for table, count in doctor.rows.items()]
    count = sum(1 for _ in doctor.entries())
    items = plural(count, "item")
    if doctor.settings.shard:
        whole = sum(1 for _ in doctor.manifest.entries(doctor.selected))
        items = f"{doctor.shard.named}: {count:,} of {plural(whole, 'item')}"
    mode = MODES[doctor.settings.fix, doctor.settings.plan]
    lines = [f"doctor: {text.shown_path(doctor.settings)}, {format_size(path.stat().st_size)}, {mode}"]
    if doctor.origin:
        lines.append(f"doctor: a database of {doctor.origin}")
    lines += [f"doctor: {line}" for line in wrapped(rows)]
    off = f", {doctor.switched_off:,} more switched off by doctor_severity" if doctor.switched_off else ""
    lines.append(f"doctor: {plural(len(doctor.selected), 'rule')}, {items}{off}")
    lines += [f"doctor: {line}" for line in limits(doctor)]
    if doctor.todo:
        most = "at most " if doctor.chosen_with else ""
        said = announcement(expected(doctor.todo, doctor.cores or doctor.workers, doctor.cluster, doctor.engine))
        lines.append(f"doctor: {most}{said}")
    if cap:
        lines.append(f"doctor: {cap}")
    return list(map(printable, lines))


def limits(doctor: Doctor) -> Iterator[str]:
    """What this session leaves out by its options."""
    if doctor.settings.sample:
        part, parts = doctor.settings.sample
        taken, there = doctor.sample_size()
        yield f"sample {part} of {parts}: {taken:,} of {plural(there, 'item')} of expensive rules"
    if doctor.settings.budget:
        yield f"no item is started after {format_duration_exact(doctor.settings.budget)}"


def wrapped(parts: list[str], width: int = text.WIDTH - len("doctor: ")) -> Iterator[str]:
    """The parts, comma-separated, in lines of at most `width` characters."""
    line = ""
    for part in parts:
        if line and len(line) + len(part) + 3 > width:
            yield line + ","
            line = ""
        line += f", {part}" if line else part
    if line:
        yield line


def summary(writer: pytest.TerminalReporter, doctor: Doctor, results: Results) -> None:
    """The section at the end: rules that are not simply healthy, the count of each verdict, and what to type next."""
    ran = results.items or results.unreached
    if not ran and not doctor.todo:
        return
    writer.section("doctor", sep="=")
    if ran:
        verdict_lines(writer, results, done(doctor, results, said=True))
    for line in besides(doctor, results):
        writer.line(line)
    if doctor.settings.plan:
        for line in plan_lines(results):
            writer.line(printable(line))
    for line in baseline_lines(doctor, results):
        writer.line(printable(line))
    for line in left_lines(doctor, results):
        writer.line(line)
    for path in results.written:
        writer.line(f"{'report':<13}{text.short(path)}")
    for line in next_lines(doctor, results):
        writer.line(line)


def verdict_lines(
    writer: pytest.TerminalReporter | Plain, results: Results, repaired: Mapping[str, str] | None = None
) -> None:
    """The rules that are not simply healthy, worst first, the warnings, and the count of each verdict.

    `repaired` says what was done for a rule.
    """
    counted = results.by_rule()
    for name, outcomes in sickest(counted.items()):
        state = verdict(outcomes)
        if outcomes and (state != "healthy" or outcomes["skipped"]):
            writer.write(f"{state:<13}", **{COLOURS[state]: True})
            writer.line(f"{name:<21} {shares(outcomes)}")
            if what := (repaired or {}).get(name):
                writer.line(f"{'':<13}{what}")
    if results.itemless:
        names = f"{', '.join(results.itemless)}: no item, since the database has nothing for them to examine"
        for number, line in enumerate(textwrap.wrap(names, text.WIDTH - 13, break_on_hyphens=False)):
            writer.line(f"{'' if number else 'not examined':<13}{line}", yellow=True)
    for warning in warnings(results):
        writer.line(f"{'warning':<13}{printable(warning)}", yellow=True)
    verdicts = results.verdicts()
    order = [name for name in VERDICT_ORDER if verdicts[name] or name == "healthy"]
    parts = ", ".join(f"{verdicts[name]:,} {name}" for name in order)
    worst = next(name for name in COLOURS if verdicts[name])
    writer.line(f"{plural(len(counted), 'rule')}: {parts}", bold=True, **{COLOURS[worst]: True})


def warnings(results: Results) -> list[str]:
    """What is to be warned of: what items say themselves, and the findings that doctor_severity accepts, largest first.

    At most 20, and how many more there are.
    """
    accepted = [finding for item in results.items if item.by == "severity" for finding in item.accepted]
    accepted.sort(key=lambda finding: -int(str(finding["count"])))
    said = [warning for item in results.items for warning in item.warnings]
    said += [sentence(each["rule"], each["embedding_model"], each["message"]) for each in accepted]
    more = [f"… and {len(said) - text.FINDINGS_SHOWN:,} more"] if len(said) > text.FINDINGS_SHOWN else []
    return said[: text.FINDINGS_SHOWN] + more


def baseline_lines(doctor: Doctor, results: Results) -> Iterator[str]:
    """What is new, known and healed, beside the baseline; and what was written to it."""
    compared, path = results.compared, doctor.settings.baseline
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
        yield f"{'baseline':<13}{plural(count, 'finding')} written to {text.short(path)}"


def shares(outcomes: Counter[str]) -> str:
    """`3 of 12 items failed, 1 skipped`."""
    total = outcomes.total()
    first, *rest = [f"{outcomes[word]:,} {name}" for word, name in SHARES if outcomes[word]]
    number, word = first.split(" ", 1)
    return ", ".join([f"{number} of {plural(total, 'item')} {word}", *rest])


def done(doctor: Doctor, results: Results, *, said: bool) -> dict[str, str]:
    """What was done for each rule: `said` by items of its own that are fixed, or for items that do not say so."""
    fixed = {item_name(item.nodeid) for item in results.items if item.outcome == "fixed"}
    by_rule: dict[str, list[Repair]] = {}
    for repair in results.repairs:
        rule = doctor.rules.get(repair.rule)
        if (rule is not None and name_of(rule, repair.subject) in fixed) is said:
            by_rule.setdefault(repair.rule, []).append(repair)
    return {name: said_of(repairs, doctor.settings.database) for name, repairs in sorted(by_rule.items())}


def besides(doctor: Doctor, results: Results) -> Iterator[str]:
    """What was repaired on the way to something else, and is said by no item: its own was not reached, or is sick."""
    for name, what in done(doctor, results, said=False).items():
        yield f"{'also done':<13}{name:<21} {what}"


def left_lines(doctor: Doctor, results: Results) -> Iterator[str]:
    """After a repair: how many diagrams are still absent, and what would compute them."""
    try:
        left = doctor.due() if doctor.todo else []
    except (Unreadable, sqlite3.Error):
        # The items have said so, and what is left is told by the next session.
        return
    if not left:
        return
    ended = {item_name(item.nodeid) for item in results.items if not item.late}
    computing = doctor.computing()
    groups: dict[str, list[Todo]] = {}
    for each in left:
        names = computing.get(each.pair)
        groups.setdefault(BEYOND if names is None else FAILED if ended.intersection(names) else LEFT, []).append(each)
    for why in (LEFT, FAILED, BEYOND):
        if found := groups.get(why):
            what = f"{plural(len(found), 'diagram')} of {plural(sum(each.points for each in found), 'point')}"
            yield f"{what} {why}"


def next_lines(doctor: Doctor, results: Results) -> Iterator[str]:
    """The one command to type next, if there is one."""
    path = text.short(doctor.settings.baseline) if doctor.settings.baseline else ""
    sick = {item.rule for item in results.items if item.outcome == "failed"}
    able = (
        doctor.repairable
        and not doctor.verification.damaged
        and any(
            item.findings and not text.helpless(doctor.rules[item.rule], doctor, item.said)
            for item in results.items
            if item.outcome == "failed"
        )
    )
    if results.repairs:
        yield f"undo: {text.command(doctor.settings, '--doctor-undo', program=doctor.program)}"
    if able and not doctor.settings.fix:
        yield f"next: {text.again(doctor, '--doctor-fix -n 2' if doctor.distributes else '--doctor-fix')}"
    elif not sick and results.compared and results.compared.healed and not results.compared.written:
        yield f"next: {text.again(doctor, f'--doctor-baseline {path} --doctor-baseline-write')}"
