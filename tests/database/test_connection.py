"""Reading a database: SQLite itself refuses to write, and no file is left behind."""

from __future__ import annotations

import hashlib
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from databases import build

from pytest_panic_doctor.database.connection import Database, Unreadable

SCHEMA = "CREATE TABLE run (id CHAR(32) PRIMARY KEY, network, seed, max_length, initial_prompt, experiment_id)"


def make(path: Path, mode: str = "delete", rows: int = 3) -> sqlite3.Connection:
    db = sqlite3.connect(path, isolation_level=None)
    db.execute(f"PRAGMA journal_mode = {mode}")
    db.execute(SCHEMA)
    for number in range(rows):
        db.execute("INSERT INTO run (id) VALUES (?)", (f"{number:032x}",))
    return db


def count(db: sqlite3.Connection) -> int:
    return int(db.execute("SELECT count(*) FROM run").fetchone()[0])


def state(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


def test_a_path_that_is_no_utf8_is_read(tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"\xff?%")
    folder.mkdir()
    make(folder / "x.sqlite").close()
    database = Database(folder / "x.sqlite")
    assert database.read(count) == 3
    database.close()


@pytest.fixture(params=["delete", "wal"])
def quiet(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A database that no program has open."""
    path = tmp_path / "x.sqlite"
    make(path, request.param).close()
    return path


def test_reading_changes_nothing_and_leaves_nothing(quiet: Path) -> None:
    before = state(quiet.parent)
    database = Database(quiet)
    database.check_readable()
    assert database.read(count) == 3
    assert state(quiet.parent) == before
    database.close()
    assert state(quiet.parent) == before


def test_sqlite_refuses_to_write(quiet: Path) -> None:
    database = Database(quiet)
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        database.read(lambda db: db.execute("DELETE FROM run"))
    database.close()


def test_a_read_only_folder_can_be_read(quiet: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from pytest_panic_doctor.database.connection import Database; "
        "d = Database(Path(sys.argv[1])); d.check_readable(); "
        "print(d.read(lambda db: db.execute('SELECT count(*) FROM run').fetchone()[0]))"
    )
    with read_only(quiet.parent) as command:
        python = [sys.executable, "-c", script, str(quiet)]
        done = subprocess.run([*command, *python], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "3", done.stderr


class read_only:  # noqa: N801 - reads as a word
    """A folder that cannot be written: by its mode, or as root by a read-only mount."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __enter__(self) -> list[str]:
        if os.geteuid() != 0:
            self.folder.chmod(0o555)
            return []
        mount = f"mount --bind {self.folder} {self.folder} && mount -o remount,bind,ro {self.folder}"
        able = ["unshare", "--mount", "sh", "-c", f'{mount} && exec "$@"', "sh"]
        if not shutil.which("unshare") or subprocess.run([*able, "true"], capture_output=True, check=False).returncode:
            pytest.skip("root cannot make a read-only mount here")
        return able

    def __exit__(self, *_: object) -> None:
        self.folder.chmod(0o755)


def test_a_live_wal_is_read_with_what_it_holds(tmp_path: Path) -> None:
    writer = make(tmp_path / "x.sqlite", "wal")
    assert (tmp_path / "x.sqlite-wal").stat().st_size > 0
    names = set(state(tmp_path))
    database = Database(tmp_path / "x.sqlite")
    assert database.read(count) == 3
    writer.execute("INSERT INTO run (id) VALUES ('new')")
    assert database.read(count) == 4
    database.close()
    assert set(state(tmp_path)) == names
    writer.close()


def test_a_wal_that_a_dead_program_left_is_read_and_left(tmp_path: Path) -> None:
    living = tmp_path / "living"
    living.mkdir()
    writer = make(living / "x.sqlite", "wal")
    left = tmp_path / "left"
    left.mkdir()
    for suffix in ("", "-wal"):
        shutil.copy(living / f"x.sqlite{suffix}", left / f"x.sqlite{suffix}")
    writer.close()
    before = state(left)
    database = Database(left / "x.sqlite")
    assert database.read(count) == 3
    database.close()
    assert state(left) == before


def test_somebody_who_opens_it_meanwhile_is_noticed(tmp_path: Path) -> None:
    make(tmp_path / "x.sqlite", "wal").close()
    database = Database(tmp_path / "x.sqlite")
    assert database.read(count) == 3
    writer = sqlite3.connect(tmp_path / "x.sqlite", isolation_level=None)
    writer.execute("INSERT INTO run (id) VALUES ('new')")
    assert database.read(count) == 4
    database.close()
    writer.close()


def test_somebody_who_writes_during_a_read_makes_it_be_repeated(tmp_path: Path) -> None:
    make(tmp_path / "x.sqlite", "wal").close()
    database = Database(tmp_path / "x.sqlite")
    seen: list[int] = []

    def look(db: sqlite3.Connection) -> int:
        if not seen:
            with sqlite3.connect(tmp_path / "x.sqlite") as other:
                other.execute("INSERT INTO run (id) VALUES ('new')")
            other.close()
        seen.append(count(db))
        return seen[-1]

    assert database.read(look) == 4
    assert len(seen) == 2
    database.close()


def test_no_transaction_is_open_between_reads(quiet: Path) -> None:
    database = Database(quiet)
    connections = [database.read(lambda db: db) for _ in range(2)]
    assert not any(db.in_transaction for db in connections)
    database.close()


def test_text_that_is_no_utf8_does_not_stop_a_read(quiet: Path) -> None:
    with sqlite3.connect(quiet) as writer:
        writer.execute("UPDATE run SET initial_prompt = CAST(x'ff41' AS TEXT)")
    writer.close()
    database = Database(quiet)
    prompts = database.read(lambda db: db.execute("SELECT initial_prompt FROM run").fetchall())
    assert prompts[0][0] == "\\xffA"
    database.close()


@pytest.fixture
def exclusive(tmp_path: Path) -> Iterator[Path]:
    """A database that another program holds locked."""
    db = make(tmp_path / "x.sqlite")
    db.execute("BEGIN EXCLUSIVE")
    yield tmp_path / "x.sqlite"
    db.close()


def test_a_locked_database_is_said_to_be_locked(exclusive: Path) -> None:
    with pytest.raises(Unreadable, match="is locked by another program"):
        Database(exclusive, timeout=0.1).check_readable()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "there is no database"),
        (b"", "is empty"),
        (b"hello, this is a text file\n" * 10, "is not an SQLite database"),
        (b"SQLite format 3\x00", "is not an SQLite database"),
        (b"SQLite format 3\x00\x10\x00\x03\x03" + b"\x00" * 100, "newer than this doctor knows"),
        (b"SQLite format 3\x00\x10\x00\x01\x01" + b"\xff" * 5000, "cannot be read by SQLite"),
    ],
)
def test_what_is_no_database_is_named(tmp_path: Path, content: bytes | None, said: str) -> None:
    path = tmp_path / "x.sqlite"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(Unreadable, match=said) as caught:
        Database(path).check_readable()
    assert "\n" not in str(caught.value)


def test_a_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(Unreadable, match="is a directory"):
        Database(tmp_path).check_readable()


def test_a_foreign_database_is_named(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "x.sqlite") as db:
        db.execute("CREATE TABLE cats (name)")
    db.close()
    with pytest.raises(Unreadable, match="not a trajectory database"):
        Database(tmp_path / "x.sqlite").check_readable()


def test_a_newer_schema_is_refused(quiet: Path) -> None:
    with sqlite3.connect(quiet) as db:
        db.execute("PRAGMA user_version = 7")
    db.close()
    with pytest.raises(Unreadable, match="schema version 7"):
        Database(quiet).check_readable()


def test_a_hot_journal_is_named(tmp_path: Path) -> None:
    path = tmp_path / "x.sqlite"
    make(path, rows=2000).close()
    script = (
        "import os, sqlite3, sys; db = sqlite3.connect(sys.argv[1], isolation_level=None); "
        "db.execute('PRAGMA cache_size = 1'); db.execute('BEGIN'); db.execute(\"UPDATE run SET seed = 'x'\"); "
        "os._exit(9)"
    )
    subprocess.run([sys.executable, "-c", script, path], check=False)
    assert path.with_name("x.sqlite-journal").exists()
    with pytest.raises(Unreadable, match="hot journal"):
        Database(path).check_readable()


@pytest.mark.parametrize("late", [False, True], ids=["before it is opened", "after"])
def test_a_value_above_the_limit_is_refused_unread(tmp_path: Path, late: bool) -> None:
    built = build(tmp_path / "x.sqlite")
    with built.open() as db:
        db.execute("UPDATE persistencediagram SET diagram_data = zeroblob(2000000)")
    database = Database(built.path)
    if late:
        database.read(lambda db: db.execute("SELECT 1").fetchall())
    database.largest = 1_000_000
    with pytest.raises(sqlite3.DataError, match="too big"):
        database.read(lambda db: db.execute("SELECT diagram_data FROM persistencediagram").fetchall())
    kinds = "SELECT DISTINCT typeof(diagram_data), length(diagram_data) FROM persistencediagram"
    assert database.read(lambda db: db.execute(kinds).fetchall()) == [("blob", 2_000_000)]
    database.close()
