"""One session: settings, rules, manifest and selected items. Does not import pytest."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_panic_doctor.database.connection import Database
from pytest_panic_doctor.database.generation import Generation
from pytest_panic_doctor.database.generations import generations
from pytest_panic_doctor.database.memory_room import MemoryRoom, memory_room
from pytest_panic_doctor.database.python_generation import PYTHON
from pytest_panic_doctor.database.shared_folder import SharedFolder
from pytest_panic_doctor.database.spelling import dashed
from pytest_panic_doctor.database.subject import DiagramTarget
from pytest_panic_doctor.database.verification import Verification
from pytest_panic_doctor.errors import BadOption
from pytest_panic_doctor.examination.acceptance import AcceptancePolicy
from pytest_panic_doctor.examination.check import CheckOptions
from pytest_panic_doctor.examination.examiner import Examiner, Planner, Repairer, RunState
from pytest_panic_doctor.examination.manifest import Entry, Manifest
from pytest_panic_doctor.examination.running_experiments import Running, Written, never_written
from pytest_panic_doctor.examination.scheduling import MissingDiagram, distribute, missing_diagrams
from pytest_panic_doctor.examination.selection import (
    in_terms_of,
    selected_rules,
)
from pytest_panic_doctor.examination.settings import NO_SHARDING, Settings, Shard
from pytest_panic_doctor.examination.sharding import ShardSelection, sampled
from pytest_panic_doctor.formatting import did_you_mean
from pytest_panic_doctor.rules.base import Rule, Scope
from pytest_panic_doctor.rules.database import file_integrity
from pytest_panic_doctor.rules.diagram import diagram_missing

if TYPE_CHECKING:
    from pytest_panic_doctor.rules.embedder import Embedder

MISSING_RULE = diagram_missing.id
INTEGRITY = file_integrity.id


@dataclass(frozen=True)
class Examination:
    """A session. The controller makes it from the database, a worker from what the controller sends."""

    settings: Settings
    known: Mapping[str, Rule]
    """All rules, as they are written."""
    manifest: Manifest
    rows: Mapping[str, int] = field(default_factory=dict)
    controller: int = field(default_factory=os.getpid)
    workers: int = 1
    missing_diagrams: Sequence[MissingDiagram] = ()
    """The diagrams that are missing or NULL when a repair begins."""
    deadline: float | None = None
    """The time after which no item is started, in seconds of `time.time`; None: no limit."""
    repair_run: Mapping[str, str | int] = field(default_factory=dict)
    """What the processes of a repairing session share; empty if nothing is repaired."""
    doubt: str = ""
    """Why the list of items cannot be trusted, as a sentence; empty if it can."""
    scratch: str = ""
    """A temporary folder that the processes of a session share; empty if there is none."""
    engine: str = "native"
    """The name of the engine for computations."""
    chosen_by: Sequence[str] = ()
    """How the user selected items by pytest's own options, in words of the command line."""
    program: str = "pytest"
    """How pytest was called, in words of the command line."""
    distributes: bool = True
    """Whether xdist is installed."""
    written: Written = never_written
    """Whether the plugin itself wrote a row, according to its journal."""
    embedder: Embedder | None = None
    """The embedding hooks of this process; None if there are none."""
    repairable: bool = True
    """Whether files of this generation can be repaired."""
    origin: str = ""
    """The generation of the research tool and the schema of the file; empty for the canonical one."""
    file: tuple[int, int] | None = None
    """Device and inode of the database, as in `Database`."""
    state: RunState = field(default_factory=RunState)
    """What changes while the session runs."""

    @cached_property
    def rules(self) -> Mapping[str, Rule]:
        """All rules, with what a person does with the research tool of the file's generation."""
        return in_terms_of(self.described, self.known)

    @cached_property
    def verification(self) -> Verification:
        """The integrity checks of the session; they watch what the database reads."""
        database = Database(self.settings.database, shared=self.settings.fix)
        database.identity = self.file
        return Verification(database, SharedFolder(Path(self.scratch)) if self.scratch else None)

    @property
    def database(self) -> Database:
        """The database, which is opened when it is first read."""
        return self.verification.database

    @cached_property
    def labels(self) -> Mapping[str, str]:
        """The descriptions of all experiments and runs by id, as stored and with dashes."""
        found = self.manifest.labels().items()
        return {each: label for stored, label in found for each in (stored, dashed(stored))}

    @cached_property
    def described(self) -> Generation:
        """The generation of the research tool that the file is of."""
        return next((each for each in generations() if self.origin.startswith(each.name)), PYTHON)

    @cached_property
    def acceptance(self) -> AcceptancePolicy:
        """The project's own choices: severities, and the baseline, which is read."""
        return AcceptancePolicy(self.settings)

    @property
    def embeds(self) -> bool:
        """Whether there is an embedding hook."""
        return self.embedder is not None

    @property
    def space(self) -> MemoryRoom:
        """The memory limit of a check in this process."""
        beside = os.getpid() != self.controller
        return memory_room(self.settings.memory, self.workers if beside else 1, is_worker=beside)

    def examiner(
        self,
        *,
        repairer: Repairer | None = None,
        planner: Planner | None = None,
        ahead: bool = False,
    ) -> Examiner:
        """Make the object that examines items in this process.

        Args:
            repairer: Repairs findings.
            planner: Estimates repairs instead of making them.
            ahead: Whether it looks ahead of a repair: then nothing is verified, and no finding is accepted.
        """
        settings = self.settings
        options = CheckOptions(
            space=self.space,
            runs=frozenset(settings.runs),
            deep=settings.deep or any(self.rules[name].deep for name in settings.rules),
            timeout=settings.timeout,
            embedder=self.embedder,
            least_cosine=settings.embed_cosine,
            verification=None if ahead else self.verification,
        )
        return Examiner(
            *(self.database, self.rules, settings.kinds, options),
            repairer=repairer,
            planner=planner,
            running=self.running,
            acceptance=None if ahead else self.acceptance,
            state=self.state,
        )

    @cached_property
    def selected(self) -> list[Rule]:
        """The rules that have items: those that were named, or all that are not switched off, for such a file."""
        return selected_rules(self.settings, self.rules, self.described.key)

    @property
    def itemless(self) -> tuple[str, ...]:
        """The selected rules for which the database has no subject; empty if items were selected by hand."""
        if self.chosen_by:
            return ()
        return tuple(rule.id for rule in self.selected if not any(True for _ in self.manifest.entries([rule])))

    @property
    def unsampled(self) -> tuple[str, ...]:
        """The selected rules that have items here, but none in the sample; empty if items were selected by hand."""
        if self.chosen_by or self.settings.sample is None:
            return ()
        sampled_rules = {entry.rule for entry in self.entries()}
        return tuple(dict.fromkeys(each.rule for each in self.expensive_entries() if each.rule not in sampled_rules))

    @property
    def all_elsewhere(self) -> bool:
        """Whether there are items, but all of them are in other shards or samples."""
        whole = self.manifest.entries(self.selected)
        return any(True for _ in whole) and not any(True for _ in self.entries())

    @property
    def switched_off(self) -> int:
        """The number of rules that `doctor_severity` switches off."""
        return 0 if self.settings.rules else sum(map(self.settings.switches_off, self.rules))

    def entries(self) -> Iterable[Entry]:
        """List the items of this session's shard and sample, in order."""
        return filter(self.in_sample, self.share.of(self.manifest.entries(self.selected)))

    def collect(self, names: Iterable[str]) -> None:
        """Record the items that pytest will run: those left after `-k`, `-m`, `--lf` and node ids.

        Their rules may be repaired. So may a rule whose items are all in other shards or samples, because the user did
        not leave it out. The whole file is verified if an item, a repair or a plan requires it, else each table when
        it is first read.
        """
        here = {entry.name: entry.rule for entry in self.entries()}
        collected = here.keys() & frozenset(names)
        mine = frozenset(here[name] for name in collected)
        elsewhere = {rule.id for rule in self.selected}.difference(here.values())
        self.state.collected, self.state.repairable_rules = frozenset(collected), mine | elsewhere
        self.verification.everything = bool(self.settings.fix or self.settings.plan or INTEGRITY in mine)

    def to_run(self, *, distributed: bool) -> frozenset[str]:
        """Return the names of the items that are run; all of them if every worker died before collection."""
        if self.state.collected is None and distributed:
            return frozenset(entry.name for entry in self.entries())
        return self.state.collected or frozenset()

    def chosen_rules(self) -> frozenset[str]:
        """Return the rules that may be repaired; all that have items until pytest has collected them."""
        known = self.state.repairable_rules
        return frozenset(rule.id for rule in self.selected) if known is None else known

    def items_by_diagram(self) -> dict[DiagramTarget, list[str]]:
        """Map the target of each diagram to the items that compute its diagram if it is missing."""
        collected = self.state.collected
        found: dict[DiagramTarget, list[str]] = {}
        if MISSING_RULE in self.chosen_rules():
            for entry in self.entries():
                if (collected is None or entry.name in collected) and (
                    MISSING_RULE in (entry.rule, *self.rules[entry.rule].requires)
                ):
                    found.setdefault(entry.subject.target, []).append(entry.name)
        return found

    def planned(self) -> list[MissingDiagram]:
        """List the missing diagrams that the collected items compute."""
        computing = self.items_by_diagram()
        return [each for each in self.missing_diagrams if each.subject.target in computing]

    def in_sample(self, entry: Entry) -> bool:
        """Whether an item is examined: always for a cheap rule, by `--doctor-sample` for an expensive one."""
        sample = self.settings.sample
        return sample is None or not self.rules[entry.rule].expensive or sampled(entry, sample)

    def expensive_entries(self) -> Iterable[Entry]:
        """List the items of expensive rules of this session's shard, whether they are in the sample or not."""
        return self.share.of(self.manifest.entries([rule for rule in self.selected if rule.expensive]))

    def sample_size(self) -> tuple[int, int]:
        """Return the number of items of expensive rules that are in the sample, and of all."""
        taken = list(map(self.in_sample, self.expensive_entries()))
        return sum(taken), len(taken)

    def all_names(self) -> frozenset[str] | None:
        """Return the names of all items, sampled or not; None if only some experiments were examined."""
        if self.settings.experiments or self.settings.runs:
            return None
        here = [rule for rule in self.rules.values() if rule.applies_to(self.described.key)]
        return frozenset(entry.name for entry in self.manifest.entries(here))

    def in_time(self) -> bool:
        """Whether a further item may be started."""
        return self.deadline is None or time.time() < self.deadline

    @property
    def running(self) -> Running:
        """The check whether the research tool is running an experiment."""
        return Running(self.settings.database, self.settings.running, self.written)

    @property
    def shard(self) -> Shard:
        """The part of the items that this session examines."""
        return self.settings.shard or NO_SHARDING

    @cached_property
    def share(self) -> ShardSelection:
        """The items of this session's shard; it does not depend on their order."""
        return ShardSelection(self.manifest, self.selected, self.shard, self.settings.fix)

    def missing_now(self) -> list[MissingDiagram]:
        """List the diagrams of this shard that are missing or NULL now; empty if no selected rule computes them."""
        if not any(rule.id == MISSING_RULE for rule in self.selected):
            return []
        found = self.database.read(lambda db: missing_diagrams(db, self.manifest, self.settings.kinds))
        return [each for each in found if self.share.includes(each.subject)]

    def scheduled(self) -> Examination:
        """Return the session with its missing diagrams; each worker begins with its largest ones.

        The database was read, and is closed.
        """
        missing = self.missing_now()
        self.database.close()
        each = sum(1 for rule in self.selected if rule.scope is Scope.RUN_MODEL)
        if not (each and missing):
            return replace(self, missing_diagrams=missing)
        mine = filter(self.share.includes, self.manifest.diagram_subjects())
        targets = [one.target for one in mine]
        before = sum(1 for _ in self.entries()) - each * len(targets)
        order = distribute(targets, [one.subject.target for one in missing], before, each, self.workers)
        return replace(self, missing_diagrams=missing, manifest=replace(self.manifest, order=tuple(order)))


def check_node(name: str, examination: Examination) -> None:
    """Raise `BadOption` if a node id names no item; `name` is its part after `::`."""
    names = [entry.name for entry in examination.entries()]
    if name not in names and not any(each.split("[")[0] == name for each in names):
        if any(name in (each.name, each.rule) for each in examination.manifest.entries(examination.selected)):
            raise BadOption(
                f"{examination.settings.database.name}::{name} is not in {examination.shard.named}: "
                "leave out --doctor-shard"
            )
        near = names if "[" in name else [rule.id for rule in examination.selected]
        raise BadOption(f"{examination.settings.database.name}::{name} names no item{did_you_mean(name, near)}")
