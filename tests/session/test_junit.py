"""JUnit: one testcase an item, grouped by rule, its failure the findings alone, properties in either family."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest
from databases import COUNT, Built
from defects import DAMAGES
from pytest_runs import Doctor

from pytest_panic_doctor.database.spelling import dashed

CASE = {"skipped", "error", "failure", "rerunFailure", "rerunError", "flakyFailure", "flakyError", "system-out"}
"""What a testcase may hold in the family xunit2 (the schema junit-10 of Jenkins' xUnit plugin)."""


def cases(path: Path) -> dict[tuple[str, str], ElementTree.Element]:
    """The testcases, by classname and name."""
    return {
        (case.get("classname", ""), case.get("name", "")): case for case in ElementTree.parse(path).iter("testcase")
    }


def properties(case: ElementTree.Element, family: str) -> dict[str, str]:
    if family == "xunit1":
        return {each.get("name", ""): each.get("value", "") for each in case.iter("property")}
    lines = (case.findtext("system-out") or "").splitlines()
    pairs = [line.removeprefix("[[PROPERTY|").removesuffix("]]").split("=", 1) for line in lines]
    return dict(pairs)


@pytest.mark.parametrize("family", ["xunit1", "xunit2"])
def test_junit(run_doctor: Doctor, sick: Built, mode: tuple[str, ...], family: str) -> None:
    with sick.open() as db:
        for digit, name in enumerate(("vector_null", "diagram_of_lost_run", "diagram_twice")):
            DAMAGES[name].plant(db, sick)
            db.execute("UPDATE persistencediagram SET id = ? WHERE id = ?", (f"{digit}" * 32, "f" * 32))
    run_doctor(*mode, "--doctor-fix", "--junitxml=r.xml", "-o", f"junit_family={family}")
    found = cases(sick.path.parent / "r.xml")
    assert len(found) == COUNT
    vector = found["doctor.embedding-vector", f"embedding-vector[{dashed(sick.experiment)}-Nomic]"]
    failure = vector.find("failure")
    assert failure is not None
    assert (failure.get("message") or "").startswith("1 of 12 vectors is unusable: 1 NULL")
    assert "\n" not in failure.get("message", "\n")
    assert (failure.text or "").startswith("embedding-vector [Nomic]: 1 of 12 vectors is unusable: 1 NULL")
    assert "Traceback" not in (failure.text or "")
    assert ".py:" not in (failure.text or "")
    assert properties(vector, family) | {"note": ""} == {
        "rule": "embedding-vector",
        "outcome": "failed",
        "experiment": sick.experiment,
        "embedding_model": "Nomic",
        "findings": "1",
        "count": "1",
        "note": "",
    }
    assert properties(found["doctor.orphan-diagram", "orphan-diagram"], family)["outcome"] == "fixed"
    suite = next(ElementTree.parse(sick.path.parent / "r.xml").iter("testsuite"))
    whole = {each.get("name"): each.get("value") for each in suite.findall("properties/property")}
    assert whole["doctor.totals.fixed"] == "2"
    assert whole["doctor.rows.run"] == "2"
    if family == "xunit2":
        for case in found.values():
            assert {child.tag for child in case} <= CASE


def test_own_tests_beside_it_keep_their_names(run_doctor: Doctor, sick: Built, pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_own="def test_own():\n    pass\n")
    run_doctor("test_own.py", "--junitxml=r.xml")
    assert ("test_own", "test_own") in cases(sick.path.parent / "r.xml")
