"""Damage to vectors and payloads, and to the rows that hold them."""

from __future__ import annotations

import io
import json
import sqlite3
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
from databases import LATER, TIME, WIDTH, Built, npz, payload, vectors
from defect import BLOCKED, DAMAGES, E3, I3, NEW, RUN, D, Damage, Ids, damage, sql

from pytest_panic_doctor.topology.cloud import distances
from pytest_panic_doctor.topology.diagram import Diagram, sorted_bars
from pytest_panic_doctor.topology.payload import Provenance, decode, encode

# embeddings
sql(
    "embedding-missing",
    f"DELETE FROM embeddingcluster WHERE embedding_id = '{E3}'; DELETE FROM embedding WHERE id = '{E3}'",
    I3,
    name="embedding_gone",
    also=BLOCKED,
)
GOOD = np.ones(WIDTH, "<f4")


def vector(name: str, value: bytes | str | None) -> None:
    """Register damage to one vector."""

    def plant(db: sqlite3.Connection, built: Built) -> Ids:
        db.execute("UPDATE embedding SET vector = ? WHERE id = ?", (value, built.embedding(3)))
        return (built.embedding(3),)

    DAMAGES[f"vector_{name}"] = Damage("embedding-vector", plant, frozenset(BLOCKED), older=False, repairable=False)


vector("null", None)
vector("too_large", (GOOD * 3e38).astype("<f4").tobytes())
vector("nan", np.where(np.arange(WIDTH) == 5, np.nan, GOOD).astype("<f4").tobytes())
vector("infinite", np.where(np.arange(WIDTH) == 0, -np.inf, GOOD).astype("<f4").tobytes())
vector("zero", bytes(WIDTH * 4))
vector("short", GOOD[:-1].tobytes())
vector("long", np.ones(WIDTH + 1, "<f4").tobytes())
vector("empty", b"")
vector("torn", GOOD.tobytes()[:-1])
vector("text", "a text of thirty-two characters..")


@damage("embedding-type", repairable=True)
def text_model_on_an_image(db: sqlite3.Connection, built: Built) -> Ids:
    db.execute(
        "INSERT INTO embedding VALUES (?, ?, ?, ?, 'Nomic', ?)", (NEW, TIME, LATER, built.invocation(4), GOOD.tobytes())
    )
    return (NEW,)


@damage("embedding-type", "embedding-vector", repairable=True)
def image_model_on_a_text_and_null(db: sqlite3.Connection, built: Built) -> Ids:
    db.execute(
        "INSERT INTO embedding VALUES (?, ?, ?, ?, 'NomicVision', NULL)", (NEW, TIME, LATER, built.invocation(3))
    )
    return (NEW,)


@damage("embedding-duplicate", older=True, repairable=True)
def embedding_twice(db: sqlite3.Connection, built: Built) -> Ids:
    db.execute(
        "INSERT INTO embedding SELECT ?, started_at, started_at, invocation_id, embedding_model, vector FROM embedding "
        "WHERE id = ?",
        (NEW, built.embedding(3)),
    )
    return (NEW, built.embedding(3))


@damage("embedding-duplicate", "embedding-vector", older=True, repairable=True)
def embedding_twice_and_the_newest_null(db: sqlite3.Connection, built: Built) -> Ids:
    db.execute(
        "INSERT INTO embedding VALUES (?, ?, '2026-01-01 00:00:00.000000', ?, 'Nomic', NULL)",
        (NEW, TIME, built.invocation(3)),
    )
    return (NEW, built.embedding(3))


# diagrams
sql("diagram-missing", f"DELETE FROM persistencediagram WHERE id = '{D}'", RUN, name="diagram_gone", repairable=True)
sql(
    "diagram-missing",
    f"UPDATE persistencediagram SET diagram_data = NULL WHERE id = '{D}'",
    D,
    name="diagram_null",
    repairable=True,
)


@damage("diagram-duplicate", repairable=True)
def diagram_twice(db: sqlite3.Connection, built: Built) -> Ids:
    db.execute(
        "INSERT INTO persistencediagram SELECT ?, started_at, completed_at, diagram_data, run_id, embedding_model "
        "FROM persistencediagram WHERE id = ?",
        (NEW, built.diagram()),
    )
    return (NEW, built.diagram())


@damage("diagram-duplicate", "diagram-current", repairable=True)
def diagram_twice_and_the_newer_stale(db: sqlite3.Connection, built: Built) -> Ids:
    db.execute(
        "INSERT INTO persistencediagram VALUES (?, ?, '2026-01-01 00:00:00.000000', ?, ?, 'Nomic')",
        (NEW, TIME, payload(vectors(9, image=True)), built.run()),
    )
    return (NEW, built.diagram())


@damage("diagram-model", repairable=True)
def diagram_of_an_unused_model(db: sqlite3.Connection, built: Built) -> Ids:
    db.execute("INSERT INTO persistencediagram VALUES (?, ?, ?, NULL, ?, 'Retired')", (NEW, TIME, LATER, built.run()))
    return (NEW,)


@damage("diagram-model", repairable=True)
def diagram_of_no_model(db: sqlite3.Connection, built: Built) -> Ids:
    db.executescript(
        "ALTER TABLE persistencediagram RENAME TO old; CREATE TABLE persistencediagram AS SELECT * FROM old"
    )
    db.execute("INSERT INTO persistencediagram VALUES (?, ?, ?, NULL, ?, NULL)", (NEW, TIME, LATER, built.run()))
    return (NEW,)


@damage("diagram-current", repairable=True)
def diagram_stale(db: sqlite3.Connection, built: Built) -> Ids:
    moved = vectors(0, image=False)[1] + np.float32(0.01)
    db.execute("UPDATE embedding SET vector = ? WHERE id = ?", (moved.tobytes(), built.embedding(3)))
    return (built.diagram(),)


def invented(*places: int) -> bytes:
    """A payload with the H0 of the first cloud, and in H1 and H2 bars between edges that the cloud has."""
    cloud = vectors(0, image=False)
    edges = np.unique(distances(cloud)[np.triu_indices(len(cloud), 1)])
    bars = [sorted_bars([[edges[place], edges[place + 2]]]) for place in places]
    return encode(Diagram((decode(payload(cloud)).diagram.bars[0], *bars)))


@damage("diagram-exact", repairable=True)
def diagram_with_bars_that_are_not_there(db: sqlite3.Connection, built: Built) -> Ids:
    db.execute("UPDATE persistencediagram SET diagram_data = ? WHERE id = ?", (invented(3, 5), built.diagram()))
    return (built.diagram(),)


class Planted:
    """Code in a pickle: loading it would leave a mark."""

    mark = Path(tempfile.gettempdir()) / "pytest-panic-doctor-was-here"

    def __reduce__(self) -> tuple[Callable[[Path], object], tuple[Path]]:
        return Path.touch, (self.mark,)


def bars(*changed: tuple[int, list[list[float]]]) -> Diagram:
    """A valid diagram of three points, some of its dimensions changed."""
    dimensions = {0: [[0, 1], [0, 2], [0, np.inf]], 1: [[2, 3]], 2: []} | dict(changed)
    return Diagram(tuple(np.array(each, np.float32).reshape(-1, 2) for each in dimensions.values()))


def stored(name: str, value: bytes | str) -> None:
    """Register damage to one payload."""

    def plant(db: sqlite3.Connection, built: Built) -> Ids:
        db.execute("UPDATE persistencediagram SET diagram_data = ? WHERE id = ?", (value, built.diagram()))
        return (built.diagram(),)

    DAMAGES[f"payload_{name}"] = Damage("diagram-valid", plant, frozenset(), older=False, repairable=True)


WHOLE = encode(bars())
stored("empty", b"")
stored("text", "not even a blob")
stored("torn", WHOLE[: len(WHOLE) // 2])
stored("not_a_zip", b"hello" * 100)
stored("pickle", npz(dgms_0=np.array([Planted()], dtype=object)))
stored("without_diagrams", npz(entropy=np.zeros(3, np.float32)))
stored("nan_bar", encode(bars((1, [[2, np.nan]]))))
stored("death_before_birth", encode(bars((1, [[3, 2]]))))
stored("born_at_infinity", encode(bars((1, [[np.inf, np.inf]]))))
stored("two_essential_classes", encode(bars((0, [[0, 1], [0, np.inf], [0, np.inf]]))))
stored("no_essential_class", encode(bars((0, [[0, 1], [0, 2]]))))
stored("essential_class_in_h1", encode(bars((1, [[2, np.inf]]))))
stored("two_dimensions", encode(Diagram(bars().bars[:2])))
ARRAYS = {f"dgms_{number}": each for number, each in enumerate(bars().bars)}
stored("wrong_entropy", npz(**ARRAYS, dgms_count=np.array([3]), entropy=bars().entropy + np.float32(1)))
stored("without_entropy", npz(**ARRAYS, dgms_count=np.array([3])))
stored("wrong_count", npz(**ARRAYS, dgms_count=np.array([2]), entropy=bars().entropy))
WITH_META = {**ARRAYS, "dgms_count": np.array([3]), "entropy": bars().entropy}
stored("meta_without_dimension", npz(**WITH_META, doctor_meta=np.array("{}")))
stored("count_without_dimension", npz(**WITH_META | {"dgms_count": np.array(3)}))
stored("meta_of_nothing", npz(**WITH_META, note_meta=np.empty(0, "U1")))
stored(
    "wrong_shape",
    npz(**(ARRAYS | {"dgms_1": np.zeros((2, 3), np.float32)}), dgms_count=np.array([3]), entropy=bars().entropy),
)


def members(payload: bytes) -> dict[str, bytes]:
    """The files in a payload."""
    with zipfile.ZipFile(io.BytesIO(payload)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def zipped(content: dict[str, bytes]) -> bytes:
    """A payload of these files."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in content.items():
            archive.writestr(name, data)
    return buffer.getvalue()


KNOWN = Provenance("ab" * 32, 3, 3, 0.0, "giotto-ph", "0.2.4", 2, 1.0, 1, "0.1.0")
OTHER = members(encode(bars((1, [[2, 4]]))))
stored("of_other_bars", zipped(members(encode(bars(), KNOWN)) | {"dgms_1.npy": OTHER["dgms_1.npy"]}))
WITH = ARRAYS | {"dgms_count": np.array([3]), "entropy": bars().entropy}
stored("of_a_forged_doctor", npz(**WITH, doctor_meta=np.array(['{"fingerprint": "mine"}'])))
stored("of_a_doctor_that_cannot_be", npz(**WITH, doctor_meta=np.array([json.dumps(asdict(KNOWN) | {"points": 0})])))
stored("pickle_in_generators", npz(**WITH, gens_0=np.array([Planted()], dtype=object)))
stored("pickle_in_anything", npz(**WITH, anything=np.array([Planted()], dtype=object)))
stored("member_beside_its_array", zipped(members(npz(**WITH)) | {"dgms_0": b"not an array"}))
stored("a_fifth_dimension_alone", npz(**WITH, dgms_5=np.zeros((0, 2), np.float32)))


def impossible(name: str, **changed: list[list[float]]) -> None:
    """Register bars above H0 that the cloud cannot have, all else as it should be."""

    def plant(db: sqlite3.Connection, built: Built) -> Ids:
        dimensions = list(decode(payload(vectors(0, image=False))).diagram.bars)
        for dimension, new in changed.items():
            dimensions[int(dimension[1])] = np.array(new, np.float32)
        value = encode(Diagram(tuple(dimensions)))
        db.execute("UPDATE persistencediagram SET diagram_data = ? WHERE id = ?", (value, built.diagram()))
        return (built.diagram(),)

    DAMAGES[f"diagram_with_{name}"] = Damage("diagram-current", plant, frozenset(), older=False, repairable=True)


impossible("a_bar_beyond_the_radius", h1=[[1.0, 50.0]])
impossible("random_bars", h1=[[0.71, 0.72], [0.8011, 0.9012]])
impossible("random_bars_in_h2", h2=[[0.71, 0.72]])
