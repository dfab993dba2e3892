"""One change of one cell at a time, in small healthy databases that are held in memory: what mutation testing asks."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TypeVar

import numpy as np
from databases import DDL, LATER, LENGTH, MODELS, TIME, add_experiment, add_run, outputs_of, uid
from numpy.typing import NDArray
from page_images import jpeg, picture

from pytest_panic_doctor.database.connection import Database
from pytest_panic_doctor.database.schema import TABLES

T = TypeVar("T")
Cell = str | bytes | int | float | None

JSON = ("networks", "seeds", "prompts", "embedding_models", "network", "parameters")
"""Columns that hold JSON."""

TIMES = ("started_at", "completed_at", "created_at", "inserted_at", "updated_at")


def empty() -> sqlite3.Connection:
    """The tables as in older files, which allow NULL and duplicates almost everywhere: all changes are possible."""
    db = sqlite3.connect(":memory:", isolation_level=None)
    db.executescript(DDL.replace(" NOT NULL", "") % "")
    return db


def add_clustering(db: sqlite3.Connection, runs: Sequence[int], lengths: Sequence[int]) -> None:
    """A clustering of each model: two clusters and outliers."""
    for number, model in enumerate(MODELS):
        db.execute(
            "INSERT INTO clusteringresult VALUES (?, ?, ?, ?, ?, 'hdbscan', '{\"epsilon\": 0.4}')",
            (uid(6, number), LATER, TIME, LATER, model),
        )
        steps = [(run, k) for run, length in zip(runs, lengths, strict=True) for k in range(1 - number, length, 2)]
        medoids = [uid(4, run * 1000 + k) for run, k in steps[:2]]
        for place, (run, k) in enumerate(steps):
            medoid = medoids[place] if place < 2 else [*medoids, None][place % 3]
            values = (uid(7, number * 100_000 + run * 1000 + k), uid(4, run * 1000 + k), uid(6, number), medoid)
            db.execute("INSERT INTO embeddingcluster VALUES (?, ?, ?, ?)", values)


def full_length() -> sqlite3.Connection:
    """Two experiments with seed -1, three runs, none of which stops early."""
    db = empty()
    add_experiment(db, 0, [-1], ["an apple", "a pear"])
    add_experiment(db, 1, [-1], ["a plum"])
    for run, (prompt, experiment) in enumerate((("an apple", 0), ("a pear", 0), ("a plum", 1))):
        add_run(db, run, prompt, experiment=experiment)
    add_clustering(db, range(3), [LENGTH] * 3)
    return db


def early_stops() -> sqlite3.Connection:
    """Runs that stopped early, as the research tool stops them: at a text, at an image, and one that did not."""
    db = empty()
    add_experiment(db, 0, [7, 8], ["an apple"])
    add_experiment(db, 1, [9], ["a plum"])
    at_text = [picture(20 * k) if k % 2 == 0 else f"text {k} of an apple" for k in range(9)] + ["text 3 of an apple"]
    at_image = [picture(20 * k + 10) if k % 2 == 0 else f"text {k} of a pear" for k in range(8)] + [picture(50, spot=1)]
    assert jpeg(at_image[2]) == jpeg(at_image[8])
    assert at_image[2] != at_image[8]
    whole = [picture(20 * k + 5) if k % 2 == 0 else text for k, text in enumerate(outputs_of("a plum"))]
    add_run(db, 0, "an apple", 7, outputs=at_text)
    add_run(db, 1, "an apple", 8, outputs=at_image)
    add_run(db, 2, "a plum", 9, experiment=1, outputs=whole)
    add_clustering(db, range(3), [len(at_text), len(at_image), len(whole)])
    return db


FILES: dict[str, Callable[[], sqlite3.Connection]] = {"full length": full_length, "early stops": early_stops}


class InMemory(Database):
    """A database that is read through one connection, which also changes it."""

    def __init__(self, db: sqlite3.Connection) -> None:
        super().__init__(Path(":memory:"))
        self.db = db

    def read(self, look: Callable[[sqlite3.Connection], T]) -> T:
        try:
            return look(self.db)
        except sqlite3.OperationalError as error:
            if not str(error).startswith("Could not decode to UTF-8"):
                raise
            from pytest_panic_doctor.database.connection import decode_leniently

            self.db.text_factory = decode_leniently
            return look(self.db)

    def release(self, db: sqlite3.Connection) -> None:
        """Its transaction is that of the change."""


def embedder_of(db: sqlite3.Connection) -> Callable[[str, Sequence[str | bytes]], NDArray[np.float32]]:
    """The hook that the database was embedded with: what it does not know, it puts far from everything."""
    known = {
        (model, output): np.frombuffer(vector, "<f4")
        for model, output, vector in db.execute(
            "SELECT e.embedding_model, coalesce(i.output_text, i.output_image_data), e.vector FROM invocation i "
            "JOIN embedding e ON e.invocation_id = i.id"
        )
    }
    (width,) = {len(vector) for vector in known.values()}

    @cache
    def other(output: str | bytes) -> NDArray[np.float32]:
        seed = list(output.encode() if isinstance(output, str) else output)
        return np.random.default_rng(seed).normal(size=width).astype("<f4")

    def embed(model: str, outputs: Sequence[str | bytes]) -> NDArray[np.float32]:
        return np.stack([known[model, each] if (model, each) in known else other(each) for each in outputs])

    return embed


@dataclass(frozen=True)
class Mutation:
    """A change: `kind` of `column` of one row of `table`; `statements` with their parameters make it."""

    table: str
    column: str
    kind: str
    row: int
    statements: tuple[tuple[str, tuple[Cell, ...]], ...]

    def __str__(self) -> str:
        return f"{self.table}.{self.column}: {self.kind} (row {self.row})"

    @property
    def name(self) -> str:
        """What the change is, whatever the row."""
        return f"{self.table}.{self.column}: {self.kind}"


def flipped(data: bytes, bit: int) -> bytes:
    """One bit of the byte in the middle flipped."""
    changed = bytearray(data)
    changed[len(data) // 2] ^= bit
    return bytes(changed)


def of_text(value: str) -> Iterator[tuple[str, Cell]]:
    """Changes of a text; a Cell of bytes is stored as text."""
    data = value.encode()
    yield "empty", b""
    yield "off by one", data[:-1] + bytes([data[-1] + 1])
    yield "truncated", data[: len(data) // 2]
    yield "other case", value.swapcase().encode()
    yield "bit 0 flipped", flipped(data, 1)
    yield "bit 7 flipped", flipped(data, 0x80)


def of_blob(value: bytes) -> Iterator[tuple[str, Cell]]:
    """Changes of a blob."""
    yield "empty", b""
    yield "off by one", value[:-1] + bytes([(value[-1] + 1) % 256])
    yield "truncated", value[: len(value) // 2]
    yield "bit 0 flipped", flipped(value, 1)
    yield "bit 7 flipped", flipped(value, 0x80)
    highest = len(value) // 8 * 4 + 3
    yield "bit 6 of a byte 3 flipped", value[:highest] + bytes([value[highest] ^ 0x40]) + value[highest + 1 :]


def of_int(value: int) -> Iterator[tuple[str, Cell]]:
    """Changes of a whole number."""
    yield "one more", value + 1
    yield "one less", value - 1
    yield "0", 0
    yield "huge", 2**40
    yield "a fraction", value + 0.5
    yield "a word", "word"


def of_json(value: str) -> Iterator[tuple[str, Cell]]:
    """Changes of a list."""
    whole = json.loads(value)
    if isinstance(whole, list):
        yield "an item twice", json.dumps([*whole, whole[-1]])
        yield "an item less", json.dumps(whole[:-1])
        yield "an item more", json.dumps([*whole, 3 if isinstance(whole[0], int) else "DummyText"])
        yield "in other order", json.dumps(whole[::-1])
        yield "null within", json.dumps([*whole, None])
    yield "a number", "5"


def shifted(time: str, seconds: int) -> str:
    """A time that is `seconds` later, in the spelling that it had."""
    with sqlite3.connect(":memory:") as db:
        (moved,) = db.execute(f"SELECT strftime('%Y-%m-%d %H:%M:%S', ?, '{seconds} seconds')", (time,)).fetchone()
    return f"{moved[:10]}{time[10]}{moved[11:]}{time[19:]}"


def of_time(value: str) -> Iterator[tuple[str, Cell]]:
    """Changes of a time."""
    yield "a second later", shifted(value, 1)
    yield "a second earlier", shifted(value, -1)
    yield "a day later", shifted(value, 86_400)
    yield "a day earlier", shifted(value, -86_400)
    yield "a year earlier", shifted(value, -365 * 86_400)
    yield "with a T", value.replace(" ", "T")
    yield "a word", "soon"
    yield "a number", 5


def changes(column: str, value: Cell) -> Iterator[tuple[str, Cell]]:
    """The kinds of change of one value; bytes where the value is a text are stored as text."""
    yield "NULL", None
    if isinstance(value, int):
        yield from of_int(value)
    elif isinstance(value, bytes):
        yield from of_blob(value)
    elif isinstance(value, str):
        yield from of_text(value)
        if column in JSON:
            yield from of_json(value)
        if column in TIMES:
            yield from of_time(value)


def written(table: str, column: str, rowid: int, value: Cell, text: bool) -> tuple[str, tuple[Cell, ...]]:
    """The statement that puts a value into a cell."""
    place = "CAST(? AS TEXT)" if text and isinstance(value, bytes) else "?"
    return f"UPDATE {table} SET {column} = {place} WHERE rowid = ?", (value, rowid)


def of_column(db: sqlite3.Connection, table: str, column: str, every_row: bool) -> Iterator[Mutation]:
    """All changes of one column: each kind in one row, or in every row."""
    rows = db.execute(f"SELECT rowid, {column} FROM {table} ORDER BY rowid").fetchall()
    full = [(row, value) for row, value in rows if value is not None]
    turn = sum(map(ord, table + column))
    for place, (kind, _) in enumerate(changes(column, full[0][1]) if full else ()):
        chosen = full if every_row else [full[(turn + 7 * place) % len(full)]]
        for row, value in chosen:
            new = dict(changes(column, value)).get(kind, value)
            if new != (value.encode() if isinstance(new, bytes) and isinstance(value, str) else value):
                text = isinstance(value, str)
                yield Mutation(table, column, kind, row, (written(table, column, row, new, text),))
    for row, value in full if every_row else full[turn % max(len(full), 1) :][:1]:
        if not isinstance(value, int):
            cast = "TEXT" if isinstance(value, bytes) else "BLOB"
            statement = f"UPDATE {table} SET {column} = CAST({column} AS {cast}) WHERE rowid = ?"
            yield Mutation(table, column, "another type", row, ((statement, (row,)),))
    yield from of_others(table, column, rows, turn, every_row)


def of_others(table: str, column: str, rows: list[tuple[int, Cell]], turn: int, every_row: bool) -> Iterator[Mutation]:
    """Another row's value, from near and from far, also where there was none; and the values of two rows swapped."""
    for has_value in (True, False):
        mine = [(row, value) for row, value in rows if (value is not None) == has_value]
        for row, value in mine if every_row else mine[turn % max(len(mine), 1) :][:1]:
            others = [(abs(other - row), other, theirs) for other, theirs in rows if theirs not in (None, value)]
            for word, (_, other, theirs) in zip(
                ("near", "far"), (min(others), max(others)) if others else (), strict=False
            ):
                kind = f"a value from {word}" if has_value else f"a value from {word} instead of NULL"
                text = isinstance(theirs, str)
                new: Cell = theirs.encode() if isinstance(theirs, str) else theirs
                here = written(table, column, row, new, text)
                yield Mutation(table, column, kind, row, (here,))
                if has_value:
                    away = written(table, column, row, None, text)
                    there = written(table, column, other, value.encode() if isinstance(value, str) else value, text)
                    yield Mutation(table, column, f"swapped with one from {word}", row, (away, there, here))


def of_table(db: sqlite3.Connection, table: str) -> Iterator[Mutation]:
    """Rows that stand twice, the second time with an id of its own."""
    for (row,) in db.execute(f"SELECT rowid FROM {table} ORDER BY rowid LIMIT 2").fetchall():
        columns = ", ".join(TABLES[table][1:])
        statement = f"INSERT INTO {table} (id, {columns}) SELECT ?, {columns} FROM {table} WHERE rowid = ?"
        yield Mutation(table, "*", "row twice", row, ((statement, ("f" * 32, row)),))


def mutations(db: sqlite3.Connection, table: str, every_row: bool = False) -> Iterator[Mutation]:
    """All changes of one table."""
    for column in TABLES[table]:
        yield from of_column(db, table, column, every_row)
    yield from of_table(db, table)
