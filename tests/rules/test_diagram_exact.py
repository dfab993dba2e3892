"""What only computing again can tell: bars of H1 and H2 that the cloud might have, and has not."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from databases import ENGINE, WIDTH, Built, build, dump, payload, uid, vectors
from defective_payloads import invented
from examine_item import examine
from repair_item import fix_file

from pytest_panic_doctor.compute.budget import Budget
from pytest_panic_doctor.compute.runner import DiagramRunner
from pytest_panic_doctor.database.connection import Database
from pytest_panic_doctor.database.memory_room import MemoryRoom, TooLarge
from pytest_panic_doctor.database.subject import Subject
from pytest_panic_doctor.examination.check import CheckOptions
from pytest_panic_doctor.examination.examiner import Examiner
from pytest_panic_doctor.examination.outcome import Outcome
from pytest_panic_doctor.examination.parsing import model_types
from pytest_panic_doctor.repair.journal.undo import undo
from pytest_panic_doctor.rules import recheck, registry
from pytest_panic_doctor.rules.deep import diagram_exact
from pytest_panic_doctor.topology.cloud import Points, fingerprint
from pytest_panic_doctor.topology.diagram import Diagram, sorted_bars
from pytest_panic_doctor.topology.diagram_comparison import diagram_differences, have_same_bars
from pytest_panic_doctor.topology.engines import compute
from pytest_panic_doctor.topology.native import DeadlineReached
from pytest_panic_doctor.topology.payload import Provenance, decode, encode

SUBJECT = Subject(uid(1, 0), uid(2, 0), "Nomic")
CLOUD = vectors(0, image=False)
TRUE = decode(payload(CLOUD)).diagram
SPREAD = np.random.default_rng(0).normal(size=(200, 768))
HARD = (SPREAD / np.linalg.norm(SPREAD, axis=1, keepdims=True)).astype(np.float32)
"""Nearly equidistant: no engine gets through H2 of these in minutes."""


def judged(
    built: Built,
    deep: bool = True,
    timeout: float | None = None,
) -> Outcome:
    """What the rule says of the texts of the first run."""
    database = Database(built.path)
    options = CheckOptions(deep=deep, timeout=timeout)
    examiner = Examiner(database, registry(), model_types([], []), options)
    outcome = examiner.examine(diagram_exact, SUBJECT)
    database.close()
    return outcome


def put(built: Built, data: bytes, points: Points | None = None) -> None:
    """A diagram for the texts of the first run, and their vectors, where they are others."""
    with built.open() as db:
        db.execute("UPDATE persistencediagram SET diagram_data = ? WHERE id = ?", (data, built.diagram()))
        for place, vector in enumerate(() if points is None else points):
            db.execute(
                "UPDATE embedding SET vector = ? WHERE id = ?", (vector.tobytes(), built.embedding(2 * place + 1))
            )


def by_doctor(diagram: Diagram, points: Points = CLOUD, max_dim: int = 2) -> bytes:
    """The payload of a diagram that the doctor computed, were its bars these."""
    known = Provenance(fingerprint(points), len(points), len(points), 0.0, "native", "1", max_dim, 0.1, 1, "0.1.0")
    return encode(diagram, known)


def polygon(closed: bool) -> Points:
    """Six points, each at 1 from the next: a hexagon, which has a hole, or a straight line, which has the same H0."""
    points = np.zeros((6, WIDTH), "<f4")
    turn = np.arange(6) * np.pi / 3
    points[:, :2] = np.stack([np.cos(turn), np.sin(turn)], axis=1) if closed else np.stack([np.arange(6), 0 * turn], 1)
    return points


def octahedron() -> Points:
    """Six points that enclose a void: a bar in H2, and none in H1."""
    points = np.zeros((6, WIDTH), "<f4")
    for place in range(6):
        points[place, place // 2] = 1 - 2 * (place % 2)
    return points


@pytest.fixture
def built(tmp_path: Path) -> Built:
    return build(tmp_path / "x.sqlite")


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DiagramRunner]:
    """One warm child for all tests."""
    with DiagramRunner(budget=Budget(tmp_path_factory.mktemp("budget"), 4_000_000_000)) as made:
        yield made


def test_what_is_computed_again_is_healthy(built: Built) -> None:
    outcome = judged(built)
    assert (outcome.status, outcome.rows) == ("passed", {"persistencediagram": 1})


@pytest.mark.parametrize(
    ("points", "data", "said"),
    [
        (CLOUD, invented(3), "1 of 1 bars in H1 differ, by up to "),
        (
            CLOUD,
            encode(Diagram((*TRUE.bars[:2], *decode(invented(3, 5)).diagram.bars[2:]))),
            "1 of 1 bars in H2 differ",
        ),
        (polygon(True), payload(polygon(False)), "1 of 1 bars in H1 differ, by up to 0.73 (0 stored, 1 computed)"),
        (octahedron(), encode(Diagram((*decode(payload(octahedron())).diagram.bars[:2], sorted_bars([])))), "in H2"),
        (
            octahedron(),
            encode(Diagram((*decode(payload(octahedron())).diagram.bars[:2], sorted_bars([[1.5, 2]])))),
            "0.086",
        ),
    ],
    ids=["H1 invented", "H2 invented", "of another run with this H0", "H2 emptied", "H2 moved"],
)
def test_bars_that_are_not_those_of_the_cloud_are_found(built: Built, points: Points, data: bytes, said: str) -> None:
    if len(decode(data).diagram.bars) < 3:
        data = encode(Diagram((*decode(data).diagram.bars, sorted_bars([]))))
    put(built, data, points)
    outcomes = examine(built, "diagram-exact")
    failed = {rule for rule, each in outcomes.items() if any(outcome.status == "failed" for outcome in each)}
    assert "diagram-exact" in failed
    assert failed <= {"diagram-exact", "diagram-current", "embedding-width"}
    (finding,) = (finding for outcome in outcomes["diagram-exact"] for finding in outcome.findings)
    assert finding.ids == (built.diagram(),)
    assert finding.message.startswith("the diagram is not that of its 6 points: ")
    assert said in finding.message


def test_an_emptied_h1_is_found_with_its_numbers(built: Built) -> None:
    hexagon = polygon(True)
    right = decode(payload(hexagon)).diagram
    put(built, encode(Diagram((right.bars[0], sorted_bars([]), right.bars[2]))), hexagon)
    (finding,) = judged(built).findings
    said = "1 of 1 bars in H1 differ, by up to 0.73 (0 stored, 1 computed)"
    assert finding.message == f"the diagram is not that of its 6 points: {said}"


def test_fewer_dimensions_are_compared_as_far_as_they_go(built: Built) -> None:
    hexagon = polygon(True)
    right = decode(payload(hexagon)).diagram
    put(built, by_doctor(Diagram(right.bars[:2]), hexagon, 1), hexagon)
    assert judged(built).status == "passed"
    put(built, by_doctor(Diagram((right.bars[0], sorted_bars([]))), hexagon, 1), hexagon)
    assert judged(built).status == "failed"


def test_what_the_doctor_computed_is_computed_again_only_where_deep(built: Built) -> None:
    wrong = decode(invented(3, 5)).diagram
    put(built, by_doctor(wrong))
    assert judged(built, deep=False).status == "passed"
    assert judged(built, deep=True).status == "failed"


@pytest.mark.parametrize(
    "change", [{"fingerprint": "of another cloud"}, {"bars_sha256": ""}], ids=["cloud", "checksum"]
)
def test_nobody_vouches_for_another_cloud_or_without_a_checksum(change: dict[str, str]) -> None:
    mine = decode(by_doctor(TRUE))
    assert mine.provenance is not None
    assert recheck.own(mine, CLOUD)
    assert not recheck.own(replace(mine, provenance=replace(mine.provenance, **change)), CLOUD)  # type: ignore[arg-type]
    assert not recheck.own(decode(payload(CLOUD)), CLOUD)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("UPDATE persistencediagram SET diagram_data = x'00'", "no diagram that reads"),
        ("UPDATE persistencediagram SET diagram_data = NULL", "no diagram that reads"),
        ("DELETE FROM embedding WHERE rowid = 2", "1 of 6 invocations has no embedding (embedding-missing)"),
    ],
    ids=["torn", "missing", "cloud blocked"],
)
def test_what_other_rules_say_is_skipped(built: Built, change: str, said: str) -> None:
    with built.open() as db:
        db.execute(change)
    outcome = judged(built)
    assert (outcome.status, said in outcome.note) == ("skipped", True)


def test_a_limit_of_time_skips_and_says_how_far_it_came(built: Built) -> None:
    outcome = judged(built, timeout=0.0)
    assert outcome.status == "skipped"
    assert outcome.note.startswith("its computation was ended after 0 s, its limit, in ")
    assert outcome.note.endswith(": give it more with --doctor-timeout")


def test_a_deadline_is_kept() -> None:
    begun = time.monotonic()
    with pytest.raises(DeadlineReached, match=r"in H[12], column|in the links, edge"):
        recheck.compute_again(HARD, MemoryRoom(), 0.3)
    assert time.monotonic() - begun < 10


@pytest.mark.parametrize(
    ("size", "said"), [(2_000_000, "what the diagram of 200 points needs is"), (5_000_000, "ended at")]
)
def test_what_does_not_fit_is_refused_by_name(size: int, said: str) -> None:
    with pytest.raises(TooLarge, match=said) as refused:
        recheck.compute_again(HARD, MemoryRoom(size, size, given=True))
    assert "--doctor-memory leaves" in str(refused.value)


def test_what_does_not_fit_is_not_examined_and_not_repaired(built: Built, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recheck, "COPIES", 10**9)
    outcome = judged(built)
    assert (outcome.status, outcome.findings[0].message.startswith("not examined: ")) == ("failed", True)


def test_without_the_engine_it_is_skipped_with_the_reason(built: Built, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recheck, "is_built", lambda: False)
    outcome = judged(built)
    assert (outcome.status, outcome.note) == ("skipped", recheck.NOT_BUILT)


def test_others_can_write_while_it_computes(built: Built, monkeypatch: pytest.MonkeyPatch) -> None:
    real = recheck.compute_again

    def meanwhile(points: Points, space: MemoryRoom, timeout: float | None) -> Diagram:
        with sqlite3.connect(built.path, timeout=0) as db:
            db.execute("UPDATE run SET initial_prompt = initial_prompt")
        db.close()
        return real(points, space, timeout)

    monkeypatch.setattr(recheck, "compute_again", meanwhile)
    with built.open() as db:
        db.execute("PRAGMA journal_mode = DELETE")
    assert judged(built).status == "passed"


@pytest.mark.parametrize("own", [False, True], ids=["of the research tool", "of the doctor"])
def test_its_repair_computes_and_comes_back(built: Built, runner: DiagramRunner, own: bool) -> None:
    put(built, by_doctor(decode(invented(3, 5)).diagram) if own else invented(3, 5))
    before = dump(built.path)
    (outcome,) = (
        each
        for each in fix_file(built.path, runner, deep=["diagram-exact"])["diagram-exact"]
        if each.status != "passed"
    )
    assert (outcome.status, outcome.note[:21]) == ("fixed", "computed from 6 points"[:21])
    assert judged(built).status == "passed"
    undo(built.path, "all")
    assert dump(built.path) == before


def test_bars_that_the_repairing_engine_makes_too_are_kept(
    built: Built, runner: DiagramRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = decode(invented(3, 5)).diagram
    monkeypatch.setattr("pytest_panic_doctor.rules.recheck.compute_again", lambda *_: wrong)
    before = dump(built.path)
    outcomes = fix_file(built.path, runner, deep=["diagram-exact"])["diagram-exact"]
    assert "kept" in outcomes[0].note
    assert outcomes[0].status == "failed"
    assert dump(built.path) == before


def test_differences_are_counted_by_dimension() -> None:
    one = Diagram((sorted_bars([[0, 1], [0, np.inf]]), sorted_bars([[1, 2], [1, 2], [3, 3.00005]])))
    other = Diagram((sorted_bars([[0, 1.5], [0, np.inf]]), sorted_bars([[1, 2.00001]])))
    found = [
        (each.dimension, each.count, each.stored, each.real, round(each.largest_gap, 3))
        for each in diagram_differences(one, other)
    ]
    assert found == [(0, 1, 2, 2, 0.5), (1, 1, 2, 1, 1.0)]


@pytest.mark.parametrize("seed", range(3))
def test_rounding_and_order_make_no_difference(seed: int) -> None:
    random = np.random.default_rng(seed)
    points = random.normal(size=(60, 4)).astype(np.float32)
    diagram = compute(points, engine=ENGINE)[0]
    moved = Diagram(tuple(sorted_bars(bars + random.uniform(-4e-5, 4e-5, bars.shape)) for bars in diagram.bars))
    assert not list(diagram_differences(moved, recheck.compute_again(points, MemoryRoom())))
    assert have_same_bars(moved, diagram)
