"""The plan that `--doctor-plan` prints: by rule, what would be done, and what would stay and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from pytest_panic_doctor.report.progress import span
from pytest_panic_doctor.report.results import Result, Results
from pytest_panic_doctor.rules.model import plural
from pytest_panic_doctor.topology.memory import format_size


def plan_lines(results: Results) -> Iterator[str]:
    """The plan, a line a rule and reason, the most items first."""
    sick = [item for item in results.items if item.outcome == "failed"]
    by_rule: dict[str, list[Result]] = {}
    for item in sick:
        by_rule.setdefault(item.rule, []).append(item)
    for rule, items in sorted(by_rule.items(), key=lambda pair: -len(pair[1])):
        doable = [item for item in items if not item.note]
        if doable:
            yield f"{'would fix':<13}{rule:<21} {doing(doable)}"
        for reason, count in Counter(item.note for item in items if item.note).most_common():
            yield f"{'would stay':<13}{rule:<21} {plural(count, 'item')}: {reason}"


def doing(items: Sequence[Result]) -> str:
    """What would be done about the items of one rule."""
    if "points" in items[0].measures:
        points, seconds, high = (total(items, key) for key in ("points", "seconds", "seconds_high"))
        largest = max(number(item.measures, "peak_memory") for item in items)
        return (
            f"compute {plural(len(items), 'diagram')} of {plural(int(points), 'point')}, about {span(seconds)} "
            f"(up to {span(high)}) on 1 core, {format_size(largest)} at the peak"
        )
    return f"quarantine {plural(int(total(items, 'rows')), 'row')}, {format_size(total(items, 'bytes'))}"


def total(items: Sequence[Result], key: str) -> float:
    """The sum of one measure."""
    return sum(number(item.measures, key) for item in items)


def number(measures: Mapping[str, object], key: str) -> float:
    """One measure; 0 where it is not there."""
    return float(str(measures.get(key, 0)))
