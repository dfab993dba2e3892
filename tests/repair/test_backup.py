"""The copy before the first write: complete under its own name, or not there at all."""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
from collections import namedtuple
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_panic_doctor.errors import BadOption
from pytest_panic_doctor.repair import RepairRefused, backup
from pytest_panic_doctor.repair.backup import MOST_RESTARTS, make_backup
from pytest_panic_doctor.repair.journal.preflight import MARGIN

if TYPE_CHECKING:
    from small_database import SmallDatabase

Usage = namedtuple("Usage", "total used free")


def content(path: Path) -> list[str]:
    with closing(sqlite3.connect(path)) as db:
        return list(db.iterdump())


def beside(path: Path) -> set[str]:
    return {each.name for each in path.parent.iterdir()}


@pytest.fixture
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """One page a step, so that even a small file takes several."""
    monkeypatch.setattr(backup, "STEP_BYTES", 1)


@pytest.mark.parametrize("mode", ["delete", "wal"])
@pytest.mark.usefixtures("small_steps")
def test_the_copy_is_the_database(small_database: SmallDatabase, tmp_path: Path, mode: str) -> None:
    with closing(sqlite3.connect(small_database.path)) as db:
        db.execute(f"PRAGMA journal_mode = {mode}")
    small_database.path.chmod(0o640)
    target = tmp_path / "copy.sqlite"
    steps: list[tuple[float, float]] = []

    def report(what: str, done: float, of: float) -> None:
        assert what == "copying the database"
        assert not target.exists()
        steps.append((done, of))

    before = content(small_database.path)
    size = make_backup(small_database.path, target, report)
    assert size == target.stat().st_size == steps[-1][0] == steps[-1][1]
    assert len(steps) > 2
    assert content(target) == before == content(small_database.path)
    assert target.stat().st_mode & 0o777 == 0o640
    assert not [name for name in beside(target) if name.startswith(".doctor")]


def test_nothing_is_replaced(small_database: SmallDatabase, tmp_path: Path) -> None:
    path = small_database.path
    there = tmp_path / "there.sqlite"
    there.write_text("mine")
    link = tmp_path / "link.sqlite"
    link.symlink_to(path)
    left = tmp_path / "left.sqlite-journal"
    left.write_text("hot")
    (tmp_path / "other.doctor.sqlite").write_text("a journal")
    for target, why in (
        (there, "exists, and a backup replaces nothing"),
        (tmp_path, "exists, and a backup replaces nothing"),
        (path, "is the database itself"),
        (link, "is the database itself"),
        (path.with_name("trajectory_data.doctor.sqlite"), "is the doctor's journal"),
        (Path(f"{path}-wal"), "is SQLite's own"),
        (tmp_path / "left.sqlite", "left.sqlite-journal exists"),
        (tmp_path / "none" / "x.sqlite", "has no folder"),
        (tmp_path / "other.sqlite", "the journal .* of another database"),
    ):
        with pytest.raises(BadOption, match=why):
            make_backup(path, target)
    assert there.read_text() == "mine"


def test_a_full_disk_is_seen_before(
    small_database: SmallDatabase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = small_database.path.stat().st_size + MARGIN - 1
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10**12, 10**12 - free, free))
    names = beside(small_database.path)
    with pytest.raises(RepairRefused, match=r"has .* free, and the backup needs"):
        make_backup(small_database.path, tmp_path / "copy.sqlite")
    assert beside(small_database.path) == names


@pytest.mark.usefixtures("small_steps")
def test_a_copy_that_fails_leaves_nothing(small_database: SmallDatabase, tmp_path: Path) -> None:
    before, names = content(small_database.path), beside(small_database.path)

    def full(_: str, done: float, of: float) -> None:
        if done > of / 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(RepairRefused, match=r"No space left on device.*nothing was repaired"):
        make_backup(small_database.path, tmp_path / "copy.sqlite", full)
    assert beside(small_database.path) == names
    assert content(small_database.path) == before


@pytest.mark.usefixtures("small_steps")
def test_a_file_that_appears_during_the_copy_stays(small_database: SmallDatabase, tmp_path: Path) -> None:
    target = tmp_path / "copy.sqlite"

    def appear(*_: object) -> None:
        target.write_text("mine")

    with pytest.raises(RepairRefused, match=r"File exists"):
        make_backup(small_database.path, target, appear)
    assert target.read_text() == "mine"


def write_while(path: Path, times: int) -> backup.Report:
    """Write to the database from another connection after each of the first steps of a copy."""
    left = [times]

    def report(_: str, done: float, of: float) -> None:
        if left[0] and done < of:
            left[0] -= 1
            with closing(sqlite3.connect(path)) as db, db:
                db.execute("UPDATE run SET seed = seed + 1")

    return report


@pytest.mark.usefixtures("small_steps")
def test_a_copy_is_consistent_while_another_program_writes(small_database: SmallDatabase, tmp_path: Path) -> None:
    target = tmp_path / "copy.sqlite"
    make_backup(small_database.path, target, write_while(small_database.path, MOST_RESTARTS))
    assert content(target) == content(small_database.path), "it began again, and has all that was written"
    with pytest.raises(RepairRefused, match=rf"began again {MOST_RESTARTS + 1} times"):
        make_backup(small_database.path, tmp_path / "two.sqlite", write_while(small_database.path, 1000))
    assert not (tmp_path / "two.sqlite").exists()


@pytest.mark.usefixtures("small_steps")
def test_in_wal_mode_the_copy_is_of_the_moment_it_began(small_database: SmallDatabase, tmp_path: Path) -> None:
    with closing(sqlite3.connect(small_database.path)) as db:
        db.execute("PRAGMA journal_mode = wal")
    before = content(small_database.path)
    make_backup(small_database.path, tmp_path / "copy.sqlite", write_while(small_database.path, 1000))
    assert content(tmp_path / "copy.sqlite") == before != content(small_database.path)


@pytest.mark.usefixtures("small_steps")
def test_a_lock_that_stays_ends_the_copy(
    small_database: SmallDatabase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backup, "BACKUP_LOCK_TIMEOUT", 0.2)
    target = tmp_path / "copy.sqlite"
    with closing(sqlite3.connect(small_database.path, isolation_level=None)) as other:

        def lock(*_: object) -> None:
            if not other.in_transaction:
                other.execute("BEGIN EXCLUSIVE")

        with pytest.raises(RepairRefused, match=r"keeps trajectory_data.sqlite locked"):
            make_backup(small_database.path, target, lock)
    assert not target.exists()
