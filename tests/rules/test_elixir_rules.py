"""The rules that only the Elixir generation has: each kind of damage, and what is none."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from elixir_files import elixir_file
from examine_item import examine_file

from pytest_panic_doctor.database import erlang_terms
from pytest_panic_doctor.database.connection import Database
from pytest_panic_doctor.database.elixir_payload import encode_lyapunov
from pytest_panic_doctor.database.memory_room import MemoryRoom, TooLarge
from pytest_panic_doctor.database.subject import Subject
from pytest_panic_doctor.examination.check import Checker, CheckOptions
from pytest_panic_doctor.examination.outcome import Outcome
from pytest_panic_doctor.examination.parsing import model_types
from pytest_panic_doctor.rules import registry
from pytest_panic_doctor.topology.lyapunov import Lyapunov

RULES = [rule.id for rule in registry().values() if rule.generation == "elixir"]
ONE = "(SELECT id FROM runs LIMIT 1)"
LAST = f"(SELECT id FROM invocations WHERE run_id = {ONE} ORDER BY sequence_number DESC LIMIT 1)"
WITHOUT_CLUSTERS = ("DELETE FROM embedding_clusters", "DELETE FROM clustering_results")
UNFINISHED = ("UPDATE experiments SET completed_at = NULL", *WITHOUT_CLUSTERS)
WITHOUT_LAST = (
    f"DELETE FROM embeddings WHERE invocation_id = {LAST}",
    f"DELETE FROM invocations WHERE id = {LAST}",
)
WITHOUT_ONE = (
    f"DELETE FROM embeddings WHERE invocation_id IN (SELECT id FROM invocations WHERE run_id = {ONE})",
    f"DELETE FROM invocations WHERE run_id = {ONE}",
    f"DELETE FROM persistence_diagrams WHERE run_id = {ONE}",
    f"DELETE FROM runs WHERE id = {ONE}",
)
LAYER = "(SELECT id FROM clustering_results WHERE layer = 1 LIMIT 1)"
MEDOID = "(SELECT medoid_embedding_id FROM embedding_clusters WHERE medoid_embedding_id IS NOT NULL LIMIT 1)"
OF_ANOTHER = (
    "UPDATE lyapunov_results SET lyapunov_data = (SELECT o.lyapunov_data FROM lyapunov_results o WHERE "
    "o.experiment_id = lyapunov_results.experiment_id AND o.embedding_model = lyapunov_results.embedding_model "
    "AND o.prompt <> lyapunov_results.prompt LIMIT 1) WHERE rowid = 1"
)


def data(value: str, row: int = 1) -> tuple[str, ...]:
    """What sets the data of one result."""
    return (f"UPDATE lyapunov_results SET lyapunov_data = {value} WHERE rowid = {row}",)


def result(*, curve: tuple[float, ...] = (1.0, np.e), exponent: float = 1.0, pairs: int = 1, steps: int = 2) -> str:
    """The SQL of a result that is right but for what is given."""
    return f"x'{encode_lyapunov(Lyapunov(exponent, 1.0, np.array(curve), pairs, steps)).hex()}'"


def parameter(key: str, value: str, where: str) -> str:
    """What sets a parameter of some layers."""
    return f"UPDATE clustering_results SET parameters = json_set(parameters, '$.{key}', {value}) WHERE {where}"


DAMAGES: dict[str, dict[str, tuple[tuple[str, ...], set[str]]]] = {
    "lyapunov-missing": {
        "a result gone": (("DELETE FROM lyapunov_results WHERE rowid = 1",), set()),
        "a result of no runs": (
            ("UPDATE lyapunov_results SET prompt = 'nobody' WHERE rowid = 1",),
            set(),
        ),
        "a result twice": (
            (
                "DROP INDEX lyapunov_results_unique_experiment_network_prompt_model_index",
                "UPDATE lyapunov_results SET (experiment_id, network, prompt, embedding_model, lyapunov_data) = "
                "(SELECT experiment_id, network, prompt, embedding_model, lyapunov_data FROM lyapunov_results "
                "WHERE rowid = 1) WHERE rowid = 2",
            ),
            set(),
        ),
    },
    "lyapunov-valid": {
        "NULL": (data("NULL"), set()),
        "a text": (data("'x'"), set()),
        "torn": (data("substr(lyapunov_data, 1, 20)"), set()),
        "a negative distance": (data(result(curve=(1.0, -1.0), exponent=-23.02585)), {"lyapunov-current"}),
        "a distance that is no number": (data(result(curve=(1.0, np.nan))), {"lyapunov-current"}),
        "a step too few": (data(result(steps=3)), {"lyapunov-current"}),
        "pairs that no runs make": (data(result(pairs=2)), {"lyapunov-current"}),
        "pairs of one run": (data(result(pairs=0)), {"lyapunov-current"}),
        "another exponent": (data(result(exponent=1.1)), {"lyapunov-current"}),
        "an exponent that is no number": (data(result(exponent=np.nan)), {"lyapunov-current"}),
    },
    "lyapunov-current": {
        "that of another prompt": ((OF_ANOTHER,), set()),
        "of fewer runs": (data(result(pairs=3)), set()),
        "another curve": (data(result()), set()),
    },
    "orphan-lyapunov": {
        "of no experiment": (
            ("UPDATE lyapunov_results SET experiment_id = 'none' WHERE rowid = 1",),
            {"lyapunov-missing"},
        ),
        "of a model that is not used": (
            ("UPDATE lyapunov_results SET embedding_model = 'Nomic' WHERE rowid = 1",),
            {"lyapunov-missing"},
        ),
    },
    "run-lockstep": {
        "a run behind the others": ((*UNFINISHED, *WITHOUT_LAST), {"diagram-current"}),
        "a run missing beside others": ((*UNFINISHED, *WITHOUT_ONE), set()),
    },
    "row-time": {
        "a word for a time": (("UPDATE runs SET inserted_at = 'soon', updated_at = 'soon' WHERE rowid = 1",), set()),
        "30 February": (
            ("UPDATE embeddings SET inserted_at = '2026-02-30T02:00:00.000000Z' WHERE rowid = 1",),
            set(),
        ),
        "a blob": (("UPDATE invocations SET updated_at = CAST(updated_at AS BLOB) WHERE rowid = 1",), set()),
        "updated before it was inserted": (
            ("UPDATE embedding_clusters SET updated_at = '2025-07-10T02:00:00.000000Z' WHERE rowid = 1",),
            set(),
        ),
        "a Lyapunov result without a valid time": (
            ("UPDATE lyapunov_results SET completed_at = '' WHERE rowid = 1",),
            set(),
        ),
        "a Lyapunov result completed before it started": (
            ("UPDATE lyapunov_results SET completed_at = '2025-07-10T02:00:00.000000Z' WHERE rowid = 1",),
            set(),
        ),
    },
    "clustering-layers": {
        "a layer gone": (
            (
                f"DELETE FROM embedding_clusters WHERE clustering_result_id = {LAYER}",
                f"DELETE FROM clustering_results WHERE id = {LAYER}",
            ),
            set(),
        ),
        "a layer of another number": ((f"UPDATE clustering_results SET layer = 7 WHERE id = {LAYER}",), set()),
        "other parameters": ((parameter("random_state", "43", f"id = {LAYER}"),), set()),
        "another time": (
            (f"UPDATE clustering_results SET completed_at = '2027-01-01T00:00:00.000000Z' WHERE id = {LAYER}",),
            {"cluster-consistent"},
        ),
        "an unknown number of layers": ((parameter("n_layers", "'two'", "1"),), set()),
    },
    "clustering-complete": {
        "an assignment gone": (
            (
                "DELETE FROM embedding_clusters WHERE rowid = "
                "(SELECT min(rowid) FROM embedding_clusters WHERE medoid_embedding_id IS NULL)",
            ),
            set(),
        ),
        "of another number": ((parameter("n_embeddings", "7", "embedding_model = 'Qwen3Embed'"),), set()),
        "of an unknown number": ((parameter("n_embeddings", "'all'", "embedding_model = 'Qwen3Embed'"),), set()),
    },
    "cluster-medoid": {
        "an outlier for a medoid": (
            (f"UPDATE embedding_clusters SET medoid_embedding_id = NULL WHERE embedding_id = {MEDOID}",),
            set(),
        ),
        "a medoid by another model": (
            (
                "UPDATE embedding_clusters SET medoid_embedding_id = (SELECT e.id FROM embeddings e WHERE "
                "e.embedding_model <> (SELECT embedding_model FROM embeddings WHERE id = embedding_id) LIMIT 1) "
                f"WHERE embedding_id = {MEDOID}",
            ),
            {"cluster-consistent"},
        ),
    },
}
CASES = [(rule, name) for rule, kinds in DAMAGES.items() for name in kinds]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A healthy file."""
    return elixir_file(tmp_path)


def damaged(path: Path, *statements: str) -> dict[str, list[Outcome]]:
    """What a file comes to after some statements."""
    with closing(sqlite3.connect(path)) as db, db:
        for statement in statements:
            assert db.execute(statement).rowcount, statement
    return examine_file(path)


def failed(outcomes: dict[str, list[Outcome]]) -> set[str]:
    """The rules of which an item failed."""
    return {name for name, those in outcomes.items() if any(each.status == "failed" for each in those)}


def said(outcomes: dict[str, list[Outcome]], rule: str) -> list[str]:
    """What a rule found, warnings included."""
    return [
        found.partition(": ")[2]
        for each in outcomes[rule]
        for found in (*(finding.sentence for finding in each.findings), *each.warnings)
    ]


@pytest.mark.parametrize(("rule", "name"), CASES, ids=[" - ".join(case) for case in CASES])
def test_damage_is_found_by_its_rule_and_by_no_other(rule: str, name: str, path: Path) -> None:
    statements, also = DAMAGES[rule][name]
    outcomes = damaged(path, *statements)
    assert rule in failed(outcomes)
    assert failed(outcomes) <= {rule, *also}
    for outcome in outcomes[rule]:
        assert not outcome.bug
        for finding in outcome.findings:
            assert finding.count >= 1
            assert "\n" not in finding.message


def test_every_rule_has_damage_that_it_finds() -> None:
    assert {*DAMAGES, "clustering-current"} == set(RULES)


def test_none_has_an_item_in_a_database_without_such_rows(tmp_path: Path) -> None:
    from databases import build

    assert not set(examine_file(build(tmp_path / "x.sqlite").path)) & set(RULES)
    assert set(RULES) <= set(examine_file(elixir_file(tmp_path)))


def test_embeddings_that_are_in_no_clustering_are_a_warning(path: Path) -> None:
    outcomes = damaged(
        path,
        "INSERT INTO embeddings SELECT (SELECT id FROM invocations WHERE type = 'image' LIMIT 1), updated_at, "
        "inserted_at, completed_at, started_at, vector, embedding_model, replace(id, '-7', '-8') FROM embeddings "
        "WHERE embedding_model = 'Qwen3Embed' LIMIT 1",
    )
    assert said(outcomes, "clustering-current") == [
        "the clustering of Qwen3Embed was made of 40 embeddings, and there are 41 now"
    ]
    assert [each.status for each in outcomes["clustering-current"]] == ["passed"]


def test_a_model_without_a_clustering_beside_others_is_a_warning(path: Path) -> None:
    gone = "SELECT id FROM clustering_results WHERE embedding_model = 'NomicVision'"
    outcomes = damaged(
        path,
        f"DELETE FROM embedding_clusters WHERE clustering_result_id IN ({gone})",
        "DELETE FROM clustering_results WHERE embedding_model = 'NomicVision'",
    )
    assert failed(outcomes) == set()
    assert said(outcomes, "clustering-current") == [
        "there is no clustering of the 40 embeddings by NomicVision, though other models have one"
    ]


def test_clusterings_without_layers_are_left_to_the_older_rule(path: Path) -> None:
    outcomes = damaged(path, "UPDATE clustering_results SET algorithm = 'hdbscan', parameters = '{\"epsilon\":0.4}'")
    assert failed(outcomes) == set()
    for rule in ("clustering-layers", "clustering-complete", "cluster-medoid", "clustering-current"):
        assert [each.note for each in outcomes[rule]] == ["there is no clustering in layers"]


def test_of_an_experiment_that_is_older_than_lyapunov_results_none_is_missing(path: Path) -> None:
    later = "UPDATE schema_migrations SET inserted_at = '2030-01-01T00:00:00' WHERE version = 20260327035722"
    outcomes = damaged(path, later, "DELETE FROM lyapunov_results")
    assert failed(outcomes) == set()
    notes = {each.note for each in outcomes["lyapunov-missing"]}
    assert notes == {"the experiment was completed before the research tool computed Lyapunov results"}


def test_where_one_result_is_left_the_others_are_missing_in_an_old_experiment_too(path: Path) -> None:
    later = "UPDATE schema_migrations SET inserted_at = '2030-01-01T00:00:00' WHERE version = 20260327035722"
    outcomes = damaged(path, later, "DELETE FROM lyapunov_results WHERE rowid > 1")
    assert failed(outcomes) == {"lyapunov-missing"}
    assert [each.status for each in outcomes["lyapunov-missing"]].count("failed") == 1


def test_in_an_unfinished_experiment_all_results_are_still_to_come(path: Path) -> None:
    outcomes = damaged(path, *UNFINISHED, "DELETE FROM lyapunov_results")
    assert failed(outcomes) == set()
    assert {each.status for each in outcomes["lyapunov-missing"]} == {"skipped"}
    assert all("mix experiment.resume" in each.note for each in outcomes["lyapunov-missing"])
    assert {each.status for each in outcomes["run-lockstep"]} == {"passed"}


SHORTER = (
    "DELETE FROM embeddings WHERE rowid = (SELECT max(rowid) FROM embeddings WHERE embedding_model = 'Qwen3Embed')"
)
WRONG_THERE: dict[str, tuple[tuple[str, ...], set[str]]] = {
    "nothing": ((), set()),
    "a result gone": (("DELETE FROM lyapunov_results WHERE rowid = 1",), set()),
    "that of another prompt": ((OF_ANOTHER,), {"lyapunov-current"}),
    "of a prompt that is not asked for": (DAMAGES["lyapunov-missing"]["a result of no runs"][0], {"lyapunov-missing"}),
    "twice": (DAMAGES["lyapunov-missing"]["a result twice"][0], {"lyapunov-missing"}),
    "not a blob": (data("'x'"), {"lyapunov-valid"}),
    "of embeddings that are not complete": ((SHORTER,), set()),
}


@pytest.mark.parametrize(("statements", "wanted"), WRONG_THERE.values(), ids=WRONG_THERE)
def test_in_an_unfinished_experiment_a_result_that_is_there_must_be_right(
    statements: tuple[str, ...], wanted: set[str], path: Path
) -> None:
    outcomes = damaged(path, *UNFINISHED, *statements)
    lyapunov = {rule for rule in failed(outcomes) if rule.startswith("lyapunov")}
    assert lyapunov == wanted
    for rule in wanted:
        assert any("not repaired: the research tool computes all Lyapunov" in text for text in said(outcomes, rule))
    notes = [each.note for each in outcomes["lyapunov-missing"] if each.status == "skipped"]
    assert notes
    assert all("mix experiment.resume" in note for note in notes)


def test_whether_a_result_is_current_is_unknown_where_a_vector_is_unusable(path: Path) -> None:
    outcomes = damaged(path, "UPDATE embeddings SET vector = zeroblob(length(vector)) WHERE rowid = 1")
    (text,) = said(outcomes, "lyapunov-current")
    assert text.startswith("whether 1 Lyapunov result is current is unknown: in run ")
    assert text.endswith("(embedding-vector)")


def test_a_group_that_does_not_fit_into_the_memory_is_not_examined(tmp_path: Path) -> None:
    database = Database(elixir_file(tmp_path, "--runs", "20", "--prompts", "1", "--networks", "1"))
    rules = registry()
    checker = Checker(database, rules, model_types([], []), CheckOptions())
    (experiment,) = database.read(lambda db: db.execute("SELECT min(id) FROM experimentconfig").fetchone())
    subject = Subject(experiment, None, "Qwen3Embed")
    assert not checker.look(rules["lyapunov-current"], subject).findings
    small = CheckOptions(space=MemoryRoom(bytes=4_000, limit=4_000))
    checker = Checker(database, rules, model_types([], []), small)
    with pytest.raises(TooLarge, match="the embeddings of SD35Medium → Moondream, prompt"):
        checker.look(rules["lyapunov-current"], subject)
    database.close()


def test_the_times_of_rows_may_be_of_any_day_and_a_lyapunov_result_may_not_be_complete(path: Path) -> None:
    outcomes = damaged(
        path,
        "UPDATE runs SET inserted_at = '2024-02-29T00:00:00.000000Z', updated_at = '2026-12-31T23:59:59.999999Z'",
        "UPDATE lyapunov_results SET completed_at = NULL WHERE rowid = 1",
    )
    assert failed(outcomes) == set()
    assert {each.status for each in outcomes["row-time"]} == {"passed"}


def test_what_is_wrong_with_times_of_rows_is_counted(path: Path) -> None:
    outcomes = damaged(path, "UPDATE runs SET inserted_at = 'soon' WHERE rowid < 3")
    assert said(outcomes, "row-time") == ["2 runs have no valid inserted_at or updated_at"]
    outcomes = damaged(path, "UPDATE runs SET inserted_at = '2030-01-01T00:00:00.000000Z' WHERE rowid < 3")
    assert said(outcomes, "row-time") == ["2 runs have an updated_at before their inserted_at"]


def test_edges_that_the_tool_never_counts_are_a_warning(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db, db:
        (data,) = db.execute("SELECT diagram_data FROM persistence_diagrams WHERE rowid = 1").fetchone()
        term = erlang_terms.decode(data)
        assert isinstance(term, dict)
        changed = erlang_terms.encode(term | {erlang_terms.Atom("num_edges"): 7})
        db.execute("UPDATE persistence_diagrams SET diagram_data = ? WHERE rowid = 1", (changed,))
    outcomes = examine_file(path)
    assert failed(outcomes) == set()
    (text,) = said(outcomes, "diagram-valid")
    assert text.endswith("holds arrays that the research tool does not write (num_edges 7)")
