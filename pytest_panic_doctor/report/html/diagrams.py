"""The diagrams of the report: what is stored now, what this session replaced, and what computing them took."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING

from pytest_panic_doctor.report.html.healed import Before, Healed
from pytest_panic_doctor.report.html.packing import packed
from pytest_panic_doctor.report.html.pictures import LONGEST, Picture, block, picture
from pytest_panic_doctor.topology import stored

if TYPE_CHECKING:
    from pytest_panic_doctor.doctor import Doctor
    from pytest_panic_doctor.plan import Pair
    from pytest_panic_doctor.report.results import Result

AT_ONCE = 32
"""Pairs whose payloads are read in one short transaction."""

Measures = dict[str, object]


@dataclass
class Pictures:
    """The diagrams of one (run, embedding model): those stored now, newest first, and those from before the repair."""

    now: list[Picture] = field(default_factory=list)
    before: list[Picture] = field(default_factory=list)
    measures: Measures = field(default_factory=dict)


class Diagrams:
    """The diagrams of all pairs that were looked at."""

    def __init__(self, doctor: Doctor, items: Sequence[tuple[Pair, Result]], healed: Healed) -> None:
        """Read them all, a few at a time; `items` are those of rules about diagrams."""
        self.doctor = doctor
        self.pairs: dict[Pair, Pictures] = {pair: Pictures() for pair, _ in items}
        self._read_now()
        for before in healed.diagrams():
            self._add_before(before)
        self._measure(items)

    def _read_now(self) -> None:
        pairs = iter(list(self.pairs))
        while some := list(islice(pairs, AT_ONCE)):
            for pair, rows in zip(some, self._stored(some), strict=True):
                for place, row in enumerate(rows):
                    self.pairs[pair].now.append(picture("duplicate" if place else "now", row.id, row.payload))

    def _stored(self, pairs: Sequence[Pair]) -> list[list[stored.StoredDiagram]]:
        def look(db: sqlite3.Connection) -> list[list[stored.StoredDiagram]]:
            return [stored.diagrams(db, *pair) for pair in pairs]

        try:
            return self.doctor.database.read(look)
        except sqlite3.DatabaseError:
            return [self._one(pair) for pair in pairs]

    def _one(self, pair: Pair) -> list[stored.StoredDiagram]:
        try:
            return self.doctor.database.read(lambda db: stored.diagrams(db, *pair))
        except sqlite3.DatabaseError as error:
            self.pairs[pair].now.append(Picture("now", "", f"SQLite cannot read it: {error}"))
            return []

    def _add_before(self, before: Before) -> None:
        pair = self.pairs.get((before.run, before.model))
        if pair is None or any(each.row == before.id for each in pair.before):
            return
        if before.there:
            pair.before.append(picture("before" if before.kept else "removed", before.id, before.payload))
        else:
            pair.before.append(Picture("before", before.id, "it did not exist"))

    def _measure(self, items: Sequence[tuple[Pair, Result]]) -> None:
        for pictures in self.pairs.values():
            known = next((each.provenance for each in pictures.now), None)
            if known:
                replaced = any(each.row == pictures.now[0].row for each in pictures.before)
                pictures.measures = {
                    "points": known.points,
                    "distinct": known.distinct,
                    "seconds": known.seconds,
                    "peak_memory": known.peak_memory,
                    "engine": f"{known.engine} {known.engine_version}",
                    "how": "now" if replaced else "earlier",
                }
        points = {each.pair: each.points for each in self.doctor.todo}
        for pair, item in items:
            if "seconds" in item.measures:
                how = "planned" if self.doctor.settings.plan else "now" if item.outcome == "fixed" else "failed"
                counted = {"points": points[pair]} if pair in points else {}
                self.pairs[pair].measures = counted | dict(item.measures) | {"how": how}

    def pack(self, room: int, number: Callable[[Pair], dict[str, object]]) -> Packed:
        """The pictures in at most `room` characters, of the longest bars alone where all of them do not fit."""
        flat = [each for pair in self.pairs.values() for each in (*pair.now, *pair.before)]
        for keep in LONGEST:
            plain, data = block(flat, keep)
            text = packed(data)
            if len(text) <= room:
                break
        shots = iter(plain)
        listed = [
            number(pair) | {"shots": list(islice(shots, len(each.now) + len(each.before))), "measures": each.measures}
            for pair, each in self.pairs.items()
        ]
        return Packed(listed, text, keep)


@dataclass(frozen=True, slots=True)
class Packed:
    """`listed` points into `data`; `keep` is the number of bars of a dimension that were kept, None for all."""

    listed: list[dict[str, object]]
    data: str
    keep: int | None
