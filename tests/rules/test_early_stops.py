"""A run whose seed is not -1 ends at its first repeat, and is compared as the research tool compares."""

from __future__ import annotations

import shutil
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from databases import DEFAULT, uid
from mutations import InMemory, early_stops
from page_images import picture

from pytest_panic_doctor.database.connection import Database
from pytest_panic_doctor.database.subject import Subject
from pytest_panic_doctor.examination import manifest as manifests
from pytest_panic_doctor.examination.examiner import Examiner
from pytest_panic_doctor.examination.outcome import Outcome
from pytest_panic_doctor.examination.parsing import model_types
from pytest_panic_doctor.rules import registry
from pytest_panic_doctor.rules.invocation import invocation_sequence

AT_TEXT, AT_IMAGE, WHOLE = uid(2, 0), uid(2, 1), uid(2, 2)


def judged(db: sqlite3.Connection, experiment: int = 0) -> Outcome:
    """What `invocation-sequence` says of an experiment."""
    return Examiner(InMemory(db), registry(), model_types([], [])).examine(
        invocation_sequence, Subject(uid(1, experiment))
    )


def put(db: sqlite3.Connection, run: int, k: int, output: str | bytes) -> None:
    """Another output for an invocation."""
    column = "output_text" if isinstance(output, str) else "output_image_data"
    db.execute(f"UPDATE invocation SET {column} = ? WHERE id = ?", (output, uid(3, run * 1000 + k)))


def cut(db: sqlite3.Connection, run: str, length: int) -> None:
    """End a run earlier."""
    db.execute("DELETE FROM invocation WHERE run_id = ? AND sequence_number >= ?", (run, length))


def test_stops_at_a_text_and_at_an_image_are_healthy() -> None:
    db = early_stops()
    assert [judged(db, number).status for number in (0, 1)] == ["passed", "passed"]


SICK: dict[str, tuple[Callable[[sqlite3.Connection], None], str]] = {
    "cut before the repeat": (
        lambda db: cut(db, AT_TEXT, 8),
        "stops after 8 of 12 invocations, though no output repeats",
    ),
    "cut to one": (lambda db: cut(db, AT_IMAGE, 1), "stops after 1 of 12 invocations, though no output repeats"),
    "a text that differs in one letter": (
        lambda db: put(db, 0, 9, "text 3 of an apples"),
        "stops after 10 of 12 invocations, though no output repeats",
    ),
    "an image that differs visibly": (
        lambda db: put(db, 1, 8, picture(200)),
        "stops after 9 of 12 invocations, though no output repeats",
    ),
    "goes on after a text": (
        lambda db: put(db, 0, 5, "text 1 of an apple"),
        "goes on to 10 invocations, though output 5 repeats an earlier one",
    ),
    "goes on after an image": (
        lambda db: put(db, 0, 6, picture(40, spot=1)),
        "goes on to 10 invocations, though output 6 repeats an earlier one",
    ),
    "an image that cannot be decoded": (
        lambda db: put(db, 0, 6, picture(40)[:-9]),
        "at a repeat is unknown: image 6 cannot be decoded",
    ),
    "no image": (
        lambda db: put(db, 1, 4, b"RIFF....WEBPVP8L...."),
        "at a repeat is unknown: image 4 cannot be decoded",
    ),
}


@pytest.mark.parametrize("name", SICK)
def test_any_other_end_is_damage(name: str) -> None:
    db = early_stops()
    damage, said = SICK[name]
    damage(db)
    outcome = judged(db)
    assert outcome.status == "failed"
    assert [said in finding.message for finding in outcome.findings] == [True]


def test_a_run_of_full_length_that_goes_on_after_a_text_is_damage() -> None:
    db = early_stops()
    put(db, 2, 7, "text 1 of a plum")
    (finding,) = judged(db, 1).findings
    assert finding.message == "the run goes on to 12 invocations, though output 7 repeats an earlier one"
    assert finding.run == WHOLE


def test_without_pillow_nobody_looked(monkeypatch: pytest.MonkeyPatch) -> None:
    db = early_stops()
    monkeypatch.setitem(sys.modules, "PIL", None)
    outcome = judged(db)
    assert outcome.status == "failed"
    assert all(
        "cannot be compared without Pillow: install the extra images" in each.message for each in outcome.findings
    )
    assert judged(db, 1).status == "passed"  # no image need be compared


@pytest.fixture
def reference(shared_data: Path, tmp_path: Path) -> Path:
    path = tmp_path / "x.sqlite"
    shutil.copy(shared_data / "reference-early-stops.sqlite", path)
    path.chmod(0o644)
    return path


def outcomes_of(path: Path, *rules: str) -> list[Outcome]:
    """The outcomes of all items, or of those of some rules."""
    database, known = Database(path), DEFAULT
    examiner = Examiner(database, known, model_types([], []))
    chosen = [known[rule] for rule in rules] or list(known.values())
    found = [
        examiner.examine(known[each.rule], each.subject)
        for each in database.read(manifests.build_manifest).entries(chosen)
    ]
    database.close()
    return found


def test_what_the_research_tool_stopped_is_healthy(reference: Path) -> None:
    found = outcomes_of(reference)
    assert [outcome.findings for outcome in found if outcome.findings] == []
    assert all(outcome.status == "passed" for outcome in outcomes_of(reference, "invocation-sequence"))


@pytest.mark.parametrize("length", [3, 5, 21])
def test_a_run_cut_short_is_found_whatever_the_lengths_of_its_images(reference: Path, length: int) -> None:
    db = sqlite3.connect(reference)
    runs = [run for (run,) in db.execute("SELECT id FROM run ORDER BY id")]
    for run in runs:
        cut(db, run, length)
    db.commit()
    db.close()
    (outcome,) = outcomes_of(reference, "invocation-sequence")
    assert {finding.run for finding in outcome.findings} == set(runs)
