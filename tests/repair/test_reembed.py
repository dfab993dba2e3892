"""Embedding again: a hook is believed where it agrees with what is stored; a vector that is none costs no other."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

import embedders
import numpy as np
import pytest
from databases import LATER, LENGTH, TIME, build, dump, uid, vectors
from numpy.typing import NDArray

from pytest_panic_doctor.database.connection import Database
from pytest_panic_doctor.database.subject import Subject
from pytest_panic_doctor.errors import BadOption
from pytest_panic_doctor.examination.parsing import Given, model_types, parse_cosine
from pytest_panic_doctor.repair.journal.errors import RepairFailed
from pytest_panic_doctor.repair.journal.writer import Writer
from pytest_panic_doctor.repair.recompute import RepairContext
from pytest_panic_doctor.repair.reembed import Trust, embed

RULE = "lab-embedding"
"""A rule of one's own, whose repair embeds whatever lacks a vector."""

Vectors = NDArray[np.float64]
OUTPUT = "SELECT output_image_data FROM invocation WHERE id = ?"
SHIFT = np.eye(8)[0] * 0.3
Change = Callable[[Vectors, Sequence[str | bytes]], Vectors]


class RepairSetup:
    """A database of two runs, of which four captions have no usable vector; and a hook that counts its calls."""

    def __init__(self, path: Path) -> None:
        self.built = build(path)
        self.calls: list[Sequence[str | bytes]] = []
        self.trust = Trust()
        self.change: Change = lambda right, _: right
        for k in (3, 7):
            self.do("UPDATE embedding SET vector = NULL WHERE id = ?", self.built.embedding(k))
        self.do("UPDATE embedding SET vector = x'00' WHERE id = ?", self.built.embedding(5, run=1))
        self.do("DELETE FROM embedding WHERE id = ?", self.built.embedding(9, run=1))

    def do(self, sql: str, *parameters: object) -> None:
        with self.built.open() as db:
            db.execute(sql, parameters)

    def hook(self, _: str, outputs: Sequence[str | bytes]) -> NDArray[np.float32] | None:
        self.calls.append(outputs)
        right = np.stack([embedders.vector_of(str(text)) for text in outputs])
        return self.change(right.astype(np.float64), outputs)  # type: ignore[return-value]

    def embed(
        self, model: str = "Nomic", run: int | None = None, experiment: str | None = None, rule: str = RULE
    ) -> str:
        subject = Subject(experiment or self.built.experiment, None if run is None else self.built.run(run), model)
        database = Database(self.built.path, shared=True)
        with closing(database), closing(Writer(self.built.path, "session", lambda: True)) as writer:
            repairs = RepairContext(database, writer, model_types([], []))
            return embed(repairs, self.hook, self.trust, rule, subject)

    def stored(self, k: int, run: int = 0, model: str = "Nomic") -> bytes | None:
        with self.built.open() as db:
            row = db.execute(
                "SELECT vector FROM embedding WHERE invocation_id = ? AND embedding_model = ?",
                (self.built.invocation(k, run), model),
            ).fetchone()
        return row[0] if row else None

    def right(self, k: int, run: int = 0) -> bytes:
        return bytes(vectors(run, image=False)[k // 2].tobytes())


@pytest.fixture
def repair_run(tmp_path: Path) -> RepairSetup:
    return RepairSetup(tmp_path / "x.sqlite")


def test_a_hook_that_agrees_is_believed(repair_run: RepairSetup) -> None:
    assert repair_run.embed() == (
        "embedded 4 outputs again; the hook agrees with 5 stored embeddings (cosine 1.0000 at least)"
    )
    for k, run in ((3, 0), (7, 0), (5, 1), (9, 1)):
        assert repair_run.stored(k, run) == repair_run.right(k, run)


WRONG: dict[str, tuple[Change, str]] = {
    "random": (lambda right, _: np.random.default_rng(0).normal(size=right.shape), "with a cosine of -0."),
    "constant": (lambda right, _: np.ones_like(right), "with a cosine of "),
    "in another order": (lambda right, _: np.roll(right, 1, axis=0), "with a cosine of "),
    "its values in another order": (lambda right, _: right[:, ::-1], "with a cosine of "),
    "negative": (lambda right, _: -right, "with a cosine of -1.000"),
    "a little off": (lambda right, _: right + SHIFT, "with a cosine of 0.9"),
    "three times as long": (lambda right, _: 3 * right, "which are 3 times as long as the stored ones"),
    "normalised": (
        lambda right, _: right / np.linalg.norm(right, axis=1, keepdims=True) / 2,
        "times as long as the stored ones",
    ),
    "zero": (lambda right, _: 0 * right, "where the hook returns a vector that is zero or not finite"),
    "NaN": (lambda right, _: np.nan * right, "where the hook returns a vector that is zero or not finite"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_hook_that_differs_writes_nothing_and_is_asked_once(repair_run: RepairSetup, name: str) -> None:
    repair_run.change, said = WRONG[name]
    before = dump(repair_run.built.path)
    for run in (None, 0, 1):
        with pytest.raises(RepairFailed) as refused:
            repair_run.embed(run=run)
        assert "of 5 stored embeddings differ from what the hook makes of the same outputs" in str(refused.value)
        assert said in str(refused.value)
        assert "(embedding 06b05171" in str(refused.value)
        assert str(refused.value).endswith("): correct the hook, or set doctor_embed_cosine")
    assert len(repair_run.calls) == 1
    assert dump(repair_run.built.path) == before


def test_the_outputs_that_are_compared_are_different_ones(repair_run: RepairSetup) -> None:
    repair_run.do(
        "UPDATE invocation SET output_text = 'again' WHERE sequence_number > 4 AND run_id = ?", repair_run.built.run()
    )
    with pytest.raises(RepairFailed, match="differ"):
        repair_run.embed()
    assert len(set(repair_run.calls[0])) == 5


@pytest.mark.parametrize(
    ("vectors", "said"),
    [
        (np.ones((5, 7)), r"returned shape \(5, 7\) for Nomic instead of \(5, 8\)"),
        (np.ones((4, 8)), r"returned shape \(4, 8\) for Nomic instead of \(5, 8\)"),
        (np.ones(8), r"returned shape \(8,\)"),
        (np.float32(1), r"returned shape \(\)"),
        (np.ones((5, 8), complex), r"not an array of numbers \(complex128\)"),
        (np.full((5, 8), "1"), r"not an array of numbers \(<U1\)"),
        (np.ones((5, 8), bool), r"not an array of numbers \(bool\)"),
        ([[1.0] * 8, [1.0]], "not an array of numbers"),
        ({}, r"not an array of numbers \(object\)"),
        (None, "no embedding hook is installed for Nomic"),
    ],
)
def test_what_is_no_array_of_vectors_is_refused(repair_run: RepairSetup, vectors: object, said: str) -> None:
    repair_run.change = lambda right, outputs: vectors  # type: ignore[assignment,return-value]  # noqa: ARG005
    before = dump(repair_run.built.path)
    with pytest.raises(RepairFailed, match=said):
        repair_run.embed()
    assert dump(repair_run.built.path) == before


def test_each_rule_repairs_what_it_finds_so_that_both_items_are_fixed(repair_run: RepairSetup) -> None:
    assert repair_run.embed(rule="embedding-missing").startswith("embedded 1 output again")
    assert (repair_run.stored(3), repair_run.stored(9, 1)) == (None, repair_run.right(9, 1))
    assert repair_run.embed(rule="embedding-missing") == "another worker was faster"
    assert repair_run.embed(rule="embedding-vector").startswith("embedded 3 outputs again")
    assert repair_run.stored(3) == repair_run.right(3)


def spoilt(caption: str, value: float) -> Callable[[Vectors, Sequence[str | bytes]], Vectors]:
    def change(right: Vectors, outputs: Sequence[str | bytes]) -> Vectors:
        right[[text == caption for text in outputs]] = value
        return right

    return change


@pytest.mark.parametrize("value", [0, np.nan, np.inf, 1e300])
def test_one_vector_that_is_none_costs_no_other_and_is_named(repair_run: RepairSetup, value: float) -> None:
    repair_run.change = spoilt("text 7 of an apple", value)
    said = repair_run.embed()
    assert said.startswith("embedded 3 outputs again; ")
    assert said.endswith(
        "the embedding hook returned a vector for Nomic that is zero or not finite, or too large, "
        f"of invocation {repair_run.built.invocation(7)}: correct it"
    )
    assert repair_run.stored(7) is None
    assert repair_run.stored(3) == repair_run.right(3)


def test_where_all_are_none_nothing_is_done(repair_run: RepairSetup) -> None:
    repair_run.do("UPDATE embedding SET vector = NULL WHERE invocation_id < ?", repair_run.built.invocation(0, run=1))

    def change(right: Vectors, outputs: Sequence[str | bytes]) -> Vectors:
        right[[str(text).endswith("apple") for text in outputs]] = 0
        return right

    repair_run.change = change
    with pytest.raises(RepairFailed, match=r"returned 6 vectors for Nomic that are zero .* and 3 more: correct it"):
        repair_run.embed(run=0)


def test_a_lost_output_costs_no_other(repair_run: RepairSetup) -> None:
    repair_run.do("UPDATE invocation SET output_text = NULL WHERE id = ?", repair_run.built.invocation(3))
    said = repair_run.embed()
    assert said.startswith("embedded 3 outputs again; ")
    assert f"invocation {repair_run.built.invocation(3)} has lost its output" in said
    assert repair_run.stored(7) == repair_run.right(7)
    with pytest.raises(RepairFailed, match="has lost its output, so nothing can be embedded"):
        repair_run.embed()


def test_a_sample_of_which_the_hook_makes_nothing_tells_nothing(repair_run: RepairSetup) -> None:
    repair_run.embed()
    sample = repair_run.calls[0]
    repair_run.do("UPDATE embedding SET vector = NULL WHERE id = ?", repair_run.built.embedding(3))
    repair_run.trust = Trust()
    repair_run.change = spoilt(str(sample[0]), 0)
    if sample[0] == "text 3 of an apple":
        repair_run.change = spoilt(str(sample[1]), 0)
    assert repair_run.embed().startswith("embedded 1 output again; the hook agrees")


def test_where_nothing_is_stored_it_is_said(repair_run: RepairSetup) -> None:
    repair_run.do("DELETE FROM embedding WHERE embedding_model = 'Nomic'")
    assert repair_run.embed() == "embedded 12 outputs again; not compared, since no other embedding by Nomic is stored"


def another_experiment(repair_run: RepairSetup) -> str:
    """An experiment with one run, whose three captions have no embedding."""
    experiment, run = uid(1, 9), uid(2, 9)
    repair_run.do(
        "INSERT INTO experimentconfig SELECT ?, networks, seeds, ?, embedding_models, 6, started_at, completed_at "
        "FROM experimentconfig",
        experiment,
        json.dumps(["an apple"]),
    )
    repair_run.do("INSERT INTO run SELECT ?, network, seed, 6, 'an apple', ? FROM run LIMIT 1", run, experiment)
    for k in range(1, 6, 2):
        repair_run.do(
            "INSERT INTO invocation VALUES (?, ?, ?, 'Moondream', 'TEXT', -1, ?, ?, NULL, ?, NULL)",
            *(uid(3, 9000 + k), TIME, LATER, run, k, f"text {k} of an apple"),
        )
    return experiment


def test_an_experiment_without_embeddings_is_compared_with_another_one(repair_run: RepairSetup) -> None:
    experiment = another_experiment(repair_run)
    repair_run.change = lambda right, _: right[:, ::-1]
    with pytest.raises(RepairFailed, match="5 of 5 stored embeddings differ"):
        repair_run.embed(experiment=experiment)
    repair_run.change, repair_run.trust = lambda right, _: right[:, :7], Trust()
    with pytest.raises(RepairFailed, match=r"returned shape \(5, 7\) for Nomic instead of \(5, 8\)"):
        repair_run.embed(experiment=experiment)
    repair_run.change, repair_run.trust = lambda right, _: right, Trust()
    assert "agrees with 5 stored embeddings" in repair_run.embed(experiment=experiment)


def test_a_damaged_stored_embedding_is_no_sample(repair_run: RepairSetup) -> None:
    for k, value in ((1, bytes(32)), (5, np.full(8, np.nan, "<f4").tobytes()), (9, b"short")):
        repair_run.do("UPDATE embedding SET vector = ? WHERE id = ?", value, repair_run.built.embedding(k))
    repair_run.do("UPDATE invocation SET output_text = NULL WHERE id = ?", repair_run.built.invocation(1, run=1))
    assert "agrees with" in repair_run.embed(run=0)
    assert repair_run.stored(9) == repair_run.right(9)


def test_images_are_compared_as_images(repair_run: RepairSetup) -> None:
    repair_run.do("UPDATE embedding SET vector = NULL WHERE id = ?", repair_run.built.embedding(4))
    by_image: dict[bytes, NDArray[np.float64]] = {}
    for run in (0, 1):
        with repair_run.built.open() as db:
            ids = [repair_run.built.invocation(k, run=run) for k in range(0, LENGTH, 2)]
            images = [db.execute(OUTPUT, (each,)).fetchone()[0] for each in ids]
        by_image |= dict(zip(images, vectors(run, image=True).astype(np.float64), strict=True))
    repair_run.change = lambda _, outputs: np.stack([by_image[bytes(image)] for image in outputs])  # type: ignore[arg-type]
    repair_run.do(
        "DELETE FROM embedding WHERE id > ? AND embedding_model = 'NomicVision'", repair_run.built.embedding(0, run=1)
    )
    assert "agrees with 5 stored embeddings" in repair_run.embed("NomicVision", run=0)
    assert repair_run.stored(4, model="NomicVision") == vectors(0, image=True)[2].tobytes()


def test_the_least_cosine_is_the_users(repair_run: RepairSetup) -> None:
    repair_run.change = lambda right, _: right + SHIFT
    repair_run.trust = Trust(0.5)
    assert "agrees" in repair_run.embed()
    repair_run.do("UPDATE embedding SET vector = NULL WHERE id = ?", repair_run.built.embedding(3))
    repair_run.trust, repair_run.change = Trust(0), WRONG["random"][0]
    assert repair_run.embed() == "embedded 1 output again; not compared with stored ones (doctor_embed_cosine = 0)"


def test_the_ini_key_is_a_number_from_0_to_1() -> None:
    assert [parse_cosine(Given("doctor_embed_cosine", text)) for text in ("0", "0.95", "1")] == [0, 0.95, 1]
    for wrong in ("-0.1", "1.5", "nan", "99%", "off"):
        with pytest.raises(BadOption, match=r"doctor_embed_cosine .* is not a cosine: give a number from 0"):
            parse_cosine(Given("doctor_embed_cosine", wrong))
