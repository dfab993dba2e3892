"""Holds what a repairing session needs: in the controller, and in each process that runs items. Imports no pytest."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import cache, partial
from pathlib import Path
from secrets import token_hex

from pytest_panic_doctor.compute.budget import Budget
from pytest_panic_doctor.compute.memory import available_memory
from pytest_panic_doctor.compute.small_clouds import SmallFirst
from pytest_panic_doctor.database.connection import Database, read_file_header
from pytest_panic_doctor.database.integrity import FileDamage
from pytest_panic_doctor.database.shared_folder import SharedFolder
from pytest_panic_doctor.database.verification import WHOLE_FILE, found_once
from pytest_panic_doctor.examination.examination import Examination
from pytest_panic_doctor.examination.settings import Settings
from pytest_panic_doctor.repair.backup import Report, make_backup
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
from pytest_panic_doctor.repair.journal.undo import repairs
from pytest_panic_doctor.repair.journal.writer import Writer
from pytest_panic_doctor.repair.recompute import RepairContext
from pytest_panic_doctor.repair.reembed import Trust
from pytest_panic_doctor.repair.repair_forecast import Outlook, look_ahead
from pytest_panic_doctor.repair.repairer import DatabaseRepairer
from pytest_panic_doctor.repair.result_store import ResultStore
from pytest_panic_doctor.rules.embedder import Embedder

SHARE = 0.8
"""The part of the available memory that is used if `--doctor-memory` is not given."""

STOPPED_NOTE, ROLLED_BACK_NOTE = "stop", "rolled-back"
"""Names of documents whose existence tells all processes what has happened."""


@dataclass(frozen=True, slots=True)
class RepairRun:
    """What all processes of a repairing session share.

    Attributes:
        session: The id of the session, which the journal records.
        scratch: The folder for shared files.
        memory: The limit for all computations, in bytes.
        controller: The pid of the controller.
    """

    session: str
    scratch: Path
    memory: int
    controller: int

    def as_plain(self) -> dict[str, str | int]:
        """Return plain values, to be sent to an xdist worker."""
        return asdict(self) | {"scratch": str(self.scratch)}

    @classmethod
    def from_plain(cls, plain: Mapping[str, str | int]) -> RepairRun:
        """Restore what `as_plain` returned."""
        return cls(str(plain["session"]), Path(str(plain["scratch"])), int(plain["memory"]), int(plain["controller"]))

    def is_active(self) -> bool:
        """Return whether the controller is alive and the session was not stopped; otherwise nothing may be written."""
        running = os.getpid() == self.controller or os.getppid() == self.controller
        return running and not SharedFolder(self.scratch).exists(STOPPED_NOTE)

    @property
    def shared(self) -> SharedFolder:
        """What the processes share in the scratch folder, apart from the memory budget."""
        return SharedFolder(self.scratch, self.is_active)

    def stop(self) -> None:
        """Tell all processes that the user has stopped the session."""
        self.shared.write(STOPPED_NOTE, {})

    @property
    def rolled_back(self) -> bool:
        """Whether a process let SQLite roll back another program's writes."""
        return self.shared.exists(ROLLED_BACK_NOTE)

    def recover(self, database: Path) -> None:
        """Let SQLite roll back what a dead program left in a database.

        Raises:
            Unreadable: SQLite cannot roll it back.
        """
        roll_back_hot_journal(database)
        self.shared.write(ROLLED_BACK_NOTE, {})

    def context(self, examination: Examination, database: Database) -> RepairContext:
        """Return what the repairs of one process share; `database` is what it reads."""
        settings = examination.settings
        writer = Writer(settings.database, self.session, self.is_active, space=examination.space)
        return RepairContext(database, writer, settings.kinds, examination.running, settings.max_dim)

    def budget(self) -> Budget:
        """Return the memory budget that all workers share."""
        return Budget(self.scratch / "budget", self.memory)

    def report_progress(self, rule: str, done: int, found: int) -> None:
        """Publish the progress of a large quarantine; the note is deleted when it is done."""
        name = f"progress/{os.getpid()}"
        if done >= found:
            self.shared.remove(name)
        else:
            self.shared.write(name, {"text": f"{rule}: {done:,} of {found:,} rows quarantined"})

    def progress_notes(self) -> list[str]:
        """Return the progress of the large quarantines that are running."""
        return [str(each["text"]) for each in self.shared.find("progress/*")]


class RepairController:
    """The controller's part of a repair: holds the lock of the database from the first read to the last write."""

    def __init__(self, settings: Settings, report: Report = lambda what, done, of: None) -> None:  # noqa: ARG005
        """Acquire the lock, check that the database may be written, copy it, and recover an interrupted repair.

        Args:
            settings: The user's choices.
            report: Called with the progress of what takes long.

        Raises:
            BadOption: The backup may not be written where it was asked for.
            Unreadable: The database cannot be read.
            RepairRefused: The database or its journal cannot be written, another session repairs it, or the backup
                failed.
        """
        self.outlook = Outlook()
        """What is known of the repairs before the items run."""
        self.database = settings.database
        read_file_header(self.database)
        self.lock = RepairLock(self.database)
        self.lock.acquire()
        try:
            self.warnings = preflight(self.database, needed_bytes=0)
            self.copied = make_backup(self.database, settings.backup, report) if settings.backup else 0
            self.recovered = recover(self.database)
        except BaseException:
            self.lock.release()
            raise
        memory = settings.memory or int(SHARE * available_memory())
        scratch = Path(tempfile.mkdtemp(prefix="panic-doctor-"))
        self.run = RepairRun(token_hex(8), scratch, memory, os.getpid())
        found_once(self.run.shared, WHOLE_FILE, FileDamage)

    def check_room(self, examination: Examination, report: Report = lambda what, done, of: None) -> None:  # noqa: ARG005
        """Look up what will be repaired, and check that the disk has room for the new diagrams and the before-images.

        The size of the quarantines that `known_before` leaves out is not known before the items run. If the disk fills
        up then, a repair ends without losing anything.

        Raises:
            RepairRefused: The disk is too full.
        """
        self.outlook = look_ahead(examination, self.run.scratch, report)
        check_room(self.database.resolve(), self.outlook.space)

    def repairs(self) -> list[Repair]:
        """Return the repairs of this session, newest first; an empty list if the journal cannot be read."""
        try:
            return [each for each in repairs(self.database) if each.session == self.run.session]
        except RepairError:
            return []

    def finish(self) -> list[str]:
        """Checkpoint the database after the last repair.

        Returns:
            Sentences for the user. A checkpoint that has to wait loses nothing.
        """
        sentences = [ROLLED_BACK] if self.run.rolled_back else []
        try:
            finish(self.database)
        except RepairError as error:
            sentences.append(str(error))
        return sentences

    def close(self) -> None:
        """Release the lock, and delete the scratch folder."""
        self.lock.release()
        shutil.rmtree(self.run.scratch, ignore_errors=True)


def make_repairer(
    examination: Examination, repair_run: RepairRun, embedder: Embedder, engine: Callable[[str], str]
) -> DatabaseRepairer:
    """Make the repairer of one process that runs items.

    Args:
        examination: The session's examination.
        repair_run: What the processes of the session share.
        embedder: Embeds outputs by a hook.
        engine: Returns the place of an engine, for the name that the user gave.
    """
    settings = examination.settings
    examination.database.recover = partial(repair_run.recover, settings.database)

    @cache
    def runner() -> SmallFirst:
        return SmallFirst(
            engine=engine(settings.engine),
            threads=max(1, (os.cpu_count() or 1) // max(1, examination.workers)),
            budget=repair_run.budget(),
            timeout=settings.timeout,
            is_active=repair_run.is_active,
            controller=repair_run.controller,
        )

    def close() -> None:
        if runner.cache_info().currsize:
            runner().close()

    return DatabaseRepairer(
        repair_run.context(examination, examination.database),
        runner,
        embedder,
        repair_run.shared.lock,
        ResultStore(repair_run.shared),
        note=repair_run.report_progress,
        closing=close,
        requests=DiagramRequests(repair_run.shared) if settings.ray else None,
        trust=Trust(settings.embed_cosine),
        most=settings.max_quarantine,
    )
