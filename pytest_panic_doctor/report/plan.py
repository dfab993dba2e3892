"""The plan of `--doctor-plan`: for each rule, what would be repaired, and what not and why."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from pytest_panic_doctor.examination.outcome import Result
from pytest_panic_doctor.formatting import WIDTH, format_duration, format_size, plural
from pytest_panic_doctor.repair.quarantine_limit import describe_counts
from pytest_panic_doctor.repair.repair_forecast import Outlook, Seconds, free_space
from pytest_panic_doctor.report.results import Results

if TYPE_CHECKING:
    from pytest_panic_doctor.examination.examination import Examination
    from pytest_panic_doctor.repair.journal.size import RowsAndBytes

INDENT = 13
"""The width of the first column of the lines at the end of a session."""

UNDECIDED = "if another diagram is current once its embeddings are repaired"


def plan_lines(results: Results) -> Iterator[str]:
    """Yield the plan, for each rule and reason: first what would be repaired; most items first."""
    by_rule: dict[str, list[Result]] = {}
    for item in results.items:
        # Accepted findings do not fail an item, but are repaired nevertheless.
        if item.status == "failed" or item.accepted:
            by_rule.setdefault(item.rule, []).append(item)
    rules = sorted(by_rule.items(), key=lambda pair: -len(pair[1]))
    for rule, items in rules:
        if done := [item for item in items if item.planned]:
            yield from fold_plan_line(f"{'would fix':<13}{rule:<21} {doing(done, results.planned.get(rule, (0, 0)))}")
    if sum(rows for rows, _ in results.planned.values()) > results.planned_in_all[0]:
        yield f"{'would fix':<13}{'in all':<21} {quarantine(results.planned_in_all)}: some for several rules"
    for rule, items in rules:
        stays = Counter(item.note for item in items if item.status == "failed" and not item.planned)
        for reason, count in stays.most_common():
            yield from fold_plan_line(f"{'would stay':<13}{rule:<21} {plural(count, 'item')}: {reason}")


def fold_plan_line(line: str) -> list[str]:
    """Fold a line of the plan at 80 characters, between words."""
    return textwrap.wrap(line, WIDTH, break_on_hyphens=False, subsequent_indent=" " * (INDENT + 2))


def plan_end(examination: Examination, results: Results) -> Iterator[str]:
    """Yield what the repair does in all: rows by table, diagrams, time, space, and what stays sick."""
    planned = outlook_of(examination, results)
    if not planned.does_something:
        return
    workers = 2 if examination.distributes else 1  # As the next command has it.
    database = examination.settings.database
    yield from in_column("plan", [*rows_and_diagrams(planned), *cost_lines(planned, workers, free_space(database))])
    yield f"{'':<{INDENT}}--doctor-backup PATH copies the database first: {format_size(planned.file_bytes)}"


def in_column(first: str, lines: Iterable[str]) -> Iterator[str]:
    """Yield lines behind an indent, fold_plan_line at 80 characters; the first begins with a word."""
    for line in lines:
        for part in textwrap.wrap(line, WIDTH - INDENT, break_on_hyphens=False, subsequent_indent="  "):
            yield f"{first:<{INDENT}}{part}"
            first = ""


def repair_header(examination: Examination, planned: Outlook) -> Iterator[str]:
    """Yield for the header of a repair what is known of it before the items run, as the plan says it."""
    if not (planned.does_something or planned.stays):
        return
    most = "at most " if examination.chosen_by else "at least "
    workers = examination.state.cores or examination.workers
    lines = [
        *rows_and_diagrams(planned, most),
        *cost_lines(planned, workers, free_space(examination.settings.database), most),
    ]
    lines.append("--doctor-plan says all of it, as far as it is known without a repair")
    for line in lines:
        for part in textwrap.wrap(line, WIDTH - len("doctor: "), break_on_hyphens=False, subsequent_indent="  "):
            yield f"doctor: {part}"


def outlook_of(examination: Examination, results: Results) -> Outlook:
    """Add up what the items of a plan would do."""
    items = [item for item in results.items if item.status == "failed" or item.accepted]
    able = [item for item in items if item.planned]
    computed = [item for item in able if "points" in item.measures and "rewritten" not in item.measures]
    middle, high = total_measure(computed, "seconds"), total_measure(computed, "seconds_high")
    return Outlook(
        rows=results.planned_by_table,
        row_bytes=results.planned_in_all[1],
        quarantines=sum("bytes" in item.measures for item in able),
        diagrams=len({item.nodeid.partition("[")[2] for item in computed}),
        points=int(total_measure(computed, "points")),
        computing=Seconds(middle * middle / high if high else 0.0, middle, high),
        peak=max((int(measure(item.measures, "peak_memory")) for item in computed), default=0),
        outputs=int(total_measure(able, "outputs")),
        examining=sum(item.duration for item in results.items),
        file_bytes=examination.settings.database.stat().st_size,
        stays=Counter(item.rule for item in items if item.status == "failed" and not item.planned),
    )


def rows_and_diagrams(planned: Outlook, most: str = "") -> Iterator[str]:
    """Yield what is quarantined, computed and embedded; `most` is `at least ` or `at most `, or empty."""
    if planned.rows:
        yield f"quarantine {most}{describe_counts(planned.rows)}"
    if planned.diagrams:
        yield f"compute {most}{plural(planned.diagrams, 'diagram')} of {plural(planned.points, 'point')}"
    if planned.outputs:
        yield f"embed {plural(planned.outputs, 'output')} by your hook, whose time is not known"


def cost_lines(planned: Outlook, workers: int, free: int, most: str = "") -> Iterator[str]:
    """Yield the time, the space, and what stays sick.

    Args:
        planned: What is known of the repair.
        workers: The number of workers.
        free: The bytes that are free on the disk.
        most: As in `rows_and_diagrams`: then what stays sick is only known in part, and nothing is not an answer.
    """
    time = planned.time(workers)
    shortest, longest = format_duration(time.low), format_duration(time.high)
    between = f" ({shortest} to {longest})" if shortest != longest else ""
    yield f"about {format_duration(time.middle)}{between} with {plural(workers, 'worker')}"
    yield f"at most {format_size(planned.space)} more on the disk, where {format_size(free)} are free"
    stays = ", ".join(f"{name} ({plural(count, 'item')})" for name, count in Counter(planned.stays).most_common())
    if stays or not most:
        yield f"stays sick: {stays or 'nothing of what was found'}"


def doing(items: Sequence[Result], planned: RowsAndBytes) -> str:
    """Describe the repair of one rule's items; `planned` is the size of their quarantines together."""
    if again := [item for item in items if "rewritten" in item.measures]:
        others = [item for item in items if "rewritten" not in item.measures]
        rest = f", {doing(others, planned)}" if others else ""
        return f"rewrite {plural(len(again), 'diagram')} without computing{rest}"
    if "points" in items[0].measures:
        points, seconds, high = (total_measure(items, key) for key in ("points", "seconds", "seconds_high"))
        largest = max(measure(item.measures, "peak_memory") for item in items)
        return (
            f"compute {plural(len(items), 'diagram')} of {plural(int(points), 'point')}, about "
            f"{up_to(format_duration(seconds), format_duration(high))} on 1 core, {format_size(largest)} at the peak"
        )
    if "outputs" in items[0].measures:
        return f"embed {plural(int(total_measure(items, 'outputs')), 'output')} by your hook, if it knows the model"
    if results := int(total_measure(items, "results")):
        rest = f", {quarantine(planned)}" if planned[0] else ""
        return f"compute {plural(results, 'Lyapunov result')}{rest}"
    more = sum(max(0, measure(item.measures, "bytes_high") - measure(item.measures, "bytes")) for item in items)
    return quarantine(planned) + (f" (up to {format_size(planned[1] + more)} {UNDECIDED})" if more else "")


def up_to(middle: str, high: str) -> str:
    """Format an estimate and its upper end; once if they are equal."""
    return middle if middle == high else f"{middle} (up to {high})"


def quarantine(weight: RowsAndBytes) -> str:
    """Describe a quarantine, e.g. `quarantine 3 rows, 6 kB`."""
    rows, size = weight
    return f"quarantine {plural(rows, 'row')}, {format_size(size)}"


def total_measure(items: Sequence[Result], key: str) -> float:
    """Add up one measure."""
    return sum(measure(item.measures, key) for item in items)


def measure(measures: Mapping[str, object], key: str) -> float:
    """Return one measure; 0 if there is none."""
    return float(str(measures.get(key, 0)))
