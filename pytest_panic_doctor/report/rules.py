"""The table of rules of `--doctor-rules`."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from pytest_panic_doctor.formatting import WIDTH
from pytest_panic_doctor.rules.base import RepairKind

if TYPE_CHECKING:
    from pytest_panic_doctor.rules.base import Rule

RULE_COLUMNS = (("rule", 20), ("scope", 18), ("repair", 14), ("from", 22))
SHORT: Mapping[RepairKind | None, str] = {
    RepairKind.QUARANTINE: "quarantine",
    RepairKind.KEEP_NEWEST: "keep newest",
    RepairKind.KEEP_CURRENT: "keep current",
    RepairKind.COMPUTE: "compute",
    RepairKind.LYAPUNOV: "compute",
    RepairKind.EMBED: "embedding hook",
}


def table(rules: Mapping[str, Rule]) -> Iterator[str]:
    """Yield for each rule a line with id, scope, repair and source, and its description; at most 80 characters wide."""
    yield "  ".join(each.ljust(width) for each, width in RULE_COLUMNS).rstrip()
    yield "  ".join("-" * width for _, width in RULE_COLUMNS)
    for rule in rules.values():
        cells = (
            rule.id,
            str(rule.scope).replace("embedding model", "model"),
            SHORT.get(rule.repair, "none"),
            rule.source,
        )
        yield "  ".join(cell.ljust(width) for cell, (_, width) in zip(cells, RULE_COLUMNS, strict=True)).rstrip()
        yield from textwrap.wrap(rule.description, WIDTH, initial_indent="  ", subsequent_indent="  ")
        if rule.repair is None and rule.manual_fix:
            yield from textwrap.wrap(
                f"no repair: {rule.manual_fix}", WIDTH, initial_indent="  ", subsequent_indent="  "
            )
    repairable = sum(1 for rule in rules.values() if rule.repair)
    yield f"{len(rules)} rules, {repairable} of them with a repair (--doctor-fix)"
