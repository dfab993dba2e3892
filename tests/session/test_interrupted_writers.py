"""Another program dies while it writes, in the midst of a session: one sentence, and nothing green."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from databases import Built, build, dump
from defects import plant
from interrupted_process import leave_half_written
from pytest_runs import ALONE, Doctor, outcomes
from user_files import ROOT_ONLY, as_second

from pytest_panic_doctor.database.connection import Database, Unreadable

pytestmark = pytest.mark.integration

SAID = "*x.sqlite has a hot journal, left by a program that died while it wrote: open the database once *"
CONFTEST = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parents[1] / "support")!r})
from pathlib import Path
from interrupted_process import leave_half_written

def pytest_runtest_logreport(report):
    if "orphan-run" in report.nodeid and report.when == "call" and not Path("left").exists():
        Path("left").touch()
        leave_half_written(Path("x.sqlite"))
"""
"""In the middle of the session; in a worker and in the controller alike."""


@pytest.mark.parametrize("mode", [(), ("-n2",)], ids=["plain", "n2"])
def test_an_examination_ends_with_one_sentence(
    run_doctor: Doctor, sick: Built, pytester: pytest.Pytester, mode: tuple[str, ...]
) -> None:
    pytester.makeconftest(CONFTEST)
    result = run_doctor("--doctor-report=r.json", "--doctor-report=r.html", "--junitxml=r.xml", *mode)
    assert result.ret in (pytest.ExitCode.TESTS_FAILED, pytest.ExitCode.INTERRUPTED)
    result.stdout.fnmatch_lines(["*rules: * not examined", SAID])
    text = result.stdout.str() + result.stderr.str()
    assert "Traceback" not in text
    assert "INTERNALERROR" not in text
    assert "readonly" not in text
    came = json.loads((pytester.path / "r.json").read_text())
    assert came["doctor"]["rules"]["sick"] == 0
    assert came["doctor"]["rules"]["not examined"] >= 1
    assert Path(f"{sick.path}-journal").stat().st_size > 0, "nothing was written without --doctor-fix"
    assert run_doctor().ret == pytest.ExitCode.USAGE_ERROR


@pytest.mark.parametrize("mode", [(), ("-n2",)], ids=["plain", "n2"])
def test_a_repair_lets_sqlite_roll_back_and_says_so(
    run_doctor: Doctor, sick: Built, pytester: pytest.Pytester, mode: tuple[str, ...]
) -> None:
    before = dump(sick.path)
    pytester.makeconftest(CONFTEST)
    result = run_doctor("--doctor-fix", "--doctor-report=r.json", *mode)
    assert result.ret == 0, result.stdout.str()
    assert set(outcomes(pytester.path / "r.json").values()) <= {"passed", "skipped"}
    said = "another program died while it wrote: SQLite rolled back what it had not committed"
    result.stdout.fnmatch_lines([f"doctor: {said}"])
    leave_half_written(sick.path)
    run_doctor("--doctor-fix", "--doctor-rule=schema").stdout.fnmatch_lines([f"doctor: warning: {said}"])
    assert dump(sick.path) == before


def test_a_reader_says_what_is_there(tmp_path: Path) -> None:
    built = build(tmp_path / "x.sqlite")
    database = Database(built.path)
    assert database.read(lambda db: db.execute("SELECT count(*) FROM run").fetchone()) == (2,)
    leave_half_written(built.path)
    for _ in range(2):
        with pytest.raises(Unreadable) as caught:
            database.read(lambda db: db.execute("SELECT count(*) FROM run").fetchone())
        pytest.LineMatcher([str(caught.value)]).fnmatch_lines([SAID])
    with built.open() as db:
        db.execute("SELECT count(*) FROM run").fetchone()
    assert database.read(lambda db: db.execute("SELECT count(*) FROM run").fetchone()) == (2,), "it is rolled back"
    database.close()


READ = """
import sys
from pathlib import Path
from pytest_panic_doctor.database.connection import Database, Unreadable
try:
    print(Database(Path("x.sqlite")).read(lambda db: db.execute("SELECT count(*) FROM run").fetchone()[0]))
except Unreadable as error:
    print(error)
"""


@ROOT_ONLY
@pytest.mark.parametrize("gone", ["", "-shm"])
def test_a_wal_that_cannot_be_read_without_writing_is_named(tmp_path: Path, gone: str) -> None:
    build(tmp_path / "x.sqlite", wal=True)
    leave_half_written(tmp_path / "x.sqlite")
    if gone:
        (tmp_path / f"x.sqlite{gone}").unlink()
    before = sorted(each.name for each in tmp_path.iterdir())
    tmp_path.chmod(0o755)
    done = as_second(["-c", READ], tmp_path)
    said = "x.sqlite has a write-ahead log, left by a program that died while it wrote, which cannot be read without "
    assert done.stdout.startswith(said), done.stderr
    assert done.stdout.count("\n") == 1
    assert sorted(each.name for each in tmp_path.iterdir()) == before


@pytest.mark.parametrize("limit", [60_000, 240_000], ids=["nothing can be rolled back", "no room for more"])
def test_a_file_that_may_not_grow_ends_a_repair_with_a_sentence(tmp_path: Path, limit: int) -> None:
    built = build(tmp_path / "x.sqlite", runs=12, older=True)
    plant(built, "run_of_lost_experiment")
    with built.open() as db:
        db.execute("UPDATE persistencediagram SET diagram_data = NULL")
    command = [sys.executable, "-m", "pytest", *ALONE, "-p", "no:cacheprovider", "--doctor-db=x.sqlite"]
    done = subprocess.run(
        [*command, "--doctor-fix"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert "readonly" not in done.stdout
    assert len(done.stdout) < 40_000
    assert "disk" in done.stdout
    again = subprocess.run([*command, "--doctor-fix"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stdout
