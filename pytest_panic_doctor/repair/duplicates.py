"""Which of several rows that should be one are quarantined: all but the best."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable

from pytest_panic_doctor.repair.errors import RepairFailed
from pytest_panic_doctor.repair.recompute import Place, current_and_valid, valid
from pytest_panic_doctor.store.subject import Rows
from pytest_panic_doctor.topology import stored
from pytest_panic_doctor.topology.vector import flaws

Pair = tuple[str, str]
"""(the row that goes, the row that it goes for)."""


def rows(table: str, pairs: Iterable[Pair]) -> Rows:
    """The rows that go, each only as long as the one that it goes for is there.

    Raises `RepairFailed` where an id is no text, since what goes is named as JSON.
    """
    pairs = list(pairs)
    if odd := next((value for pair in pairs for value in pair if not isinstance(value, str)), ""):
        raise RepairFailed(f"Table {table} has the id {odd!r}, which is no text: give its row an id, then run again.")
    return Rows(
        table,
        f"SELECT t.id FROM json_each(:pairs) p JOIN {table} t ON t.id = json_extract(p.value, '$[0]') "
        f"WHERE EXISTS (SELECT 1 FROM {table} k WHERE k.id = json_extract(p.value, '$[1]'))",
        {"pairs": json.dumps(pairs)},
    )


def lesser_embeddings(db: sqlite3.Connection, offenders: Rows, width: int) -> list[Pair]:
    """All but the newest usable embedding of each invocation, or all but the newest where none is usable.

    `offenders` finds all embeddings of invocations that have several by one model; `width` in values.
    """
    groups: dict[tuple[str, str], list[tuple[str, object]]] = {}
    found = db.execute(
        f"SELECT invocation_id, embedding_model, id, vector FROM embedding WHERE id IN ({offenders.sql}) "
        f"ORDER BY {stored.NEWEST}",
        offenders.params,
    )
    for invocation, model, row_id, vector in found:
        usable = not list(flaws([vector], width))
        groups.setdefault((invocation, model), []).append((row_id, usable))
    return [pair for members in groups.values() for pair in against_best(members)]


def lesser_diagrams(db: sqlite3.Connection, place: Place) -> list[Pair]:
    """All but the newest diagram that is valid and current; failing that valid; failing that with a payload."""
    return list(against_best(ranked_diagrams(db, place, load(db, place))))


def other_choices(db: sqlite3.Connection, place: Place) -> list[list[Pair]]:
    """What would go instead if another valid diagram turned out to be current; none where that is decided.

    It is decided where the cloud is whole. Where it is blocked no diagram is current, but once its embeddings are
    repaired any valid one may be.
    """
    cloud = load(db, place)
    ranked = [] if cloud.whole else ranked_diagrams(db, place, cloud)
    able = [row_id for row_id, (_, sound, _) in ranked if sound]
    return [[(row_id, best) for row_id, _ in ranked if row_id != best] for best in able[1:]]


def load(db: sqlite3.Connection, place: Place) -> stored.StoredCloud:
    """The cloud of a place."""
    return stored.load(db, place.run, place.model, place.kind, place.width)


def ranked_diagrams(
    db: sqlite3.Connection, place: Place, cloud: stored.StoredCloud
) -> list[tuple[str, tuple[bool, bool, bool]]]:
    """The diagrams of a place, newest first, each with whether it is current and valid, valid, and has a payload."""
    return [
        (
            diagram.id,
            (current_and_valid(diagram.payload, cloud), valid(diagram.payload), diagram.payload is not None),
        )
        for diagram in stored.each_diagram(db, place.run, place.model)
    ]


def against_best(members: Iterable[tuple[str, object]]) -> Iterable[Pair]:
    """Each member but the best against the best; members come newest first, and the first of equals is the best."""
    ordered = sorted(members, key=lambda member: member[1], reverse=True)  # type: ignore[arg-type,return-value]
    return ((row_id, ordered[0][0]) for row_id, _ in ordered[1:])
