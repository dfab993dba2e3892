"""What a rule takes does not grow with what is wrong: time not faster than the rows, and memory not at all."""

from __future__ import annotations

import json
import shutil
import sqlite3
import time
import tracemalloc
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from databases import MODELS, build, uid

from pytest_panic_doctor.database.connection import Database
from pytest_panic_doctor.database.memory_room import MemoryRoom, TooLarge, memory_room
from pytest_panic_doctor.database.subject import Subject
from pytest_panic_doctor.examination import manifest as manifests
from pytest_panic_doctor.examination.check import CheckOptions
from pytest_panic_doctor.examination.examiner import Examiner
from pytest_panic_doctor.examination.outcome import Outcome
from pytest_panic_doctor.examination.parsing import model_types
from pytest_panic_doctor.examination.selection import check_items
from pytest_panic_doctor.examination.settings import Settings, Shard
from pytest_panic_doctor.formatting import parse_size
from pytest_panic_doctor.rules import registry
from pytest_panic_doctor.rules.base import IDS_KEPT, Finding, RuleContext, Scope, rule
from pytest_panic_doctor.session.demo.build import build as build_demo
from pytest_panic_doctor.topology.diagram import Diagram
from pytest_panic_doctor.topology.payload import encode

RULES = registry()
MANY = 20_000
FEW = [RULES[each] for each in ("schema", "diagram-missing", "diagram-duplicate", "diagram-valid", "diagram-current")]


def found(path: Path, statement: str, rule: str = "invocation-sequence") -> list[Finding]:
    """The findings of one rule after a statement, which is given the number `MANY`."""
    built = build(path / "x.sqlite", runs=1)
    with built.open() as db:
        db.execute("CREATE INDEX i ON invocation (run_id, sequence_number)")
        db.executescript(statement)
    return examine(built.path, rule)


def examine(path: Path, rule: str) -> list[Finding]:
    """The findings of all items of one rule."""
    database = Database(path)
    examiner = Examiner(database, RULES, model_types([], []))
    entries = list(database.read(manifests.build_manifest).entries([RULES[rule]]))
    outcomes = [examiner.examine(RULES[rule], entry.subject) for entry in entries]
    database.close()
    return [finding for outcome in outcomes for finding in outcome.findings]


def further(number: str) -> str:
    """A statement that gives the run `MANY` further invocations, whose sequence number is an expression in k."""
    return (
        f"WITH RECURSIVE k (k) AS (SELECT 12 UNION ALL SELECT k + 1 FROM k WHERE k < {MANY + 11}) "
        "INSERT INTO invocation SELECT printf('06b0517100037000800%013d', 100000 + k), started_at, completed_at, "
        f"model, type, seed, run_id, {number}, input_invocation_id, output_text, NULL FROM invocation, k "
        f"WHERE id = '{uid(3, 11)}';"
    )


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        (
            further("k") + "UPDATE run SET max_length = 1",
            f"{MANY + 11:,} sequence numbers outside 0 … 0: 1, 2, 3, 4, 5",
        ),
        (
            further("-k"),
            f"{MANY:,} sequence numbers outside 0 … 11: {', '.join(str(-MANY - 11 + k) for k in range(5))}",
        ),
        (further("'x' || k"), f"{MANY:,} sequence numbers outside 0 … 11: x100, x1000, x10000, x10001, x10002"),
        (
            further("2 * k") + f"UPDATE run SET max_length = {2 * MANY + 24}",
            f"{MANY + 12:,} sequence numbers of {2 * MANY + 24:,} are missing: 12–23, 25, 27, 29, 31 and "
            f"{MANY + 12 - 16:,} more",
        ),
        (
            further("k / 2") + "UPDATE run SET max_length = 1000000000000000",
            f"{10**15 - MANY // 2 - 6:,} sequence numbers of 1,000,000,000,000,000 are missing: "
            f"{MANY // 2 + 6:,}–999,999,999,999,999; {MANY // 2:,} sequence numbers occur more than once: "
            f"6, 7, 8, 9, 10 and {MANY // 2 - 5:,} more",
        ),
    ],
    ids=["beyond the end", "negative", "texts", "gaps", "repeats"],
)
def test_numbers_are_judged_in_time_that_grows_with_the_rows(tmp_path: Path, statement: str, said: str) -> None:
    begun = time.process_time()
    (finding,) = found(tmp_path, statement)
    assert finding.message == said
    assert time.process_time() - begun < 2.0  # quadratic: 6 s for the first of these


SMALL = MemoryRoom(4_000_000, 300_000_000, given=True)
"""Room for a value of 1 MB, and for JSON of 166 kB."""

LARGE = "CAST(zeroblob(2000000) AS TEXT)"


def outcome_of(path: Path, rule: str, space: MemoryRoom = SMALL) -> Outcome:
    """The worst outcome of the items of one rule, which must not need more than `space`."""
    database = Database(path)
    entries = list(database.read(manifests.build_manifest).entries([RULES[rule]]))
    database.close()
    examiner = Examiner(database, RULES, model_types([], []), CheckOptions(space=space))
    tracemalloc.start()
    outcomes = [examiner.examine(RULES[rule], entry.subject) for entry in entries]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    database.close()
    assert peak < space.bytes
    return next((each for each in outcomes if each.status == "failed"), outcomes[0])


@pytest.mark.parametrize(
    ("rule", "statement", "named"),
    [
        (
            "experiment-runs",
            f"UPDATE run SET initial_prompt = {LARGE}",
            f"the column initial_prompt of run {uid(2, 0)}",
        ),
        ("experiment-runs", f"UPDATE run SET network = {LARGE}", f"the column network of run {uid(2, 0)}"),
        (
            "experiment-config",
            "UPDATE experimentconfig SET networks = json_array(hex(zeroblob(100000)))",
            f"the column networks of experiment {uid(1, 0)}",
        ),
        (
            "experiment-runs",
            "UPDATE experimentconfig SET seeds = json_array(hex(zeroblob(100000)))",
            f"the column seeds of experiment {uid(1, 0)}",
        ),
        (
            "invocation-sequence",
            f"UPDATE run SET seed = 7, max_length = 99; UPDATE invocation SET output_text = {LARGE} "
            "WHERE sequence_number = 11",
            f"the column output_text of invocation {uid(3, 11)}",
        ),
        (
            "embedding-vector",
            f"UPDATE embedding SET vector = zeroblob(2000000) WHERE id = '{uid(4, 3)}'",
            f"the column vector of embedding {uid(4, 3)}",
        ),
        (
            "diagram-valid",
            f"UPDATE persistencediagram SET diagram_data = zeroblob(2000000) WHERE id = '{uid(5, 0)}'",
            f"the column diagram_data of diagram {uid(5, 0)}",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) and " " not in value else "",
)
def test_what_does_not_fit_is_refused_by_name_before_it_is_read(
    tmp_path: Path, rule: str, statement: str, named: str
) -> None:
    built = build(tmp_path / "x.sqlite")
    with built.open() as db:
        db.executescript(statement)
    outcome = outcome_of(built.path, rule)
    assert outcome.status == "failed"
    (finding,) = outcome.findings
    size = (
        "200 kB, and --doctor-memory leaves 167 kB"
        if "hex" in statement
        else "2.0 MB, and --doctor-memory leaves 1.0 MB"
    )
    assert finding.message == f"not examined: {named} is {size} for it: give --doctor-memory 1GB"
    assert finding.ids == (named.split()[-1],)


@pytest.fixture(scope="module")
def elixir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of the Elixir generation, whose rows rules read through views."""
    return build_demo(tmp_path_factory.mktemp("elixir") / "demo", generation="elixir")


@pytest.mark.parametrize(
    ("rule", "table", "column", "value", "noun"),
    [
        ("experiment-runs", "runs", "initial_prompt", LARGE, "run"),
        ("invocation-output", "invocations", "type", LARGE, "invocation"),
        ("embedding-vector", "embeddings", "vector", "zeroblob(2000000)", "embedding"),
        ("lyapunov-valid", "lyapunov_results", "lyapunov_data", "zeroblob(2000000)", "Lyapunov result"),
        ("lyapunov-missing", "lyapunov_results", "prompt", LARGE, "Lyapunov result"),
        ("clustering-layers", "clustering_results", "parameters", LARGE, "clustering result"),
    ],
)
def test_what_does_not_fit_is_named_in_a_file_of_another_generation_too(
    elixir: Path, tmp_path: Path, rule: str, table: str, column: str, value: str, noun: str
) -> None:
    path = tmp_path / "x.sqlite"
    shutil.copyfile(elixir, path)
    with closing(sqlite3.connect(path)) as db, db:
        ((row,),) = db.execute(f"SELECT id FROM {table} WHERE rowid = 2").fetchall()
        db.execute(f"UPDATE {table} SET {column} = {value} WHERE rowid = 2")
    outcome = outcome_of(path, rule)
    (message,) = {finding.message for finding in outcome.findings}
    said = "is 2.0 MB, and --doctor-memory leaves 1.0 MB for it: give --doctor-memory 1GB"
    assert message == f"not examined: the column {column} of {noun} {row} {said}"
    assert outcome.findings[0].ids == (row,)


@pytest.mark.parametrize("column", ["prompts", "embedding_models"])
def test_a_list_that_items_are_made_of_is_refused_at_the_start(tmp_path: Path, column: str) -> None:
    built = build(tmp_path / "x.sqlite")
    with built.open() as db:
        db.execute(f"UPDATE experimentconfig SET {column} = json_array(hex(zeroblob(100000)))")
    database = Database(built.path)
    with pytest.raises(TooLarge, match=f"the column {column} of experiment {uid(1, 0)} is 200 kB"):
        database.read(lambda db: manifests.build_manifest(db, (), SMALL))
    database.close()


@pytest.mark.parametrize(
    ("runs", "models", "given", "said"),
    [
        (60_000, 2, "300MB", "pytest needs 3.0 GB, and --doctor-memory leaves"),
        (2, 20_000, "300MB", "pytest needs 960 MB, and --doctor-memory leaves"),
        (60_000, 2, "300MB -n", "pytest needs 3.0 GB, and --doctor-memory leaves"),
        (60_000, 2, "4GB", ""),
        (60_000, 2, "300MB 1/25", ""),
    ],
)
def test_items_that_pytest_cannot_hold_are_refused_before_they_are_made(
    tmp_path: Path, runs: int, models: int, given: str, said: str
) -> None:
    built = build(tmp_path / "x.sqlite")
    with built.open() as db:
        names = json.dumps(MODELS if models == 2 else [f"m{k}" for k in range(models)])
        db.execute("UPDATE experimentconfig SET embedding_models = ?", (names,))
        db.execute("BEGIN")
        row = "SELECT ?, network, seed, max_length, initial_prompt, experiment_id FROM run WHERE id = ?"
        db.executemany(f"INSERT INTO run {row}", ((uid(9, k), built.run()) for k in range(runs - 2)))
        db.execute("COMMIT")
    pairs = {Scope.DATABASE: 1, Scope.EXPERIMENT: 1, Scope.EXPERIMENT_MODEL: models, Scope.RUN_MODEL: runs * models}
    items = sum(pairs[each.scope] for each in FEW)
    size, _, more = given.partition(" ")
    settings = Settings(built.path, memory=parse_size(size), shard=Shard.parse(more) if "/" in more else None)
    database = Database(built.path)
    space = replace(memory_room(parse_size(size)), bytes=parse_size(size) - 80_000_000)

    def check() -> None:
        database.read(lambda db: check_items(db, settings, FEW, space, int(more == "-n")))

    tracemalloc.start()
    if said:
        with pytest.raises(TooLarge, match=f"x.sqlite has {items:,} items, for which {said}"):
            check()
    else:
        check()
    assert tracemalloc.get_traced_memory()[1] < 6_000_000
    tracemalloc.stop()
    database.close()


def test_the_places_of_a_product_are_counted_and_not_written_out(tmp_path: Path) -> None:
    built = build(tmp_path / "x.sqlite")
    with built.open() as db:
        lists = [[[f"m{k}"] for k in range(130)], list(range(129)), [f"p{k}" for k in range(128)]]
        values = [json.dumps(each) for each in lists]
        db.execute("UPDATE experimentconfig SET networks = ?, seeds = ?, prompts = ?", values)
        db.execute("UPDATE run SET network = '[\"m1\"]', seed = 5, initial_prompt = 'p7'")
    outcome = outcome_of(built.path, "experiment-runs", replace(SMALL, bytes=24_000_000))
    assert len(outcome.findings) == IDS_KEPT + 1
    lost = [finding for finding in outcome.findings if finding.table == "experimentconfig"]
    assert sum(finding.count for finding in lost) == 130 * 129 * 128 - 1
    assert lost[0].message == "there is no run for m0, seed 0, prompt 'p0'"
    assert lost[-1].message == f"{130 * 129 * 128 - IDS_KEPT:,} more runs are missing"
    assert outcome.findings[-1].message == "1 more finding, of which none is named (at most 10,000 are)"


@pytest.mark.parametrize(
    ("networks", "seeds", "prompts", "said"),
    [
        ('[["a"], ["a"]]', "[1, 1]", '["p"]', {"2 runs too few for a, seed 1, prompt 'p'": 2}),
        ('[["a"]]', "[1, 1, 1]", '["p"]', {"1 run too few for a, seed 1, prompt 'p'": 1}),
        (
            '[["a"]]',
            "[1]",
            '["p", "q", "q"]',
            {"there is no run for a, seed 1, prompt 'q'": 2, "2 runs instead of 1 for a, seed 1, prompt 'p'": 2},
        ),
        (
            '[["a"]]',
            "[2]",
            '["p", "p"]',
            {
                "there is no run for a, seed 2, prompt 'p'": 2,
                "2 runs that the experiment does not ask for: a, seed 1, prompt 'p'": 2,
            },
        ),
        ('[["\\u0061"]]', "[1, 1]", '["p"]', {}),
    ],
)
def test_what_stands_twice_in_a_list_is_asked_for_twice(
    tmp_path: Path, networks: str, seeds: str, prompts: str, said: dict[str, int]
) -> None:
    built = build(tmp_path / "x.sqlite")
    with built.open() as db:
        db.execute("UPDATE experimentconfig SET networks = ?, seeds = ?, prompts = ?", (networks, seeds, prompts))
        db.execute("UPDATE run SET network = '[\"a\"]', seed = 1, initial_prompt = 'p'")
    assert {finding.message: finding.count for finding in examine(built.path, "experiment-runs")} == said


def test_findings_beyond_those_that_are_named_are_counted(tmp_path: Path) -> None:
    @rule("many", scope=Scope.DATABASE, description="there are few")
    def many(context: RuleContext) -> Iterator[Finding]:
        for number in range(3 * IDS_KEPT):
            yield context.finding(f"number {number}", count=2)

    database = Database(build(tmp_path / "x.sqlite").path)
    outcome = Examiner(database, {"many": many}, {}).examine(many, Subject())
    database.close()
    assert len(outcome.findings) == IDS_KEPT + 1
    assert sum(finding.count for finding in outcome.findings) == 6 * IDS_KEPT
    assert outcome.findings[-1].message == "20,000 more findings, of which none is named (at most 10,000 are)"


def test_a_cloud_that_does_not_fit_is_refused_by_name(tmp_path: Path) -> None:
    built = build(tmp_path / "x.sqlite", runs=1)
    with built.open() as db:
        db.executescript(further("k"))
        db.execute(
            "INSERT INTO embedding SELECT 'x' || i.id, i.started_at, i.completed_at, i.id, 'Nomic', e.vector "
            "FROM invocation i, embedding e WHERE e.id = ? AND i.sequence_number > 11",
            (uid(4, 1),),
        )
    outcome = outcome_of(built.path, "diagram-current", replace(SMALL, bytes=1_500_000))
    assert outcome.status == "failed"
    said = "is 3.8 MB, and --doctor-memory leaves 375 kB for it: give --doctor-memory 5GB"
    assert outcome.findings[0].message == f"not examined: the cloud of Nomic in run {uid(2, 0)} {said}"


def test_of_many_diagrams_of_one_place_one_is_in_memory_at_a_time(tmp_path: Path) -> None:
    built = build(tmp_path / "x.sqlite", older=True, runs=1)
    bars = np.tile(np.array([[0, 1]], np.float32), (100_000, 1))
    bars[-1, 1] = np.inf
    payload = encode(Diagram((bars, bars[:1], bars[:1])))
    with built.open() as db:
        row = "SELECT ?, started_at, completed_at, ?, run_id, embedding_model FROM persistencediagram WHERE id = ?"
        for number in range(20):
            db.execute(f"INSERT INTO persistencediagram {row}", (uid(8, number), payload, uid(5, 0)))
    for rule_id, word in (("diagram-valid", "passed"), ("diagram-current", "failed")):
        assert outcome_of(built.path, rule_id, replace(SMALL, bytes=12_000_000)).status == word
