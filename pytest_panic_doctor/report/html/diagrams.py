"""The diagrams of the report: those stored now, those that this session replaced, and the measures of computations."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING

from pytest_panic_doctor.database import clouds
from pytest_panic_doctor.database.connection import Unreadable
from pytest_panic_doctor.database.progress import count_done
from pytest_panic_doctor.database.python_generation import PYTHON
from pytest_panic_doctor.report.html.compression import packed
from pytest_panic_doctor.report.html.plot_data import BAR_LIMITS, DiagramPlot, block, picture
from pytest_panic_doctor.report.html.repaired import Before, RepairedRows

if TYPE_CHECKING:
    from pytest_panic_doctor.database.subject import DiagramTarget
    from pytest_panic_doctor.examination.examination import Examination
    from pytest_panic_doctor.examination.outcome import Result

AT_ONCE = 32
"""Number of pairs whose payloads are read in one short transaction."""

NOT_DRAWN = "not drawn: reports were merged without the database"

Measures = Mapping[str, object]


@dataclass
class PairPlots:
    """The diagrams of one (run, embedding model): those stored now, newest first, and those before the repair."""

    now: list[DiagramPlot] = field(default_factory=list)
    before: list[DiagramPlot] = field(default_factory=list)
    measures: Measures = field(default_factory=dict)


class Diagrams:
    """The diagrams of all examined pairs."""

    def __init__(
        self,
        examination: Examination,
        items: Sequence[tuple[DiagramTarget, Result]],
        healed: RepairedRows,
        look: bool = True,
    ) -> None:
        """Read the diagrams, a few at a time.

        Args:
            examination: The session.
            items: The items of rules about diagrams.
            healed: The repairs of this session.
            look: Whether to read the database; otherwise only pairs with measures are listed, without plots.
        """
        self.examination = examination
        self.pairs: dict[DiagramTarget, PairPlots] = {
            pair: PairPlots() for pair, item in items if look or "seconds" in item.measures
        }
        if look:
            self._read_now()
            for before in healed.diagrams():
                self._add_before(before)
        else:
            for pictures in self.pairs.values():
                pictures.now.append(DiagramPlot("now", "", NOT_DRAWN))
        self._measure(items)

    def _read_now(self) -> None:
        pairs, done = iter(list(self.pairs)), 0
        while some := list(islice(pairs, AT_ONCE)):
            count_done("writing the page, by diagrams", done, len(self.pairs))
            done += len(some)
            for pair, rows in zip(some, self._stored(some), strict=True):
                for place, row in enumerate(rows):
                    self.pairs[pair].now.append(self._picture("duplicate" if place else "now", row.id, row.payload))

    def _picture(self, what: str, row: str, payload: bytes | None) -> DiagramPlot:
        # The connection knows the generation of the file since it was read.
        return picture(what, row, payload, (self.examination.database.generation or PYTHON).codec())

    def _stored(self, pairs: Sequence[DiagramTarget]) -> list[list[clouds.StoredDiagram]]:
        def look(db: sqlite3.Connection) -> list[list[clouds.StoredDiagram]]:
            return [list(clouds.iterate_diagrams(db, pair)) for pair in pairs]

        try:
            return self.examination.database.read(look)
        except (Unreadable, sqlite3.DatabaseError):
            return [self._one(pair) for pair in pairs]

    def _one(self, pair: DiagramTarget) -> list[clouds.StoredDiagram]:
        try:
            return self.examination.database.read(lambda db: list(clouds.iterate_diagrams(db, pair)))
        except (Unreadable, sqlite3.DatabaseError) as error:
            self.pairs[pair].now.append(DiagramPlot("now", "", f"SQLite cannot read it: {error}"))
            return []

    def _add_before(self, before: Before) -> None:
        pair = self.pairs.get(before.target)
        if pair is None or any(each.row == before.id for each in pair.before):
            return
        if before.existed:
            pair.before.append(self._picture("before" if before.kept else "removed", before.id, before.payload))
        else:
            pair.before.append(DiagramPlot("before", before.id, "it did not exist"))

    def _measure(self, items: Sequence[tuple[DiagramTarget, Result]]) -> None:
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
        points = {each.subject.target: each.points for each in self.examination.missing_diagrams}
        for pair, item in items:
            if "seconds" in item.measures:
                how = "planned" if self.examination.settings.plan else "now" if item.status == "fixed" else "failed"
                counted = {"points": points[pair]} if pair in points else {}
                self.pairs[pair].measures = counted | dict(item.measures) | {"how": how}

    def pack(self, keep: int | None, number: Callable[[DiagramTarget], dict[str, object]]) -> Packed:
        """Pack all plots, with at most `keep` bars of a dimension; `number` gives the pair as the page knows it."""
        shots, data = block([each for pair in self.pairs.values() for each in (*pair.now, *pair.before)], keep)
        rest = iter(shots)
        listed = [
            number(pair) | {"shots": list(islice(rest, len(each.now) + len(each.before))), "measures": each.measures}
            for pair, each in self.pairs.items()
        ]
        return Packed(listed, packed(data, level=6), keep)

    def bars(self, keep: int | None) -> int:
        """Return the number of bars if at most `keep` of a dimension are kept."""
        sizes = [
            len(each.grid)
            for pair in self.pairs.values()
            for one in (*pair.now, *pair.before)
            for each in one.dimensions
        ]
        return sum(sizes if keep is None else (min(size, keep) for size in sizes))

    def fitting(self, room: Callable[[Packed], int], number: Callable[[DiagramTarget], dict[str, object]]) -> Packed:
        """Pack as many bars as fit.

        The size of a level is estimated from the level before by the number of bars, so that few are tried.

        Args:
            room: Returns the room in characters that the rest of the page leaves.
            number: Gives the pair as the page knows it.
        """
        found = self.pack(None, number)
        allowed = room(found)
        for keep in BAR_LIMITS[1:]:
            if len(found.data) <= allowed:
                break
            if keep == BAR_LIMITS[-1] or self.bars(keep) * len(found.data) <= self.bars(found.keep) * allowed:
                found = self.pack(keep, number)
                allowed = room(found)
        return found


@dataclass(frozen=True, slots=True)
class Packed:
    """Packed plots: `listed` points into `data`; `keep` is the number of bars kept of a dimension, None for all."""

    listed: list[dict[str, object]]
    data: str
    keep: int | None
