"""What stands in the way of a session: a table that is gone, a disk that is full, a name that pytest cannot read."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from databases import Built, build
from defects import plant
from pytest_runs import Doctor, outcomes, run_pytest

MODES = pytest.mark.parametrize("mode", [(), ("-n2",)], ids=["plain", "n2"])


@MODES
@pytest.mark.parametrize("gone", ["table_gone", "table_without_rowid"])
def test_what_can_be_repaired_is_repaired_where_a_table_cannot_be_asked(
    run_doctor: Doctor, sick: Built, mode: tuple[str, ...], gone: str
) -> None:
    plant(sick, gone, "diagram_null")
    result = run_doctor("--doctor-fix", "--doctor-report=r.json", *mode)
    assert result.ret == 1
    came = outcomes(sick.path.with_name("r.json"))
    assert came["schema"] == "failed"
    assert "fixed" in came.values()
    assert "INTERNALERROR" not in result.stdout.str() + result.stderr.str()


def test_a_rule_of_others_that_cannot_be_asked_stops_no_repair(
    run_doctor: Doctor, sick: Built, pytester: pytest.Pytester
) -> None:
    pytester.makeconftest(
        "import pytest_panic_doctor as d\n"
        "@d.rule('own', scope=d.Scope.DATABASE, description='s', repair=d.RepairKind.QUARANTINE)\n"
        "def own(context):\n"
        "    raise RuntimeError('no such luck')\n"
        "def pytest_doctor_rules():\n"
        "    return [own]\n"
    )
    plant(sick, "diagram_null")
    result = run_doctor("--doctor-fix", "--doctor-report=r.json")
    assert result.ret == 1
    came = outcomes(sick.path.with_name("r.json"))
    assert [name for name, word in came.items() if word == "failed"] == ["own"]
    assert "fixed" in came.values()
    result.stdout.fnmatch_lines(["*RuntimeError('no such luck') in conftest.py:*"])


@pytest.mark.parametrize("older", [False, True], ids=["with UNIQUE", "without"])
def test_a_misspelt_column_in_a_rule_is_the_rules_fault(
    run_doctor: Doctor, sick: Built, pytester: pytest.Pytester, older: bool
) -> None:
    """Files without the later constraints have a warning from `schema`, which excuses nothing."""
    pytester.makeconftest(
        "import pytest_panic_doctor as d\n"
        "@d.rule('own', scope=d.Scope.DATABASE, description='s')\n"
        "def own(context):\n"
        "    return context.db.execute('SELECT sed FROM run').fetchall()\n"
        "def pytest_doctor_rules():\n"
        "    return [own]\n"
    )
    sick.path.unlink()
    build(sick.path, older=older)
    result = run_doctor("--doctor-rule=own")
    assert result.ret == 1
    result.stdout.fnmatch_lines(["*OperationalError('no such column: sed') in conftest.py:*"])


def test_a_column_that_the_file_lacks_is_not(run_doctor: Doctor, sick: Built) -> None:
    with sick.open() as db:
        db.execute("ALTER TABLE embeddingcluster RENAME COLUMN medoid_embedding_id TO centre")
    result = run_doctor("--doctor-rule=orphan-cluster", "--doctor-rule=schema", "-rs")
    assert result.ret == 1
    result.stdout.fnmatch_lines(["SKIPPED*no such column: *medoid_embedding_id (see schema)"])
    result.assert_outcomes(failed=1, skipped=1)


@MODES
@pytest.mark.usefixtures("sick")
def test_a_report_that_cannot_be_written_is_said_and_is_not_green(
    run_doctor: Doctor, pytester: pytest.Pytester, mode: tuple[str, ...]
) -> None:
    (pytester.path / "full.jsonl").symlink_to("/dev/full")
    (pytester.path / "gone").mkdir()
    pytester.makeconftest(
        "import shutil\n"
        "def pytest_runtest_logreport(report):\n"
        f"    shutil.rmtree({str(pytester.path / 'gone')!r}, ignore_errors=True)\n"
    )
    reports = [f"--doctor-report={name}" for name in ("full.jsonl", "gone/r.json", "gone/r.html", "here.json")]
    result = run_doctor("--doctor-rule=orphan-run", "--doctor-rule=schema", *reports, *mode, process=True)
    assert result.ret == 1
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(
        [
            "doctor: full.jsonl could not be written (No space left on device): make room for it, or *",
            "doctor: gone/r.json could not be written (No such file or directory): *",
            "doctor: gone/r.html could not be written (No such file or directory): *",
        ]
    )
    assert "INTERNALERROR" not in result.stdout.str() + result.stderr.str()
    assert set(outcomes(pytester.path / "here.json").values()) == {"passed"}


@pytest.mark.parametrize("option", ["--setup-only", "--setup-plan"])
@pytest.mark.usefixtures("sick")
def test_what_examines_nothing_is_refused(run_doctor: Doctor, option: str) -> None:
    result = run_doctor(option)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: --setup-only and --setup-plan examine nothing: leave them out, or *"])


@pytest.mark.parametrize("name", ["a[1].sqlite", "a::b.sqlite"])
@MODES
def test_a_name_that_pytest_reads_otherwise_is_refused(
    pytester: pytest.Pytester, name: str, mode: tuple[str, ...]
) -> None:
    build(pytester.path / name)
    result = run_pytest(pytester, f"--doctor-db={name}", *mode)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert f"{name} has [ or :: in it, which pytest takes for an item: link to it" in result.stderr.str()
    (pytester.path / "link.sqlite").symlink_to(pytester.path / name)
    assert run_pytest(pytester, "--doctor-db=link.sqlite", *mode).ret == pytest.ExitCode.OK


def test_a_name_that_is_not_utf8_is_refused(pytester: pytest.Pytester) -> None:
    path = Path(os.fsdecode(os.fsencode(pytester.path) + b"/a\xff.sqlite"))
    build(path)
    result = run_pytest(pytester, "--doctor-db", path.name)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([r"ERROR: --doctor-db */a?xff.sqlite is not UTF-8: rename it, or make a symbolic *"])


def test_no_report_takes_the_place_of_the_database(pytester: pytest.Pytester) -> None:
    build(pytester.path / "x.json")
    (pytester.path / "y.json").symlink_to("x.json")
    before = (pytester.path / "x.json").read_bytes()
    for report in ("x.json", "y.json"):
        result = run_pytest(pytester, "--doctor-db=x.json", f"--doctor-report={report}")
        assert result.ret == pytest.ExitCode.USAGE_ERROR
        result.stderr.fnmatch_lines([f"ERROR: --doctor-report *{report} is the database itself: name another file"])
    assert (pytester.path / "x.json").read_bytes() == before


def test_the_command_line_has_the_last_word_over_the_ini_file(
    run_doctor: Doctor, sick: Built, pytester: pytest.Pytester
) -> None:
    plant(sick, "diagram_null")
    pytester.makeini("[pytest]\ndoctor_fix = true\n")
    planned = run_doctor("--doctor-plan")
    assert planned.ret == 1
    planned.stdout.fnmatch_lines(["*compute 1 diagram*"])
    assert run_doctor("-q").ret == 0
    undone = run_doctor("--doctor-undo", "all")
    assert undone.ret == 0
    undone.stdout.fnmatch_lines(["undid repair 1 (diagram-missing): 1 row; this undo is repair 2"])
    pytester.makeini("[pytest]\ndoctor_undo = all\n")
    assert run_doctor("--doctor-fix").ret == 0
    run_doctor().stdout.fnmatch_lines(["undid repair 3 (diagram-missing): 1 row*"])
    pytester.makeini("[pytest]\ndoctor_rules = true\n")
    run_doctor().stdout.fnmatch_lines(["*orphan-run*"])
