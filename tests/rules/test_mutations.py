"""The mutation score: each change of one cell is found by a rule, or harmless for a reason that is written down.

`python tests/rules/test_mutations.py` prints the part of docs/reference/rules.md that this compares.
"""

from __future__ import annotations

import re
import sqlite3
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from mutations import FILES, InMemory, Mutation, embedder_of, mutations

from pytest_panic_doctor.database.schema import TABLES
from pytest_panic_doctor.examination import manifest as manifests
from pytest_panic_doctor.examination.check import CheckOptions
from pytest_panic_doctor.examination.examiner import Examiner
from pytest_panic_doctor.examination.manifest import Entry
from pytest_panic_doctor.examination.parsing import model_types
from pytest_panic_doctor.rules import registry
from pytest_panic_doctor.rules.embedder import Embedder

RULES = {name: rule for name, rule in registry().items() if name != "file-integrity" and rule.applies_to("python")}
"""All rules, deep ones too. SQLite itself wrote every change, so that the file is whole."""

DOCS = Path(__file__).parents[2] / "docs" / "reference" / "rules.md"
ALIKE = 0.999999
"""The hook here makes the very vectors that are stored."""

HARMLESS = {
    r".*_at: with a T": "the same time in another spelling",
    r".*_at: NULL": "files of older research tools leave times out, and nothing is computed from them",
    r"experimentconfig\.\w+_at: .*": (
        "the research tool sets it anew whenever it goes on, so that no other time has to fit"
    ),
    r"(invocation|embedding|persistencediagram|clusteringresult)\.\w+_at: (a (second|day|year|value)|off by one).*": (
        "a possible time, which contradicts no other one; nothing is computed from times"
    ),
    r"experimentconfig\.(networks|seeds|prompts|embedding_models): in other order": (
        "the same runs and embeddings: the lists have no order"
    ),
    r"run\.(id|initial_prompt): swapped.*": (
        "two runs that differ in their prompt alone: only the models that made the outputs can tell"
    ),
    r"embedding\.vector: bit [07] flipped": (
        "one value moves by less than 1/65,000 of itself; the same output, embedded in another batch, differs as much"
    ),
    r"persistencediagram\.diagram_data: off by one": (
        "the last byte of the archive, which counts the bytes of a comment; no array changes"
    ),
    r"(persistencediagram|embeddingcluster)\.id: (off by one|bit 0 flipped|swapped.*)": (
        "another UUID for a row that no other row names"
    ),
    r"clusteringresult\.(algorithm|parameters): (off by one|truncated|other case|bit 0 flipped)": (
        "a name that is free, and from which nothing is computed"
    ),
    r"embeddingcluster\.medoid_embedding_id: .*|embeddingcluster\.embedding_id: swapped.*|embedding\.id: swapped.*": (
        "a valid clustering of the same embeddings: which cluster each is in, only clustering again can tell"
    ),
}
"""Why a change that no rule finds does no harm, by what it changes. A reason that is never needed fails."""


@dataclass
class Score:
    """What became of the changes: by rule, or by reason."""

    found: Counter[str] = field(default_factory=Counter)
    harmless: dict[str, set[str]] = field(default_factory=dict)
    spared: int = 0
    refused: int = 0
    open: list[str] = field(default_factory=list)

    @property
    def total(self) -> int:
        """All changes that SQLite let pass."""
        return self.found.total() + self.spared + len(self.open)


def first_rule(db: sqlite3.Connection, embedder: Embedder) -> str | None:
    """The first rule that fails, the expensive ones last; None where all is green."""
    options = CheckOptions(embedder=embedder, least_cosine=ALIKE)
    examiner = Examiner(InMemory(db), RULES, model_types([], []), options)
    entries = examiner.database.read(manifests.build_manifest).entries(RULES.values())

    def cost(entry: Entry) -> tuple[bool, bool]:
        return RULES[entry.rule].deep, RULES[entry.rule].expensive

    found = (entry.rule for entry in sorted(entries, key=cost) if fails(examiner, entry))
    return next(found, None)


def fails(examiner: Examiner, entry: Entry) -> bool:
    """Whether an item fails."""
    return examiner.examine(RULES[entry.rule], entry.subject).status == "failed"


def policy(db: sqlite3.Connection, embedder: Embedder, mutation: Mutation, score: Score) -> None:
    """Make a change, ask the rules, and take it back."""
    db.text_factory = str
    db.execute("SAVEPOINT change")
    try:
        for statement, values in mutation.statements:
            db.execute(statement, values)
    except sqlite3.IntegrityError:
        score.refused += 1
    else:
        if rule := first_rule(db, embedder):
            score.found[rule] += 1
        elif reason := next((text for pattern, text in HARMLESS.items() if re.fullmatch(pattern, mutation.name)), None):
            score.harmless.setdefault(reason, set()).add(mutation.name)
            score.spared += 1
        else:
            score.open.append(str(mutation))
    finally:
        db.execute("ROLLBACK TO change")
        db.execute("RELEASE change")


def scored(every_row: bool = False) -> Score:
    """All changes of both files."""
    score = Score()
    for make in FILES.values():
        db = make()
        embedder = embedder_of(db)
        assert first_rule(db, embedder) is None
        for table in TABLES:
            for mutation in list(mutations(db, table, every_row)):
                policy(db, embedder, mutation, score)
        db.close()
    return score


def told(score: Score) -> Iterator[str]:
    """The part of docs/reference/rules.md about the score."""
    percent = 100 * (score.total - len(score.open)) // score.total
    yield (
        f"Of {score.total:,} changes, {score.found.total():,} are found and {score.spared:,} are harmless: "
        f"{percent} % are accounted for."
    )
    yield ""
    yield "| harmless change | why |"
    yield "|---|---|"
    for reason, names in sorted(score.harmless.items(), key=lambda pair: min(pair[1])):
        yield f"| {', '.join(summary(names))} | {reason} |"


def summary(names: set[str]) -> list[str]:
    """The columns of some changes, each with its kinds."""
    by_column: dict[str, list[str]] = {}
    for name in sorted(names):
        column, kind = name.split(": ", 1)
        by_column.setdefault(column, []).append(kind)
    return [f"`{column}`: {', '.join(each)}" for column, each in by_column.items()]


def test_every_change_is_found_or_harmless() -> None:
    score = scored()
    assert score.open == []
    assert set(score.harmless) == set(HARMLESS.values()), "a reason that nothing needs"
    lines = list(told(score))
    print(*lines, "", *(f"{count:,} found by {rule}" for rule, count in score.found.most_common()), sep="\n")
    assert "\n".join(lines) in DOCS.read_text(encoding="utf-8"), "print it with python tests/rules/test_mutations.py"


@pytest.mark.slow
def test_every_change_of_every_row_is_found_or_harmless() -> None:
    assert scored(every_row=True).open == []


if __name__ == "__main__":
    print(*told(scored()), sep="\n")
