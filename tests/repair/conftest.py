"""A small real database to repair."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from small_database import SmallDatabase, build, build_elixir

from pytest_panic_doctor.repair import Writer

REPOSITORY = Path(__file__).parents[2]
SCRIPT = Path(__file__).with_name("repair_process.py")


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The database that each test gets a copy of."""
    path = tmp_path_factory.mktemp("patient") / "trajectory_data.sqlite"
    build(path)
    return path


@pytest.fixture
def small_database(template: Path, tmp_path: Path) -> SmallDatabase:
    """A copy of its own, in rollback journal mode."""
    path = tmp_path / template.name
    shutil.copy(template, path)
    return SmallDatabase(path)


@pytest.fixture
def writer(small_database: SmallDatabase) -> Iterator[Writer]:
    """A writer whose controller lives."""
    with closing(Writer(small_database.path, "session 1", lambda: True)) as made:
        yield made


@pytest.fixture
def make() -> Callable[..., SmallDatabase]:
    """Builds a database as `build` does, or `build_elixir`."""

    def made(
        path: Path,
        lengths: tuple[int, ...] = (9, 8, 7, 6),
        journal_mode: str = "delete",
        generation: str = "python",
    ) -> SmallDatabase:
        (build_elixir if generation == "elixir" else build)(path, lengths, journal_mode)
        return SmallDatabase(path)

    return made


@pytest.fixture
def repairer() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs `repair_process.py`, which does a fixed list of repairs, in a process of its own."""

    def run(*arguments: object, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, str(SCRIPT), *map(str, arguments)],
            env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    return run


@pytest.fixture
def faulty() -> Callable[..., type[sqlite3.Connection]]:
    """Makes connection classes of which one statement fails."""
    return failing


def failing(at: int, code: int, *, after: bool = False) -> type[sqlite3.Connection]:
    """A connection class whose statement number `at`, over all its connections, fails once with SQLite's `code`.

    `after`: the statement is executed all the same, as where the disk fails after it has written.
    The class counts its statements in `count`.
    """

    class Failing(sqlite3.Connection):
        count = 0

        def execute(self, sql: str, parameters: object = (), /) -> sqlite3.Cursor:
            return self._run(lambda: super(Failing, self).execute(sql, parameters))  # type: ignore[arg-type]

        def executemany(self, sql: str, parameters: object, /) -> sqlite3.Cursor:
            return self._run(lambda: super(Failing, self).executemany(sql, parameters))  # type: ignore[arg-type]

        def _run(self, statement: Callable[[], sqlite3.Cursor]) -> sqlite3.Cursor:
            Failing.count += 1
            if Failing.count != at + 1:
                return statement()
            if after:
                statement()
            error = sqlite3.OperationalError("a fault of the test")
            error.sqlite_errorcode = code
            raise error

    return Failing


@pytest.fixture(scope="session")
def at() -> Callable[[Path], SmallDatabase]:
    """A file that a test has put there itself."""
    return SmallDatabase
