"""Rules about the embeddings of one embedding model in one experiment."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from pytest_panic_doctor.database import clouds
from pytest_panic_doctor.database.progress import count_done
from pytest_panic_doctor.database.schema import is_unique
from pytest_panic_doctor.database.subject import Rows
from pytest_panic_doctor.formatting import plural, verb
from pytest_panic_doctor.rules import evidence
from pytest_panic_doctor.rules.base import IDS_KEPT, Finding, NotApplicable, RepairKind, RuleContext, Scope, rule
from pytest_panic_doctor.rules.experiment import finding_of_experiment
from pytest_panic_doctor.topology.vectors import VALUE_BYTES, VectorDefect, describe_defects, find_defects

INVOCATIONS = (
    "run r JOIN invocation i ON i.run_id = r.id WHERE r.experiment_id = :experiment AND (:run IS NULL OR r.id = :run)"
)
EMBEDDINGS = (
    "run r JOIN invocation i ON i.run_id = r.id JOIN embedding e ON e.invocation_id = i.id "
    "AND e.embedding_model = :model WHERE r.experiment_id = :experiment AND (:run IS NULL OR r.id = :run)"
)


BY_MODEL = (
    "SELECT e.embedding_model, i.type, count(*) FROM run r JOIN invocation i ON i.run_id = r.id JOIN embedding e "
    "ON e.invocation_id = i.id WHERE r.experiment_id = :experiment AND (:run IS NULL OR r.id = :run) GROUP BY 1, 2"
)
"""The number of embeddings of each output type by each model of an experiment, in one pass over the indexes."""


def by_model(context: RuleContext) -> list[tuple[object, ...]]:
    """Return the rows of `BY_MODEL`, read once for all rules and models of the experiment."""
    return context.cached_query("embeddings by model and type", BY_MODEL)


def unknown_kind(context: RuleContext) -> Finding:
    """Make the finding for an embedding model of unknown type: neither built in nor named in the ini file."""
    model = context.subject.embedding_model
    text = (
        f"whether {model} embeds texts or images is not known, so it was not examined: name it in the ini key "
        "doctor_text_models or doctor_image_models"
    )
    return finding_of_experiment(context, text, blocked_by=[clouds.MODEL_TYPE_KEY])


def one_each(context: RuleContext) -> bool:
    """Whether a UNIQUE constraint prevents two embeddings of one invocation by one model."""
    return is_unique(context.db, context.generation.real_name("embedding"), ("invocation_id", "embedding_model"))


def count_embeddings(context: RuleContext, kind: str | None) -> tuple[int, int]:
    """Count the embeddings of the subject's model.

    One pass over the indexes counts for all models of the experiment, which is enough for a healthy database.

    Args:
        context: The snapshot and the subject.
        kind: What the model embeds.

    Returns:
        The number of embeddings of outputs of `kind`, and of other outputs.
    """
    rows = by_model(context)
    mine = {found: int(str(count)) for model, found, count in rows if model == context.subject.embedding_model}
    fit = mine.get(kind, 0)
    return fit, sum(mine.values()) - fit


def of_kind(context: RuleContext, kind: str) -> int:
    """Count the invocations of a type."""
    rows = context.cached_query("invocations by type", f"SELECT i.type, count(*) FROM {INVOCATIONS} GROUP BY 1")
    return sum(int(str(count)) for found, count in rows if found == kind)


@rule(
    "embedding-missing",
    scope=Scope.EXPERIMENT_MODEL,
    description="each invocation of the embedding model's type has an embedding",
    repair=RepairKind.EMBED,
    requires=("embedding-type", "embedding-duplicate"),
)
def embedding_missing(context: RuleContext) -> Iterator[Finding]:
    """Find invocations of the model's type without an embedding by it. Only indexes and invocation rows are read.

    Example: the embedding stage was killed. The point cloud lacks points, so that no diagram can be computed. An
    embedding hook repairs it.
    """
    kind = context.kind()
    if kind is None:
        yield unknown_kind(context)
        return
    found_count = of_kind(context, kind)
    if not found_count:
        raise NotApplicable(f"there is no {kind} invocation")
    context.examined(found_count, "invocation")
    # Without the constraint, two embeddings of one invocation could stand for one that is missing.
    if one_each(context) and count_embeddings(context, kind)[0] == found_count:
        return
    if to_come := context.unfinished():
        raise NotApplicable(f"embeddings may still come: {to_come}")
    if context.retired(str(context.subject.embedding_model)):
        raise NotApplicable(f"no row of the whole file is by {context.subject.embedding_model} (see embedding-model)")
    params = context.params | {"kind": kind}
    rows = Rows(
        "invocation",
        f"SELECT i.id FROM {INVOCATIONS} AND i.type = :kind AND NOT EXISTS (SELECT 1 FROM embedding e "
        "WHERE e.invocation_id = i.id AND e.embedding_model = :model)",
        params,
    )

    def message(count: int) -> str:
        return f"{count:,} of {plural(found_count, f'{kind} invocation')} {verb(count, 'has', 'have')} no embedding"

    yield from context.finding_for_rows(rows, message)


@rule(
    "embedding-duplicate",
    scope=Scope.EXPERIMENT_MODEL,
    description="no invocation has two embeddings by the same embedding model",
    repair=RepairKind.KEEP_NEWEST,
    requires=("embedding-type",),
)
def embedding_duplicate(context: RuleContext) -> Iterator[Finding]:
    """Find invocations with more than one embedding by this model. With a UNIQUE constraint no row is read.

    Example: a stage was run twice on an old schema. A point counts twice in everything that joins embeddings. All but
    the newest usable one are quarantined.
    """
    context.examined(sum(count_embeddings(context, None)), "embedding")
    if one_each(context):
        return
    rows = Rows(
        "embedding",
        "SELECT id FROM embedding WHERE embedding_model = :model AND invocation_id IN "
        f"(SELECT e.invocation_id FROM {EMBEDDINGS} GROUP BY e.invocation_id HAVING count(*) > 1)",
        context.params,
    )

    def message(count: int) -> str:
        twice = context.scalar(f"SELECT count(DISTINCT invocation_id) FROM embedding WHERE id IN ({rows.sql})")
        return (
            f"{plural(twice, 'invocation')} {verb(twice, 'has', 'have')} {count:,} embeddings between them"
            if (twice > 1)
            else f"1 invocation has {count:,} embeddings"
        )

    yield from context.finding_for_rows(rows, message)


@rule(
    "embedding-type",
    scope=Scope.EXPERIMENT_MODEL,
    description="a text model embedded only text, an image model only images",
    repair=RepairKind.QUARANTINE,
)
def embedding_type(context: RuleContext) -> Iterator[Finding]:
    """Find embeddings of invocations of the other type.

    Example: an embedding by a text model of an image. The vector has no meaning. It is quarantined if the type of the
    invocation is certain.
    """
    kind = context.kind()
    if kind is None:
        yield unknown_kind(context)
        return
    fit, others = count_embeddings(context, kind)
    context.examined(fit + others, "embedding")
    if not others:
        return
    other = "IMAGE" if kind == "TEXT" else "TEXT"
    params = context.params | {"kind": kind, "other": other, "makers": json.dumps(makers(context, kind))}

    def message(count: int) -> str:
        total = context.scalar(f"SELECT count(*) FROM {EMBEDDINGS}")
        return f"{count:,} of {plural(total, 'embedding')} {verb(count)} of an output that is not {kind}"

    found = Rows("embedding", f"SELECT e.id FROM {EMBEDDINGS} AND i.type IS NOT :kind AND {{}}", params)
    reason = "the type of those invocations, their output and their model disagree (see invocation-output)"
    yield from evidence.findings_by_reason(context, found, {f"NOT {SURELY_OTHER}": reason}, message)


SURELY_OTHER = (
    "(i.type IS :other AND i.model IS NOT NULL AND i.model NOT IN (SELECT value FROM json_each(:makers)) "
    "AND CASE i.type WHEN 'TEXT' THEN typeof(i.output_text) = 'text' AND i.output_image_data IS NULL "
    "ELSE typeof(i.output_image_data) = 'blob' AND length(i.output_image_data) > 0 AND i.output_text IS NULL END)"
)
"""SQL condition: an invocation `i` is surely of the other type, by its type, its output and what its model generates.
"""


def makers(context: RuleContext, kind: str) -> list[str]:
    """List the models of which most invocations in the experiment are of type `kind`."""
    rows = context.cached_query(
        "types by model",
        f"SELECT i.model, i.type, count(*) FROM {INVOCATIONS} AND typeof(i.model) = 'text' GROUP BY 1, 2",
    )
    most: dict[str, tuple[int, str]] = {}
    for model, found, count in rows:
        most[str(model)] = max(most.get(str(model), (0, "")), (int(str(count)), str(found)))
    return [model for model, (_, found) in most.items() if found == kind]


@dataclass
class UnusableVectors:
    """Unusable vectors, counted: at most `IDS_KEPT` ids, exact counts. `sizes` counts all vectors by size in bytes."""

    ids: dict[VectorDefect, list[str]] = field(default_factory=dict)
    counts: Counter[VectorDefect] = field(default_factory=Counter)
    sizes: Counter[int] = field(default_factory=Counter)
    runs: set[str] = field(default_factory=set)
    total: int = 0

    def commonest_width(self) -> int:
        """Return the number of values that most vectors have; 0 if there are no vectors."""
        whole = [(count, size) for size, count in self.sizes.items() if size and size % VALUE_BYTES == 0]
        return max(whole)[1] // VALUE_BYTES if whole else 0

    def add(self, flaw: VectorDefect, row_id: str, run: str) -> None:
        """Count one unusable vector."""
        self.counts[flaw] += 1
        self.runs.add(run)
        kept = self.ids.setdefault(flaw, [])
        if len(kept) < IDS_KEPT:
            kept.append(row_id)


def examine_vectors(context: RuleContext, width: int) -> UnusableVectors:
    """Check all vectors of the subject against a width in values."""
    found = UnusableVectors()
    runs = context.db.execute(
        "SELECT id FROM run WHERE experiment_id = :experiment AND (:run IS NULL OR id = :run) ORDER BY rowid",
        context.params,
    ).fetchall()
    for number, (run,) in enumerate(runs):
        count_done("reading vectors, by runs", number, len(runs))
        cursor = context.db.execute(
            "SELECT e.id, e.vector FROM invocation i JOIN embedding e ON e.invocation_id = i.id "
            "AND e.embedding_model = ? WHERE i.run_id = ?",
            (context.subject.embedding_model, run),
        )
        while rows := cursor.fetchmany(clouds.FETCH_SIZE):
            found.total += len(rows)
            vectors = [vector for _, vector in rows]
            found.sizes.update(len(vector) for vector in vectors if isinstance(vector, bytes))
            for index, flaw in find_defects(vectors, width):
                found.add(flaw, rows[index][0], run)
    return found


def stored_width(context: RuleContext) -> int:
    """Find the number of values of the subject's vectors, once as long as nobody writes to the database."""
    experiment, model = str(context.subject.experiment), str(context.subject.embedding_model)
    known = ("width", experiment, model)
    if known not in context.memo:
        context.memo[known] = clouds.vector_width(context.db, experiment, model)
    return context.memo[known]  # type: ignore[return-value]


@rule(
    "embedding-vector",
    scope=Scope.EXPERIMENT_MODEL,
    description="every vector is there, as wide as the embedding model's others, finite and not zero",
    repair=RepairKind.EMBED,
    requires=("embedding-type", "embedding-duplicate"),
    expensive=True,
)
def embedding_vector(context: RuleContext) -> Iterator[Finding]:
    """Check every vector of the model in the experiment, one run in memory at a time.

    Example: a vector with NaN, of zeros, or cut off. No distance to it can be computed, so that the diagram is blocked.
    An embedding hook repairs it.
    """
    width = stored_width(context)
    found = examine_vectors(context, width)
    commonest = width if context.subject.run else found.commonest_width()
    if commonest != width:
        width, found = commonest, examine_vectors(context, commonest)
    if not found.total:
        raise NotApplicable(f"{context.subject.embedding_model} has no embedding here")
    context.examined(found.total, "embedding")
    count = found.counts.total()
    if count:
        which = f"{count:,} of {plural(found.total, 'vector')} {verb(count)} unusable"
        yield context.finding(
            f"{which}: {describe_defects(found.counts, width)}",
            table="embedding",
            ids=[row_id for ids in found.ids.values() for row_id in ids],
            count=count,
            run=found.runs.pop() if len(found.runs) == 1 else None,
        )
