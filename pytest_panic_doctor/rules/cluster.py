"""Rules about clusterings and cluster assignments."""

from __future__ import annotations

import re
from collections.abc import Iterator

from pytest_panic_doctor.database.json_columns import is_name, load_json
from pytest_panic_doctor.database.schema import is_unique
from pytest_panic_doctor.database.subject import Rows
from pytest_panic_doctor.database.timestamps import is_before, is_no_time
from pytest_panic_doctor.formatting import plural, verb
from pytest_panic_doctor.rules import evidence
from pytest_panic_doctor.rules.base import Finding, RepairKind, RuleContext, Scope, rule

NAMES = {
    "embedding": ("embedding_id", "embedding"),
    "clustering result": ("clustering_result_id", "clusteringresult"),
    "medoid": ("medoid_embedding_id", "embedding"),
}
"""The references of an assignment: noun -> (column, table of the id). Only the medoid may be NULL."""


WITH_ARTICLE = {noun: f"{'an' if noun == 'embedding' else 'a'} {noun}" for noun in NAMES}


def dangling(noun: str) -> str:
    """SQL condition: the assignment `c` has a reference of this kind without a row."""
    column, parent = NAMES[noun]
    missing = f"NOT EXISTS (SELECT 1 FROM {parent} p WHERE p.id = c.{column})"
    return f"c.{column} IS NOT NULL AND {missing}" if noun == "medoid" else missing


@rule(
    "orphan-cluster",
    scope=Scope.DATABASE,
    description="every cluster assignment names an embedding, a clustering result and, unless an outlier, a medoid "
    "that exist",
    repair=RepairKind.QUARANTINE,
)
def orphan_cluster(context: RuleContext) -> Iterator[Finding]:
    """Find cluster assignments whose embedding, clustering result or medoid does not exist.

    Example: embeddings were deleted, and their assignments stayed. Counts by cluster are then wrong. The rows are
    quarantined, unless the row that each reference means exists under another spelling.
    """
    context.examined(context.scalar("SELECT count(*) FROM embeddingcluster"), "embeddingcluster")
    nouns = [
        each
        for each in NAMES
        if context.scalar(f"SELECT EXISTS (SELECT 1 FROM embeddingcluster c WHERE {dangling(each)})")
    ]
    if not nouns:
        return
    found = [evidence.misspelt(context, "embeddingcluster", *NAMES[noun], dangling(noun)) for noun in nouns]
    ids_by_name = {name: row_id for each in found for name, row_id in (each or {}).items()}
    every = [f"SELECT c.rowid FROM embeddingcluster c WHERE {dangling(noun)}" for noun in nouns]
    sure = [
        f"{rows} AND (c.{NAMES[noun][0]} IS NULL OR CAST(c.{NAMES[noun][0]} AS TEXT) NOT IN ({evidence.LISTED}))"
        for noun, rows, known in zip(nouns, every, found, strict=True)
        if known is not None
    ]
    params = evidence.spelling_params(ids_by_name)
    taken = " UNION ".join(sure) or "SELECT NULL"

    def message(count: int) -> str:
        total = context.scalar("SELECT count(*) FROM embeddingcluster")
        return f"{count:,} of {plural(total, 'cluster assignment')} {verb(count, 'is an orphan', 'are orphans')}"

    def details() -> str:
        columns = ", ".join(f"({dangling(noun)})" for noun in nouns)
        where = " OR ".join(f"({dangling(noun)})" for noun in nouns)
        places = ", ".join(str(place + 1) for place in range(len(nouns)))
        counts = context.db.execute(
            f"SELECT {columns}, count(*) FROM embeddingcluster c WHERE {where} GROUP BY {places} ORDER BY {places}"
        ).fetchall()
        return ", ".join(
            f"{count:,} {verb(count, 'names', 'name')} "
            + " and ".join(WITH_ARTICLE[noun] for noun, gone in zip(nouns, row, strict=True) if gone)
            + f" that {'does' if sum(row) == 1 else 'do'} not exist"
            for *row, count in reversed(counts)
        )

    select = "SELECT id FROM embeddingcluster WHERE rowid IN"
    yield from context.finding_for_rows(Rows("embeddingcluster", f"{select} ({taken})", params), message, details)
    rest = Rows("embeddingcluster", f"{select} ({' UNION '.join(every)}) AND rowid NOT IN ({taken})", params)
    yield from evidence.unrepaired_finding(
        context, rest, message, f"{evidence.describe_spellings(ids_by_name)}; correct the reference, or that id"
    )


ALGORITHM = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")

WRONG_TIME = " OR ".join(
    [
        *(is_no_time(column) for column in ("created_at", "started_at", "completed_at")),
        f"coalesce({is_before('completed_at', 'started_at')}, 0)",
        f"coalesce({is_before('created_at', 'started_at')}, 0)",
    ]
)
OF_OTHER_MODEL = (
    "SELECT count(*) FROM embedding WHERE rowid IN (SELECT e.rowid FROM embeddingcluster c JOIN embedding e "
    "ON e.id = c.embedding_id WHERE c.clustering_result_id = :result) AND embedding_model IS NOT :used"
)
"""Reads the embeddings in the order of their pages, because each page holds one vector."""

WRONG_MEDOIDS = (
    "SELECT DISTINCT c.clustering_result_id AS result, c.medoid_embedding_id AS medoid FROM embeddingcluster c "
    "WHERE c.medoid_embedding_id IS NOT NULL"
)
OWN = (
    "(SELECT max(own.medoid_embedding_id IS NULL OR own.medoid_embedding_id = w.medoid) FROM embeddingcluster own "
    "WHERE own.embedding_id = w.medoid AND own.clustering_result_id = w.result)"
)
ELSEWHERE = (
    f"SELECT w.result, w.medoid FROM ({WRONG_MEDOIDS}) w WHERE coalesce({OWN}, 0) = 0 "
    "AND EXISTS (SELECT 1 FROM embedding e WHERE e.id = w.medoid) "
    "AND EXISTS (SELECT 1 FROM clusteringresult r WHERE r.id = w.result)"
)
"""Medoids that exist, but belong to another cluster."""


@rule(
    "cluster-consistent",
    scope=Scope.DATABASE,
    description="a clustering result has valid parameters and times, and assigns embeddings of its "
    "own model once each, "
    "to medoids of their own clusters",
    manual_fix="cluster again with the research tool",
)
def cluster_consistent(context: RuleContext) -> Iterator[Finding]:
    """Find assignments that contradict each other or their clustering.

    Example: a medoid that is assigned to another cluster. It would represent points that are not near it. Nothing
    repairs this: only the clustering algorithm knows the right cluster, so the clustering has to be run again.
    """
    results = context.db.execute(
        f"SELECT id, embedding_model, algorithm, parameters, {WRONG_TIME}, EXISTS (SELECT 1 FROM embeddingcluster c "
        "WHERE c.clustering_result_id = r.id) FROM clusteringresult r ORDER BY id"
    ).fetchall()
    context.examined(len(results), "clusteringresult")
    for result, model, algorithm, parameters, wrong_time, assigned in results:
        clauses = {
            "has no embedding model": not is_name(model),
            "has an algorithm whose name is invalid": not ALGORITHM.fullmatch(str(algorithm or "")),
            "has parameters that are not a JSON object": not isinstance(parameters, str)
            or not isinstance(load_json(parameters), dict),
            "has an invalid time, or completed or was created before it started": bool(wrong_time),
            "assigns no embedding": not assigned,
        }
        if wrong := [clause for clause, holds in clauses.items() if holds]:
            text = f"a clustering result by {model} {'; '.join(wrong)}"
            yield context.finding(text, table="clusteringresult", ids=[result], count=1)
    other_model = any(
        context.db.execute(OF_OTHER_MODEL, {"result": row[0], "used": row[1]}).fetchone()[0] for row in results
    )
    table = context.generation.real_name("embeddingcluster")
    unique = is_unique(context.db, table, ("embedding_id", "clustering_result_id"))
    for query, one, several in (
        *([ASSIGNED_OTHER_MODEL] if other_model else []),
        *([] if unique else [ASSIGNED_TWICE]),
        ASSIGNED_ELSEWHERE,
    ):
        yield from assignments(context, query, one, several)


def assignments(context: RuleContext, query: str, one: str, several: str) -> Iterator[Finding]:
    """Find the assignments of a query; `one` and `several` end the message for their number."""
    yield from context.finding_for_rows(
        Rows("embeddingcluster", query),
        lambda count: f"{plural(count, 'cluster assignment')} {verb(count, one, several)}",
    )


ASSIGNED_OTHER_MODEL = (
    "SELECT c.id FROM embeddingcluster c JOIN clusteringresult r ON r.id = c.clustering_result_id "
    "JOIN embedding e ON e.id = c.embedding_id WHERE e.embedding_model IS NOT r.embedding_model",
    "is of an embedding by another model than the clustering's",
    "are of embeddings by another model than the clustering's",
)
ASSIGNED_TWICE = (
    "SELECT c.id FROM embeddingcluster c JOIN (SELECT embedding_id, clustering_result_id FROM embeddingcluster "
    "GROUP BY embedding_id, clustering_result_id HAVING count(*) > 1) twice ON twice.embedding_id = c.embedding_id "
    "AND twice.clustering_result_id = c.clustering_result_id",
    "of embeddings that a clustering assigns twice",
    "of embeddings that a clustering assigns twice",
)
ASSIGNED_ELSEWHERE = (
    f"SELECT c.id FROM embeddingcluster c WHERE (c.clustering_result_id, c.medoid_embedding_id) IN ({ELSEWHERE})",
    "names a medoid that is not of its own cluster",
    "name a medoid that is not of its own cluster",
)
"""Queries for assignments that contradict their clustering, each with the end of a message for one and for several."""
