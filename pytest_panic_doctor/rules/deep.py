"""Rules that compute or embed again what is stored. They find what no other rule can, and take long."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from pytest_panic_doctor.database import clouds
from pytest_panic_doctor.rules import recheck
from pytest_panic_doctor.rules.base import Finding, NotApplicable, RepairKind, RuleContext, Scope, rule
from pytest_panic_doctor.rules.diagram import EMBEDDING_RULES, cloud_of, forbidden, readings
from pytest_panic_doctor.rules.embedder import LEAST_COSINE, EmbedderFault, compare_vectors, known_in_run
from pytest_panic_doctor.rules.embedding import stored_width, unknown_kind
from pytest_panic_doctor.topology.diagram import Diagram
from pytest_panic_doctor.topology.diagram_comparison import diagram_differences
from pytest_panic_doctor.topology.native import DeadlineReached

SAMPLED_DIAGRAMS = 20
"""Number of outputs of a run that are embedded again."""


@rule(
    "diagram-exact",
    scope=Scope.RUN_MODEL,
    description="its bars of H0, H1 and H2 are those of the embeddings that are stored now, computed again",
    repair=RepairKind.COMPUTE,
    requires=(*EMBEDDING_RULES, "diagram-missing", "diagram-duplicate", "diagram-valid", "diagram-current"),
    deep=True,
)
def diagram_exact(context: RuleContext) -> Iterator[Finding]:
    """Compute the diagram again, and compare all bars.

    Example: a bar of H1 was changed to another value that the cloud could have. Conclusions from it would be wrong, and
    no other rule can see it. The diagram is computed again. One that the plugin itself computed of this cloud, with a
    correct checksum, is trusted unless `context.deep` is true.
    """
    known = [(each.id, each.payload) for each in readings(context) if each.payload and not each.wrong]
    if not known:
        raise NotApplicable("there is no diagram that reads (see diagram-missing, diagram-valid)")
    cloud = cloud_of(context)
    if not cloud.complete:
        raise NotApplicable(f"its point cloud is unknown: {'; '.join(cloud.blocks.values())}")
    doubtful = [(row, payload) for row, payload in known if context.deep or not recheck.own(payload, cloud.points)]
    if doubtful:
        if why := recheck.why_not_computable():
            raise NotApplicable(why)
        reason = forbidden(context, replacing=True)
        context.release()
        real = computed_diagram(context, cloud)
        for row, payload in doubtful:
            if clauses := "; ".join(clauses_of(payload.diagram, real)):
                message = f"the diagram is not that of its {len(cloud.points):,} points: {clauses}"
                yield context.finding(message, table="persistencediagram", ids=[row]).without_repair(reason)
    context.examined(len(known), "persistencediagram")


def computed_diagram(context: RuleContext, cloud: clouds.StoredCloud) -> Diagram:
    """Compute the diagram of a cloud.

    Raises:
        NotApplicable: It cannot be computed here.
        TooLarge: It does not fit into memory.
    """
    try:
        return recheck.compute_again(cloud.points, context.space, context.timeout)
    except DeadlineReached as late:
        why = f"its computation was {late}: give it more with --doctor-timeout"
        raise NotApplicable(why) from late
    except ValueError as error:
        raise NotApplicable(f"no diagram can be computed: {error}") from error


def clauses_of(stored_diagram: Diagram, real: Diagram) -> Iterator[str]:
    """Describe how a stored diagram differs from the real one, one clause for each dimension."""
    for each in diagram_differences(stored_diagram, real):
        which = f"{each.count:,} of {max(each.stored, each.real):,} bars in H{each.dimension}"
        numbers = "" if each.stored == each.real else f" ({each.stored:,} stored, {each.real:,} computed)"
        yield f"{which} differ, by up to {each.largest_gap:.2g}{numbers}"


@rule(
    "embedding-exact",
    scope=Scope.RUN_MODEL,
    description="the embedding hook makes of the run's outputs the vectors that are stored (a sample)",
    manual_fix="delete the embeddings that differ, or regenerate the run, with the research tool",
    deep=True,
)
def embedding_exact(context: RuleContext) -> Iterator[Finding]:
    """Embed some outputs again, and compare the vectors.

    Example: two vectors were swapped, or an output was changed after it was embedded. The trajectory is then wrong
    although each vector is valid. Nothing repairs this.
    """
    (run, model), kind = context.subject.target, context.kind()
    if kind is None:
        yield unknown_kind(context)
        return
    if context.embedder is None:
        raise NotApplicable("no embedding hook is installed (pytest_doctor_embed), so nothing was embedded again")
    if context.least_cosine == 0:
        raise NotApplicable("doctor_embed_cosine is 0, so the hook's vectors are not compared with stored ones")
    width = stored_width(context)
    # Outputs that repeat each other are all taken: each has a vector of its own.
    samples = list(islice(known_in_run(context.db, run, model, kind, width), SAMPLED_DIAGRAMS))
    if not samples:
        raise NotApplicable(f"the run has no usable embedding by {model} of an output that is there")
    least = context.least_cosine or LEAST_COSINE
    context.release()
    try:
        agreement = compare_vectors(context.embedder, model, samples)
    except EmbedderFault as fault:
        if "no embedding hook is installed" in str(fault):
            raise NotApplicable(str(fault)) from fault
        yield context.finding(f"nothing was compared: {fault}", table="run", ids=[run])
        return
    context.examined(len(samples), "embedding")
    if clause := agreement.clause(least):
        ids = [samples[place].embedding for place in agreement.differing(least)]
        yield context.finding(clause, table="embedding", ids=ids)
