"""One doctor session: the settings, the rules, the manifest and the items that were selected. Knows no pytest."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from pytest_panic_doctor import manifest as manifests
from pytest_panic_doctor.manifest import Entry, Manifest
from pytest_panic_doctor.options import BadOption, Settings, nearest
from pytest_panic_doctor.plan import Todo, dealt, todo
from pytest_panic_doctor.rules import registry
from pytest_panic_doctor.rules.model import Rule, Scope
from pytest_panic_doctor.store.schema import TABLES
from pytest_panic_doctor.store.session import Database, Unreadable


@dataclass
class Doctor:
    """A session. The controller makes it from the database, a worker from what the controller hands over."""

    settings: Settings
    rules: Mapping[str, Rule]
    manifest: Manifest
    rows: Mapping[str, int] = field(default_factory=dict)
    controller: int = field(default_factory=os.getpid)
    workers: int = 1
    todo: Sequence[Todo] = ()
    """The diagrams that are absent or NULL when a repair begins."""
    ward: dict[str, str | int] = field(default_factory=dict)
    """What a repairing session shares among its processes; empty where nothing is repaired."""
    cluster: str = ""
    """The Ray cluster that computes, in words, and its cores; empty where this machine does."""
    cores: int = 0
    database: Database = field(init=False)

    def __post_init__(self) -> None:
        """Open nothing yet."""
        self.database = Database(self.settings.database, shared=self.settings.fix)
        self.labels = self.manifest.labels()

    @property
    def selected(self) -> list[Rule]:
        """The rules that have items."""
        return [rule for rule in self.rules.values() if not self.settings.rules or rule.id in self.settings.rules]

    def entries(self) -> Iterable[Entry]:
        """All items of this session, in their order."""
        return self.manifest.entries(self.selected)

    def largest_first(self, workers: int) -> None:
        """Look what there is to compute, and order the items so that every worker begins with its largest diagrams."""
        self.workers = workers
        self.todo = self.database.read(lambda db: todo(db, self.manifest, self.settings.kinds))
        each = sum(1 for rule in self.selected if rule.scope is Scope.RUN_MODEL)
        if each and self.todo:
            pairs = [(str(one.run), str(one.embedding_model)) for one in self.manifest.diagram_subjects()]
            before = sum(1 for _ in self.entries()) - each * len(pairs)
            order = dealt(pairs, [one.pair for one in self.todo], before, each, workers)
            self.manifest = replace(self.manifest, order=tuple(order))

    def for_worker(self) -> dict[str, object]:
        """What an xdist worker needs to be the same session, as plain values."""
        return {
            "settings": self.settings.as_dict(),
            "manifest": self.manifest.as_plain(),
            "controller": self.controller,
            "workers": self.workers,
            "ward": self.ward,
        }


def begin(settings: Settings, extra: Iterable[Rule] = ()) -> Doctor:
    """A session of the controller: looks at the database once. Raises `Unreadable` and `BadOption`, in one sentence."""
    rules = known_rules(settings, extra)
    database = Database(settings.database)
    database.check_readable()
    try:
        check_experiments(settings, database.read(manifests.experiment_ids) if settings.experiments else [])
        listed = database.read(lambda db: manifests.build(db, settings.experiments))
        rows = database.read(lambda db: manifests.rows_by_table(db, TABLES))
    except sqlite3.DatabaseError as error:
        raise Unreadable(database.why(error)) from error
    finally:
        database.close()
    return Doctor(settings, rules, listed, rows)


def join(plain: Mapping[str, object], extra: Iterable[Rule] = ()) -> Doctor:
    """The session that the controller handed to a worker."""
    settings = Settings.from_dict(plain["settings"])  # type: ignore[arg-type]
    return Doctor(
        settings,
        known_rules(settings, extra),
        Manifest.from_plain(plain["manifest"]),  # type: ignore[arg-type]
        controller=int(str(plain["controller"])),
        workers=int(str(plain["workers"])),
        ward=plain["ward"],  # type: ignore[arg-type]
    )


def known_rules(settings: Settings, extra: Iterable[Rule]) -> dict[str, Rule]:
    """All rules; raises `BadOption` where the settings name one that is none."""
    rules = registry(extra)
    for name in settings.rules:
        if name not in rules:
            raise BadOption(
                f"--doctor-rule {name}: there is no such rule{nearest(name, rules)} (--doctor-rules lists them)"
            )
    return rules


def check_experiments(settings: Settings, there: list[str]) -> None:
    """Raise `BadOption` where the settings name an experiment that the database has not."""
    for name in settings.experiments:
        if name not in there:
            known = [manifests.dashed(each) for each in there]
            hint = nearest(manifests.dashed(name), known) or f": it has {len(known):,} others"
            raise BadOption(f"--doctor-experiment {manifests.dashed(name)}: the database has no such experiment{hint}")


def check_node(name: str, doctor: Doctor) -> None:
    """Raise `BadOption` where a node id typed by hand names no item; `name` is what follows `::`."""
    names = [entry.name for entry in doctor.entries()]
    if name not in names and not any(each.split("[")[0] == name for each in names):
        near = names if "[" in name else [rule.id for rule in doctor.selected]
        raise BadOption(f"{doctor.settings.database.name}::{name} names no item{nearest(name, near)}")
