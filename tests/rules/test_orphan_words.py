"""One orphan is said once, with all that it names in vain."""

from __future__ import annotations

from pathlib import Path

import pytest
from databases import build
from examine_item import examine

GONE = "f" * 32
COLUMNS = {
    "embedding": "embedding_id",
    "clustering result": "clustering_result_id",
    "medoid": "medoid_embedding_id",
}


@pytest.mark.parametrize(
    ("nouns", "said"),
    [
        (["embedding"], "1 names an embedding that does not exist"),
        (["medoid"], "1 names a medoid that does not exist"),
        (["embedding", "clustering result"], "1 names an embedding and a clustering result that do not exist"),
        (list(COLUMNS), "1 names an embedding and a clustering result and a medoid that do not exist"),
    ],
)
def test_an_orphan_is_said_once(tmp_path: Path, nouns: list[str], said: str) -> None:
    built = build(tmp_path / "x.sqlite")
    with built.open() as db:
        for noun in nouns:
            first = "SELECT min(rowid) FROM embeddingcluster"
            db.execute(f"UPDATE embeddingcluster SET {COLUMNS[noun]} = ? WHERE rowid = ({first})", (GONE,))
    (outcome,) = examine(built)["orphan-cluster"]
    assert said in outcome.findings[0].message
    assert outcome.findings[0].message.count("names") == 1
