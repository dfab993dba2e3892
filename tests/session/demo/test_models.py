"""The models: the research tool's schema, the same as the light list of columns, and apart from a host's models."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest
from pydantic import ValidationError
from sqlalchemy import UniqueConstraint, create_engine
from sqlmodel import SQLModel

from pytest_panic_doctor.database.schema import TABLES, UNIQUE
from pytest_panic_doctor.session.demo.models import Base, PersistenceDiagram

DIAGRAM = {"id": "1", "run_id": "2", "embedding_model": "Nomic"}
HOST = """
from sqlmodel import Field, SQLModel
class Run(SQLModel, table=True):
    id: int = Field(primary_key=True)
from pytest_panic_doctor.session.demo import models
from sqlalchemy.orm import configure_mappers
configure_mappers()
assert list(Run.metadata.tables) == ["run"] and list(Run.metadata.tables["run"].columns.keys()) == ["id"]
Run(id=1), models.Run(id="1")
"""


def declared(path: Path) -> dict[tuple[str, str], str | None]:
    """The SQL of each table and index, word for word."""
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as db:
        return {(kind, name): sql for kind, name, sql in db.execute("SELECT type, name, sql FROM sqlite_master")}


def test_the_models_make_the_research_tools_schema_word_for_word(tmp_path: Path, shared_data: Path) -> None:
    engine = create_engine(f"sqlite:///{tmp_path / 'x.sqlite'}")
    Base.metadata.create_all(engine)
    engine.dispose()
    assert declared(tmp_path / "x.sqlite") == declared(shared_data / "reference-healthy.sqlite")


def test_the_light_list_is_that_of_the_models() -> None:
    assert {name: tuple(table.columns.keys()) for name, table in Base.metadata.tables.items()} == dict(TABLES)


def test_the_models_constraints_are_among_those_that_the_doctor_looks_for() -> None:
    unique = {
        tuple(column.name for column in constraint.columns)
        for constraint in Base.metadata.tables["embedding"].constraints
        if isinstance(constraint, UniqueConstraint)
    }
    assert unique == set(UNIQUE["embedding"])


def test_the_models_keep_out_of_the_hosts_metadata() -> None:
    assert not set(TABLES) & set(SQLModel.metadata.tables)


def test_a_host_with_a_model_of_the_same_name_notices_nothing() -> None:
    done = subprocess.run([sys.executable, "-W", "error", "-c", HOST], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_times_are_naive() -> None:
    with pytest.raises(ValidationError, match="timezone"):
        PersistenceDiagram.model_validate({**DIAGRAM, "started_at": datetime(2025, 8, 12, tzinfo=UTC)})
    naive = datetime(2025, 8, 12)
    assert PersistenceDiagram.model_validate({**DIAGRAM, "started_at": naive}).started_at == naive
