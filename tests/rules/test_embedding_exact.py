"""What only the embedder can tell: vectors that were swapped, outputs that were changed."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

import numpy as np
import pytest
from databases import uid
from mutations import InMemory, embedder_of, full_length

from pytest_panic_doctor.database.subject import Subject
from pytest_panic_doctor.examination.check import CheckOptions
from pytest_panic_doctor.examination.examiner import Examiner
from pytest_panic_doctor.examination.outcome import Outcome
from pytest_panic_doctor.examination.parsing import model_types
from pytest_panic_doctor.rules import registry
from pytest_panic_doctor.rules.deep import embedding_exact
from pytest_panic_doctor.rules.embedder import Embedder

SUBJECT = Subject(uid(1, 0), uid(2, 0), "Nomic")
SWAP = (
    "UPDATE embedding SET vector = (SELECT vector FROM embedding WHERE id = '{1}') WHERE id = '{0}';"
    "UPDATE embedding SET vector = x'{2}' WHERE id = '{1}'"
)


def judged(db: sqlite3.Connection, embedder: Embedder | None, least: float | None = None) -> Outcome:
    """What the rule says of the texts of the first run."""
    options = CheckOptions(embedder=embedder, least_cosine=least)
    examiner = Examiner(InMemory(db), registry(), model_types([], []), options)
    return examiner.examine(embedding_exact, SUBJECT)


def test_what_the_hook_makes_again_is_healthy() -> None:
    db = full_length()
    outcome = judged(db, embedder_of(db))
    assert (outcome.status, outcome.rows) == ("passed", {"embedding": 6})


def test_two_vectors_that_were_swapped_are_named() -> None:
    db = full_length()
    hook = embedder_of(db)
    one, other = uid(4, 3), uid(4, 9)
    (vector,) = db.execute("SELECT vector FROM embedding WHERE id = ?", (one,)).fetchone()
    db.executescript(SWAP.format(one, other, vector.hex()))
    (finding,) = judged(db, hook).findings
    assert set(finding.ids) == {one, other}
    assert finding.message.startswith("2 of 6 stored embeddings differ from what the hook makes of the same outputs")


@pytest.mark.parametrize("text", ["another caption", "text 5 of an apple"], ids=["new", "of another step"])
def test_a_caption_that_was_changed_is_named(text: str) -> None:
    db = full_length()
    hook = embedder_of(db)
    db.execute("UPDATE invocation SET output_text = ? WHERE id = ?", (text, uid(3, 11)))
    (finding,) = judged(db, hook).findings
    assert finding.ids == (uid(4, 11),)


def wide(model: str, outputs: Sequence[str | bytes]) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """Vectors of another width."""
    del model
    return np.ones((len(outputs), 3), np.float32)


def nobody(model: str, outputs: Sequence[str | bytes]) -> None:
    """A hook of other models."""
    del model, outputs


@pytest.mark.parametrize(
    ("hook", "least", "word", "said"),
    [
        (None, None, "skipped", "no embedding hook is installed (pytest_doctor_embed), so nothing was embedded again"),
        (nobody, None, "skipped", "no embedding hook is installed for Nomic"),
        (wide, 0.0, "skipped", "doctor_embed_cosine is 0"),
        (wide, None, "failed", "nothing was compared: the embedding hook returned shape (6, 3) for Nomic"),
    ],
    ids=["none", "of other models", "not compared", "of another width"],
)
def test_who_did_not_compare_is_not_healthy(hook: Embedder | None, least: float | None, word: str, said: str) -> None:
    outcome = judged(full_length(), hook, least)
    assert outcome.status == word
    assert said in (outcome.note or outcome.findings[0].message)


def test_nothing_to_embed_is_skipped() -> None:
    db = full_length()
    hook = embedder_of(db)
    db.execute("UPDATE embedding SET vector = NULL")
    assert judged(db, hook).note == "the run has no usable embedding by Nomic of an output that is there"
