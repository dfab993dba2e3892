"""`--doctor-try-rule`: what one rule finds, how, and what is wrong with it; and rules with an item for each run."""

from __future__ import annotations

from pathlib import Path

import pytest
from databases import LENGTH, Built, build
from pytest_runs import Doctor, items

from pytest_panic_doctor.errors import BadOption
from pytest_panic_doctor.examination import rule_trial as trials
from pytest_panic_doctor.examination.foreign_code import Misbehaved
from pytest_panic_doctor.examination.opening import from_database
from pytest_panic_doctor.examination.parsing import model_types
from pytest_panic_doctor.examination.rule_trial import Trial, try_rule
from pytest_panic_doctor.examination.settings import Settings
from pytest_panic_doctor.rules import BadRule
from pytest_panic_doctor.session.try_rule import load_rule, trial_lines

HEAD = """
from pytest_panic_doctor import NotApplicable, RepairKind, Rows, Scope, rule

def of_run(sql):
    return rule("own", scope=Scope.RUN, description="all is well")(sql)
"""

GOOD = """
@of_run
def good(context):
    sql = "SELECT id FROM invocation WHERE run_id = :run AND sequence_number = 3"
    of = "SELECT count(*) FROM invocation WHERE run_id = :run"
    yield from context.finding_for_rows(Rows("invocation", sql, context.params), lambda count: f"{count} found", of=of)
"""


@pytest.fixture
def built(tmp_path: Path) -> Built:
    return build(tmp_path / "x.sqlite", runs=2)


def tried(built: Built, code: str) -> tuple[Trial, list[str]]:
    """Try the last function of some code; what is printed."""
    folder = built.path.parent
    (folder / "mine.py").write_text(HEAD + code)
    name = code.rpartition("def ")[2].split("(")[0]
    rule = load_rule(f"mine.py:{name}", folder)
    examination = from_database(Settings(built.path, rules=(rule.id,), kinds=model_types((), ())), [rule])
    try:
        trial = try_rule(examination, examination.examiner(), rule, lambda *_: None)
        return trial, list(trial_lines(trial, examination, "mine.py"))
    finally:
        examination.database.close()


def test_it_prints_findings_rows_time_and_plan(built: Built) -> None:
    trial, lines = tried(built, GOOD)
    assert trial.problems == []
    assert lines[:2] == [
        "own of mine.py, one item for each run: all is well",
        "2 items: 2 with findings, 0 healthy, 0 skipped",
    ]
    assert lines.count("own: 1 found") == 2
    assert f"examined: {2 * LENGTH} invocations" in lines
    assert any(line.startswith("time: ") for line in lines)
    assert "query: SELECT count(*) FROM invocation WHERE run_id = ?" in lines
    assert "  SEARCH invocation USING COVERING INDEX ix_invocation_run_id (run_id=?)" in lines
    assert "nothing is wrong with the rule" in lines
    assert lines[-1].strip().startswith("(docs/how-to/own-rule.md)") or "pytest_doctor_rules()" in lines[-1]
    assert max(map(len, lines)) <= 120


@pytest.mark.parametrize(
    ("code", "problem"),
    [
        ("@of_run\ndef f(context):\n    1 / 0\n    yield\n", "the rule own of mine raised ZeroDivisionError"),
        ("@of_run\ndef f(context):\n    yield 3\n", "yielded 3, which is not a finding"),
        ("@of_run\ndef f(context):\n    return None\n", "returned None, which is not a list of findings"),
        (
            "@of_run\ndef f(context):\n    context.db.execute('DELETE FROM run')\n    yield\n",
            "it writes, and a rule only reads",
        ),
        ("@of_run\ndef f(context):\n    context.db.execute('SELEC')\n    yield\n", "syntax error"),
        ("@of_run\ndef f(context):\n    raise NotApplicable('no use')\n", "it applies to no item: no use"),
        (
            "@of_run\ndef f(context):\n    context.db.execute('SELECT count(vector) FROM embedding e').fetchall()\n"
            "    context.examined(1, 'embedding')\n    return []\n",
            "it reads all 24 embeddings for each of its 2 items",
        ),
        ("@of_run\ndef f(context):\n    return []\n", "it does not say how many rows it examined"),
        (
            "@rule('own', scope=Scope.RUN, description='x', repair=RepairKind.QUARANTINE)\ndef f(context):\n"
            "    context.examined(1, 'run')\n    yield context.finding('1 bad', count=1)\n",
            "it has a finding without rows, so nothing is quarantined",
        ),
        (
            "@of_run\ndef f(context):\n    context.examined(1, 'run')\n"
            "    yield context.finding('0 bad', table='run', count=0)\n",
            "it yields a finding about no row (0 bad)",
        ),
        (
            "@of_run\ndef f(context):\n    context.examined(1, 'run')\n    yield context.finding('bad', count=1)\n",
            "its sentence has no number (bad)",
        ),
    ],
)
def test_what_is_wrong_is_one_sentence(built: Built, monkeypatch: pytest.MonkeyPatch, code: str, problem: str) -> None:
    monkeypatch.setattr(trials, "LARGE_TABLE", 20)
    trial, lines = tried(built, code)
    (said,) = trial.problems
    assert problem in said
    assert "nothing is wrong with the rule" not in lines
    assert any(line.startswith(("wrong: ", "hint: ")) for line in lines)


def test_a_rule_that_reads_with_an_index_is_not_slow(built: Built, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trials, "LARGE_TABLE", 1)
    assert tried(built, GOOD)[0].problems == []
    monkeypatch.setattr(trials, "SLOW_ITEM", 0.0)
    assert "it is slow: own[" in tried(built, GOOD)[0].problems[0]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("mine", "names no function: give module:function or file.py:function"),
        ("none.py:f", "there is no file"),
        ("no_such_module:f", "there is no module no_such_module"),
        ("mine.py:goo", "mine.py has no goo: did you mean good"),
        ("mine.py:of_run", "is not a rule, but a function without @rule"),
        ("mine.py:HEAD", "is not a rule, but 'text'"),
        ("mine.py:two", "has a wrong signature, two(context, more): a check takes one argument, the context"),
        ("needs.py:f", "needs.py raised ModuleNotFoundError"),
        ("needs:f", "the import of needs needs nothing_like_it, which is not installed"),
        ("broken.py:f", "the import of broken.py raised SyntaxError"),
    ],
)
def test_what_cannot_be_loaded_says_why(tmp_path: Path, name: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.path", ["", *__import__("sys").path])
    (tmp_path / "mine.py").write_text(f"{HEAD}{GOOD}HEAD = 'text'\n@of_run\ndef two(context, more):\n    return []\n")
    (tmp_path / "needs.py").write_text("import nothing_like_it\n")
    (tmp_path / "broken.py").write_text("def\n")
    with pytest.raises((BadOption, Misbehaved)) as raised:
        load_rule(name, tmp_path)
    assert said in str(raised.value)


def test_a_rule_with_the_id_of_another_is_refused(built: Built) -> None:
    with pytest.raises(BadRule, match="two rules are called schema"):
        tried(built, "@rule('schema', scope=Scope.RUN, description='x')\ndef f(context):\n    return []\n")


def test_from_an_idea_to_a_report(run_doctor: Doctor, pytester: pytest.Pytester) -> None:
    """Tried, put into a conftest.py, examined by run, selected, reported and repaired like every other rule."""
    built = build(pytester.path / "x.sqlite", runs=2)
    code = HEAD + GOOD.replace(
        "@of_run", "@rule('own', scope=Scope.RUN, description='x', repair=RepairKind.QUARANTINE)"
    )
    (pytester.path / "mine.py").write_text(code)
    tried_out = run_doctor("--doctor-try-rule=mine:good")
    assert tried_out.ret == 0
    tried_out.stdout.fnmatch_lines(["2 items: 2 with findings*", "nothing is wrong with the rule"])
    assert run_doctor("--doctor-try-rule=mine:HEAD").ret == pytest.ExitCode.USAGE_ERROR
    pytester.makeconftest(f"{code}\ndef pytest_doctor_rules():\n    return [good]\n")
    assert run_doctor("--doctor-report=r.json", "--doctor-report=r.html", "-n2").ret == 1
    names = sorted(name for name in items(pytester.path / "r.json") if name.startswith("own["))
    assert names == [
        f"own[{run}]" for run in ("06b05171-0002-7000-8000-000000000000", "06b05171-0002-7000-8000-000000000001")
    ]
    assert run_doctor("--doctor-report=s.json", "-k", "own and pear").ret == 1
    assert list(items(pytester.path / "s.json")) == names[1:]
    for shard in ("1/2", "2/2"):
        run_doctor("--doctor-rule=own", f"--doctor-shard={shard}", f"--doctor-report={shard[0]}.json")
    assert {*items(pytester.path / "1.json"), *items(pytester.path / "2.json")} == set(names)
    fixed = run_doctor("--doctor-fix", names and f"x.sqlite::{names[0]}")
    assert fixed.ret == 0
    with built.open() as db:
        left = db.execute("SELECT run_id FROM invocation WHERE sequence_number = 3").fetchall()
    assert left == [(built.run(1),)]
