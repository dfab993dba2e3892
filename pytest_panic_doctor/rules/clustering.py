"""Rules about clusterings in layers, which only the Elixir generation of the research tool makes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

from pytest_panic_doctor.database.elixir_generation import ELIXIR
from pytest_panic_doctor.database.json_columns import load_json
from pytest_panic_doctor.database.schema import columns_of
from pytest_panic_doctor.formatting import plural, verb
from pytest_panic_doctor.rules.base import Finding, NotApplicable, RuleContext, Scope, rule
from pytest_panic_doctor.rules.cluster import assignments
from pytest_panic_doctor.rules.experiment import is_seed

RESULT_TABLE = "clusteringresult"
FLAT = "hdbscan"
"""The algorithm of older clusterings, which have one layer, and parameters of their own."""

LEAST_CLUSTERED = 16
"""Embeddings of a model that the research tool clusters."""

AGAIN = "cluster again with the research tool: mix cluster.recompute"

ORPHANS = ("orphan-run", "orphan-invocation", "orphan-embedding", "orphan-cluster")
"""The rules whose repairs take assignments away."""

Group = tuple[object, object]
"""The embedding model and the algorithm of a clustering."""


@dataclass(frozen=True, slots=True)
class Layer:
    """A row of a clustering in layers: `parameters` as they are stored."""

    id: str
    group: Group
    layer: object
    parameters: object
    times: tuple[object, object]

    def number(self, key: str) -> int | None:
        """A whole number among the parameters; None where it is none."""
        value = load_json(self.parameters)
        found = value.get(key) if isinstance(value, dict) else None
        return cast("int", found) if is_seed(found) and cast("int", found) >= 0 else None


def layers(context: RuleContext) -> list[Layer]:
    """All layers, by model; raises `NotApplicable` where there is none."""
    if "layer" not in columns_of(context.db, RESULT_TABLE):
        raise NotApplicable("the file's clusterings have no layers (see schema)")
    found = context.db.execute(
        "SELECT id, embedding_model, algorithm, layer, parameters, started_at, completed_at "
        f"FROM {RESULT_TABLE} WHERE algorithm IS NOT '{FLAT}' ORDER BY embedding_model, algorithm, layer, id"
    )
    rows = [
        Layer(row_id, (model, algorithm), layer, parameters, (started, completed))
        for row_id, model, algorithm, layer, parameters, started, completed in found
    ]
    if not rows:
        raise NotApplicable("there is no clustering in layers")
    context.examined(len(rows), RESULT_TABLE)
    return rows


def by_group(rows: list[Layer]) -> dict[Group, list[Layer]]:
    """The layers of each clustering."""
    found: dict[Group, list[Layer]] = {}
    for each in rows:
        found.setdefault(each.group, []).append(each)
    return found


@rule(
    "clustering-layers",
    scope=Scope.DATABASE,
    description="Elixir: the layers of a clustering are 0 … n_layers-1, each once, with equal parameters and times",
    manual_fix=AGAIN,
    generation=ELIXIR.key,
)
def clustering_layers(context: RuleContext) -> Iterator[Finding]:
    """What a clustering that was interrupted leaves: some of its layers."""
    for (model, _), group in by_group(layers(context)).items():
        wanted = group[0].number("n_layers")
        stored_layers = [each.layer for each in group]
        clauses = []
        if wanted is None:
            clauses.append("does not say how many layers it has (n_layers)")
        elif stored_layers != list(range(wanted)):
            clauses.append(f"has the layers {', '.join(map(str, stored_layers[:20]))} instead of 0 … {wanted - 1:,}")
        if len({each.parameters for each in group}) > 1:
            clauses.append("has layers with other parameters than the others")
        if len({each.times for each in group}) > 1:
            clauses.append("has layers with other times than the others")
        if clauses:
            text = f"the clustering of {model} {'; it '.join(clauses)}"
            yield context.finding(text, table=RESULT_TABLE, ids=[each.id for each in group])


@rule(
    "clustering-complete",
    scope=Scope.DATABASE,
    description="Elixir: each layer of a clustering assigns as many embeddings as it was made of (n_embeddings)",
    manual_fix=AGAIN,
    requires=ORPHANS,
    generation=ELIXIR.key,
)
def clustering_complete(context: RuleContext) -> Iterator[Finding]:
    """One pass over all assignments: there is no index on their clustering."""
    rows = layers(context)
    found = "SELECT clustering_result_id, count(*) FROM embeddingcluster GROUP BY clustering_result_id"
    counts = dict(context.db.execute(found).fetchall())
    context.examined(sum(counts.get(each.id, 0) for each in rows), "embeddingcluster")
    for each in rows:
        wanted, count = each.number("n_embeddings"), counts.get(each.id, 0)
        if count == wanted:
            continue
        made = "does not say of how many embeddings it was made" if wanted is None else f"was made of {wanted:,}"
        text = f"layer {each.layer} of the clustering of {each.group[0]} assigns {plural(count, 'embedding')}"
        text += f", and {made}"
        yield context.finding(text, table=RESULT_TABLE, ids=[each.id])


@rule(
    "cluster-medoid",
    scope=Scope.DATABASE,
    description="Elixir: the medoid of a cluster in a layer is a member of it",
    manual_fix=AGAIN,
    requires=ORPHANS,
    generation=ELIXIR.key,
)
def cluster_medoid(context: RuleContext) -> Iterator[Finding]:
    """A medoid's own assignment names itself: so it is of the same clustering, and by the same model.

    `cluster-consistent` accepts a medoid that is an outlier, since older clusterings may have such.
    """
    layers(context)
    medoids = context.scalar(f"SELECT count(*) FROM ({MEDOIDS})")
    if not medoids:
        raise NotApplicable("all cluster assignments are of outliers, which have no medoid")
    context.examined(medoids, "embeddingcluster")
    yield from assignments(
        context,
        f"SELECT c.id FROM embeddingcluster c WHERE (c.clustering_result_id, c.medoid_embedding_id) IN "
        f"(SELECT m.result, m.medoid FROM ({MEDOIDS}) m WHERE NOT EXISTS (SELECT 1 FROM embeddingcluster own WHERE "
        "own.embedding_id = m.medoid AND own.clustering_result_id = m.result AND own.medoid_embedding_id = m.medoid))",
        "names a medoid that is not a member of the cluster",
        "name a medoid that is not a member of the cluster",
    )


MEDOIDS = (
    "SELECT DISTINCT c.clustering_result_id AS result, c.medoid_embedding_id AS medoid FROM embeddingcluster c "
    "WHERE c.medoid_embedding_id IS NOT NULL AND c.clustering_result_id IN "
    f"(SELECT id FROM {RESULT_TABLE} WHERE algorithm IS NOT '{FLAT}')"
)
"""The clusters of all layers, each by its medoid."""


@rule(
    "clustering-current",
    scope=Scope.DATABASE,
    description="Elixir: a clustering is of all embeddings that its model has (otherwise a warning)",
    manual_fix=AGAIN,
    generation=ELIXIR.key,
)
def clustering_current(context: RuleContext) -> Iterator[Finding]:
    """Embeddings that were made later are in no clustering until the next one: that is legitimate, so a warning."""
    groups = by_group(layers(context))
    counted = "SELECT embedding_model, count(*) FROM embedding GROUP BY embedding_model ORDER BY embedding_model"
    counts = dict(context.db.execute(counted).fetchall())
    for (model, _), group in groups.items():
        of, now = group[0].number("n_embeddings"), counts.get(model, 0)
        if of is not None and of != now:
            text = f"the clustering of {model} was made of {plural(of, 'embedding')}, and there {verb(now)} {now:,} now"
            yield context.finding(text, table=RESULT_TABLE, ids=[each.id for each in group], warning=True)
    clustered = {model for model, _ in groups}
    for model, now in counts.items():
        if model not in clustered and now >= LEAST_CLUSTERED:
            text = f"there is no clustering of the {now:,} embeddings by {model}, though other models have one"
            yield context.finding(text, table="embedding", count=now, warning=True)
