"""Each statement of a repair made to fail once, and disks that are really full: nothing lost, nothing half done."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import pytest

from pytest_panic_doctor.database.subject import Rows, Subject
from pytest_panic_doctor.repair import RepairError, RepairFailed, Writer, repairs, undo
from pytest_panic_doctor.repair.journal import locks, selection, transaction

if TYPE_CHECKING:
    from small_database import SmallDatabase

Faulty = Callable[..., type[sqlite3.Connection]]

ORPHANS = Rows(
    "run", "SELECT id FROM run r WHERE NOT EXISTS (SELECT 1 FROM experimentconfig e WHERE e.id = r.experiment_id)"
)
DIAGRAM = f"{5:04x}{0:028x}"
NEW: dict[str, int | float | str | bytes | None] = {
    "id": "f" * 32,
    "started_at": "2025-08-12 09:30:00.123456",
    "run_id": f"{2:04x}{1:028x}",
    "embedding_model": "NomicVision",
    "diagram_data": b"computed",
}
FAULTS = {
    "busy": (sqlite3.SQLITE_BUSY, False, 4),
    "full": (sqlite3.SQLITE_FULL, False, 2),
    "ioerr": (sqlite3.SQLITE_IOERR, False, 4),
    "ioerr-after": (sqlite3.SQLITE_IOERR, True, 1),
}
"""code, whether the statement is executed all the same, and every which statement fails."""


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a small quarantine has several transactions, with no pause for programs that are not there."""
    for bound in ("FIRST_ROWS", "MIN_ROWS", "MAX_ROWS", "MIN_SCANNED_ROWS"):
        monkeypatch.setattr(selection, bound, 12)
    monkeypatch.setattr(transaction, "CONTENDED", locks.WritePacing(write_for=0.0, yield_for=0.0))
    monkeypatch.setattr(transaction, "RETRY_DELAY", (0.0, 0.001))


def remove(path: Path, connection: type[sqlite3.Connection]) -> None:
    with closing(Writer(path, "s", lambda: True, connection=connection)) as writer:
        writer.quarantine("orphan-run", Subject(), ORPHANS)


def change(path: Path, connection: type[sqlite3.Connection]) -> None:
    with closing(Writer(path, "s", lambda: True, connection=connection)) as writer:
        writer.update(
            "diagram-valid", Subject(), "persistencediagram", DIAGRAM, {"diagram_data": b"new"}, lambda _: True
        )


def add(path: Path, connection: type[sqlite3.Connection]) -> None:
    with closing(Writer(path, "s", lambda: True, connection=connection)) as writer:
        writer.insert("diagram-missing", Subject(), "persistencediagram", NEW, lambda _: True)


def take_back(path: Path, connection: type[sqlite3.Connection]) -> None:
    undo(path, "all", connection=connection)


Act = Callable[[Path, type[sqlite3.Connection]], None]

CASES: dict[str, tuple[Act, Act | None]] = {
    "quarantine": (remove, None),
    "update": (change, None),
    "insert": (add, None),
    "undo of a quarantine": (take_back, remove),
    "undo of an update": (take_back, change),
    "undo of an insert": (take_back, add),
}
"""The repair that fails, and the one that is done before it."""


FAILING = [
    *(("python", case, fault) for case in CASES for fault in FAULTS),
    ("elixir", "quarantine", "ioerr"),
    *(
        pytest.param("elixir", case, fault, marks=pytest.mark.slow)
        for case in CASES
        for fault in FAULTS
        if (case, fault) != ("quarantine", "ioerr")
    ),
]
"""Of which generation the database is, the repair and the fault."""


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[Path]:
    """A directory in memory, where there is one: hundreds of repairs would spend their time in fsync."""
    place = Path("/dev/shm")
    if not place.is_dir():
        yield tmp_path
        return
    with TemporaryDirectory(dir=place) as made:
        yield Path(made)


def failed(repair: Act, path: Path, connection: type[sqlite3.Connection]) -> RepairError | None:
    """Whatever else a repair raises fails the test."""
    try:
        repair(path, connection)
    except RepairError as error:
        return error
    return None


@pytest.mark.parametrize("every", ["some", pytest.param("every", marks=pytest.mark.slow)])
@pytest.mark.parametrize(("generation", "case", "fault"), FAILING)
def test_each_statement_fails_once(
    make: Callable[..., SmallDatabase],
    faulty: Faulty,
    generation: str,
    case: str,
    fault: str,
    every: str,
    memory: Path,
) -> None:
    """Whatever fails, the repair exists as a whole step or not at all, and an undo finds everything."""
    code, after, stride = FAULTS[fault]
    if every == "every":
        stride = 1
    repair, first = CASES[case]
    small_database = make(memory / "trajectory_data.sqlite", lengths=(2, 1, 1, 5), generation=generation)
    original = small_database.dump()
    if first is not None:
        first(small_database.path, sqlite3.Connection)
    sick = small_database.dump()
    at, fired = 0, True
    while fired:
        here = memory / str(at) / small_database.path.name
        here.parent.mkdir()
        for file in small_database.path.parent.glob("trajectory_data.*"):
            shutil.copy(file, here.parent)
        copy = type(small_database)(here)
        broken = faulty(at, code, after=after)
        failure = failed(repair, here, broken)
        assert failure is None or (str(failure).endswith(".") and "\n" not in str(failure))
        copy.check_nothing_lost(original)
        copy.journal_agrees()
        if not repairs(here):
            assert copy.dump() == sick
        undo(here, "all")
        assert copy.dump() == original
        fired = broken.count > at  # type: ignore[attr-defined]
        shutil.rmtree(here.parent)
        at += stride
    assert at > 10


@pytest.mark.parametrize("commit", [3, 4], ids=["of the database", "of the mark in the journal"])
def test_commit_that_happened_all_the_same(small_database: SmallDatabase, commit: int) -> None:
    """An error after the commit: the rows are looked at, and the repair is what it is, applied."""

    class Late(sqlite3.Connection):
        commits = 0

        def execute(self, sql: str, parameters: object = (), /) -> sqlite3.Cursor:
            result = super().execute(sql, parameters)  # type: ignore[arg-type]
            Late.commits += sql == "COMMIT"
            if sql == "COMMIT" and Late.commits == commit:
                error = sqlite3.OperationalError("a fault of the test")
                error.sqlite_errorcode = sqlite3.SQLITE_IOERR
                raise error
            return result

    with closing(Writer(small_database.path, "s", lambda: True, connection=Late)) as writer:
        repair = writer.update("r", Subject(), "persistencediagram", DIAGRAM, {"diagram_data": b"new"}, lambda _: True)
    assert repair is not None
    assert (repair.status, repair.rows) == ("applied", 1)
    assert small_database.values("SELECT diagram_data FROM persistencediagram WHERE id = ?", DIAGRAM) == [b"new"]


def test_busy_once_is_no_failure(small_database: SmallDatabase, faulty: Faulty) -> None:
    statements = faulty(-1, sqlite3.SQLITE_OK)
    remove(small_database.path, statements)
    undo(small_database.path, "all")
    for at in range(0, statements.count, 7):  # type: ignore[attr-defined]
        remove(small_database.path, faulty(at, sqlite3.SQLITE_BUSY))
        assert small_database.values("SELECT count(*) FROM run WHERE id = ?", f"{2:04x}{3:028x}") == [0]
        undo(small_database.path, "all")


def limited(pages: int) -> type[sqlite3.Connection]:
    """A connection class whose files cannot grow beyond `pages`: SQLite's own SQLITE_FULL, at any write."""

    class Limited(sqlite3.Connection):
        def execute(self, sql: str, parameters: object = (), /) -> sqlite3.Cursor:
            result = super().execute(sql, parameters)  # type: ignore[arg-type]
            if sql.startswith("PRAGMA synchronous"):
                super().execute(f"PRAGMA max_page_count = {pages}")
            return result

    return Limited


@pytest.mark.parametrize("pages", [3, 12, 18, 22, 26, 30])
def test_full_journal(small_database: SmallDatabase, pages: int) -> None:
    original = small_database.dump()
    with pytest.raises(RepairFailed, match="Table run could not be written: the disk is full") as failure:
        remove(small_database.path, limited(pages))
    small_database.check_nothing_lost(original)
    done = repairs(small_database.path)
    assert ("rows were quarantined as repair 1" in str(failure.value)) is bool(done)
    undo(small_database.path, "all")
    assert small_database.dump() == original


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.strip()}")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_full_disk(small_database: SmallDatabase, small_disk: Path) -> None:
    path = small_disk / small_database.path.name
    shutil.copy(small_database.path, path)
    case = type(small_database)(path)
    original = case.dump()
    filler = small_disk / "filler"
    filler.write_bytes(b"x" * (shutil.disk_usage(small_disk).free - 80_000))
    with pytest.raises(RepairFailed, match="could not be written: the disk"):
        remove(path, sqlite3.Connection)
    case.check_nothing_lost(original)
    filler.unlink()
    remove(path, sqlite3.Connection)
    assert case.values("SELECT count(*) FROM run") == [3]
    undo(path, "all")
    assert case.dump() == original


LIMITED_PROCESS = """
import resource, sys, sqlite3
from pathlib import Path
from tempfile import TemporaryDirectory
from pytest_panic_doctor.repair import RepairFailed, Writer
from pytest_panic_doctor.database.subject import Rows, Subject
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    Writer(Path(sys.argv[1]), "s", lambda: True).quarantine("r", Subject(), Rows("run", "SELECT id FROM run"))
except RepairFailed as error:
    print(error)
"""


def test_file_size_limit(small_database: SmallDatabase) -> None:
    """A quota on the size of files: the database is larger already, and its journal cannot become so."""
    original = small_database.dump()
    done = subprocess.run(
        [sys.executable, "-c", LIMITED_PROCESS, str(small_database.path)],
        env={"PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith("Table run could not be written: the disk"), done
    small_database.check_nothing_lost(original)
    small_database.journal_agrees()
    assert small_database.dump() == original
