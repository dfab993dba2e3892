"""The rules on databases of the Elixir generation: healthy ones of all schemas, damage, and what is no damage."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from elixir_files import SCHEMAS, elixir_file
from examine_item import examine_file

from pytest_panic_doctor.database.connection import Database, Unreadable
from pytest_panic_doctor.database.subject import Subject
from pytest_panic_doctor.examination.examiner import Examiner
from pytest_panic_doctor.examination.outcome import Outcome
from pytest_panic_doctor.rules.base import Finding, Rule, RuleContext, Scope, rule

NO_SEEDS = "the Elixir generation of the research tool has no seeds"
FINISHED = "the experiment is finished, so it need not be resumed"
NO_TABLE = "the file has no table of Lyapunov results (see schema)"
ONE = "(SELECT id FROM runs LIMIT 1)"
LAST = f"(SELECT id FROM invocations WHERE run_id = {ONE} ORDER BY sequence_number DESC LIMIT 1)"
MIDDLE = f"(SELECT id FROM invocations WHERE run_id = {ONE} AND sequence_number = 1)"
TEXT = f"(SELECT id FROM invocations WHERE run_id = {ONE} AND type = 'text' LIMIT 1)"
IMAGE = f"(SELECT id FROM invocations WHERE run_id = {ONE} AND type = 'image' LIMIT 1)"
VECTOR = f"(SELECT e.id FROM embeddings e JOIN invocations i ON i.id = e.invocation_id WHERE i.run_id = {ONE} LIMIT 1)"
WITHOUT_CLUSTERS = ("DELETE FROM embedding_clusters", "DELETE FROM clustering_results")


def damage(path: Path, *statements: str) -> Path:
    """Change a file, without the foreign keys that only the tool has SQLite enforce."""
    with closing(sqlite3.connect(path)) as db, db:
        for statement in statements:
            db.execute(statement)
    return path


def with_word(outcomes: dict[str, list[Outcome]], word: str) -> dict[str, list[Outcome]]:
    """The outcomes of one kind, by rule."""
    found = {name: [each for each in outcomes[name] if each.status == word] for name in outcomes}
    return {name: those for name, those in found.items() if those}


def warnings(outcomes: dict[str, list[Outcome]]) -> list[str]:
    """All warnings."""
    return [warning for each in outcomes.values() for outcome in each for warning in outcome.warnings]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A healthy file."""
    return elixir_file(tmp_path)


@pytest.mark.parametrize("seed", ["0", "1", "2"])
@pytest.mark.parametrize("schema", SCHEMAS)
def test_a_healthy_file_of_any_schema_passes_but_for_what_it_has_not(schema: int, seed: str, tmp_path: Path) -> None:
    path = elixir_file(tmp_path, "--schema", str(schema), "--seed", seed)
    before = path.read_bytes()
    outcomes = examine_file(path)
    assert with_word(outcomes, "failed") == {}
    notes = {each.note for those in with_word(outcomes, "skipped").values() for each in those}
    # Where there are few embeddings of a model, nothing is clustered.
    clustered = {"there is no cluster assignment", "there is no clustering result", "there is no clustering in layers"}
    lacking = {NO_TABLE} if schema < 5 else set()
    lacking |= {"the file's clusterings have no layers (see schema)"} if schema < 6 else set()
    assert notes - clustered == {NO_SEEDS, FINISHED} | lacking
    assert [each.split(": ")[0] for each in warnings(outcomes)] == ["schema"] * (schema < 7)
    assert path.read_bytes() == before


def test_the_reference_file_is_examined_whole(shared_data: Path, tmp_path: Path) -> None:
    copy = tmp_path / "x.sqlite"
    copy.write_bytes((shared_data / "elixir-healthy.sqlite").read_bytes())
    outcomes = examine_file(copy)
    assert with_word(outcomes, "failed") == {}
    assert set(with_word(outcomes, "skipped")) == {"invocation-seed", "run-lockstep"}
    assert warnings(outcomes) == []
    assert len(outcomes["diagram-current"]) == 48


def diagrams(change: str) -> tuple[str, ...]:
    """What changes the diagrams of one run."""
    return (f"UPDATE persistence_diagrams SET diagram_data = {change} WHERE run_id = {ONE}",)


def output(column: str, value: str, which: str) -> tuple[str, ...]:
    """What changes one column of an invocation."""
    return (f"UPDATE invocations SET {column} = {value} WHERE id = {which}",)


# What either generation can have is planted in test_damage.py.
DAMAGES: dict[str, tuple[tuple[str, ...], set[str]]] = {
    "a diagram torn": (
        diagrams("substr(diagram_data, 1, 40)"),
        {"diagram-valid"},
    ),
    "an npz for a diagram": (
        diagrams("x'504b0304'"),
        {"diagram-valid"},
    ),
    "the diagram of another run": (
        (
            "UPDATE persistence_diagrams SET diagram_data = (SELECT d.diagram_data FROM persistence_diagrams d WHERE "
            f"d.run_id > persistence_diagrams.run_id AND d.embedding_model = 'Qwen3Embed') WHERE run_id = {ONE} "
            "AND embedding_model = 'Qwen3Embed'",
        ),
        {"diagram-current"},
    ),
    "a type in upper case": (output("type", "'TEXT'", TEXT), {"invocation-output"}),
    "an image that is none": (output("output_image", "x'00'", IMAGE), {"output-plausible"}),
    "an image torn in its first box": (
        output("output_image", "substr(output_image, 1, 20)", IMAGE),
        {"output-plausible"},
    ),
    "a run number that is none": ((f"UPDATE runs SET run_number = 7 WHERE id = {ONE}",), {"experiment-runs"}),
    "another length of a run": ((f"UPDATE runs SET max_length = 3 WHERE id = {ONE}",), {"experiment-runs"}),
    "no runs asked for": (("UPDATE experiments SET num_runs = 0",), {"experiment-config"}),
    "too many runs asked for": (("UPDATE experiments SET num_runs = 1 << 40",), {"experiment-config"}),
    "a text for num_runs": (("UPDATE experiments SET num_runs = 'two'",), {"experiment-config"}),
    "a prompt twice": (
        ("UPDATE experiments SET prompts = json_insert(prompts, '$[#]', json_extract(prompts, '$[0]'))",),
        {"experiment-config"},
    ),
    "an id without dashes": (
        ("UPDATE persistence_diagrams SET id = replace(id, '-', '') WHERE rowid = 1",),
        {"id-format"},
    ),
    "an orphan": (("UPDATE persistence_diagrams SET run_id = 'none' WHERE rowid = 1",), {"orphan-diagram"}),
    "a column gone": (("ALTER TABLE invocations DROP COLUMN output_text",), {"schema"}),
    "a column of its own gone": (("ALTER TABLE experiments DROP COLUMN num_runs",), {"schema"}),
    "a view for a table": (
        (
            "ALTER TABLE embedding_clusters RENAME TO old",
            "CREATE VIEW embedding_clusters AS SELECT * FROM old",
        ),
        {"schema"},
    ),
    "a table without rowid": (
        (
            "ALTER TABLE embedding_clusters RENAME TO old",
            "CREATE TABLE embedding_clusters (id TEXT PRIMARY KEY, medoid_embedding_id TEXT, "
            "clustering_result_id TEXT, embedding_id TEXT, updated_at TEXT, inserted_at TEXT) WITHOUT ROWID",
            "INSERT INTO embedding_clusters SELECT id, medoid_embedding_id, clustering_result_id, embedding_id, "
            "updated_at, inserted_at FROM old",
        ),
        {"schema"},
    ),
    "a collation of its own": (
        ("ALTER TABLE embedding_clusters ADD COLUMN word TEXT COLLATE NOCASE",),
        {"schema"},
    ),
    "a column named rowid": (("ALTER TABLE embedding_clusters ADD COLUMN RowID",), {"schema"}),
    "lengths in a column of texts": (
        (
            "ALTER TABLE runs RENAME COLUMN max_length TO old",
            "ALTER TABLE runs ADD COLUMN max_length TEXT",
            "UPDATE runs SET max_length = old",
        ),
        {"schema"},
    ),
    "an experiment twice": (
        (
            "ALTER TABLE experiments RENAME TO old",
            "CREATE TABLE experiments AS SELECT * FROM old",
            "INSERT INTO experiments SELECT * FROM old",
        ),
        {"schema"},
    ),
    "a table gone": (("DROP TABLE embedding_clusters",), {"schema"}),
    "a table of its own gone": (("DROP TABLE lyapunov_results",), {"schema"}),
}


@pytest.mark.parametrize(("statements", "wanted"), DAMAGES.values(), ids=DAMAGES)
def test_damage_is_found(statements: tuple[str, ...], wanted: set[str], path: Path) -> None:
    failed = with_word(examine_file(damage(path, *statements)), "failed")
    assert wanted <= set(failed)
    assert not [each.error for those in failed.values() for each in those if each.bug]


def test_what_a_finding_says_names_the_run_number(path: Path) -> None:
    outcomes = examine_file(damage(path, f"UPDATE runs SET run_number = 7 WHERE id = {ONE}"))
    said = [finding.message for each in outcomes["experiment-runs"] for finding in each.findings]
    assert any("run number 0" in text for text in said)
    assert any("run number 7" in text for text in said)
    assert not any("seed" in text for text in said)


def test_a_constraint_that_is_gone_is_worth_a_warning(path: Path) -> None:
    found = warnings(examine_file(damage(path, "DROP INDEX embeddings_unique_invocation_model_index")))
    assert found == ["schema: embeddings has no UNIQUE (invocation_id, embedding_model)"]


def test_a_newer_schema_is_worth_a_warning(path: Path) -> None:
    outcomes = examine_file(damage(path, "INSERT INTO schema_migrations VALUES (20270101000000, NULL)"))
    assert warnings(outcomes)[0].startswith("schema: the schema (20270101000000) is newer")
    assert with_word(outcomes, "failed") == {}


SHORTER = (
    "DELETE FROM embeddings WHERE invocation_id IN (SELECT id FROM invocations WHERE sequence_number >= 2)",
    "DELETE FROM invocations WHERE sequence_number >= 2",
    "DELETE FROM embeddings WHERE embedding_model = 'NomicVision'",
    "DELETE FROM persistence_diagrams",
    "DELETE FROM lyapunov_results",
)
UNFINISHED = ("UPDATE experiments SET completed_at = NULL", *WITHOUT_CLUSTERS)


def experiments(path: Path) -> Iterator[str]:
    """The ids of the experiments."""
    with closing(sqlite3.connect(path)) as db:
        yield from (row for (row,) in db.execute("SELECT id FROM experiments").fetchall())


def test_an_unfinished_experiment_is_not_sick_for_what_is_still_to_come(path: Path) -> None:
    outcomes = examine_file(damage(path, *UNFINISHED, *SHORTER))
    assert with_word(outcomes, "failed") == {}
    assert warnings(outcomes) == []
    for name in ("invocation-sequence", "embedding-missing", "diagram-missing"):
        notes = [each.note for each in outcomes[name] if each.status == "skipped"]
        assert notes
        assert any(
            f"the experiment is not finished: mix experiment.resume {each}" in notes[0] for each in experiments(path)
        )


def test_runs_that_are_not_yet_there_may_still_come(path: Path) -> None:
    gone = f"(SELECT id FROM runs WHERE id <> {ONE})"
    less = (
        f"DELETE FROM embeddings WHERE invocation_id IN (SELECT id FROM invocations WHERE run_id IN {gone})",
        f"DELETE FROM invocations WHERE run_id IN {gone}",
        f"DELETE FROM persistence_diagrams WHERE run_id IN {gone}",
        "DELETE FROM lyapunov_results",
        f"DELETE FROM runs WHERE id <> {ONE}",
        "DELETE FROM embeddings",
        "DELETE FROM persistence_diagrams",
        "DELETE FROM invocations",
    )
    outcomes = examine_file(damage(path, *UNFINISHED, *less))
    assert with_word(outcomes, "failed") == {}
    assert {"may still come" in each.note for each in outcomes["experiment-runs"]} == {True}


def test_an_experiment_that_was_never_started_lacks_nothing(path: Path) -> None:
    started = "UPDATE experiments SET started_at = NULL, completed_at = NULL"
    empty = [
        f"DELETE FROM {table}"
        for table in ("embeddings", "persistence_diagrams", "lyapunov_results", "invocations", "runs")
    ]
    outcomes = examine_file(damage(path, *WITHOUT_CLUSTERS, started, *empty))
    assert with_word(outcomes, "failed") == {}
    assert {each.note for each in outcomes["experiment-runs"]} == {
        "8 runs may still come: the experiment has not been started"
    }


STILL_WRONG: dict[str, tuple[tuple[str, ...], str]] = {
    "a gap": (
        (f"DELETE FROM embeddings WHERE invocation_id = {MIDDLE}", f"DELETE FROM invocations WHERE id = {MIDDLE}"),
        "invocation-sequence",
    ),
    "a vector torn": ((f"UPDATE embeddings SET vector = x'00' WHERE id = {VECTOR}",), "embedding-vector"),
    "a diagram NULL, which the tool never computes": (
        diagrams("NULL"),
        "diagram-missing",
    ),
    "a diagram torn": (
        diagrams("x'83'"),
        "diagram-valid",
    ),
    "a run that nobody asked for": ((f"UPDATE runs SET run_number = 9 WHERE id = {ONE}",), "experiment-runs"),
}


@pytest.mark.parametrize(("statements", "wanted"), STILL_WRONG.values(), ids=STILL_WRONG)
def test_in_an_unfinished_experiment_what_is_wrong_is_wrong(
    statements: tuple[str, ...], wanted: str, path: Path
) -> None:
    assert wanted in with_word(examine_file(damage(path, *UNFINISHED, *statements)), "failed")


def test_a_model_of_which_no_row_is_left_is_one_warning_for_each_experiment(path: Path) -> None:
    gone = [
        *WITHOUT_CLUSTERS,
        *(
            f"DELETE FROM {table} WHERE embedding_model = 'NomicVision'"
            for table in ("embeddings", "persistence_diagrams", "lyapunov_results")
        ),
    ]
    outcomes = examine_file(damage(path, *gone))
    assert with_word(outcomes, "failed") == {}
    assert {each.split(": ")[0] for each in warnings(outcomes)} == {"embedding-model"}
    assert len(warnings(outcomes)) == 2
    said = {each.note for each in outcomes["diagram-missing"] if each.status == "skipped"}
    assert said == {"no row of the whole file is by NomicVision (see embedding-model)"}


EMPTIED = ("embeddings", "persistence_diagrams", "lyapunov_results", "invocations", "runs")
"""Tables in the order in which their rows are made, the last first, so that no row is an orphan on the way."""


@pytest.mark.parametrize("started", ["started_at", "NULL"])
def test_an_experiment_of_which_no_embedding_is_left_has_lost_them(started: str, path: Path) -> None:
    gone = [f"DELETE FROM {table}" for table in EMPTIED[:3]]
    outcomes = examine_file(damage(path, *WITHOUT_CLUSTERS, *gone, f"UPDATE experiments SET started_at = {started}"))
    assert {each.status for each in outcomes["embedding-model"]} == {"failed"}


def test_an_experiment_of_which_no_run_is_left_has_lost_them_though_its_models_were_retired(path: Path) -> None:
    gone = [f"DELETE FROM {table}" for table in EMPTIED]
    retired = """UPDATE experiments SET networks = '[["SDXLTurbo","Phi4Vision"]]'"""
    outcomes = examine_file(damage(path, *WITHOUT_CLUSTERS, *gone, retired))
    assert {each.status for each in outcomes["experiment-runs"]} == {"failed"}


@pytest.mark.parametrize("completed", ["completed_at", "NULL"])
def test_an_experiment_that_was_never_started_has_no_runs(completed: str, path: Path) -> None:
    gone = [f"DELETE FROM {table}" for table in EMPTIED[:3]]
    never = f"UPDATE experiments SET started_at = NULL, completed_at = {completed}"
    outcomes = examine_file(damage(path, *WITHOUT_CLUSTERS, *gone, never))
    said = [finding.message for each in outcomes["experiment-runs"] for finding in each.findings]
    assert said == ["8 runs are there, though the experiment was not started"] * 2


BOXES = {
    "cut": "substr(output_image, 1, length(output_image) - 1)",
    "cut behind its description": "substr(output_image, 1, 275)",
    "with a byte behind it": "CAST(output_image || x'00' AS BLOB)",
    "with a box of no length": "CAST(output_image || x'0000000466726565' AS BLOB)",
    "of empty boxes": "CAST(substr(output_image, 1, 32) || zeroblob(0) || x'0000000866726565' AS BLOB)",
}


@pytest.mark.parametrize("value", BOXES.values(), ids=BOXES)
def test_an_avif_file_ends_with_its_boxes(value: str, path: Path) -> None:
    failed = with_word(examine_file(damage(path, *output("output_image", value, IMAGE))), "failed")
    assert set(failed) == {"output-plausible"}
    assert "1 of another length than its header says" in failed["output-plausible"][0].findings[0].message


def test_an_avif_file_may_say_its_lengths_in_eight_bytes_or_that_the_last_box_goes_on_to_its_end(path: Path) -> None:
    more = "CAST(output_image || x'00000001667265650000000000000014' || zeroblob(4) || x'0000000066726565ff' AS BLOB)"
    assert with_word(examine_file(damage(path, *output("output_image", more, IMAGE))), "failed") == {}


def test_an_avif_file_of_a_table_that_opens_no_blob_is_read_too(path: Path) -> None:
    generated = "ALTER TABLE invocations ADD COLUMN size INTEGER GENERATED ALWAYS AS (length(output_image)) VIRTUAL"
    assert with_word(examine_file(damage(path, generated)), "failed") == {}
    failed = with_word(examine_file(damage(path, *output("output_image", BOXES["cut"], IMAGE))), "failed")
    assert set(failed) == {"output-plausible"}


@pytest.mark.parametrize("left", ["embeddings", "persistence_diagrams", "lyapunov_results"])
def test_a_single_row_of_a_model_makes_all_others_missing(left: str, path: Path) -> None:
    tables = ("embeddings", "persistence_diagrams", "lyapunov_results")
    gone = [
        f"DELETE FROM {table} WHERE embedding_model = 'NomicVision'"
        + (
            f" AND rowid > (SELECT min(rowid) FROM {table} WHERE embedding_model = 'NomicVision')"
            if table == left
            else ""
        )
        for table in tables
    ]
    failed = with_word(examine_file(damage(path, *WITHOUT_CLUSTERS, *gone)), "failed")
    assert {"embedding-missing", "diagram-missing"} <= set(failed)


@pytest.mark.parametrize(("model", "word"), [("Phi4Vision", "passed"), ("Pixtral", "failed")])
def test_a_network_without_runs_is_no_damage_where_its_model_was_retired(model: str, word: str, path: Path) -> None:
    more = json.dumps(["GLMImage", model], separators=(",", ":"))
    outcomes = examine_file(
        damage(path, f"UPDATE experiments SET networks = json_insert(networks, '$[#]', json('{more}'))")
    )
    assert {each.status for each in outcomes["experiment-runs"]} == {word}
    assert len(warnings(outcomes)) == (2 if word == "passed" else 0)


@rule("own-texts", scope=Scope.EXPERIMENT, description="every text has a vowel")
def own_rule(context: RuleContext) -> Iterator[Finding]:
    """A rule of a user's, against the canonical tables."""
    query = (
        "SELECT i.id, i.seed, r.seed, i.output_image_data FROM run r JOIN invocation i ON i.run_id = r.id "
        "WHERE r.experiment_id = :experiment AND i.type = 'TEXT'"
    )
    rows = context.db.execute(query, context.params).fetchall()
    context.examined(len(rows), "invocation")
    yield context.finding("looked", table="invocation", ids=[row[0] for row in rows])


def test_a_users_own_rule_works_on_it(path: Path) -> None:
    database = Database(path)
    mine: dict[str, Rule] = {own_rule.id: own_rule}
    outcome = Examiner(database, mine, {}).examine(own_rule, Subject(next(experiments(path))))
    database.close()
    assert outcome.findings[0].count > 0


def test_a_file_of_the_first_days_is_refused(path: Path) -> None:
    damage(path, "ALTER TABLE experiments ADD COLUMN seeds TEXT")
    with pytest.raises(Unreadable, match="2 to 7 February 2026, which the research tool itself cannot migrate"):
        Database(path).check_readable()


def test_a_file_in_use_and_one_with_a_log_are_read(path: Path) -> None:
    with closing(sqlite3.connect(path)) as user:
        user.execute("PRAGMA journal_mode = WAL")
        user.execute(f"UPDATE invocations SET output_text = NULL WHERE id = {TEXT}")
        user.commit()
        assert Path(f"{path}-wal").stat().st_size > 0
        assert set(with_word(examine_file(path), "failed")) == {"invocation-output"}


def test_text_that_is_no_utf8_stops_nothing(path: Path) -> None:
    damage(path, f"UPDATE invocations SET output_text = CAST(x'ff41' AS TEXT) WHERE id = {TEXT}")
    assert set(with_word(examine_file(path), "failed")) == {"output-plausible"}
