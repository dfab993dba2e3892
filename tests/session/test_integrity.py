"""A flipped bit in any index or table: nothing is written, planned, advised or called healthy through it."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from databases import Built, build
from pytest_runs import Doctor, items, on_one_line, outcomes

from pytest_panic_doctor.database import integrity
from pytest_panic_doctor.database.integrity import describe_missing_feature
from pytest_panic_doctor.errors import DoctorError
from pytest_panic_doctor.examination.check import CheckOptions
from pytest_panic_doctor.examination.examiner import Examiner
from pytest_panic_doctor.examination.opening import from_database
from pytest_panic_doctor.examination.outcome import Outcome
from pytest_panic_doctor.examination.parsing import model_types
from pytest_panic_doctor.examination.settings import Settings
from pytest_panic_doctor.repair import RepairRefused, preflight

KINDS = model_types((), ())


def trees() -> Iterator[tuple[str, str, str]]:
    """(type, name, table) of every table and index of the databases that tests build."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder, closing(sqlite3.connect(build(Path(folder, "x.sqlite")).path)) as db:
        yield from db.execute("SELECT type, name, tbl_name FROM sqlite_master WHERE rootpage ORDER BY rootpage")


TREES = list(trees())
INDEXES = [(name, table) for kind, name, table in TREES if kind == "index"]


def flip(path: Path, name: str, *, header: bool = False) -> None:
    """Flip one bit of the tree `name`: of the last character of a key in its first leaf, or of a page's header."""
    with closing(sqlite3.connect(path)) as db:
        (page,) = db.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", (name,)).fetchone()
    data = bytearray(path.read_bytes())
    start = (page - 1) * 4096
    if data[start] in (2, 5):  # an interior page: its last child
        start = (int.from_bytes(data[start + 8 : start + 12], "big") - 1) * 4096
    place = start + 5 if header else data.index(b"06b05171", start) + 31
    data[place] ^= 1
    path.write_bytes(data)


def examined(path: Path, *rules: str, everything: bool = False) -> dict[str, list[Outcome]]:
    """The outcomes of the items of `rules`, all where none is named, by rule, as a session has them."""
    run_doctor = from_database(Settings(path, rules=rules, kinds=KINDS))
    run_doctor.verification.everything = everything
    options = CheckOptions(verification=run_doctor.verification)
    examiner = Examiner(run_doctor.database, run_doctor.rules, KINDS, options)
    found: dict[str, list[Outcome]] = {}
    for entry in run_doctor.entries():
        found.setdefault(entry.rule, []).append(examiner.examine(run_doctor.rules[entry.rule], entry.subject))
    run_doctor.database.close()
    return found


@pytest.mark.parametrize("everything", [True, False], ids=["whole", "tables"])
@pytest.mark.parametrize(("name", "table"), INDEXES)
def test_nothing_is_green_that_hangs_on_a_damaged_index(
    tmp_path: Path, name: str, table: str, everything: bool
) -> None:
    built = build(tmp_path / "x.sqlite")
    flip(built.path, name)
    with closing(sqlite3.connect(built.path)) as db:
        assert db.execute("PRAGMA quick_check").fetchall() == [("ok",)]
    found = examined(built.path, everything=everything)
    said = [outcome for outcomes in found.values() for outcome in outcomes]
    void = [outcome for outcome in said if outcome.note.startswith("not examined: table")]
    assert void
    assert all(f"table {table} is damaged" in outcome.note and not outcome.findings for outcome in void)
    assert {rule for rule, each in found.items() if {outcome.status for outcome in each} != {"passed"}} == {
        "file-integrity",
        *(rule for rule, each in found.items() if any(outcome in void for outcome in each)),
    }


@pytest.mark.parametrize(("name", "table"), [(name, table) for _, name, table in TREES])
def test_nothing_is_green_that_hangs_on_a_damaged_page(tmp_path: Path, name: str, table: str) -> None:
    built = build(tmp_path / "x.sqlite")
    flip(built.path, name, header=True)
    with closing(sqlite3.connect(built.path)) as db:
        assert integrity.check_file(db).tables == {table}
    found = examined(built.path, everything=True)
    assert {outcome.status for outcome in found["file-integrity"]} == {"failed"}
    rule = {
        "experimentconfig": "experiment-config",
        "run": "experiment-runs",
        "invocation": "orphan-invocation",
        "embedding": "orphan-embedding",
        "persistencediagram": "orphan-diagram",
    }.get(table, "orphan-cluster")
    assert {outcome.note.split(" damaged")[0] for outcome in found[rule]} == {f"not examined: table {table} is"}
    with pytest.raises(RepairRefused, match=r"SQLite's check says: .*: restore the file from a backup"):
        preflight(built.path, 0)


def test_what_hangs_on_no_damaged_table_is_examined(tmp_path: Path) -> None:
    built = build(tmp_path / "x.sqlite")
    flip(built.path, "sqlite_autoindex_embedding_2")
    found = examined(built.path, everything=True)
    words = {rule: {outcome.status for outcome in outcomes} for rule, outcomes in found.items()}
    assert {rule for rule, each in words.items() if each == {"passed"}} == {
        *("orphan-run", "orphan-invocation", "orphan-diagram", "diagram-model", "diagram-valid"),
        *("experiment-config", "experiment-runs", "invocation-sequence", "invocation-output", "invocation-chain"),
        *("invocation-model", "diagram-missing", "diagram-duplicate", "experiment-missing", "invocation-seed"),
        "output-plausible",
    }


def test_a_space_that_nobody_uses_damages_no_table(tmp_path: Path) -> None:
    """A page that is in no tree is wrong, and forbids writing; what is in the trees can be examined."""
    built = build(tmp_path / "x.sqlite")
    with built.open() as db:
        db.execute("PRAGMA writable_schema = ON")
        db.execute("CREATE TABLE lost (a)")
        db.execute("DELETE FROM sqlite_master WHERE name = 'lost'")
    with closing(sqlite3.connect(built.path)) as db:
        damage = integrity.check_file(db)
    assert damage.problems
    assert not damage.tables
    found = examined(built.path, everything=True)
    assert {rule for rule, each in found.items() if {outcome.status for outcome in each} != {"passed"}} == {
        "file-integrity"
    }
    with pytest.raises(RepairRefused, match="never used"):
        preflight(built.path, 0)


MODES = [(), ("-n2",)]


@pytest.mark.parametrize("mode", MODES, ids=["plain", "n2"])
def test_a_damaged_index_is_neither_repaired_nor_planned_through(
    run_doctor: Doctor, sick: Built, mode: tuple[str, ...]
) -> None:
    flip(sick.path, "sqlite_autoindex_run_1")
    before = sick.path.read_bytes()
    fixed = run_doctor("--doctor-fix", "--doctor-rule", "orphan-invocation", *mode)
    assert fixed.ret == 4
    assert "restore the file from a backup" in fixed.stderr.str()
    planned = run_doctor("--doctor-plan", *mode)
    assert planned.ret == 1
    assert "would fix" not in planned.stdout.str()
    assert "table run is damaged" in planned.stdout.str()
    seen = run_doctor("--doctor-rule", "orphan-invocation", *mode)
    assert seen.ret == 1
    assert "--doctor-fix" not in seen.stdout.str()
    assert "table run is damaged" in seen.stdout.str()
    assert sick.path.read_bytes() == before
    assert not sick.path.with_name("x.doctor.sqlite").exists()


def test_another_items_advice_does_not_lead_into_a_damaged_file(run_doctor: Doctor, sick: Built) -> None:
    """A defect in tables that are whole: it is found, and nobody is told to repair it in this file."""
    with sick.open() as db:
        db.execute("UPDATE persistencediagram SET diagram_data = x'00' WHERE id = ?", (sick.diagram(),))
    flip(sick.path, "ix_embeddingcluster_embedding_id")
    for arguments in ((), ("--doctor-plan",)):
        result = run_doctor(*arguments, "--doctor-report=r.json")
        (item,) = [
            each for each in items(Path("r.json")).values() if each["rule"] == "diagram-valid" and each["findings"]
        ]
        assert item["outcome"] == "failed"
        assert "--doctor-fix" not in result.stdout.str()
        assert "would fix" not in result.stdout.str()
        assert "a damaged file: restore the file from a backup" in on_one_line(result)


@pytest.mark.parametrize(
    "name", ["sqlite_autoindex_experimentconfig_1", "sqlite_autoindex_run_1", "ix_run_experiment_id"]
)
def test_a_damaged_index_does_not_decide_which_items_there_are(tmp_path: Path, name: str) -> None:
    built = build(tmp_path / "x.sqlite")
    whole = from_database(Settings(built.path, kinds=KINDS))
    flip(built.path, name)
    damaged = from_database(Settings(built.path, kinds=KINDS))
    assert list(damaged.entries()) == list(whole.entries())
    assert not whole.doubt
    assert damaged.doubt.startswith("items may be missing: what lists them is damaged (")


def test_no_selection_ends_well_where_items_may_be_missing(run_doctor: Doctor, sick: Built) -> None:
    """`orphan-cluster` reads neither table, and finds nothing wrong."""
    flip(sick.path, "ix_run_experiment_id")
    result = run_doctor("--doctor-rule", "orphan-cluster", "--doctor-report=r.json")
    assert outcomes(Path("r.json")) == {"orphan-cluster": "passed"}
    assert result.ret == 1
    result.stdout.fnmatch_lines(["doctor: items may be missing: what lists them is damaged*"])


@pytest.mark.integration
@pytest.mark.usefixtures("sick")
def test_the_file_is_checked_once_for_all(run_doctor: Doctor, pytester: pytest.Pytester) -> None:
    """By the first of two workers, for the other and for `file-integrity` too."""
    pytester.makeconftest(
        """
        import os
        from pytest_panic_doctor.database import integrity
        plain = integrity.check_file
        def noted(db):
            with open("checks", "a") as file:
                file.write(f"{os.getpid()}\\n")
            return plain(db)
        integrity.check_file = noted
        """
    )
    assert run_doctor("-n2", process=True).ret == 0
    assert len(Path("checks").read_text().split()) == 1, "by one of the workers"
    assert run_doctor("--doctor-fix", "-n2", process=True).ret == 0
    assert len(Path("checks").read_text().split()) == 2, "before the first write, and by nobody after"


ODD = {
    "collation": ("CREATE INDEX odd ON embedding (embedding_model COLLATE GERMAN)", "the collation GERMAN"),
    "collation of runs": ("CREATE INDEX odd ON run (experiment_id COLLATE GERMAN)", "the collation GERMAN"),
    "expression": ("CREATE INDEX odd ON run (german(initial_prompt))", "the function german()"),
    "partial": ("CREATE INDEX odd ON clusteringresult (id) WHERE german(algorithm)", "the function german()"),
    "generated": (
        "ALTER TABLE run ADD COLUMN odd TEXT GENERATED ALWAYS AS (german(initial_prompt)) VIRTUAL",
        "the function german()",
    ),
    "generated and indexed": (
        "ALTER TABLE invocation ADD COLUMN g TEXT GENERATED ALWAYS AS (german(id)) VIRTUAL; "
        "CREATE INDEX odd ON invocation (g)",
        "the function german()",
    ),
    "check": ("CREATE TABLE odd (a CHECK (german(a)))", "the function german()"),
}


def with_what_is_not_there(path: Path, sql: str) -> Built:
    """A healthy database that another program has given what this SQLite does not have."""
    built = build(path)
    with built.open() as db:
        db.create_collation("GERMAN", lambda a, b: (a > b) - (a < b))
        db.create_function("german", 1, lambda value: value, deterministic=True)
        db.executescript(sql)
    return built


@pytest.mark.parametrize(("sql", "what"), ODD.values(), ids=ODD)
@pytest.mark.parametrize("everything", [True, False], ids=["whole", "by table"])
def test_what_this_sqlite_does_not_have_is_named(tmp_path: Path, sql: str, what: str, *, everything: bool) -> None:
    """The file may be whole, and nobody can say so: it is not written to, and only what needs it is not examined."""
    built = with_what_is_not_there(tmp_path / "x.sqlite", sql)
    before = built.path.read_bytes()
    with pytest.raises(RepairRefused) as refused:
        preflight(built.path, 0)
    doubt = from_database(Settings(built.path)).doubt
    found = examined(built.path, everything=everything)
    outcomes = [outcome for each in found.values() for outcome in each if outcome.status == "failed"]
    assert not any(outcome.error for outcome in outcomes)
    said = [str(refused.value), doubt, *(outcome.note for outcome in outcomes)]
    said += [finding.message for outcome in outcomes for finding in outcome.findings]
    said = [each for each in said if each]
    assert all(what in each and "which this SQLite does not have" in each for each in said), said
    assert not any("backup" in each for each in said)
    assert built.path.read_bytes() == before


def test_a_session_says_what_is_not_there(run_doctor: Doctor, pytester: pytest.Pytester) -> None:
    with_what_is_not_there(pytester.path / "x.sqlite", ODD["expression"][0])
    for args in ((), ("--doctor-plan",), ("--doctor-fix",)):
        done = run_doctor(*args, "-p", "no:xdist")
        text = done.stdout.str() + done.stderr.str()
        assert done.ret != 0
        assert "index odd of run needs the function german(), which this SQLite does not have" in " ".join(text.split())
        assert "backup" not in text
        assert "Traceback" not in text


def test_an_id_column_of_another_collation_is_no_traceback(tmp_path: Path) -> None:
    table = "CREATE TABLE experimentconfig (id TEXT COLLATE GERMAN PRIMARY KEY, prompts, embedding_models)"
    built = with_what_is_not_there(tmp_path / "x.sqlite", f"DROP TABLE experimentconfig; {table}")
    with pytest.raises(DoctorError, match="needs the collation GERMAN, which this SQLite does not have"):
        from_database(Settings(built.path))


def test_a_function_that_a_rule_misspells_is_its_own_fault(tmp_path: Path) -> None:
    db = sqlite3.connect(build(tmp_path / "x.sqlite").path)
    with pytest.raises(sqlite3.OperationalError) as raised:
        db.execute("SELECT germann(id) FROM run")
    assert not describe_missing_feature(db, raised.value)
    db.close()


@pytest.mark.parametrize(
    ("problem", "remedy"),
    [
        ("row 3 missing from index ix_run_experiment_id", integrity.REBUILD),
        ("wrong # of entries in index sqlite_autoindex_run_1", integrity.REBUILD),
        ("non-unique entry in index sqlite_autoindex_run_1", integrity.CORRECT),
        ("NULL value in run.network", integrity.CORRECT),
        ("CHECK constraint failed in run", integrity.CORRECT),
        ("Tree 5 page 5: btreeInitPage() returns error code 11", integrity.RESTORE),
        (f"index odd of run needs the function german(), {integrity.ABSENT}", integrity.REMOVE),
    ],
)
def test_the_remedy_is_that_of_the_problem(problem: str, remedy: str) -> None:
    assert integrity.remedy(f"SQLite's check says: {problem}") == remedy


def test_a_problem_is_the_same_after_its_way_through_a_file() -> None:
    problems = (
        integrity.Problem("row 1 missing from index i"),
        integrity.Problem("needs german()", is_unsupported=True),
    )
    damage = integrity.FileDamage(problems, frozenset({"run"}))
    assert integrity.FileDamage.from_plain(json.loads(json.dumps(damage.as_plain()))) == damage
