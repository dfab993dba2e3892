"""The small healthy database of `databases` as the tool's Elixir generation would have stored it.

A test writes it through views with the names, columns, ids and times of the Python generation, so that one kind of
damage is planted in either generation by the same statements.
"""

from __future__ import annotations

import functools
import io
import re
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
from databases import Built, build
from databases import template as python_template
from defect import Damage
from defects import DAMAGES

from pytest_panic_doctor.database import erlang_terms
from pytest_panic_doctor.database.elixir_generation import ELIXIR
from pytest_panic_doctor.database.elixir_payload import term_of
from pytest_panic_doctor.database.erlang_terms import Atom, Term
from pytest_panic_doctor.session.demo.elixir_defects import record_migrations
from pytest_panic_doctor.session.demo.tables import create_tables
from pytest_panic_doctor.topology import payload
from pytest_panic_doctor.topology.payload import PayloadError

Columns = dict[str, tuple[str, str]]
"""By the name of a column: that of the file, and how the value is written there."""

TIMES: Columns = {"started_at": ("started_at", "time"), "completed_at": ("completed_at", "time")}
ID: Columns = {"id": ("id", "uid")}

TABLES: Mapping[str, tuple[str, Columns]] = {
    "experimentconfig": (
        "experiments",
        ID
        | {
            "networks": ("networks", "plain"),
            "seeds": ("num_runs", "seeds"),
            "prompts": ("prompts", "plain"),
            "embedding_models": ("embedding_models", "plain"),
            "max_length": ("max_length", "plain"),
        }
        | TIMES,
    ),
    "run": (
        "runs",
        ID
        | {
            "network": ("network", "plain"),
            "seed": ("run_number", "seed"),
            "max_length": ("max_length", "plain"),
            "initial_prompt": ("initial_prompt", "plain"),
            "experiment_id": ("experiment_id", "uid"),
        },
    ),
    "invocation": (
        "invocations",
        ID
        | TIMES
        | {
            "model": ("model", "plain"),
            "type": ("type", "kind"),
            "seed": ("", "seed"),
            "run_id": ("run_id", "uid"),
            "sequence_number": ("sequence_number", "plain"),
            "input_invocation_id": ("input_invocation_id", "uid"),
            "output_text": ("output_text", "plain"),
            "output_image_data": ("output_image", "plain"),
        },
    ),
    "embedding": (
        "embeddings",
        ID
        | TIMES
        | {
            "invocation_id": ("invocation_id", "uid"),
            "embedding_model": ("embedding_model", "plain"),
            "vector": ("vector", "plain"),
        },
    ),
    "persistencediagram": (
        "persistence_diagrams",
        ID
        | TIMES
        | {
            "diagram_data": ("diagram_data", "term"),
            "run_id": ("run_id", "uid"),
            "embedding_model": ("embedding_model", "plain"),
        },
    ),
    "clusteringresult": (
        "clustering_results",
        ID
        | {"created_at": ("inserted_at", "time")}
        | TIMES
        | {
            "embedding_model": ("embedding_model", "plain"),
            "algorithm": ("algorithm", "plain"),
            "parameters": ("parameters", "plain"),
        },
    ),
    "embeddingcluster": (
        "embedding_clusters",
        ID
        | {
            "embedding_id": ("embedding_id", "uid"),
            "clustering_result_id": ("clustering_result_id", "uid"),
            "medoid_embedding_id": ("medoid_embedding_id", "uid"),
        },
    ),
}
"""The tables of the Python generation: that of the file, and the columns in the order of the Python generation."""

NOW = "'2025-08-12T10:00:00.000000Z'"


Value = str | bytes | int | float | None


def written_time(value: Value) -> Value:
    """A time as Ecto writes it; any other value stays."""
    found = re.fullmatch(r"(\d{4}-\d\d-\d\d) (\d\d:\d\d:\d\d\.\d{6})", value) if isinstance(value, str) else None
    return f"{found[1]}T{found[2]}Z" if found else value


def shown_time(value: Value) -> Value:
    """The inverse."""
    found = re.fullmatch(r"([\d-]{10})T([\d:.]{15})Z", value) if isinstance(value, str) else None
    return f"{found[1]} {found[2]}" if found else value


def written_term(value: Value) -> Value:
    """The Erlang term of the diagram in a `.npz`, whatever it holds besides; any other value stays."""
    if not isinstance(value, bytes):
        return value
    try:
        found = payload.decode(value)
    except PayloadError:
        return value
    term: dict[Atom | bytes, Term] = {
        Atom("dgms"): [[list(map(term_of, bar)) for bar in bars.tolist()] for bars in found.diagram.bars],
        Atom("num_edges"): 0,
    }
    if found.entropy is not None:
        term[Atom("entropy")] = list(map(term_of, found.entropy.tolist()))
    with np.load(io.BytesIO(value)) as arrays:
        if payload.META in arrays and arrays[payload.META].size:
            term[payload.META.encode()] = str(arrays[payload.META].flat[0]).encode()
    return erlang_terms.encode(term)


FUNCTIONS: Mapping[str, Callable[[Value], Value]] = {
    "written_time": written_time,
    "shown_time": shown_time,
    "written_kind": lambda value: {"TEXT": "text", "IMAGE": "image"}.get(str(value), value),
    "shown_kind": lambda value: {"text": "TEXT", "image": "IMAGE"}.get(str(value), value),
    "written_term": written_term,
}
EXPRESSIONS: Mapping[str, str] = {
    # In SQL, since an id may be a text that Python cannot read.
    "written_uid": "CASE WHEN length({0}) = 32 AND {0} NOT GLOB '*[^0-9a-f]*' THEN substr({0}, 1, 8) || '-' || "
    "substr({0}, 9, 4) || '-' || substr({0}, 13, 4) || '-' || substr({0}, 17, 4) || '-' || substr({0}, 21) "
    "ELSE {0} END",
    "shown_uid": "CASE WHEN length({0}) = 36 THEN replace({0}, '-', '') ELSE {0} END",
    "written_seeds": "1",
    "shown_seeds": "'[-1]'",
    "written_seed": "0",
    "shown_seed": "-1",
    **{name: f"{name}({{0}})" for name in FUNCTIONS},
}
"""How values are written to the file, and shown by the views; all others are the same."""


def expression(direction: str, kind: str, value: str) -> str:
    """SQL that converts a value."""
    return EXPRESSIONS.get(f"{direction}_{kind}", "{0}").format(value)


def create_writable_views(db: sqlite3.Connection) -> None:
    """Let a connection write the file as if it were one of the Python generation."""
    for name, call in FUNCTIONS.items():
        db.create_function(name, 1, call, deterministic=True)
    for view, (table, columns) in TABLES.items():
        shown = ", ".join(f"{expression('shown', kind, name)} AS {column}" for column, (name, kind) in columns.items())
        stored = {
            name: (column, expression("written", kind, f"new.{column}"))
            for column, (name, kind) in columns.items()
            if name
        }
        layer = {"layer": "0"} if view == "clusteringresult" else {}
        values = {"inserted_at": NOW, "updated_at": NOW} | layer | {name: value for name, (_, value) in stored.items()}
        changes = ", ".join(
            f"{name} = CASE WHEN new.{column} IS old.{column} THEN {name} ELSE {value} END"
            for name, (column, value) in stored.items()
        )
        where = f"WHERE id = {expression('written', 'uid', 'old.id')}"
        db.execute(f"CREATE TEMP VIEW {view} AS SELECT {shown} FROM main.{table}")
        for verb, statement in {
            "INSERT": f"INSERT INTO {table} ({', '.join(values)}) VALUES ({', '.join(values.values())})",
            "UPDATE": f"UPDATE {table} SET {changes} {where}",
            "DELETE": f"DELETE FROM {table} {where}",
        }.items():
            db.execute(f"CREATE TEMP TRIGGER {verb}_{view} INSTEAD OF {verb} ON {view} BEGIN {statement}; END")


class ElixirBuilt(Built):
    """A database file of the Elixir generation, written by the statements of the Python one."""

    @contextmanager
    def open(self) -> Iterator[sqlite3.Connection]:
        """A writing connection, committed and closed at the end."""
        with closing(sqlite3.connect(self.path, isolation_level=None)) as db:
            create_writable_views(db)
            yield db


@functools.cache
def template(unique: bool, runs: int) -> Path:
    """The healthy database, made once a process."""
    path = Path(tempfile.mkdtemp(prefix="doctor-test-")) / "template.sqlite"
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        create_tables(db, ELIXIR, unique=unique)
        record_migrations(db)
    with ElixirBuilt(path).open() as db, closing(sqlite3.connect(python_template(False, runs))) as source:
        db.execute("BEGIN")
        for table, (_, columns) in TABLES.items():
            marks = ", ".join("?" * len(columns))
            db.executemany(f"INSERT INTO {table} VALUES ({marks})", source.execute(f"SELECT * FROM {table}"))
        db.execute("COMMIT")
    return path


def build_elixir(path: Path, *, unique: bool = True, runs: int = 2) -> ElixirBuilt:
    """A healthy database at `path`; without its unique indexes it can hold rows twice."""
    shutil.copy(template(unique, runs), path)
    return ElixirBuilt(path)


def build_for(damage: Damage, path: Path, generation: str) -> Built:
    """A healthy database of a generation, in which this damage can be planted."""
    if generation == "elixir":
        return build_elixir(path, unique=False)
    return build(path, older=damage.older)


NOT_NULL = "the file's column is NOT NULL"
NO_SEED = "there are no seeds, and no run stops early"
ARCHIVE = "it is about an archive of NumPy's"
TABLE_CHANGED = "it changes a table itself, whose name is another: as in tests/rules/test_elixir.py"

NOT_IN_ELIXIR: Mapping[str, str] = {
    **dict.fromkeys(
        (
            *("vector_null", "image_model_on_a_text_and_null", "embedding_twice_and_the_newest_null", "number_null"),
            "run_of_no_experiment",
        ),
        NOT_NULL,
    ),
    **dict.fromkeys(("seeds_of_text", "seeds_of_true", "seed_of_nobody", "a_run_that_goes_on_after_a_repeat"), NO_SEED),
    **dict.fromkeys(
        (
            *("payload_wrong_count", "payload_count_without_dimension", "payload_meta_of_nothing"),
            "payload_a_fifth_dimension_alone",
        ),
        ARCHIVE,
    ),
    **dict.fromkeys(
        (
            *("table_gone", "column_gone", "table_a_view", "table_without_rowid", "collation_of_its_own"),
            *("rowid_hidden_by_a_column", "ids_in_a_column_of_numbers", "experiment_twice"),
            *("seeds_in_a_column_of_texts", "diagram_of_no_model"),
        ),
        TABLE_CHANGED,
    ),
    "id_with_dashes": "ids have dashes",
}
"""Damage that only the Python generation can have in this form, and why."""

ALSO_IN_ELIXIR: Mapping[str, frozenset[str]] = {
    "clustering_algorithm_empty": frozenset({"clustering-layers", "clustering-complete", "cluster-medoid"}),
    "clustering_created_on_no_day": frozenset({"row-time"}),
}
"""Rules that fail too, by plain consequence, where a clustering has layers and a row says when it was inserted."""

NOTHING_THERE = frozenset(
    (
        *("clustering-layers", "clustering-complete", "clustering-current", "cluster-medoid", "invocation-seed"),
        *("lyapunov-missing", "lyapunov-valid", "lyapunov-current", "orphan-lyapunov", "run-lockstep"),
    )
)
"""Rules that skip in the healthy database: it has one run of each network and prompt, and a clustering of one layer."""

CASES = [("python", name) for name in DAMAGES] + [("elixir", name) for name in DAMAGES if name not in NOT_IN_ELIXIR]
"""Each kind of damage in each generation that can have it."""
