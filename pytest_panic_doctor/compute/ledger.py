"""The ledger of a memory budget: who runs, and who waits, in one small JSON file under one lock."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from filelock import FileLock, Timeout

from pytest_panic_doctor.compute.memory import start_time
from pytest_panic_doctor.errors import Stopped

LOCK_POLL = 0.002
"""Seconds between two tries for the lock, which is held for a millisecond; filelock's own 0.05 would blind watchers."""


class LedgerLockedError(Exception):
    """The ledger's lock is another's for longer than one can wait: it may be held still."""


@dataclass(frozen=True, slots=True)
class ProcessIdentity:
    """A process, told by its start from a later one that gets the same number."""

    pid: int
    started: float

    @classmethod
    def of(cls, pid: int) -> ProcessIdentity:
        """The process that has this number now."""
        return cls(pid, start_time(pid))

    @property
    def alive(self) -> bool:
        """Whether that very process still runs."""
        return self.started > 0 and start_time(self.pid) == self.started


@dataclass(slots=True)
class Lease:
    """A grant: its worker, the child that may grow to `grant` bytes, and what it computes since when (epoch, s).

    `ended`: the child had to make room, and its worker begins again when it can run alone.
    """

    owner: ProcessIdentity
    ticket: int
    child: int
    grant: int
    label: str
    points: int
    since: float
    stage: str = ""
    resident: int = 0
    ended: bool = False


@dataclass(slots=True)
class Waiting:
    """One who waits for room; the lowest ticket is served first."""

    owner: ProcessIdentity
    ticket: int


@dataclass(slots=True)
class Ledger:
    """Everything that the processes of a session share about memory."""

    processes: dict[str, ProcessIdentity] = field(default_factory=dict)
    workers: dict[str, ProcessIdentity] = field(default_factory=dict)
    holders: dict[str, Lease] = field(default_factory=dict)
    waiting: dict[str, Waiting] = field(default_factory=dict)
    ticket: int = 0
    done: int = 0

    @classmethod
    def from_json(cls, text: str) -> Ledger:
        """The inverse of `to_json`, without those who died meanwhile."""
        plain = json.loads(text)
        ledger = cls(
            {key: ProcessIdentity(**each) for key, each in plain["processes"].items()},
            {key: ProcessIdentity(**each) for key, each in plain["workers"].items()},
            {
                key: Lease(**{**each, "owner": ProcessIdentity(**each["owner"])})
                for key, each in plain["holders"].items()
            },
            {key: Waiting(ProcessIdentity(**each["owner"]), each["ticket"]) for key, each in plain["waiting"].items()},
            plain["ticket"],
            plain["done"],
        )
        ledger.processes = {key: each for key, each in ledger.processes.items() if each.alive}
        ledger.workers = {key: each for key, each in ledger.workers.items() if each.alive}
        ledger.holders = {key: each for key, each in ledger.holders.items() if each.owner.alive}
        ledger.waiting = {key: each for key, each in ledger.waiting.items() if each.owner.alive}
        return ledger

    def to_json(self) -> str:
        """As the file holds it."""
        return json.dumps(asdict(self))

    def lease(self, key: str) -> Lease:
        """The grant of this key; raises `Stopped` where the ledger was cleared away from under its holder."""
        try:
            return self.holders[key]
        except KeyError:
            raise Stopped("the session's folder is gone") from None


class LedgerFile:
    """The ledger on disk. A writer that dies leaves the last whole ledger, and its lock to the kernel."""

    def __init__(self, directory: Path) -> None:
        """The folder is made where it is missing."""
        directory.mkdir(parents=True, exist_ok=True)
        self.path = directory / "ledger.json"
        self._lock = FileLock(directory / "ledger.lock")

    @contextmanager
    def change(self, seconds: float | None = None) -> Iterator[Ledger]:
        """The ledger, under the lock; what was changed is written back.

        Raises `Stopped` where the folder is gone: the controller clears it away when the session is over. Raises `Busy`
        where the lock was not free within `seconds`; None: it is waited for.
        """
        if not self.path.parent.is_dir():
            raise Stopped("the session's folder is gone")
        try:
            lock = self._lock.acquire(-1 if seconds is None else seconds, poll_interval=LOCK_POLL)
        except Timeout:
            raise LedgerLockedError from None
        with lock:
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

    @property
    def version(self) -> tuple[int, int]:
        """What differs after every change, and costs microseconds."""
        try:
            status = self.path.stat()
        except FileNotFoundError:
            return 0, 0
        return status.st_mtime_ns, status.st_ino
