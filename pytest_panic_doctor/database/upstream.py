"""Damage upstream of a diagram: in the rows that determine its points.

A point cloud can be valid in itself and still be wrong for the run: an invocation with a damaged type is not in it, and
neither is a lost one. A correct diagram then seems stale, though it is the run that is damaged.
"""

from __future__ import annotations

import sqlite3

from pytest_panic_doctor.database.generation import Generation
from pytest_panic_doctor.database.spelling import nearly_equal, normalized_id
from pytest_panic_doctor.database.subject import DiagramTarget

DAMAGED_TYPE = (
    "(coalesce(i.type, '') NOT IN ('TEXT', 'IMAGE') OR CASE i.type WHEN 'TEXT' THEN i.output_image_data IS NOT NULL "
    "ELSE i.output_text IS NOT NULL END)"
)
"""Condition that the type of an invocation `i` is invalid or contradicts its output; reads no output."""


def upstream_damage(db: sqlite3.Connection, target: DiagramTarget, generation: Generation, *, replacing: bool) -> str:
    """Find what forbids computing a diagram.

    Args:
        db: The database.
        target: The run and the embedding model.
        generation: The generation of the file.
        replacing: Whether the new diagram would replace a valid one, which may be right for the undamaged run.

    Returns:
        Clauses; empty if there is no damage.
    """
    found = [
        describe_damaged_types(db, target.run),
        describe_unfinished_run(db, target.run, generation),
        describe_damaged_sequence(db, target.run) if replacing else misspelt_diagram(db, target),
    ]
    return "; ".join(filter(None, found))


def describe_damaged_types(db: sqlite3.Connection, run: str) -> str:
    """Describe wrong types of a run's invocations, as a clause that ends in its rule; empty if there are none.

    Each model makes either texts or images, so a model with both has some wrong types.
    """
    query = f"SELECT count(*) FROM invocation i WHERE i.run_id = ? AND {DAMAGED_TYPE}"
    (count,) = db.execute(query, (run,)).fetchone()
    if count:
        which = "1 invocation has a type that is invalid or contradicts its"
        which = which if count == 1 else f"{count:,} invocations have a type that is invalid or contradicts their"
        return f"{which} output (invocation-output)"
    both = db.execute(
        "SELECT model FROM invocation WHERE run_id = ? GROUP BY model HAVING count(DISTINCT type) > 1 LIMIT 1", (run,)
    ).fetchone()
    return f"invocations by {both[0]} are of both types (invocation-output)" if both else ""


def describe_unfinished_run(db: sqlite3.Connection, run: str, generation: Generation) -> str:
    """Describe a run that the tool will continue, as a clause; empty if it is complete, or nothing continues it.

    The tool keeps a diagram that is there, so one of the first part of a run would stay for ever.
    """
    if not generation.resume:
        return ""
    found = db.execute(
        "SELECT e.id, r.max_length, (SELECT count(*) FROM invocation WHERE run_id = r.id) FROM run r "
        "JOIN experimentconfig e ON e.id = r.experiment_id WHERE r.id = ? AND e.completed_at IS NULL",
        (run,),
    ).fetchone()
    if found is None or (isinstance(found[1], int) and found[2] >= found[1]):
        return ""
    experiment, length, count = found
    command = f"{generation.resume} {experiment}"
    return f"the run has {count:,} of {length} invocations, and its experiment is not finished: {command}"


def misspelt_diagram(db: sqlite3.Connection, target: DiagramTarget) -> str:
    """Describe an existing diagram that may be the missing one under a damaged name, as a clause; else empty."""
    run, model = target
    query = (
        "SELECT DISTINCT run_id FROM persistencediagram d WHERE NOT EXISTS (SELECT 1 FROM run r WHERE r.id = d.run_id)"
    )
    for (name,) in db.execute(query).fetchall():
        text = name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name)
        if nearly_equal(normalized_id(text), normalized_id(run)):
            return f"a diagram names the run {text}, which may be this one (orphan-diagram)"
    listed = "(SELECT value FROM experimentconfig e, json_each(e.embedding_models) WHERE e.id = r.experiment_id)"
    query = (
        "SELECT DISTINCT d.embedding_model FROM run r JOIN persistencediagram d ON d.run_id = r.id "
        "JOIN experimentconfig e ON e.id = r.experiment_id AND json_valid(e.embedding_models) "
        "WHERE r.id = ? AND d.embedding_model <> ? AND d.diagram_data IS NOT NULL "
        f"AND d.embedding_model NOT IN {listed}"
    )
    for (name,) in db.execute(query, target).fetchall():
        if nearly_equal(str(name), model):
            return f"a diagram names the embedding model {name}, which may be {model} (diagram-model)"
    return ""


def describe_damaged_sequence(db: sqlite3.Connection, run: str) -> str:
    """Describe missing or additional invocations of a run, as a clause that ends in its rule; else empty."""
    found = db.execute(
        "SELECT r.seed, r.max_length, count(i.id), count(DISTINCT i.sequence_number), min(i.sequence_number), "
        "max(i.sequence_number), total(typeof(i.sequence_number) = 'integer') "
        "FROM run r LEFT JOIN invocation i ON i.run_id = r.id WHERE r.id = ? GROUP BY r.id",
        (run,),
    ).fetchone()
    if found is None:
        return "the run is gone (orphan-diagram)"
    seed, length, count, distinct, low, high, integers = found
    in_order = count > 0 and count == distinct == integers and low == 0 and high == count - 1
    early = isinstance(length, int) and count < length and seed != -1 and may_have_stopped(db, run, count - 1)
    if in_order and (count == length or early):
        return ""
    return f"the run has {count:,} of {length} invocations, or not each once (invocation-sequence)"


def may_have_stopped(db: sqlite3.Connection, run: str, last: int) -> bool:
    """Whether a run may have stopped early at its last output: a repeated text, or an image.

    Images repeat if their bytes do, which are not read here.
    """
    query = (
        "SELECT EXISTS (SELECT 1 FROM invocation z WHERE z.run_id = :run AND z.sequence_number = :last AND "
        "(z.type = 'IMAGE' OR EXISTS (SELECT 1 FROM invocation i WHERE i.run_id = :run AND i.type = z.type "
        "AND i.sequence_number < :last AND i.output_text = z.output_text)))"
    )
    return bool(db.execute(query, {"run": run, "last": last}).fetchone()[0])
