"""Two users share a database in a folder of their group: what one makes, the other can use."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from databases import build, dump
from defects import plant
from pytest_runs import ALONE
from user_files import LAB, ROOT_ONLY, SECOND, as_second, shared

from pytest_panic_doctor.repair.journal.errors import RepairRefused
from pytest_panic_doctor.repair.journal.locks import RepairLock

pytestmark = pytest.mark.integration

DOCTOR = ["-m", "pytest", *ALONE, "-p", "no:cacheprovider", "--doctor-db=x.sqlite"]


def as_first(arguments: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """Run the doctor as who owns the file, with the umask that most have."""
    command = [sys.executable, *DOCTOR, *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, umask=0o022)


@ROOT_ONLY
@pytest.mark.parametrize("wal", [False, True], ids=["rollback", "wal"])
def test_what_one_makes_the_other_can_use(tmp_path: Path, wal: bool) -> None:
    folder = shared(tmp_path / "lab")
    built = build(folder / "x.sqlite", wal=wal)
    built.path.chmod(0o664)
    os.chown(built.path, 0, LAB)
    before = dump(built.path)
    plant(built, "diagram_of_lost_run")
    sick = dump(built.path)
    outputs = ["--doctor-report=r.json", "--doctor-report=r.jsonl"]
    done = as_first(["--doctor-fix", "--doctor-rule=orphan-diagram", *outputs], folder)
    assert done.returncode == 0, done.stdout + done.stderr
    assert dump(built.path) == before
    undone = as_second([*DOCTOR, "--doctor-undo", "all"], folder)
    assert undone.returncode == 0, undone.stdout + undone.stderr
    assert dump(built.path) == sick
    done = as_second([*DOCTOR, "--doctor-fix", "--doctor-rule=orphan-diagram", *outputs], folder)
    assert done.returncode == 0, done.stdout + done.stderr
    assert dump(built.path) == before
    assert as_first(["--doctor-undo", "all"], folder).returncode == 0
    for each in folder.iterdir():
        found = each.stat()
        assert (each.name, stat.S_IMODE(found.st_mode), found.st_gid) == (each.name, 0o664, LAB)
    assert (folder / "r.json").stat().st_uid == SECOND


@ROOT_ONLY
def test_what_another_keeps_for_himself_is_named_and_not_the_folder(tmp_path: Path) -> None:
    folder = shared(tmp_path / "lab")
    build(folder / "x.sqlite").path.chmod(0o666)
    (folder / "x.doctor.lock").touch(0o644)
    done = as_second([*DOCTOR, "--doctor-fix"], folder)
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert "x.doctor.lock cannot be opened by this user (Permission denied): make it writable for who" in done.stderr
    assert "directory" not in done.stderr


def test_a_lock_that_is_a_link_is_named(tmp_path: Path) -> None:
    built = build(tmp_path / "x.sqlite")
    (tmp_path / "x.doctor.lock").symlink_to("elsewhere")
    with pytest.raises(RepairRefused, match=r"x\.doctor\.lock is a symbolic link, which is not followed: delete it"):
        RepairLock(built.path).acquire()
