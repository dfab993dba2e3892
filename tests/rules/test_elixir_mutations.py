"""The mutation score of the Elixir generation: each change of one cell is found, or harmless for a reason."""

from __future__ import annotations

import re
import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import closing

import pytest
from mutations import InMemory, Mutation, embedder_of, of_column

from pytest_panic_doctor.database.elixir_generation import ELIXIR
from pytest_panic_doctor.examination import manifest as manifests
from pytest_panic_doctor.examination.check import CheckOptions
from pytest_panic_doctor.examination.examiner import Examiner
from pytest_panic_doctor.examination.manifest import Entry
from pytest_panic_doctor.examination.parsing import model_types
from pytest_panic_doctor.rules import registry
from pytest_panic_doctor.rules.embedder import Embedder
from pytest_panic_doctor.session.demo.elixir_rows import ElixirBuilder, Walks
from pytest_panic_doctor.session.demo.tables import create_tables
from pytest_panic_doctor.topology.engines import load_engine

RULES = {name: rule for name, rule in registry().items() if name != "file-integrity" and rule.applies_to("elixir")}
ALIKE = 0.999999
SMALL = Walks((("SD35Medium", "Moondream"),), ("a red apple",), 2, 28)

HARMLESS = {
    r"\w+\.\w+_at: (a second|a day|a year|off by one|a value from|swapped).*|\w+\.\w+_at: bit 0 flipped": (
        "a possible time, which contradicts no other one; nothing is computed from times"
    ),
    r"\w+\.completed_at: NULL": (
        "an experiment is finished by the tool's next resume, and nothing is computed from the other times"
    ),
    r"experiments\.embedding_models: an item more": (
        "a model of which the whole file has no row may have been retired: a warning"
    ),
    r"experiments\.(networks|prompts|embedding_models): in other order": "the lists have no order",
    r"embeddings\.vector: bit [07] flipped": "the same output, embedded in another batch, differs as much",
    r"(persistence_diagrams|\w+_results|embedding_clusters)\.id: (off by one|bit 0 flipped|swapped.*)": (
        "another UUID for a row that no other row names"
    ),
    r"lyapunov_results\.lyapunov_data: (off by one|bit [067] .*flipped)": "a number moves by less than the tolerance",
    r"embedding_clusters\.(medoid_embedding_id|embedding_id): .*|embeddings\.id: swapped.*": (
        "a valid clustering of the same embeddings: which cluster each is in, only clustering again can tell"
    ),
}
"""Why a change that no rule finds does no harm. A reason that is never needed fails."""


@pytest.fixture(scope="module")
def db() -> Iterator[sqlite3.Connection]:
    """A small healthy database in memory, with the views that rules read."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as made:
        create_tables(made, ELIXIR)
        ElixirBuilder(made, load_engine(), 0, [SMALL], least=2).build()
        ELIXIR.create_views(made)
        yield made


@pytest.fixture(scope="module")
def embedder(db: sqlite3.Connection) -> Embedder:
    """The hook by which the database was embedded: what it does not know, it puts far from everything."""
    return embedder_of(db)


def first_rule(db: sqlite3.Connection, embedder: Embedder) -> str | None:
    """The first rule that fails, the expensive ones last; None where all is green."""
    options = CheckOptions(embedder=embedder, least_cosine=ALIKE)
    examiner = Examiner(InMemory(db), RULES, model_types([], []), options)

    def cost(entry: Entry) -> tuple[bool, bool]:
        return RULES[entry.rule].deep, RULES[entry.rule].expensive

    entries = sorted(examiner.database.read(manifests.build_manifest).entries(RULES.values()), key=cost)
    outcomes = ((each.rule, examiner.examine(RULES[each.rule], each.subject).status) for each in entries)
    return next((name for name, status in outcomes if status == "failed"), None)


def mutations(db: sqlite3.Connection) -> Iterator[Mutation]:
    """Each kind of change of each column of the file's own tables."""
    for table in ELIXIR.tables:
        for column in table.columns:
            yield from of_column(db, table.name, column.name, every_row=False)


def survey(db: sqlite3.Connection, embedder: Embedder) -> dict[Mutation, str | None]:
    """The rule that finds each change that SQLite lets pass, None where all is green."""
    found: dict[Mutation, str | None] = {}
    assert first_rule(db, embedder) is None
    for mutation in list(mutations(db)):
        db.text_factory = str
        db.execute("SAVEPOINT change")
        try:
            for statement, values in mutation.statements:
                db.execute(statement, values)
            found[mutation] = first_rule(db, embedder)
        except sqlite3.IntegrityError:
            continue
        finally:
            db.execute("ROLLBACK TO change")
            db.execute("RELEASE change")
    return found


def test_every_change_of_an_elixir_file_is_found_or_harmless(db: sqlite3.Connection, embedder: Embedder) -> None:
    found = survey(db, embedder)
    green = [mutation.name for mutation, rule in found.items() if rule is None]
    reasons = {
        name: next((why for pattern, why in HARMLESS.items() if re.fullmatch(pattern, name)), None) for name in green
    }
    assert [name for name, why in reasons.items() if why is None] == []
    assert set(reasons.values()) == set(HARMLESS.values()), "a reason that nothing needs"
    rules = Counter(found.values())
    assert rules["row-time"] > 50
    assert rules.total() - rules[None] > 400


@pytest.mark.slow
def test_an_unfinished_experiment_hides_no_change_of_what_is_there(db: sqlite3.Connection, embedder: Embedder) -> None:
    finished = survey(db, embedder)
    db.execute("SAVEPOINT unfinished")
    try:
        db.execute("UPDATE experiments SET completed_at = NULL")
        unfinished = survey(db, embedder)
    finally:
        db.execute("ROLLBACK TO unfinished")
        db.execute("RELEASE unfinished")
    hidden = [
        str(mutation)
        for mutation, rule in unfinished.items()
        if rule is None and finished.get(mutation) is not None and mutation.table != "experiments"
    ]
    assert hidden == []
