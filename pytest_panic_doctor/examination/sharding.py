"""`--doctor-shard K/N`: which items are the K-th of N equal shares of the work.

Every shard makes the same manifest and splits it in the same way, so that nobody has to tell the shards of each other.
What a share is depends on nothing that a repair changes or that is broken: experiments, runs, their lengths and their
embedding models are what the manifest holds, and rows, bytes and missing diagrams are left out for that reason.

The items of one subject stay together: they read the same pages, and under `--doctor-fix` settle each other first, so
that two shards would compute the same diagram. Only the items of the whole database are split one by one. Units are
dealt largest first, each to the shard that has least (Graham, "Bounds on multiprocessing timing anomalies", 1969):
shares then differ by no more than one unit, so that they are within 10 % of even wherever no unit is larger than that.
"""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from pytest_panic_doctor.compute.estimate import seconds_at
from pytest_panic_doctor.database.subject import Subject
from pytest_panic_doctor.examination.manifest import Entry, Manifest
from pytest_panic_doctor.examination.settings import NO_SHARDING, Part, Shard
from pytest_panic_doctor.rules.base import RepairKind, Rule, Scope

ITEM = 1.2e-3
"""Seconds that pytest itself takes for an item, as all below on one core (benchmarks/README.md)."""

ROW = 1.0e-6
"""Seconds for a row of a rule that reads an index or a row without its vector."""

VECTOR = 4.0e-6
"""Seconds for a row whose vector is read as well, or every page of it."""

PAYLOAD = 8.0e-4
"""Seconds for a diagram whose payload is decoded."""

POINT = 2.7e-5
"""Seconds for a point of a cloud whose H0 is computed; in production half of them are repeats."""

PAGES = ("file-integrity",)
"""Rules that read every page of the file."""

TREE = ("diagram-current",)
"""Rules that compute H0."""

LONGEST = 1_000_000
"""A run's length above that is not believed."""


@dataclass(frozen=True, slots=True)
class Size:
    """What a subject's items have to read: rows of `invocation` and of `embedding`, and the points of the cloud."""

    invocations: int
    embeddings: int
    points: int


Unit = tuple[Subject, str]
"""A subject, and for an item of the whole database its name: what is never split."""


def unit(entry: Entry) -> Unit:
    """The unit that an item belongs to."""
    return entry.subject, entry.name if entry.subject == Subject() else ""


def sizes(manifest: Manifest) -> Mapping[Subject, Size]:
    """The size of every subject of the manifest.

    A network alternates between texts and images, so that an embedding model embeds half of a run.
    """
    found: dict[Subject, Size] = {}
    all_invocations = all_embeddings = 0
    for experiment in manifest.experiments:
        lengths = {run.id: run.length if 0 < run.length <= LONGEST else 0 for run in experiment.runs}
        length = sum(lengths.values())
        embeddings = length * len(experiment.embedding_models) // 2
        found[Subject(experiment.id)] = Size(length, embeddings, 0)
        all_invocations += length
        all_embeddings += embeddings
        for model in experiment.embedding_models:
            found[Subject(experiment.id, None, model)] = Size(length, length // 2, 0)
            for run, steps in lengths.items():
                found[Subject(experiment.id, run, model)] = Size(steps, steps // 2, steps // 2)
    found[Subject()] = Size(all_invocations, all_embeddings, 0)
    return found


def cost(rule: Rule, size: Size, fix: bool) -> float:
    """Seconds on one core that an item is expected to take: a simple model, for a fair split and nothing else.

    Under `fix` a diagram counts as if it had to be computed, half of its points being repeats, for that is what takes
    the time. Bytes of images, which `file-integrity` reads, stand in no manifest.
    """
    if rule.id in PAGES:
        return ITEM + VECTOR * (size.invocations + size.embeddings)
    if rule.scope is Scope.RUN_MODEL:
        computed = seconds_at(size.points // 2) if fix and rule.repair is RepairKind.COMPUTE else 0.0
        return ITEM + PAYLOAD * rule.expensive + POINT * size.points * (rule.id in TREE) + computed
    rows = size.invocations if rule.scope is not Scope.DATABASE else size.invocations + size.embeddings
    return ITEM + (VECTOR * size.embeddings if rule.expensive else ROW * rows)


def costs(manifest: Manifest, rules: Sequence[Rule], fix: bool) -> dict[Unit, float]:
    """The cost of every unit."""
    by_id = {rule.id: rule for rule in rules}
    size = sizes(manifest)
    found: dict[Unit, float] = {}
    for entry in manifest.entries(rules):
        key = unit(entry)
        found[key] = found.get(key, 0.0) + cost(by_id[entry.rule], size[entry.subject], fix)
    return found


def assign_shards(found: Mapping[Unit, float], of: int) -> dict[Unit, int]:
    """The shard of each unit, largest first, each to the shard that has least; in the same way for the same units."""
    loads = [(0.0, number) for number in range(1, of + 1)]
    chosen: dict[Unit, int] = {}
    for key in sorted(found, key=lambda each: (-found[each], tie_break(each))):
        load, number = loads[0]
        chosen[key] = number
        heapq.heapreplace(loads, (load + found[key], number))
    return chosen


def tie_break(key: Unit) -> tuple[str, str, str, str]:
    """What units of equal cost are told apart by, whatever the order of the manifest."""
    subject, name = key
    return subject.experiment or "", subject.run or "", subject.embedding_model or "", name


class ShardSelection:
    """The items of one shard."""

    def __init__(self, manifest: Manifest, rules: Sequence[Rule], mine: Shard, fix: bool) -> None:
        """`rules` are those that have items; `fix` as in the settings. Costs nothing for the only shard."""
        self._whole = mine == NO_SHARDING
        chosen = {} if self._whole else assign_shards(costs(manifest, rules, fix), mine.of)
        self._units = {key for key, number in chosen.items() if number == mine.number}

    def has(self, entry: Entry) -> bool:
        """Whether an item is of this shard."""
        return self._whole or unit(entry) in self._units

    def includes(self, subject: Subject) -> bool:
        """Whether the items of a subject, other than the whole database, are of this shard."""
        return self._whole or (subject, "") in self._units

    def of(self, entries: Iterable[Entry]) -> Iterable[Entry]:
        """Those of the items that are of this shard, in their order."""
        return entries if self._whole else filter(self.has, entries)


def sampled(entry: Entry, part: Part) -> bool:
    """Whether an item is in one of several samples: by its subject, so that the items of one diagram stay together,
    and whatever else the database gains or loses, each subject is in exactly one of them."""
    subject = entry.subject
    text = f"{subject.experiment} {subject.run} {subject.embedding_model}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") % part.of == part.number - 1
