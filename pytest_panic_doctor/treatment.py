"""A session that repairs: what the controller holds, and what each process that runs items gets. Knows no pytest."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex

from filelock import FileLock, Timeout

from pytest_panic_doctor.doctor import Doctor
from pytest_panic_doctor.errors import Stopped
from pytest_panic_doctor.options import Settings
from pytest_panic_doctor.repair.embed import Embedder
from pytest_panic_doctor.repair.gate import DoctorLock
from pytest_panic_doctor.repair.preflight import finish, preflight, settle
from pytest_panic_doctor.repair.writer import Writer
from pytest_panic_doctor.store.session import header
from pytest_panic_doctor.surgery import OperatingSurgeon
from pytest_panic_doctor.topology.budget import Budget
from pytest_panic_doctor.topology.isolation import Computer
from pytest_panic_doctor.topology.memory import available

SHARE = 0.8
"""The part of the available memory that is used where `--doctor-memory` was not given."""

CLAIM_POLL = 0.2
"""Seconds between two looks whether the controller is still there."""


@dataclass(frozen=True, slots=True)
class Ward:
    """What all processes of one repairing session share: its id, a scratch folder, and a memory limit in bytes."""

    session: str
    scratch: Path
    memory: int
    controller: int

    def as_plain(self) -> dict[str, str | int]:
        """Plain values, for the way to an xdist worker."""
        return {
            "session": self.session,
            "scratch": str(self.scratch),
            "memory": self.memory,
            "controller": self.controller,
        }

    @classmethod
    def from_plain(cls, plain: dict[str, str | int]) -> Ward:
        """The inverse."""
        return cls(str(plain["session"]), Path(str(plain["scratch"])), int(plain["memory"]), int(plain["controller"]))

    def wanted(self) -> bool:
        """Whether the controller is still there: a worker that outlives it must not write again."""
        there = os.getpid() == self.controller or os.getppid() == self.controller
        return there and not self.stop_file.exists()

    @property
    def stop_file(self) -> Path:
        """What tells all processes of the session, by being there, that the user has stopped it."""
        return self.scratch / "stop"

    def budget(self) -> Budget:
        """The ledger of memory that all workers share."""
        return Budget(self.scratch / "budget", self.memory)

    @contextmanager
    def claim(self, name: str) -> Iterator[None]:
        """Hold `name` against the other workers; freed by the kernel when its holder dies. Raises `Stopped`."""
        folder = self.scratch / "claims"
        folder.mkdir(exist_ok=True)
        lock = FileLock(folder / f"{name.replace(os.sep, '_')}.lock")
        while True:
            try:
                lock.acquire(timeout=CLAIM_POLL)
                break
            except Timeout:
                if not self.wanted():
                    raise Stopped("the controller is gone") from None
        try:
            yield
        finally:
            lock.release()


class Treatment:
    """The controller's part: the doctor's lock from the first look to the last write, and the ward."""

    def __init__(self, settings: Settings) -> None:
        """Take the lock, settle what an interrupted repair left, and look whether the file may be written.

        Raises `Unreadable` and `RepairRefused`, in one sentence.
        """
        self.database = settings.database
        header(self.database)
        self.lock = DoctorLock(self.database)
        self.lock.acquire()
        try:
            self.warnings = preflight(self.database, needed_bytes=0)
            self.settled = settle(self.database)
        except BaseException:
            self.lock.release()
            raise
        memory = settings.memory or int(SHARE * available())
        scratch = Path(tempfile.mkdtemp(prefix="panic-doctor-"))
        self.ward = Ward(token_hex(8), scratch, memory, os.getpid())

    def close(self) -> None:
        """Checkpoint once, let go of the lock, and clear the scratch folder."""
        try:
            finish(self.database)
        finally:
            self.lock.release()
            shutil.rmtree(self.ward.scratch, ignore_errors=True)


def surgeon(doctor: Doctor, ward: Ward, embedder: Embedder, engine: Callable[[str], str]) -> OperatingSurgeon:
    """The surgeon of one process that runs items. `engine` finds an engine by the name that the user gave."""
    settings = doctor.settings
    made: list[Computer] = []

    def computer() -> Computer:
        if not made:
            threads = max(1, (os.cpu_count() or 1) // max(1, doctor.workers))
            made.append(
                Computer(
                    engine=engine(settings.engine),
                    threads=threads,
                    budget=ward.budget(),
                    timeout=settings.timeout,
                    wanted=ward.wanted,
                )
            )
        return made[0]

    def close() -> None:
        for each in made:
            each.close()

    return OperatingSurgeon(
        doctor.database,
        Writer(settings.database, ward.session, ward.wanted),
        computer,
        settings.kinds,
        embedder,
        ward.claim,
        settings.max_dim,
        closing=close,
    )
