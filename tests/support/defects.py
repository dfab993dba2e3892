"""Every kind of damage to rows; that to vectors and payloads is in `damaged_blobs`, and registered with it."""

from __future__ import annotations

import json
import sqlite3

import defective_payloads
from databases import LATER, LENGTH, NETWORK, TIME, Built, add_run, uid
from defect import DAMAGES, E3, I3, I4, LOST, NEW, RUN, D, Damage, E, Ids, damage, sql
from page_images import picture

from pytest_panic_doctor.database.schema import TABLES
from pytest_panic_doctor.database.spelling import dashed

# schema
sql("schema", "DROP TABLE embeddingcluster", name="table_gone")
sql("schema", "ALTER TABLE run DROP COLUMN seed", name="column_gone")

for name, script in {
    "table_a_view": "ALTER TABLE embeddingcluster RENAME TO old; CREATE VIEW embeddingcluster AS SELECT * FROM old; "
    f"INSERT INTO old VALUES ('{NEW}', '{LOST}', '{LOST}', NULL)",
    "table_without_rowid": "ALTER TABLE embeddingcluster RENAME TO old; CREATE TABLE embeddingcluster (id PRIMARY KEY, "
    "embedding_id, clustering_result_id, medoid_embedding_id) WITHOUT ROWID; "
    "INSERT INTO embeddingcluster SELECT * FROM old",
    "collation_of_its_own": "ALTER TABLE embeddingcluster ADD COLUMN word TEXT COLLATE NOCASE",
    "rowid_hidden_by_a_column": "ALTER TABLE embeddingcluster ADD COLUMN RowID",
    "ids_in_a_column_of_numbers": "ALTER TABLE embeddingcluster RENAME COLUMN medoid_embedding_id TO old; "
    "ALTER TABLE embeddingcluster ADD COLUMN medoid_embedding_id NUMERIC",
    "id_a_blob": f"UPDATE embeddingcluster SET id = x'00ff' WHERE id = '{uid(7, 3)}'",
}.items():
    sql("schema", script, name=name, also=("id-format",) if name == "id_a_blob" else ())
sql(
    "schema",
    "ALTER TABLE experimentconfig RENAME TO old; CREATE TABLE experimentconfig AS SELECT * FROM old; "
    "INSERT INTO experimentconfig SELECT * FROM old",
    E,
    name="experiment_twice",
)

sql(
    "schema",
    "ALTER TABLE run RENAME COLUMN seed TO old; ALTER TABLE run ADD COLUMN seed TEXT; UPDATE run SET seed = old",
    name="seeds_in_a_column_of_texts",
    also=("experiment-runs",),
)

# orphans
sql(
    "orphan-run",
    f"INSERT INTO run VALUES ('{NEW}', '[]', 0, 1, '', '{LOST}')",
    NEW,
    name="run_of_lost_experiment",
    repairable=True,
)
sql(
    "orphan-run",
    f"INSERT INTO run VALUES ('{NEW}', '[]', 0, 1, '', NULL)",
    NEW,
    name="run_of_no_experiment",
    repairable=True,
)
sql(
    "orphan-invocation",
    f"INSERT INTO invocation VALUES ('{NEW}', '{TIME}', '{LATER}', 'A', 'TEXT', 0, '{LOST}', 0, NULL, 'x', NULL)",
    NEW,
    name="invocation_of_lost_run",
    repairable=True,
)
sql(
    "orphan-embedding",
    f"INSERT INTO embedding VALUES ('{NEW}', '{TIME}', '{LATER}', '{LOST}', 'Nomic', x'00')",
    NEW,
    name="embedding_of_lost_invocation",
    repairable=True,
)
sql(
    "orphan-diagram",
    f"INSERT INTO persistencediagram VALUES ('{NEW}', '{TIME}', '{LATER}', NULL, '{LOST}', 'Nomic')",
    NEW,
    name="diagram_of_lost_run",
    repairable=True,
)
for column, name in enumerate(("embedding", "result", "medoid")):
    values = [uid(4, 1001), uid(6, 0), uid(4, 1)]
    values[column] = LOST
    sql(
        "orphan-cluster",
        f"INSERT INTO embeddingcluster VALUES ('{NEW}', '{values[0]}', '{values[1]}', '{values[2]}')",
        NEW,
        name=f"assignment_of_lost_{name}",
        repairable=True,
    )

# experiment-missing
sql("experiment-missing", "".join(f"DELETE FROM {table};" for table in TABLES), name="everything_gone")

# experiment-config
for name, change in {
    "networks_not_json": "networks = 'oops'",
    "networks_empty": "networks = '[]'",
    "networks_flat": """networks = '["A", "B"]'""",
    "networks_with_an_empty_one": "networks = '[[]]'",
    "seeds_of_text": """seeds = '["one"]'""",
    "seeds_of_true": "seeds = '[true]'",
    "prompts_of_numbers": "prompts = '[1]'",
    "prompts_an_object": "prompts = '{}'",
}.items():
    sql("experiment-config", f"UPDATE experimentconfig SET {change}", E, name=name, also=("experiment-runs",))
sql(
    "experiment-config",
    "UPDATE experimentconfig SET embedding_models = '[]'",
    E,
    name="models_empty",
)
for code in ("0000", "d800"):
    sql(
        "experiment-config",
        rf"""UPDATE experimentconfig SET embedding_models = '["No\u{code}mic"]'""",
        E,
        name=f"models_with_{code}",
    )
sql(
    "experiment-config",
    """UPDATE experimentconfig SET embedding_models = '[["Nomic", "NomicVision"]]'""",
    E,
    name="models_nested",
)
sql(
    "experiment-config",
    "UPDATE experimentconfig SET max_length = 0",
    E,
    name="max_length_zero",
    also=("experiment-runs",),
)

# experiment-runs
sql(
    "experiment-runs",
    """UPDATE experimentconfig SET prompts = '["an apple", "a pear", "a plum"]'""",
    E,
    name="run_missing",
)
sql("experiment-runs", """UPDATE experimentconfig SET prompts = '["a pear"]'""", RUN, name="run_not_asked_for")
sql(
    "experiment-runs",
    f"UPDATE run SET initial_prompt = 'a pear' WHERE id = '{RUN}'",
    E,
    RUN,
    uid(2, 1),
    name="run_twice",
)
sql(
    "experiment-runs",
    f"UPDATE experimentconfig SET max_length = {LENGTH + 1}",
    RUN,
    uid(2, 1),
    name="max_length_differs",
)
sql(
    "experiment-runs",
    f"""UPDATE run SET network = '["A", "B"]' WHERE id = '{RUN}'""",
    RUN,
    E,
    name="network_unknown",
    also=("invocation-model",),
)

# invocation-sequence
GONE = (
    "DELETE FROM embeddingcluster WHERE embedding_id IN ({e}); DELETE FROM embedding WHERE id IN ({e}); "
    "DELETE FROM invocation WHERE id IN ({i});"
)


def gone(*numbers: int) -> str:
    """Statements that take invocations away with all that hangs on them."""
    return GONE.format(e=", ".join(f"'{uid(4, k)}'" for k in numbers), i=", ".join(f"'{uid(3, k)}'" for k in numbers))


sql("invocation-sequence", gone(4), RUN, name="gap", also=("invocation-chain", "diagram-current"))
sql("invocation-sequence", gone(10, 11), RUN, name="truncated_tail", also=("diagram-current",))
sql("invocation-sequence", gone(0), RUN, name="first_gone", also=("invocation-chain", "diagram-current"))
sql(
    "invocation-sequence",
    f"UPDATE invocation SET sequence_number = 3 WHERE id = '{I4}'",
    RUN,
    name="number_twice",
    also=("invocation-chain", "invocation-model", "diagram-current"),
)
sql(
    "invocation-sequence",
    f"UPDATE invocation SET sequence_number = -2 WHERE id = '{uid(3, 11)}'",
    RUN,
    name="number_negative",
    also=("invocation-chain", "invocation-model", "diagram-current"),
)
sql(
    "invocation-sequence",
    f"UPDATE invocation SET sequence_number = -3 WHERE id = '{uid(3, 11)}'",
    RUN,
    name="number_negative_and_odd",
    also=("invocation-chain", "invocation-model", "diagram-current"),
)
sql(
    "invocation-sequence",
    f"UPDATE invocation SET sequence_number = 2.5 WHERE id = '{uid(3, 2)}'",
    RUN,
    name="number_a_fraction",
    also=("invocation-chain", "invocation-model", "diagram-current"),
)
sql(
    "invocation-sequence",
    f"UPDATE invocation SET sequence_number = 'eleven' WHERE id = '{uid(3, 11)}'",
    RUN,
    name="number_a_word",
    also=("invocation-chain", "invocation-model", "diagram-current"),
)
sql(
    "invocation-sequence",
    f"UPDATE run SET max_length = 'long', seed = 'none' WHERE id = '{RUN}'",
    RUN,
    name="max_length_a_word",
    also=("experiment-runs", "invocation-seed"),
)
sql(
    "invocation-sequence",
    f"UPDATE invocation SET sequence_number = 99 WHERE id = '{uid(3, 11)}'",
    RUN,
    name="number_beyond_max_length",
    also=("invocation-chain",),
)
sql(
    "invocation-sequence",
    f"UPDATE invocation SET sequence_number = NULL WHERE id = '{uid(3, 11)}'",
    RUN,
    name="number_null",
    also=("invocation-chain", "invocation-model", "diagram-current"),
)
sql(
    "invocation-sequence",
    gone(*range(LENGTH)),
    RUN,
    name="run_without_invocations",
    also=("diagram-current", "cluster-consistent"),
)
EARLY = "UPDATE experimentconfig SET seeds = '[7]'; UPDATE run SET seed = 7; UPDATE invocation SET seed = 7;"


@damage("invocation-sequence", "diagram-current")
def early_stop_without_a_repeat(db: sqlite3.Connection, built: Built) -> Ids:
    db.executescript(EARLY + gone(10, 11))
    for k in range(0, 10, 2):
        db.execute("UPDATE invocation SET output_image_data = ? WHERE id = ?", (picture(20 * k), built.invocation(k)))
    return (RUN,)


sql(
    "invocation-sequence",
    f"{EARLY} UPDATE invocation SET output_text = 'again' WHERE id IN ('{uid(3, 1)}', '{uid(3, 5)}')",
    RUN,
    name="a_run_that_goes_on_after_a_repeat",
)

# invocation-output
for name, change in {
    "text_null": "output_text = NULL",
    "text_with_an_image": "output_image_data = x'52'",
    "text_only_as_image": "output_text = NULL, output_image_data = x'52'",
}.items():
    sql("invocation-output", f"UPDATE invocation SET {change} WHERE id = '{I3}'", I3, name=name)
sql("invocation-output", f"UPDATE invocation SET output_text = x'41' WHERE id = '{I3}'", I3, name="text_as_a_blob")
sql(
    "invocation-output",
    f"UPDATE invocation SET output_image_data = CAST('RIFF' AS TEXT) WHERE id = '{I4}'",
    I4,
    name="image_as_text",
)
for name, change in {
    "image_null": "output_image_data = NULL",
    "image_empty": "output_image_data = x''",
    "image_with_a_text": "output_text = 'x'",
}.items():
    sql("invocation-output", f"UPDATE invocation SET {change} WHERE id = '{I4}'", I4, name=name)
sql(
    "invocation-output",
    f"UPDATE invocation SET type = 'AUDIO' WHERE id = '{I3}'",
    I3,
    name="type_unknown",
    also=("embedding-type", "diagram-current"),
)

# invocation-chain
for name, change in {
    "input_null": "NULL",
    "input_lost": f"'{LOST}'",
    "input_two_before": f"'{uid(3, 1)}'",
    "input_itself": f"'{I3}'",
    "input_of_another_run": f"'{uid(3, 1002)}'",
}.items():
    sql("invocation-chain", f"UPDATE invocation SET input_invocation_id = {change} WHERE id = '{I3}'", I3, name=name)
sql(
    "invocation-chain",
    f"UPDATE invocation SET input_invocation_id = '{I3}' WHERE id = '{uid(3, 0)}'",
    uid(3, 0),
    name="first_with_an_input",
)

# invocation-model, invocation-time
sql("invocation-model", f"UPDATE invocation SET model = '{NETWORK[0]}' WHERE id = '{I3}'", I3, name="model_out_of_turn")
sql("invocation-model", f"UPDATE invocation SET model = 'Nobody' WHERE id = '{I3}'", I3, name="model_unknown")
sql(
    "invocation-model",
    f"UPDATE run SET network = 'oops' WHERE id = '{RUN}'",
    RUN,
    name="network_not_json",
    also=("experiment-runs",),
)
sql("invocation-seed", f"UPDATE invocation SET seed = 7 WHERE id = '{I3}'", I3, name="seed_of_nobody")
EARLIER = "completed_at = '2025-08-12 08:59:59.000000'"
for table, row in {"invocation": I3, "embedding": E3, "persistencediagram": D, "experimentconfig": E}.items():
    sql("invocation-time", f"UPDATE {table} SET {EARLIER} WHERE id = '{row}'", row, name=f"{table}_completed_early")
    for word, time in {
        "with_a_t": "'2025-08-11T23:59:59.999999'",
        "with_a_zone": "'2025-08-12 09:00:00+12:00'",
        "a_day": "'2025-08-11'",
    }.items():
        sql(
            "invocation-time",
            f"UPDATE {table} SET completed_at = {time} WHERE id = '{row}'",
            row,
            name=f"{table}_completed_early_{word}",
        )
    for word, time in {
        "a_word": "'soon'",
        "now": "'now'",
        "a_number": "2460900.5",
        "month_13": "'2025-13-01'",
        "september_31": "'2025-09-31 09:00:00.000000'",
        "hour_24": "'2025-08-12 24:00:00.000000'",
        "before_a_nul": "started_at || char(0) || 'x'",
    }.items():
        sql(
            "invocation-time",
            f"UPDATE {table} SET started_at = {time} WHERE id = '{row}'",
            row,
            name=f"{table}_started_{word}",
        )
sql(
    "time-order",
    f"UPDATE invocation SET started_at = '2025-08-12 09:00:02.899999' WHERE id = '{I3}'",
    I3,
    name="invocation_before_its_input",
)
sql(
    "time-order",
    f"UPDATE invocation SET started_at = '2025-08-12T09:00:02.8Z' WHERE id = '{I3}'",
    I3,
    name="invocation_before_its_input_in_another_spelling",
)
sql(
    "time-order",
    f"UPDATE embedding SET started_at = '2025-08-12 09:00:03.899999' WHERE id = '{E3}'",
    E3,
    name="embedding_before_its_invocation",
)
sql(
    "time-order",
    f"UPDATE persistencediagram SET started_at = '2025-08-12 09:00:11.899999' WHERE id = '{D}'",
    D,
    name="diagram_before_its_run",
)
sql(
    "time-order",
    f"UPDATE persistencediagram SET started_at = '2025-08-12T09:30:00+09:30' WHERE id = '{D}'",
    D,
    name="diagram_before_its_run_by_its_zone",
)

# embedding-model, embedding-width
sql(
    "embedding-model",
    """UPDATE experimentconfig SET embedding_models = '["Nomic", "NomicVision", "Nomic"]'""",
    E,
    name="model_listed_twice",
)
sql(
    "embedding-model",
    f"INSERT INTO embedding VALUES ('{NEW}', '{TIME}', '{LATER}', '{I3}', 'Retired', zeroblob(32))",
    NEW,
    name="embedding_of_an_unused_model",
)


@damage("embedding-width")
def vectors_wider_in_another_experiment(db: sqlite3.Connection, built: Built) -> Ids:
    """All is well in either experiment."""
    db.execute("UPDATE experimentconfig SET prompts = '[\"an apple\"]'")
    for number, (experiment, prompt) in enumerate(((uid(1, 1), "a pear"), (uid(1, 2), "a plum"))):
        db.execute(
            "INSERT INTO experimentconfig SELECT ?, networks, seeds, ?, embedding_models, max_length, started_at, "
            "completed_at FROM experimentconfig WHERE id = ?",
            (experiment, json.dumps([prompt]), uid(1, 0)),
        )
        if number:
            add_run(db, 2, prompt, experiment=2)
    db.execute("UPDATE run SET experiment_id = ? WHERE id = ?", (uid(1, 1), built.run(1)))
    for k in range(LENGTH):
        db.execute(
            "UPDATE embedding SET vector = CAST(vector || zeroblob(4) AS BLOB) WHERE id = ?", (built.embedding(k, 1),)
        )
    return (uid(1, 1),)


# id-format
for name, script in {
    "in_upper_case": f"UPDATE embeddingcluster SET id = upper('{uid(7, 3)}') WHERE id = '{uid(7, 3)}'",
    "with_dashes": f"UPDATE embeddingcluster SET id = '{dashed(uid(7, 3))}' WHERE id = '{uid(7, 3)}'",
    "short": f"UPDATE embeddingcluster SET id = '06b05171' WHERE id = '{uid(7, 3)}'",
    "empty": f"UPDATE embeddingcluster SET id = '' WHERE id = '{uid(7, 3)}'",
    "of_wrong_bytes": f"UPDATE embeddingcluster SET id = CAST(x'{'ff' * 32}' AS TEXT) WHERE id = '{uid(7, 3)}'",
}.items():
    sql("id-format", script, name=f"id_{name}")

# cluster-consistent
C, R = uid(7, 3), uid(6, 0)
for name, change in {
    "parameters_not_json": "parameters = '{oops'",
    "parameters_a_list": "parameters = '[1]'",
    "algorithm_empty": "algorithm = ''",
    "created_on_no_day": "created_at = 'soon'",
    "completed_before_it_started": "completed_at = '2025-08-11T00:00:00'",
}.items():
    sql("cluster-consistent", f"UPDATE clusteringresult SET {change}", R, name=f"clustering_{name}")
sql("cluster-consistent", "DELETE FROM embeddingcluster", R, name="clustering_without_an_assignment")
sql(
    "cluster-consistent",
    f"UPDATE embeddingcluster SET embedding_id = '{uid(4, 2)}' WHERE id = '{C}'",
    C,
    name="assignment_of_an_embedding_by_another_model",
)
sql(
    "cluster-consistent",
    f"INSERT INTO embeddingcluster VALUES ('{NEW}', '{uid(4, 3)}', '{R}', NULL)",
    NEW,
    C,
    name="assignment_twice",
)
sql(
    "cluster-consistent",
    f"UPDATE embeddingcluster SET medoid_embedding_id = '{uid(4, 1003)}' WHERE id = '{C}'",
    C,
    name="medoid_that_is_not_of_the_clustering",
)
sql(
    "cluster-consistent",
    f"UPDATE embeddingcluster SET medoid_embedding_id = '{uid(4, 5)}' WHERE id = '{C}'",
    C,
    name="medoid_of_another_cluster",
)

# output-plausible
for name, change in {
    "caption_empty": "output_text = ''",
    "caption_blank": "output_text = ' \n'",
    "caption_no_utf8": "output_text = CAST(x'61ff62' AS TEXT)",
    "caption_with_nul": "output_text = CAST(x'610062' AS TEXT)",
}.items():
    sql("output-plausible", f"UPDATE invocation SET {change} WHERE id = '{I3}'", I3, name=name)
for name, value in {
    "truncated": "substr(output_image_data, 1, length(output_image_data) / 2)",
    "too_long": "CAST(output_image_data || x'00' AS BLOB)",
    "a_png": "x'89504e470d0a1a0a0000000d494844520000'",
    "a_stump": "x'52494646'",
    "a_sound": "CAST('RIFF' || x'0c000000' || 'WAVE' || zeroblob(8) AS BLOB)",
}.items():
    sql(
        "output-plausible",
        f"UPDATE invocation SET output_image_data = {value} WHERE id = '{I4}'",
        I4,
        name=f"image_{name}",
    )

Planted = defective_payloads.Planted

__all__ = ["DAMAGES", "Damage", "Planted"]


TOGETHER = (
    "run_of_lost_experiment",
    "diagram_stale",  # before the embedding is doubled: of two that differ, nothing says which is right
    "embedding_twice",
    "diagram_of_an_unused_model",
    "assignment_of_lost_medoid",
)
"""Kinds of damage that can be planted at once, and all be repaired."""


def plant(built: Built, *names: str) -> None:
    """Plant damage of these kinds."""
    with built.open() as db:
        for name in names:
            DAMAGES[name].plant(db, built)
