"""Finds the rows that a quarantine takes: those of a finding, or all but the best of several that should be one."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter

import numpy as np

from pytest_panic_doctor.database import clouds
from pytest_panic_doctor.database.subject import Rows
from pytest_panic_doctor.repair.journal.errors import RepairFailed
from pytest_panic_doctor.repair.recompute import current_and_valid, valid
from pytest_panic_doctor.rules.base import Finding, RepairKind, RuleContext
from pytest_panic_doctor.rules.diagram import cloud_of, forbidden
from pytest_panic_doctor.rules.embedding import stored_width
from pytest_panic_doctor.topology.diagram import Diagram
from pytest_panic_doctor.topology.diagram_comparison import have_same_bars
from pytest_panic_doctor.topology.vectors import find_defects

QUARANTINES = (RepairKind.QUARANTINE, RepairKind.KEEP_NEWEST, RepairKind.KEEP_CURRENT)
"""The kinds of repair that quarantine rows."""

NO_ROWS = "the rule names no rows to quarantine"
"""The reason if a finding has no rows."""

ROUNDING = 1e-4
"""Largest relative distance of two vectors that another batch or machine may compute for one output."""

RowPair = tuple[str, str]
"""(id to quarantine, id to keep)."""


def not_repairable_reason(findings: Iterable[Finding]) -> str:
    """Return why a repair takes none of the rows of some findings."""
    reasons = [each.not_repaired for each in findings]
    return "; ".join(dict.fromkeys(filter(None, reasons))) or NO_ROWS


def rows_to_quarantine(
    context: RuleContext, kind: RepairKind | None, findings: Iterable[Finding], right: Diagram | None = None
) -> list[Rows]:
    """Return the rows to quarantine, as one query for each quarantine.

    Args:
        context: The database, and the subject of the item.
        kind: The kind of repair.
        findings: What the rule found.
        right: The computed diagram of the cloud, if it was needed for the decision.
    """
    if kind is RepairKind.KEEP_CURRENT:
        # The best diagram is the newest current one, else the newest valid one, else the newest with a payload.
        ranked = ranked_diagrams(context, cloud_of(context), right)
        return [surplus_rows("persistencediagram", pair_with_best(ranked))]
    found = [finding.rows for finding in findings if finding.rows]
    if kind is RepairKind.KEEP_NEWEST:
        width = stored_width(context)
        return [surplus_rows("embedding", surplus_embeddings(context.db, rows, width)) for rows in found]
    return found


def undecided(context: RuleContext) -> bool:
    """Return whether several diagrams of a subject are current and differ, so that the cloud must decide.

    Raises:
        RepairFailed: They differ, and the cloud cannot decide.
    """
    cloud = cloud_of(context)
    found = doubt(context, cloud)
    blocks = [*cloud.blocks.values(), *filter(None, [forbidden(context, replacing=True)])]
    if blocks and (found.valid or found.current):
        reason = f"the diagrams differ, and which of them is right is unknown: {'; '.join(blocks)}"
        raise RepairFailed(reason, blocked_by=cloud.blocks)
    return found.current


def other_choices(context: RuleContext) -> list[Rows]:
    """Return what would be quarantined if another valid diagram turned out to be current.

    The list is empty if the decision is final: the cloud is complete, and all current diagrams have the same bars. If
    the cloud is incomplete no diagram is current, but after the repair of its embeddings any valid one may be.
    """
    cloud = cloud_of(context)
    if cloud.complete and not doubt(context, cloud).current:
        return []
    ranked = ranked_diagrams(context, cloud)
    able = [row_id for row_id, (_, current, sound, _) in ranked if (current if cloud.complete else sound)]
    others = ([(row_id, best) for row_id, _ in ranked if row_id != best] for best in able[1:])
    return [surplus_rows("persistencediagram", pairs) for pairs in others]


def surplus_rows(table: str, pairs: Iterable[RowPair]) -> Rows:
    """Return a query for the rows to quarantine, each only as long as the row to keep exists.

    Raises:
        RepairFailed: An id is not text, so it cannot be passed as JSON.
    """
    pairs = list(pairs)
    if odd := next((value for pair in pairs for value in pair if not isinstance(value, str)), ""):
        raise RepairFailed(
            f"Table {table} has the id {odd!r}, which is not a text: give its row an id, then run again."
        )
    return Rows(
        table,
        f"SELECT t.id FROM json_each(:pairs) p JOIN {table} t ON t.id = json_extract(p.value, '$[0]') "
        f"WHERE EXISTS (SELECT 1 FROM {table} k WHERE k.id = json_extract(p.value, '$[1]'))",
        {"pairs": json.dumps(pairs)},
    )


def surplus_embeddings(db: sqlite3.Connection, offenders: Rows, width: int) -> list[RowPair]:
    """Return all but the newest usable embedding of each invocation; all but the newest if none is usable.

    An invocation is left out if its usable embeddings differ by more than rounding, since it is unknown which is right.

    Args:
        db: The database.
        offenders: The query for all embeddings of invocations that have several by one model.
        width: The number of components of a vector.

    Raises:
        RepairFailed: All invocations are left out.
    """
    found = db.execute(
        f"SELECT invocation_id, embedding_model, id, vector FROM embedding WHERE id IN ({offenders.sql}) "
        f"ORDER BY invocation_id, embedding_model, {clouds.NEWEST_FIRST}",
        offenders.params,
    )
    pairs: list[RowPair] = []
    unsure: list[str] = []
    for (invocation, _), group in groupby(found, key=itemgetter(0, 1)):
        members: list[tuple[str, object]] = []
        newest: bytes | None = None
        for _, _, row_id, vector in group:
            usable = not list(find_defects([vector], width))
            if usable and newest is not None and differ(newest, vector):
                unsure.append(invocation)
                break
            newest = vector if usable and newest is None else newest
            members.append((row_id, usable))
        else:
            pairs += pair_with_best(members)
    if unsure and not pairs:
        which = f"of invocation {unsure[0]}" if len(unsure) == 1 else f"of {len(unsure):,} invocations"
        raise RepairFailed(
            f"usable embeddings {which} differ, and nothing says which is right: remove those that are not"
        )
    return pairs


def differ(vector: bytes, other: bytes) -> bool:
    """Return whether two usable vectors differ by more than rounding."""
    one, two = (np.frombuffer(each, "<f4").astype(np.float64) for each in (vector, other))
    return bool(np.linalg.norm(one - two) > ROUNDING * np.linalg.norm(one))


@dataclass(frozen=True, slots=True)
class Doubt:
    """Whether the diagrams of one target have different bars.

    Attributes:
        current: The current diagrams differ.
        valid: No diagram is current, and the valid ones differ.
    """

    current: bool
    valid: bool


def doubt(context: RuleContext, cloud: clouds.StoredCloud) -> Doubt:
    """Compare the diagrams of a subject; two are in memory at a time."""
    firsts: dict[str, Diagram] = {}
    codec = context.generation.codec()
    differing = dict.fromkeys(("current", "valid"), False)
    for each in clouds.iterate_diagrams(context.db, context.subject.target):
        if not valid(each.payload, codec):
            continue
        diagram = codec.decode(each.payload or b"").diagram
        for kind in ("valid", "current")[: 1 + current_and_valid(each.payload, cloud, codec)]:
            differing[kind] |= not have_same_bars(firsts.setdefault(kind, diagram), diagram)
    return Doubt("current" in firsts and differing["current"], "current" not in firsts and differing["valid"])


def ranked_diagrams(
    context: RuleContext, cloud: clouds.StoredCloud, right: Diagram | None = None
) -> list[tuple[str, tuple[bool, bool, bool, bool]]]:
    """Return the diagrams of a subject, newest first, each with its rank.

    The rank is four booleans, the most important first: the diagram is current and has the bars of `right`; it is
    current; it is valid; it has a payload.
    """
    found = []
    codec = context.generation.codec()
    for diagram in clouds.iterate_diagrams(context.db, context.subject.target):
        current = current_and_valid(diagram.payload, cloud, codec)
        known = current and right is not None and have_same_bars(codec.decode(diagram.payload or b"").diagram, right)
        found.append((diagram.id, (known, current, valid(diagram.payload, codec), diagram.payload is not None)))
    return found


def pair_with_best(members: Iterable[tuple[str, object]]) -> Iterable[RowPair]:
    """Pair each member but the best with the best.

    Args:
        members: (id, rank), newest first; the first of equal ranks is the best.
    """
    ordered = sorted(members, key=lambda member: member[1], reverse=True)  # type: ignore[arg-type,return-value]
    return ((row_id, ordered[0][0]) for row_id, _ in ordered[1:])
