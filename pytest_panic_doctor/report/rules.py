"""The table of rules that `--doctor-rules` prints."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytest_panic_doctor.rules.model import Rule

WIDTH = 80


def table(rules: Mapping[str, Rule]) -> Iterator[str]:
    """Each rule in a few lines of at most 80 characters: id, scope, sentence, repair, source."""
    for rule in rules.values():
        yield f"{rule.id:<22}{rule.scope}"
        yield from textwrap.wrap(rule.sentence, WIDTH, initial_indent="  ", subsequent_indent="  ")
        repair = (
            f"repair: {rule.repair}" if rule.repair else f"no repair: {rule.remedy}" if rule.remedy else "no repair"
        )
        yield from textwrap.wrap(f"{repair} ({rule.source})", WIDTH, initial_indent="  ", subsequent_indent="  ")
    yield f"{len(rules)} rules"
