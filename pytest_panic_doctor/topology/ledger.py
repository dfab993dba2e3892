"""The ledger of a memory budget: who runs, who waits, and what was measured, in one small JSON file under one lock."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

import psutil
from filelock import FileLock

from pytest_panic_doctor.topology.estimate import Measured

KEPT = 200
"""Measurements kept, the latest."""


@dataclass(frozen=True, slots=True)
class Identity:
    """A process, told by its start time (epoch, s) from a later one that gets the same number."""

    pid: int
    started: float

    @classmethod
    def of(cls, pid: int) -> Identity:
        """The process that has this number now."""
        try:
            return cls(pid, psutil.Process(pid).create_time())
        except psutil.NoSuchProcess:
            return cls(pid, 0.0)

    @property
    def alive(self) -> bool:
        """Whether that very process still runs."""
        try:
            process = psutil.Process(self.pid)
            return process.create_time() == self.started and process.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False


@dataclass(slots=True)
class Held:
    """A grant: its worker, the child that may grow to `grant` bytes, and what it computes since when (epoch, s)."""

    who: Identity
    child: int
    grant: int
    label: str
    points: int
    since: float
    resident: int = 0


@dataclass(slots=True)
class Waiting:
    """One who waits for room; the lowest ticket is served first."""

    who: Identity
    ticket: int


@dataclass(slots=True)
class Ledger:
    """Everything that the processes of a session share about memory."""

    processes: dict[str, Identity] = field(default_factory=dict)
    holders: dict[str, Held] = field(default_factory=dict)
    waiting: dict[str, Waiting] = field(default_factory=dict)
    measured: list[Measured] = field(default_factory=list)
    ticket: int = 0
    done: int = 0

    @classmethod
    def from_json(cls, text: str) -> Ledger:
        """The inverse of `to_json`, without those who died meanwhile."""
        plain = json.loads(text)
        ledger = cls(
            {key: Identity(**each) for key, each in plain["processes"].items()},
            {key: Held(**{**each, "who": Identity(**each["who"])}) for key, each in plain["holders"].items()},
            {key: Waiting(Identity(**each["who"]), each["ticket"]) for key, each in plain["waiting"].items()},
            [Measured(**each) for each in plain["measured"]][-KEPT:],
            plain["ticket"],
            plain["done"],
        )
        ledger.processes = {key: each for key, each in ledger.processes.items() if each.alive}
        ledger.holders = {key: each for key, each in ledger.holders.items() if each.who.alive}
        ledger.waiting = {key: each for key, each in ledger.waiting.items() if each.who.alive}
        return ledger

    def to_json(self) -> str:
        """As the file holds it."""
        return json.dumps(asdict(self))


class LedgerFile:
    """The ledger on disk. A writer that dies leaves the last whole ledger, and its lock to the kernel."""

    def __init__(self, directory: Path) -> None:
        """The folder is made where it is missing."""
        directory.mkdir(parents=True, exist_ok=True)
        self.path = directory / "ledger.json"
        self._lock = FileLock(directory / "ledger.lock")

    @contextmanager
    def change(self) -> Iterator[Ledger]:
        """The ledger, under the lock; what was changed is written back."""
        with self._lock:
            ledger = self.read()
            yield ledger
            partial = self.path.with_suffix(".new")
            partial.write_text(ledger.to_json())
            partial.replace(self.path)

    def read(self) -> Ledger:
        """The ledger as it was last written, without a lock."""
        try:
            return Ledger.from_json(self.path.read_text())
        except FileNotFoundError:
            return Ledger()
