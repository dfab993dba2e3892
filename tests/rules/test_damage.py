"""Every rule: passes where all is healthy, and finds each kind of damage by its ids."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from databases import COUNT, build, webp
from defects import DAMAGES, Planted
from elixir_databases import ALSO_IN_ELIXIR, CASES, NOT_IN_ELIXIR, NOT_NULL, NOTHING_THERE, build_elixir, build_for
from examine_item import RULES, examine

from pytest_panic_doctor.database.connection import Database
from pytest_panic_doctor.examination import manifest as manifests
from pytest_panic_doctor.examination.examiner import Examiner
from pytest_panic_doctor.examination.parsing import model_types
from pytest_panic_doctor.rules import registry


@pytest.mark.parametrize("older", [False, True], ids=["newer", "older"])
@pytest.mark.parametrize("rule", RULES)
def test_a_healthy_database_passes(tmp_path: Path, rule: str, older: bool) -> None:
    outcomes = examine(build(tmp_path / "x.sqlite", older=older))
    assert {outcome.status for outcome in outcomes[rule]} == {"passed"}


def test_the_same_database_of_the_other_generation_is_healthy(tmp_path: Path) -> None:
    outcomes = examine(build_elixir(tmp_path / "x.sqlite"))
    assert outcomes.keys() == {rule.id for rule in registry().values() if not rule.deep and rule.applies_to("elixir")}
    skipped = {rule for rule, found in outcomes.items() if {outcome.status for outcome in found} == {"skipped"}}
    assert {outcome.status for rule in outcomes.keys() - skipped for outcome in outcomes[rule]} == {"passed"}
    assert skipped == NOTHING_THERE
    assert not [outcome.warnings for found in outcomes.values() for outcome in found if outcome.warnings]


@pytest.mark.parametrize(("generation", "name"), CASES)
def test_damage_is_found_by_its_rule_with_its_ids(tmp_path: Path, generation: str, name: str) -> None:
    damage = DAMAGES[name]
    built = build_for(damage, tmp_path / "x.sqlite", generation)
    with built.open() as db:
        ids = damage.plant(db, built)
    outcomes = examine(built, damage.rule)
    failed = {rule for rule, found in outcomes.items() if any(outcome.status == "failed" for outcome in found)}
    assert damage.rule in failed
    expected = {damage.rule} | damage.also
    assert failed <= (expected if generation == "python" else expected | ALSO_IN_ELIXIR.get(name, set()))
    findings = [finding for outcome in outcomes[damage.rule] for finding in outcome.findings]
    named = {row if generation == "python" else row.replace("-", "") for finding in findings for row in finding.ids}
    assert named == set(ids) or not ids
    for finding in findings:
        assert finding.rule == damage.rule
        assert finding.count >= 1
        assert "\n" not in finding.message


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("text_null", "has a missing or wrong output: 1 of type TEXT without a text"),
        ("image_with_a_text", "has a missing or wrong output: 1 of type IMAGE with a text"),
        ("type_unknown", "has a missing or wrong output: 1 of an unknown type"),
        (
            "input_two_before",
            "does not take its predecessor as input: 1 whose input is another one of the same run",
        ),
        ("input_lost", "does not take its predecessor as input: 1 whose input does not exist"),
        ("first_with_an_input", "does not take its predecessor as input: 1 at the start of a run, with an input"),
    ],
)
def test_a_finding_says_in_words_what_is_wrong(tmp_path: Path, name: str, said: str) -> None:
    built = build(tmp_path / "x.sqlite")
    with built.open() as db:
        DAMAGES[name].plant(db, built)
    findings = [finding for outcome in examine(built)[DAMAGES[name].rule] for finding in outcome.findings]
    assert [finding.message for finding in findings] == [f"1 of 24 invocations {said}"]


@pytest.mark.parametrize("generation", ["python", "elixir"])
@pytest.mark.parametrize("rule", [*RULES, "diagram-exact"])
def test_every_rule_has_damage_that_it_finds(rule: str, generation: str) -> None:
    planted_elsewhere = {"file-integrity"} if generation == "python" else {"file-integrity", "invocation-seed"}
    found = {DAMAGES[name].rule for each, name in CASES if each == generation}
    assert rule in planted_elsewhere | found


@pytest.mark.parametrize("name", [name for name, reason in NOT_IN_ELIXIR.items() if reason == NOT_NULL])
def test_the_other_generation_refuses_a_null(tmp_path: Path, name: str) -> None:
    built = build_elixir(tmp_path / "x.sqlite", unique=False)
    with built.open() as db, pytest.raises(sqlite3.IntegrityError, match="NOT NULL"):
        DAMAGES[name].plant(db, built)


def test_what_only_one_generation_can_have_is_damage() -> None:
    assert NOT_IN_ELIXIR.keys() | ALSO_IN_ELIXIR.keys() <= DAMAGES.keys()


def test_a_planted_pickle_is_never_loaded(tmp_path: Path) -> None:
    mark = Planted.mark
    mark.unlink(missing_ok=True)
    built = build(tmp_path / "x.sqlite")
    with built.open() as db:
        DAMAGES["payload_pickle"].plant(db, built)
    examine(built)
    assert not mark.exists()


def test_a_torn_page_is_found(tmp_path: Path) -> None:
    built = build(tmp_path / "x.sqlite")
    with built.path.open("r+b") as file:
        file.seek(5 * 4096 + 8)
        file.write(b"\xff" * 4000)
    (outcome,) = examine(built)["file-integrity"]
    assert outcome.status == "failed"


def test_an_unknown_embedding_model_is_not_passed_over(tmp_path: Path) -> None:
    built = build(tmp_path / "x.sqlite")
    with built.open() as db:
        db.executescript(
            """UPDATE experimentconfig SET embedding_models = '["Brandnew", "NomicVision"]';
            UPDATE embedding SET embedding_model = 'Brandnew' WHERE embedding_model = 'Nomic';
            UPDATE persistencediagram SET embedding_model = 'Brandnew' WHERE embedding_model = 'Nomic'"""
        )
    outcomes = examine(built)
    failed = {rule for rule, found in outcomes.items() if any(outcome.status == "failed" for outcome in found)}
    assert {"embedding-missing", "embedding-type"} <= failed
    messages = [finding.message for outcome in outcomes["embedding-type"] for finding in outcome.findings]
    assert "doctor_text_models" in messages[0]
    for rule in ("embedding-missing", "embedding-type"):
        found = [finding for outcome in outcomes[rule] for finding in outcome.findings]
        assert [finding.blocked_by for finding in found] == [("doctor_text_models",)]


def test_counts_are_exact_beyond_the_ids_that_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pytest_panic_doctor.rules.base.IDS_KEPT", 3)
    built = build(tmp_path / "x.sqlite")
    with built.open() as db:
        db.execute("UPDATE invocation SET model = 'Nobody'")
    (outcome,) = examine(built)["invocation-model"]
    (finding,) = outcome.findings
    assert (finding.count, len(finding.ids)) == (24, 3)
    assert finding.message.startswith("24 of 24 invocations")


def test_no_rule_reads_an_image(tmp_path: Path) -> None:
    built = build(tmp_path / "x.sqlite")
    image = webp(bytes(2_000_000))
    with built.open() as db:
        db.execute("UPDATE invocation SET output_image_data = ? WHERE type = 'IMAGE'", (image,))
        db.execute("UPDATE invocation SET output_text = output_text || 'x' WHERE type = 'TEXT'")
    images = 12 * len(image)
    before = read_so_far()
    database = Database(built.path)
    examiner = Examiner(database, RULES, model_types([], []))
    for entry in database.read(manifests.build_manifest).entries(RULES.values()):
        if entry.rule != "file-integrity":
            examiner.examine(RULES[entry.rule], entry.subject)
    database.close()
    assert read_so_far() - before < images / 4


def read_so_far() -> int:
    """Bytes that this process has read, from the disk or from the system's cache."""
    try:
        text = Path("/proc/self/io").read_text()
    except OSError:
        pytest.skip("this system does not say what a process has read")
    return int(text.split("rchar: ")[1].split()[0])


def test_text_that_is_no_utf8_hides_no_item(tmp_path: Path) -> None:
    built = build(tmp_path / "x.sqlite")
    with built.open() as db:
        db.execute("UPDATE run SET initial_prompt = CAST(x'ff41' AS TEXT)")
        db.execute("DELETE FROM persistencediagram")
    outcomes = examine(built)
    assert sum(len(found) for found in outcomes.values()) == COUNT
    assert [outcome.status for outcome in outcomes["diagram-missing"]] == ["failed"] * 4


def test_an_index_that_does_not_fit_its_table_is_found(tmp_path: Path) -> None:
    built = build(tmp_path / "x.sqlite")
    with built.open() as db:
        db.execute("PRAGMA writable_schema = ON")
        (page,) = db.execute("SELECT rootpage FROM sqlite_master WHERE name = 'ix_run_experiment_id'").fetchone()
        db.execute("UPDATE sqlite_master SET rootpage = ? WHERE name = 'ix_persistencediagram_run_id'", (page,))
    (outcome,) = examine(built)["file-integrity"]
    assert outcome.status == "failed"
