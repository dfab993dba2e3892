"""A database to repair, and what a test asks of it with connections of its own."""

from __future__ import annotations

import random
import sqlite3
import struct
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from pytest_panic_doctor.database.elixir_generation import ELIXIR
from pytest_panic_doctor.database.schema import TABLES as CANONICAL
from pytest_panic_doctor.database.schema import quote
from pytest_panic_doctor.repair import recover
from pytest_panic_doctor.session.demo.tables import create_tables

TABLES = (
    "experimentconfig",
    "run",
    "invocation",
    "embedding",
    "persistencediagram",
    "clusteringresult",
    "embeddingcluster",
)

# As in the files that the research tool writes, without the constraints that older files do not have.
SCHEMA = """
CREATE TABLE experimentconfig (id CHAR(32) NOT NULL, networks JSON NOT NULL, seeds JSON NOT NULL, prompts JSON NOT NULL,
    embedding_models JSON NOT NULL, max_length INTEGER NOT NULL, started_at DATETIME, completed_at DATETIME,
    PRIMARY KEY (id));
CREATE TABLE run (id CHAR(32) NOT NULL, network JSON NOT NULL, seed INTEGER NOT NULL, max_length INTEGER NOT NULL,
    initial_prompt VARCHAR NOT NULL, experiment_id CHAR(32) NOT NULL, PRIMARY KEY (id),
    FOREIGN KEY(experiment_id) REFERENCES experimentconfig (id) ON DELETE CASCADE);
CREATE INDEX ix_run_experiment_id ON run (experiment_id);
CREATE TABLE invocation (id CHAR(32) NOT NULL, started_at DATETIME, completed_at DATETIME, model VARCHAR NOT NULL,
    type VARCHAR(5) NOT NULL, seed INTEGER NOT NULL, run_id CHAR(32) NOT NULL, sequence_number INTEGER NOT NULL,
    input_invocation_id CHAR(32), output_text VARCHAR, output_image_data BLOB, PRIMARY KEY (id),
    FOREIGN KEY(run_id) REFERENCES run (id), FOREIGN KEY(input_invocation_id) REFERENCES invocation (id));
CREATE INDEX ix_invocation_input_invocation_id ON invocation (input_invocation_id);
CREATE INDEX ix_invocation_run_id ON invocation (run_id);
CREATE TABLE persistencediagram (id CHAR(32) NOT NULL, started_at DATETIME NOT NULL, completed_at DATETIME,
    diagram_data BLOB, run_id CHAR(32) NOT NULL, embedding_model VARCHAR NOT NULL, PRIMARY KEY (id),
    FOREIGN KEY(run_id) REFERENCES run (id));
CREATE INDEX ix_persistencediagram_run_id ON persistencediagram (run_id);
CREATE TABLE embedding (id CHAR(32) NOT NULL, started_at DATETIME NOT NULL, completed_at DATETIME,
    invocation_id CHAR(32) NOT NULL, embedding_model VARCHAR NOT NULL, vector BLOB, PRIMARY KEY (id),
    CONSTRAINT unique_invocation_embedding_model UNIQUE (invocation_id, embedding_model),
    FOREIGN KEY(invocation_id) REFERENCES invocation (id));
CREATE INDEX ix_embedding_invocation_id ON embedding (invocation_id);
CREATE TABLE clusteringresult (id CHAR(32) NOT NULL, created_at DATETIME NOT NULL, started_at DATETIME NOT NULL,
    completed_at DATETIME, embedding_model VARCHAR NOT NULL, algorithm VARCHAR NOT NULL, parameters JSON NOT NULL,
    PRIMARY KEY (id));
CREATE TABLE embeddingcluster (id CHAR(32) NOT NULL, embedding_id CHAR(32) NOT NULL,
    clustering_result_id CHAR(32) NOT NULL, medoid_embedding_id CHAR(32), PRIMARY KEY (id),
    CONSTRAINT unique_embedding_clustering UNIQUE (embedding_id, clustering_result_id),
    FOREIGN KEY(embedding_id) REFERENCES embedding (id),
    FOREIGN KEY(clustering_result_id) REFERENCES clusteringresult (id),
    FOREIGN KEY(medoid_embedding_id) REFERENCES embedding (id));
CREATE INDEX ix_embeddingcluster_embedding_id ON embeddingcluster (embedding_id);
CREATE INDEX ix_embeddingcluster_clustering_result_id ON embeddingcluster (clustering_result_id);
CREATE INDEX ix_embeddingcluster_medoid_embedding_id ON embeddingcluster (medoid_embedding_id);
"""

TIME = "2025-08-12 09:30:00.123456"
Dump = dict[str, list[tuple[int, bytes]]]
"""table -> (rowid, every value with its type, to the byte), in rowid order."""


def name(kind: int, number: int) -> str:
    """An id of 32 hex digits."""
    return f"{kind:04x}{number:028x}"


def build(path: Path, lengths: tuple[int, ...] = (9, 8, 7, 6), journal_mode: str = "delete") -> None:
    """A run per length, the last one an orphan; images on overflow pages; one clustering over all embeddings."""
    noise = random.Random(1)
    with closing(sqlite3.connect(path)) as db, db:
        db.execute(f"PRAGMA journal_mode = {journal_mode}")
        db.executescript(SCHEMA)
        db.execute(
            "INSERT INTO experimentconfig VALUES (?, '[[\"a\"]]', '[-1]', '[\"p\"]', '[\"Nomic\"]', 9, ?, NULL)",
            (name(1, 1), TIME),
        )
        db.execute(
            "INSERT INTO clusteringresult VALUES (?, ?, ?, ?, 'Nomic', 'hdbscan', '{}')", (name(6, 1), TIME, TIME, TIME)
        )
        number = 0
        for run, length in enumerate(lengths):
            owner = name(1, 1) if run < len(lengths) - 1 else name(1, 99)
            db.execute("INSERT INTO run VALUES (?, '[\"a\"]', ?, ?, 'a prompt', ?)", (name(2, run), run, length, owner))
            db.execute(
                "INSERT INTO persistencediagram VALUES (?, ?, ?, ?, ?, 'Nomic')",
                (name(5, run), TIME, TIME, noise.randbytes(700), name(2, run)),
            )
            for position in range(length):
                number += 1
                image = noise.randbytes(9_000) if position % 2 else None
                db.execute(
                    "INSERT INTO invocation VALUES (?, ?, ?, 'a', ?, 0, ?, ?, ?, ?, ?)",
                    (
                        *(name(3, number), TIME, TIME, "IMAGE" if image else "TEXT", name(2, run), position),
                        *(name(3, number - 1) if position else None, None if image else f"text {number} é", image),
                    ),
                )
                db.execute(
                    "INSERT INTO embedding VALUES (?, ?, ?, ?, 'Nomic', ?)",
                    (name(4, number), TIME, TIME, name(3, number), noise.randbytes(3072)),
                )
                db.execute(
                    "INSERT INTO embeddingcluster VALUES (?, ?, ?, ?)",
                    (name(7, number), name(4, number), name(6, 1), name(4, 1 + number % 3) if number % 4 else None),
                )


def build_elixir(path: Path, lengths: tuple[int, ...] = (9, 8, 7, 6), journal_mode: str = "wal") -> None:
    """The same rows in the tables of the Elixir generation, with its references declared and few of them indexed."""
    source = path.with_name(f"{path.name}.python")
    build(source, lengths)
    with closing(sqlite3.connect(path)) as db:
        db.execute(f"PRAGMA journal_mode = {journal_mode}")
        create_tables(db, ELIXIR)
        db.execute("ATTACH ? AS python", (str(source),))
        for table in ELIXIR.tables:
            if table.canonical in TABLES:
                values = {each.name: ADDED.get(each.name, "") for each in table.columns}
                for name in CANONICAL[table.canonical]:
                    values[table.column_of(name) or ""] = "lower(type)" if name == "type" else quote(name)
                values = {name: value for name, value in values.items() if name and value}
                db.execute(
                    f"INSERT INTO main.{table.name} ({', '.join(map(quote, values))}) SELECT "
                    f"{', '.join(values.values())} FROM python.{table.canonical} ORDER BY rowid"
                )
        db.commit()
    source.unlink()


ADDED = {"inserted_at": f"'{TIME}'", "updated_at": f"'{TIME}'", "num_runs": "4", "run_number": "seed", "layer": "0"}
"""The SQL of columns that only the Elixir generation has."""


@dataclass(frozen=True)
class SmallDatabase:
    """A database file, and what tests ask of it with connections of their own."""

    path: Path

    def connect(self) -> sqlite3.Connection:
        """Somebody else's connection, in autocommit mode."""
        return sqlite3.connect(self.path, isolation_level=None)

    def do(self, sql: str, *parameters: object) -> None:
        """One statement of somebody else."""
        with closing(self.connect()) as db:
            db.execute(sql, parameters)

    def values(self, sql: str, *parameters: object) -> list[object]:
        """The first column of a query."""
        with closing(self.connect()) as db:
            return [row[0] for row in db.execute(sql, parameters)]

    def dump(self) -> Dump:
        """All rows of all tables, typed and to the byte."""
        with closing(self.connect()) as db:
            names = [row[0] for row in db.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY 1")]
            return {t: [(int(str(row[0])), image(row[1:])) for row in typed(db, t, "rowid")] for t in names}

    def schema(self) -> list[tuple[object, ...]]:
        """Everything about the file that no repair may change."""
        with closing(self.connect()) as db:
            pragmas = ("journal_mode", "user_version", "application_id", "auto_vacuum", "page_size", "encoding")
            return [
                *db.execute("SELECT type, name, sql FROM sqlite_master ORDER BY name"),
                *(db.execute(f"PRAGMA {pragma}").fetchone() for pragma in pragmas),
            ]

    def journalled(self) -> set[tuple[str, bytes]]:
        """(table, row) of every before-image."""
        path = self.path.with_name(f"{self.path.stem}.doctor.sqlite")
        if not path.exists():
            return set()
        with closing(sqlite3.connect(path)) as db:
            if not db.execute("SELECT 1 FROM sqlite_master").fetchone():
                return set()
            layouts = db.execute("SELECT table_name, images FROM layouts").fetchall()
            return {(table, image(row[5:])) for table, images in layouts for row in typed(db, images, "rowid")}

    def orphans(self) -> set[tuple[str, str]]:
        """(table, id) of rows whose declared reference dangles."""
        references = (
            ("run", "experiment_id", "experimentconfig"),
            ("invocation", "run_id", "run"),
            ("persistencediagram", "run_id", "run"),
            ("embedding", "invocation_id", "invocation"),
            ("embeddingcluster", "embedding_id", "embedding"),
            ("embeddingcluster", "medoid_embedding_id", "embedding"),
            ("embeddingcluster", "clustering_result_id", "clusteringresult"),
        )
        return {
            (child, str(row))
            for child, column, parent in references
            for row in self.values(
                f"SELECT id FROM {child} c WHERE {column} IS NOT NULL"
                f" AND NOT EXISTS (SELECT 1 FROM {parent} p WHERE p.id = c.{column})"
            )
        }

    def check_nothing_lost(self, original: Dump) -> None:
        """Every original row is in the database or in the journal, byte for byte, and the file is whole."""
        now, kept = self.dump(), self.journalled()
        for table, rows in original.items():
            here = {data for _, data in now[table]}
            assert [data for _, data in rows if data not in here and (table, data) not in kept] == []
        assert self.values("PRAGMA integrity_check") == ["ok"]

    def dangling(self) -> set[tuple[object, ...]]:
        """What SQLite's own check of the declared references finds."""
        with closing(self.connect()) as db:
            return set(db.execute("PRAGMA foreign_key_check").fetchall())

    def journal_agrees(self) -> None:
        """After settling, no step is open, and a second look settles nothing more."""
        recover(self.path)
        assert recover(self.path) == []


def typed(db: sqlite3.Connection, table: str, rowid: str) -> Iterator[tuple[object, ...]]:
    """Rows as rowid, then type and bytes of each column; text is never decoded."""
    columns = [row[1] for row in db.execute(f'PRAGMA table_info("{table}")')]
    shown = ", ".join(
        f"""typeof("{c}"), CASE typeof("{c}") WHEN 'text' THEN CAST("{c}" AS BLOB) ELSE "{c}" END""" for c in columns
    )
    yield from db.execute(f'SELECT {rowid}, {shown} FROM "{table}" ORDER BY 1')


def image(row: tuple[object, ...]) -> bytes:
    """One bytes value that is equal for rows that are equal in every type and byte."""
    return b"|".join(struct.pack("<d", value) if isinstance(value, float) else repr(value).encode() for value in row)
