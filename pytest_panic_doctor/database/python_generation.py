"""Describes the databases of the research tool's Python version, until January 2026: the canonical tables."""

from __future__ import annotations

import re
import sqlite3
import time
from datetime import datetime
from secrets import randbits

from pytest_panic_doctor.database.generation import Codec, Generation, SchemaVersion, Succession, TableSchema
from pytest_panic_doctor.database.schema import CANONICAL, UNIQUE, tables_of_file


def schema_version(db: sqlite3.Connection) -> SchemaVersion:
    """Find the schema by Alembic's record; a file that the tool created, instead of migrating it, has none."""
    if "alembic_version" not in tables_of_file(db):
        return SchemaVersion(0, "")
    row = db.execute("SELECT max(version_num) FROM main.alembic_version").fetchone()
    return SchemaVersion(0, str(row[0] or ""))


def new_id() -> str:
    """Create an id as the research tool does, so that ids sort by time.

    The tool's UUIDv7 are those of the library `uuid7`, from the draft before RFC 9562: first 36 bits of seconds and 24
    of their fraction.
    """
    sixteens, rest = divmod(time.time_ns(), 16_000_000_000)
    high, rest = divmod(rest << 16, 16_000_000_000)
    low = (rest << 12) // 16_000_000_000
    return f"{sixteens:08x}{high:04x}{0x7000 | low:04x}{0x8000 | randbits(14):04x}{randbits(48):012x}"


def time_of_id(text: str) -> float | None:
    """The time in an id of the tool: its first 36 bits are seconds since 1970."""
    return int(text[:9], 16) if re.fullmatch(r"0[0-9a-f]{11}7[0-9a-f]{19}", text) else None


def stamp(moment: datetime) -> str:
    """Write a time as the database stores it: local, naive, with microseconds."""
    return moment.astimezone().strftime("%Y-%m-%d %H:%M:%S.%f")


def codec() -> Codec:
    """The codec of this generation: NumPy archives."""
    from pytest_panic_doctor.topology import payload

    return payload


PYTHON = Generation(
    key="python",
    name="the Python generation",
    tables=tuple(
        TableSchema(name, name, found, tuple((together, 1) for together in UNIQUE.get(name, ())))
        for name, found in CANONICAL.items()
    ),
    references=(
        ("invocation", "run_id", "run"),
        ("persistencediagram", "run_id", "run"),
        ("embedding", "invocation_id", "invocation"),
        ("embeddingcluster", "embedding_id", "embedding"),
        ("embeddingcluster", "medoid_embedding_id", "embedding"),
        ("embeddingcluster", "clustering_result_id", "clusteringresult"),
    ),
    succession=Succession("invocation", "input_invocation_id", "sequence_number", enforced=False),
    schema_version=schema_version,
    refusal=lambda _: "",
    codec=codec,
    new_id=new_id,
    time_of_id=time_of_id,
    stamp=stamp,
    id_pattern=re.compile(r"[0-9a-f]{32}"),
    commands={"regenerate": "panic-tda experiment perform CONFIG.json --db-path {database}"},
)
