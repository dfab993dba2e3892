"""Rules about persistence diagrams."""

from __future__ import annotations

import json
from collections.abc import Iterator

from pytest_panic_doctor.rules.experiment import configuration, problem
from pytest_panic_doctor.rules.model import Finding, NothingToLookAt, RepairKind, Scope, View, plural, rule, verb
from pytest_panic_doctor.store.jsontext import loaded
from pytest_panic_doctor.store.subject import Rows
from pytest_panic_doctor.topology import stored
from pytest_panic_doctor.topology.current import difference
from pytest_panic_doctor.topology.payload import Payload, PayloadError, decode, problems
from pytest_panic_doctor.topology.threads import one_thread

EMBEDDING_RULES = ("embedding-type", "embedding-duplicate", "embedding-vector", "embedding-missing")


@rule(
    "diagram-model",
    scope=Scope.EXPERIMENT,
    sentence="there is no diagram for an embedding model that the experiment does not use",
    repair=RepairKind.QUARANTINE,
)
def diagram_model(view: View) -> Iterator[Finding]:
    """Diagrams of the experiment's runs whose model is not in `embedding_models`.

    A list that is damaged says nothing of what is used: by it, every diagram would be quarantined.
    """
    text = embedding_models(view)
    if wrong := problem("embedding_models", text):
        raise NothingToLookAt(f"which embedding models are used is unknown, since {wrong} (see experiment-config)")
    rows = Rows(
        "persistencediagram",
        "SELECT d.id FROM run r JOIN persistencediagram d ON d.run_id = r.id WHERE r.experiment_id = :experiment "
        "AND (d.embedding_model IS NULL OR d.embedding_model NOT IN (SELECT value FROM json_each(:used)))",
        view.params | {"used": json.dumps(loaded(text))},
    )

    def details() -> str:
        found = view.db.execute(
            f"SELECT embedding_model, count(*) FROM persistencediagram WHERE id IN ({rows.sql}) "
            "GROUP BY 1 ORDER BY 2 DESC",
            rows.params,
        ).fetchall()
        return ", ".join(f"{count:,} of {model or 'none'}" for model, count in found[:5])

    yield from view.offenders(
        rows,
        lambda count: (
            f"{plural(count, 'diagram')} {verb(count)} of an embedding model that the experiment does not use"
        ),
        details,
        "SELECT count(*) FROM run r JOIN persistencediagram d ON d.run_id = r.id WHERE r.experiment_id = :experiment",
    )


def embedding_models(view: View) -> object:
    """The experiment's embedding models, as its row has them."""
    row = configuration(view, "embedding_models")
    return row[0] if row else None


def subject_of(view: View) -> tuple[str, str]:
    """The run and the embedding model that a diagram item is about."""
    return str(view.subject.run), str(view.subject.embedding_model)


def cloud_of(view: View) -> stored.StoredCloud:
    """The point cloud that the subject's diagram is of."""
    run, model = subject_of(view)
    width = stored.width_of(view.db, str(view.subject.experiment), model)
    return stored.load(view.db, run, model, view.kind(), width)


def readable(view: View) -> list[tuple[str, Payload]]:
    """The id and the content of each of the subject's diagrams that reads and keeps every promise of a diagram.

    Raises `NothingToLookAt` where there is none.
    """
    kept: list[tuple[str, Payload]] = []
    for diagram in stored.diagrams(view.db, *subject_of(view)):
        try:
            payload = decode(diagram.payload) if diagram.payload is not None else None
        except PayloadError:
            continue
        if payload and not problems(payload):
            kept.append((diagram.id, payload))
    if not kept:
        raise NothingToLookAt("there is no diagram that reads (see diagram-missing, diagram-valid)")
    return kept


@rule(
    "diagram-missing",
    scope=Scope.RUN_MODEL,
    sentence="the diagram exists and is not NULL",
    repair=RepairKind.COMPUTE,
    after=EMBEDDING_RULES,
)
def diagram_missing(view: View) -> Iterator[Finding]:
    """Presence alone: a payload counts as there when it is not NULL."""
    run, model = subject_of(view)
    payloads = stored.has_payload(view.db, run, model)
    view.examined(len(payloads), "persistencediagram")
    if any(payloads):
        return
    kind = view.kind()
    count = stored.invocation_count(view.db, run, kind) if kind else 0
    if kind and not count:
        raise NothingToLookAt(f"the run has no {kind} invocation, so there is no point to compute a diagram from")
    state = "is NULL" if payloads else "does not exist"
    cloud = cloud_of(view)
    message = f"the diagram of {plural(count, 'point')} {state}"
    if not cloud.whole:
        message = f"the diagram {state}, and its point cloud is blocked: {'; '.join(cloud.blocks)}"
    if payloads:
        ids = [diagram.id for diagram in stored.diagrams(view.db, run, model)]
        yield view.finding(message, table="persistencediagram", ids=ids)
    else:
        yield view.finding(message, table="run", ids=[run])


@rule(
    "diagram-duplicate",
    scope=Scope.RUN_MODEL,
    sentence="the diagram exists once",
    repair=RepairKind.KEEP_CURRENT,
    after=(*EMBEDDING_RULES, "diagram-missing"),
)
def diagram_duplicate(view: View) -> Iterator[Finding]:
    """All diagrams of a (run, embedding model) that has more than one."""
    where = "persistencediagram WHERE run_id = :run AND embedding_model = :model"
    count = view.scalar(f"SELECT count(*) FROM {where}")
    if not count:
        raise NothingToLookAt("there is no diagram (see diagram-missing)")
    view.examined(count, "persistencediagram")
    if count > 1:
        rows = Rows("persistencediagram", f"SELECT id FROM {where} ORDER BY {stored.NEWEST}", view.params)
        ids = [row_id for (row_id,) in view.db.execute(rows.sql, rows.params)]
        yield view.finding(f"there are {count:,} diagrams instead of 1", table=rows.table, ids=ids, rows=rows)


@rule(
    "diagram-valid",
    scope=Scope.RUN_MODEL,
    sentence="its payload reads without unpickling: three dimensions, shape (k, 2), no NaN, birth <= death, "
    "one essential H0 class, entropy that fits the bars",
    repair=RepairKind.COMPUTE,
    after=(*EMBEDDING_RULES, "diagram-missing", "diagram-duplicate"),
    expensive=True,
)
def diagram_valid(view: View) -> Iterator[Finding]:
    """Each payload, decoded with `allow_pickle=False`."""
    found = [diagram for diagram in stored.diagrams(view.db, *subject_of(view)) if diagram.payload is not None]
    if not found:
        raise NothingToLookAt("there is no diagram to validate (see diagram-missing)")
    view.examined(len(found), "persistencediagram")
    for diagram in found:
        clauses = invalid(diagram.payload or b"")
        if clauses:
            yield view.finding(
                f"the diagram is not valid: it {'; it '.join(clauses)}", table="persistencediagram", ids=[diagram.id]
            )


def invalid(payload: bytes) -> list[str]:
    """What is wrong with a payload, as clauses that follow «it»."""
    try:
        return problems(decode(payload))
    except PayloadError as error:
        return [str(error)]


@rule(
    "diagram-current",
    scope=Scope.RUN_MODEL,
    sentence="it is the diagram of the embeddings that are stored now",
    repair=RepairKind.COMPUTE,
    after=(*EMBEDDING_RULES, "diagram-missing", "diagram-duplicate", "diagram-valid"),
    expensive=True,
)
def diagram_current(view: View) -> Iterator[Finding]:
    """By the fingerprint of the cloud where the diagram carries one, else by an H0 pass.

    The finite deaths of H0 are the edge lengths of the cloud's minimum spanning tree, so that these alone tell whether
    a diagram is of this cloud (Robins, "Towards computing homology from finite approximations", 1999).
    """
    diagrams = readable(view)
    view.examined(len(diagrams), "persistencediagram")
    cloud = cloud_of(view)
    if not cloud.whole:
        yield view.finding(
            f"whether the diagram is current cannot be told: {'; '.join(cloud.blocks)}",
            table="persistencediagram",
            ids=[row_id for row_id, _ in diagrams],
        )
        return
    for row_id, payload in diagrams:
        with one_thread():
            clause = difference(payload, cloud.points)
        if clause:
            yield view.finding(f"the diagram is stale: {clause}", table="persistencediagram", ids=[row_id])
