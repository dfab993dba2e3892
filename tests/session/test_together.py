"""Diagrams that are repaired together, through pytest: who chooses items, or ends early, gets no more than those."""

from __future__ import annotations

import pytest
from databases import MODELS, Built, build, uid
from pytest_runs import Doctor, findings, items

from pytest_panic_doctor.database.spelling import dashed
from pytest_panic_doctor.repair import repairs

RUNS = 6
ALL = RUNS * len(MODELS)
ONLY = ("--doctor-fix", "--doctor-rule=diagram-missing", "-p", "no:randomly")


@pytest.fixture
def missing(pytester: pytest.Pytester) -> Built:
    """No diagram is there."""
    built = build(pytester.path / "x.sqlite", older=True, runs=RUNS)
    with built.open() as db:
        db.execute("DELETE FROM persistencediagram")
    return built


def there(built: Built) -> int:
    """How many diagrams there are."""
    with built.open() as db:
        return int(db.execute("SELECT count(*) FROM persistencediagram").fetchone()[0])


def test_every_item_says_what_was_done(
    run_doctor: Doctor, pytester: pytest.Pytester, missing: Built, mode: tuple[str, ...]
) -> None:
    planned = run_doctor("--doctor-plan", *mode)
    planned.stdout.fnmatch_lines([f"*{ALL} diagrams*"])
    result = run_doctor("--doctor-fix", "--doctor-report=r.json", *mode)
    assert result.ret == 0, result.stdout.str()
    found = [item for item in items(pytester.path / "r.json").values() if item["rule"] == "diagram-missing"]
    assert len(found) == ALL
    for item in found:
        assert item["outcome"] == "fixed"
        assert [each["message"] for each in findings(item)] == ["the diagram of 6 points does not exist"]
        assert item["measures"]["points"] == 6  # type: ignore[index]
    assert len({each.subject for each in repairs(missing.path)}) == len(repairs(missing.path)) == ALL


def test_no_more_than_was_chosen(run_doctor: Doctor, missing: Built, mode: tuple[str, ...]) -> None:
    chosen = [uid(2, number) for number in (0, 2, 5)]
    words = " or ".join(dashed(run) for run in chosen)
    result = run_doctor("--doctor-fix", "-k", f"diagram-missing and ({words})", *mode)
    assert result.ret == 0, result.stdout.str()
    assert {each.subject.run for each in repairs(missing.path)} == set(chosen)
    assert there(missing) == len(chosen) * len(MODELS)


def test_nothing_ahead_of_an_item_that_may_be_the_last(run_doctor: Doctor, missing: Built) -> None:
    """With -x, the third item fails, and none behind it is repaired; without, all that can be are."""
    with missing.open() as db:
        db.execute("DELETE FROM embedding WHERE id = ?", (missing.embedding(3, 1),))
    result = run_doctor(*ONLY, "-x")
    assert result.ret == 1
    assert there(missing) == 2
    result = run_doctor(*ONLY)
    assert result.ret == 1
    assert there(missing) == ALL - 1


def test_what_was_repaired_for_an_item_that_was_not_reached_is_said(
    run_doctor: Doctor, pytester: pytest.Pytester, missing: Built
) -> None:
    """The session ends after its first item, by a listener's hand."""
    pytester.makeconftest(
        """
        import os, signal

        def pytest_doctor_outcome(item):
            os.kill(os.getpid(), signal.SIGINT)
        """
    )
    result = run_doctor(*ONLY)
    assert result.ret == pytest.ExitCode.INTERRUPTED
    assert there(missing) == len(repairs(missing.path)) > 1
    result.stdout.fnmatch_lines([f"also done*diagram-missing*added {there(missing) - 1} rows (repair *"])
