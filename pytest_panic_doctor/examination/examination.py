"""One doctor session: the settings, the rules, the manifest and the items that were selected. Knows no pytest."""

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
from pytest_panic_doctor.database.integrity import ABSENT, check_tables, remedy
from pytest_panic_doctor.database.python_generation import PYTHON
from pytest_panic_doctor.database.room import CONTROLLER_BYTES, MemoryRoom, TooLarge, memory_room
from pytest_panic_doctor.database.verification import LISTING_TABLES, Verification, verified_folder
from pytest_panic_doctor.errors import BadOption
from pytest_panic_doctor.examination import manifest as manifests
from pytest_panic_doctor.examination.examiner import Examiner
from pytest_panic_doctor.examination.manifest import Entry, Manifest, rule_of
from pytest_panic_doctor.examination.running import Running, Written, never_written
from pytest_panic_doctor.examination.scheduling import MissingDiagram, Pair, distribute, missing_diagrams
from pytest_panic_doctor.examination.settings import NO_SHARDING, Settings, Shard
from pytest_panic_doctor.examination.sharding import ShardSelection, sampled
from pytest_panic_doctor.formatting import did_you_mean, format_size
from pytest_panic_doctor.rules import registry
from pytest_panic_doctor.rules.base import Rule, Scope
from pytest_panic_doctor.rules.database import file_integrity
from pytest_panic_doctor.rules.diagram import diagram_missing

MISSING = diagram_missing.id
INTEGRITY = file_integrity.id

ITEM_BYTES, WORKER_ITEM_BYTES = 6_000, 3_600
"""Bytes that pytest holds for an item to its end, in one process or in two, and in each worker more (measured)."""

RUN_BYTES = 1_200
"""The same for a run, which each process lists."""

SHARDS = (2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 25, 30, 40, 50, 100, 200, 500, 1000)


@dataclass
class Examination:
    """A session. The controller makes it from the database, a worker from what the controller hands over."""

    settings: Settings
    rules: Mapping[str, Rule]
    manifest: Manifest
    rows: Mapping[str, int] = field(default_factory=dict)
    controller: int = field(default_factory=os.getpid)
    workers: int = 1
    missing_diagrams: Sequence[MissingDiagram] = ()
    """The diagrams that are absent or NULL when a repair begins."""
    deadline: float | None = None
    """When no further item is begun, in seconds of `time.time`; None: never."""
    repair_run: dict[str, str | int] = field(default_factory=dict)
    """What a repairing session shares among its processes; empty where nothing is repaired."""
    doubt: str = ""
    """Why the list of items cannot be believed, as a sentence; empty where it can."""
    scratch: str = ""
    """A folder that the processes of a session have in common, for its time; empty where nobody made one."""
    engine: str = "native"
    """The name of the engine that computes, where that is asked."""
    cluster: str = ""
    """The Ray cluster that computes, in words, and its cores; empty where this machine does."""
    cores: int = 0
    chosen_by: Sequence[str] = ()
    """How the user chose among the items by pytest's own means, in words of the command line."""
    program: str = "pytest"
    """How pytest was called, in words of the command line."""
    distributes: bool = True
    """Whether xdist is there."""
    written: Written = never_written
    """Whether the doctor itself wrote a row, as its journal has it."""
    embeds: bool = False
    """Whether anybody brings an embedding hook."""
    repairable: bool = True
    """Whether the doctor can repair a file of this generation."""
    origin: str = ""
    """Of which generation of the research tool the file is, and which schema it has; empty for the canonical one."""
    collected: frozenset[str] | None = None
    """The names of the items that are run, once pytest knows them."""
    file: tuple[int, int] | None = None
    """Device and inode of the database, as `Database` has them."""
    database: Database = field(init=False)
    verification: Verification = field(init=False)

    def __post_init__(self) -> None:
        """Open nothing yet."""
        self.database = Database(self.settings.database, shared=self.settings.fix)
        self.database.identity = self.file
        self.verification = Verification(self.database)
        self.labels = self.manifest.labels()

    @property
    def space(self) -> MemoryRoom:
        """What a check of this process may hold in memory at once."""
        beside = os.getpid() != self.controller
        return memory_room(self.settings.memory, self.workers if beside else 1, beside=beside)

    def examiner(self) -> Examiner:
        """What examines items in this process."""
        made = Examiner(self.database, self.rules, self.settings.kinds, space=self.space)
        made.running, made.verification = self.running, self.verification
        made.least_cosine, made.timeout = self.settings.embed_cosine, self.settings.timeout
        made.deep = self.settings.deep or any(self.rules[name].deep for name in self.settings.rules)
        return made

    @property
    def selected(self) -> list[Rule]:
        """The rules that have items: those that were named, or all that are not switched off."""
        return selected_rules(self.settings, self.rules)

    @property
    def itemless(self) -> tuple[str, ...]:
        """The selected rules that have no item, since the database has no subject for them; none where some of the
        items were chosen by hand."""
        if self.chosen_by:
            return ()
        here = dict.fromkeys(Scope, False) | {Scope.DATABASE: True}
        for each in self.manifest.experiments:
            here[Scope.EXPERIMENT] = True
            here[Scope.EXPERIMENT_MODEL] |= bool(each.embedding_models)
            here[Scope.RUN_MODEL] |= bool(each.embedding_models and each.runs)
        return tuple(rule.id for rule in self.selected if not here[rule.scope])

    @property
    def all_elsewhere(self) -> bool:
        """Whether there are items, and all of them are in other shards or samples than this."""
        whole = self.manifest.entries(self.selected)
        return any(True for _ in whole) and not any(True for _ in self.entries())

    @property
    def switched_off(self) -> int:
        """How many rules `doctor_severity` leaves out."""
        return 0 if self.settings.rules else sum(map(self.settings.switches_off, self.rules))

    def entries(self) -> Iterable[Entry]:
        """All items of this session, in their order: those of its shard, where it is one of several, and its sample."""
        return filter(self.in_sample, self.share.of(self.manifest.entries(self.selected)))

    def collect(self, names: Iterable[str]) -> None:
        """Take note of the items that pytest is about to run: those left after `-k`, `-m`, `--lf` and node ids."""
        self.collected = frozenset(names) & {entry.name for entry in self.entries()}
        self.verify()

    def verify(self) -> None:
        """Say what is verified: the whole file where that is an item's own task, or a repair or a plan of one asked.

        Otherwise each table when an item first reads it.
        """
        mine = map(rule_of, self.collected or ())
        self.verification.everything = bool(self.settings.fix or self.settings.plan or INTEGRITY in mine)
        if self.scratch:
            self.verification.folder = verified_folder(Path(self.scratch))

    def to_run(self, *, distributed: bool) -> frozenset[str]:
        """The names of the items that are run: all, where every worker died before it had collected them."""
        if self.collected is None and distributed:
            return frozenset(entry.name for entry in self.entries())
        return self.collected or frozenset()

    def chosen_rules(self) -> frozenset[str]:
        """The rules that may be repaired: those of the collected items, and none that was left out.

        A rule whose items are all in other shards or samples was not left out by anybody.
        """
        chosen = frozenset(rule.id for rule in self.selected)
        if self.collected is None:
            return chosen
        mine = frozenset(map(rule_of, self.collected))
        return mine | (chosen - {entry.rule for entry in self.entries()})

    def items_by_diagram(self) -> dict[Pair, list[str]]:
        """The places whose diagram is computed if it is absent, and the items that see to it."""
        found: dict[Pair, list[str]] = {}
        if MISSING in self.chosen_rules():
            for entry in self.entries():
                if (self.collected is None or entry.name in self.collected) and (
                    MISSING in (entry.rule, *self.rules[entry.rule].requires)
                ):
                    pair = str(entry.subject.run), str(entry.subject.embedding_model)
                    found.setdefault(pair, []).append(entry.name)
        return found

    def planned(self) -> list[MissingDiagram]:
        """Those of the absent diagrams that the collected items compute."""
        computing = self.items_by_diagram()
        return [each for each in self.missing_diagrams if each.pair in computing]

    def in_sample(self, entry: Entry) -> bool:
        """Whether an item is looked at: one of a cheap rule always, one of an expensive rule in its turn."""
        sample = self.settings.sample
        return sample is None or not self.rules[entry.rule].expensive or sampled(entry, sample)

    def sample_size(self) -> tuple[int, int]:
        """How many items of expensive rules are in the sample, and how many there are."""
        expensive = [rule for rule in self.selected if rule.expensive]
        taken = [self.in_sample(entry) for entry in self.share.of(self.manifest.entries(expensive))]
        return sum(taken), len(taken)

    def all_names(self) -> frozenset[str] | None:
        """The names of all items that the database has, sampled or not; None where only a part was looked at."""
        if self.settings.experiments:
            return None
        return frozenset(entry.name for entry in self.manifest.entries(self.rules.values()))

    def in_time(self) -> bool:
        """Whether a further item may be begun."""
        return self.deadline is None or time.time() < self.deadline

    @property
    def running(self) -> Running:
        """What tells which experiments the research tool is running now."""
        return Running(self.settings.database, self.settings.running, self.written)

    @property
    def shard(self) -> Shard:
        """Which of how many shards this session is."""
        return self.settings.shard or NO_SHARDING

    @cached_property
    def share(self) -> ShardSelection:
        """The part of all items that this session examines; no order of the items changes it."""
        return ShardSelection(self.manifest, self.selected, self.shard, self.settings.fix)

    def missing_now(self) -> list[MissingDiagram]:
        """The diagrams of this session's share that are absent or NULL now; none where no rule computes them."""
        if not any(rule.id == MISSING for rule in self.selected):
            return []
        found = self.database.read(lambda db: missing_diagrams(db, self.manifest, self.settings.kinds))
        return [each for each in found if self.share.includes(each.subject)]

    def schedule_largest_first(self, workers: int) -> None:
        """Look what there is to compute, and order the items so that every worker begins with its largest diagrams."""
        self.workers = workers
        self.missing_diagrams = self.missing_now()
        each = sum(1 for rule in self.selected if rule.scope is Scope.RUN_MODEL)
        if each and self.missing_diagrams:
            mine = filter(self.share.includes, self.manifest.diagram_subjects())
            pairs = [(str(one.run), str(one.embedding_model)) for one in mine]
            before = sum(1 for _ in self.entries()) - each * len(pairs)
            order = distribute(pairs, [one.pair for one in self.missing_diagrams], before, each, workers)
            self.manifest = replace(self.manifest, order=tuple(order))

    def for_worker(self) -> dict[str, object]:
        """What an xdist worker needs to be the same session, as plain values."""
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
    """A session of the controller with so many xdist workers, 0 without: looks at the database once.

    Raises `Unreadable`, `BadOption` and `TooLarge`, in one sentence.
    """
    rules = known_rules(settings, extra)
    database = Database(settings.database)
    database.check_readable()
    generation = database.generation or PYTHON
    check_repairs(settings, generation)
    settings = replace(settings, experiments=tuple(map(generation.id_of, settings.experiments)))
    space = memory_room(settings.memory)
    database.largest = space.value
    try:
        check_experiments(settings, database.read(manifests.experiment_ids) if settings.experiments else [])
        database.read(lambda db: check_items(db, settings, selected_rules(settings, rules), space, workers))
        listed = database.read(lambda db: manifests.build(db, settings.experiments, space))
        problems = database.read(lambda db: check_tables(db, map(generation.real_name, LISTING_TABLES))).problems
        rows = database.read(lambda db: manifests.rows_by_table(db, [each.canonical for each in generation.tables]))
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


def check_repairs(settings: Settings, generation: Generation) -> None:
    """Raise `Unreadable` where a repair is asked for that cannot be done yet."""
    flag = "--doctor-fix" if settings.fix else "--doctor-plan" if settings.plan else ""
    if flag and not generation.repairs:
        raise Unreadable(
            f"{settings.database} is a database of {generation.name}, which this doctor examines and does not repair "
            f"yet: leave out {flag}"
        )


def from_worker_input(
    plain: Mapping[str, object], extra: Iterable[Rule] = (), written: Written = never_written
) -> Examination:
    """The session that the controller handed to a worker."""
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


def selected_rules(settings: Settings, rules: Mapping[str, Rule]) -> list[Rule]:
    """The rules that have items: those that were named, or all that are not switched off.

    A deep rule has items with `--doctor-deep` too, and where a sample of them is asked for.
    """
    named = settings.rules
    deep = settings.deep or settings.sample is not None
    return [
        rule
        for rule in rules.values()
        if rule.id in named or (not named and not settings.switches_off(rule.id) and (deep or not rule.deep))
    ]


def check_items(
    db: sqlite3.Connection, settings: Settings, rules: Sequence[Rule], space: MemoryRoom, workers: int
) -> None:
    """Raise `TooLarge` where pytest cannot hold as many items as there are, before it tries."""
    mine = settings.shard or NO_SHARDING
    runs, items = manifests.counted(db, settings.experiments, rules, space)
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


def known_rules(settings: Settings, extra: Iterable[Rule]) -> dict[str, Rule]:
    """All rules; raises `BadOption` where the settings name one that is none."""
    rules = registry(extra)
    for name in settings.rules:
        if name not in rules:
            raise BadOption(
                f"--doctor-rule {name}: there is no such rule{did_you_mean(name, rules)} (--doctor-rules lists them)"
            )
    for name in settings.severity:
        if name not in rules:
            raise BadOption(f"doctor_severity names {name}: there is no such rule{did_you_mean(name, rules)}")
    return rules


def check_experiments(settings: Settings, there: list[str]) -> None:
    """Raise `BadOption` where the settings name an experiment that the database has not."""
    for name in settings.experiments:
        if name not in there:
            known = [manifests.dashed(each) for each in there]
            hint = did_you_mean(manifests.dashed(name), known) or f": it has {len(known):,} others"
            raise BadOption(f"--doctor-experiment {manifests.dashed(name)}: the database has no such experiment{hint}")


def check_node(name: str, examination: Examination) -> None:
    """Raise `BadOption` where a node id typed by hand names no item; `name` is what follows `::`."""
    names = [entry.name for entry in examination.entries()]
    if name not in names and not any(each.split("[")[0] == name for each in names):
        if any(name in (each.name, each.rule) for each in examination.manifest.entries(examination.selected)):
            raise BadOption(
                f"{examination.settings.database.name}::{name} is not in {examination.shard.named}: "
                "leave out --doctor-shard"
            )
        near = names if "[" in name else [rule.id for rule in examination.selected]
        raise BadOption(f"{examination.settings.database.name}::{name} names no item{did_you_mean(name, near)}")
