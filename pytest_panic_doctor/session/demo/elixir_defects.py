"""Plants the defects of the Elixir generation's demo: what other programs and crashes leave behind."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence

import numpy as np

from pytest_panic_doctor.database.elixir_generation import ELIXIR, VERSIONS
from pytest_panic_doctor.database.spelling import dashed
from pytest_panic_doctor.session.demo.defects import SPOILED_STEP, Defect
from pytest_panic_doctor.session.demo.elixir_rows import TEXT_MODEL, VECTOR_WIDTH, VISION_MODEL
from pytest_panic_doctor.session.demo.tables import insert

MOMENT = "2026-05-26T09:45:00.000000Z"
MIGRATED = "2026-05-26T01:59:00"
UNUSED_MODEL = "STSBMpnet"
"""An embedding model that no experiment of the demo uses."""


def record_migrations(db: sqlite3.Connection) -> None:
    """Write the table in which Ecto records its migrations, and let the file be in WAL mode as the tool's are."""
    db.execute("PRAGMA journal_mode = WAL")
    db.execute('CREATE TABLE "schema_migrations" ("version" INTEGER PRIMARY KEY, "inserted_at" TEXT)')
    rows = [(version, MIGRATED) for version in VERSIONS]
    db.executemany("INSERT INTO schema_migrations VALUES (?, ?)", rows)


def plant_elixir(db: sqlite3.Connection) -> list[Defect]:
    """Plant all defects in a healthy demo database, each in a place of its own; inside a transaction."""
    runs = [str(run) for (run,) in db.execute("SELECT id FROM runs ORDER BY id")]
    experiments = [str(each) for (each,) in db.execute("SELECT id FROM experiments ORDER BY id")]
    return [
        *diagrams(db, runs),
        *lyapunov_results(db, experiments),
        ragged_runs(db, experiments[-1]),
        *strays(db),
    ]


def added_id(digit: int) -> str:
    """Return the id of a planted row; its ffff shows that it was planted."""
    return dashed(f"019e622fffff7000800000000000{digit:04x}")


def lost_id(digit: str) -> str:
    """Return an id that no row has."""
    return dashed("0" * 31 + digit)


def diagrams(db: sqlite3.Connection, runs: Sequence[str]) -> Iterator[Defect]:
    """Plant diagrams that are missing, NULL and truncated, and one of a model that no experiment uses."""
    at = "WHERE run_id = ? AND embedding_model = ?"
    db.execute(f"DELETE FROM persistence_diagrams {at}", (runs[0], TEXT_MODEL))
    yield Defect("diagram-missing", "diagram_gone", (runs[0], TEXT_MODEL))

    db.execute(f"UPDATE persistence_diagrams SET diagram_data = NULL {at}", (runs[1], VISION_MODEL))
    yield Defect("diagram-missing", "diagram_null", (runs[1], VISION_MODEL))

    half = "substr(diagram_data, 1, length(diagram_data) / 2)"
    db.execute(f"UPDATE persistence_diagrams SET diagram_data = {half} {at}", (runs[2], TEXT_MODEL))
    yield Defect("diagram-valid", "diagram_torn", (runs[2], TEXT_MODEL))

    db.execute(
        "INSERT INTO persistence_diagrams (id, run_id, embedding_model, diagram_data, started_at, completed_at, "
        "inserted_at, updated_at) SELECT ?, run_id, ?, diagram_data, started_at, completed_at, inserted_at, "
        f"updated_at FROM persistence_diagrams {at}",
        (added_id(1), UNUSED_MODEL, runs[3], TEXT_MODEL),
    )
    yield Defect("diagram-model", "diagram_of_an_unused_model", (added_id(1),))


def lyapunov_results(db: sqlite3.Connection, experiments: Sequence[str]) -> Iterator[Defect]:
    """Plant Lyapunov results that are missing and truncated, and a vector that makes one stale, with its diagram."""
    at = "WHERE rowid = (SELECT min(rowid) FROM lyapunov_results WHERE experiment_id = ? AND embedding_model = ?)"
    db.execute(f"DELETE FROM lyapunov_results {at}", (experiments[0], TEXT_MODEL))
    yield Defect("lyapunov-missing", "lyapunov_gone", (experiments[0], TEXT_MODEL))

    place = (experiments[0], VISION_MODEL)
    ((torn,),) = db.execute(f"SELECT id FROM lyapunov_results {at}", place).fetchall()
    half = "substr(lyapunov_data, 1, length(lyapunov_data) / 2)"
    db.execute(f"UPDATE lyapunov_results SET lyapunov_data = {half} WHERE id = ?", (torn,))
    yield Defect("lyapunov-valid", "lyapunov_torn", (str(torn),))

    place = (experiments[1], TEXT_MODEL)
    ((stale, network),) = db.execute(f"SELECT id, network FROM lyapunov_results {at}", place).fetchall()
    ((run,),) = db.execute(
        "SELECT min(id) FROM runs WHERE experiment_id = ? AND network = ?", (experiments[1], network)
    ).fetchall()
    turned = np.zeros(VECTOR_WIDTH, "<f4")
    turned[0] = 1
    db.execute(
        "UPDATE embeddings SET vector = ? WHERE embedding_model = ? AND invocation_id = "
        "(SELECT id FROM invocations WHERE run_id = ? AND sequence_number = ?)",
        (turned.tobytes(), TEXT_MODEL, run, SPOILED_STEP),
    )
    yield Defect("diagram-current", "diagram_stale", (str(run), TEXT_MODEL))
    yield Defect("lyapunov-current", "lyapunov_stale", (str(stale),))


def ragged_runs(db: sqlite3.Connection, experiment: str) -> Defect:
    """Plant what a crash amid the inserts of one step leaves: one run of a network is longer than the other."""
    ((run,),) = db.execute("SELECT max(id) FROM runs WHERE experiment_id = ?", (experiment,)).fetchall()
    ((last,),) = db.execute(
        "SELECT id FROM invocations WHERE run_id = ? ORDER BY sequence_number DESC LIMIT 1", (run,)
    ).fetchall()
    db.execute("DELETE FROM invocations WHERE id = ?", (last,))
    ((surplus,),) = db.execute(
        "SELECT i.id FROM invocations i JOIN runs r ON r.id = i.run_id WHERE r.experiment_id = ? "
        "ORDER BY i.sequence_number DESC LIMIT 1",
        (experiment,),
    ).fetchall()
    return Defect("run-lockstep", "run_longer_than_the_others", (str(surplus),))


def strays(db: sqlite3.Connection) -> Iterator[Defect]:
    """Plant one orphan in each table; the tool's own connections enforce references, other programs do not."""
    common: dict[str, object] = {
        "network": json.dumps(["GLMImage", "Pixtral"], separators=(",", ":")),
        "initial_prompt": "a lost prompt",
        "prompt": "a lost prompt",
        "run_number": 0,
        "max_length": 40,
        "sequence_number": 0,
        "type": "image",
        "model": "GLMImage",
        "embedding_model": UNUSED_MODEL,
        "vector": bytes(4 * VECTOR_WIDTH),
        **dict.fromkeys(("started_at", "completed_at", "inserted_at", "updated_at"), MOMENT),
    }
    references: tuple[tuple[str, str, dict[str, str]], ...] = (
        ("orphan-run", "run", {"experiment_id": lost_id("a")}),
        ("orphan-invocation", "invocation", {"run_id": lost_id("b")}),
        ("orphan-embedding", "embedding", {"invocation_id": lost_id("c")}),
        ("orphan-diagram", "persistencediagram", {"run_id": lost_id("d")}),
        ("orphan-lyapunov", "lyapunovresult", {"experiment_id": lost_id("a")}),
        ("orphan-cluster", "embeddingcluster", {"embedding_id": lost_id("e"), "clustering_result_id": lost_id("f")}),
    )
    for digit, (rule, canonical, lost) in enumerate(references, start=10):
        table = ELIXIR.table(canonical)
        assert table
        values = {each.name: common[each.name] for each in table.columns if each.name in common}
        insert(db, table.name, {"id": added_id(digit), **values, **lost})
        yield Defect(rule, rule.replace("-", "_"), (added_id(digit),))
