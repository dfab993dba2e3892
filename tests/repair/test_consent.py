"""Large quarantines ask, and so do those of whole runs; every one says what it took."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from databases import LATER, TIME, Built, build, dump, uid
from repair_item import fix_file

from pytest_panic_doctor.compute.budget import Budget
from pytest_panic_doctor.compute.runner import DiagramRunner
from pytest_panic_doctor.errors import BadOption
from pytest_panic_doctor.examination.outcome import Outcome
from pytest_panic_doctor.examination.parsing import Given, parse_limit
from pytest_panic_doctor.repair.journal.undo import undo


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DiagramRunner]:
    """One warm child for all tests."""
    with DiagramRunner(budget=Budget(tmp_path_factory.mktemp("budget"), 4_000_000_000)) as made:
        yield made


def orphans(built: Built, count: int, good: int = 0) -> None:
    """Add orphan embeddings, and invocations of no run that hold each a good one."""
    rows = ((f"{k:032x}", TIME, LATER, f"e{k:031x}", "Nomic") for k in range(count))
    clusters = ((f"{k:032x}", uid(4, 1), uid(6, 0), None) for k in range(good))
    with built.open() as db:
        db.execute("BEGIN")
        db.executemany("INSERT INTO embedding VALUES (?, ?, ?, ?, ?, x'00')", rows)
        db.executemany("INSERT INTO embeddingcluster VALUES (?, ?, ?, ?)", clusters)
        db.execute("COMMIT")


def of(outcomes: dict[str, list[Outcome]], rule: str) -> Outcome:
    """The outcome of the only item of a rule."""
    (outcome,) = outcomes[rule]
    return outcome


def test_a_large_quarantine_asks_and_says_what_to_type(tmp_path: Path, runner: DiagramRunner) -> None:
    built = build(tmp_path / "x.sqlite")
    orphans(built, 1_001)
    before = dump(built.path)
    outcome = of(fix_file(built.path, runner), "orphan-embedding")
    assert (outcome.status, outcome.note) == (
        "failed",
        "not repaired: it would quarantine 1,001 rows: 1,001 embeddings; allow it with --doctor-max-quarantine 1001",
    )
    assert dump(built.path) == before


@pytest.mark.parametrize(
    ("count", "most", "word"),
    [
        (1_000, None, "fixed"),
        (1_001, "1001", "fixed"),
        (1_001, "1000", "failed"),
        (30, "29", "failed"),
        (1_001, "98%", "fixed"),
        (1_001, "97%", "failed"),
        (1_001, "100%", "fixed"),
        (1, "0", "failed"),
    ],
)
def test_the_option_allows_just_that(
    tmp_path: Path, runner: DiagramRunner, count: int, most: str | None, word: str
) -> None:
    built = build(tmp_path / "x.sqlite")
    orphans(built, count)
    outcome = of(fix_file(built.path, runner, most=most), "orphan-embedding")
    assert outcome.status == word
    if word == "failed":
        assert f"more than --doctor-max-quarantine {most} allows; allow it with" in outcome.note


def test_what_goes_along_counts_by_its_own_table(tmp_path: Path, runner: DiagramRunner) -> None:
    """One clustering of another doctor's: few rows of it, and more than 1,000 of what hangs on them."""
    built = build(tmp_path / "x.sqlite")
    with built.open() as db:
        db.execute(
            "INSERT INTO invocation VALUES (?, ?, ?, 'A', 'TEXT', 0, ?, 7, NULL, 'x', NULL)",
            (uid(8, 1), TIME, LATER, uid(9, 9)),
        )
        db.execute("INSERT INTO embedding VALUES (?, ?, ?, ?, 'Nomic', x'00')", (uid(8, 2), TIME, LATER, uid(8, 1)))
        rows = ((f"{k:032x}", uid(8, 2), uid(6, 0), None) for k in range(1_500))
        db.execute("BEGIN")
        db.executemany("INSERT INTO embeddingcluster VALUES (?, ?, ?, ?)", rows)
        db.execute("COMMIT")
    said = "1,502 rows: 1,500 cluster assignments, 1 embedding, 1 invocation"
    outcome = of(fix_file(built.path, runner), "orphan-invocation")
    assert outcome.note == f"not repaired: it would quarantine {said}; allow it with --doctor-max-quarantine 1502"
    outcome = of(fix_file(built.path, runner, most="1502"), "orphan-invocation")
    assert (outcome.status, outcome.note) == ("fixed", f"quarantined {said} (repair 1)")


def test_a_whole_run_asks_however_short(tmp_path: Path, runner: DiagramRunner) -> None:
    """Its invocations are all there: what is lost is the row above them, and they are good work."""
    for number, script in enumerate(
        (
            "DELETE FROM run WHERE rowid = 2; "
            f"UPDATE invocation SET run_id = '{'e' * 32}' WHERE run_id = '{uid(2, 1)}'; "
            f"UPDATE persistencediagram SET run_id = '{'e' * 32}' WHERE run_id = '{uid(2, 1)}'",
            "UPDATE run SET experiment_id = NULL WHERE rowid = 2",
        )
    ):
        built = build(tmp_path / f"{number}.sqlite")
        with built.open() as db:
            db.executescript(script)
        before = dump(built.path)
        outcomes = fix_file(built.path, runner)
        failed = of(outcomes, "orphan-run" if number else "orphan-invocation")
        assert (
            f"all of the run {built.run(1) if number else 'e' * 32}: bring back the row that they belong to"
            in failed.note
        )
        assert failed.status == "failed"
        assert dump(built.path) == before
        fixed = fix_file(built.path, runner, most="100%")
        assert not any(
            outcome.status == "failed" for rule in fixed if rule.startswith("orphan") for outcome in fixed[rule]
        )
        undo(built.path, "all")
        assert dump(built.path) == before


@pytest.mark.parametrize(("given", "value"), [("5000", "5000"), ("5,000", "5000"), ("2%", "2%"), ("0.5 %", "0.5%")])
def test_what_the_option_may_say(given: str, value: str) -> None:
    assert parse_limit(Given("--doctor-max-quarantine", given)) == value


@pytest.mark.parametrize("given", ["many", "-1", "1.5", "101%", "%", ""])
def test_what_it_may_not(given: str) -> None:
    with pytest.raises(BadOption, match=r"is neither a number of rows nor a percentage: give one, e\.g\."):
        parse_limit(Given("--doctor-max-quarantine", given))


EXTRA = {
    "its_own_table": "CREATE TABLE note (id PRIMARY KEY, embedding TEXT REFERENCES embedding (id));"
    "INSERT INTO note VALUES ('n', '{e}'), ('m', '{good}')",
    "to_the_primary_key": "CREATE TABLE note (id PRIMARY KEY, embedding TEXT REFERENCES embedding);"
    "INSERT INTO note VALUES ('n', '{e}')",
    "and_one_below_it": "CREATE TABLE note (id PRIMARY KEY, embedding TEXT REFERENCES embedding (id));"
    "CREATE TABLE reply (id PRIMARY KEY, note TEXT REFERENCES note (id)); INSERT INTO note VALUES ('n', '{e}');"
    "INSERT INTO reply VALUES ('r', 'n')",
    "of_odd_names": 'CREATE TABLE "a ""note" (ID PRIMARY KEY, "the embedding" TEXT REFERENCES "Embedding" (ID));'
    """INSERT INTO "a ""note" VALUES ('n', '{e}')""",
    "another_reference_of_ours": "ALTER TABLE clusteringresult ADD COLUMN best REFERENCES embedding (id);"
    "UPDATE clusteringresult SET best = '{good}'",
    "without_an_id_and_without_rows": "CREATE TABLE note (embedding TEXT REFERENCES embedding (id))",
    "without_an_id_and_of_others": "CREATE TABLE note (embedding TEXT REFERENCES embedding (id));"
    "INSERT INTO note VALUES ('{good}')",
}
REFUSED = {
    "without_an_id": "CREATE TABLE note (embedding TEXT REFERENCES embedding (id)); INSERT INTO note VALUES ('{e}')",
    "without_a_rowid": "CREATE TABLE note (id PRIMARY KEY, embedding TEXT REFERENCES embedding (id)) WITHOUT ROWID;"
    "INSERT INTO note VALUES ('n', '{e}')",
    "by_two_columns": "CREATE UNIQUE INDEX two ON embedding (id, embedding_model);"
    "CREATE TABLE note (id PRIMARY KEY, e, m, FOREIGN KEY (e, m) REFERENCES embedding (id, embedding_model));"
    "INSERT INTO note VALUES ('n', '{e}', 'Nomic')",
    "by_itself": "CREATE TABLE note (id PRIMARY KEY, embedding REFERENCES embedding (id), up REFERENCES note (id));"
    "INSERT INTO note VALUES ('n', '{e}', NULL), ('m', '{good}', 'n')",
}


def referred(path: Path, script: str) -> Built:
    """A database with one orphan embedding, and a table of somebody else that refers to embeddings."""
    built = build(path)
    with built.open() as db:
        db.execute("INSERT INTO embedding VALUES (?, ?, ?, ?, 'Nomic', x'00')", ("f" * 32, TIME, LATER, "e" * 32))
        db.executescript(script.format(e="f" * 32, good=built.embedding(3)))
    return built


def dangling(path: Path) -> set[tuple[object, ...]]:
    """What SQLite finds of references that lead nowhere."""
    with closing(sqlite3.connect(path)) as db:
        return set(db.execute("PRAGMA foreign_key_check").fetchall())


@pytest.mark.parametrize("name", EXTRA)
def test_rows_of_other_tables_go_along(tmp_path: Path, runner: DiagramRunner, name: str) -> None:
    built = referred(tmp_path / "x.sqlite", EXTRA[name])
    before, loose = dump(built.path), dangling(built.path)
    assert of(fix_file(built.path, runner), "orphan-embedding").status == "fixed"
    assert dangling(built.path) < loose
    undo(built.path, "all")
    assert dump(built.path) == before


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_go_along_keeps_all_where_it_is(tmp_path: Path, runner: DiagramRunner, name: str) -> None:
    built = referred(tmp_path / "x.sqlite", REFUSED[name])
    before = dump(built.path)
    outcome = of(fix_file(built.path, runner), "orphan-embedding")
    assert outcome.status == "failed"
    assert "note" in outcome.note
    assert dump(built.path) == before


@pytest.mark.parametrize(
    "names", [("embedding",), ("embeddingcluster",), ("embedding", "embeddingcluster", "invocation")]
)
def test_children_go_with_their_parents_whatever_the_case(
    tmp_path: Path, runner: DiagramRunner, names: tuple[str, ...]
) -> None:
    built = build(tmp_path / "x.sqlite")
    with built.open() as db:
        db.execute("UPDATE run SET experiment_id = 'lost' WHERE id = ?", (built.run(),))
        for name in names:
            db.execute(f'ALTER TABLE {name} RENAME TO "{name}_"')
            db.execute(f'ALTER TABLE "{name}_" RENAME TO "{name.title()}"')
    before = dump(built.path)
    assert of(fix_file(built.path, runner, most="100%"), "orphan-run").status == "fixed"
    after = {table.lower(): rows for table, rows in dump(built.path).items()}
    assert {table: len(after[table]) for table in ("run", "invocation", "embedding", "embeddingcluster")} == {
        "run": 1,
        "invocation": 12,
        "embedding": 12,
        "embeddingcluster": 0,
    }
    assert not dangling(built.path)
    undo(built.path, "all")
    assert dump(built.path) == before


def test_an_index_of_any_name_does_not_stop_a_quarantine(tmp_path: Path, runner: DiagramRunner) -> None:
    built = referred(tmp_path / "x.sqlite", """CREATE UNIQUE INDEX "we""i'rd" ON embedding (id, vector)""")
    assert of(fix_file(built.path, runner), "orphan-embedding").status == "fixed"


def test_ids_that_differ_in_case_alone_are_two(tmp_path: Path, runner: DiagramRunner) -> None:
    """Where a column compares without case, the one row that is an orphan goes, and not its namesake."""
    built = build(tmp_path / "x.sqlite")
    with built.open() as db:
        db.executescript(
            "ALTER TABLE persistencediagram RENAME TO old; CREATE TABLE persistencediagram (id TEXT COLLATE NOCASE, "
            "started_at, completed_at, diagram_data, run_id, embedding_model); "
            "INSERT INTO persistencediagram SELECT * FROM old; DROP TABLE old; "
            "CREATE UNIQUE INDEX of_id ON persistencediagram (id COLLATE BINARY); "
            f"INSERT INTO persistencediagram SELECT upper(id), started_at, completed_at, diagram_data, '{'e' * 32}', "
            "'Gone' FROM persistencediagram WHERE rowid = 1"
        )
    assert of(fix_file(built.path, runner), "orphan-diagram").status == "fixed"
    assert built.diagram().encode() in [row[1] for row in dump(built.path)["persistencediagram"]]


def test_all_that_a_session_takes_is_counted(tmp_path: Path, runner: DiagramRunner) -> None:
    built = build(tmp_path / "x.sqlite")
    orphans(built, 700)
    with built.open() as db:
        rows = ((f"{k:031x}a", f"e{k:031x}", TIME, LATER) for k in range(700))
        db.executemany(
            "INSERT INTO persistencediagram (id, run_id, started_at, completed_at, embedding_model) "
            "VALUES (?, ?, ?, ?, 'Nomic')",
            rows,
        )
    fixed = fix_file(built.path, runner)
    assert of(fixed, "orphan-embedding").status == "fixed"
    assert of(fixed, "orphan-diagram").note == (
        "not repaired: it would quarantine 700 rows: 700 diagrams, beside 700 rows in this session; "
        "allow it with --doctor-max-quarantine 1400"
    )
    assert of(fix_file(built.path, runner, most="1400"), "orphan-diagram").status == "fixed"
