"""One session: settings, rules, manifest and selected items. Does not import pytest."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from pytest_panic_doctor.database.connection import Database, Unreadable
from pytest_panic_doctor.database.generation import Generation
from pytest_panic_doctor.database.generations import generations
from pytest_panic_doctor.database.integrity import ABSENT, check_tables, remedy
from pytest_panic_doctor.database.python_generation import PYTHON
from pytest_panic_doctor.database.room import CONTROLLER_BYTES, MemoryRoom, TooLarge, memory_room
from pytest_panic_doctor.database.shared_folder import SharedFolder
from pytest_panic_doctor.database.spelling import dashed
from pytest_panic_doctor.database.subject import DiagramTarget
from pytest_panic_doctor.database.verification import LISTING_TABLES, Verification
from pytest_panic_doctor.errors import BadOption
from pytest_panic_doctor.examination import manifest as manifests
from pytest_panic_doctor.examination.examiner import Examiner
from pytest_panic_doctor.examination.manifest import Entry, Manifest, rule_of
from pytest_panic_doctor.examination.running import Running, Written, never_written
from pytest_panic_doctor.examination.runs import chosen_runs
from pytest_panic_doctor.examination.scheduling import MissingDiagram, distribute, missing_diagrams
from pytest_panic_doctor.examination.selection import (
    check_repairs,
    check_rules,
    in_terms_of,
    known_rules,
    selected_rules,
)
from pytest_panic_doctor.examination.settings import NO_SHARDING, Settings, Shard
from pytest_panic_doctor.examination.sharding import ShardSelection, sampled
from pytest_panic_doctor.formatting import did_you_mean, format_size
from pytest_panic_doctor.rules.base import Rule, Scope
from pytest_panic_doctor.rules.database import file_integrity
from pytest_panic_doctor.rules.diagram import diagram_missing

MISSING_RULE = diagram_missing.id
INTEGRITY = file_integrity.id

ITEM_BYTES, WORKER_ITEM_BYTES = 6_000, 3_600
"""Bytes that pytest keeps for an item, in one process or in two, and in each further worker (measured)."""

RUN_BYTES = 1_200
"""Bytes for a run in the manifest of each process (measured)."""

SHARDS = (2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 25, 30, 40, 50, 100, 200, 500, 1000)


@dataclass
class Examination:
    """A session. The controller makes it from the database, a worker from what the controller sends."""

    settings: Settings
    rules: Mapping[str, Rule]
    manifest: Manifest
    rows: Mapping[str, int] = field(default_factory=dict)
    controller: int = field(default_factory=os.getpid)
    workers: int = 1
    missing_diagrams: Sequence[MissingDiagram] = ()
    """The diagrams that are missing or NULL when a repair begins."""
    deadline: float | None = None
    """The time after which no item is started, in seconds of `time.time`; None: no limit."""
    repair_run: dict[str, str | int] = field(default_factory=dict)
    """What the processes of a repairing session share; empty if nothing is repaired."""
    doubt: str = ""
    """Why the list of items cannot be trusted, as a sentence; empty if it can."""
    scratch: str = ""
    """A temporary folder that the processes of a session share; empty if there is none."""
    engine: str = "native"
    """The name of the engine for computations."""
    cluster: str = ""
    """Description of the Ray cluster that computes, and its cores; empty if this machine computes."""
    cores: int = 0
    chosen_by: Sequence[str] = ()
    """How the user selected items by pytest's own options, in words of the command line."""
    program: str = "pytest"
    """How pytest was called, in words of the command line."""
    distributes: bool = True
    """Whether xdist is installed."""
    written: Written = never_written
    """Whether the plugin itself wrote a row, according to its journal."""
    embeds: bool = False
    """Whether there is an embedding hook."""
    repairable: bool = True
    """Whether files of this generation can be repaired."""
    origin: str = ""
    """The generation of the research tool and the schema of the file; empty for the canonical one."""
    collected: frozenset[str] | None = None
    """The names of the items that are run; None until pytest has collected them."""
    file: tuple[int, int] | None = None
    """Device and inode of the database, as in `Database`."""
    database: Database = field(init=False)
    verification: Verification = field(init=False)
    described: Generation = field(init=False)
    """The generation of the file."""

    def __post_init__(self) -> None:
        """Open no database yet."""
        self.database = Database(self.settings.database, shared=self.settings.fix)
        self.database.identity = self.file
        self.verification = Verification(self.database)
        self.labels = self.manifest.labels()
        self.described = next((each for each in generations() if each.key == self.generation), PYTHON)
        self.rules = in_terms_of(self.described, self.rules)

    @property
    def space(self) -> MemoryRoom:
        """The memory limit of a check in this process."""
        beside = os.getpid() != self.controller
        return memory_room(self.settings.memory, self.workers if beside else 1, is_worker=beside)

    def examiner(self) -> Examiner:
        """The object that examines items in this process."""
        made = Examiner(self.database, self.rules, self.settings.kinds, space=self.space)
        made.running, made.verification = self.running, self.verification
        made.least_cosine, made.timeout = self.settings.embed_cosine, self.settings.timeout
        made.runs = frozenset(self.settings.runs)
        made.deep = self.settings.deep or any(self.rules[name].deep for name in self.settings.rules)
        return made

    @property
    def selected(self) -> list[Rule]:
        """The rules that have items: those that were named, or all that are not switched off, for such a file."""
        return selected_rules(self.settings, self.rules, self.generation)

    @property
    def generation(self) -> str:
        """The key of the generation of the research tool that the file is of."""
        return next((each.key for each in generations() if self.origin.startswith(each.name)), PYTHON.key)

    @property
    def itemless(self) -> tuple[str, ...]:
        """The selected rules for which the database has no subject; empty if items were selected by hand."""
        if self.chosen_by:
            return ()
        here = dict.fromkeys(Scope, False) | {Scope.DATABASE: True}
        for each in self.manifest.experiments:
            here[Scope.EXPERIMENT] = True
            here[Scope.RUN] |= bool(each.runs)
            here[Scope.EXPERIMENT_MODEL] |= bool(each.embedding_models)
            here[Scope.RUN_MODEL] |= bool(each.embedding_models and each.runs)
        return tuple(rule.id for rule in self.selected if not here[rule.scope])

    @property
    def unsampled(self) -> tuple[str, ...]:
        """The selected rules that have items here, but none in the sample; empty if items were selected by hand."""
        if self.chosen_by or self.settings.sample is None:
            return ()
        expensive = [rule for rule in self.selected if rule.expensive]
        within: dict[str, bool] = {}
        for entry in self.share.of(self.manifest.entries(expensive)):
            within[entry.rule] = within.get(entry.rule, False) or self.in_sample(entry)
        return tuple(name for name, any_within in within.items() if not any_within)

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
        """Record the items that pytest will run: those left after `-k`, `-m`, `--lf` and node ids."""
        self.collected = frozenset(names) & {entry.name for entry in self.entries()}
        self.verify()

    def verify(self) -> None:
        """Verify the whole file if an item, a repair or a plan requires it, else each table when it is first read."""
        mine = map(rule_of, self.collected or ())
        self.verification.everything = bool(self.settings.fix or self.settings.plan or INTEGRITY in mine)
        if self.scratch:
            self.verification.shared = SharedFolder(Path(self.scratch))

    def to_run(self, *, distributed: bool) -> frozenset[str]:
        """Return the names of the items that are run; all of them if every worker died before collection."""
        if self.collected is None and distributed:
            return frozenset(entry.name for entry in self.entries())
        return self.collected or frozenset()

    def chosen_rules(self) -> frozenset[str]:
        """Return the rules that may be repaired: those with collected items.

        A rule whose items are all in other shards or samples may be repaired too, because the user did not leave it
        out.
        """
        chosen = frozenset(rule.id for rule in self.selected)
        if self.collected is None:
            return chosen
        mine = frozenset(map(rule_of, self.collected))
        return mine | (chosen - {entry.rule for entry in self.entries()})

    def items_by_diagram(self) -> dict[DiagramTarget, list[str]]:
        """Map the target of each diagram to the items that compute its diagram if it is missing."""
        found: dict[DiagramTarget, list[str]] = {}
        if MISSING_RULE in self.chosen_rules():
            for entry in self.entries():
                if (self.collected is None or entry.name in self.collected) and (
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

    def sample_size(self) -> tuple[int, int]:
        """Return the number of items of expensive rules that are in the sample, and of all."""
        expensive = [rule for rule in self.selected if rule.expensive]
        taken = [self.in_sample(entry) for entry in self.share.of(self.manifest.entries(expensive))]
        return sum(taken), len(taken)

    def all_names(self) -> frozenset[str] | None:
        """Return the names of all items, sampled or not; None if only some experiments were examined."""
        if self.settings.experiments or self.settings.runs:
            return None
        here = [rule for rule in self.rules.values() if rule.applies_to(self.generation)]
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

    def schedule_largest_first(self, workers: int) -> None:
        """List the missing diagrams, and order the items so that each worker begins with its largest diagrams."""
        self.workers = workers
        self.missing_diagrams = self.missing_now()
        each = sum(1 for rule in self.selected if rule.scope is Scope.RUN_MODEL)
        if each and self.missing_diagrams:
            mine = filter(self.share.includes, self.manifest.diagram_subjects())
            targets = [one.target for one in mine]
            before = sum(1 for _ in self.entries()) - each * len(targets)
            order = distribute(targets, [one.subject.target for one in self.missing_diagrams], before, each, workers)
            self.manifest = replace(self.manifest, order=tuple(order))

    def for_worker(self) -> dict[str, object]:
        """Convert to plain values from which an xdist worker makes the same session."""
        return {
            "settings": self.settings.as_dict(),
            "manifest": self.manifest.as_plain(),
            "controller": self.controller,
            "workers": self.workers,
            "deadline": self.deadline,
            "ward": self.repair_run,
            "scratch": self.scratch,
            "file": list(self.file or ()),
            "chosen_with": list(self.chosen_by),
            "program": self.program,
            "origin": self.origin,
            "repairable": self.repairable,
        }


def from_database(settings: Settings, extra: Iterable[Rule] = (), workers: int = 0) -> Examination:
    """Make the controller's session; reads the database once. `workers` is the number of xdist workers, 0 without.

    Raises `Unreadable`, `BadOption` or `TooLarge`, each with one sentence.
    """
    rules = known_rules(settings, extra)
    database = Database(settings.database)
    database.check_readable()
    generation = database.generation or PYTHON
    check_repairs(settings, generation)
    check_rules(settings, rules, generation)
    settings = replace(settings, experiments=tuple(map(generation.id_of, settings.experiments)))
    space = memory_room(settings.memory)
    database.largest = space.value
    try:
        check_experiments(settings, database.read(manifests.experiment_ids) if settings.experiments else [])
        runs = database.read(lambda db: chosen_runs(db, settings.runs, settings.experiments)) if settings.runs else {}
        settings = replace(settings, runs=tuple(run for each in runs.values() for run in each))
        wanted = replace(settings, experiments=tuple(runs)) if runs else settings
        database.read(
            lambda db: check_items(db, wanted, selected_rules(settings, rules, generation.key), space, workers)
        )
        listed = database.read(lambda db: manifests.build_manifest(db, wanted.experiments, space))
        listed = listed.only(runs) if runs else listed
        problems = database.read(lambda db: check_tables(db, map(generation.real_name, LISTING_TABLES))).problems
        rows = database.read(lambda db: manifests.count_table_rows(db, [each.canonical for each in generation.tables]))
        origin = database.read(generation.describe)
    except sqlite3.DatabaseError as error:
        raise Unreadable(database.describe_error(error)) from error
    finally:
        database.close()
    deadline = time.time() + settings.budget if settings.budget else None
    doubt = ""
    if problems:
        state = "cannot be checked" if ABSENT in problems[0] else "is damaged"
        doubt = f"items may be missing: what lists them {state} ({problems[0]}): {remedy(problems[0])}"
    file, repairable = database.identity, generation.repairs
    return Examination(
        settings, rules, listed, rows, deadline=deadline, doubt=doubt, origin=origin, repairable=repairable, file=file
    )


def from_worker_input(
    plain: Mapping[str, object], extra: Iterable[Rule] = (), written: Written = never_written
) -> Examination:
    """Make a worker's session from what the controller sent."""
    settings = Settings.from_dict(plain["settings"])  # type: ignore[arg-type]
    return Examination(
        settings,
        known_rules(settings, extra),
        Manifest.from_plain(plain["manifest"]),  # type: ignore[arg-type]
        controller=int(str(plain["controller"])),
        workers=int(str(plain["workers"])),
        deadline=plain["deadline"],  # type: ignore[arg-type]
        repair_run=plain["ward"],  # type: ignore[arg-type]
        scratch=str(plain["scratch"]),
        chosen_by=plain["chosen_with"],  # type: ignore[arg-type]
        program=str(plain["program"]),
        written=written,
        file=tuple(plain["file"]) or None,  # type: ignore[arg-type]
        origin=str(plain["origin"]),
        repairable=bool(plain["repairable"]),
    )


def check_items(
    db: sqlite3.Connection, settings: Settings, rules: Sequence[Rule], space: MemoryRoom, workers: int
) -> None:
    """Raise `TooLarge` if pytest cannot hold all items in memory, before it tries."""
    mine = settings.shard or NO_SHARDING
    runs, items = manifests.count_items(db, settings.experiments, rules, space)
    need = RUN_BYTES * runs * (1 + workers) + items // mine.of * (ITEM_BYTES + WORKER_ITEM_BYTES * max(0, workers - 1))
    fits = space.bytes - CONTROLLER_BYTES * bool(workers) * workers
    if need <= fits:
        return
    parts = next((n for n in SHARDS if RUN_BYTES * runs * (1 + workers) + need * mine.of // n <= fits), 0)
    shards = f", or examine it in {parts} parts, the first with --doctor-shard 1/{parts}" if parts else ""
    raise TooLarge(
        f"{settings.database.name} has {items:,} items, for which pytest needs {format_size(need)}, "
        f"{space.refusal(need, fits)}{shards}"
    )


def check_experiments(settings: Settings, there: list[str]) -> None:
    """Raise `BadOption` if the settings name an unknown experiment."""
    for name in settings.experiments:
        if name not in there:
            known = [dashed(each) for each in there]
            hint = did_you_mean(dashed(name), known) or f": it has {len(known):,} others"
            raise BadOption(f"--doctor-experiment {dashed(name)}: the database has no such experiment{hint}")


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
