"""`--doctor-journal-export`: what is in quarantine, in a file that a person can open; every value as it was."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_panic_doctor.database.subject import Rows, Subject
from pytest_panic_doctor.errors import BadOption
from pytest_panic_doctor.examination.settings import Settings
from pytest_panic_doctor.repair import Writer, undo
from pytest_panic_doctor.repair.journal import export as exports
from pytest_panic_doctor.repair.journal.choice import EVERY, RepairFilter
from pytest_panic_doctor.repair.journal.export import export
from pytest_panic_doctor.session.journal_commands import export_lines

if TYPE_CHECKING:
    from small_database import SmallDatabase

FOURTH = f"{3:04x}{4:028x}"
"""An invocation with a text that is not UTF-8, of which an embedding and its cluster assignment depend."""


@pytest.fixture
def quarantined(small_database: SmallDatabase, writer: Writer) -> SmallDatabase:
    """Repair 1 took an invocation with what depends on it, 2 an embedding, with one more column then; 3 is undone."""
    small_database.do("UPDATE invocation SET output_text = CAST(x'61ff62' AS TEXT), seed = 2.5 WHERE id = ?", FOURTH)
    small_database.do("UPDATE invocation SET input_invocation_id = NULL WHERE input_invocation_id = ?", FOURTH)
    small_database.do("UPDATE embeddingcluster SET medoid_embedding_id = NULL")
    take(writer, "invocation", FOURTH)
    small_database.do("ALTER TABLE embedding ADD COLUMN doctor_rule TEXT DEFAULT 'mine'")
    take(writer, "embedding", f"{4:04x}{9:028x}")
    take(writer, "run", f"{2:04x}{3:028x}")
    undo(small_database.path, 3)
    return small_database


def take(writer: Writer, table: str, key: str) -> None:
    done = writer.quarantine(f"bad-{table}", Subject(), Rows(table, "SELECT :id AS id", {"id": key}))
    assert done is not None


def test_sqlite_has_each_table_and_every_value_as_it_was(quarantined: SmallDatabase, tmp_path: Path) -> None:
    target = tmp_path / "taken.sqlite"
    steps: list[tuple[int, int]] = []
    counts = export(quarantined.path, target, EVERY, lambda done, of: steps.append((done, of)))
    assert counts == {"embedding": 2, "embeddingcluster": 2, "invocation": 1}
    assert steps[-1] == (5, 5)
    with closing(sqlite3.connect(target)) as db:
        db.text_factory = bytes
        assert db.execute(
            "SELECT doctor_repair, doctor_rule, id, output_text, typeof(output_text), seed, output_image_data "
            "FROM invocation"
        ).fetchall() == [(1, b"bad-invocation", FOURTH.encode(), b"a\xffb", b"text", 2.5, image_of(quarantined))]
        query = "SELECT doctor_repair, doctor_rule_, doctor_rule, length(vector) FROM embedding ORDER BY 1"
        assert db.execute(query).fetchall() == [
            (1, b"bad-invocation", None, 3072),
            (2, b"bad-embedding", b"mine", 3072),
        ]
        assert db.execute("PRAGMA integrity_check").fetchall() == [(b"ok",)]
    assert not list(tmp_path.glob(".doctor*"))


def image_of(quarantined: SmallDatabase) -> bytes:
    """The image of the invocation, as the journal has it."""
    with closing(sqlite3.connect(quarantined.path.with_name("trajectory_data.doctor.sqlite"))) as journal:
        ((table,),) = journal.execute("SELECT images FROM layouts WHERE table_name = 'invocation'")
        ((image,),) = journal.execute(f"SELECT output_image_data FROM {table} WHERE id = ?", (FOURTH,))
        return bytes(image)


def test_parquet_has_all_tables_in_one_file(quarantined: SmallDatabase, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    target = tmp_path / "taken.parquet"
    assert sum(export(quarantined.path, target, EVERY).values()) == 5
    rows = parquet.read_table(target).to_pylist()
    assert sorted((row["doctor_table"], row["doctor_repair"]) for row in rows) == [
        *(("embedding", 1), ("embedding", 2), ("embeddingcluster", 1), ("embeddingcluster", 2), ("invocation", 1))
    ]
    (invocation,) = [row for row in rows if row["doctor_table"] == "invocation"]
    assert (invocation["id"], invocation["seed"], invocation["output_text"]) == (FOURTH, 2.5, "a\\xffb")
    assert invocation["vector"] is None
    assert {type(row["vector"]) for row in rows if row["doctor_table"] == "embedding"} == {bytes}
    assert [row["doctor_rule"] for row in rows if row["doctor_table"] == "embedding"] == [None, "mine"]


def test_a_filter_chooses_and_an_export_of_nothing_writes_no_file(quarantined: SmallDatabase, tmp_path: Path) -> None:
    one = export(quarantined.path, tmp_path / "one.sqlite", RepairFilter(rules=("bad-embedding",)))
    assert one == {"embedding": 1, "embeddingcluster": 1}
    settings = Settings(quarantined.path, rules=("bad-run",))
    (said,) = export_lines(settings, tmp_path / "none.sqlite")
    assert said.startswith("nothing is in quarantine: no file was written")
    assert not (tmp_path / "none.sqlite").exists()
    (said,) = export_lines(Settings(quarantined.path), tmp_path / "all.sqlite")
    assert said.startswith("wrote 5 rows: 2 embeddings, 2 cluster assignments, 1 invocation, to ")


def test_what_cannot_be_written_is_refused_before(
    quarantined: SmallDatabase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "there.sqlite").write_text("mine")
    for name, why in (
        ("x.csv", "no known suffix: end it in .sqlite or .parquet"),
        ("there.sqlite", "exists, and an export replaces nothing"),
        (str(quarantined.path), "exists, and an export replaces nothing"),
        ("none/x.sqlite", "has no folder"),
    ):
        with pytest.raises(BadOption, match=why):
            export(quarantined.path, tmp_path / name, EVERY)
    assert (tmp_path / "there.sqlite").read_text() == "mine"
    monkeypatch.setattr(exports, "find_spec", lambda _: None)
    with pytest.raises(BadOption, match="needs pyarrow, which is not installed"):
        export(quarantined.path, tmp_path / "x.parquet", EVERY)
