"""Repairs of databases of the Elixir generation: every kind, in any order, with the tool's own connection open."""

from __future__ import annotations

import re
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
from elixir_files import SMALL, elixir_file, template
from numpy.typing import NDArray
from repair_item import RULES, fix_file
from small_database import SmallDatabase

from pytest_panic_doctor.compute.budget import Budget
from pytest_panic_doctor.compute.small_clouds import SmallFirst
from pytest_panic_doctor.database.connection import Database
from pytest_panic_doctor.database.elixir_generation import ELIXIR
from pytest_panic_doctor.database.subject import Rows, Subject
from pytest_panic_doctor.examination import manifest as manifests
from pytest_panic_doctor.examination.examiner import Examiner, RepairResult
from pytest_panic_doctor.examination.outcome import Outcome
from pytest_panic_doctor.examination.parsing import model_types
from pytest_panic_doctor.examination.running_experiments import Running
from pytest_panic_doctor.repair import RepairFailed, RepairRefused, Writer, repairs, undo
from pytest_panic_doctor.repair.journal import selection
from pytest_panic_doctor.repair.journal.identity import journal_path
from pytest_panic_doctor.repair.journal.reading import written
from pytest_panic_doctor.repair.journal.repair_record import Repair
from pytest_panic_doctor.repair.journal.selection import Selection
from pytest_panic_doctor.repair.journal.size import SessionTotals
from pytest_panic_doctor.repair.journal.writer import Change
from pytest_panic_doctor.repair.lyapunov import FASTER, recompute_results
from pytest_panic_doctor.repair.preview import DatabasePlanner
from pytest_panic_doctor.repair.recompute import RepairContext
from pytest_panic_doctor.rules.base import RepairKind
from pytest_panic_doctor.rules.lockstep import LAST_STEP

ONE = "(SELECT id FROM runs ORDER BY id LIMIT 1)"
EXPERIMENT = f"(SELECT experiment_id FROM runs WHERE id = {ONE})"
LAST = f"(SELECT id FROM invocations WHERE run_id = {ONE} ORDER BY sequence_number DESC LIMIT 1)"
TEXT = f"(SELECT id FROM invocations WHERE run_id = {ONE} AND type = 'text' LIMIT 1)"
IMAGE = f"(SELECT id FROM invocations WHERE run_id = {ONE} AND type = 'image' LIMIT 1)"
WITHOUT_CLUSTERS = ("DELETE FROM embedding_clusters", "DELETE FROM clustering_results")
NOBODY = "019f0000-0000-7000-8000-00000000dead"
DIAGRAM = f"rowid = (SELECT min(rowid) FROM persistence_diagrams WHERE run_id = {ONE})"
DIAGRAM_GONE = f"DELETE FROM persistence_diagrams WHERE {DIAGRAM}"
UNFINISHED = f"UPDATE experiments SET completed_at = NULL WHERE id = {EXPERIMENT}"
MEDOIDS = "SELECT medoid_embedding_id FROM embedding_clusters WHERE medoid_embedding_id IS NOT NULL"


def diagrams(change: str, where: str = DIAGRAM) -> str:
    """What changes diagrams."""
    return f"UPDATE persistence_diagrams SET diagram_data = {change} WHERE {where}"


def again(table: str, columns: str, **values: str) -> str:
    """What inserts a row of a table once more, with other values and an id of its own."""
    shown = ", ".join(values.get(name, name) for name in columns.split(", "))
    return f"INSERT INTO {table} (id, {columns}) SELECT '{ELIXIR.new_id()}', {shown} FROM {table} WHERE {DIAGRAM}"


STAMPS = "updated_at, inserted_at, completed_at, started_at"
BEHIND = (
    *WITHOUT_CLUSTERS,
    UNFINISHED,
    f"DELETE FROM lyapunov_results WHERE experiment_id = {EXPERIMENT}",
    f"DELETE FROM persistence_diagrams WHERE run_id IN (SELECT id FROM runs WHERE experiment_id = {EXPERIMENT})",
    f"DELETE FROM embeddings WHERE invocation_id = {LAST}",
    f"DELETE FROM invocations WHERE id = {LAST}",
)
"""What stops an experiment amid its last step: one run is a step shorter than the others of its network."""

F = "'f' || substr(id, 2)"
OF_ONE = f"SELECT id FROM invocations WHERE run_id = {ONE}"
RUN_OF_NOBODY = (
    f"INSERT INTO runs SELECT '{NOBODY}', updated_at, inserted_at, initial_prompt, max_length, network, {F}, "
    f"run_number FROM runs WHERE id = {ONE}",
    "INSERT INTO invocations SELECT 'f' || substr(input_invocation_id, 2), 'f' || substr(run_id, 2), updated_at, "
    f"inserted_at, completed_at, started_at, output_image, output_text, sequence_number, type, model, {F} "
    f"FROM invocations WHERE run_id = {ONE}",
    "INSERT INTO embeddings SELECT 'f' || substr(invocation_id, 2), updated_at, inserted_at, completed_at, started_at, "
    f"vector, embedding_model, {F} FROM embeddings WHERE invocation_id IN ({OF_ONE})",
    "INSERT INTO persistence_diagrams SELECT 'f' || substr(run_id, 2), updated_at, inserted_at, completed_at, "
    f"started_at, diagram_data, embedding_model, {F} FROM persistence_diagrams WHERE run_id = {ONE}",
    "INSERT INTO embedding_clusters SELECT medoid_embedding_id, clustering_result_id, 'f' || substr(embedding_id, 2), "
    f"updated_at, inserted_at, {F} FROM embedding_clusters WHERE embedding_id IN "
    f"(SELECT id FROM embeddings WHERE invocation_id IN ({OF_ONE}))",
)
"""A copy of a run and of all that depends on it, of an experiment that does not exist."""

CASES: dict[str, tuple[str, tuple[str, ...]]] = {
    "a diagram twice": (
        "diagram-duplicate",
        (
            "DROP INDEX persistence_diagrams_unique_run_model_index",
            again("persistence_diagrams", f"run_id, embedding_model, diagram_data, {STAMPS}"),
        ),
    ),
    "a run of no experiment": ("orphan-run", RUN_OF_NOBODY),
    "embeddings of no invocation": (
        "orphan-embedding",
        (
            *WITHOUT_CLUSTERS,
            "DROP INDEX embeddings_unique_invocation_model_index",
            "INSERT INTO embeddings SELECT 'none', updated_at, inserted_at, completed_at, started_at, vector, "
            f"embedding_model, {F} FROM embeddings WHERE invocation_id = {TEXT}",
        ),
    ),
    "an assignment of no embedding": (
        "orphan-cluster",
        (
            f"INSERT INTO embedding_clusters SELECT medoid_embedding_id, clustering_result_id, '{NOBODY}', updated_at, "
            f"inserted_at, {F} FROM embedding_clusters WHERE rowid = 1",
        ),
    ),
    "a Lyapunov result gone": ("lyapunov-missing", ("DELETE FROM lyapunov_results WHERE rowid = 1",)),
    "all Lyapunov results of an experiment gone": (
        "lyapunov-missing",
        (f"DELETE FROM lyapunov_results WHERE experiment_id = {EXPERIMENT}",),
    ),
    "a Lyapunov result of no runs": (
        "lyapunov-missing",
        ("UPDATE lyapunov_results SET prompt = 'nobody' WHERE rowid = 1",),
    ),
    "a Lyapunov result twice": (
        "lyapunov-missing",
        (
            "DROP INDEX lyapunov_results_unique_experiment_network_prompt_model_index",
            f"INSERT INTO lyapunov_results SELECT experiment_id, {STAMPS}, lyapunov_data, prompt, network, "
            f"embedding_model, '{NOBODY}' FROM lyapunov_results WHERE rowid = 1",
        ),
    ),
    "a Lyapunov result NULL": ("lyapunov-valid", ("UPDATE lyapunov_results SET lyapunov_data = NULL WHERE rowid < 3",)),
    "a Lyapunov result torn": (
        "lyapunov-valid",
        ("UPDATE lyapunov_results SET lyapunov_data = substr(lyapunov_data, 1, 20) WHERE rowid = 1",),
    ),
    "the Lyapunov result of another prompt": (
        "lyapunov-current",
        (
            "UPDATE lyapunov_results SET lyapunov_data = (SELECT o.lyapunov_data FROM lyapunov_results o WHERE "
            "o.experiment_id = lyapunov_results.experiment_id AND o.embedding_model = lyapunov_results.embedding_model "
            "AND o.prompt <> lyapunov_results.prompt LIMIT 1) WHERE rowid = 1",
        ),
    ),
    "a Lyapunov result of no experiment": (
        "orphan-lyapunov",
        (
            f"INSERT INTO lyapunov_results SELECT '{NOBODY}', {STAMPS}, lyapunov_data, prompt, network, "
            f"embedding_model, {F} FROM lyapunov_results WHERE rowid = 1",
        ),
    ),
    "a Lyapunov result of a model that is not used": (
        "orphan-lyapunov",
        (
            f"INSERT INTO lyapunov_results SELECT experiment_id, {STAMPS}, lyapunov_data, prompt, network, "
            f"'Nomic', '{NOBODY}' FROM lyapunov_results WHERE rowid = 1",
        ),
    ),
    "a run behind the others": ("run-lockstep", BEHIND),
}
"""Damage, and the rule that repairs it; what either generation can have is in test_repairer.py."""


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SmallFirst]:
    """One for all tests."""
    with SmallFirst(budget=Budget(tmp_path_factory.mktemp("budget"), 4_000_000_000)) as made:
        yield made


@pytest.fixture
def file(tmp_path: Path) -> SmallDatabase:
    """A healthy file, in WAL mode."""
    return SmallDatabase(elixir_file(tmp_path))


def damaged(file: SmallDatabase, *statements: str) -> None:
    """Damage a file by another program, without foreign keys."""
    with closing(sqlite3.connect(file.path)) as db, db:
        for statement in statements:
            assert db.execute(statement).rowcount, statement


def words(outcomes: dict[str, list[Outcome]]) -> dict[str, list[str]]:
    """What the items of each rule came to."""
    return {rule: sorted(outcome.status for outcome in found) for rule, found in sorted(outcomes.items())}


def failures(outcomes: dict[str, list[Outcome]]) -> dict[str, list[str]]:
    """The notes and findings of the items that failed, by rule."""
    return {
        rule: [f"{each.note} | {' | '.join(found.message for found in each.findings)}" for each in those]
        for rule, those in (
            (rule, [each for each in all_ if each.status == "failed"]) for rule, all_ in outcomes.items()
        )
        if those
    }


def dangling(file: SmallDatabase) -> list[object]:
    """What SQLite's own check of the foreign keys finds."""
    with closing(file.connect()) as db:
        return db.execute("PRAGMA foreign_key_check").fetchall()


@pytest.mark.parametrize("name", CASES)
def test_it_is_repaired_in_any_order_and_comes_back(name: str, file: SmallDatabase, runner: SmallFirst) -> None:
    rule, statements = CASES[name]
    damaged(file, *statements)
    before, schema = file.dump(), file.schema()
    found = {}
    with closing(file.connect()) as tool:
        tool.execute("PRAGMA foreign_keys = ON")
        assert tool.execute("SELECT count(*) FROM experiments").fetchone() == (2,)
        for order in (1, -1):
            outcomes = fix_file(file.path, runner, order, most="100%")
            found[order] = words(outcomes)
            assert failures(outcomes) == {}
            assert "fixed" in found[order][rule]
            assert dangling(file) == []
            after = file.dump()
            again = fix_file(file.path, runner, order, most="100%")
            assert failures(again) == {}
            assert file.dump() == after
            assert file.schema() == schema
            file.check_nothing_lost(before)
            undo(file.path, "all")
            assert file.dump() == before
    assert found[1] == found[-1]


def row(file: SmallDatabase, sql: str) -> dict[str, object]:
    """The only row of a query, by column."""
    with closing(file.connect()) as db:
        db.row_factory = sqlite3.Row
        (found,) = db.execute(sql).fetchall()
        return dict(found)


def test_a_new_row_has_what_the_research_tool_writes(file: SmallDatabase, runner: SmallFirst) -> None:
    damaged(file, DIAGRAM_GONE, *CASES["a Lyapunov result gone"][1])
    known = set(file.values("SELECT id FROM persistence_diagrams UNION SELECT id FROM lyapunov_results"))
    begun = time.time()
    assert failures(fix_file(file.path, runner)) == {}
    for table in ("persistence_diagrams", "lyapunov_results"):
        (new,) = set(file.values(f"SELECT id FROM {table}")) - known
        found = row(file, f"SELECT * FROM {table} WHERE id = '{new}'")
        assert begun - 1 <= (ELIXIR.time_of_id(str(new)) or 0) <= time.time() + 1
        assert found["inserted_at"] == found["updated_at"]
        times = [str(found[name]) for name in ("started_at", "completed_at", "inserted_at")]
        assert times == sorted(times)
        for each in times:
            assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", each)
            assert abs(datetime.fromisoformat(each).timestamp() - begun) < 60


def test_a_changed_row_keeps_when_it_was_inserted(file: SmallDatabase, runner: SmallFirst) -> None:
    which = f"SELECT * FROM persistence_diagrams WHERE {DIAGRAM}"
    damaged(file, diagrams("NULL"))
    before = row(file, which)
    assert failures(fix_file(file.path, runner)) == {}
    after = row(file, which)
    assert {name for name in before if before[name] != after[name]} == {
        "diagram_data",
        "updated_at",
        "started_at",
        "completed_at",
    }
    assert str(after["updated_at"]) > str(before["updated_at"])


def test_a_value_is_written_to_the_column_of_the_file(file: SmallDatabase) -> None:
    (image,) = file.values(f"SELECT id FROM invocations WHERE id = {IMAGE}")
    with closing(Writer(file.path, "session", lambda: True)) as writer:
        for column in ("seed", "type", "nothing"):
            with pytest.raises(RepairRefused, match=f"Table invocations has no column {column}: nothing was written"):
                writer.update("x", Subject(), "invocation", str(image), {column: "0"}, lambda _: True)
        writer.update("x", Subject(), "invocation", str(image), {"output_image_data": b"new"}, lambda _: True)
    assert file.values(f"SELECT output_image FROM invocations WHERE id = {IMAGE}") == [b"new"]


LATER_STEPS = (
    *WITHOUT_CLUSTERS,
    UNFINISHED,
    f"DELETE FROM lyapunov_results WHERE experiment_id = {EXPERIMENT}",
    "DELETE FROM embeddings WHERE invocation_id IN (SELECT i.id FROM invocations i JOIN runs r ON r.id = i.run_id "
    f"WHERE r.experiment_id = {EXPERIMENT} AND i.sequence_number >= 2)",
    "DELETE FROM invocations WHERE sequence_number >= 2 AND run_id IN "
    f"(SELECT id FROM runs WHERE experiment_id = {EXPERIMENT})",
)
"""What leaves an experiment that is not finished, with runs of two invocations."""


def test_no_diagram_is_computed_in_a_run_that_will_be_continued(file: SmallDatabase, runner: SmallFirst) -> None:
    damaged(file, *LATER_STEPS, diagrams("x'00'"))
    before = file.dump()
    found = failures(fix_file(file.path, runner))
    assert set(found) == {"diagram-valid", "diagram-current"}
    for note in found["diagram-valid"]:
        assert "; not repaired: the run has 2 of 4 invocations, and its experiment is not finished: mix exp" in note
    assert file.dump() == before


def test_in_a_run_that_is_complete_it_is(file: SmallDatabase, runner: SmallFirst) -> None:
    damaged(file, *WITHOUT_CLUSTERS, UNFINISHED, diagrams("NULL"))
    outcomes = fix_file(file.path, runner)
    assert failures(outcomes) == {}
    assert words(outcomes)["diagram-missing"].count("fixed") == 1


def test_a_lyapunov_result_of_an_unfinished_experiment_is_left_to_the_tool(
    file: SmallDatabase, runner: SmallFirst
) -> None:
    wrong = f"UPDATE lyapunov_results SET lyapunov_data = NULL WHERE experiment_id = {EXPERIMENT}"
    damaged(file, *WITHOUT_CLUSTERS, UNFINISHED, wrong)
    before = file.dump()
    found = failures(fix_file(file.path, runner))
    assert set(found) == {"lyapunov-valid"}
    assert all(
        "the research tool computes all Lyapunov results again at the end" in note for note in found["lyapunov-valid"]
    )
    assert file.dump() == before


class Overtaken(Writer):
    """A writer that something happens before: in the first `times` calls, between a computation and its write."""

    def __init__(self, path: Path, meanwhile: Callable[[], object], times: int = 1) -> None:
        super().__init__(path, "session", lambda: True)
        self.meanwhile, self.times = meanwhile, times

    def write(self, changes: Sequence[Change]) -> list[Repair | None]:
        """Let it happen, then write."""
        self.times -= 1
        if self.times >= 0:
            self.meanwhile()
        return super().write(changes)


NULL_RESULTS = "UPDATE lyapunov_results SET lyapunov_data = NULL"
TORN_RESULTS = "UPDATE lyapunov_results SET lyapunov_data = CAST(random() AS BLOB)"


def recompute_lyapunov(file: SmallDatabase, writer: Writer) -> RepairResult:
    """Repair the first experiment's results of one model."""
    with closing(file.connect()) as db:
        experiment, model = db.execute("SELECT experiment_id, embedding_model FROM lyapunov_results").fetchone()
    subject = Subject(experiment, embedding_model=model)
    shared = RepairContext(Database(file.path), writer, model_types((), ()))
    return recompute_results(shared, "lyapunov-valid", subject)


def test_lyapunov_results_that_another_worker_wrote_first_are_no_failure(file: SmallDatabase) -> None:
    damaged(file, NULL_RESULTS)
    with (
        closing(Writer(file.path, "another", lambda: True)) as other,
        closing(Overtaken(file.path, lambda: recompute_lyapunov(file, other))) as writer,
    ):
        assert recompute_lyapunov(file, writer) == FASTER
    assert {repair.session for repair in repairs(file.path)} == {"another"}


def test_lyapunov_results_are_computed_again_where_their_rows_have_changed(file: SmallDatabase) -> None:
    damaged(file, NULL_RESULTS)
    with closing(Overtaken(file.path, lambda: damaged(file, TORN_RESULTS))) as writer:
        assert recompute_lyapunov(file, writer).measures == {"results": len(repairs(file.path))}
        assert recompute_lyapunov(file, writer) == FASTER


def test_lyapunov_results_that_change_at_each_attempt_are_not_written(file: SmallDatabase) -> None:
    damaged(file, NULL_RESULTS)
    with (
        closing(Overtaken(file.path, lambda: damaged(file, TORN_RESULTS), times=3)) as writer,
        pytest.raises(RepairFailed, match="the embeddings changed 3 times while the results were computed"),
    ):
        recompute_lyapunov(file, writer)
    assert repairs(file.path) == []


def test_a_result_whose_runs_are_missing_is_kept(file: SmallDatabase, runner: SmallFirst) -> None:
    of_run = f"invocation_id IN (SELECT id FROM invocations WHERE run_id = {ONE})"
    damaged(file, *WITHOUT_CLUSTERS, f"DELETE FROM embeddings WHERE {of_run}")
    before = file.dump()["lyapunov_results"]
    outcomes = fix_file(file.path, runner)
    assert {"embedding-missing", "lyapunov-missing"} <= set(failures(outcomes))
    (note, *_) = failures(outcomes)["lyapunov-missing"]
    assert note.startswith("not repaired: the experiment asks for such runs: bring back what is missing of them")
    assert file.dump()["lyapunov_results"] == before


STEP = "(SELECT max(sequence_number) FROM invocations)"
LOCKSTEP: dict[str, tuple[tuple[str, ...], str]] = {
    "two steps behind": (
        (*BEHIND, BEHIND[-2], BEHIND[-1]),
        "more than one step would be lost: take the invocations beyond the shortest run away by hand",
    ),
    "a run missing": (
        (
            *BEHIND[:4],
            f"DELETE FROM embeddings WHERE invocation_id IN ({OF_ONE})",
            f"DELETE FROM invocations WHERE run_id = {ONE}",
            f"DELETE FROM runs WHERE id = {ONE}",
        ),
        "bring the missing runs back",
    ),
    "an orphan of that step": (
        (*BEHIND[:4], f"UPDATE invocations SET run_id = '{NOBODY}' WHERE id = {LAST}"),
        "an invocation of that step belongs to no run: correct its reference (orphan-invocation)",
    ),
}


@pytest.mark.parametrize("name", LOCKSTEP)
@pytest.mark.parametrize("order", [1, -1])
def test_what_a_person_has_to_decide_is_not_taken(
    name: str, order: int, file: SmallDatabase, runner: SmallFirst
) -> None:
    statements, reason = LOCKSTEP[name]
    damaged(file, *statements)
    before = file.dump()["invocations"]
    found = failures(fix_file(file.path, runner, order, most="100%"))
    assert all(reason in note for note in found["run-lockstep"])
    assert file.dump()["invocations"] == before


def test_nothing_is_taken_from_an_experiment_that_is_running(file: SmallDatabase, runner: SmallFirst) -> None:
    damaged(file, *BEHIND, f"UPDATE invocations SET id = '{ELIXIR.new_id()}' WHERE id = {LAST}")
    before = file.dump()
    outcomes = fix_file(file.path, runner, running=Running(file.path))
    assert "is running: it is not completed" in failures(outcomes)["run-lockstep"][0]
    assert file.dump()["invocations"] == before["invocations"]


def test_the_surplus_stays_where_the_tool_has_gone_on_by_then(file: SmallDatabase) -> None:
    damaged(file, *BEHIND)
    found = row(file, f"SELECT experiment_id, network, max_length - 1 AS length FROM runs WHERE id = {ONE}")
    experiment, network, length = found.values()
    params: dict[str, str | int | None] = {
        "experiment": str(experiment),
        "network": str(network),
        "shortest": int(str(length)),
    }
    rows = Rows("invocation", LAST_STEP, params)
    assert len(file.values(f"SELECT id FROM invocations WHERE sequence_number = {length}")) > 1
    for shortest in (int(str(length)) - 1, int(str(length)) + 1):
        with closing(Writer(file.path, "session", lambda: True)) as writer:
            other = Rows("invocation", LAST_STEP, params | {"shortest": shortest})
            assert writer.quarantine("run-lockstep", Subject(str(experiment)), other) is None
    damaged(file, f"UPDATE experiments SET completed_at = started_at WHERE id = '{experiment}'")
    with closing(Writer(file.path, "session", lambda: True)) as writer:
        assert writer.quarantine("run-lockstep", Subject(str(experiment)), rows) is None


def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let each transaction take few rows."""
    for name in ("FIRST_ROWS", "MIN_ROWS", "MAX_ROWS", "MIN_SCANNED_ROWS"):
        monkeypatch.setattr(selection, name, 3)


def test_no_transaction_leaves_a_reference_without_its_row(
    file: SmallDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Invocations go from the end of their run, and everything before what it refers to."""
    small_batches(monkeypatch)
    states: list[list[object]] = []
    (experiment,) = file.values(f"SELECT experiment_id FROM runs WHERE id = {ONE}")
    rows = Rows("run", f"SELECT id FROM run WHERE experiment_id = '{experiment}'")
    before = file.dump()
    with closing(Writer(file.path, "session", lambda: True)) as writer:
        run = writer.quarantine("x", Subject(), rows, lambda *_: states.append(dangling(file)))
    assert run is not None
    assert len(states) > 20
    assert not any(states)
    assert file.values(f"SELECT count(*) FROM runs WHERE experiment_id = '{experiment}'") == [0]
    undo(file.path, "all")
    assert file.dump() == before


@pytest.mark.parametrize("batches", [False, True])
def test_invocations_go_from_the_end(file: SmallDatabase, monkeypatch: pytest.MonkeyPatch, batches: bool) -> None:
    if batches:
        small_batches(monkeypatch)
    states: list[list[object]] = []
    rows = Rows("invocation", "SELECT id FROM invocation WHERE sequence_number >= 1")
    with closing(Writer(file.path, "session", lambda: True)) as writer:
        writer.quarantine("x", Subject(), rows, lambda *_: states.append(dangling(file)))
    assert len(states) > 10 or not batches
    assert not any(states)
    assert file.values("SELECT DISTINCT sequence_number FROM invocations") == [0]


def test_an_invocation_with_a_successor_that_stays_is_not_taken(file: SmallDatabase) -> None:
    before = file.dump()
    rows = Rows("invocation", "SELECT id FROM invocation WHERE sequence_number = 1")
    with (
        closing(Writer(file.path, "session", lambda: True)) as writer,
        pytest.raises(
            RepairFailed,
            match="names by input_invocation_id a row that would be quarantined, and would be left without it",
        ),
    ):
        writer.quarantine("x", Subject(), rows)
    assert file.dump() == before


def test_a_quarantined_medoid_takes_its_cluster_in_one_scan(file: SmallDatabase) -> None:
    taken = file.values(f"SELECT id FROM embedding_clusters WHERE medoid_embedding_id IN ({MEDOIDS})")
    before = file.dump()
    statements: list[str] = []
    rows = Rows("embedding", "SELECT medoid_embedding_id FROM embeddingcluster WHERE medoid_embedding_id IS NOT NULL")
    with closing(file.connect()) as db:
        ELIXIR.create_views(db)
        chosen = Selection(db, rows)
        assert len(chosen.pending) > 2
        db.set_trace_callback(statements.append)
        batch = chosen.next(db)
        db.set_trace_callback(None)
    assert batch.roots == len(chosen.pending)
    assert sum('medoid_embedding_id" IN' in each for each in statements) == 1
    with closing(Writer(file.path, "session", lambda: True)) as writer:
        assert writer.quarantine("x", Subject(), rows) is not None
    assert dangling(file) == []
    assert not set(taken) & set(file.values("SELECT id FROM embedding_clusters"))
    undo(file.path, "all")
    assert file.dump() == before


def test_a_quarantine_of_an_embedding_in_a_clustering_says_to_cluster_again(
    file: SmallDatabase, runner: SmallFirst
) -> None:
    of_a_text = f"SELECT id FROM embeddings WHERE invocation_id = {TEXT} AND embedding_model = 'Qwen3Embed'"
    damaged(
        file,
        f"INSERT INTO embeddings SELECT {IMAGE}, updated_at, inserted_at, completed_at, started_at, vector, "
        f"embedding_model, '{NOBODY}' FROM embeddings WHERE id = ({of_a_text})",
        f"INSERT INTO embedding_clusters SELECT NULL, clustering_result_id, '{NOBODY}', updated_at, inserted_at, {F} "
        f"FROM embedding_clusters WHERE embedding_id = ({of_a_text})",
    )
    (fixed,) = [each for each in fix_file(file.path, runner)["embedding-type"] if each.status == "fixed"]
    assert re.fullmatch(
        r"quarantined 3 rows: 2 cluster assignments, 1 embedding \(repair \d\); "
        "their clusterings lack 2 cluster assignments now: mix cluster.recompute",
        fixed.note,
    )


def test_a_journal_is_known_by_its_experiments_and_runs(file: SmallDatabase, tmp_path: Path) -> None:
    with closing(Writer(file.path, "session", lambda: True)) as writer:
        writer.quarantine("x", Subject(), Rows("lyapunovresult", "SELECT id FROM lyapunovresult WHERE rowid = 1"))
    renamed = file.path.rename(tmp_path / "renamed.db")
    with pytest.raises(RepairRefused, match="was repaired under another name"):
        repairs(renamed)
    journal_path(file.path).rename(tmp_path / "renamed.doctor.db")
    assert len(repairs(renamed)) == 1
    shutil.copyfile(template(*SMALL, "--seed", "5"), renamed)
    with pytest.raises(RepairRefused, match="is another database's: none of the experiments and runs"):
        repairs(renamed)


def test_a_row_that_the_doctor_wrote_is_known_by_the_name_that_rules_use(
    file: SmallDatabase, runner: SmallFirst
) -> None:
    damaged(file, DIAGRAM_GONE)
    fix_file(file.path, runner)
    (newest,) = file.values("SELECT rowid FROM persistence_diagrams ORDER BY id DESC LIMIT 1")
    assert written(file.path, "persistencediagram", int(str(newest)))
    assert not written(file.path, "persistencediagram", 1)


@pytest.mark.parametrize("name", CASES)
def test_the_plan_says_what_the_journal_then_records(name: str, file: SmallDatabase, runner: SmallFirst) -> None:
    rule, statements = CASES[name]
    damaged(file, *statements)
    kinds = model_types([], [])
    database = Database(file.path)
    totals = SessionTotals(file.path.with_suffix(".totals"))
    examiner = Examiner(database, RULES, kinds, planner=DatabasePlanner(database, kinds, totals, most="100%").plan)
    planned: dict[str, dict[str, float]] = {}
    for entry in database.read(manifests.build_manifest).entries([RULES[rule]]):
        outcome = examiner.examine(RULES[rule], entry.subject)
        assert outcome.status != "failed" or not outcome.note
        for key, value in outcome.measures.items():
            planned.setdefault(rule, {}).setdefault(key, 0)
            planned[rule][key] += float(value)
    database.close()
    fix_file(file.path, runner, most="100%")
    done = [each for each in repairs(file.path) if each.rule == rule]
    taken = [each for each in done if each.verb == "quarantine"]
    assert planned[rule].get("rows", 0) == sum(each.rows for each in taken)
    assert planned[rule].get("bytes", 0) == sum(each.bytes for each in taken)
    assert ("points" in planned[rule]) == (RULES[rule].repair is RepairKind.COMPUTE)
    if RULES[rule].repair is RepairKind.LYAPUNOV:
        assert planned[rule].get("results", 0) == len(done) - len(taken)


def test_every_rule_that_repairs_is_among_the_cases() -> None:
    """Those that only this generation has; the others are compared for the Python generation too."""
    own = {rule.id for rule in RULES.values() if rule.repair and not rule.applies_to("python")}
    assert len(own) >= 5
    assert own <= {rule for rule, _ in CASES.values()}


def test_a_whole_run_is_not_taken_without_permission(file: SmallDatabase, runner: SmallFirst) -> None:
    damaged(
        file,
        *RUN_OF_NOBODY[:2],
        f"DELETE FROM runs WHERE experiment_id = '{NOBODY}'",
        f"UPDATE invocations SET run_id = '{NOBODY}' WHERE run_id LIKE 'f%'",
    )
    before = file.dump()
    found = failures(fix_file(file.path, runner))
    said = f"it would quarantine 4 rows: 4 invocations, all of the run {NOBODY}: bring back the row that they belong to"
    assert said in found["orphan-invocation"][0]
    assert file.dump()["invocations"] == before["invocations"]


def test_lost_embeddings_are_made_by_a_hook(file: SmallDatabase, runner: SmallFirst) -> None:
    """A missing one is added, a damaged one is replaced; what depends on them is computed then."""
    damaged(file, "UPDATE invocations SET output_text = output_text || id WHERE output_text NOT NULL")
    text = "SELECT i.output_text, e.vector FROM invocations i JOIN embeddings e ON e.invocation_id = i.id "
    with closing(file.connect()) as db:
        known = dict(db.execute(f"{text} WHERE e.embedding_model = 'Qwen3Embed'"))

    def hook(model: str, outputs: Sequence[str | bytes]) -> NDArray[np.float32] | None:
        return np.array([np.frombuffer(known[each], "<f4") for each in outputs]) if model == "Qwen3Embed" else None

    damaged(
        file,
        *WITHOUT_CLUSTERS,
        f"DELETE FROM embeddings WHERE invocation_id = {TEXT}",
        "UPDATE embeddings SET vector = zeroblob(length(vector)) WHERE rowid = "
        "(SELECT max(rowid) FROM embeddings WHERE embedding_model = 'Qwen3Embed')",
    )
    before = file.dump()
    outcomes = fix_file(file.path, runner, hook=hook)
    assert failures(outcomes) == {}
    assert {rule for rule, each in words(outcomes).items() if "fixed" in each} == {
        "embedding-missing",
        "embedding-vector",
    }
    new = row(file, f"SELECT * FROM embeddings WHERE invocation_id = {TEXT}")
    assert ELIXIR.id_pattern.fullmatch(str(new["id"]))
    assert new["inserted_at"] == new["updated_at"]
    assert str(new["started_at"]).endswith("Z")
    assert dangling(file) == []
    undo(file.path, "all")
    assert file.dump() == before


KEPT = {
    "its experiment's id in another case": (
        "UPDATE lyapunov_results SET experiment_id = upper(experiment_id) WHERE rowid = 1",
        "correct the reference, or that id",
    ),
    "a model that is nearly one of the experiment's": (
        "UPDATE lyapunov_results SET embedding_model = 'Qwen3Embeds' WHERE rowid = 1",
        "Qwen3Embeds may be Qwen3Embed, misspelt: correct the name",
    ),
    "a model of which there are embeddings": (
        f"UPDATE experiments SET embedding_models = '[\"Qwen3Embed\"]' WHERE id = {EXPERIMENT}",
        "embeddings by that model are there: check whether embedding_models has lost it",
    ),
}


@pytest.mark.parametrize("name", KEPT)
def test_a_result_that_only_seems_to_be_an_orphan_is_kept(name: str, file: SmallDatabase, runner: SmallFirst) -> None:
    statement, reason = KEPT[name]
    damaged(file, statement)
    kept = set(file.values("SELECT id FROM lyapunov_results"))
    found = failures(fix_file(file.path, runner, most="100%"))
    assert reason in found["orphan-lyapunov"][0]
    assert kept <= set(file.values("SELECT id FROM lyapunov_results"))
