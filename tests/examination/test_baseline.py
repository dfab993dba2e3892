"""Findings by identity, without pytest."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_panic_doctor.database.memory_room import MemoryRoom
from pytest_panic_doctor.examination.acceptance import (
    AcceptancePolicy,
    BadBaseline,
    Identity,
    compare,
    load,
    of,
    save,
    split,
)
from pytest_panic_doctor.examination.outcome import Outcome, Result, from_plain, to_plain
from pytest_panic_doctor.examination.settings import Settings, Severity
from pytest_panic_doctor.rules.base import IDS_KEPT, Finding

ROWS = st.frozensets(st.integers(0, 30).map(lambda number: f"{number:032x}"))


def rows(ids: frozenset[str]) -> tuple[Finding, ...]:
    """One finding of these rows, none where there are none."""
    found = tuple(sorted(ids))
    return (Finding("r", f"{len(found)} rows", table="embedding", ids=found, count=len(found)),) if found else ()


def result(outcome: Outcome, name: str = "r") -> Result:
    return from_plain(f"x.sqlite::{name}", 0.1, to_plain("r", outcome))


def judged(folder: Path, ids: frozenset[str], *, write: bool = False) -> Outcome:
    path = folder / "known.json"
    policy = AcceptancePolicy(Settings(folder / "x.sqlite", baseline=path, baseline_write=write))
    findings = rows(ids)
    return policy.apply("r", "r", Outcome("failed" if findings else "passed", findings))


@given(before=ROWS, after=ROWS)
def test_it_fails_on_what_is_new_and_says_what_has_healed(
    tmp_path_factory: pytest.TempPathFactory, before: frozenset[str], after: frozenset[str]
) -> None:
    folder = tmp_path_factory.mktemp("baseline")
    first = judged(folder, before, write=True)
    assert first.status == "passed"
    save(folder / "known.json", compare({}, [result(first)], ["r"]).accepted)
    second = judged(folder, after)
    assert second.status == ("failed" if after - before else "passed")
    assert {each for finding in second.findings for each in finding.ids} == after - before
    assert {each for finding in second.accepted for each in finding.ids} == after & before
    assert sum(finding.count for finding in second.findings) == len(after - before)
    compared = compare(load(folder / "known.json"), [result(second)], ["r"])
    assert (compared.new, compared.known) == (len(after - before), len(after & before))
    assert {each.id for each in compared.healed.get("r", ())} == before - after
    assert {each.id for each in compared.accepted.get("r", ())} == after
    assert compared.unlooked == 0


@given(known=st.dictionaries(st.text(max_size=9), ROWS.filter(bool), max_size=4))
def test_the_file_is_the_same_for_the_same_findings(
    tmp_path_factory: pytest.TempPathFactory, known: dict[str, frozenset[str]]
) -> None:
    path = tmp_path_factory.mktemp("baseline") / "known.json"
    identified = {name: frozenset(Identity("run", each) for each in ids) for name, ids in known.items()}
    save(path, identified)
    written = path.read_bytes()
    assert load(path) == identified
    save(path, dict(reversed(list(load(path).items()))))
    assert path.read_bytes() == written
    assert len(written.splitlines()) >= sum(map(len, known.values()))
    assert list(path.parent.iterdir()) == [path]


def test_a_sentence_is_part_of_it_where_rows_are_not_all_named() -> None:
    gap = Finding("r", "3 numbers are missing", table="run", ids=("a",), count=3)
    known = frozenset({Identity("run", "a", "3 numbers are missing")})
    assert split(gap, known) == (None, gap)
    worse = Finding("r", "4 numbers are missing", table="run", ids=("a",), count=4)
    assert split(worse, known) == (worse, None)


@pytest.mark.parametrize(("table", "experiment", "run"), [("experimentconfig", "a", None), ("run", "e", "a")])
def test_who_accepts_one_lack_of_a_subject_accepts_no_other(
    tmp_path: Path, table: str, experiment: str, run: str | None
) -> None:
    def lack(text: str) -> Outcome:
        return Outcome("failed", (Finding("r", text, experiment, run, table=table, ids=("a",), count=1),))

    writing = AcceptancePolicy(Settings(tmp_path / "x", baseline=tmp_path / "k.json", baseline_write=True))
    written = compare({}, [result(writing.apply("r", "r", lack("there is no run for an apple")))], ["r"])
    save(tmp_path / "k.json", written.accepted)
    policy = AcceptancePolicy(Settings(tmp_path / "x", baseline=tmp_path / "k.json"))
    assert policy.apply("r", "r", lack("there is no run for an apple")).status == "passed"
    worse = policy.apply("r", "r", lack("there is no run for a pear"))
    assert worse.status == "failed"
    assert compare(policy.known, [result(worse)], ["r"]).new == 1


def test_a_row_that_is_wrong_itself_is_known_whatever_the_sentence_counts() -> None:
    before = Finding("orphan-run", "1 of 4 runs", table="run", ids=("a",), count=1)
    later = Finding("orphan-run", "1 of 5 runs", table="run", ids=("a",), count=1)
    assert split(later, of(before)) == (None, later)


def test_what_names_no_row_is_known_by_its_sentence() -> None:
    gone = Finding("schema", "the table run is missing", count=1)
    assert split(gone, frozenset({Identity("", "", "the table run is missing")})) == (None, gone)
    assert split(gone, frozenset({Identity("", "", "the table embedding is missing")})) == (gone, None)


def test_more_rows_than_are_named_are_never_accepted(tmp_path: Path) -> None:
    ids = tuple(f"{number:032x}" for number in range(IDS_KEPT))
    flood = Finding("r", "many", table="embedding", ids=ids, count=IDS_KEPT + 1)
    assert of(flood) == frozenset()
    policy = AcceptancePolicy(Settings(tmp_path / "x", baseline=tmp_path / "k.json", baseline_write=True))
    outcome = policy.apply("r", "r", Outcome("failed", (flood,), note="not repaired: busy"))
    assert (outcome.status, outcome.findings) == ("failed", (flood,))
    assert outcome.note == "not accepted: it has more rows than it names; not repaired: busy"
    known = {"r": frozenset({Identity("embedding", "x")})}
    compared = compare(known, [result(outcome)], ["r"])
    assert compared.healed == {}
    assert compared.accepted == known


def test_what_was_not_looked_at_stays_and_what_is_gone_has_healed() -> None:
    known = {name: frozenset({Identity("run", name)}) for name in ("skipped", "crashed", "deselected", "gone")}
    results = [
        result(Outcome("skipped", note="nothing"), "skipped"),
        result(Outcome("failed", note="a worker died"), "crashed"),
    ]
    compared = compare(known, results, ["skipped", "crashed", "deselected"])
    assert set(compared.accepted) == {"skipped", "crashed", "deselected"}
    assert (compared.unlooked, set(compared.healed)) == (3, {"gone"})
    narrow = compare(known, results, None)
    assert (narrow.unlooked, narrow.healed) == (4, {})


def test_what_was_repaired_has_healed() -> None:
    known = {"r": frozenset({Identity("embedding", "a")})}
    compared = compare(known, [result(Outcome("fixed", rows(frozenset("a"))))], ["r"])
    assert (compared.known, compared.new) == (0, 0)
    assert compared.healed == known
    assert compared.accepted == {}


def test_what_severity_accepts_is_not_written_into_it() -> None:
    warned = Outcome("passed", accepted=rows(frozenset("a")), accepted_by="severity")
    assert compare({}, [result(warned)], ["r"]).accepted == {}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is not a baseline"),
        ("[]", "is not a baseline"),
        ("{}", "is not a baseline"),
        ('{"doctor_baseline": 1, "accepted": [{}]}', "is not a baseline"),
        ('{"doctor_baseline": 1, "accepted": 7}', "is not a baseline"),
        ('{"doctor_baseline": 2, "accepted": []}', "has format 2, and this doctor reads up to 1"),
    ],
)
def test_a_file_that_is_none_is_one_sentence(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "k.json"
    path.write_text(text)
    with pytest.raises(BadBaseline, match=said) as caught:
        load(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("make", "said"), [("nothing", "does not exist"), ("folder", "cannot be read")])
def test_a_path_that_cannot_be_read_is_one_sentence(tmp_path: Path, make: str, said: str) -> None:
    path = tmp_path / "k.json"
    if make == "folder":
        path.mkdir()
    with pytest.raises(BadBaseline, match=said):
        load(path)


@pytest.mark.parametrize(
    ("said", "count", "word"),
    [
        ("error", 1, "failed"),
        ("warn", 99, "passed"),
        ("warn <= 10", 10, "passed"),
        ("warn <= 10", 11, "failed"),
        ("warn <= 0", 1, "failed"),
    ],
)
def test_severity_by_count(tmp_path: Path, said: str, count: int, word: str) -> None:
    findings = (Finding("r", "bad", table="run", ids=("a",), count=count),)
    outcome = AcceptancePolicy(Settings(tmp_path / "x", severity={"r": Severity.parse(said)})).apply(
        "r", "r", Outcome("failed", findings)
    )
    assert outcome.status == word
    assert (outcome.accepted if word == "passed" else outcome.findings) == findings
    assert outcome.accepted_by == ("severity" if word == "passed" else "")


@pytest.mark.parametrize("word", ["passed", "skipped", "fixed"])
def test_what_did_not_fail_is_left_alone(tmp_path: Path, word: str) -> None:
    outcome = Outcome(word, rows(frozenset("a")))  # type: ignore[arg-type]
    assert (
        AcceptancePolicy(Settings(tmp_path / "x", severity={"r": Severity("warn")})).apply("r", "r", outcome) is outcome
    )


def test_a_failure_without_findings_is_never_accepted(tmp_path: Path) -> None:
    outcome = Outcome("failed", note="nothing is known")
    policy = AcceptancePolicy(
        Settings(tmp_path / "x", severity={"r": Severity("warn")}, baseline=tmp_path / "k", baseline_write=True)
    )
    assert policy.apply("r", "r", outcome) is outcome


def test_the_file_is_written_a_finding_a_line(tmp_path: Path) -> None:
    save(tmp_path / "k.json", {"b": frozenset({Identity("run", "2"), Identity("run", "1")}), "a": frozenset()})
    assert (tmp_path / "k.json").read_text() == (
        '{"doctor_baseline": 1,\n"accepted": [\n'
        '{"item": "b", "table": "run", "id": "1"},\n{"item": "b", "table": "run", "id": "2"}\n]}\n'
    )
    assert json.loads((tmp_path / "k.json").read_text())["doctor_baseline"] == 1


def test_a_baseline_that_does_not_fit_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "known.json"
    path.write_bytes(b" " * 200_000)
    with pytest.raises(BadBaseline, match=r"known\.json is 200 kB, and --doctor-memory leaves 167 kB for it"):
        load(path, MemoryRoom(4_000_000, 300_000_000, given=True))
