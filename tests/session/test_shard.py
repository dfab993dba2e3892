"""`--doctor-shard`: disjoint, complete, even; each computes its share, and says which it is."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace

import pytest
from databases import DEFAULT, Built, build
from hypothesis import given
from hypothesis import strategies as st
from pytest_runs import Doctor, items, outcomes

from pytest_panic_doctor.examination import sharding
from pytest_panic_doctor.examination.manifest import Experiment, Manifest, Run
from pytest_panic_doctor.examination.settings import Shard
from pytest_panic_doctor.examination.sharding import ShardSelection
from pytest_panic_doctor.rules import registry
from pytest_panic_doctor.rules.base import Scope

RULES = tuple(DEFAULT.values())
LENGTHS = st.one_of(st.integers(1, 5_000), st.sampled_from([100, 1_000, 5_000]), st.integers(-1, 0), st.just(10**15))
EXPERIMENTS = st.lists(
    st.tuples(st.sampled_from([(), ("A",), ("A", "B"), ("A", "B", "C")]), st.lists(LENGTHS, max_size=60)), max_size=5
)


def manifest(shape: list[tuple[tuple[str, ...], list[int]]]) -> Manifest:
    return Manifest(
        tuple(
            Experiment(
                f"{place:032x}",
                "an apple",
                models,
                tuple(Run(f"{place:016x}{run:016x}", "a pear", length) for run, length in enumerate(lengths)),
            )
            for place, (models, lengths) in enumerate(shape, 1)
        )
    )


MANIFESTS = EXPERIMENTS.map(manifest)


@given(MANIFESTS, st.integers(1, 9), st.booleans())
def test_shards_are_disjoint_and_complete(made: Manifest, of: int, fix: bool) -> None:
    every = [entry.name for entry in made.entries(RULES)]
    mine = [
        entry.name
        for number in range(1, of + 1)
        for entry in ShardSelection(made, RULES, Shard(number, of), fix).of(made.entries(RULES))
    ]
    assert Counter(mine) == Counter(every)


@given(MANIFESTS, st.integers(2, 9), st.booleans())
def test_shards_are_even_to_within_one_unit_and_so_to_ten_percent(made: Manifest, of: int, fix: bool) -> None:
    costs = sharding.costs(made, RULES, fix)
    loads = [0.0] * of
    for unit, number in sharding.assign_shards(costs, of).items():
        loads[number - 1] += costs[unit]
    even, largest = sum(costs.values()) / of, max(costs.values())
    assert max(loads) - min(loads) <= largest + 1e-9
    if largest <= 0.1 * even:
        assert max(loads) <= 1.1 * even
        assert min(loads) >= 0.9 * even


@pytest.mark.parametrize("of", [2, 3, 8])
@pytest.mark.parametrize("fix", [False, True])
def test_a_database_like_productions_is_split_within_ten_percent(of: int, fix: bool) -> None:
    lengths = [5_000] * 20 + [1_000] * 100 + [100] * 41
    made = manifest([(("Nomic", "JinaClip"), lengths[start::4]) for start in range(4)])
    costs = sharding.costs(made, RULES, fix)
    loads = Counter[int]()
    for unit, number in sharding.assign_shards(costs, of).items():
        loads[number] += costs[unit]  # type: ignore[assignment]
    even = loads.total() / of
    assert all(0.9 * even <= load <= 1.1 * even for load in loads.values())


@given(MANIFESTS, st.integers(1, 5), st.randoms(use_true_random=False))
def test_the_order_of_the_items_changes_no_share(made: Manifest, of: int, random: object) -> None:
    pairs = [each.target for each in made.diagram_subjects()]
    random.shuffle(pairs)  # type: ignore[attr-defined]
    shuffled = replace(made, order=tuple(pairs))
    for number in range(1, of + 1):
        one, two = (ShardSelection(each, RULES, Shard(number, of), False) for each in (made, shuffled))
        assert {entry.name for entry in one.of(made.entries(RULES))} == {
            entry.name for entry in two.of(shuffled.entries(RULES))
        }


@given(MANIFESTS, st.integers(2, 5))
def test_items_of_one_diagram_stay_together(made: Manifest, of: int) -> None:
    homes: dict[object, set[int]] = {}
    for number in range(1, of + 1):
        for entry in ShardSelection(made, RULES, Shard(number, of), False).of(made.entries(RULES)):
            if registry()[entry.rule].scope is Scope.RUN_MODEL:
                homes.setdefault(entry.subject, set()).add(number)
    assert all(len(each) == 1 for each in homes.values())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("banana", "--doctor-shard banana is not K/N: give the shard's number and how many there are, e.g. 2/3"),
        ("4/3", "--doctor-shard 4/3 is beyond the last shard: there are 3, so give 1/3 to 3/3"),
        ("0/3", "--doctor-shard 0/3 is not K/N"),
        ("1/0", "--doctor-shard 1/0 is not K/N"),
        ("-1/3", "-1/3 is not K/N"),
        ("2", "--doctor-shard 2 is not K/N"),
        ("1/3/5", "--doctor-shard 1/3/5 is not K/N"),
        ("1/9999999", "--doctor-shard 1/9999999 is not K/N"),
    ],
)
def test_what_names_no_shard_is_said_in_one_sentence(sick: Built, run_doctor: Doctor, text: str, said: str) -> None:
    assert sick.path.exists()
    run = run_doctor(f"--doctor-shard={text}")
    assert run.ret == pytest.ExitCode.USAGE_ERROR
    run.stderr.fnmatch_lines([f"*{said}*"])
    assert "Traceback" not in run.stderr.str()


def test_three_shards_examine_what_one_session_does(
    sick: Built, run_doctor: Doctor, mode: tuple[str, ...], pytester: pytest.Pytester
) -> None:
    with sick.open() as db:
        db.execute("DELETE FROM persistencediagram WHERE id = ?", (sick.diagram(),))
    run_doctor("--doctor-report=whole.json")
    whole = outcomes(pytester.path / "whole.json")
    found: dict[str, str] = {}
    for number in (1, 2, 3):
        run = run_doctor(f"--doctor-shard={number}/3", "--doctor-report=part.json", *mode)
        part = outcomes(pytester.path / "part.json")
        run.stdout.fnmatch_lines(
            [f"doctor: {len(RULES)} rules, shard {number} of 3: {len(part)} of {len(whole)} items"]
        )
        assert not found.keys() & part.keys()
        assert 0.5 < 3 * len(part) / len(whole) < 1.5
        found |= part
        told = json.loads((pytester.path / "part.json").read_text())
        assert told["doctor"]["settings"]["shard"] == f"{number}/3"
    assert found == whole


def test_a_shard_computes_its_own_diagrams_alone(pytester: pytest.Pytester, run_doctor: Doctor) -> None:
    built = build(pytester.path / "x.sqlite", runs=4)
    with built.open() as db:
        db.execute("UPDATE persistencediagram SET diagram_data = NULL")
    left = 8
    for number in (1, 2):
        run = run_doctor("--doctor-fix", f"--doctor-shard={number}/2", "--doctor-report=r.json", "-n2")
        found = [item for item in items(pytester.path / "r.json").values() if item["rule"] == "diagram-missing"]
        assert {item["outcome"] for item in found} == {"fixed"}
        run.stdout.fnmatch_lines([f"doctor: {len(found)} diagrams to compute, {6 * len(found)} points, about *"])
        assert "left: the same command" not in run.stdout.str()
        left -= len(found)
        with built.open() as db:
            ((nulls,),) = db.execute("SELECT count(*) FROM persistencediagram WHERE diagram_data IS NULL")
        assert nulls == left
    assert left == 0


def test_an_item_of_another_shard_typed_by_hand_is_named_as_such(sick: Built, run_doctor: Doctor) -> None:
    assert sick.path.exists()
    said = [run_doctor(f"--doctor-shard={number}/2", "x.sqlite::schema") for number in (1, 2)]
    assert sorted(run.ret for run in said) == [0, 4]
    refused = next(run for run in said if run.ret)
    refused.stderr.fnmatch_lines(["*x.sqlite::schema is not in shard ? of 2: leave out --doctor-shard"])
