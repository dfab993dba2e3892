"""Rules about persistence diagrams."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

from pytest_panic_doctor.database import clouds, upstream
from pytest_panic_doctor.database.generation import Codec
from pytest_panic_doctor.database.subject import Rows
from pytest_panic_doctor.formatting import plural, verb
from pytest_panic_doctor.rules import evidence
from pytest_panic_doctor.rules.base import Finding, NotApplicable, RepairKind, RuleContext, Scope, rule
from pytest_panic_doctor.rules.embedding import stored_width
from pytest_panic_doctor.rules.experiment import used_models
from pytest_panic_doctor.topology.payload import Payload, PayloadError
from pytest_panic_doctor.topology.staleness import why_stale
from pytest_panic_doctor.topology.validation import problems, shortcomings

KEPT = 2**20
"""Maximum size in bytes of bars that are kept for the next rule."""

EMBEDDING_RULES = ("embedding-type", "embedding-duplicate", "embedding-vector", "embedding-missing")


@rule(
    "diagram-model",
    scope=Scope.EXPERIMENT,
    description="there is no diagram for an embedding model that the experiment does not use",
    repair=RepairKind.QUARANTINE,
)
def diagram_model(context: RuleContext) -> Iterator[Finding]:
    """Find diagrams of the experiment's runs whose model is not in `embedding_models`.

    Example: a model was removed from the list, and its diagrams stayed. They are quarantined, unless the name may be
    misspelt or embeddings by the model exist. If the list itself is damaged, the item is skipped: otherwise every
    diagram would be quarantined.
    """
    used = used_models(context)
    of = "FROM run r JOIN persistencediagram d ON d.run_id = r.id WHERE r.experiment_id = :experiment"
    context.examined(context.scalar(f"SELECT count(*) {of}"), "persistencediagram")
    found = f"{of} AND (d.embedding_model IS NULL OR d.embedding_model NOT IN (SELECT value FROM json_each(:used)))"
    params = context.params | {"used": json.dumps(used)}
    models = [name for (name,) in context.db.execute(f"SELECT DISTINCT d.embedding_model {found}", params)]
    if not models:
        return
    near, meant = evidence.misspelt_models([(name, used) for name in models], context.kinds)
    reasons = {
        NAMELESS: "a diagram that names no model may be one that is missing",
        MISSPELT: meant,
        EMBEDDED: "embeddings by that model are there: check whether embedding_models has lost it",
    }

    def details(rows: Rows) -> str:
        named = evidence.commonest(context, "embedding_model", rows)
        return ", ".join(f"{count:,} {f'of {model}' if model else 'without a model'}" for model, count in named)

    def message(count: int) -> str:
        what = f"{plural(count, 'diagram')} {verb(count)}"
        return f"{what} of an embedding model that the experiment does not use"

    rows = Rows("persistencediagram", f"SELECT d.id {found} AND {{}}", params | {"near": near})
    yield from evidence.findings_by_reason(context, rows, reasons, message, details)


NAMELESS = "(d.embedding_model IS NULL AND d.diagram_data IS NOT NULL)"
MISSPELT = "(coalesce(d.embedding_model, '') IN (SELECT value FROM json_each(:near)))"
EMBEDDED = (
    "EXISTS (SELECT 1 FROM invocation i JOIN embedding e ON e.invocation_id = i.id "
    "WHERE i.run_id = d.run_id AND e.embedding_model = d.embedding_model)"
)
"""SQL conditions under which a diagram `d` is not quarantined, although its model is not in the list."""


def cloud_of(context: RuleContext, width: int | None = None) -> clouds.StoredCloud:
    """Load the point cloud of the subject; `width` is that of the model's vectors, if it is known."""
    width = stored_width(context) if width is None else width
    return clouds.load_cloud(context.db, context.subject.target, context.kind(), width, context.space)


@dataclass(frozen=True, slots=True)
class Reading:
    """A diagram that is not NULL, decoded; `payload` is None if it cannot be decoded.

    `wrong` are its defects, `short` what is only a warning, as clauses that follow «it».
    """

    id: str
    payload: Payload | None
    wrong: tuple[str, ...]
    short: tuple[str, ...] = ()


def readings(context: RuleContext) -> Iterator[Reading]:
    """Yield the subject's diagrams that are not NULL, newest first, one in memory at a time.

    Small ones are kept for the next rule about the same subject.
    """
    known = ("diagram", *context.subject.target)
    if known == context.memo.get("diagram read last"):
        yield from context.memo["diagrams read last"]  # type: ignore[misc]
        return
    size = 0
    kept: list[Reading] = []
    for diagram in clouds.iterate_diagrams(context.db, context.subject.target):
        if diagram.payload is None:
            continue
        reading = reading_of(diagram.id, diagram.payload, context.generation.codec())
        size += sum(bars.nbytes for bars in reading.payload.diagram.bars) if reading.payload else 1
        kept = [*kept, reading] if size < KEPT else []
        yield reading
    if size < KEPT:
        context.memo.update({"diagram read last": known, "diagrams read last": kept})


def reading_of(row_id: str, stored_payload: bytes, codec: Codec) -> Reading:
    """Decode a payload and find its defects."""
    try:
        payload = codec.decode(stored_payload)
    except PayloadError as error:
        return Reading(row_id, None, (str(error),))
    return Reading(row_id, payload, tuple(problems(payload)), tuple(shortcomings(payload)))


@rule(
    "diagram-missing",
    scope=Scope.RUN_MODEL,
    description="the diagram exists and is not NULL",
    repair=RepairKind.COMPUTE,
    requires=EMBEDDING_RULES,
)
def diagram_missing(context: RuleContext) -> Iterator[Finding]:
    """Find subjects without a diagram. Only whether a payload exists is checked.

    Example: the diagram stage was killed. The run is missing in every result about diagrams. The diagram is computed,
    unless the point cloud is blocked.
    """
    run, model = target = context.subject.target
    payloads = clouds.has_payload(context.db, target)
    context.examined(len(payloads), "persistencediagram")
    if any(payloads):
        return
    if not payloads:
        # One that is NULL stays so: the research tool makes none where there is a row.
        if to_come := context.unfinished():
            raise NotApplicable(f"the diagram may still come: {to_come}")
        if context.retired(model):
            raise NotApplicable(f"no row of the whole file is by {model} (see embedding-model)")
    kind = context.kind()
    count = clouds.invocation_count(context.db, run, kind) if kind else 0
    if kind and not count:
        raise NotApplicable(f"the run has no {kind} invocation, so there is no point to compute a diagram from")
    if count and count < clouds.LEAST_POINTS:
        raise NotApplicable(f"the run has {plural(count, 'point')}, and the research tool makes no diagram of one")
    state = "is NULL" if payloads else "does not exist"
    cloud = cloud_of(context)
    message = f"the diagram of {plural(count, 'point')} {state}"
    if not cloud.complete:
        message = f"the diagram {state}, and its point cloud is blocked: {'; '.join(cloud.blocks.values())}"
    reason = forbidden(context, replacing=False)
    if payloads:
        ids = [diagram.id for diagram in clouds.iterate_diagrams(context.db, target)]
        finding = context.finding(message, table="persistencediagram", ids=ids, blocked_by=cloud.blocks)
    else:
        finding = context.finding(message, table="run", ids=[run], blocked_by=cloud.blocks)
    yield finding.without_repair(reason)


@rule(
    "diagram-duplicate",
    scope=Scope.RUN_MODEL,
    description="the diagram exists once",
    repair=RepairKind.KEEP_CURRENT,
    requires=(*EMBEDDING_RULES, "diagram-missing"),
)
def diagram_duplicate(context: RuleContext) -> Iterator[Finding]:
    """Find subjects with more than one diagram.

    Example: a stage was run twice on an old schema. A run then counts twice. All but the newest that is valid and
    current are quarantined.
    """
    where = "persistencediagram WHERE run_id = :run AND embedding_model = :model"
    count = context.scalar(f"SELECT count(*) FROM {where}")
    if not count:
        raise NotApplicable("there is no diagram (see diagram-missing)")
    context.examined(count, "persistencediagram")
    if count > 1:
        rows = Rows("persistencediagram", f"SELECT id FROM {where} ORDER BY {clouds.NEWEST_FIRST}", context.params)
        ids = [row_id for (row_id,) in context.db.execute(rows.sql, rows.params)]
        yield context.finding(f"there are {count:,} diagrams instead of 1", table=rows.table, ids=ids, rows=rows)


@rule(
    "diagram-valid",
    scope=Scope.RUN_MODEL,
    description="its payload reads without unpickling: three dimensions, shape (k, 2), no NaN, birth <= death, "
    "one essential H0 class, entropy and checksum that fit the bars",
    repair=RepairKind.COMPUTE,
    requires=(*EMBEDDING_RULES, "diagram-missing", "diagram-duplicate"),
    expensive=True,
)
def diagram_valid(context: RuleContext) -> Iterator[Finding]:
    """Decode each payload with `allow_pickle=False`, and check every invariant of a diagram.

    Example: a payload that was cut off, or a bar that dies before it is born. Results from it are wrong. It is computed
    again.
    """
    count = 0
    for reading in readings(context):
        count += 1
        if reading.wrong:
            clauses = "; it ".join(reading.wrong)
            message = f"the diagram is not valid: it {clauses}"
            finding = context.finding(message, table="persistencediagram", ids=[reading.id])
            yield finding.without_repair(forbidden(context, replacing=False))
        elif reading.short:
            message = f"the diagram is valid, but it {'; it '.join(reading.short)}"
            yield context.finding(message, table="persistencediagram", ids=[reading.id], warning=True)
    if not count:
        raise NotApplicable("there is no diagram to validate (see diagram-missing)")
    context.examined(count, "persistencediagram")


def forbidden(context: RuleContext, *, replacing: bool) -> str:
    """Explain why no diagram may be computed although the cloud is complete; empty if it may."""
    return upstream.upstream_damage(context.db, context.subject.target, context.generation, replacing=replacing)


@rule(
    "diagram-current",
    scope=Scope.RUN_MODEL,
    description="it is the diagram of the embeddings that are stored now",
    repair=RepairKind.COMPUTE,
    requires=(*EMBEDDING_RULES, "diagram-missing", "diagram-duplicate", "diagram-valid"),
    expensive=True,
)
def diagram_current(context: RuleContext) -> Iterator[Finding]:
    """Check by an H0 computation, and by the fingerprint if there is one, that a diagram is of the stored embeddings.

    Example: embeddings were replaced after the diagram had been computed. It then describes vectors that no longer
    exist. It is computed again.

    The finite deaths of H0 are the edge lengths of the cloud's minimum spanning tree, so that they identify the cloud
    (Robins, "Towards computing homology from finite approximations", 1999). For H1 and H2 only the range of the bars is
    checked.
    """
    cloud: clouds.StoredCloud | None = None
    unknown: list[str] = []
    count = 0
    for reading in readings(context):
        if reading.payload is None or reading.wrong:
            continue
        count += 1
        cloud = cloud or cloud_of(context)
        if not cloud.complete:
            unknown.append(reading.id)
            continue
        if clause := why_stale(reading.payload, cloud.points, context.space.bytes // 2):
            message = f"the diagram is stale: {clause}"
            finding = context.finding(message, table="persistencediagram", ids=[reading.id])
            yield finding.without_repair(forbidden(context, replacing=True))
    if not count:
        raise NotApplicable("there is no diagram that reads (see diagram-missing, diagram-valid)")
    context.examined(count, "persistencediagram")
    if cloud is not None and unknown:
        message = f"whether the diagram is current is unknown: {'; '.join(cloud.blocks.values())}"
        yield context.finding(message, table="persistencediagram", ids=unknown, blocked_by=cloud.blocks)
