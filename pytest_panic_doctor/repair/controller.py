"""A session that repairs: what the controller holds, and what each process that runs items gets. Knows no pytest."""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from secrets import token_hex

from filelock import FileLock, Timeout

from pytest_panic_doctor.compute.budget import Budget
from pytest_panic_doctor.compute.memory import available_memory
from pytest_panic_doctor.compute.small import SmallFirst
from pytest_panic_doctor.database.connection import read_file_header
from pytest_panic_doctor.database.files import atomic_write
from pytest_panic_doctor.database.integrity import FileDamage
from pytest_panic_doctor.database.interrupts import reraise_interrupts
from pytest_panic_doctor.database.subject import Subject
from pytest_panic_doctor.database.verification import WHOLE_FILE, found_once, verified_folder
from pytest_panic_doctor.errors import Stopped
from pytest_panic_doctor.examination.examination import Examination
from pytest_panic_doctor.examination.foreign_code import calling
from pytest_panic_doctor.examination.settings import Settings
from pytest_panic_doctor.repair.cluster.requests import DiagramRequests
from pytest_panic_doctor.repair.journal.errors import RepairError
from pytest_panic_doctor.repair.journal.locks import RepairLock
from pytest_panic_doctor.repair.journal.preflight import (
    ROLLED_BACK,
    check_room,
    finish,
    preflight,
    recover,
    roll_back_hot_journal,
)
from pytest_panic_doctor.repair.journal.repair_record import Repair
from pytest_panic_doctor.repair.journal.size import quarantine_size
from pytest_panic_doctor.repair.journal.undo import repairs
from pytest_panic_doctor.repair.journal.writer import Writer
from pytest_panic_doctor.repair.reembed import Trust
from pytest_panic_doctor.repair.repairer import DatabaseRepairer
from pytest_panic_doctor.repair.shared import ResultStore
from pytest_panic_doctor.rules.base import RepairKind, RuleContext, Scope
from pytest_panic_doctor.rules.embedder import Embedder

SHARE = 0.8
"""The part of the available memory that is used where `--doctor-memory` was not given."""

DIAGRAM_BYTES = 200_000
"""Bytes that a new diagram takes, in the database and once more in its rollback journal, from above."""

CLAIM_POLL = 0.2
"""Seconds between two looks whether the controller is still there."""


@dataclass(frozen=True, slots=True)
class RepairRun:
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
    def from_plain(cls, plain: dict[str, str | int]) -> RepairRun:
        """The inverse."""
        return cls(str(plain["session"]), Path(str(plain["scratch"])), int(plain["memory"]), int(plain["controller"]))

    def is_active(self) -> bool:
        """Whether the controller is still there: a worker that outlives it must not write again."""
        there = os.getpid() == self.controller or os.getppid() == self.controller
        return there and not self.stop_file.exists()

    @property
    def stop_file(self) -> Path:
        """What tells all processes of the session, by being there, that the user has stopped it."""
        return self.scratch / "stop"

    @property
    def rolled_back(self) -> Path:
        """What tells, by being there, that a process of the session let SQLite roll back another program's writes."""
        return self.scratch / "rolled-back"

    def recover(self, database: Path) -> None:
        """Let SQLite do that. Raises `Unreadable` where it cannot."""
        roll_back_hot_journal(database)
        self.rolled_back.touch()

    def budget(self) -> Budget:
        """The ledger of memory that all workers share."""
        return Budget(self.scratch / "budget", self.memory)

    def report_progress(self, rule: str, done: int, found: int) -> None:
        """Note how far a large quarantine is, for whoever shows the progress; nothing once it is done."""
        path = self.scratch / f"quarantine-{os.getpid()}"
        if done >= found:
            path.unlink(missing_ok=True)
            return
        with atomic_write(path) as partial:
            partial.write_text(f"{rule}: {done:,} of {found:,} rows quarantined")

    def progress_notes(self) -> list[str]:
        """How far the large quarantines are that run now."""
        found = []
        for path in self.scratch.glob("quarantine-*[0-9]"):
            with suppress(FileNotFoundError):
                found.append(path.read_text())
        return found

    @contextmanager
    def lock_target(self, name: str, *, wait: bool = True) -> Iterator[None]:
        """Hold `name` against the other workers; freed by the kernel when its holder dies.

        Raises `Stopped`; where it is not to `wait`, TimeoutError where another worker holds the name.
        """
        folder = self.scratch / "claims"
        folder.mkdir(exist_ok=True)
        lock = FileLock(folder / f"{name.replace(os.sep, '_')}.lock")
        while True:
            try:
                lock.acquire(timeout=CLAIM_POLL if wait else 0)
                break
            except Timeout:
                if not wait:
                    raise
                if not self.is_active():
                    raise Stopped("the controller is gone") from None
        try:
            yield
        finally:
            lock.release()


class RepairController:
    """The controller's part: the doctor's lock from the first look to the last write, and the ward."""

    def __init__(self, settings: Settings) -> None:
        """Take the lock, settle what an interrupted repair left, and look whether the file may be written.

        Raises `Unreadable` and `RepairRefused`, in one sentence.
        """
        self.database = settings.database
        read_file_header(self.database)
        self.lock = RepairLock(self.database)
        self.lock.acquire()
        try:
            self.warnings = preflight(self.database, needed_bytes=0)
            self.recovered = recover(self.database)
        except BaseException:
            self.lock.release()
            raise
        memory = settings.memory or int(SHARE * available_memory())
        scratch = Path(tempfile.mkdtemp(prefix="panic-doctor-"))
        self.run = RepairRun(token_hex(8), scratch, memory, os.getpid())
        found_once(verified_folder(scratch), WHOLE_FILE, FileDamage)

    def check_room(self, examination: Examination) -> None:
        """Look whether the disk has room for the new diagrams, and for the before-images of every orphan.

        Raises `RepairRefused`, in one sentence. What else is quarantined is not known before it is looked for; a disk
        that fills up then ends a repair, and loses nothing.
        """
        names = [
            rule
            for rule in examination.selected
            if rule.repair is RepairKind.QUARANTINE and rule.scope is Scope.DATABASE
        ]

        def weight(db: sqlite3.Connection) -> int:
            size = 0
            for rule in names:
                context = RuleContext(db, rule.id, Subject(), examination.settings.kinds)
                # A rule that cannot be asked repairs nothing; its item asks again, and says why.
                with suppress(Exception), reraise_interrupts(), calling(f"the rule {rule.id}", sqlite3.Error):
                    size += quarantine_size(db, [finding.rows for finding in rule.check(context) if finding.rows])[1]
            return size

        check_room(
            self.database.resolve(),
            examination.database.read(weight) + DIAGRAM_BYTES * len(examination.missing_diagrams),
        )

    def repairs(self) -> list[Repair]:
        """What this session has done, newest first; nothing where the journal cannot be read now."""
        try:
            return [each for each in repairs(self.database) if each.session == self.run.session]
        except RepairError:
            return []

    def finish(self) -> list[str]:
        """Checkpoint once, after the last repair; returns what is to be told, a sentence each.

        A checkpoint that has to wait loses nothing.
        """
        told = [ROLLED_BACK] if self.run.rolled_back.exists() else []
        try:
            finish(self.database)
        except RepairError as error:
            told.append(str(error))
        return told

    def close(self) -> None:
        """Let go of the lock, and clear the scratch folder."""
        self.lock.release()
        shutil.rmtree(self.run.scratch, ignore_errors=True)


def make_repairer(
    examination: Examination, repair_run: RepairRun, embedder: Embedder, engine: Callable[[str], str]
) -> DatabaseRepairer:
    """The surgeon of one process that runs items. `engine` finds an engine by the name that the user gave."""
    settings = examination.settings
    examination.database.recover = partial(repair_run.recover, settings.database)
    made: list[SmallFirst] = []

    def runner() -> SmallFirst:
        if not made:
            threads = max(1, (os.cpu_count() or 1) // max(1, examination.workers))
            made.append(
                SmallFirst(
                    engine=engine(settings.engine),
                    threads=threads,
                    budget=repair_run.budget(),
                    timeout=settings.timeout,
                    is_active=repair_run.is_active,
                    controller=repair_run.controller,
                )
            )
        return made[0]

    def close() -> None:
        for each in made:
            each.close()

    return DatabaseRepairer(
        examination.database,
        Writer(settings.database, repair_run.session, repair_run.is_active, space=examination.space),
        runner,
        settings.kinds,
        embedder,
        repair_run.lock_target,
        ResultStore(repair_run.scratch / "settled"),
        settings.max_dim,
        note=repair_run.report_progress,
        closing=close,
        requests=DiagramRequests(repair_run.scratch, repair_run.is_active) if settings.ray else None,
        trust=Trust(settings.embed_cosine),
        running=examination.running,
        most=settings.max_quarantine,
    )
