"""Ways to a green session over a file that is sick, or was not looked at: each ends in another status than 0."""

from __future__ import annotations

import io
import json
import shlex
import shutil
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from databases import Built, build, npz
from defects import plant
from html_payload import data_of
from odd_ids import SPELLINGS, rename
from pytest_runs import Doctor, items

from pytest_panic_doctor.database import integrity

REPLACING = """
import os

def pytest_doctor_outcome(item):
    if os.path.exists("other.sqlite"):
        os.replace("other.sqlite", "x.sqlite")
"""
"""A conftest.py that puts another database in the place of the examined one when the first item has ended."""

REMOVING = "import os\ndef pytest_doctor_outcome(item):\n    if os.path.exists('x.sqlite'): os.remove('x.sqlite')\n"


@pytest.mark.parametrize("table", ["run", "experimentconfig"])
def test_an_id_that_cannot_be_queried_fails_its_items_without_id_format(
    run_doctor: Doctor, sick: Built, table: str
) -> None:
    with sick.open() as db:
        rename(db, table, sick.run() if table == "run" else sick.experiment, SPELLINGS["a byte 0xff"])
    result = run_doctor("--doctor-rule=diagram-missing", "--doctor-rule=embedding-missing")
    assert result.ret == 1
    result.stdout.fnmatch_lines(["*not examined: the id of the * is not UTF-8*(see id-format)*"])


@pytest.mark.parametrize(
    ("conftest", "what"),
    [(REPLACING, "was replaced by another file"), (REMOVING, "was removed")],
    ids=["replaced", "removed"],
)
def test_a_database_that_is_another_now_is_not_green(
    run_doctor: Doctor, sick: Built, pytester: pytest.Pytester, mode: tuple[str, ...], conftest: str, what: str
) -> None:
    shutil.copy(sick.path, pytester.path / "other.sqlite")
    pytester.makeconftest(conftest)
    result = run_doctor(*mode, "--doctor-report=r.json", "--junitxml=r.xml", "--maxprocesses=2")
    assert result.ret in (1, 2), result.stdout.str()
    assert f"x.sqlite {what} after the examination began: run again" in result.stdout.str()
    if (pytester.path / "r.json").exists():
        rules = json.loads((pytester.path / "r.json").read_text())["doctor"]["rules"]
        assert rules["sick"] or rules["not examined"]


def test_a_baseline_of_a_session_that_reached_a_part_is_not_written(
    run_doctor: Doctor, sick: Built, pytester: pytest.Pytester
) -> None:
    pytester.makeconftest(
        "from pytest_panic_doctor import Rule, Scope\n"
        "def check(context):\n    raise ValueError('always')\n"
        "def pytest_doctor_rules():\n    return [Rule('a-mine', Scope.DATABASE, 'mine', check)]\n"
    )
    plant(sick, "diagram_null")
    result = run_doctor("-x", "--doctor-baseline=b.json", "--doctor-baseline-write")
    assert result.ret == 1
    assert "doctor: the baseline was not written: the examination did not finish" in result.stdout.str()
    assert not (pytester.path / "b.json").exists()


def test_a_payload_that_is_only_rewritten_is_planned_so(
    run_doctor: Doctor, sick: Built, pytester: pytest.Pytester
) -> None:
    with sick.open() as db:
        row = (sick.diagram(),)
        (payload,) = db.execute("SELECT diagram_data FROM persistencediagram WHERE id = ?", row).fetchone()
        with np.load(io.BytesIO(payload)) as stored:
            arrays = {name: stored[name] for name in stored.files}
        broken = npz(**arrays | {"dgms_count": np.array(3)})
        db.execute("UPDATE persistencediagram SET diagram_data = ? WHERE id = ?", (broken, *row))
    result = run_doctor("--doctor-plan", "--doctor-report=r.json")
    planned = [item for item in items(pytester.path / "r.json").values() if item["outcome"] == "failed"]
    assert [item["measures"] for item in planned] == [{"rewritten": 1}]
    result.stdout.fnmatch_lines(["would fix * diagram-valid * rewrite 1 diagram without computing"])
    assert run_doctor("--doctor-fix", "--doctor-report=r.json").ret == 0
    assert [item["note"] for item in items(pytester.path / "r.json").values() if item["outcome"] == "fixed"] == [
        "rewrote the payload so that the research tool reads it; its bars are as they were"
    ]


def test_the_next_command_runs_with_the_same_files_and_plugins(
    run_doctor: Doctor, sick: Built, pytester: pytest.Pytester
) -> None:
    (pytester.path / "own.ini").write_text("[pytest]\n")
    (pytester.path / "mine.py").write_text("")
    plant(sick, "diagram_null")
    result = run_doctor("-c", "own.ini", "--rootdir=.", "-pmine", "-p", "no:randomly", "-o", "addopts=")
    line = [line for line in result.stdout.lines if line.startswith("next: ")][-1]
    words = shlex.split(line.removeprefix("next: "))
    assert words[words.index("pytest") + 1 : words.index("--doctor-db")] == [
        *("-c", "own.ini", "--rootdir=.", "-pmine", "-p", "no:randomly", "-o", "addopts=")
    ]


def test_a_folder_with_control_characters_reaches_no_terminal(run_doctor: Doctor, pytester: pytest.Pytester) -> None:
    folder = pytester.path / "a\x1b31mb\rc"
    folder.mkdir()
    built = build(folder / "x.sqlite")
    plant(built, "diagram_null")
    result = run_doctor("-v", "--rootdir=.", database=f"{folder.name}/x.sqlite")
    assert result.ret == 1
    assert "a\x1b31mb" not in result.stdout.str()
    assert "a\N{REPLACEMENT CHARACTER}31mb\N{REPLACEMENT CHARACTER}c" in result.stdout.str()


def test_file_integrity_does_not_refer_to_itself(run_doctor: Doctor, sick: Built) -> None:
    with sick.path.open("r+b") as file:
        file.seek(5 * 4096 + 8)
        file.write(b"\xff" * 4000)
    result = run_doctor("--doctor-rule=file-integrity")
    assert result.ret == 1
    assert "see file-integrity" not in result.stdout.str()
    result.stdout.fnmatch_lines(["*nothing repairs this: restore the file from a backup*"])


def test_the_page_says_of_an_index_that_it_is_rebuilt(run_doctor: Doctor, sick: Built) -> None:
    with sick.open() as db:
        db.execute("PRAGMA writable_schema = ON")
        (page,) = db.execute("SELECT rootpage FROM sqlite_master WHERE name = 'ix_run_experiment_id'").fetchone()
        db.execute("UPDATE sqlite_master SET rootpage = ? WHERE name = 'ix_persistencediagram_run_id'", (page,))
    run_doctor("--doctor-rule=file-integrity", "--doctor-report=r.html")
    (rule,) = data_of(Path("r.html"))["rules"]
    assert rule["verdict"] == "sick"
    assert integrity.REBUILD in rule["remedy"]


VIEW = "ALTER TABLE embedding RENAME TO old; CREATE VIEW embedding AS SELECT * FROM old; UPDATE old SET vector = NULL"
NO_LIST = "UPDATE experimentconfig SET embedding_models = 'oops' WHERE id = '{experiment}'"


@pytest.mark.parametrize(
    ("rule", "script", "decisive"),
    [("orphan-embedding", VIEW, "schema"), ("orphan-diagram", NO_LIST, "experiment-config")],
)
def test_rules_alone_are_not_green_where_items_may_be_missing(
    run_doctor: Doctor,
    sick: Built,
    pytester: pytest.Pytester,
    mode: tuple[str, ...],
    rule: str,
    script: str,
    decisive: str,
) -> None:
    with sick.open() as db:
        db.executescript(script.format(experiment=sick.experiment))
    reports = ("--doctor-report=r.json", "--doctor-report=r.html", "--junitxml=r.xml", "--doctor-shard=1/1")
    result = run_doctor(f"--doctor-rule={rule}", *mode, *reports)
    assert result.ret == 1
    result.stdout.fnmatch_lines(
        [f"doctor: items may be missing or cannot be judged: {decisive}*examine {decisive} too"]
    )
    (doubt,) = json.loads((pytester.path / "r.json").read_text())["doctor"]["doubts"]
    assert doubt.startswith("items may be missing")
    assert "items may be missing" in (pytester.path / "r.html").read_text()
    (suite,) = ElementTree.parse(pytester.path / "r.xml").iter("testsuite")
    assert (suite.get("tests"), suite.get("failures")) == ("2", "1")
    merged = run_doctor("--doctor-merge=r.json", "--doctor-report=m.json", database=None)
    assert merged.ret == 1
    assert json.loads((pytester.path / "m.json").read_text())["doctor"]["doubts"] == [doubt]
    assert run_doctor(f"--doctor-rule={rule}", "-o", f"doctor_severity={decisive}: off").ret == 0


ENDING = "import pytest\ndef pytest_runtest_logfinish(nodeid):\n    if 'schema' in nodeid: pytest.exit('enough', 0)\n"
TAKEN = """
import pytest

class Taken:
    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(self, item):
        return True

def pytest_collection_finish(session):
    session.config.pluginmanager.register(Taken())
"""
SET = "def pytest_sessionfinish(session): session.exitstatus = 0\n"
SET_LAST = """
import pytest

class Last:
    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_sessionfinish(self, session):
        yield
        session.exitstatus = 0

def pytest_sessionstart(session):
    session.config.pluginmanager.register(Last())
"""


@pytest.mark.parametrize("conftest", [ENDING, TAKEN, SET, SET_LAST], ids=["ended", "taken", "set", "set last"])
def test_a_status_that_others_set_is_not_green_where_an_item_failed_or_did_not_end(
    run_doctor: Doctor, sick: Built, pytester: pytest.Pytester, mode: tuple[str, ...], conftest: str
) -> None:
    (pytester.path / "mine.py").write_text(conftest)
    if conftest in (SET, SET_LAST):
        plant(sick, "diagram_null")
    result = run_doctor("-p", "mine", "--junitxml=r.xml", *mode)
    if conftest is ENDING and "-n" not in mode:
        assert "did not end, so nothing is known about them" in result.stdout.str()
    assert result.ret != 0


def test_a_finding_that_counts_no_row_is_one_for_its_severity(
    run_doctor: Doctor, sick: Built, pytester: pytest.Pytester
) -> None:
    assert sick.path.exists()
    pytester.makeconftest(
        "from pytest_panic_doctor import Rule, Scope\n"
        "def check(context):\n    yield context.finding('bad', count=0)\n"
        "def pytest_doctor_rules():\n    return [Rule('a-mine', Scope.DATABASE, 'mine', check)]\n"
    )
    assert run_doctor("--doctor-rule=a-mine", "-o", "doctor_severity=a-mine: warn <= 0").ret == 1
    assert run_doctor("--doctor-rule=a-mine", "-o", "doctor_severity=a-mine: warn <= 1").ret == 0


LEAVING_OUT = (
    "def pytest_collection_modifyitems(items): items[:] = [each for each in items if 'schema' in each.nodeid]\n"
)
SAYING_SO = """
def pytest_collection_modifyitems(config, items):
    left = [each for each in items if 'schema' not in each.nodeid]
    items[:] = [each for each in items if each not in left]
    config.hook.pytest_deselected(items=left)
"""


@pytest.mark.parametrize("fix", [(), ("--doctor-fix",)], ids=["examine", "fix"])
def test_items_that_others_take_from_the_list_without_a_word_are_not_examined(
    run_doctor: Doctor, sick: Built, pytester: pytest.Pytester, mode: tuple[str, ...], fix: tuple[str, ...]
) -> None:
    plant(sick, "diagram_null")
    before = sick.path.read_bytes()
    pytester.makeconftest(LEAVING_OUT)
    result = run_doctor("--doctor-report=r.json", "--maxprocesses=2", *mode, *fix)
    report = json.loads((pytester.path / "r.json").read_text())
    notes = {item["note"] for item in report["items"] if item["rule"] != "schema"}
    assert notes == {"not started: another plugin or a conftest.py left it out"}
    assert report["doctor"]["rules"]["not examined"] == len(report["doctor"]["selected"]) - 1
    result.stdout.fnmatch_lines(["not examined * rules: * not started"])
    assert sick.path.read_bytes() == before


def test_items_that_others_leave_out_aloud_are_counted_by_pytest(
    run_doctor: Doctor, sick: Built, pytester: pytest.Pytester
) -> None:
    pytester.makeconftest(SAYING_SO)
    assert sick.path.exists()
    result = run_doctor("--doctor-report=r.json")
    assert result.ret == 0
    assert set(items(pytester.path / "r.json")) == {"schema"}
    result.stdout.fnmatch_lines(["*1 passed, * deselected*"])
