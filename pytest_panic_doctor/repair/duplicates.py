"""Which of several rows that should be one are quarantined: all but the best."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter

import numpy as np

from pytest_panic_doctor.database import clouds, upstream
from pytest_panic_doctor.database.subject import Rows
from pytest_panic_doctor.repair.journal.errors import RepairFailed
from pytest_panic_doctor.repair.recompute import DiagramTarget, current_and_valid, valid
from pytest_panic_doctor.topology.alike import have_same_bars
from pytest_panic_doctor.topology.diagram import Diagram
from pytest_panic_doctor.topology.payload import decode
from pytest_panic_doctor.topology.vectors import find_defects

ROUNDING = 1e-4
"""How far apart, in parts of their length, vectors may be that another batch or machine made of one output."""

Pair = tuple[str, str]
"""(the row that goes, the row that it goes for)."""


def rows(table: str, pairs: Iterable[Pair]) -> Rows:
    """The rows that go, each only as long as the one that it goes for is there.

    Raises `RepairFailed` where an id is no text, since what goes is named as JSON.
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


def surplus_embeddings(db: sqlite3.Connection, offenders: Rows, width: int) -> list[Pair]:
    """All but the newest usable embedding of each invocation, or all but the newest where none is usable.

    `offenders` finds all embeddings of invocations that have several by one model; `width` in values. None of an
    invocation of which usable ones differ by more than rounding: nothing says which of them is right. Raises
    `RepairFailed`, in one sentence, where that is so of all.
    """
    found = db.execute(
        f"SELECT invocation_id, embedding_model, id, vector FROM embedding WHERE id IN ({offenders.sql}) "
        f"ORDER BY invocation_id, embedding_model, {clouds.NEWEST_FIRST}",
        offenders.params,
    )
    pairs: list[Pair] = []
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
    """Whether two usable vectors of one width differ by more than what another batch or machine makes of them."""
    one, two = (np.frombuffer(each, "<f4").astype(np.float64) for each in (vector, other))
    return bool(np.linalg.norm(one - two) > ROUNDING * np.linalg.norm(one))


@dataclass(frozen=True, slots=True)
class Doubt:
    """Whether the bars differ of several diagrams of one place that are current, and of several that are valid."""

    current: bool
    valid: bool


def doubt(db: sqlite3.Connection, place: DiagramTarget, cloud: clouds.StoredCloud) -> Doubt:
    """Compare the diagrams of a place; one is in memory beside the first of its kind."""
    firsts: dict[str, Diagram] = {}
    differing = dict.fromkeys(("current", "valid"), False)
    for each in clouds.iterate_diagrams(db, place.run, place.model):
        if not valid(each.payload):
            continue
        diagram = decode(each.payload or b"").diagram
        for kind in ("valid", "current")[: 1 + current_and_valid(each.payload, cloud)]:
            differing[kind] |= not have_same_bars(firsts.setdefault(kind, diagram), diagram)
    return Doubt("current" in firsts and differing["current"], "current" not in firsts and differing["valid"])


def unsure(db: sqlite3.Connection, place: DiagramTarget, cloud: clouds.StoredCloud, found: Doubt) -> str:
    """Why it cannot be told which of several diagrams is right, as a sentence; empty where the cloud can decide."""
    damage = upstream.upstream_damage(db, place.run, place.model, replacing=True)
    blocks = [*cloud.blocks, *filter(None, [damage])]
    if blocks and (found.valid or found.current):
        return f"the diagrams differ, and which of them is right is unknown: {'; '.join(blocks)}"
    return ""


def surplus_diagrams(db: sqlite3.Connection, place: DiagramTarget, right: Diagram | None = None) -> list[Pair]:
    """All but the newest diagram that is valid and current; failing that valid; failing that with a payload.

    `right`, where it was computed: of the current ones the newest with its bars comes first.
    """
    return list(pair_with_best(ranked_diagrams(db, place, load_target_cloud(db, place), right)))


def surplus_if_other(db: sqlite3.Connection, place: DiagramTarget) -> list[list[Pair]]:
    """What would go instead if another valid diagram turned out to be current; none where that is decided.

    It is decided where the cloud is whole, and those that are current have the same bars. Where it is blocked no
    diagram is current, but once its embeddings are repaired any valid one may be.
    """
    cloud = load_target_cloud(db, place)
    if cloud.complete and not doubt(db, place, cloud).current:
        return []
    ranked = ranked_diagrams(db, place, cloud)
    able = [row_id for row_id, (_, current, sound, _) in ranked if (current if cloud.complete else sound)]
    return [[(row_id, best) for row_id, _ in ranked if row_id != best] for best in able[1:]]


def load_target_cloud(db: sqlite3.Connection, place: DiagramTarget) -> clouds.StoredCloud:
    """The cloud of a place."""
    return clouds.load_cloud(db, place.run, place.model, place.kind, place.width)


def ranked_diagrams(
    db: sqlite3.Connection, place: DiagramTarget, cloud: clouds.StoredCloud, right: Diagram | None = None
) -> list[tuple[str, tuple[bool, bool, bool, bool]]]:
    """The diagrams of a place, newest first, each with what speaks for it, the strongest first: whether it is current
    and has the bars of `right`; is current and valid; is valid; has a payload."""
    found = []
    for diagram in clouds.iterate_diagrams(db, place.run, place.model):
        current = current_and_valid(diagram.payload, cloud)
        known = current and right is not None and have_same_bars(decode(diagram.payload or b"").diagram, right)
        found.append((diagram.id, (known, current, valid(diagram.payload), diagram.payload is not None)))
    return found


def pair_with_best(members: Iterable[tuple[str, object]]) -> Iterable[Pair]:
    """Each member but the best against the best; members come newest first, and the first of equals is the best."""
    ordered = sorted(members, key=lambda member: member[1], reverse=True)  # type: ignore[arg-type,return-value]
    return ((row_id, ordered[0][0]) for row_id, _ in ordered[1:])
