"""Atomic file writes."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path

import pytest
from user_files import LAB, ROOT_ONLY, as_second, mounted, shared

from pytest_panic_doctor.database.files import (
    atomic_write,
    check_writable,
    check_writable_in_place,
    create_like,
    safe_file_name,
)


def write(path: Path, text: str = "after", like: Path | None = None) -> None:
    with atomic_write(path, like) as partial:
        partial.write_text(text)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_it_takes_the_place_of_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text("before")
    with atomic_write(path) as partial:
        partial.write_text("after")
        assert path.read_text() == "before"
    assert path.read_text() == "after"
    assert list(tmp_path.iterdir()) == [path]


def test_what_fails_leaves_no_part_behind(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text("before")

    def fail() -> None:
        with atomic_write(path) as partial:
            partial.write_text("half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", ["Nomic", "a/../b", "模型" * 100, "a\0b", "x" * 300, ".", "*?["])
def test_any_name_can_be_part_of_a_file_name(tmp_path: Path, name: str) -> None:
    path = tmp_path / f"{safe_file_name(name)}-{safe_file_name(name)}.json"
    path.touch()
    assert list(tmp_path.glob(f"{safe_file_name(name)}-*.json")) == [path]
    assert safe_file_name(name) != safe_file_name(name + "x")


def test_what_a_link_leads_to_is_replaced_and_the_link_stays(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    link = tmp_path / "link.json"
    link.symlink_to("b/x.json")
    write(link, "first")
    write(link)
    assert link.is_symlink()
    assert (tmp_path / "b" / "x.json").read_text() == "after"
    assert list((tmp_path / "b").iterdir()) == [tmp_path / "b" / "x.json"]


@pytest.mark.parametrize("bits", [0o600, 0o664, 0o644, 0o444, 0o755])
def test_a_file_keeps_its_mode(tmp_path: Path, bits: int) -> None:
    path = tmp_path / "x.json"
    path.touch()
    path.chmod(bits)
    write(path, like=tmp_path)
    assert mode(path) == bits


@pytest.mark.parametrize(("bits", "expected"), [(0o600, 0o600), (0o664, 0o664), (0o444, 0o644), (0o775, 0o664)])
def test_a_new_file_takes_after_the_database(tmp_path: Path, bits: int, expected: int) -> None:
    database = tmp_path / "x.sqlite"
    database.touch()
    database.chmod(bits)
    write(tmp_path / "x.json", like=database)
    create_like(tmp_path / "lock", database)
    assert (mode(tmp_path / "x.json"), mode(tmp_path / "lock")) == (expected, expected)
    (tmp_path / "lock").write_text("held")
    create_like(tmp_path / "lock", database)
    assert (tmp_path / "lock").read_text() == "held"


@ROOT_ONLY
def test_a_file_keeps_its_owner_and_its_group(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.touch()
    os.chown(path, 1, LAB)
    write(path)
    write(tmp_path / "new.json", like=path)
    for each in (path, tmp_path / "new.json"):
        assert (each.stat().st_uid, each.stat().st_gid) == (1, LAB)


@pytest.mark.parametrize("length", [248, 255])
def test_a_long_name_is_written(tmp_path: Path, length: int) -> None:
    path = tmp_path / ("x" * (length - 5) + ".json")
    check_writable(path)
    write(path)
    assert list(tmp_path.iterdir()) == [path]


def test_a_mounted_file_is_written_in_place(tmp_path: Path) -> None:
    path, outside = tmp_path / "x.json", tmp_path / "outside"
    path.touch()
    outside.write_text("much longer than what comes after")
    with mounted(outside, path):
        check_writable(path)
        write(path)
        assert path.read_text() == "after"
    assert outside.read_text() == "after"
    assert sorted(tmp_path.iterdir()) == [outside, path]


def test_a_device_stays_one(tmp_path: Path) -> None:
    (tmp_path / "x.json").symlink_to("/dev/null")
    check_writable(tmp_path / "x.json")
    write(tmp_path / "x.json")
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)
    (tmp_path / "y.json").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left"):
        write(tmp_path / "y.json")


def test_what_cannot_be_written_is_told_before(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    cases = ["missing/x.json", "x" * 256 + ".json", "file/x.json"]
    for name in cases:
        for check in (check_writable, check_writable_in_place, write):
            with pytest.raises(OSError, match=r"No such file|too long|Not a directory"):
                check(tmp_path / name)
    with pytest.raises(IsADirectoryError):
        check_writable_in_place(tmp_path)
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]


PROGRAM = """
import sys
from pathlib import Path
from pytest_panic_doctor.database.files import atomic_write, check_writable
try:
    check_writable(Path(sys.argv[1]))
    with atomic_write(Path(sys.argv[1]), Path("x.sqlite")) as partial:
        partial.write_text("after")
except OSError as error:
    print(type(error).__name__)
"""


@ROOT_ONLY
def test_a_second_user_writes_what_the_group_may_write(tmp_path: Path) -> None:
    folder = shared(tmp_path / "lab")
    (folder / "x.sqlite").touch()
    (folder / "x.sqlite").chmod(0o664)
    assert as_second(["-c", PROGRAM, "r.json"], folder).stdout == ""
    found = (folder / "r.json").stat()
    assert (stat.S_IMODE(found.st_mode), found.st_gid, found.st_uid) == (0o664, LAB, 65534)


@ROOT_ONLY
@pytest.mark.parametrize(
    ("folder_mode", "file_mode", "said"),
    [
        (0o755, 0o666, ""),
        (0o1777, 0o666, ""),
        (0o755, 0o644, "PermissionError\n"),
        (0o1777, 0o644, "PermissionError\n"),
        (0o755, None, "PermissionError\n"),
    ],
    ids=["file writable", "sticky", "neither", "sticky, another's", "no file"],
)
def test_in_a_folder_of_others(tmp_path: Path, folder_mode: int, file_mode: int | None, said: str) -> None:
    """A writable file is written in place and keeps its owner; others are refused before."""
    folder = tmp_path / "theirs"
    folder.mkdir()
    path = folder / "r.json"
    if file_mode is not None:
        path.write_text("before")
        path.chmod(file_mode)
    folder.chmod(folder_mode)
    done = as_second(["-c", PROGRAM, path], folder)
    assert (done.stdout, done.stderr) == (said, "")
    with suppress(FileNotFoundError):
        assert path.read_text() == ("before" if said else "after")
        assert path.stat().st_uid == 0
    assert [each.name for each in folder.iterdir()] == ([] if file_mode is None else ["r.json"])
