"""Builds the demo database: small, seeded, and with defects that `--doctor-fix` can all repair."""

from __future__ import annotations

import json
import os
import sqlite3
from contextlib import closing
from pathlib import Path

from pytest_panic_doctor.database.elixir_generation import ELIXIR
from pytest_panic_doctor.database.python_generation import PYTHON
from pytest_panic_doctor.errors import DoctorError
from pytest_panic_doctor.repair.journal.errors import RepairError
from pytest_panic_doctor.repair.journal.locks import RepairLock
from pytest_panic_doctor.repair.journal.undo import repairs
from pytest_panic_doctor.session.demo.defects import Defect, plant
from pytest_panic_doctor.session.demo.elixir_defects import plant_elixir, record_migrations
from pytest_panic_doctor.session.demo.elixir_rows import ElixirBuilder
from pytest_panic_doctor.session.demo.rows import Builder
from pytest_panic_doctor.session.demo.tables import create_tables
from pytest_panic_doctor.topology.engines import load_engine

DATABASE = "trajectory_data.sqlite"
DEFECTS = "demo-defects.json"
MARK = ".made-by-pytest-panic-doctor"
"""A file that marks a folder as made by the demo."""

NEW = "trajectory_data.new.sqlite"
"""The name of the database until it is complete; the earlier demo stays until then."""

APPLICATION = 0x50444F43
"""SQLite's application id of a demo (https://www.sqlite.org/fileformat.html, offset 68; "PDOC").

The folder may have been made by the demo, and the database in it put there by the user since.
"""

JOURNALS = ("-journal", "-wal", "-shm")
"""The suffixes of SQLite's own files beside a database."""
LOCKS = ("trajectory_data.doctor.lock", "trajectory_data.doctor.write.lock")
"""The lock files of a demo."""
SIDECARS = tuple(
    f"{name}{ending}" for name in (DATABASE, NEW, "trajectory_data.doctor.sqlite") for ending in ("", *JOURNALS)
)
"""All files that a demo may have beside its database."""


class DemoRefused(DoctorError):
    """The demo would overwrite a file that it did not make, or cannot be written."""


def build(folder: Path, seed: int = 0, generation: str = PYTHON.key) -> Path:
    """Build the demo, and replace an earlier one atomically.

    Args:
        folder: The folder of the demo, created if it is missing.
        seed: Determines the captions; at least 0.
        generation: The generation of the research tool that the database is of, by its key.

    Returns:
        The path of the database.

    Raises:
        DemoRefused: The folder or the database in it was not made by the demo, or cannot be written.
        RepairRefused: A session is repairing the database.
    """
    refuse_strangers(folder)
    path = folder / DATABASE
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / MARK).write_text("made by pytest --doctor-demo; may be deleted\n", encoding="utf-8")
        with RepairLock(path):
            refuse_strangers(folder)
            replace(folder, seed, generation)
            # Under the lock: filelock sees that a file it waited for has lost its name, and begins anew.
            remove(folder, LOCKS)
    except (OSError, sqlite3.OperationalError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise DemoRefused(
            f"the demo cannot be written in {folder} ({reason}): make room there, or call from another folder"
        ) from error
    return path


def former(folder: Path) -> str:
    """Describe in one sentence what a new demo would replace; empty if there is no demo.

    Raises:
        DemoRefused: The folder or the database in it was not made by the demo.
    """
    refuse_strangers(folder)
    if not (folder / DATABASE).is_file():
        return ""
    try:
        done = sum(each.status == "applied" and each.undoes is None for each in repairs(folder / DATABASE))
        lost = f", and its {done:,} repairs with it" if done > 1 else ", and its repair with it" if done else ""
    except RepairError:
        lost = ", and its journal with it"
    return f"the former demo in {folder.name} was replaced{lost}"


def refuse_strangers(folder: Path) -> None:
    """Check that a folder is missing or empty, or was made by the demo and has no other database.

    Raises:
        DemoRefused: It is not.
    """
    if not (folder / MARK).is_file():
        if os.path.lexists(folder) and (not folder.is_dir() or any(folder.iterdir())):
            raise DemoRefused(
                f"{folder} is there and was not made by the demo: move it away, or call from another folder"
            )
        return
    path = folder / DATABASE
    if os.path.lexists(path) and not (path.is_file() and is_demo(path)):
        raise DemoRefused(f"{path} was not made by the demo: move it away, or call from another folder")


def is_demo(path: Path) -> bool:
    """Return whether the header of a file has the demo's application id."""
    with path.open("rb") as file:
        return file.read(100)[68:72] == APPLICATION.to_bytes(4, "big")


def replace(folder: Path, seed: int, generation: str) -> None:
    """Build the demo beside the earlier one, then replace that."""
    new = folder / NEW
    remove(folder, [name for name in SIDECARS if name.startswith(NEW)])
    write = {PYTHON.key: write_python, ELIXIR.key: write_elixir}[generation]
    with closing(sqlite3.connect(new, isolation_level=None)) as db:
        db.execute(f"PRAGMA application_id = {APPLICATION}")
        planted = write(db, seed)
        db.execute("COMMIT")
    remove(folder, [name for name in SIDECARS if name not in (DATABASE, NEW)])
    new.replace(folder / DATABASE)
    text = json.dumps([defect.as_dict() for defect in planted], indent=1)
    (folder / DEFECTS).write_text(text + "\n", encoding="utf-8")


def write_python(db: sqlite3.Connection, seed: int) -> list[Defect]:
    """Write the demo of the Python generation, with the one unique index that older files have; returns its defects."""
    db.execute("BEGIN")
    create_tables(db, PYTHON, unique=False)
    db.execute("CREATE UNIQUE INDEX unique_embedding ON embeddingcluster (embedding_id, clustering_result_id)")
    Builder(db, load_engine(), seed).build()
    return plant(db)


def write_elixir(db: sqlite3.Connection, seed: int) -> list[Defect]:
    """Write the demo of the Elixir generation; returns its defects."""
    record_migrations(db)
    db.execute("BEGIN")
    create_tables(db, ELIXIR)
    ElixirBuilder(db, load_engine(), seed).build()
    return plant_elixir(db)


def remove(folder: Path, names: list[str] | tuple[str, ...]) -> None:
    """Delete files of a folder; missing ones are ignored."""
    for name in names:
        (folder / name).unlink(missing_ok=True)
