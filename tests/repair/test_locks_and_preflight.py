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
    RepairFailed,
    RepairLock,
    RepairRefused,
    Writer,
    finish,
    preflight,
    recover,
    repairs,
    undo,
)
from pytest_panic_doctor.repair.journal import opening

if TYPE_CHECKING:
    from small_database import SmallDatabase

ORPHANS = Rows(
    "run", "SELECT id FROM run r WHERE NOT EXISTS (SELECT 1 FROM experimentconfig e WHERE e.id = r.experiment_id)"
)
HOLDER = """
import sys, time
from pathlib import Path
from pytest_panic_doctor.repair import RepairLock
lock = RepairLock(Path(sys.argv[1])).acquire()
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


def test_second_doctor_is_refused_until_the_first_dies(small_database: SmallDatabase) -> None:
    first = hold(small_database.path)
    for _ in range(2):  # being refused takes nothing away from what the file says
        with pytest.raises(RepairRefused, match=rf"Another doctor .*\(pid {first.pid} on .+, since \d{{4}}-.*\): wait"):
            RepairLock(small_database.path).acquire()
    with pytest.raises(RepairRefused, match=f"pid {first.pid}"):
        undo(small_database.path, "all")
    first.send_signal(signal.SIGKILL)
    first.wait()
    with RepairLock(small_database.path):
        record = json.loads(small_database.path.with_name("trajectory_data.doctor.lock").read_text(encoding="utf-8"))
        assert record["pid"] == os.getpid()
    with RepairLock(small_database.path):
        pass


def test_two_names_of_one_file_have_one_lock(small_database: SmallDatabase, tmp_path: Path) -> None:
    alias = tmp_path / "elsewhere" / "alias.sqlite"
    alias.parent.mkdir()
    alias.symlink_to(small_database.path)
    with RepairLock(small_database.path), pytest.raises(RepairRefused, match=f"pid {os.getpid()}"):
        RepairLock(alias).acquire()


def test_lock_in_a_directory_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(RepairRefused, match=r"There is no directory .*nowhere"):
        RepairLock(tmp_path / "nowhere" / "t.sqlite").acquire()
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("journal_mode", ["delete", "wal"])
def test_healthy_file_passes_and_is_not_written(
    make: Callable[..., SmallDatabase], tmp_path: Path, journal_mode: str
) -> None:
    small_database = make(tmp_path / "t.sqlite", journal_mode=journal_mode)
    before = small_database.path.read_bytes()
    warnings = preflight(small_database.path, 1_000)
    assert recover(small_database.path) == []
    finish(small_database.path)
    assert small_database.path.read_bytes() == before
    assert not small_database.path.with_name("t.doctor.sqlite").exists()
    dangerous = journal_mode == "wal" and (3, 7, 0) <= sqlite3.sqlite_version_info <= (3, 51, 2)
    assert len(warnings) == int(dangerous)
    assert all(sqlite3.sqlite_version in warning for warning in warnings)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(RepairRefused, match="There is no database"):
        preflight(tmp_path / "none.sqlite", 0)


Usage = namedtuple("Usage", "total used free")


def test_no_room(small_database: SmallDatabase, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10**12, 10**12, 5 * 10**9))
    assert preflight(small_database.path, 4 * 10**9) == []
    with pytest.raises(
        RepairRefused, match=r"has 5,000,000,000 bytes free, and the repair needs 6,067,108,864: make room"
    ):
        preflight(small_database.path, 6 * 10**9)


def test_torn_file(small_database: SmallDatabase) -> None:
    data = bytearray(small_database.path.read_bytes())
    data[4096 * 30 : 4096 * 40] = b"\0" * 40_960
    small_database.path.write_bytes(data)
    with pytest.raises(RepairRefused, match="restore the file from a backup"):
        preflight(small_database.path, 0)
    assert small_database.path.read_bytes() == data


def test_no_database_at_all(small_database: SmallDatabase) -> None:
    small_database.path.write_bytes(b"a text, and not a short one\n" * 400)
    with pytest.raises(RepairRefused, match="restore it from a backup"):
        preflight(small_database.path, 0)


def test_trigger(small_database: SmallDatabase) -> None:
    small_database.do("CREATE TRIGGER greedy AFTER DELETE ON run BEGIN DELETE FROM embedding; END")
    with pytest.raises(RepairRefused, match="Table run has the trigger greedy"):
        preflight(small_database.path, 0)


def test_locked_by_another_program(small_database: SmallDatabase, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "OPEN_TIMEOUT", 0.1)
    with closing(small_database.connect()) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(RepairRefused, match="locked by another program"):
            preflight(small_database.path, 0)


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
def test_not_writable(make: Callable[..., SmallDatabase], what: str) -> None:
    place = Path("/tmp") / f"panic-doctor-{os.getpid()}-{time.monotonic_ns()}"
    place.mkdir(mode=0o755)
    try:
        small_database = make(place / "t.sqlite")
        small_database.path.chmod(0o644 if what == "file" else 0o666)
        package = place / "package"
        shutil.copytree(Path(__file__).parents[2] / "pytest_panic_doctor", package / "pytest_panic_doctor")
        done = subprocess.run(
            [sys.executable, "-c", READ_ONLY, str(small_database.path)],
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


def test_hot_journal_is_rolled_back(small_database: SmallDatabase) -> None:
    """A program died in the middle of a write; SQLite puts the file right as soon as it is opened for writing."""
    before = small_database.dump()
    code = (
        "import os, sqlite3, sys; db = sqlite3.connect(sys.argv[1], isolation_level=None);"
        " db.execute('PRAGMA cache_size = 1'); db.execute('BEGIN');"
        " db.execute('UPDATE embedding SET vector = zeroblob(3072)'); os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", code, str(small_database.path)], check=False)
    assert small_database.path.with_name("trajectory_data.sqlite-journal").exists()
    assert preflight(small_database.path, 0) == [
        "another program died while it wrote: SQLite rolled back what it had not committed"
    ]
    assert preflight(small_database.path, 0) == []
    assert not small_database.path.with_name("trajectory_data.sqlite-journal").exists()
    assert small_database.dump() == before


def operated(small_database: SmallDatabase) -> Path:
    """A database with a journal of one repair; returns the journal."""
    with closing(Writer(small_database.path, "s", lambda: True)) as writer:
        writer.quarantine("orphan-run", Subject(), ORPHANS)
    return small_database.path.with_name(f"{small_database.path.stem}.doctor.sqlite")


@pytest.mark.parametrize("damage", ["torn", "directory"])
def test_a_damaged_journal_is_not_laid_to_the_database(small_database: SmallDatabase, damage: str) -> None:
    journal = operated(small_database)
    data = journal.read_bytes()
    journal.unlink()
    if damage == "torn":
        journal.write_bytes(data[:4096] + bytes(4096) + data[8192:])
    else:
        journal.mkdir()
    with pytest.raises(RepairRefused, match=r"The journal .*doctor\.sqlite cannot be read by SQLite") as refusal:
        preflight(small_database.path, 0)
    assert "restore the journal from a backup" in str(refusal.value)


def test_a_lock_that_cannot_be_written_is_given_back(
    small_database: SmallDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", full)
        with pytest.raises(RepairRefused, match=r"cannot be written \(No space left on device\)"):
            RepairLock(small_database.path).acquire()
    with RepairLock(small_database.path):
        pass


def all_refuse(small_database: SmallDatabase, sentence: str) -> None:
    """Nothing that would write goes on, and nothing is changed."""
    before = small_database.dump()
    with pytest.raises(RepairRefused, match=sentence):
        preflight(small_database.path, 0)
    with pytest.raises(RepairRefused, match=sentence):
        recover(small_database.path)
    with pytest.raises(RepairRefused, match=sentence):
        repairs(small_database.path)
    with pytest.raises(RepairRefused, match=sentence):
        undo(small_database.path, "all")
    with (
        closing(Writer(small_database.path, "s", lambda: True)) as writer,
        pytest.raises(RepairRefused, match=sentence),
    ):
        writer.quarantine("r", Subject(), Rows("run", "SELECT id FROM run"))
    assert small_database.dump() == before


def test_newer_journal_is_refused(small_database: SmallDatabase) -> None:
    with closing(sqlite3.connect(operated(small_database))) as journal, journal:
        journal.execute("UPDATE schema_version SET version = 3")
    all_refuse(
        small_database, r"newer doctor \(its schema version is 3, this doctor knows 2\): update pytest-panic-doctor"
    )


def test_foreign_file_in_the_journals_place_is_refused(small_database: SmallDatabase) -> None:
    with closing(sqlite3.connect(small_database.path.with_name("trajectory_data.doctor.sqlite"))) as other, other:
        other.execute("CREATE TABLE something (id)")
    all_refuse(small_database, "is not a doctor's journal")
    small_database.path.with_name("trajectory_data.doctor.sqlite").write_bytes(b"no database" * 1000)
    all_refuse(small_database, "is not a doctor's journal")


def test_renamed_together_is_the_same_database(small_database: SmallDatabase, tmp_path: Path) -> None:
    before = small_database.dump()
    journal = operated(small_database)
    moved = type(small_database)(tmp_path / "moved" / "renamed.sqlite")
    moved.path.parent.mkdir()
    small_database.path.rename(moved.path)
    journal.rename(moved.path.with_name("renamed.doctor.sqlite"))
    undo(moved.path, "all")
    assert moved.dump() == before


def test_other_text_encoding(tmp_path: Path, at: Callable[[Path], SmallDatabase]) -> None:
    """SQLite attaches only databases of one encoding, so the journal takes over that of its database."""
    small_database = at(tmp_path / "t.sqlite")
    small_database.do("PRAGMA encoding = 'UTF-16be'")
    with closing(small_database.connect()) as db:
        db.execute("PRAGMA encoding = 'UTF-16be'")
        db.execute("CREATE TABLE run (id CHAR(32) PRIMARY KEY, name VARCHAR)")
        db.execute("INSERT INTO run VALUES ('a', 'é𝄞')")
    before = small_database.dump()
    with closing(Writer(small_database.path, "s", lambda: True)) as writer:
        writer.quarantine("r", Subject(), Rows("run", "SELECT id FROM run"))
    assert small_database.values("SELECT count(*) FROM run") == [0]
    undo(small_database.path, "all")
    assert small_database.dump() == before


@pytest.mark.parametrize("journal_mode", ["delete", "wal"])
def test_finish_checkpoints_once_and_keeps_the_mode(
    make: Callable[..., SmallDatabase], tmp_path: Path, journal_mode: str
) -> None:
    small_database = make(tmp_path / "t.sqlite", journal_mode=journal_mode)
    with closing(small_database.connect()) as other:
        other.execute("SELECT count(*) FROM run").fetchone()  # so that closing the writer does not checkpoint
        with closing(Writer(small_database.path, "s", lambda: True)) as writer:
            writer.quarantine("r", Subject(), Rows("embedding", "SELECT id FROM embedding"))
        log = small_database.path.with_name("t.sqlite-wal")
        assert (log.exists() and log.stat().st_size > 0) is (journal_mode == "wal")
        finish(small_database.path)
        assert not log.exists() or log.stat().st_size == 0
    assert small_database.values("PRAGMA journal_mode") == [journal_mode]


def test_journal_is_durable_before_the_database_changes(small_database: SmallDatabase) -> None:
    """When the database's COMMIT begins, a copy of the journal alone already has every row."""
    before = small_database.dump()
    copies: list[Path] = []

    class Watched(sqlite3.Connection):
        def execute(self, sql: str, parameters: object = (), /) -> sqlite3.Cursor:
            if sql.startswith("DELETE FROM main."):
                copy = small_database.path.parent / f"copy{len(copies)}" / "trajectory_data.doctor.sqlite"
                copy.parent.mkdir()
                shutil.copy(small_database.path.with_name(copy.name), copy)
                copies.append(copy.with_name(small_database.path.name))
                assert not copy.with_name(f"{copy.name}-journal").exists()
            return super().execute(sql, parameters)  # type: ignore[arg-type]

    with closing(Writer(small_database.path, "s", lambda: True, connection=Watched)) as writer:
        writer.quarantine("orphan-run", Subject(), ORPHANS)
    now = small_database.dump()
    lost = {(t, data) for t, rows in before.items() for _, data in rows} - {
        (t, data) for t, rows in now.items() for _, data in rows
    }
    assert len(lost) == 20
    assert type(small_database)(copies[0]).journalled() == lost


def test_journal_that_cannot_be_read_is_one_sentence(small_database: SmallDatabase) -> None:
    journal = operated(small_database)
    data = bytearray(journal.read_bytes())
    data[4096:] = os.urandom(len(data) - 4096)
    journal.write_bytes(data)
    with pytest.raises((RepairFailed, RepairRefused)):
        repairs(small_database.path)
