"""The models: the research tool's schema, and the same as the light list of columns."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from sqlalchemy import create_engine
from sqlmodel import SQLModel

from pytest_panic_doctor.store.models import Base
from pytest_panic_doctor.store.schema import TABLES


def schema(path: Path) -> dict[str, object]:
    """Columns, indexes and references of each table."""
    db = sqlite3.connect(path)
    found: dict[str, object] = {}
    for (table,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
        indexes = [
            (name if not name.startswith("sqlite_autoindex") else "", unique, columns_of(db, name))
            for _, name, unique, *_ in db.execute(f"PRAGMA index_list({table})").fetchall()
        ]
        references = sorted(row[2:5] for row in db.execute(f"PRAGMA foreign_key_list({table})"))
        found[table] = (db.execute(f"PRAGMA table_info({table})").fetchall(), sorted(indexes), references)
    db.close()
    return found


def columns_of(db: sqlite3.Connection, index: str) -> tuple[str, ...]:
    return tuple(row[2] for row in db.execute(f'PRAGMA index_info("{index}")'))


def test_the_models_make_the_research_tools_schema(tmp_path: Path, shared_data: Path) -> None:
    engine = create_engine(f"sqlite:///{tmp_path / 'x.sqlite'}")
    Base.metadata.create_all(engine)
    engine.dispose()
    assert schema(tmp_path / "x.sqlite") == schema(shared_data / "reference-healthy.sqlite")


def test_the_light_list_is_that_of_the_models() -> None:
    assert {name: tuple(table.columns.keys()) for name, table in Base.metadata.tables.items()} == dict(TABLES)


def test_the_models_keep_out_of_the_hosts_metadata() -> None:
    assert not set(TABLES) & set(SQLModel.metadata.tables)
