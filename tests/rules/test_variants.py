"""What may differ from file to file and is no defect: every rule leaves it alone."""

from __future__ import annotations

import io
import json
import sqlite3
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from databases import DEFAULT, MODELS, Built, build, payload, uid, vectors

from pytest_panic_doctor.database.connection import Database
from pytest_panic_doctor.examination import manifest as manifests
from pytest_panic_doctor.examination.examiner import Examiner
from pytest_panic_doctor.examination.parsing import model_types

RULES = DEFAULT
Variant = Callable[[sqlite3.Connection, Built], None]
VARIANTS: dict[str, Variant] = {}


def variant(make: Variant) -> Variant:
    """Register a variant under its function's name."""
    VARIANTS[make.__name__] = make
    return make


def statements(name: str, script: str) -> None:
    """Register a variant that SQL makes."""

    def make(db: sqlite3.Connection, _: Built) -> None:
        db.executescript(script)

    VARIANTS[name] = make


PROMPT = json.dumps(['«café» ☕ it\'s "so"\n%s [x]::y', "a pear"]).replace("'", "''")
statements(
    "prompts_of_any_characters",
    f"UPDATE experimentconfig SET prompts = '{PROMPT}'; "
    f"UPDATE run SET initial_prompt = json_extract('{PROMPT}', '$[0]') WHERE id = '{uid(2, 0)}'",
)
statements("json_without_spaces", """UPDATE run SET network = '["FluxDev","Moondream"]'""")
statements("json_with_escapes", r"""UPDATE run SET network = '["Flux\u0044ev", "Moondream"]'""")
SEED_7 = "UPDATE run SET seed = 7; UPDATE invocation SET seed = 7; UPDATE experimentconfig SET seeds = '[7]'; "
statements("another_seed_at_full_length", SEED_7)
statements(
    "another_seed_with_a_repeat_at_its_full_length",
    f"{SEED_7} UPDATE invocation SET output_text = 'again' WHERE id IN ('{uid(3, 1)}', '{uid(3, 11)}')",
)
statements(
    "captions_that_return", "UPDATE invocation SET output_text = 'again' WHERE type = 'TEXT' AND sequence_number > 4"
)
statements("nothing_completed", "UPDATE invocation SET completed_at = NULL; UPDATE embedding SET completed_at = NULL")
statements(
    "older_rows_without_a_start", "UPDATE invocation SET started_at = NULL; UPDATE embedding SET started_at = NULL"
)
statements("completed_at_once", "UPDATE invocation SET completed_at = started_at")
TIMES = {
    "without_a_fraction": "substr({}, 1, 19)",
    "with_a_t": "replace({}, ' ', 'T')",
    "with_a_z": "{} || 'Z'",
    "with_a_zone": "{} || '+10:00'",
    "to_the_millisecond": "substr({}, 1, 23)",
}
for spelling, made in TIMES.items():
    statements(
        f"times_{spelling}",
        "".join(
            f"UPDATE {table} SET {column} = {made.format(column)};"
            for column in ("started_at", "completed_at")
            for table in ("experimentconfig", "invocation", "embedding", "persistencediagram")
        ),
    )
statements(
    "times_of_two_spellings",
    "UPDATE invocation SET started_at = replace(started_at, ' ', 'T') WHERE sequence_number % 2; "
    "UPDATE embedding SET completed_at = replace(completed_at, ' ', 'T')",
)
statements(
    "a_time_in_another_zone",
    f"UPDATE persistencediagram SET started_at = '2025-08-12 19:30:00+10:00' WHERE id = '{uid(5, 0)}'",
)
statements("every_embedding_an_outlier", "UPDATE embeddingcluster SET medoid_embedding_id = NULL")
statements("no_clustering", "DELETE FROM embeddingcluster; DELETE FROM clusteringresult")
statements("a_table_of_older_files", "CREATE TABLE cluster (id CHAR(32) NOT NULL PRIMARY KEY, x BLOB)")
statements("a_column_of_newer_files", "ALTER TABLE run ADD COLUMN note VARCHAR; UPDATE run SET note = 'x'")
statements("a_generated_column", "ALTER TABLE run DROP COLUMN seed; ALTER TABLE run ADD COLUMN seed INTEGER AS (-1)")
statements("a_generated_column_beside_images", "ALTER TABLE invocation ADD COLUMN note VARCHAR AS (model)")
statements(
    "columns_in_other_letters",
    "ALTER TABLE run RENAME COLUMN max_length TO Max_Length; ALTER TABLE embedding RENAME COLUMN vector TO VECTOR; "
    "ALTER TABLE embedding RENAME COLUMN id TO ID; ALTER TABLE experimentconfig RENAME COLUMN prompts TO Prompts",
)
statements("a_table_in_other_letters", "ALTER TABLE embedding RENAME TO x; ALTER TABLE x RENAME TO Embedding")
statements(
    "constraints_in_other_letters",
    "ALTER TABLE invocation RENAME COLUMN run_id TO Run_Id; "
    "CREATE UNIQUE INDEX a ON invocation (RUN_ID, sequence_number)",
)
statements("constraints_of_newer_files", "CREATE UNIQUE INDEX a ON invocation (run_id, sequence_number)")


def replace(db: sqlite3.Connection, built: Built, **changed: object) -> None:
    """Write the first diagram anew, by NumPy itself, with some arrays changed."""
    with np.load(io.BytesIO(payload(vectors(0, image=False))), allow_pickle=False) as archive:
        arrays = dict(archive)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **(arrays | changed))
    db.execute("UPDATE persistencediagram SET diagram_data = ? WHERE id = ?", (buffer.getvalue(), built.diagram()))


@variant
def generators_of_older_diagrams(db: sqlite3.Connection, built: Built) -> None:
    replace(db, built, gens_0=np.zeros((5, 3), np.int64), gens_1_count=np.array([0]), gens_2=np.zeros(1, np.int64))


@variant
def provenance_of_somebody_else(db: sqlite3.Connection, built: Built) -> None:
    replace(db, built, lab_meta=np.array(["made on a Tuesday"]), extra=np.arange(3))


@variant
def bars_in_another_order(db: sqlite3.Connection, built: Built) -> None:
    with np.load(io.BytesIO(payload(vectors(0, image=False))), allow_pickle=False) as archive:
        replace(db, built, dgms_0=archive["dgms_0"][::-1])


@variant
def spurious_bars_of_repeated_points(db: sqlite3.Connection, built: Built) -> None:
    points = vectors(0, image=False)
    points[3:] = points[:3]
    points[4, 0] = np.nextafter(points[4, 0], np.float32(9))
    for place, point in enumerate(points):
        db.execute("UPDATE embedding SET vector = ? WHERE id = ?", (point.tobytes(), built.embedding(2 * place + 1)))
    with np.load(io.BytesIO(payload(points)), allow_pickle=False) as archive:
        spurious = np.array([[0, 6e-8], [0, 2e-8], [0, 0]], np.float32)
        entropy = archive["entropy"]
        replace(
            db,
            built,
            **{name: archive[name] for name in ("dgms_1", "dgms_2", "dgms_count")},
            dgms_0=np.concatenate((spurious, archive["dgms_0"])),
            entropy=entropy,
        )


@pytest.mark.parametrize("older", [False, True], ids=["newer", "older"])
@pytest.mark.parametrize("name", VARIANTS)
def test_what_is_no_defect_is_not_found(tmp_path: Path, name: str, older: bool) -> None:
    built = build(tmp_path / "x.sqlite", older=older)
    with built.open() as db:
        VARIANTS[name](db, built)
    database = Database(built.path)
    examiner = Examiner(database, RULES, model_types([], []))
    manifest = database.read(manifests.build_manifest)
    with built.open() as db:
        (runs,) = db.execute("SELECT count(*) FROM run").fetchone()
    assert len(list(manifest.diagram_subjects())) == runs * len(MODELS)
    outcomes = {
        entry.name: examiner.examine(RULES[entry.rule], entry.subject) for entry in manifest.entries(RULES.values())
    }
    database.close()
    found = {name: outcome.findings for name, outcome in outcomes.items() if outcome.findings}
    assert found == {}
    # What is not there passes no rule about it.
    expected = {"passed", "skipped"} if name == "no_clustering" else {"passed"}
    assert {outcome.status for outcome in outcomes.values()} == expected
