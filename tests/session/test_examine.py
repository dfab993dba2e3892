"""Examining: what is collected, what is selected, what it says, and that nothing is written."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from databases import COUNT, RULES, Built, build, uid
from defects import DAMAGES
from pytest_runs import Doctor, items, outcomes

from pytest_panic_doctor.database.spelling import dashed
from pytest_panic_doctor.rules import registry

MUCH = ((), ("-v",), ("-vv",))
"""How much is shown."""


def plant(built: Built, *names: str) -> None:
    with built.open() as db:
        for name in names:
            DAMAGES[name].plant(db, built)


def digest(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.glob("x.sqlite*")}


def test_a_healthy_database_is_green(run_doctor: Doctor, sick: Built, mode: tuple[str, ...]) -> None:
    before = digest(sick.path.parent)
    result = run_doctor(*mode)
    assert result.ret == 0
    result.assert_outcomes(passed=COUNT)
    result.stdout.fnmatch_lines(
        ["doctor: x.sqlite, * read only", f"doctor: {RULES} rules, {COUNT} items", f"{RULES} rules: {RULES} healthy"]
    )
    assert digest(sick.path.parent) == before


def test_a_sick_one_says_what_and_what_next(run_doctor: Doctor, sick: Built, mode: tuple[str, ...]) -> None:
    plant(sick, "vector_null", "embedding_of_lost_invocation")
    result = run_doctor(*mode)
    assert result.ret == 1
    result.stdout.fnmatch_lines_random(
        [
            "embedding-vector [[]Nomic]: 1 of 12 vectors is unusable: 1 NULL",
            "orphan-embedding: 1 of 25 embeddings does not belong to an invocation that*",
            "next: * -m pytest --doctor-db x.sqlite --doctor-plan",
            f"{RULES} rules: {RULES - 3} healthy, 3 sick",
        ]
    )
    result.stdout.no_fnmatch_line("*Traceback*")
    result.stdout.no_fnmatch_line("*.py:*")


@pytest.mark.integration
def test_all_modes_collect_and_find_the_same(run_doctor: Doctor, sick: Built) -> None:
    plant(sick, "gap", "payload_torn", "vector_nan", "diagram_of_lost_run")
    reports = []
    for number, mode in enumerate(["-n0", "-n2", "-nauto", "-nlogical", "-pno:xdist"]):
        run_doctor(mode, f"--doctor-report=r{number}.json")
        reports.append(outcomes(sick.path.parent / f"r{number}.json"))
    assert len(reports[0]) == COUNT
    assert all(report == reports[0] for report in reports)


def test_findings_of_one_message_are_shown_once_with_some_runs_and_the_exact_count(
    run_doctor: Doctor, pytester: pytest.Pytester
) -> None:
    built = build(pytester.path / "x.sqlite", runs=24)
    with built.open() as db:
        db.execute("DELETE FROM invocation WHERE sequence_number = 3")
        for k in range(4, 11):
            db.execute("DELETE FROM invocation WHERE sequence_number = ? AND run_id = ?", (k, built.run(k)))
    shown = {verbosity: run_doctor("--doctor-rule=invocation-sequence", *verbosity).stdout.str() for verbosity in MUCH}
    assert [text.count("invocation-sequence: 1 sequence number of 12 is missing: 3\n") for text in shown.values()] == [
        1,
        1,
        1,
    ]
    assert [text.count("invocation-sequence: 2 sequence numbers ") for text in shown.values()] == [4, 7, 7]
    assert ["more messages of invocation-sequence (-vv shows all)" in text for text in shown.values()] == [
        True,
        False,
        False,
    ]
    assert ["  … and 14 more runs" in text for text in shown.values()] == [True, False, False]
    assert [text.count("\n  run ") for text in shown.values()] == [7, 24, 24]


def test_at_most_twenty_ids_are_shown_and_the_report_has_all(run_doctor: Doctor, pytester: pytest.Pytester) -> None:
    built = build(pytester.path / "x.sqlite")
    with built.open() as db:
        db.execute("UPDATE invocation SET model = 'Nobody'")
    result = run_doctor("--doctor-rule=invocation-model", "--doctor-report=r.json")
    result.stdout.fnmatch_lines(["*24 of 24 invocations*", "  invocation (showing 4 of 24) *"])
    findings = items(pytester.path / "r.json")[f"invocation-model[{dashed(built.experiment)}]"]["findings"]
    assert isinstance(findings, list)
    (finding,) = findings
    assert len(finding["ids"]) == finding["count"] == 24


def test_selection(run_doctor: Doctor, sick: Built) -> None:
    run = dashed(sick.run())
    for args, count in {
        ("-k", "orphan"): 5,
        ("-m", "diagram-valid"): 4,
        ("-m", "diagram_valid"): 4,
        ("-m", "doctor"): COUNT,
        ("--doctor-rule", "schema"): 1,
        ("--doctor-rule", "schema", "--doctor-rule", "diagram-missing"): 5,
        ("--doctor-experiment", dashed(sick.experiment)): COUNT,
        (f"x.sqlite::diagram-missing[{run}-Nomic]",): 1,
        ("x.sqlite::diagram-missing",): 4,
        ("x.sqlite::schema", "x.sqlite::orphan-run"): 2,
    }.items():
        result = run_doctor(*args)
        result.assert_outcomes(passed=count, deselected=result.parseoutcomes().get("deselected", 0))


def test_collect_only_lists_every_id_and_examines_nothing(run_doctor: Doctor, sick: Built) -> None:
    plant(sick, "vector_null")
    ids = collected(run_doctor)
    assert len(ids) == len(set(ids)) == COUNT
    assert f"x.sqlite::embedding-vector[{dashed(sick.experiment)}-Nomic]" in ids


def test_last_failed(run_doctor: Doctor, sick: Built) -> None:
    plant(sick, "model_unknown")
    assert run_doctor().ret == 1
    result = run_doctor("--lf")
    result.assert_outcomes(failed=1, deselected=result.parseoutcomes().get("deselected", 0))


def test_ids_do_not_depend_on_what_is_broken(run_doctor: Doctor, sick: Built) -> None:
    healthy = collected(run_doctor)
    plant(sick, "diagram_gone", "run_without_invocations", "vector_null", "payload_torn")
    assert collected(run_doctor) == healthy


def collected(run_doctor: Doctor) -> list[str]:
    """The ids that are collected, in order."""
    return [line for line in run_doctor("--co", "-q").outlines if line.startswith("x.sqlite::")]


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("--doctor-rule", "orphan-rum"), "did you mean orphan-run?"),
        (("--doctor-experiment", dashed(uid(1, 1))), f"did you mean {dashed(uid(1, 0))}?"),
        (("--doctor-experiment", "banana"), "banana is not a UUID"),
        (("x.sqlite::diagram-mising",), "names no item: did you mean diagram-missing"),
        (("--doctor-memory", "banana"), "--doctor-memory banana"),
        (("--doctor-plan", "--doctor-fix"), "give one of them"),
        (("--doctor-report", "x.pdf"), "has no known suffix"),
        (("--doctor-fix", "-n2", "--dist", "loadfile"), "--dist loadfile cannot be used with --doctor-fix"),
        (("--doctor-fix", "-n2", "--dist", "loadgroup"), "--dist loadgroup cannot be used with --doctor-fix"),
        (("--doctor-fix", "-n2", "--dist", "loadscope"), "--dist loadscope cannot be used with --doctor-fix"),
    ],
)
def test_a_mistake_is_one_sentence_and_status_4(
    run_doctor: Doctor, sick: Built, args: tuple[str, ...], said: str
) -> None:
    assert sick.path.exists()
    one_sentence(run_doctor(*args), said)


def one_sentence(result: pytest.RunResult, said: str) -> None:
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    lines = [line for line in result.errlines if line.strip()]
    assert len(lines) == 1, lines
    assert lines[0].startswith("ERROR: ")
    assert said in lines[0]


def test_files_that_are_no_such_database(run_doctor: Doctor, pytester: pytest.Pytester) -> None:
    (pytester.path / "text.sqlite").write_text("hello\n" * 100)
    (pytester.path / "empty.sqlite").write_bytes(b"")
    (pytester.path / "folder.sqlite").mkdir()
    for mode in ((), ("--doctor-fix",), ("-n2",)):
        one_sentence(run_doctor(*mode, database="missing.sqlite"), "there is no database")
        one_sentence(run_doctor(*mode, database="text.sqlite"), "is not an SQLite database")
        one_sentence(run_doctor(*mode, database="empty.sqlite"), "is empty")
        one_sentence(run_doctor(*mode, database="folder.sqlite"), "is a directory")


def test_a_newer_and_a_foreign_database(run_doctor: Doctor, sick: Built) -> None:
    with sick.open() as db:
        db.execute("PRAGMA user_version = 9")
    one_sentence(run_doctor(), "schema version 9, newer")
    with sick.open() as db:
        db.executescript("PRAGMA user_version = 0; " + "".join(f"DROP TABLE {name};" for name in TABLES))
    one_sentence(run_doctor(), "not a trajectory database")


TABLES = ("experimentconfig", "run", "invocation", "embedding", "persistencediagram")


def test_a_bug_in_a_rule_is_named_and_is_no_green(run_doctor: Doctor, sick: Built, mode: tuple[str, ...]) -> None:
    (sick.path.parent / "conftest.py").write_text(
        "import pytest_panic_doctor as d\n"
        "@d.rule('broken', scope=d.Scope.DATABASE, description='a rule with a bug')\n"
        "def broken(context):\n    return 1 / 0\n"
        "def pytest_doctor_rules():\n    return [broken]\n"
    )
    result = run_doctor(*mode, "--doctor-report=r.json")
    assert result.ret == 1
    result.stdout.fnmatch_lines(["*ZeroDivisionError*"])
    assert outcomes(sick.path.parent / "r.json")["broken"] == "failed"
    result.stdout.fnmatch_lines([f"{RULES + 1} rules: {RULES} healthy, 1 sick"])


def test_a_database_beside_tests_and_alone(run_doctor: Doctor, sick: Built, pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_own="def test_own():\n    pass\n")
    run_doctor().assert_outcomes(passed=COUNT)
    run_doctor("test_own.py").assert_outcomes(passed=COUNT + 1)
    run_doctor("test_own.py", database=None).assert_outcomes(passed=1)
    pytester.makeini("[pytest]\ndoctor_db = x.sqlite\n")
    run_doctor(database=None).assert_outcomes(passed=COUNT + 1)
    run_doctor("test_own.py", database=None).assert_outcomes(passed=1)
    run_doctor("x.sqlite::schema", database=None).assert_outcomes(passed=1)
    assert sick.path.exists()


def test_without_a_name_it_is_the_research_tools_place(run_doctor: Doctor, pytester: pytest.Pytester) -> None:
    (pytester.path / "db").mkdir()
    build(pytester.path / "db" / "trajectory_data.sqlite")
    result = run_doctor("--doctor-rule", "schema", "-v", database=None)
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["db/trajectory_data.sqlite::schema PASSED*"])


def test_inert_where_nobody_asks(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        "import sys\n"
        "def test_nothing_is_loaded():\n"
        "    assert 'pytest_panic_doctor.plugin' in sys.modules\n"
        "    heavy = {'numpy', 'sqlmodel', 'sqlalchemy', 'gph', 'gudhi', 'psutil', 'filelock'}\n"
        "    assert not heavy & set(sys.modules)\n"
    )
    result = pytester.runpytest_subprocess("-p", "no:hypothesispytest", "-p", "no:cov")
    result.assert_outcomes(passed=1)
    result.stdout.no_fnmatch_line("doctor:*")


def test_examining_loads_neither_the_engine_nor_sqlmodel_nor_what_repairs_and_draws(
    run_doctor: Doctor, sick: Built, pytester: pytest.Pytester
) -> None:
    pytester.makeconftest(
        "import sys\n"
        "def pytest_sessionfinish():\n"
        "    own = {f'pytest_panic_doctor.{name}' for name in ('repair', 'report.html', 'session.demo')}\n"
        "    print('loaded', sorted({'sqlmodel', 'gph', 'gudhi', 'sklearn', *own} & set(sys.modules)))\n"
    )
    assert sick.path.exists()
    run_doctor("-s", process=True).stdout.fnmatch_lines(["*loaded [[][]]*"])


@pytest.mark.integration
def test_a_wal_database_and_its_sidecars(run_doctor: Doctor, pytester: pytest.Pytester) -> None:
    built = build(pytester.path / "x.sqlite", wal=True)
    before = digest(pytester.path)
    run_doctor("-n2").assert_outcomes(passed=COUNT)
    assert digest(pytester.path) == before
    with built.open() as db:
        db.execute("DELETE FROM run")
        names = set(digest(pytester.path))
        assert run_doctor().ret == 1
        assert set(digest(pytester.path)) == names


@pytest.mark.integration
def test_the_cap_on_workers(run_doctor: Doctor, sick: Built) -> None:
    assert sick.path.exists()
    result = run_doctor("-n64", "--doctor-max-workers=1")
    result.stdout.fnmatch_lines(["doctor: 1 worker (64 asked, --doctor-max-workers 1)", "1 worker [[]*"])
    result.assert_outcomes(passed=COUNT)
    result = run_doctor("-n64", "--doctor-memory=500MB", "--doctor-rule=schema")
    result.stdout.fnmatch_lines(["doctor: 1 worker (64 asked, 500 MB of memory for 1)"])


@pytest.mark.integration
def test_a_killed_worker_is_an_item_that_failed(run_doctor: Doctor, sick: Built) -> None:
    (sick.path.parent / "conftest.py").write_text(
        "import os, signal\nimport pytest_panic_doctor as d\n"
        "@d.rule('deadly', scope=d.Scope.DATABASE, description='it kills its worker')\n"
        "def deadly(context):\n    os.kill(os.getpid(), signal.SIGKILL)\n"
        "def pytest_doctor_rules():\n    return [deadly]\n"
    )
    result = run_doctor("-n2", "--doctor-report=r.json", "--junitxml=r.xml")
    assert result.ret == 1
    found = outcomes(sick.path.parent / "r.json")
    assert found["deadly"] == "failed"
    assert len(found) == COUNT + 1
    assert "crashed while running" in str(items(sick.path.parent / "r.json")["deadly"]["note"])
    assert "deadly" in (sick.path.parent / "r.xml").read_text()


def test_rules_are_listed(run_doctor: Doctor) -> None:
    result = run_doctor("--doctor-rules", database=None)
    assert result.ret == 0
    text = result.stdout.str()
    for rule in registry().values():
        assert rule.id in text
    assert all(len(line) <= 80 for line in result.outlines)


def test_the_json_report(run_doctor: Doctor, sick: Built, mode: tuple[str, ...]) -> None:
    plant(sick, "vector_null")
    run_doctor(*mode, "--doctor-report=r.json", "--doctor-report=r.jsonl")
    folder = sick.path.parent
    report = json.loads((folder / "r.json").read_text())
    assert set(report) == {"doctor", "items"}
    assert report["doctor"]["totals"]["failed"] == 2
    name = f"embedding-vector[{dashed(sick.experiment)}-Nomic]"
    item = items(folder / "r.json")[name]
    assert item["nodeid"] == f"x.sqlite::{name}"
    assert item["rule"] == "embedding-vector"
    assert float(str(item["duration"])) > 0
    assert item["findings"] == [
        {
            "rule": "embedding-vector",
            "experiment": sick.experiment,
            "run": sick.run(),
            "embedding_model": "Nomic",
            "table": "embedding",
            "ids": [sick.embedding(3)],
            "count": 1,
            "message": "1 of 12 vectors is unusable: 1 NULL",
        }
    ]
    lines = [json.loads(line) for line in (folder / "r.jsonl").read_text().splitlines()]
    assert sorted(line["nodeid"] for line in lines) == sorted(item["nodeid"] for item in report["items"])


def test_without_xdist_installed(
    run_doctor: Doctor, sick: Built, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    hidden = pytester.mkdir("hidden")
    (hidden / "xdist").mkdir()
    (hidden / "xdist" / "__init__.py").write_text("raise ImportError('hidden')\n")
    (hidden / "sitecustomize.py").write_text(
        "import importlib.metadata as m\n"
        "real = m.distributions\n"
        "def without(**k):\n    return (d for d in real(**k) if d.metadata['Name'] != 'pytest-xdist')\n"
        "m.distributions = without\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(hidden))
    result = run_doctor(process=True)
    result.stdout.no_fnmatch_line("plugins: *xdist*")
    result.assert_outcomes(passed=COUNT)
    assert sick.path.exists()
