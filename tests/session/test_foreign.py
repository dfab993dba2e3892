"""Code that others bring changes no verdict, whatever it raises or returns."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

import pytest
from databases import Built, build
from html_payload import data_of
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from pytest_runs import Doctor, findings, items

MODES = pytest.mark.parametrize("mode", [("-p", "no:xdist"), ("-n", "2")], ids=["alone", "-n 2"])
RAISES = {
    "skip": "pytest.skip('no model here')",
    "importorskip": "pytest.importorskip('there_is_no_such_module')",
    "xfail": "pytest.xfail('known')",
    "fail": "pytest.fail('no')",
    "exit": "pytest.exit('enough', returncode=0)",
    "SystemExit": "raise SystemExit(0)",
    "ValueError": "raise ValueError('\\x1b[2Jno\\n' * 5000)",
    "RecursionError": "f = lambda: f(); f()",
    "no text": "raise Silent",
    "StopIteration": "next(iter(()))",
    "GeneratorExit": "raise GeneratorExit",
}
GIVES = {
    "a text": "yield 'something is wrong'",
    "None": "yield None",
    "a dictionary": "yield {'rule': 'own'}",
    "a number": "yield 7",
    "a finding of numbers": "yield replace(context.finding('x', count=1), ids=(7,))",
    "a finding without a message": "yield replace(context.finding('x', count=1), message=None)",
    "a finding of many": "yield replace(context.finding('x', count=1), count='many')",
}
RETURNS = {
    "returns nothing": "None",
    "returns a text": "'wrong'",
    "returns one finding": "context.finding('x', count=1)",
    "returns a number": "3",
    "returns a dictionary": "{}",
}
HEAD = """
from dataclasses import replace
import pytest
from pytest_panic_doctor import Scope, rule

class Silent(Exception):
    def __str__(self):
        pytest.skip("no text")

RULES = []
def own(name, check):
    RULES.append(rule(name, scope=Scope.DATABASE, description="all is well")(check))

def pytest_doctor_rules():
    return RULES
"""


def five(folder: Path, result: pytest.RunResult) -> dict[str, dict[str, str]]:
    """What five reports say of each item: passed, failed, skipped or fixed; `exit` of all items together."""
    described = {item: str(found["outcome"]) for item, found in items(folder / "r.json").items()}
    suite = ElementTree.parse(folder / "r.xml").getroot()
    junit = {}
    for case in suite.iter("testcase"):
        properties = {each.get("name"): each.get("value") for each in case.iter("property")}
        word = "failed" if case.find("failure") is not None or case.find("error") is not None else "passed"
        word = "skipped" if case.find("skipped") is not None else word
        assert properties["outcome"] == ("fixed" if word == "passed" and properties["outcome"] == "fixed" else word)
        rule = str(properties["rule"])
        assert rule == str(case.get("name")).split("[")[0]
        junit[str(case.get("name"))] = str(properties["outcome"])
    terminal = {}
    for line in result.outlines:
        if found := re.search(r"x\.sqlite::(\S+) (PASSED|FAILED|SKIPPED|FIXED)", line):
            terminal[found[1]] = found[2].lower()
        elif found := re.search(r"(PASSED|FAILED|SKIPPED|FIXED)(?: \(.*\))? x\.sqlite::(\S+)", line):
            terminal[found[2]] = found[1].lower()
    data = data_of(folder / "r.html")
    page = {rule["id"]: rule["outcomes"] for rule in data["rules"]}
    for rule, outcomes in page.items():
        words = [word for item, word in described.items() if item.split("[")[0] == rule]
        counted = Counter[str]()
        for word, number in outcomes.items():
            # The page also tells apart what passed with a warning, and what was not started.
            counted[{"warned": "passed", "not examined": "skipped"}.get(word, word)] += number
        assert Counter(words) == +counted
    ended = "failed" if "failed" in described.values() else "passed"
    assert int(result.ret) == (1 if ended == "failed" else 0)
    return {"json": described, "junit": junit, "terminal": terminal}


def run(run_doctor: Doctor, built: Built, *args: str) -> dict[str, str]:
    """What all five reports say, which is the same."""
    reports = ("--junitxml=r.xml", "--doctor-report=r.json", "--doctor-report=r.html", "-v", "-ojunit_family=xunit1")
    result = run_doctor(*args, *reports)
    assert "INTERNALERROR" not in result.stdout.str() + result.stderr.str()
    said = five(built.path.parent, result)
    assert said["json"] == said["junit"] == said["terminal"]
    return said["json"]


@MODES
def test_what_a_rule_raises_or_gives_is_one_failure(
    run_doctor: Doctor, pytester: pytest.Pytester, mode: tuple[str, ...]
) -> None:
    built = build(pytester.path / "x.sqlite")
    lines = [HEAD]
    names: dict[str, str] = {}
    for kind, code in (RAISES | GIVES).items():
        for when in ("before", "after"):
            name = f"own-{len(names)}"
            names[name] = f"{kind} {when}"
            first = (
                "yield context.finding('found before', count=1)" if when == "after" else "context.examined(1, 'run')"
            )
            lines.append(f"def c(context):\n    {first}\n    {code}\n    yield from ()\nown('{name}', c)")
    for kind, value in RETURNS.items():
        name = f"own-{len(names)}"
        names[name] = kind
        lines.append(f"def c(context):\n    return {value}\nown('{name}', c)")
    pytester.makeconftest("\n".join(lines))
    chosen = [f"--doctor-rule={name}" for name in names]
    said = run(run_doctor, built, *mode, *chosen, "--tb=long")
    assert said == dict.fromkeys(names, "failed")
    report = items(pytester.path / "r.json")
    for name, kind in names.items():
        messages = [finding["message"] for finding in findings(report[name])]
        assert messages == (["found before"] if kind.endswith(" after") else []), kind
        error = str(report[name]["error"])
        assert name in error, kind
        assert len(error) < 400, kind
        assert error.isprintable(), kind
        assert ("conftest.py:" in error) == (kind.split(" ")[0] in {each.split(" ")[0] for each in RAISES}), kind


STEPS = {
    "finding": "yield context.finding('found', count=1)",
    "warning": "yield context.finding('careful', count=1, warning=True)",
    "some": "context.examined(2, 'run')",
    "none": "context.examined(0, 'run')",
    "nothing": "raise NotApplicable('nothing here')",
    **RAISES,
    **GIVES,
}
PROGRAMS = st.lists(st.sampled_from(sorted(STEPS)), max_size=4)


def expected(program: list[str], severity: str) -> str:
    """What a rule that takes these steps comes to, by the words of docs/how-to/own-rule.md."""
    found, counts = 0, []
    for step in program:
        if step in RAISES or step in GIVES:
            return "failed"
        if step == "nothing":
            if not found:
                return "skipped"
            break
        found += step == "finding"
        counts += [2 if step == "some" else 0] if step in ("some", "none") else []
    if found:
        return "passed" if severity == "warn" else "failed"
    return "skipped" if counts and not any(counts) else "passed"


@pytest.mark.parametrize("mode", [("-p", "no:xdist"), ("-n", "2")], ids=["alone", "-n 2"])
@settings(
    max_examples=2, deadline=None, suppress_health_check=list(HealthCheck), database=None, phases=[Phase.generate]
)
@given(st.lists(st.tuples(PROGRAMS, st.sampled_from(["error", "warn"])), min_size=40, max_size=60))
def test_five_reports_agree_on_whatever_others_do(
    run_doctor: Doctor, sick: Built, mode: tuple[str, ...], programs: list[tuple[list[str], str]]
) -> None:
    lines = [HEAD, "from pytest_panic_doctor import NotApplicable"]
    severities = ["[pytest]", "doctor_severity ="]
    for number, (program, severity) in enumerate(programs):
        body = "".join(f"    {STEPS[step]}\n" for step in program)
        lines.append(f"def c(context):\n{body}    yield from ()\nown('own-{number}', c)")
        severities.append(f"  own-{number}: {severity}")
    lines.append("def pytest_doctor_outcome(item):\n    if item['rule'] > 'own-3': pytest.exit('x', returncode=0)")
    folder = sick.path.parent
    (folder / "conftest.py").write_text("\n".join(lines))
    (folder / "pytest.ini").write_text("\n".join(severities))
    said = run(run_doctor, sick, *mode, *(f"--doctor-rule=own-{number}" for number in range(len(programs))))
    assert said == {f"own-{number}": expected(*each) for number, each in enumerate(programs)}


def test_a_traceback_is_there_for_who_asks(run_doctor: Doctor, pytester: pytest.Pytester) -> None:
    build(pytester.path / "x.sqlite")
    pytester.makeconftest(
        HEAD + "def c(context):\n    yield context.finding('found', count=1)\n    1 / 0\nown('own', c)"
    )
    short = run_doctor("--doctor-rule=own").stdout
    short.no_fnmatch_line("*Traceback*")
    short.fnmatch_lines(["own: found", "not examined to the end: the rule own of conftest raised ZeroDivisionError*"])
    assert len(short.lines) < 40
    run_doctor("--doctor-rule=own", "-vv").stdout.fnmatch_lines(["*Traceback*", "*ZeroDivisionError*"])


@MODES
def test_an_embedding_hook_that_skips_is_no_green(
    run_doctor: Doctor, sick: Built, pytester: pytest.Pytester, mode: tuple[str, ...]
) -> None:
    with sick.open() as db:
        db.execute("UPDATE embedding SET vector = NULL WHERE id IN (?, ?)", (sick.embedding(3), sick.embedding(4)))
    pytester.makeconftest(HEAD + f"def pytest_doctor_embed(embedding_model, outputs):\n    {RAISES['importorskip']}\n")
    said = run(run_doctor, sick, *mode, "--doctor-fix", "--doctor-rule=embedding-vector")
    assert list(said.values()) == ["failed", "failed"]
    for item in items(pytester.path / "r.json").values():
        assert [finding["count"] for finding in findings(item)] == [1]
        assert str(item["note"]).startswith("not repaired: pytest_doctor_embed raised Skipped(")
        assert "conftest.py:" in str(item["note"])


@MODES
def test_a_listener_that_raises_is_a_note(
    run_doctor: Doctor, sick: Built, pytester: pytest.Pytester, mode: tuple[str, ...]
) -> None:
    kinds = [
        f"if item['rule'] == '{rule}': {code.replace('; ', ' or ')}"
        for rule, code in zip(
            ("schema", "experiment-runs", "experiment-config", "embedding-vector", "orphan-run", "invocation-chain"),
            (RAISES[kind] for kind in ("skip", "importorskip", "exit", "SystemExit", "no text", "xfail")),
            strict=True,
        )
    ]
    pytester.makeconftest(HEAD + "def pytest_doctor_outcome(item):\n" + "".join(f"    {each}\n" for each in kinds))
    said = run(run_doctor, sick, *mode)
    assert set(said.values()) == {"passed"}
    notes = json.loads((pytester.path / "r.json").read_text())["doctor"]["notes"]
    assert len(notes) == len(kinds)
    assert all(note.startswith("pytest_doctor_outcome raised ") for note in notes)
    assert sum("(2 items)" in note for note in notes) == 1


@pytest.mark.parametrize("hook", ["pytest_doctor_rules()", "pytest_doctor_engine(name)"])
@pytest.mark.parametrize("kind", ["skip", "exit", "SystemExit", "no text"])
def test_a_hook_that_raises_at_the_start_is_a_mistake_of_the_command(
    run_doctor: Doctor, pytester: pytest.Pytester, hook: str, kind: str
) -> None:
    build(pytester.path / "x.sqlite")
    pytester.makeconftest(HEAD.split("RULES")[0] + f"def {hook}:\n    {RAISES[kind]}\n")
    result = run_doctor("--doctor-engine=mine", "--doctor-rule=schema")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert f"{hook.split('(')[0]} raised " in result.stderr.str()
    assert "Traceback" not in result.stderr.str()


@pytest.mark.parametrize("given", ["7", "''", "'a b'", "'x:'", "':y'", "['x:y']"])
def test_an_engine_hook_that_gives_something_else_is_told_so(
    run_doctor: Doctor, pytester: pytest.Pytester, given: str
) -> None:
    build(pytester.path / "x.sqlite")
    pytester.makeconftest(f"def pytest_doctor_engine(name):\n    return {given}\n")
    result = run_doctor("--doctor-engine=mine", "--doctor-rule=schema")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert "pytest_doctor_engine returned " in result.stderr.str()


MARKS = {
    "xfail": "item.add_marker(pytest.mark.xfail)",
    "strict xfail": "item.add_marker(pytest.mark.xfail(strict=True))",
}


@MODES
@pytest.mark.parametrize("mark", MARKS)
def test_a_mark_changes_no_verdict(
    run_doctor: Doctor, sick: Built, pytester: pytest.Pytester, mode: tuple[str, ...], mark: str
) -> None:
    with sick.open() as db:
        db.execute("UPDATE run SET experiment_id = 'x' WHERE id = ?", (sick.run(),))
    pytester.makeconftest(
        f"import pytest\ndef pytest_collection_modifyitems(items):\n    for item in items:\n        {MARKS[mark]}\n"
    )
    said = run(run_doctor, sick, *mode, "--doctor-rule=orphan-run", "--doctor-rule=schema")
    assert said == {"orphan-run": "failed", "schema": "passed"}


def test_an_item_that_a_hook_skips_is_named(run_doctor: Doctor, pytester: pytest.Pytester) -> None:
    built = build(pytester.path / "x.sqlite")
    pytester.makeconftest(
        "import pytest\ndef pytest_runtest_setup(item):\n"
        "    if 'orphan' in item.name:\n        pytest.skip('not today')\n"
    )
    said = run(run_doctor, built, "--doctor-rule=orphan-run", "--doctor-rule=schema")
    assert said == {"orphan-run": "skipped", "schema": "passed"}
    assert items(pytester.path / "r.json")["orphan-run"]["note"] == "not today"


def test_ctrl_c_in_foreign_code_ends_the_session(run_doctor: Doctor, pytester: pytest.Pytester) -> None:
    build(pytester.path / "x.sqlite")
    pytester.makeconftest(HEAD + "def c(context):\n    raise KeyboardInterrupt\n    yield\nown('own', c)")
    result = run_doctor("--doctor-rule=own", "--doctor-rule=schema", "--doctor-report=r.json")
    assert result.ret == pytest.ExitCode.INTERRUPTED
    assert json.loads((pytester.path / "r.json").read_text())["doctor"]["rules"]["not examined"] == 1
