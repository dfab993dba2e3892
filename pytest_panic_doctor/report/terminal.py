"""What the terminal shows around the items: a header, and at the end the rules, worst first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

from pytest_panic_doctor.plan import todo
from pytest_panic_doctor.report import text
from pytest_panic_doctor.report.plan import plan_lines
from pytest_panic_doctor.report.progress import announcement, expected
from pytest_panic_doctor.report.results import Results, sickest, verdict
from pytest_panic_doctor.rules.model import plural
from pytest_panic_doctor.topology.memory import format_size

if TYPE_CHECKING:
    import pytest

    from pytest_panic_doctor.doctor import Doctor

MODES = {(False, False): "examine, read only", (True, False): "examine and repair", (False, True): "plan a repair"}
COLOURS = {"sick": "red", "fixed": "cyan", "not examined": "yellow", "healthy": "green"}
NOUNS = {
    "experimentconfig": "experiment",
    "run": "run",
    "invocation": "invocation",
    "embedding": "embedding",
    "persistencediagram": "diagram",
    "clusteringresult": "clustering result",
    "embeddingcluster": "cluster assignment",
}


def header(doctor: Doctor, cap: str | None) -> list[str]:
    """The lines that pytest prints before it collects."""
    path = doctor.settings.database
    rows = [plural(count, NOUNS[table]) for table, count in doctor.rows.items()]
    count = sum(1 for _ in doctor.entries())
    mode = MODES[doctor.settings.fix, doctor.settings.plan]
    lines = [f"doctor: {text.shown_path(doctor.settings)}, {format_size(path.stat().st_size)}, {mode}"]
    lines += [f"doctor: {line}" for line in wrapped(rows)]
    lines.append(f"doctor: {plural(len(doctor.selected), 'rule')}, {plural(count, 'item')}")
    if doctor.todo:
        lines.append(f"doctor: {announcement(expected(doctor.todo, doctor.cores or doctor.workers, doctor.cluster))}")
    if cap:
        lines.append(f"doctor: {cap}")
    return lines


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
    if not results.items and not doctor.todo:
        return
    writer.section("doctor", sep="=")
    if results.items:
        verdict_lines(writer, results)
    if doctor.settings.plan:
        for line in plan_lines(results):
            writer.line(line)
    for line in left_lines(doctor):
        writer.line(line)
    for line in next_lines(doctor, results):
        writer.line(line)


def verdict_lines(writer: pytest.TerminalReporter, results: Results) -> None:
    """The rules that are not simply healthy, worst first, the warnings, and the count of each verdict."""
    counted = results.by_rule()
    for name, outcomes in sickest(counted.items()):
        state = verdict(outcomes)
        if state != "healthy" or outcomes["skipped"]:
            writer.write(f"{state:<13}", **{COLOURS[state]: True})
            writer.line(f"{name:<21} {shares(outcomes)}")
    for item in results.items:
        for warning in item.warnings:
            writer.line(f"{'warning':<13}{warning}", yellow=True)
    verdicts = results.verdicts()
    order = [name for name in ("healthy", "fixed", "sick", "not examined") if verdicts[name] or name == "healthy"]
    parts = ", ".join(f"{verdicts[name]:,} {name}" for name in order)
    worst = next(name for name in COLOURS if verdicts[name])
    writer.line(f"{plural(len(counted), 'rule')}: {parts}", bold=True, **{COLOURS[worst]: True})


def shares(outcomes: Counter[str]) -> str:
    """`3 of 12 items failed, 1 skipped`."""
    total = outcomes.total()
    words = [(word, outcomes[word]) for word in ("failed", "fixed", "skipped") if outcomes[word]]
    first, *rest = [f"{count:,} {word}" for word, count in words]
    number, word = first.split(" ", 1)
    return ", ".join([f"{number} of {plural(total, 'item')} {word}", *rest])


def left_lines(doctor: Doctor) -> Iterator[str]:
    """After a repair: how many diagrams are still to be computed."""
    if doctor.todo:
        left = doctor.database.read(lambda db: todo(db, doctor.manifest, doctor.settings.kinds))
        if left:
            points = sum(each.points for each in left)
            what = f"{plural(len(left), 'diagram')} of {plural(points, 'point')}"
            yield f"{what} left: the same command computes only those"


def next_lines(doctor: Doctor, results: Results) -> Iterator[str]:
    """The one command to type next, if there is one."""
    sick = {item.rule for item in results.items if item.outcome == "failed"}
    repairable = [name for name in sick if doctor.rules[name].repair]
    if any(item.outcome == "fixed" for item in results.items):
        yield f"undo: {text.command(doctor.settings, '--doctor-undo')}"
    if sick and not doctor.settings.fix and repairable:
        yield f"next: {text.command(doctor.settings, '--doctor-fix -n 2')}"
