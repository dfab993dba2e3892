"""The ledger of a memory budget: running and waiting workers, in one small JSON file under one lock."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from filelock import FileLock, Timeout

from pytest_panic_doctor.compute.memory import start_time
from pytest_panic_doctor.errors import Stopped

LOCK_POLL = 0.002
"""Seconds between two attempts to lock, which is held for about a millisecond; filelock's default is 0.05."""


class LedgerLockedError(Exception):
    """Raised when the ledger's lock was not free in time: its holder may be paused."""


@dataclass(frozen=True, slots=True)
class ProcessIdentity:
    """A process, identified by pid and start time because pids are reused."""

    pid: int
    started: float

    @classmethod
    def of(cls, pid: int) -> ProcessIdentity:
        """Identity of the process that has this pid now."""
        return cls(pid, start_time(pid))

    @property
    def alive(self) -> bool:
        """Whether this process still runs."""
        return self.started > 0 and start_time(self.pid) == self.started


@dataclass(slots=True)
class Lease:
    """A grant of memory.

    Attributes:
        owner: The worker.
        ticket: Position in the queue, kept while it waits again.
        child: Process id of the child; 0 before it is known.
        grant: Bytes to which the child may grow.
        label: Name of the diagram.
        points: Number of points.
        since: When it was admitted (epoch, s).
        stage: What the child does.
        progress: How far it is in this stage, such as `H2, column 1,204 of 1,862`; empty if the engine reports nothing.
        resident: Bytes of the child when they were last reported.
        ended: Whether the child was ended to free memory; its worker restarts it when it can run alone.
    """

    owner: ProcessIdentity
    ticket: int
    child: int
    grant: int
    label: str
    points: int
    since: float
    stage: str = ""
    progress: str = ""
    resident: int = 0
    ended: bool = False


@dataclass(slots=True)
class Waiting:
    """A worker waiting for memory, first come first served by ticket."""

    owner: ProcessIdentity
    ticket: int


@dataclass(slots=True)
class Ledger:
    """All that the processes of a session share about memory.

    Attributes:
        processes: Processes whose memory counts, by pid.
        workers: Processes that compute diagrams, by pid.
        holders: Grants in use, by key.
        waiting: Workers waiting for a grant, by key.
        ticket: The last ticket given out.
        done: Number of diagrams computed.
    """

    processes: dict[str, ProcessIdentity] = field(default_factory=dict)
    workers: dict[str, ProcessIdentity] = field(default_factory=dict)
    holders: dict[str, Lease] = field(default_factory=dict)
    waiting: dict[str, Waiting] = field(default_factory=dict)
    ticket: int = 0
    done: int = 0

    @classmethod
    def from_json(cls, text: str) -> Ledger:
        """Parse the text of `to_json`, leaving out dead processes."""
        plain = json.loads(text)
        for part in ("holders", "waiting"):
            for each in plain[part].values():
                each["owner"] = ProcessIdentity(**each["owner"])
        return cls(
            living(plain["processes"]),
            living(plain["workers"]),
            {key: Lease(**each) for key, each in plain["holders"].items() if each["owner"].alive},
            {key: Waiting(**each) for key, each in plain["waiting"].items() if each["owner"].alive},
            plain["ticket"],
            plain["done"],
        )

    def to_json(self) -> str:
        """Text of the ledger's file."""
        return json.dumps(asdict(self))

    def lease(self, key: str) -> Lease:
        """The grant with this key; raises `Stopped` if the ledger was removed, which means the end of the session."""
        try:
            return self.holders[key]
        except KeyError:
            raise Stopped("the session's folder is gone") from None


def living(plain: Mapping[str, Mapping[str, float]]) -> dict[str, ProcessIdentity]:
    """The processes of a part of the ledger's file, without dead ones."""
    found = {key: ProcessIdentity(int(each["pid"]), each["started"]) for key, each in plain.items()}
    return {key: each for key, each in found.items() if each.alive}


class LedgerFile:
    """The ledger on disk. If a writer dies, the last complete ledger remains and the kernel frees the lock."""

    def __init__(self, directory: Path) -> None:
        """Create the folder if missing."""
        directory.mkdir(parents=True, exist_ok=True)
        self.path = directory / "ledger.json"
        self._lock = FileLock(directory / "ledger.lock")

    @contextmanager
    def change(self, seconds: float | None = None) -> Iterator[Ledger]:
        """Lock the ledger and read it; changes are written at the end of the context.

        Args:
            seconds: How long to wait for the lock; None to wait without limit.

        Raises:
            Stopped: The folder is gone: the controller removes it at the end of the session.
            LedgerLockedError: The lock was not free in time.
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
        """Read the ledger as it was last written, without a lock."""
        try:
            return Ledger.from_json(self.path.read_text())
        except FileNotFoundError:
            return Ledger()

    @property
    def version(self) -> tuple[int, int]:
        """Value that differs after each change; takes microseconds."""
        try:
            status = self.path.stat()
        except FileNotFoundError:
            return 0, 0
        return status.st_mtime_ns, status.st_ino
