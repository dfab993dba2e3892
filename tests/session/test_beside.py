"""Beside the plugins that people have: no error, no double report, the same outcomes and the same exit status."""

from __future__ import annotations

import html
import json
import re
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

import pytest
from databases import COUNT, RULES, Built, build, dump, uid
from defects import DAMAGES, TOGETHER
from pytest_runs import BESIDE, Doctor, items, outcomes

from pytest_panic_doctor.database.spelling import dashed

pytestmark = pytest.mark.integration

MODES = [(), ("-n", "2")]
PLANTED = ("vector_null", "diagram_of_lost_run", "embedding_of_lost_invocation")
FAILED = {f"embedding-vector[{dashed(uid(1, 0))}-Nomic]", f"diagram-current[{dashed(uid(2, 0))}-Nomic]"}
FIXED = {"orphan-diagram", "orphan-embedding"}

HTML = ("-phtml", "-phtml_fixtures", "-pmetadata", "--html=beside.html", "--self-contained-html")
JSON = ("-ppytest_jsonreport", "--json-report", "--json-report-file=beside.json")
LOG = ("-ppytest_reportlog", "--report-log=beside.jsonl")
COV = ("-ppytest_cov", "--cov=test_own", "--cov-report=term")
RANDOMLY = ("-prandomly",)
RERUNS = ("-prerunfailures", "--reruns=2")
SUGAR = ("-psugar", "--force-sugar")
TIMEOUT = ("-ptimeout", "--timeout=60")
ALL = (*HTML, *JSON, *LOG, *COV, *RANDOMLY, *RERUNS, *SUGAR, *TIMEOUT)

OWN = """
from pathlib import Path

def test_healthy():
    pass

def test_flaky():
    marks = Path(__file__).with_name("flaky")
    with marks.open("a") as file:
        file.write(".")
    assert marks.read_text() == ".."
"""


@pytest.fixture
def planted(pytester: pytest.Pytester) -> Built:
    """Two items that a repair fixes, two that it cannot, and a test of the project's own beside them."""
    built = build(pytester.path / "x.sqlite")
    plant(built, *PLANTED)
    pytester.makepyfile(test_own="def test_healthy():\n    pass\n")
    return built


def plant(built: Built, *names: str) -> None:
    with built.open() as db:
        for digit, name in enumerate(names):
            DAMAGES[name].plant(db, built)
            db.execute("UPDATE persistencediagram SET id = ? WHERE id = ?", (f"{digit}" * 32, "f" * 32))


def check(result: pytest.RunResult, folder: Path) -> None:
    """It ended as it would have alone."""
    told = result.stdout.str() + result.stderr.str()
    assert result.ret == pytest.ExitCode.TESTS_FAILED, told
    assert "INTERNALERROR" not in told
    assert "Traceback" not in told
    report = json.loads((folder / "r.json").read_text())
    assert report["doctor"]["totals"] == {"failed": 2, "fixed": 2, "skipped": 0, "passed": COUNT - 4}
    assert len(report["items"]) == COUNT
    check_outcomes(outcomes(folder / "r.json"))


def check_outcomes(found: dict[str, str]) -> None:
    """Each item, once, has the outcome that was planted."""
    assert len(found) == COUNT
    assert {name for name, word in found.items() if word == "failed"} == FAILED
    assert {name for name, word in found.items() if word == "fixed"} == FIXED


def of_the_doctor(nodeid: str) -> str:
    """The item's name, empty for a test of the project's own."""
    return nodeid.removeprefix("x.sqlite::") if nodeid.startswith("x.sqlite::") else ""


def test_none_of_them_is_in_this_run(pytestconfig: pytest.Config) -> None:
    addopts = pytestconfig.getini("addopts")
    assert {f"no:{name}" for name in BESIDE} <= set(addopts)


@pytest.mark.parametrize(
    "plugin",
    [(), HTML, JSON, LOG, COV, RANDOMLY, RERUNS, SUGAR, TIMEOUT],
    ids=["none", "html", "json", "log", "cov", "randomly", "reruns", "sugar", "timeout"],
)
def test_each(run_doctor: Doctor, planted: Built, plugin: tuple[str, ...]) -> None:
    result = run_doctor("test_own.py", "--doctor-fix", "--doctor-report=r.json", *plugin, process=True)
    check(result, planted.path.parent)
    result.stdout.fnmatch_lines([f"{RULES} rules: {RULES - 4} healthy, 2 fixed, 2 sick"])
    for rule in (name.partition("[")[0] for name in FAILED):
        assert len([line for line in result.outlines if line.startswith(f"{rule} [Nomic]: ")]) == 1, "shown once"


@pytest.mark.parametrize("mode", MODES, ids=["plain", "n2"])
def test_all_at_once(run_doctor: Doctor, planted: Built, mode: tuple[str, ...]) -> None:
    result = run_doctor(
        "test_own.py", "--doctor-fix", "--doctor-report=r.json", "--junitxml=r.xml", *ALL, *mode, process=True
    )
    folder = planted.path.parent
    check(result, folder)
    check_html(folder / "beside.html")
    check_json(folder / "beside.json")
    check_log(folder / "beside.jsonl")
    cases = [case.get("classname") for case in ElementTree.parse(folder / "r.xml").iter("testcase")]
    assert len(cases) == COUNT + 1
    assert sum(str(each).startswith("doctor.") for each in cases) == COUNT
    result.stdout.fnmatch_lines(["test_own.py * 100%"])


def check_html(path: Path) -> None:
    """A row an item; pytest-html knows no fixed, so that its row says passed and its log says what was done."""
    blob = re.search(r'data-jsonblob="([^"]*)"', path.read_text(encoding="utf-8"))
    assert blob
    rows = {of_the_doctor(nodeid): each for nodeid, each in json.loads(html.unescape(blob[1]))["tests"].items()}
    assert rows.pop("")[0]["result"] == "Passed"
    assert all(len(each) == 1 for each in rows.values())
    fixed = {name for name, (row,) in rows.items() if row["result"] == "Passed" and "quarantined 1 row" in row["log"]}
    failed = {name for name, (row,) in rows.items() if row["result"] == "Failed"}
    assert (len(rows), failed, fixed) == (COUNT, FAILED, FIXED)
    (row,) = rows["orphan-embedding"]
    assert "1 of 25 embeddings does not belong to an invocation" in row["log"]


def check_json(path: Path) -> None:
    """pytest-json-report asks pytest for the outcome, so that it says fixed, and counts it."""
    report = json.loads(path.read_text())
    assert report["summary"] == {
        "passed": COUNT - 3,
        "failed": 2,
        "fixed": 2,
        "total": COUNT + 1,
        "collected": COUNT + 1,
    }
    check_outcomes({name: each["outcome"] for each in report["tests"] if (name := of_the_doctor(each["nodeid"]))})


def check_log(path: Path) -> None:
    """pytest-reportlog writes the report itself, with all that the doctor put on it."""
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert not [line for line in lines if line.get("outcome") == "rerun"]
    calls = [line for line in lines if line.get("when") == "call" and of_the_doctor(line["nodeid"])]
    assert len(calls) == COUNT
    check_outcomes({of_the_doctor(line["nodeid"]): line["doctor"]["outcome"] for line in calls})


@pytest.mark.parametrize("reruns", [("--reruns=2",), ("--force-reruns=2", "-n2")], ids=["plain", "n2-force"])
def test_a_sick_item_is_not_run_again_and_a_flaky_test_is(
    run_doctor: Doctor, planted: Built, pytester: pytest.Pytester, reruns: tuple[str, ...]
) -> None:
    pytester.makepyfile(test_own=OWN)
    result = run_doctor("test_own.py", "-prerunfailures", *reruns, *LOG, "--doctor-report=r.json", process=True)
    assert result.ret == 1
    assert result.parseoutcomes()["rerun"] == 1
    lines = [json.loads(line) for line in (planted.path.parent / "beside.jsonl").read_text().splitlines()]
    ran = Counter(line["nodeid"] for line in lines if line.get("when") == "call")
    assert ran.pop("test_own.py::test_flaky") == 2
    assert set(ran.values()) == {1}
    assert len(ran) == COUNT + 1
    assert len(items(planted.path.parent / "r.json")) == COUNT
    result.stdout.fnmatch_lines(["sick *embedding-vector *1 of 2 items failed"])


DEADLY = """
import os, signal
from pathlib import Path
import pytest_panic_doctor as d

@d.rule("deadly", scope=d.Scope.DATABASE, description="it kills its worker")
def deadly(context):
    with open("killed", "a") as file:
        file.write(".")
    os.kill(os.getpid(), signal.SIGKILL)

def pytest_doctor_rules():
    return [deadly]
"""


def test_an_item_that_killed_its_worker_is_not_run_again(run_doctor: Doctor, planted: Built) -> None:
    folder = planted.path.parent
    (folder / "conftest.py").write_text(DEADLY)
    assert run_doctor(*RERUNS, *JSON, "-n2", "--doctor-report=r.json", process=True).ret == 1
    assert (folder / "killed").read_text() == "."
    assert outcomes(folder / "r.json")["deadly"] == "failed"
    report = json.loads((folder / "beside.json").read_text())
    assert [each["outcome"] for each in report["tests"] if each["nodeid"] == "x.sqlite::deadly"] == ["failed"]


def test_in_any_order_it_ends_in_the_same_state(run_doctor: Doctor, pytester: pytest.Pytester) -> None:
    orders, states, reports = [], [], []
    for more in ((), ("--randomly-seed=1",), ("--randomly-seed=2", "-n2")):
        built = build(pytester.path / "x.sqlite", older=True)
        plant(built, *TOGETHER)
        result = run_doctor("--doctor-fix", "--doctor-report=r.json", *(more and RANDOMLY), *more, process=True)
        assert result.ret == 0, result.stdout.str()
        reports.append(outcomes(pytester.path / "r.json"))
        orders.append(list(reports[-1]))
        states.append(without_new_diagrams(built))
        for sidecar in pytester.path.glob("x.doctor*"):
            sidecar.unlink()
    assert all(report == reports[0] for report in reports)
    assert all(state == states[0] for state in states)
    assert len({tuple(order) for order in orders}) == 3


def without_new_diagrams(built: Built) -> dict[str, object]:
    """All rows, but of a diagram that was computed only whose it is: no two runs share its times."""
    rows: dict[str, object] = dict(dump(built.path))
    with built.open() as db:
        rows["persistencediagram"] = sorted(db.execute("SELECT run_id, embedding_model FROM persistencediagram"))
    return rows


SLOW = """
import time
import pytest_panic_doctor as d
from pytest_panic_doctor.topology.engines import load_engine

class Slow:
    name, version = "slow", "1"

    def bars(self, *args):
        time.sleep(0.8)
        return load_engine().bars(*args)

slow = Slow()
"""

SLOW_RULE = """
import time
import pytest_panic_doctor as d

@d.rule("slow", scope=d.Scope.DATABASE, description="it takes its time")
def slow(context):
    time.sleep(0.8)
    return ()

def pytest_doctor_rules():
    return [slow]
"""


@pytest.mark.parametrize("more", [(), ("-n2", "-o", "timeout_func_only=true")], ids=["plain", "n2-func-only"])
def test_the_clock_of_ordinary_tests_does_not_end_an_item(
    run_doctor: Doctor, pytester: pytest.Pytester, more: tuple[str, ...]
) -> None:
    slow_database(pytester)
    pytester.makepyfile(test_own="import time\n\ndef test_slow():\n    time.sleep(60)\n")
    result = run_doctor("test_own.py", "-ptimeout", "--timeout=0.5", *REPAIR, *more, process=True)
    result.stdout.fnmatch_lines(["FAILED test_own.py::test_slow - Failed: Timeout*"])
    assert result.parseoutcomes()["failed"] == 1
    check_slow(pytester.path)


def test_a_clock_that_ends_the_process_does_not_end_it(run_doctor: Doctor, pytester: pytest.Pytester) -> None:
    slow_database(pytester)
    assert run_doctor("-ptimeout", "--timeout=0.5", "--timeout-method=thread", *REPAIR, process=True).ret == 0
    check_slow(pytester.path)


REPAIR = ("--doctor-fix", "--doctor-engine=slow:slow", "--doctor-report=r.json")


def slow_database(pytester: pytest.Pytester) -> None:
    """A diagram and a rule that both take longer than the clock allows."""
    plant(build(pytester.path / "x.sqlite"), "diagram_null")
    pytester.makeconftest(SLOW_RULE)
    pytester.makepyfile(slow=SLOW)
    pytester.syspathinsert()


def check_slow(folder: Path) -> None:
    found = outcomes(folder / "r.json")
    assert found.pop("slow") == "passed"
    assert found.pop(f"diagram-missing[{dashed(uid(2, 0))}-Nomic]") == "fixed"
    assert set(found.values()) == {"passed"}


def test_what_a_session_timeout_leaves_is_not_passed(run_doctor: Doctor, planted: Built) -> None:
    result = run_doctor("-ptimeout", "--session-timeout=0.001", "--doctor-report=r.json", process=True)
    assert result.ret != 0
    assert len(items(planted.path.parent / "r.json")) < COUNT
    assert "session-timeout" in result.stdout.str()
