"""Each rule of the page of examples is healthy on a healthy database, finds its damage, and has no flaw."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from databases import Built, build

from pytest_panic_doctor.examination.examination import Examination
from pytest_panic_doctor.examination.opening import from_database
from pytest_panic_doctor.examination.parsing import model_types
from pytest_panic_doctor.examination.rule_trial import Trial, try_rule
from pytest_panic_doctor.examination.settings import Settings
from pytest_panic_doctor.session.try_rule import load_rule

PAGE = (Path(__file__).parents[2] / "docs" / "how-to" / "rule-examples.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
EXAMPLES = {re.findall(r"^def (\w+)\(", block, re.MULTILINE)[-1]: block for block in BLOCKS}

DAMAGE = {
    "small_images": (
        "UPDATE invocation SET output_image_data = x'00' WHERE run_id = '{run}' AND sequence_number = 2",
        "1 images are far smaller than the others",
        1,
    ),
    "repeated_caption": (
        "UPDATE invocation SET output_text = 'a loop' WHERE run_id = '{run}' AND sequence_number IN (3, 5, 9)",
        "1 captions repeat the one before",
        1,
    ),
    "monotonous_model": (
        "UPDATE invocation SET output_text = 'a photo' WHERE type = 'TEXT'",
        "Moondream gives one caption for all of 12 images",
        12,
    ),
    "refusal": (
        "UPDATE invocation SET output_text = 'I''m sorry, no' WHERE run_id = '{run}' AND sequence_number IN (1, 5)",
        "2 captions are apologies",
        2,
    ),
    "slow_invocations": (
        "UPDATE invocation SET completed_at = '2025-08-12 11:00:00' WHERE run_id = '{run}' AND sequence_number = 0",
        "1 of 12 invocations took longer than 600 s, the longest 7,200 s",
        1,
    ),
    "embedding_of_nothing": (
        "UPDATE invocation SET output_text = ' ' WHERE run_id = '{run}' AND sequence_number = 7",
        "1 embeddings are of blank captions",
        1,
    ),
}


def tried(built: Built, name: str, folder: Path) -> tuple[Trial, Examination]:
    """Try an example."""
    (folder / "conftest.py").write_text(EXAMPLES[name], encoding="utf-8")
    rule = load_rule(f"conftest.py:{name}", folder)
    examination = from_database(Settings(built.path, rules=(rule.id,), kinds=model_types((), ())), [rule])
    try:
        return try_rule(examination, examination.examiner(), rule, lambda *_: None), examination
    finally:
        examination.database.close()


def test_there_are_six() -> None:
    assert set(EXAMPLES) == set(DAMAGE)
    assert len(EXAMPLES) == 6


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_finds_its_damage_and_nothing_else(name: str, tmp_path: Path) -> None:
    built = build(tmp_path / "x.sqlite", runs=2)
    healthy, _ = tried(built, name, tmp_path)
    assert (healthy.found, healthy.skipped, healthy.problems) == ([], {}, [])
    assert sum(healthy.rows.values()) > 0
    statement, message, count = DAMAGE[name]
    with built.open() as db:
        db.execute(statement.format(run=built.run()))
    sick, _ = tried(built, name, tmp_path)
    assert sick.problems == []
    assert [(each.message, each.count) for _, findings in sick.found for each in findings] == [(message, count)]
