"""Describes the databases of the research tool's Elixir version, since February 2026: Ecto's tables."""

from __future__ import annotations

import re
import sqlite3
import time
from datetime import UTC, datetime
from secrets import randbits

from pytest_panic_doctor.database.generation import (
    Codec,
    ColumnSource,
    Generation,
    SchemaVersion,
    Succession,
    TableSchema,
)
from pytest_panic_doctor.database.schema import columns, columns_of_table, tables_of_file
from pytest_panic_doctor.database.spelling import dashed

VERSIONS = (
    20260202074101,
    20260207043602,
    20260207053414,
    20260207065950,
    20260327035722,
    20260519064359,
    20260519233115,
)
"""The tool's migrations: the n-th creates schema n."""

STAMPS = ("updated_at TEXT NOT NULL", "inserted_at TEXT NOT NULL")
TIMES = (*STAMPS, "completed_at TEXT", "started_at TEXT NOT NULL")
MAKERS = frozenset(
    (
        *("SD35Medium", "ZImageTurbo", "Flux2Klein", "Flux2Dev", "HunyuanImage", "GLMImage", "DummyT2I", "DummyT2I2"),
        *("Moondream", "Qwen25VL", "Gemma3n", "Pixtral", "LLaMA32Vision", "Florence2", "DummyI2T", "DummyI2T2"),
    )
)
"""Models that the tool supports now; others were retired."""

TYPE = "CASE {0} WHEN 'text' THEN 'TEXT' WHEN 'image' THEN 'IMAGE' ELSE '?' || {0} END"
"""SQL that converts a type. Types are in lower case here; any other value, such as one in upper case, stays invalid."""

RUN_ANEW = (
    "regenerate the run in a new experiment, since the research tool regenerates no single run: mix experiment.run "
    "CONFIG.json"
)
REMEDIES = {
    "schema": "migrate the file with any of the research tool's mix tasks, for example mix experiment.list",
    "experiment-missing": "name the right database, or run an experiment: mix experiment.run CONFIG.json",
    "experiment-runs": "run the experiment again: mix experiment.run CONFIG.json (mix experiment.resume cannot add a "
    "run beside longer ones)",
    "embedding-model": "correct the experiment's row, or the embeddings, by hand; for a model that was added later: "
    "mix experiment.resume --force with the experiment's id",
    "embedding-width": "embed one of the experiments again: mix embeddings.recompute --model MODEL --experiment ID",
    "embedding-exact": "embed again: mix embeddings.recompute --model MODEL --experiment ID",
    "cluster-consistent": "cluster again: mix cluster.recompute",
    **dict.fromkeys(
        (
            *("invocation-sequence", "invocation-output", "invocation-chain", "invocation-model", "invocation-seed"),
            "output-plausible",
        ),
        RUN_ANEW,
    ),
}
"""What a person does about the rules without repair, by the tasks of this generation's tool."""

NEWER = "newer than this doctor knows: a newer doctor may know more of it"
OLDER = "older than the research tool's newest: any of its mix tasks migrates the file"


def schema_version(db: sqlite3.Connection) -> SchemaVersion:
    """Find the schema by the migrations that Ecto recorded, or by the columns if it recorded none."""
    version = 0
    if "schema_migrations" in tables_of_file(db):
        found = db.execute("SELECT max(version) FROM main.schema_migrations WHERE typeof(version) = 'integer'")
        version = int(found.fetchone()[0] or 0)
    if version > VERSIONS[-1]:
        return SchemaVersion(len(VERSIONS), str(version), NEWER)
    number = sum(each <= version for each in VERSIONS) or by_columns(db)
    return SchemaVersion(number, str(VERSIONS[number - 1]), "" if number == len(VERSIONS) else OLDER)


def by_columns(db: sqlite3.Connection) -> int:
    """Find the schema by the columns of the file."""
    experiments = column_names(db, "experiments")
    clusterings = column_names(db, "clustering_results")
    if "seeds" in experiments:
        return 2 if "experiment_id" in clusterings else 1
    if "network" in experiments:
        return 3
    if "layer" in clusterings:
        return 6 if "experiment_id" in clusterings else 7
    return 5 if column_names(db, "lyapunov_results") else 4


def migrated_at(db: sqlite3.Connection, number: int) -> str:
    """When a migration ran, as Ecto wrote it down: to the second, without a zone; empty where it did not."""
    if "inserted_at" not in column_names(db, "schema_migrations"):
        return ""
    found = db.execute("SELECT inserted_at FROM main.schema_migrations WHERE version = ?", (VERSIONS[number - 1],))
    return str((found.fetchone() or ("",))[0] or "")


def column_names(db: sqlite3.Connection, table: str) -> set[str]:
    """Names of a table's columns in lower case."""
    return {name.lower() for name in columns_of_table(db, table)}


def refusal(db: sqlite3.Connection) -> str:
    """Refuse schemas 1 to 3: they were used for days, and the tool cannot migrate them if they hold rows."""
    if column_names(db, "experiments") & {"seeds", "network"}:
        return (
            "has a schema of 2 to 7 February 2026, which the research tool itself cannot migrate where it holds rows: "
            "make its experiments anew with the tool of today"
        )
    return ""


def new_id() -> str:
    """Create a UUIDv7 of RFC 9562 as the tool does: milliseconds, 12 bits of their fraction, then random bits."""
    millis, rest = divmod(time.time_ns(), 1_000_000)
    number = millis << 80 | 7 << 76 | (4096 * rest // 1_000_000) << 64 | 2 << 62 | randbits(62)
    return dashed(f"{number:032x}")


def time_of_id(text: str) -> float | None:
    """The time in an id of the tool: its first 48 bits are milliseconds since 1970."""
    found = re.fullmatch(r"([0-9a-f]{8})-([0-9a-f]{4})-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", text)
    return int(found[1] + found[2], 16) / 1000 if found else None


def stamp(moment: datetime) -> str:
    """Write a time as Ecto stores it: UTC, with microseconds."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def codec() -> Codec:
    """The codec of this generation: Erlang terms."""
    from pytest_panic_doctor.database import elixir_payload

    return elixir_payload


ELIXIR = Generation(
    key="elixir",
    name="the Elixir generation",
    tables=(
        TableSchema(
            "experiments",
            "experimentconfig",
            columns(
                *STAMPS,
                "completed_at TEXT",
                "started_at TEXT",
                "max_length INTEGER NOT NULL",
                "embedding_models TEXT NOT NULL",
                "prompts TEXT NOT NULL",
                "id TEXT NOT NULL",
                "num_runs INTEGER NOT NULL",
                "networks TEXT NOT NULL",
            ),
            sources={"seeds": ColumnSource(None)},
        ),
        TableSchema(
            "runs",
            "run",
            columns(
                "experiment_id TEXT NOT NULL",
                *STAMPS,
                "initial_prompt TEXT NOT NULL",
                "max_length INTEGER NOT NULL",
                "network TEXT NOT NULL",
                "id TEXT NOT NULL",
                "run_number INTEGER NOT NULL",
            ),
            unique=((("experiment_id", "network", "initial_prompt", "run_number"), 4),),
            sources={"seed": ColumnSource(None, "-1")},
        ),
        TableSchema(
            "invocations",
            "invocation",
            columns(
                "input_invocation_id TEXT",
                "run_id TEXT NOT NULL",
                *TIMES,
                "output_image BLOB",
                "output_text TEXT",
                "sequence_number INTEGER NOT NULL",
                "type TEXT NOT NULL",
                "model TEXT NOT NULL",
                "id TEXT NOT NULL",
            ),
            unique=((("run_id", "sequence_number"), 2),),
            sources={
                "seed": ColumnSource(None, "-1"),
                "output_image_data": ColumnSource("output_image"),
                "type": ColumnSource("type", TYPE),
            },
        ),
        TableSchema(
            "embeddings",
            "embedding",
            columns(
                "invocation_id TEXT NOT NULL",
                *TIMES,
                "vector BLOB NOT NULL",
                "embedding_model TEXT NOT NULL",
                "id TEXT NOT NULL",
            ),
            unique=((("invocation_id", "embedding_model"), 1),),
        ),
        TableSchema(
            "persistence_diagrams",
            "persistencediagram",
            columns(
                "run_id TEXT NOT NULL",
                *TIMES,
                "diagram_data BLOB",
                "embedding_model TEXT NOT NULL",
                "id TEXT NOT NULL",
            ),
            unique=((("run_id", "embedding_model"), 1),),
        ),
        TableSchema(
            "lyapunov_results",
            "lyapunovresult",
            columns(
                "experiment_id TEXT NOT NULL",
                *TIMES,
                "lyapunov_data BLOB",
                "prompt TEXT NOT NULL",
                "network TEXT NOT NULL",
                "embedding_model TEXT NOT NULL",
                "id TEXT NOT NULL",
            ),
            unique=((("experiment_id", "network", "prompt", "embedding_model"), 5),),
            since=5,
        ),
        TableSchema(
            "clustering_results",
            "clusteringresult",
            columns(
                *TIMES,
                "parameters TEXT",
                "algorithm TEXT NOT NULL",
                "embedding_model TEXT NOT NULL",
                "id TEXT NOT NULL",
                "layer INTEGER NOT NULL",
                since={"layer": 6},
            ),
            unique=((("embedding_model", "algorithm", "layer"), 7),),
            sources={"created_at": ColumnSource("inserted_at")},
        ),
        TableSchema(
            "embedding_clusters",
            "embeddingcluster",
            columns(
                "medoid_embedding_id TEXT",
                "clustering_result_id TEXT NOT NULL",
                "embedding_id TEXT NOT NULL",
                *STAMPS,
                "id TEXT NOT NULL",
            ),
            unique=((("embedding_id", "clustering_result_id"), 1),),
        ),
    ),
    references=(
        ("invocations", "run_id", "runs"),
        ("persistence_diagrams", "run_id", "runs"),
        ("lyapunov_results", "experiment_id", "experiments"),
        ("embeddings", "invocation_id", "invocations"),
        ("embedding_clusters", "embedding_id", "embeddings"),
        ("embedding_clusters", "medoid_embedding_id", "embeddings"),
        ("embedding_clusters", "clustering_result_id", "clustering_results"),
    ),
    succession=Succession("invocations", "input_invocation_id", "sequence_number", enforced=True),
    schema_version=schema_version,
    refusal=refusal,
    codec=codec,
    new_id=new_id,
    time_of_id=time_of_id,
    stamp=stamp,
    time_format="YYYY-MM-DDTHH:MM:SS.ffffffZ",
    id_pattern=re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"),
    stamped_on_insert=("inserted_at", "updated_at"),
    stamped_on_update=("updated_at",),
    seeded=False,
    dashed_ids=True,
    id_of=dashed,
    image_formats=("AVIF", "WEBP"),
    resume="mix experiment.resume",
    remedies=REMEDIES,
    commands={
        "regenerate": "mix experiment.run CONFIG.json",
        "embed": "mix embeddings.recompute",
        "cluster": "mix cluster.recompute",
    },
    makers=MAKERS,
    retires_models=True,
    migrated_at=migrated_at,
)
