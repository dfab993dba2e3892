"""List the diagrams to compute, and order them before anything is computed."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from pytest_panic_doctor.database.clouds import LEAST_POINTS
from pytest_panic_doctor.database.subject import DiagramTarget, Subject
from pytest_panic_doctor.examination.manifest import Manifest
from pytest_panic_doctor.rules.base import RuleContext


@dataclass(frozen=True, slots=True)
class MissingDiagram:
    """A diagram that is missing or NULL, and the number of points of its cloud."""

    subject: Subject
    points: int


def missing_diagrams(db: sqlite3.Connection, manifest: Manifest, kinds: Mapping[str, str]) -> list[MissingDiagram]:
    """List the diagrams that are missing or NULL, those with most points first. No payload and no vector is read.

    One that the rules do not call missing is left out: the research tool will compute it, or its model was retired.
    """
    stored = {
        (run, model): has
        for run, model, has in db.execute(
            "SELECT run_id, embedding_model, max(typeof(diagram_data) <> 'null') FROM persistencediagram GROUP BY 1, 2"
        )
    }
    found: list[MissingDiagram] = []
    memo: dict[object, object] = {}
    counts: dict[str, dict[str, int]] = {}
    for subject in manifest.diagram_subjects():
        run, model = target = subject.target
        if stored.get(target) or model not in kinds:
            continue
        context = RuleContext(db, "diagram-missing", subject, {}, memo)
        if target not in stored and (context.unfinished() or context.retired(model)):
            continue
        if run not in counts:
            counts[run] = dict(
                db.execute("SELECT type, count(*) FROM invocation WHERE run_id = ? GROUP BY type", (run,))
            )
        if (points := counts[run].get(kinds[model], 0)) >= LEAST_POINTS:
            found.append(MissingDiagram(subject, points))
    return sorted(found, key=lambda each: -each.points)


def distribute(
    targets: Sequence[DiagramTarget], first: Iterable[DiagramTarget], before: int, each: int, workers: int
) -> list[DiagramTarget]:
    """Order targets so that each worker begins with its share of the largest ones.

    xdist's worksteal gives each worker one contiguous part of all items; idle workers take from the end of others'
    parts.

    Args:
        targets: All targets.
        first: Those to begin with, largest first.
        before: The number of items before those of the targets.
        each: The number of items of each target.
        workers: The number of workers.
    """
    wanted = [target for target in first if target in set(targets)]
    items = before + each * len(targets)
    ends = [round((items * (worker + 1) / workers - before) / each) for worker in range(workers)]
    room = [max(0, end - begin) for begin, end in zip([0, *ends[:-1]], ends, strict=True)]
    shares: list[list[DiagramTarget]] = [[] for _ in range(workers)]
    for target in wanted:
        freest = min(
            (worker for worker in range(workers)),
            key=lambda worker: (len(shares[worker]) >= room[worker], len(shares[worker])),
        )
        shares[freest].append(target)
    rest = iter([target for target in targets if target not in set(wanted)])
    order: list[DiagramTarget] = []
    for worker, share in enumerate(shares):
        order += share
        order += [target for _, target in zip(range(room[worker] - len(share)), rest, strict=False)]
    return order + list(rest)
