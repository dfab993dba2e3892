"""Findings as the terminal shows them: once each, within its width, and no word of them broken."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_panic_doctor.examination.examination import Examination
from pytest_panic_doctor.examination.manifest import Experiment, Manifest, Run
from pytest_panic_doctor.examination.outcome import Result
from pytest_panic_doctor.examination.settings import Settings
from pytest_panic_doctor.report.findings import failure_lines, limits_of, wrap
from pytest_panic_doctor.report.results import Results
from pytest_panic_doctor.rules import registry
from pytest_panic_doctor.rules.base import Finding

RUNS = tuple(Run(f"{n:032x}", f"prompt {n} {'very ' * 20}long: A → B") for n in range(30))
MANIFEST = Manifest((Experiment("e" * 32, "an apple", ("Nomic",), RUNS),))


def shown(*items: Result, width: int = 80, verbosity: int = 0, fix: bool = False) -> list[str]:
    """The lines about items."""
    examination = Examination(Settings(Path("x.sqlite"), fix=fix), registry(), MANIFEST)
    lines = failure_lines(examination, Results(list(items)), width, limits_of(verbosity))
    return [line.text for line in lines]


def item(rule: str, *messages: str, note: str = "", run: str | None = None, number: int = 0) -> Result:
    """A failed item with a finding for each message."""
    findings = [
        Finding(rule, message, "e" * 32, run, table="invocation", ids=(f"{1000 * (number + 1) + n:032x}",), count=1)
        for n, message in enumerate(messages)
    ]
    return Result("failed", tuple(findings), note, nodeid=f"x.sqlite::{rule}[{number}]", rule=rule, duration=0.1)


def test_one_message_of_many_runs_is_shown_once() -> None:
    lines = shown(*(item("diagram-missing", "it is NULL", run=run.id, number=n) for n, run in enumerate(RUNS)))
    assert lines[0] == "diagram-missing: it is NULL"
    assert [line for line in lines if line.startswith("  run ")] == lines[1:4]
    assert lines[4] == "  … and 27 more runs"
    assert len(lines) == 8, "and some of the rows"
    assert "(showing 4 of 30)" in lines[5]


@pytest.mark.parametrize(("notes", "count"), [(("because", "because"), 1), (("because", "since"), 2), (("", ""), 0)])
def test_a_reason_that_all_share_is_shown_once(notes: tuple[str, str], count: int) -> None:
    items = [item("orphan-run", f"message {note} {n}", note=note, number=n) for n, note in enumerate(notes)]
    lines = shown(*items, fix=True)
    assert len([line for line in lines if line.strip() in ("because", "since")]) == count


def test_what_a_person_has_to_do_ends_a_rule() -> None:
    lines = shown(item("invocation-chain", "one", "two"))
    assert lines[-1] == "  nothing repairs this: regenerate the run with the research tool"
    assert "nothing repairs" not in " ".join(shown(item("orphan-run", "one")))


def test_more_is_shown_to_who_asks() -> None:
    many = item("invocation-chain", *(f"message {n}" for n in range(25)))
    counts = [
        sum(line.startswith("invocation-chain: ") for line in shown(many, verbosity=verbosity))
        for verbosity in range(3)
    ]
    assert counts == [5, 20, 25]
    assert "  … and 20 more messages of invocation-chain (-vv shows all)" in shown(many)


@given(st.text(max_size=300), st.integers(40, 120))
def test_no_word_is_broken_and_nothing_is_lost(text: str, width: int) -> None:
    lines = wrap(text, width)
    words = [word for line in lines for word in line.split()]
    assert all(len(line) <= width or len(line.split()) == 1 for line in lines)
    assert all(line.isprintable() for line in lines)
    assert words == " ".join(wrap(text, 10_000)).split()


def test_a_hostile_prompt_stays_on_its_line() -> None:
    lines = shown(item("orphan-run", "a\nforged line: 31 rules: 31 healthy\x1b[2K\r"))
    assert all(line.isprintable() for line in lines)
    assert not any(line.startswith("forged") for line in lines)
