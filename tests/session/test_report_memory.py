"""What pytest keeps of items that passed, and that nothing which is asked for is missing from it."""

from __future__ import annotations

import pytest
from databases import COUNT, build
from pytest_runs import run_pytest

CONFTEST = """
def pytest_terminal_summary(terminalreporter):
    stats = terminalreporter.stats
    passed = stats["passed"]
    print("KEPT", len(stats.get("", [])), len(passed), sum(len(each.keywords) for each in passed))
    print("HEADED", all(each.head_line for each in passed))


def pytest_sessionfinish(session):
    worker = getattr(session.config, "workerinput", {}).get("workerid")
    if worker:
        stats = session.config.pluginmanager.get_plugin("terminalreporter").stats
        kept = len(stats.get("", [])), sum(len(each.keywords) for each in stats["passed"])
        (session.config.rootpath / f"kept-in-{worker}").write_text(str(kept))
"""


@pytest.fixture(autouse=True)
def healthy(pytester: pytest.Pytester) -> None:
    build(pytester.path / "x.sqlite")
    pytester.makeconftest(CONFTEST)
    pytester.makepyfile(test_own="def test_own(): pass")


@pytest.mark.parametrize("more", [(), ("-n", "2")], ids=["plain", "n2"])
def test_of_items_that_passed_only_what_is_counted_is_kept(pytester: pytest.Pytester, more: tuple[str, ...]) -> None:
    run = run_pytest(pytester, "--doctor-db=x.sqlite", "x.sqlite", *more)
    run.stdout.fnmatch_lines([f"KEPT 0 {COUNT} 0", "HEADED True", f"*{COUNT} passed*"])
    assert run.ret == 0


def test_durations_are_all_there_where_they_are_asked_for(pytester: pytest.Pytester) -> None:
    run = run_pytest(pytester, "--doctor-db=x.sqlite", "x.sqlite", "--durations=0", "-vv")
    shown = run.stdout.str()
    assert f"KEPT {2 * COUNT} {COUNT} " in shown
    assert [shown.count(f"s {phase} ") for phase in ("setup", "call", "teardown")] == [COUNT] * 3


def test_a_worker_keeps_no_more(pytester: pytest.Pytester) -> None:
    run_pytest(pytester, "--doctor-db=x.sqlite", "x.sqlite", "-n2")
    kept = [path.read_text() for path in pytester.path.glob("kept-in-*")]
    assert kept == ["(0, 0)"] * 2


@pytest.mark.integration
def test_other_peoples_tests_are_left_as_they_are(pytester: pytest.Pytester) -> None:
    run = run_pytest(pytester, "--doctor-db=x.sqlite", "x.sqlite", "test_own.py", "-n2")
    number = rf"KEPT 0 {COUNT + 1} (\d+)"
    run.stdout.re_match_lines([number])
    assert f"KEPT 0 {COUNT + 1} 0" not in run.stdout.str()
