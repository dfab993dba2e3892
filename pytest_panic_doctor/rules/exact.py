"""Rules that compute or embed again what is stored: they tell what nothing else can, and take their time."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from pytest_panic_doctor.rules.embedding import unknown_kind
from pytest_panic_doctor.rules.model import Finding, NothingToLookAt, Scope, View, rule
from pytest_panic_doctor.topology import stored
from pytest_panic_doctor.topology.embedder import LEAST_COSINE, EmbedderFault, compare, known_in_run

SAMPLE = 20
"""Outputs of a run that are embedded again."""


@rule(
    "embedding-exact",
    scope=Scope.RUN_MODEL,
    sentence="the embedding hook makes of the run's outputs the vectors that are stored (a sample)",
    remedy="delete the embeddings that differ, or regenerate the run, with the research tool",
    deep=True,
)
def embedding_exact(view: View) -> Iterator[Finding]:
    """Only the embedder can tell that two vectors were swapped, or that an output was changed after it was embedded."""
    run, model, kind = str(view.subject.run), str(view.subject.embedding_model), view.kind()
    if kind is None:
        yield unknown_kind(view)
        return
    if view.embedder is None:
        raise NothingToLookAt("no embedding hook is installed (pytest_doctor_embed), so nothing was embedded again")
    if view.least_cosine == 0:
        raise NothingToLookAt("doctor_embed_cosine is 0, so the hook's vectors are not compared with stored ones")
    width = stored.width_of(view.db, str(view.subject.experiment), model)
    # Outputs that repeat each other are all taken: each has a vector of its own.
    samples = list(islice(known_in_run(view.db, run, model, kind, width), SAMPLE))
    if not samples:
        raise NothingToLookAt(f"the run has no usable embedding by {model} of an output that is there")
    least = view.least_cosine or LEAST_COSINE
    try:
        agreement = compare(view.embedder, model, samples)
    except EmbedderFault as fault:
        if "no embedding hook is installed" in str(fault):
            raise NothingToLookAt(str(fault)) from fault
        yield view.finding(f"nothing was compared: {fault}", table="run", ids=[run])
        return
    view.examined(len(samples), "embedding")
    if clause := agreement.clause(least):
        ids = [samples[place].embedding for place in agreement.differing(least)]
        yield view.finding(clause, table="embedding", ids=ids)
