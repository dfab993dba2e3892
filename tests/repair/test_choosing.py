"""Of several rows that should be one, evidence says which is kept, and never the date."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from databases import LATER, TIME, Built, build, dump, payload, vectors
from defective_payloads import invented
from defects import DAMAGES
from repair_item import fix_file

from pytest_panic_doctor.compute.budget import Budget
from pytest_panic_doctor.compute.runner import DiagramRunner
from pytest_panic_doctor.examination.outcome import Outcome, Status
from pytest_panic_doctor.repair.journal.undo import undo
from pytest_panic_doctor.topology.diagram import Diagram, sorted_bars
from pytest_panic_doctor.topology.diagram_comparison import have_same_bars
from pytest_panic_doctor.topology.payload import decode, encode

CLOUD = vectors(0, image=False)
TRUE = payload(CLOUD)
NEWER = "2026-01-01 00:00:00.000000"
ROW = "f" * 32


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DiagramRunner]:
    """One warm child for all tests."""
    with DiagramRunner(budget=Budget(tmp_path_factory.mktemp("budget"), 4_000_000_000)) as made:
        yield made


def put(built: Built, first: bytes, second: bytes, time: str = NEWER) -> None:
    """Two diagrams in the place of one."""
    with built.open() as db:
        db.execute("UPDATE persistencediagram SET diagram_data = ? WHERE id = ?", (first, built.diagram()))
        row = (ROW, time, time, second, built.run())
        db.execute("INSERT INTO persistencediagram VALUES (?, ?, ?, ?, ?, 'Nomic')", row)


def kept(built: Built) -> dict[str, bytes]:
    """The diagrams of that place."""
    rows = [row[1:] for row in dump(built.path)["persistencediagram"]]
    return {row[0].decode(): row[3] for row in rows if row[4:] == (built.run().encode(), b"Nomic")}  # type: ignore[attr-defined,misc]


def of(outcomes: dict[str, list[Outcome]], rule: str) -> Outcome:
    """The outcome of the first item of a rule, which is that of the damaged place."""
    return next(each for each in outcomes[rule] if each.status != "passed")


@pytest.mark.parametrize("time", [NEWER, "2020-01-01 00:00:00.000000"], ids=["newer", "older"])
@pytest.mark.parametrize("where", ["first", "second"])
def test_the_diagram_with_the_bars_of_the_cloud_is_kept(
    tmp_path: Path, runner: DiagramRunner, where: str, time: str
) -> None:
    built = build(tmp_path / "x.sqlite")
    pair = (TRUE, invented(3, 5)) if where == "first" else (invented(3, 5), TRUE)
    put(built, *pair, time)
    before = dump(built.path)
    outcomes = fix_file(built.path, runner)
    assert kept(built) == {built.diagram() if where == "first" else ROW: TRUE}
    note = of(outcomes, "diagram-duplicate").note
    assert note.endswith("; the one that is kept has the bars of the cloud, computed again")
    assert not any(outcome.status == "failed" for rule in outcomes if "diagram" in rule for outcome in outcomes[rule])
    undo(built.path, "all")
    assert dump(built.path) == before


def test_where_none_has_the_bars_of_the_cloud_it_is_computed_anew(tmp_path: Path, runner: DiagramRunner) -> None:
    built = build(tmp_path / "x.sqlite")
    put(built, invented(1, 2), invented(3, 5))
    before = dump(built.path)
    outcomes = fix_file(built.path, runner)
    (data,) = kept(built).values()
    assert have_same_bars(decode(data).diagram, decode(TRUE).diagram)
    assert "computed anew" in of(outcomes, "diagram-duplicate").note
    assert not any(outcome.status == "failed" for each in outcomes.values() for outcome in each)
    undo(built.path, "all")
    assert dump(built.path) == before


def test_equal_bars_need_no_computation(tmp_path: Path, runner: DiagramRunner) -> None:
    built = build(tmp_path / "x.sqlite")
    bars = [each + np.float32(1e-7) for each in decode(TRUE).diagram.bars]
    put(built, TRUE, encode(Diagram((decode(TRUE).diagram.bars[0], *bars[1:]))))
    outcomes = fix_file(built.path, runner)
    assert list(kept(built)) == [ROW]
    assert "computed" not in of(outcomes, "diagram-duplicate").note


@pytest.mark.parametrize("name", ["vector_null", "type", "truncated_tail"])
def test_where_the_cloud_cannot_decide_nothing_goes(tmp_path: Path, runner: DiagramRunner, name: str) -> None:
    built = build(tmp_path / "x.sqlite")
    put(built, TRUE, invented(3, 5))
    with built.open() as db:
        if name == "type":
            db.execute("UPDATE invocation SET type = 'Text' WHERE id = ?", (built.invocation(3),))
        else:
            DAMAGES[name].plant(db, built)
    before = dump(built.path)
    outcome = of(fix_file(built.path, runner), "diagram-duplicate")
    assert (outcome.status, "which of them is right is unknown" in outcome.note) == ("failed", True)
    assert dump(built.path) == before


def another(built: Built, invocation: int, factor: float, row: str, time: str = NEWER) -> None:
    """A second embedding of an invocation, its vector moved by a part of its length."""
    vector = CLOUD[invocation // 2].copy()
    vector[0] += np.float32(factor * np.linalg.norm(vector))
    with built.open() as db:
        place = (row, TIME, time, built.invocation(invocation), vector.tobytes())
        db.execute("INSERT INTO embedding VALUES (?, ?, ?, ?, 'Nomic', ?)", place)


@pytest.mark.parametrize("time", [NEWER, "2020-01-01 00:00:00.000000"], ids=["newer", "older"])
def test_usable_embeddings_that_differ_are_not_told_by_their_date(
    tmp_path: Path, runner: DiagramRunner, time: str
) -> None:
    built = build(tmp_path / "x.sqlite", older=True)
    another(built, 3, 0.01, ROW, time)
    before = {row[1] for row in dump(built.path)["embedding"]}
    outcome = of(fix_file(built.path, runner), "embedding-duplicate")
    assert outcome.status == "failed"
    assert f"usable embeddings of invocation {built.invocation(3)} differ, and nothing says which" in outcome.note
    assert {row[1] for row in dump(built.path)["embedding"]} == before


def test_those_that_agree_are_repaired_beside_those_that_do_not(tmp_path: Path, runner: DiagramRunner) -> None:
    built = build(tmp_path / "x.sqlite", older=True)
    another(built, 3, 0.01, ROW)
    another(built, 5, 1e-6, "d" * 32, LATER)
    fix_file(built.path, runner)
    left = {row[1] for row in dump(built.path)["embedding"]}
    assert {ROW.encode(), built.embedding(3).encode()} <= left
    assert len({b"d" * 32, built.embedding(5).encode()} & left) == 1


def test_bars_are_alike_but_for_rounding() -> None:
    one = decode(TRUE).diagram
    moved = Diagram(tuple(sorted_bars(each + np.float32(5e-5)) for each in one.bars))
    short = Diagram((*one.bars[:2], sorted_bars([*one.bars[2], [0.5, 0.50005]])))
    assert have_same_bars(one, moved)
    assert have_same_bars(one, short)
    assert not have_same_bars(one, Diagram(tuple(sorted_bars(each + np.float32(2e-4)) for each in one.bars)))
    assert not have_same_bars(one, Diagram((*one.bars[:2], sorted_bars([[0.5, 0.6]]))))
    assert not have_same_bars(Diagram(one.bars[:1]), Diagram((one.bars[0][1:],)))


@pytest.mark.parametrize("state", ["absent", "null", "there"])
def test_of_a_single_point_no_diagram_is_missing_or_computed(tmp_path: Path, runner: DiagramRunner, state: str) -> None:
    """The research tool demands two; one that is there is examined as any other."""
    built = build(tmp_path / "x.sqlite")
    rest = ", ".join(f"'{built.invocation(k)}'" for k in range(2, 12))
    with built.open() as db:
        db.executescript(
            f"DELETE FROM embeddingcluster; DELETE FROM embedding WHERE invocation_id IN ({rest}); "
            f"DELETE FROM invocation WHERE id IN ({rest})"
        )
        data = {"absent": b"", "null": None, "there": payload(CLOUD[:1])}[state]
        db.execute("UPDATE persistencediagram SET diagram_data = ? WHERE id = ?", (data, built.diagram()))
        if state == "absent":
            db.execute("DELETE FROM persistencediagram WHERE id = ?", (built.diagram(),))
    before = dump(built.path)["persistencediagram"]
    outcomes = fix_file(built.path, runner)
    word: Status = "passed" if state == "there" else "skipped"
    assert [each.status for each in outcomes["diagram-missing"]].count(word) >= 1
    if state != "there":
        said = "the run has 1 point, and the research tool makes no diagram of one"
        assert [each.note for each in outcomes["diagram-missing"] if each.status == "skipped"] == [said]
    for rule in ("diagram-valid", "diagram-current") if state == "there" else ():
        assert outcomes[rule][0].status == "passed"
    kept = [row for row in before if row[5:] == (built.run().encode(), b"Nomic")]
    assert [
        row for row in dump(built.path)["persistencediagram"] if row[5:] == (built.run().encode(), b"Nomic")
    ] == kept
