"""The plan of `--doctor-plan`: for each rule, what would be repaired, and what not and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from pytest_panic_doctor.examination.result import Result
from pytest_panic_doctor.formatting import format_duration, format_size, plural
from pytest_panic_doctor.report.results import Results

if TYPE_CHECKING:
    from pytest_panic_doctor.repair.journal.size import RowsAndBytes

UNDECIDED = "if another diagram is current once its embeddings are repaired"


def plan_lines(results: Results) -> Iterator[str]:
    """Yield the plan, a line for each rule and reason: first what would be repaired; most items first."""
    by_rule: dict[str, list[Result]] = {}
    for item in results.items:
        # Accepted findings do not fail an item, but are repaired nevertheless.
        if item.outcome == "failed" or item.accepted:
            by_rule.setdefault(item.rule, []).append(item)
    rules = sorted(by_rule.items(), key=lambda pair: -len(pair[1]))
    for rule, items in rules:
        if done := [item for item in items if doable(item)]:
            yield f"{'would fix':<13}{rule:<21} {doing(done, results.planned.get(rule, (0, 0)))}"
    if sum(rows for rows, _ in results.planned.values()) > results.planned_in_all[0]:
        yield f"{'would fix':<13}{'in all':<21} {quarantine(results.planned_in_all)}: some for several rules"
    for rule, items in rules:
        stays = Counter(item.note for item in items if item.outcome == "failed" and not doable(item))
        for reason, count in stays.most_common():
            yield f"{'would stay':<13}{rule:<21} {plural(count, 'item')}: {reason}"


def doable(item: Result) -> bool:
    """Whether an item would be repaired: then its measures have a size."""
    return not item.measures.keys().isdisjoint(("points", "rewritten", "bytes", "outputs"))


def doing(items: Sequence[Result], planned: RowsAndBytes) -> str:
    """Describe the repair of one rule's items; `planned` is the size of their quarantines together."""
    if again := [item for item in items if "rewritten" in item.measures]:
        others = [item for item in items if "rewritten" not in item.measures]
        rest = f", {doing(others, planned)}" if others else ""
        return f"rewrite {plural(len(again), 'diagram')} without computing{rest}"
    if "points" in items[0].measures:
        points, seconds, high = (total(items, key) for key in ("points", "seconds", "seconds_high"))
        largest = max(number(item.measures, "peak_memory") for item in items)
        return (
            f"compute {plural(len(items), 'diagram')} of {plural(int(points), 'point')}, about "
            f"{up_to(format_duration(seconds), format_duration(high))} on 1 core, {format_size(largest)} at the peak"
        )
    if "outputs" in items[0].measures:
        return f"embed {plural(int(total(items, 'outputs')), 'output')} by your hook, if it knows the model"
    more = sum(max(0, number(item.measures, "bytes_high") - number(item.measures, "bytes")) for item in items)
    return quarantine(planned) + (f" (up to {format_size(planned[1] + more)} {UNDECIDED})" if more else "")


def up_to(middle: str, high: str) -> str:
    """Format an estimate and its upper end; once if they are equal."""
    return middle if middle == high else f"{middle} (up to {high})"


def quarantine(weight: RowsAndBytes) -> str:
    """Describe a quarantine, e.g. `quarantine 3 rows, 6 kB`."""
    rows, size = weight
    return f"quarantine {plural(rows, 'row')}, {format_size(size)}"


def total(items: Sequence[Result], key: str) -> float:
    """Add up one measure."""
    return sum(number(item.measures, key) for item in items)


def number(measures: Mapping[str, object], key: str) -> float:
    """Return one measure; 0 if there is none."""
    return float(str(measures.get(key, 0)))
