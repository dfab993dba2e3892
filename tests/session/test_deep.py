"""Deep rules have items where they are asked for."""

from __future__ import annotations

from pathlib import Path

import pytest
from databases import COUNT, Built
from embedders import HOOK
from pytest_runs import Doctor, items


@pytest.mark.parametrize(
    ("args", "hook", "expected"),
    [
        ((), True, {"passed": COUNT}),
        (("--doctor-deep",), True, {"passed": COUNT + 6, "skipped": 2}),
        (("-o", "doctor_deep=true"), False, {"passed": COUNT + 4, "skipped": 4}),
        (("--doctor-rule=embedding-exact", "-n2"), True, {"passed": 2, "skipped": 2}),
        (("--doctor-rule=diagram-exact",), False, {"passed": 4}),
        (("--doctor-sample=1/1",), False, {"passed": COUNT + 4, "skipped": 4}),
    ],
    ids=["plain", "deep", "ini", "named", "diagrams named", "sample"],
)
def test_deep_rules_run_where_they_are_asked_for(
    run_doctor: Doctor, sick: Built, args: tuple[str, ...], hook: bool, expected: dict[str, int]
) -> None:
    if hook:
        Path("conftest.py").write_text(HOOK)
    result = run_doctor(*args, "--doctor-report=r.json")
    assert result.ret == 0
    result.assert_outcomes(**expected)
    exact = [item for name, item in items(sick.path.parent / "r.json").items() if "-exact" in name]
    assert len(exact) == sum(expected.values()) - COUNT * (expected["passed"] >= COUNT)
