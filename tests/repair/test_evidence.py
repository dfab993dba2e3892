"""Damage that makes good rows look wrong: none is quarantined, replaced or recomputed, and nothing is called fixed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from databases import Built, build, dump
from defects import DAMAGES
from examine_item import examine
from repair_item import fix_file

from pytest_panic_doctor.compute.budget import Budget
from pytest_panic_doctor.compute.runner import DiagramRunner
from pytest_panic_doctor.rules import registry

RULES = registry()

UPPER = "UPDATE {0} SET {1} = upper({1}) WHERE rowid = 2"
DASHED = "UPDATE {0} SET {1} = substr({1}, 1, 8) || '-' || substr({1}, 9) WHERE rowid = 2"
BLOB = "UPDATE {0} SET {1} = CAST({1} AS BLOB) WHERE rowid = 2"
SLIP = "UPDATE {0} SET {1} = 'f' || substr({1}, 2) WHERE rowid = 2"
SHORT = "UPDATE {0} SET {1} = substr({1}, 2) WHERE rowid = 2"
REFERENCES = {
    "orphan-run": ("run", "experiment_id", "experimentconfig"),
    "orphan-invocation": ("invocation", "run_id", "run"),
    "orphan-embedding": ("embedding", "invocation_id", "invocation"),
    "orphan-diagram": ("persistencediagram", "run_id", "run"),
    "orphan-cluster": ("embeddingcluster", "embedding_id", "embedding"),
}
SPELLINGS = {"upper": UPPER, "dashed": DASHED, "blob": BLOB, "one_letter": SLIP, "one_letter_short": SHORT}


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DiagramRunner]:
    """One warm child for all tests."""
    with DiagramRunner(budget=Budget(tmp_path_factory.mktemp("budget"), 4_000_000_000)) as made:
        yield made


def untouched(built: Built, runner: DiagramRunner, rule: str, *said: str) -> None:
    """Repair what can be: nothing is, and the items of `rule` that fail say why."""
    before = dump(built.path)
    outcomes = fix_file(built.path, runner)
    assert dump(built.path) == before
    assert not any(outcome.status == "fixed" for each in outcomes.values() for outcome in each)
    failed = [outcome for outcome in outcomes[rule] if outcome.status == "failed"]
    assert failed
    for outcome in failed:
        for part in said:
            assert part in outcome.note


def test_every_rule_with_a_repair_says_what_it_demands() -> None:
    """Each rule with a repair has its row in docs/reference/repair-conditions.md, and no other rule has one."""
    text = (Path(__file__).parents[2] / "docs" / "reference" / "repair-conditions.md").read_text()
    table = text.split("<!-- demands: ")[1].split("\n## ")[0]
    rows = [line.strip("| ").split(" | ") for line in table.splitlines() if line.startswith("| ")][1:]
    assert sorted(rule for rule, _ in rows) == sorted(rule.id for rule in RULES.values() if rule.repair)
    assert all(len(demand) > 10 for _, demand in rows)


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("rule", REFERENCES)
def test_a_reference_that_is_only_misspelt_makes_no_orphan(
    tmp_path: Path, runner: DiagramRunner, rule: str, spelling: str
) -> None:
    table, column, _ = REFERENCES[rule]
    built = build(tmp_path / "x.sqlite")
    with built.open() as db:
        db.execute(SPELLINGS[spelling].format(table, column))
    untouched(built, runner, rule, "not repaired: ", " exists as ", "correct the reference, or that id")


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("rule", REFERENCES)
def test_a_parent_whose_id_is_misspelt_makes_no_orphans(
    tmp_path: Path, runner: DiagramRunner, rule: str, spelling: str
) -> None:
    _, _, parent = REFERENCES[rule]
    built = build(tmp_path / "x.sqlite")
    with built.open() as db:
        db.execute(
            SPELLINGS[spelling].replace("rowid = 2", "rowid = 1 + (SELECT count(*) > 1 FROM {0})").format(parent, "id")
        )
    untouched(built, runner, rule, " exists as ")


@pytest.mark.parametrize("number", [0, 5, 11], ids=["first", "amidst", "last"])
def test_an_invocation_beside_others_of_a_run_has_only_lost_its_reference(
    tmp_path: Path, runner: DiagramRunner, number: int
) -> None:
    built = build(tmp_path / "x.sqlite")
    with built.open() as db:
        db.execute("UPDATE invocation SET run_id = ? WHERE id = ?", ("e" * 32, built.invocation(number)))
    untouched(built, runner, "orphan-invocation", "not repaired: the ones before or after belong to a run that exists")


TYPES = {
    "no_type": ("UPDATE invocation SET type = 'Text' WHERE type = 'TEXT' AND sequence_number < 8", "embedding-type"),
    "null_like": ("UPDATE invocation SET type = '' WHERE rowid = 4", "embedding-type"),
    "the_other_type": ("UPDATE invocation SET type = 'IMAGE' WHERE rowid = 4", "embedding-type"),
    "the_other_type_of_an_image": ("UPDATE invocation SET type = 'TEXT' WHERE rowid = 5", "embedding-type"),
    "the_other_type_and_both_outputs": (
        "UPDATE invocation SET type = 'IMAGE', output_image_data = x'52' WHERE rowid = 4",
        "embedding-type",
    ),
    "the_other_type_and_output_but_not_its_model": (
        "UPDATE invocation SET type = 'IMAGE', output_image_data = x'52', output_text = NULL WHERE rowid = 4",
        "embedding-type",
    ),
    "a_type_that_is_none_and_no_diagram": (
        "UPDATE invocation SET type = 'Text' WHERE rowid = 4; "
        "UPDATE persistencediagram SET diagram_data = NULL WHERE rowid = 1",
        "diagram-missing",
    ),
    "a_type_that_is_none_and_a_torn_diagram": (
        "UPDATE invocation SET type = 'Text' WHERE rowid = 4; "
        "UPDATE persistencediagram SET diagram_data = x'00' WHERE rowid = 1",
        "diagram-valid",
    ),
}


@pytest.mark.parametrize("name", TYPES)
def test_a_damaged_type_costs_nothing_that_hangs_on_it(tmp_path: Path, runner: DiagramRunner, name: str) -> None:
    script, rule = TYPES[name]
    built = build(tmp_path / "x.sqlite")
    with built.open() as db:
        db.executescript(script)
    untouched(built, runner, rule, "invocation-output")


@pytest.mark.parametrize("name", ["gap", "truncated_tail", "first_gone", "early_stop_without_a_repeat"])
def test_a_diagram_of_the_whole_run_is_not_replaced_by_one_of_the_rest(
    tmp_path: Path, runner: DiagramRunner, name: str
) -> None:
    built = build(tmp_path / "x.sqlite")
    with built.open() as db:
        DAMAGES[name].plant(db, built)
    untouched(built, runner, "diagram-current", "rows of its run are damaged: ", "(invocation-sequence)")


MODELS = {
    "lost_from_the_list": "UPDATE experimentconfig SET embedding_models = '[\"Nomic\"]'",
    "misspelt_in_the_list": 'UPDATE experimentconfig SET embedding_models = \'["Nomik", "NomicVision"]\'',
    "misspelt_in_the_diagram": "UPDATE persistencediagram SET embedding_model = 'Nomix' WHERE rowid = 1",
    "in_other_case": "UPDATE persistencediagram SET embedding_model = 'nomic' WHERE rowid = 1",
    "a_letter_short": "UPDATE persistencediagram SET embedding_model = 'Nomi' WHERE rowid = 1",
}


@pytest.mark.parametrize("name", MODELS)
def test_a_diagram_is_not_taken_for_a_damaged_name(tmp_path: Path, runner: DiagramRunner, name: str) -> None:
    built = build(tmp_path / "x.sqlite")
    with built.open() as db:
        db.execute(MODELS[name])
    untouched(built, runner, "diagram-model", "not repaired: ")


def test_a_row_that_stays_for_two_reasons_is_found_once(tmp_path: Path) -> None:
    """The name of the model may be misspelt, and embeddings by it are there: the first reason is named."""
    built = build(tmp_path / "x.sqlite")
    with built.open() as db:
        db.execute("UPDATE persistencediagram SET embedding_model = 'Nomi' WHERE id = ?", (built.diagram(),))
        db.execute("UPDATE embedding SET embedding_model = 'Nomi' WHERE id = ?", (built.embedding(1),))
    (outcome,) = examine(built)["diagram-model"]
    (finding,) = outcome.findings
    assert finding.count == 1
    assert finding.not_repaired == "Nomi may be Nomic, misspelt: correct the name"


def test_what_is_sure_is_repaired_beside_what_is_not(tmp_path: Path, runner: DiagramRunner) -> None:
    """One embedding is of an image beyond doubt, one of an invocation whose type is damaged: only the first goes."""
    built = build(tmp_path / "x.sqlite")
    with built.open() as db:
        DAMAGES["text_model_on_an_image"].plant(db, built)
        db.execute("UPDATE invocation SET type = 'Text' WHERE id = ?", (built.invocation(3),))
    outcomes = fix_file(built.path, runner)
    left = [row[1] for row in dump(built.path)["embedding"]]
    assert b"f" * 32 not in left
    assert built.embedding(3).encode() in left
    (failed,) = [outcome for outcome in outcomes["embedding-type"] if outcome.status == "failed"]
    assert [finding.count for finding in failed.findings] == [1]
