"""The rule about cluster assignments."""

from __future__ import annotations

from collections.abc import Iterator

from pytest_panic_doctor.rules.model import Finding, RepairKind, Scope, View, plural, rule, verb
from pytest_panic_doctor.store.subject import Rows

NO_EMBEDDING = "NOT EXISTS (SELECT 1 FROM embedding e WHERE e.id = c.embedding_id)"
NO_RESULT = "NOT EXISTS (SELECT 1 FROM clusteringresult r WHERE r.id = c.clustering_result_id)"
NO_MEDOID = (
    "c.medoid_embedding_id IS NOT NULL AND NOT EXISTS (SELECT 1 FROM embedding e WHERE e.id = c.medoid_embedding_id)"
)


@rule(
    "orphan-cluster",
    scope=Scope.DATABASE,
    sentence="every cluster assignment names an embedding, a clustering result and, unless an outlier, a medoid "
    "that exist",
    repair=RepairKind.QUARANTINE,
)
def orphan_cluster(view: View) -> Iterator[Finding]:
    """Cluster assignments with a reference that dangles; each reference is looked up over its own index."""
    rows = Rows(
        "embeddingcluster",
        "SELECT id FROM embeddingcluster WHERE rowid IN ("
        + " UNION ".join(
            f"SELECT c.rowid FROM embeddingcluster c WHERE {lost}" for lost in (NO_EMBEDDING, NO_RESULT, NO_MEDOID)
        )
        + ")",
    )

    def message(count: int) -> str:
        total = view.scalar("SELECT count(*) FROM embeddingcluster")
        return f"{count:,} of {plural(total, 'cluster assignment')} {verb(count, 'is an orphan', 'are orphans')}"

    def details() -> str:
        lost = {
            noun: view.scalar(f"SELECT count(*) FROM embeddingcluster c WHERE {condition}")
            for noun, condition in (
                ("embedding", NO_EMBEDDING),
                ("clustering result", NO_RESULT),
                ("medoid", NO_MEDOID),
            )
        }
        return ", ".join(
            f"{count:,} {verb(count, 'names', 'name')} a lost {noun}" for noun, count in lost.items() if count
        )

    yield from view.offenders(rows, message, details, of="SELECT count(*) FROM embeddingcluster")
