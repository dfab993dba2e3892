"""Before the first write: one doctor a database, a file that can and may be written, a journal that is understood."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections import namedtuple
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_panic_doctor.database.subject import Rows, Subject
from pytest_panic_doctor.repair import (
    DoctorLock,
    RepairFailed,
    RepairRefused,
    Writer,
    finish,
    preflight,
    repairs,
    settle,
    undo,
)
from pytest_panic_doctor.repair import preflight as preflight_function

if TYPE_CHECKING:
    from small_database import Patient

ORPHANS = Rows(
    "run", "SELECT id FROM run r WHERE NOT EXISTS (SELECT 1 FROM experimentconfig e WHERE e.id = r.experiment_id)"
)
HOLDER = """
import sys, time
from pathlib import Path
from pytest_panic_doctor.repair import DoctorLock
lock = DoctorLock(Path(sys.argv[1])).acquire()
print("held", flush=True)
time.sleep(60)
"""


def hold(path: Path) -> subprocess.Popen[str]:
    """A doctor in another process, which holds the lock until it is killed."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)],
        env={"PYTHONPATH": str(Path(__file__).parents[2])},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    with process.stdout as output:
        assert output.readline() == "held\n"
    return process


def test_second_doctor_is_refused_until_the_first_dies(patient: Patient) -> None:
    first = hold(patient.path)
    for _ in range(2):  # being refused takes nothing away from what the file says
        with pytest.raises(RepairRefused, match=rf"Another doctor .*\(pid {first.pid} on .+, since \d{{4}}-.*\): wait"):
            DoctorLock(patient.path).acquire()
    with pytest.raises(RepairRefused, match=f"pid {first.pid}"):
        undo(patient.path, "all")
    first.send_signal(signal.SIGKILL)
    first.wait()
    with DoctorLock(patient.path):
        record = json.loads(patient.path.with_name("trajectory_data.doctor.lock").read_text(encoding="utf-8"))
        assert record["pid"] == os.getpid()
    with DoctorLock(patient.path):
        pass


def test_two_names_of_one_file_have_one_lock(patient: Patient, tmp_path: Path) -> None:
    alias = tmp_path / "elsewhere" / "alias.sqlite"
    alias.parent.mkdir()
    alias.symlink_to(patient.path)
    with DoctorLock(patient.path), pytest.raises(RepairRefused, match=f"pid {os.getpid()}"):
        DoctorLock(alias).acquire()


def test_lock_in_a_directory_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(RepairRefused, match=r"There is no directory .*nowhere"):
        DoctorLock(tmp_path / "nowhere" / "t.sqlite").acquire()
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("journal_mode", ["delete", "wal"])
def test_healthy_file_passes_and_is_not_written(
    make: Callable[..., Patient], tmp_path: Path, journal_mode: str
) -> None:
    patient = make(tmp_path / "t.sqlite", journal_mode=journal_mode)
    before = patient.path.read_bytes()
    warnings = preflight(patient.path, 1_000)
    assert settle(patient.path) == []
    finish(patient.path)
    assert patient.path.read_bytes() == before
    assert not patient.path.with_name("t.doctor.sqlite").exists()
    dangerous = journal_mode == "wal" and (3, 7, 0) <= sqlite3.sqlite_version_info <= (3, 51, 2)
    assert len(warnings) == int(dangerous)
    assert all(sqlite3.sqlite_version in warning for warning in warnings)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(RepairRefused, match="There is no database"):
        preflight(tmp_path / "none.sqlite", 0)


Usage = namedtuple("Usage", "total used free")


def test_no_room(patient: Patient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10**12, 10**12, 5 * 10**9))
    assert preflight(patient.path, 4 * 10**9) == []
    with pytest.raises(
        RepairRefused, match=r"has 5,000,000,000 bytes free, and the repair needs 6,067,108,864: make room"
    ):
        preflight(patient.path, 6 * 10**9)


def test_torn_file(patient: Patient) -> None:
    data = bytearray(patient.path.read_bytes())
    data[4096 * 30 : 4096 * 40] = b"\0" * 40_960
    patient.path.write_bytes(data)
    with pytest.raises(RepairRefused, match="restore the file from a backup"):
        preflight(patient.path, 0)
    assert patient.path.read_bytes() == data


def test_no_database_at_all(patient: Patient) -> None:
    patient.path.write_bytes(b"a text, and not a short one\n" * 400)
    with pytest.raises(RepairRefused, match="restore it from a backup"):
        preflight(patient.path, 0)


def test_trigger(patient: Patient) -> None:
    patient.do("CREATE TRIGGER greedy AFTER DELETE ON run BEGIN DELETE FROM embedding; END")
    with pytest.raises(RepairRefused, match="Table run has the trigger greedy"):
        preflight(patient.path, 0)


def test_locked_by_another_program(patient: Patient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[preflight_function.__module__], "PATIENCE", 0.6)
    with closing(patient.connect()) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(RepairRefused, match="locked by another program"):
            preflight(patient.path, 0)


READ_ONLY = """
import os, sys
from pathlib import Path
from pytest_panic_doctor.repair import RepairRefused, preflight
os.setuid(65534)
try:
    preflight(Path(sys.argv[1]), 0)
except RepairRefused as error:
    print(error)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become a user who may not write")
@pytest.mark.parametrize("what", ["file", "directory"])
def test_not_writable(make: Callable[..., Patient], what: str) -> None:
    place = Path("/tmp") / f"panic-doctor-{os.getpid()}-{time.monotonic_ns()}"
    place.mkdir(mode=0o755)
    try:
        patient = make(place / "t.sqlite")
        patient.path.chmod(0o644 if what == "file" else 0o666)
        package = place / "package"
        shutil.copytree(Path(__file__).parents[2] / "pytest_panic_doctor", package / "pytest_panic_doctor")
        done = subprocess.run(
            [sys.executable, "-c", READ_ONLY, str(patient.path)],
            env={"PYTHONPATH": f"{package}:{':'.join(sys.path)}"},
            capture_output=True,
            text=True,
            check=False,
        )
    finally:
        shutil.rmtree(place)
    if "PermissionError" in done.stderr or "No module named" in done.stderr:
        pytest.skip("this Python cannot be run by another user")
    assert "is not writable" in done.stdout, done.stderr
    assert ("The directory" in done.stdout) is (what == "directory")


def test_hot_journal_is_rolled_back(patient: Patient) -> None:
    """A program died in the middle of a write; SQLite puts the file right as soon as it is opened for writing."""
    before = patient.dump()
    code = (
        "import os, sqlite3, sys; db = sqlite3.connect(sys.argv[1], isolation_level=None);"
        " db.execute('PRAGMA cache_size = 1'); db.execute('BEGIN');"
        " db.execute('UPDATE embedding SET vector = zeroblob(3072)'); os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", code, str(patient.path)], check=False)
    assert patient.path.with_name("trajectory_data.sqlite-journal").exists()
    assert preflight(patient.path, 0) == [
        "another program died while it wrote: SQLite rolled back what it had not committed"
    ]
    assert preflight(patient.path, 0) == []
    assert not patient.path.with_name("trajectory_data.sqlite-journal").exists()
    assert patient.dump() == before


def operated(patient: Patient) -> Path:
    """A database with a journal of one repair; returns the journal."""
    with closing(Writer(patient.path, "s", lambda: True)) as writer:
        writer.quarantine("orphan-run", Subject(), ORPHANS)
    return patient.path.with_name(f"{patient.path.stem}.doctor.sqlite")


@pytest.mark.parametrize("damage", ["torn", "directory"])
def test_a_damaged_journal_is_not_laid_to_the_database(patient: Patient, damage: str) -> None:
    journal = operated(patient)
    data = journal.read_bytes()
    journal.unlink()
    if damage == "torn":
        journal.write_bytes(data[:4096] + bytes(4096) + data[8192:])
    else:
        journal.mkdir()
    with pytest.raises(RepairRefused, match=r"The journal .*doctor\.sqlite cannot be read by SQLite") as refusal:
        preflight(patient.path, 0)
    assert "restore the journal from a backup" in str(refusal.value)


def test_a_lock_that_cannot_be_written_is_given_back(patient: Patient, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", full)
        with pytest.raises(RepairRefused, match=r"cannot be written \(No space left on device\)"):
            DoctorLock(patient.path).acquire()
    with DoctorLock(patient.path):
        pass


def all_refuse(patient: Patient, sentence: str) -> None:
    """Nothing that would write goes on, and nothing is changed."""
    before = patient.dump()
    with pytest.raises(RepairRefused, match=sentence):
        preflight(patient.path, 0)
    with pytest.raises(RepairRefused, match=sentence):
        settle(patient.path)
    with pytest.raises(RepairRefused, match=sentence):
        repairs(patient.path)
    with pytest.raises(RepairRefused, match=sentence):
        undo(patient.path, "all")
    with closing(Writer(patient.path, "s", lambda: True)) as writer, pytest.raises(RepairRefused, match=sentence):
        writer.quarantine("r", Subject(), Rows("run", "SELECT id FROM run"))
    assert patient.dump() == before


def test_newer_journal_is_refused(patient: Patient) -> None:
    with closing(sqlite3.connect(operated(patient))) as journal, journal:
        journal.execute("UPDATE schema_version SET version = 3")
    all_refuse(patient, r"newer doctor \(its schema version is 3, this doctor knows 2\): update pytest-panic-doctor")


def test_foreign_file_in_the_journals_place_is_refused(patient: Patient) -> None:
    with closing(sqlite3.connect(patient.path.with_name("trajectory_data.doctor.sqlite"))) as other, other:
        other.execute("CREATE TABLE something (id)")
    all_refuse(patient, "is not a doctor's journal")
    patient.path.with_name("trajectory_data.doctor.sqlite").write_bytes(b"no database" * 1000)
    all_refuse(patient, "is not a doctor's journal")


def test_renamed_together_is_the_same_database(patient: Patient, tmp_path: Path) -> None:
    before = patient.dump()
    journal = operated(patient)
    moved = type(patient)(tmp_path / "moved" / "renamed.sqlite")
    moved.path.parent.mkdir()
    patient.path.rename(moved.path)
    journal.rename(moved.path.with_name("renamed.doctor.sqlite"))
    undo(moved.path, "all")
    assert moved.dump() == before


def test_other_text_encoding(tmp_path: Path, at: Callable[[Path], Patient]) -> None:
    """SQLite attaches only databases of one encoding, so the journal takes over that of its database."""
    patient = at(tmp_path / "t.sqlite")
    patient.do("PRAGMA encoding = 'UTF-16be'")
    with closing(patient.connect()) as db:
        db.execute("PRAGMA encoding = 'UTF-16be'")
        db.execute("CREATE TABLE run (id CHAR(32) PRIMARY KEY, name VARCHAR)")
        db.execute("INSERT INTO run VALUES ('a', 'é𝄞')")
    before = patient.dump()
    with closing(Writer(patient.path, "s", lambda: True)) as writer:
        writer.quarantine("r", Subject(), Rows("run", "SELECT id FROM run"))
    assert patient.values("SELECT count(*) FROM run") == [0]
    undo(patient.path, "all")
    assert patient.dump() == before


@pytest.mark.parametrize("journal_mode", ["delete", "wal"])
def test_finish_checkpoints_once_and_keeps_the_mode(
    make: Callable[..., Patient], tmp_path: Path, journal_mode: str
) -> None:
    patient = make(tmp_path / "t.sqlite", journal_mode=journal_mode)
    with closing(patient.connect()) as other:
        other.execute("SELECT count(*) FROM run").fetchone()  # so that closing the writer does not checkpoint
        with closing(Writer(patient.path, "s", lambda: True)) as writer:
            writer.quarantine("r", Subject(), Rows("embedding", "SELECT id FROM embedding"))
        log = patient.path.with_name("t.sqlite-wal")
        assert (log.exists() and log.stat().st_size > 0) is (journal_mode == "wal")
        finish(patient.path)
        assert not log.exists() or log.stat().st_size == 0
    assert patient.values("PRAGMA journal_mode") == [journal_mode]


def test_journal_is_durable_before_the_database_changes(patient: Patient) -> None:
    """When the database's COMMIT begins, a copy of the journal alone already has every row."""
    before = patient.dump()
    copies: list[Path] = []

    class Watched(sqlite3.Connection):
        def execute(self, sql: str, parameters: object = (), /) -> sqlite3.Cursor:
            if sql.startswith("DELETE FROM main."):
                copy = patient.path.parent / f"copy{len(copies)}" / "trajectory_data.doctor.sqlite"
                copy.parent.mkdir()
                shutil.copy(patient.path.with_name(copy.name), copy)
                copies.append(copy.with_name(patient.path.name))
                assert not copy.with_name(f"{copy.name}-journal").exists()
            return super().execute(sql, parameters)  # type: ignore[arg-type]

    with closing(Writer(patient.path, "s", lambda: True, connection=Watched)) as writer:
        writer.quarantine("orphan-run", Subject(), ORPHANS)
    now = patient.dump()
    lost = {(t, data) for t, rows in before.items() for _, data in rows} - {
        (t, data) for t, rows in now.items() for _, data in rows
    }
    assert len(lost) == 20
    assert type(patient)(copies[0]).journalled() == lost


def test_journal_that_cannot_be_read_is_one_sentence(patient: Patient) -> None:
    journal = operated(patient)
    data = bytearray(journal.read_bytes())
    data[4096:] = os.urandom(len(data) - 4096)
    journal.write_bytes(data)
    with pytest.raises((RepairFailed, RepairRefused)):
        repairs(patient.path)
