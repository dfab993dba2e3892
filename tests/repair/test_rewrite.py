"""A payload that the research tool cannot read, but for nothing worse than its form, is rewritten and not computed."""

from __future__ import annotations

import json
from contextlib import closing, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest
import research_tool
from databases import ENGINE, Built, build, dump, npz, vectors

from pytest_panic_doctor.compute.runner import DiagramRunner
from pytest_panic_doctor.database.connection import Database
from pytest_panic_doctor.database.subject import Subject
from pytest_panic_doctor.examination.examiner import RepairResult
from pytest_panic_doctor.repair import recompute
from pytest_panic_doctor.repair.journal.errors import RepairFailed
from pytest_panic_doctor.repair.journal.undo import undo
from pytest_panic_doctor.repair.journal.writer import Writer
from pytest_panic_doctor.rules import registry
from pytest_panic_doctor.topology.cloud import fingerprint
from pytest_panic_doctor.topology.engines import compute
from pytest_panic_doctor.topology.payload import META, Provenance, decode, make_indexable
from pytest_panic_doctor.topology.validation import problems

RULE = "diagram-valid"
CLOUD = vectors(0, image=False)


class NoComputer:
    """A computer that must not be asked."""

    def compute(self, task: object) -> NoReturn:
        raise AssertionError(f"{task} is computed")


def scalar_meta(**changes: object) -> bytes:
    """The right diagram of the first run, as the doctor wrote it before its `doctor_meta` had the shape (1,)."""
    diagram, _ = compute(CLOUD, engine=ENGINE)
    provenance = Provenance(fingerprint(CLOUD), 6, 6, 0.0, ENGINE.name, ENGINE.version, 2, 0.1, 10**8, "0.1.0")
    plain = asdict(provenance)
    del plain["bars_sha256"]
    arrays: dict[str, object] = {
        **{f"dgms_{dimension}": bars for dimension, bars in enumerate(diagram.bars)},
        "dgms_count": np.array([3]),
        "entropy": diagram.entropy,
        META: np.array(json.dumps(plain)),
    }
    return npz(**arrays | changes)


@pytest.fixture
def built(tmp_path: Path) -> Built:
    return build(tmp_path / "x.sqlite")


def store(built: Built, payload: bytes) -> None:
    with built.open() as db:
        db.execute("UPDATE persistencediagram SET diagram_data = ? WHERE id = ?", (payload, built.diagram()))


def stored(built: Built) -> bytes:
    with built.open() as db:
        payload: bytes
        ((payload,),) = db.execute("SELECT diagram_data FROM persistencediagram WHERE id = ?", (built.diagram(),))
    return payload


def repair(built: Built) -> RepairResult:
    subject = Subject(built.experiment, built.run(), "Nomic")
    database = Database(built.path, shared=True)
    with closing(database), closing(Writer(built.path, "session", lambda: True)) as writer:
        runner: DiagramRunner = NoComputer()  # type: ignore[assignment]
        repairs = recompute.RepairContext(database, writer, {"Nomic": "TEXT"})
        return recompute.recompute(repairs, runner, lambda _: nullcontext(), registry()[RULE], subject)


GENERATORS = {
    "gens_0": np.arange(6).reshape(2, 3),
    "gens_1_0": np.arange(8).reshape(2, 4),
    "gens_1_count": np.array([1]),
    "gens_2": np.array([0]),
    "gens_3_0": np.empty((0, 2), int),
    "gens_3_count": np.array(1),
}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"dgms_count": np.array(3)},
        {"note_meta": np.array("of somebody else")},
        {"dgms_count": np.array(3), "else_meta": np.array(5.0)},
        GENERATORS,
    ],
    ids=["meta", "count", "another meta", "several", "generators"],
)
def test_its_form_is_mended_and_nothing_is_computed(built: Built, changes: dict[str, object]) -> None:
    old = scalar_meta(**changes)
    with pytest.raises(IndexError):
        research_tool.read_payload(old)
    store(built, old)
    before = dump(built.path)
    assert any("the research tool cannot read it" in clause for clause in problems(decode(old)))
    assert "rewrote" in repair(built).note
    new = stored(built)
    assert problems(decode(new)) == []
    read = research_tool.read_payload(new)
    for dimension, bars in enumerate(decode(old).diagram.bars):
        assert read["dgms"][dimension].tobytes() == bars.tobytes()  # type: ignore[union-attr]
    assert decode(new).provenance == decode(old).provenance
    if changes is GENERATORS:
        np.testing.assert_array_equal(read["gens_1"][0], GENERATORS["gens_1_0"])
    undo(built.path, 1)
    assert dump(built.path) == before


def test_a_diagram_of_other_embeddings_is_not_rewritten(built: Built) -> None:
    store(built, scalar_meta())
    with built.open() as db:
        moved = CLOUD[1] + np.float32(0.01)
        db.execute("UPDATE embedding SET vector = ? WHERE id = ?", (moved.tobytes(), built.embedding(3)))
    with pytest.raises(AssertionError, match="is computed"):
        repair(built)


@pytest.mark.parametrize(
    "changes",
    [
        {"entropy": np.zeros(3, np.float32)},
        {"note_meta": np.empty(0, "U3")},
        {"dgms_1": np.array([[2, 1]], np.float32)},
        {"dgms_count": np.array(2)},
    ],
    ids=["entropy", "empty meta", "bars", "count"],
)
def test_a_diagram_that_lacks_more_is_not_rewritten(built: Built, changes: dict[str, object]) -> None:
    store(built, scalar_meta(**changes))
    with pytest.raises(AssertionError, match="is computed"):
        repair(built)


def test_a_blocked_cloud_tells_nothing_about_its_diagram(built: Built) -> None:
    store(built, scalar_meta())
    with built.open() as db:
        db.execute("DELETE FROM embedding WHERE id = ?", (built.embedding(3),))
    with pytest.raises(RepairFailed, match="blocked"):
        repair(built)


def test_a_payload_that_changes_meanwhile_is_looked_at_again(built: Built, monkeypatch: pytest.MonkeyPatch) -> None:
    store(built, scalar_meta())
    right = make_indexable(scalar_meta(note_meta=np.array("of another worker")))
    update = Writer.update

    def overtaken(self: Writer, *arguments: object) -> object:
        if stored(built) != right:
            store(built, right)
        return update(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Writer, "update", overtaken)
    assert repair(built).note == "another worker computed it"
    assert stored(built) == right
