"""Select the items of `--doctor-shard K/N`.

Every shard makes the same manifest and splits it in the same way, so that shards need not communicate. The split
depends on nothing that a repair changes or that may be damaged: only on experiments, runs, their lengths and their
embedding models, not on rows, bytes or missing diagrams.

Items of one subject stay together: they read the same pages, and with `--doctor-fix` they repair each other's
requirements, so that otherwise two shards would compute the same diagram. Only items of the whole database are split
one by one. Units are assigned largest first, each to the shard with the least work (Graham, "Bounds on multiprocessing
timing anomalies", 1969): shares differ by at most one unit, so they are within 10 % of even if no unit is larger.
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
"""Seconds that pytest takes for an item; like all below, on one core (benchmarks/README.md)."""

ROW = 1.0e-6
"""Seconds for a row of a rule that reads an index, or a row without its vector."""

VECTOR = 4.0e-6
"""Seconds for a row that is read with its vector, or with all its pages."""

PAYLOAD = 8.0e-4
"""Seconds for a diagram whose payload is decoded."""

POINT = 2.7e-5
"""Seconds for a point of a cloud whose H0 is computed; in production half of them are repeats."""

PAGES = ("file-integrity",)
"""Rules that read every page of the file."""

TREE = ("diagram-current",)
"""Rules that compute H0."""

LONGEST_MANIFEST = 1_000_000
"""Maximum plausible length of a run."""


@dataclass(frozen=True, slots=True)
class Size:
    """The amount of data of a subject's items: rows of `invocation` and of `embedding`, and points of the cloud."""

    invocations: int
    embeddings: int
    points: int


Unit = tuple[Subject, str]
"""A subject, and for an item of the whole database its name: the smallest part that is assigned."""


def unit(entry: Entry) -> Unit:
    """Return the unit of an item."""
    return entry.subject, entry.name if entry.subject == Subject() else ""


def sizes(manifest: Manifest) -> Mapping[Subject, Size]:
    """Estimate the size of every subject of the manifest.

    Networks alternate between texts and images, so that an embedding model embeds half of a run.
    """
    found: dict[Subject, Size] = {}
    all_invocations = all_embeddings = 0
    for experiment in manifest.experiments:
        lengths = {run.id: run.length if 0 < run.length <= LONGEST_MANIFEST else 0 for run in experiment.runs}
        length = sum(lengths.values())
        embeddings = length * len(experiment.embedding_models) // 2
        found[Subject(experiment.id)] = Size(length, embeddings, 0)
        for run, steps in lengths.items():
            found[Subject(experiment.id, run)] = Size(steps, steps * len(experiment.embedding_models) // 2, 0)
        all_invocations += length
        all_embeddings += embeddings
        for model in experiment.embedding_models:
            found[Subject(experiment.id, None, model)] = Size(length, length // 2, 0)
            for run, steps in lengths.items():
                found[Subject(experiment.id, run, model)] = Size(steps, steps // 2, steps // 2)
    found[Subject()] = Size(all_invocations, all_embeddings, 0)
    return found


def cost(rule: Rule, size: Size, fix: bool) -> float:
    """Estimate the seconds on one core that an item takes; only used for an even split.

    Args:
        rule: The rule.
        size: The size of the subject.
        fix: Whether diagrams are repaired: then each counts as if it had to be computed, half of its points repeats.
    """
    if rule.id in PAGES:
        return ITEM + VECTOR * (size.invocations + size.embeddings)
    if rule.scope is Scope.RUN_MODEL:
        computed = seconds_at(size.points // 2) if fix and rule.repair is RepairKind.COMPUTE else 0.0
        return ITEM + PAYLOAD * rule.expensive + POINT * size.points * (rule.id in TREE) + computed
    rows = size.invocations if rule.scope is not Scope.DATABASE else size.invocations + size.embeddings
    return ITEM + (VECTOR * size.embeddings if rule.expensive else ROW * rows)


def costs(manifest: Manifest, rules: Sequence[Rule], fix: bool) -> dict[Unit, float]:
    """Estimate the cost of every unit."""
    by_id = {rule.id: rule for rule in rules}
    size = sizes(manifest)
    found: dict[Unit, float] = {}
    for entry in manifest.entries(rules):
        key = unit(entry)
        found[key] = found.get(key, 0.0) + cost(by_id[entry.rule], size[entry.subject], fix)
    return found


def assign_shards(found: Mapping[Unit, float], of: int) -> dict[Unit, int]:
    """Assign units to shards, largest first, each to the shard with the least work. The result is deterministic."""
    loads = [(0.0, number) for number in range(1, of + 1)]
    chosen: dict[Unit, int] = {}
    for key in sorted(found, key=lambda each: (-found[each], tie_break(each))):
        load, number = loads[0]
        chosen[key] = number
        heapq.heapreplace(loads, (load + found[key], number))
    return chosen


def tie_break(key: Unit) -> tuple[str, str, str, str]:
    """Return a sort key for units of equal cost that does not depend on the order of the manifest."""
    subject, name = key
    return subject.experiment or "", subject.run or "", subject.embedding_model or "", name


class ShardSelection:
    """The items of one shard."""

    def __init__(self, manifest: Manifest, rules: Sequence[Rule], mine: Shard, fix: bool) -> None:
        """Compute the split; nothing is computed if there is only one shard.

        Args:
            manifest: All subjects.
            rules: The rules that have items.
            mine: The shard.
            fix: As in the settings.
        """
        self._undivided = mine == NO_SHARDING
        chosen = {} if self._undivided else assign_shards(costs(manifest, rules, fix), mine.of)
        self._units = {key for key, number in chosen.items() if number == mine.number}

    def has(self, entry: Entry) -> bool:
        """Whether an item is in this shard."""
        return self._undivided or unit(entry) in self._units

    def includes(self, subject: Subject) -> bool:
        """Whether the items of a subject, other than the whole database, are in this shard."""
        return self._undivided or (subject, "") in self._units

    def of(self, entries: Iterable[Entry]) -> Iterable[Entry]:
        """Return the items that are in this shard, in order."""
        return entries if self._undivided else filter(self.has, entries)


def sampled(entry: Entry, part: Part) -> bool:
    """Whether an item is in a sample.

    Its subject decides, so that the items of one diagram stay together. Each subject is in exactly one of the samples,
    also after rows were added or removed.
    """
    subject = entry.subject
    text = f"{subject.experiment} {subject.run} {subject.embedding_model}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") % part.of == part.number - 1
