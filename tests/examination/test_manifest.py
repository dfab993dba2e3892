"""The list of items."""

from __future__ import annotations

from itertools import groupby, pairwise

from pytest_panic_doctor.database.spelling import dashed
from pytest_panic_doctor.database.subject import DiagramTarget
from pytest_panic_doctor.examination.manifest import Experiment, Manifest, Run
from pytest_panic_doctor.rules import registry

EXPERIMENT = "06b05170fe317f6c9f86f96b160111f8"
RUN = "06b05170fe3e7a8fb98e2a523d52099f"


def manifest(order: tuple[DiagramTarget, ...] = ()) -> Manifest:
    runs = (Run(RUN, "an apple: A → B"), Run(RUN.replace("9f", "a0"), "a pear: A → B"))
    return Manifest((Experiment(EXPERIMENT, "an apple", ("Nomic", "NomicVision"), runs),), order)


def test_ids_are_dashed_uuids_and_models() -> None:
    names = [entry.name for entry in manifest().entries(registry().values())]
    assert "orphan-embedding" in names
    assert f"invocation-chain[{dashed(EXPERIMENT)}]" in names
    assert f"embedding-vector[{dashed(EXPERIMENT)}-Nomic]" in names
    assert f"diagram-missing[{dashed(RUN)}-Nomic]" in names
    assert len(names) == len(set(names))


def test_it_survives_the_way_to_a_worker() -> None:
    assert Manifest.from_plain(manifest((DiagramTarget(RUN, "Nomic"),)).as_plain()) == manifest(
        (DiagramTarget(RUN, "Nomic"),)
    )


def test_an_order_moves_items_but_loses_none() -> None:
    rules = registry().values()
    plain = [entry.name for entry in manifest().entries(rules)]
    ordered = [entry.name for entry in manifest((DiagramTarget(RUN, "NomicVision"),)).entries(rules)]
    assert sorted(plain) == sorted(ordered)
    first = next(name for name in ordered if name.startswith("diagram-missing"))
    assert first == f"diagram-missing[{dashed(RUN)}-NomicVision]"


def test_an_experiments_items_stand_together_unless_the_largest_diagrams_come_first() -> None:
    (one,) = manifest().experiments
    other = Experiment("f" * 32, "a plum", ("Nomic",), (Run("e" * 32, "a plum: A → B"),))
    both = Manifest((one, other))
    owners = [entry.subject.experiment for entry in both.entries(registry().values()) if entry.subject.experiment]
    assert [each for each, _ in groupby(owners)] == [one.id, other.id]
    ordered = [
        entry.subject for entry in Manifest((one, other), (DiagramTarget(RUN, "Nomic"),)).entries(registry().values())
    ]
    runs = [subject.run for subject in ordered]
    assert None not in runs[runs.index(RUN) :]


def test_items_of_one_diagram_stand_together() -> None:
    names = [entry.name for entry in manifest().entries(registry().values()) if "diagram-" in entry.name]
    subjects = [name.split("[")[1] for name in names if not name.startswith("diagram-model")]
    changes = sum(1 for one, two in pairwise(subjects) if one != two)
    assert changes == len(set(subjects)) - 1
