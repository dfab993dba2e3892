"""The JUnit file as a program of somebody else reads it: junitparser, in both families, with and without xdist."""

from __future__ import annotations

import re
from collections import Counter
from importlib.metadata import version
from pathlib import Path

import pytest
from databases import COUNT, DEFAULT, Built, build, uid
from defects import DAMAGES
from junitparser import Error, Failure, JUnitXml, TestCase, TestSuite
from pytest_runs import run_pytest

from pytest_panic_doctor.database.spelling import dashed

EXPERIMENT = uid(1, 0)
RUN = uid(2, 0)
ITEMS = {"database": 1, "experiment": 1, "experiment x embedding model": 2, "run x embedding model": 4}
FAMILIES = ["xunit1", "xunit2"]

DEADLY = """
import os, signal
import pytest_panic_doctor as d

@d.rule("deadly", scope=d.Scope.RUN_MODEL, description="it kills its worker")
def deadly(context):
    if (context.subject.run, context.subject.embedding_model) == ("%s", "Nomic"):
        os.kill(os.getpid(), signal.SIGKILL)
    return ()

def pytest_doctor_rules():
    return [deadly]
"""


@pytest.fixture
def sick(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Built:
    """A vector is NULL in the first run, a diagram in the second, and an embedding of a lost invocation lies about."""
    for name in ("CI", "BUILD_NUMBER"):
        monkeypatch.delenv(name, raising=False)
    built = build(pytester.path / "x.sqlite")
    with built.open() as db:
        for name in ("vector_null", "embedding_of_lost_invocation"):
            DAMAGES[name].plant(db, built)
        db.execute("UPDATE persistencediagram SET diagram_data = NULL WHERE id = ?", (built.diagram(run=1),))
    return built


def read(pytester: pytest.Pytester, family: str, *args: str) -> TestSuite:
    """The one suite of a run."""
    options = ("--doctor-db=x.sqlite", "--junitxml=r.xml", "-o", f"junit_family={family}")
    run_pytest(pytester, *options, *args)
    (suite,) = JUnitXml.fromfile(str(pytester.path / "r.xml"))
    assert isinstance(suite, TestSuite)
    return suite


def properties(case: TestCase, family: str) -> dict[str, str]:
    """What a reader finds: elements in xunit1; lines of the output in xunit2, whose schema has no such elements."""
    found = {each.get("name"): each.get("value") for each in case._elem.findall("properties/property")}
    if family == "xunit1":
        assert not case.system_out
        return found
    assert not found
    return dict(re.findall(r"^\[\[PROPERTY\|([^=]+)=(.*)\]\]$", case.system_out, re.MULTILINE))


def by_name(suite: TestSuite) -> dict[tuple[str, str], TestCase]:
    return {(str(case.classname), str(case.name)): case for case in suite}


@pytest.mark.parametrize("mode", [(), ("-n", "2")], ids=["plain", "n2"])
@pytest.mark.parametrize("family", FAMILIES)
def test_what_a_reader_finds(pytester: pytest.Pytester, sick: Built, family: str, mode: tuple[str, ...]) -> None:
    suite = read(pytester, family, "--doctor-fix", *mode)
    assert (suite.tests, suite.failures, suite.errors, suite.skipped) == (COUNT, 2, 0, 0)
    grouped = Counter(str(case.classname) for case in suite)
    assert grouped == {f"doctor.{rule.id}": ITEMS[rule.scope] for rule in DEFAULT.values()}
    cases = by_name(suite)
    assert len(cases) == COUNT
    run, experiment = dashed(RUN), dashed(EXPERIMENT)
    check_sick(cases["doctor.embedding-vector", f"embedding-vector[{experiment}-Nomic]"], family)
    check_blocked(cases["doctor.diagram-current", f"diagram-current[{run}-Nomic]"], family)
    check_fixed(cases["doctor.orphan-embedding", "orphan-embedding"], family)
    check_computed(cases["doctor.diagram-missing", f"diagram-missing[{dashed(uid(2, 1))}-Nomic]"], family)
    healthy = cases["doctor.invocation-chain", f"invocation-chain[{experiment}]"]
    assert healthy.is_passed
    assert properties(healthy, family) == {
        "rule": "invocation-chain",
        "outcome": "passed",
        "experiment": EXPERIMENT,
        "findings": "0",
        "count": "0",
    }
    check_suite(suite, sick)


def check_sick(case: TestCase, family: str) -> None:
    (failure,) = case.result
    assert isinstance(failure, Failure)
    assert failure.message.startswith("1 of 12 vectors is unusable: 1 NULL")
    assert "\n" not in failure.message
    assert failure.text.startswith("embedding-vector [Nomic]: 1 of 12 vectors is unusable: 1 NULL")
    assert case.time > 0
    found = properties(case, family)
    assert found.pop("note").startswith("not repaired: no embedding hook is installed for Nomic")
    assert found == {
        "rule": "embedding-vector",
        "outcome": "failed",
        "experiment": EXPERIMENT,
        "embedding_model": "Nomic",
        "findings": "1",
        "count": "1",
    }


def check_blocked(case: TestCase, family: str) -> None:
    assert case.is_failure
    found = properties(case, family)
    assert (found["experiment"], found["run"], found["embedding_model"]) == (EXPERIMENT, RUN, "Nomic")


def check_fixed(case: TestCase, family: str) -> None:
    """JUnit knows no fixed: the testcase passes, and its properties say what was found and done."""
    assert case.is_passed
    found = properties(case, family)
    # Two workers repair at once: which of them comes first is not known.
    assert re.fullmatch(r"quarantined 1 row: 1 embedding \(repair \d\)", found.pop("note"))
    assert found == {"rule": "orphan-embedding", "outcome": "fixed", "findings": "1", "count": "1"}


def check_computed(case: TestCase, family: str) -> None:
    """Points, seconds and bytes of a computation."""
    assert case.is_passed
    found = properties(case, family)
    assert found["outcome"] == "fixed"
    assert found["points"] == "6"
    assert float(found["seconds"]) >= 0
    assert int(found["peak_memory"]) > 1_000_000
    assert found["engine"]


def check_suite(suite: TestSuite, sick: Built) -> None:
    """What is worth knowing of the whole, in the controller's file as well."""
    found = {each.name: each.value for each in suite.properties()}  # type: ignore[no-untyped-call]
    assert found["doctor.database"] == str(sick.path)
    assert found["doctor.version"] == version("pytest-panic-doctor")
    assert {name: found[f"doctor.totals.{name}"] for name in ("failed", "fixed", "skipped", "passed")} == {
        "failed": "2",
        "fixed": "2",
        "skipped": "0",
        "passed": "43",
    }
    assert {name: found[f"doctor.rules.{name}"] for name in ("healthy", "fixed", "sick", "not examined")} == {
        "healthy": "27",
        "fixed": "2",
        "sick": "2",
        "not examined": "0",
    }
    assert found["doctor.rows.embedding"] == "25"


@pytest.mark.integration
@pytest.mark.parametrize("family", FAMILIES)
def test_an_item_whose_worker_was_killed(pytester: pytest.Pytester, sick: Built, family: str) -> None:
    pytester.makeconftest(DEADLY % sick.run())
    suite = read(pytester, family, "-n2")
    case = by_name(suite)["doctor.deadly", f"deadly[{dashed(RUN)}-Nomic]"]
    (error,) = case.result
    assert isinstance(error, Error)
    said = f"{error.message} {error.text}"
    assert "crashed while running" in said
    assert "nothing is known about this item; run it again alone" in said
    found = properties(case, family)
    assert re.fullmatch(r"worker 'gw\d' crashed while running .*: nothing is known .*", found.pop("note"))
    assert found == {
        "rule": "deadly",
        "outcome": "failed",
        "experiment": EXPERIMENT,
        "run": RUN,
        "embedding_model": "Nomic",
        "findings": "0",
        "count": "0",
    }
    assert suite.tests == len(list(suite)) == COUNT + ITEMS["run x embedding model"]
    assert suite.errors == 1


def test_a_skipped_item_says_why(pytester: pytest.Pytester, sick: Built) -> None:
    with sick.open() as db:
        db.execute("DROP TABLE embeddingcluster")
    suite = read(pytester, "xunit2")
    case = by_name(suite)["doctor.orphan-cluster", "orphan-cluster"]
    assert case.is_skipped
    assert "embeddingcluster" in case.result[0].message
    assert properties(case, "xunit2")["outcome"] == "skipped"


def test_own_tests_keep_their_places(pytester: pytest.Pytester, sick: Built) -> None:
    """Beside them, a test that has properties of its own loses none of them."""
    pytester.makepyfile(
        test_own="""
        def test_own(record_property, record_testsuite_property):
            record_property("rule", "my own")
            record_testsuite_property("project", "mine")
        """
    )
    assert sick.path.exists()
    suite = read(pytester, "xunit1", "test_own.py", "-n2")
    case = by_name(suite)["test_own", "test_own"]
    assert properties(case, "xunit1") == {"rule": "my own"}
    assert Path(str(case._elem.get("file"))).name == "test_own.py"
    assert "doctor.version" in {each.name for each in suite.properties()}  # type: ignore[no-untyped-call]
