"""Reads a database as the research tool does, by the rules in DATABASE.md; whatever it cannot read it raises for.

Written for the tests: it unpickles, as the tool does, so that it is for payloads of our own alone.
"""

from __future__ import annotations

import io
import json
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pytest_panic_doctor.database import schema

Read = dict[str, str | NDArray[np.generic] | list[NDArray[np.generic]]]


def read_payload(payload: bytes) -> Read:
    """What the tool makes of a `diagram_data`: bars, generators, texts and arrays, by their names.

    Of a count and of a key that ends in `_meta` it takes the first element; a list is as long as its count says; every
    other array is taken as it is.
    """
    with np.load(io.BytesIO(payload), allow_pickle=True) as stored:
        held = {name: stored[name] for name in stored.files}
    read: Read = {"dgms": numbered(held, "dgms", "dgms_count")}
    if {"gens_0", "gens_1_count", "gens_2", "gens_3_count"} <= held.keys():
        for name in ("gens_1", "gens_3"):
            read[name] = numbered(held, name, f"{name}_count")
        read |= {"gens_0": held["gens_0"], "gens_2": held["gens_2"]}
    for name, array in held.items():
        if name.endswith("_meta"):
            read[name.removesuffix("_meta")] = str(array[0])
        elif not name.startswith(("dgms_", "gens_")) and not name.endswith("_count"):
            read[name] = array
    return read


def numbered(held: dict[str, NDArray[np.generic]], name: str, count: str) -> list[NDArray[np.generic]]:
    """The arrays `name_0`, `name_1`, …: as many as the first element of `count` says."""
    return [held[f"{name}_{number}"] for number in range(int(held[count][0]))]


TABLES = tuple(schema.TABLES)
ID = re.compile(r"[0-9a-f]{12}7[0-9a-f]{3}[89ab][0-9a-f]{15}")
"""A UUIDv7 as CHAR(32): lower-case hex without dashes."""

TIME = re.compile(r"\d{4}-\d{2}-\d{2} \d{2}:\d{2}:\d{2}\.\d{6}")
"""A naive time."""

LISTS = ("networks", "seeds", "prompts", "embedding_models", "network")


def unread(path: Path, since: Path | None = None) -> list[str]:
    """What the tool could not read of a database, a line a value; of one that was repaired, what is new or changed.

    `since` is the database before. A value that may be NULL is left out where it is.
    """
    known = {table: set(rows(since, table)) for table in TABLES} if since else {table: set() for table in TABLES}
    found: list[str] = []
    for table in TABLES:
        for row in rows(path, table):
            if row not in known[table]:
                found += [
                    f"{table}.{name} {value!r}" for name, value in row if value is not None and not reads(name, value)
                ]
    return found


def rows(path: Path, table: str) -> Iterator[tuple[tuple[str, object], ...]]:
    """The rows of a table, each as its columns and values."""
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
        cursor = db.execute(f"SELECT * FROM {table}")
        names = [column[0] for column in cursor.description]
        yield from (tuple(zip(names, row, strict=True)) for row in cursor)


def reads(name: str, value: object) -> bool:
    """Whether a value is one that the tool reads from a column of this name."""
    if name == "id" or name.endswith("_id"):
        return isinstance(value, str) and bool(ID.fullmatch(value))
    if name.endswith("_at"):
        return isinstance(value, str) and bool(TIME.fullmatch(value)) and not datetime.fromisoformat(value).tzinfo
    if name in LISTS:
        return isinstance(json.loads(str(value)), list)
    if name == "parameters":
        return isinstance(json.loads(str(value)), dict)
    if name == "type":
        return value in ("TEXT", "IMAGE")
    if name == "vector":
        return isinstance(value, bytes) and np.frombuffer(value, np.float32).ndim == 1
    if name == "diagram_data":
        return isinstance(value, bytes) and reads_diagram(read_payload(value))
    if name in ("seed", "max_length", "sequence_number"):
        return type(value) is int
    return isinstance(value, bytes if name == "output_image_data" else str)


def reads_diagram(read: Read) -> bool:
    """Whether a diagram has what the tool computes with: bars of three dimensions, an entropy of each, in float32."""
    bars, entropy = read["dgms"], read["entropy"]
    assert isinstance(bars, list)
    assert isinstance(entropy, np.ndarray)
    right = all(each.dtype == np.float32 and each.ndim == 2 and each.shape[1] == 2 for each in bars)
    essential = [int(np.isinf(each[:, 1].astype(np.float64)).sum()) for each in bars]
    return right and essential == [1, 0, 0] and entropy.dtype == np.float32 and entropy.shape == (3,)
