"""Rules about the embedding models of an experiment and the width of their vectors."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator

from pytest_panic_doctor.database import clouds
from pytest_panic_doctor.database.json_columns import is_name, load_json
from pytest_panic_doctor.database.subject import Rows
from pytest_panic_doctor.formatting import plural, verb
from pytest_panic_doctor.rules.base import Finding, RuleContext, Scope, rule
from pytest_panic_doctor.rules.embedding import by_model
from pytest_panic_doctor.rules.experiment import finding_of_experiment, used_models


@rule(
    "embedding-model",
    scope=Scope.EXPERIMENT,
    description="the experiment lists each embedding model once, and every embedding is by one of them",
    manual_fix="correct the experiment's row, or the embeddings, by hand",
)
def embedding_model(context: RuleContext) -> Iterator[Finding]:
    """Find embeddings by models that the experiment does not list, and listed models without embeddings.

    Example: a model was added to the list after the embedding stage. If the list itself is damaged, the item is
    skipped. Nothing repairs this.
    """
    listed = Counter(used_models(context))
    for name, times in listed.items():
        if times > 1:
            yield finding_of_experiment(context, f"embedding_models lists {name} {times:,} times")
    found = by_model(context)
    context.examined(sum(int(str(count)) for *_, count in found), "embedding")
    others: Counter[str] = Counter()
    for by, _, count in found:
        if by not in listed:
            others[str(by) if is_name(by) else "none"] += int(str(count))
    for name in filter(context.retired, listed if not context.unfinished() else ()):
        text = f"no row of the whole file is by {name}, which the experiment names: they were deleted, or never made"
        # A model may be retired; an experiment without any embedding has lost them all.
        yield finding_of_experiment(context, text, warning=bool(found))
    if others:
        rows = Rows(
            "embedding",
            "SELECT e.id FROM run r JOIN invocation i ON i.run_id = r.id JOIN embedding e ON e.invocation_id = i.id "
            "WHERE r.experiment_id = :experiment AND (e.embedding_model IS NULL "
            "OR e.embedding_model NOT IN (SELECT value FROM json_each(:used)))",
            context.params | {"used": json.dumps(list(listed))},
        )
        yield from context.finding_for_rows(
            rows,
            lambda count: f"{plural(count, 'embedding')} {verb(count)} by a model that the experiment does not use",
            lambda: ", ".join(f"{count:,} by {name}" for name, count in others.most_common(5)),
        )


@rule(
    "embedding-width",
    scope=Scope.DATABASE,
    description="an embedding model's vectors are equally wide in all experiments",
    manual_fix="embed one of the experiments again with the research tool",
)
def embedding_width(context: RuleContext) -> Iterator[Finding]:
    """Compare the commonest vector width of each model between experiments.

    Example: one experiment was embedded by another version of a model. Its vectors cannot be compared with the others.
    Nothing repairs this. `embedding-vector` checks the single vectors against the width.
    """
    widths: dict[str, Counter[int]] = {}
    experiments: dict[tuple[str, int], list[str]] = {}
    for experiment, text in context.db.execute(
        "SELECT id, embedding_models FROM experimentconfig ORDER BY id"
    ).fetchall():
        models = load_json(text)
        for name in dict.fromkeys(filter(is_name, models if isinstance(models, list) else ())):
            if width := clouds.vector_width(context.db, experiment, name):
                widths.setdefault(name, Counter())[width] += 1
                experiments.setdefault((name, width), []).append(experiment)
    context.examined(sum(each.total() for each in widths.values()), "embedding model in an experiment")
    for name, counts in widths.items():
        usual = counts.most_common(1)[0][0]
        for width in sorted(counts.keys() - {usual}):
            ids = experiments[name, width]
            yield context.finding(
                f"{name} has {width:,} values in {plural(len(ids), 'experiment')} and {usual:,} in "
                f"{counts[usual]:,} {verb(counts[usual], 'other', 'others')}",
                table="experimentconfig",
                ids=ids,
            )
