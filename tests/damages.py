"""Every kind of damage: what is planted, which rule finds it, and which others fail by plain consequence."""

from __future__ import annotations

import io
import sqlite3
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from databases import LATER, LENGTH, MODELS, NETWORK, TIME, WIDTH, Built, payload, uid, vectors

from pytest_panic_doctor.topology.diagram import Diagram
from pytest_panic_doctor.topology.payload import encode

Ids = tuple[str, ...]
Plant = Callable[[sqlite3.Connection, Built], Ids]


@dataclass(frozen=True)
class Damage:
    """`plant` makes it and returns the ids that the finding names; `repairable`: healed without a hook."""

    rule: str
    plant: Plant
    also: frozenset[str]
    older: bool
    repairable: bool


DAMAGES: dict[str, Damage] = {}


def damage(rule: str, *also: str, older: bool = False, repairable: bool = False) -> Callable[[Plant], Plant]:
    """Register a kind of damage under its function's name."""

    def wrap(plant: Plant) -> Plant:
        DAMAGES[plant.__name__] = Damage(rule, plant, frozenset(also), older, repairable)
        return plant

    return wrap


def sql(rule: str, statement: str, *ids: str, name: str, also: tuple[str, ...] = (), repairable: bool = False) -> None:
    """Register damage that one statement does."""

    def plant(db: sqlite3.Connection, _: Built) -> Ids:
        db.executescript(statement)
        return ids

    DAMAGES[name] = Damage(rule, plant, frozenset(also), older=False, repairable=repairable)


E, RUN, I3, I4, E3, D = uid(1, 0), uid(2, 0), uid(3, 3), uid(3, 4), uid(4, 3), uid(5, 0)
NEW = "f" * 32
LOST = "e" * 32
BLOCKED = ("diagram-current",)

# schema
sql("schema", "DROP TABLE embeddingcluster", name="table_gone")
sql("schema", "ALTER TABLE run DROP COLUMN seed", name="column_gone")

# orphans
sql(
    "orphan-run",
    f"INSERT INTO run VALUES ('{NEW}', '[]', 0, 1, '', '{LOST}')",
    NEW,
    name="run_of_lost_experiment",
    repairable=True,
)
sql(
    "orphan-run",
    f"INSERT INTO run VALUES ('{NEW}', '[]', 0, 1, '', NULL)",
    NEW,
    name="run_of_no_experiment",
    repairable=True,
)
sql(
    "orphan-invocation",
    f"INSERT INTO invocation VALUES ('{NEW}', '{TIME}', '{LATER}', 'A', 'TEXT', 0, '{LOST}', 0, NULL, 'x', NULL)",
    NEW,
    name="invocation_of_lost_run",
    repairable=True,
)
sql(
    "orphan-embedding",
    f"INSERT INTO embedding VALUES ('{NEW}', '{TIME}', '{LATER}', '{LOST}', 'Nomic', x'00')",
    NEW,
    name="embedding_of_lost_invocation",
    repairable=True,
)
sql(
    "orphan-diagram",
    f"INSERT INTO persistencediagram VALUES ('{NEW}', '{TIME}', '{LATER}', NULL, '{LOST}', 'Nomic')",
    NEW,
    name="diagram_of_lost_run",
    repairable=True,
)
for column, name in enumerate(("embedding", "result", "medoid")):
    values = [uid(4, 1), uid(6, 0), uid(4, 1)]
    values[column] = LOST
    sql(
        "orphan-cluster",
        f"INSERT INTO embeddingcluster VALUES ('{NEW}', '{values[0]}', '{values[1]}', '{values[2]}')",
        NEW,
        name=f"assignment_of_lost_{name}",
        repairable=True,
    )

# experiment-config
for name, change in {
    "networks_not_json": "networks = 'oops'",
    "networks_empty": "networks = '[]'",
    "networks_flat": """networks = '["A", "B"]'""",
    "networks_with_an_empty_one": "networks = '[[]]'",
    "seeds_of_text": """seeds = '["one"]'""",
    "seeds_of_true": "seeds = '[true]'",
    "prompts_of_numbers": "prompts = '[1]'",
    "prompts_an_object": "prompts = '{}'",
}.items():
    sql("experiment-config", f"UPDATE experimentconfig SET {change}", E, name=name, also=("experiment-runs",))
sql(
    "experiment-config",
    "UPDATE experimentconfig SET embedding_models = '[]'",
    E,
    name="models_empty",
    also=("diagram-model",),
)
sql(
    "experiment-config",
    "UPDATE experimentconfig SET max_length = 0",
    E,
    name="max_length_zero",
    also=("experiment-runs",),
)

# experiment-runs
sql(
    "experiment-runs",
    """UPDATE experimentconfig SET prompts = '["an apple", "a pear", "a plum"]'""",
    E,
    name="run_missing",
)
sql("experiment-runs", """UPDATE experimentconfig SET prompts = '["a pear"]'""", RUN, name="run_not_asked_for")
sql(
    "experiment-runs",
    f"UPDATE run SET initial_prompt = 'a pear' WHERE id = '{RUN}'",
    E,
    RUN,
    uid(2, 1),
    name="run_twice",
)
sql(
    "experiment-runs",
    f"UPDATE experimentconfig SET max_length = {LENGTH + 1}",
    RUN,
    uid(2, 1),
    name="max_length_differs",
)
sql(
    "experiment-runs",
    f"""UPDATE run SET network = '["A", "B"]' WHERE id = '{RUN}'""",
    RUN,
    E,
    name="network_unknown",
    also=("invocation-model",),
)

# invocation-sequence
GONE = (
    "DELETE FROM embeddingcluster WHERE embedding_id IN ({e}); DELETE FROM embedding WHERE id IN ({e}); "
    "DELETE FROM invocation WHERE id IN ({i});"
)


def gone(*numbers: int) -> str:
    """Statements that take invocations away with all that hangs on them."""
    return GONE.format(e=", ".join(f"'{uid(4, k)}'" for k in numbers), i=", ".join(f"'{uid(3, k)}'" for k in numbers))


sql("invocation-sequence", gone(4), RUN, name="gap", also=("invocation-chain", "diagram-current"))
sql("invocation-sequence", gone(10, 11), RUN, name="truncated_tail", also=("diagram-current",))
sql("invocation-sequence", gone(0), RUN, name="first_gone", also=("invocation-chain", "diagram-current"))
sql(
    "invocation-sequence",
    f"UPDATE invocation SET sequence_number = 3 WHERE id = '{I4}'",
    RUN,
    name="number_twice",
    also=("invocation-chain", "invocation-model", "diagram-current"),
)
sql(
    "invocation-sequence",
    f"UPDATE invocation SET sequence_number = -2 WHERE id = '{uid(3, 11)}'",
    RUN,
    name="number_negative",
    also=("invocation-chain", "invocation-model", "diagram-current"),
)
sql(
    "invocation-sequence",
    f"UPDATE invocation SET sequence_number = -3 WHERE id = '{uid(3, 11)}'",
    RUN,
    name="number_negative_and_odd",
    also=("invocation-chain", "invocation-model", "diagram-current"),
)
sql(
    "invocation-sequence",
    f"UPDATE invocation SET sequence_number = 'eleven' WHERE id = '{uid(3, 11)}'",
    RUN,
    name="number_a_word",
    also=("invocation-chain", "invocation-model", "diagram-current"),
)
sql(
    "invocation-sequence",
    f"UPDATE run SET max_length = 'long', seed = 'none' WHERE id = '{RUN}'",
    RUN,
    name="max_length_a_word",
    also=("experiment-runs",),
)
sql(
    "invocation-sequence",
    f"UPDATE invocation SET sequence_number = 99 WHERE id = '{uid(3, 11)}'",
    RUN,
    name="number_beyond_max_length",
    also=("invocation-chain",),
)
sql(
    "invocation-sequence",
    f"UPDATE invocation SET sequence_number = NULL WHERE id = '{uid(3, 11)}'",
    RUN,
    name="number_null",
    also=("invocation-chain", "invocation-model", "diagram-current"),
)
sql(
    "invocation-sequence",
    gone(*range(LENGTH)),
    RUN,
    name="run_without_invocations",
    also=("diagram-current",),
)
EARLY = (
    f"UPDATE run SET seed = 7 WHERE id = '{RUN}'; UPDATE experimentconfig SET seeds = '[7]'; UPDATE run SET seed = 7;"
)
sql("invocation-sequence", EARLY + gone(10, 11), RUN, name="early_stop_without_a_repeat", also=("diagram-current",))

# invocation-output
for name, change in {
    "text_null": "output_text = NULL",
    "text_with_an_image": "output_image_data = x'52'",
    "text_only_as_image": "output_text = NULL, output_image_data = x'52'",
}.items():
    sql("invocation-output", f"UPDATE invocation SET {change} WHERE id = '{I3}'", I3, name=name)
for name, change in {
    "image_null": "output_image_data = NULL",
    "image_empty": "output_image_data = x''",
    "image_with_a_text": "output_text = 'x'",
}.items():
    sql("invocation-output", f"UPDATE invocation SET {change} WHERE id = '{I4}'", I4, name=name)
sql(
    "invocation-output",
    f"UPDATE invocation SET type = 'AUDIO' WHERE id = '{I3}'",
    I3,
    name="type_unknown",
    also=("embedding-type", "diagram-current"),
)

# invocation-chain
for name, change in {
    "input_null": "NULL",
    "input_lost": f"'{LOST}'",
    "input_two_before": f"'{uid(3, 1)}'",
    "input_itself": f"'{I3}'",
    "input_of_another_run": f"'{uid(3, 1002)}'",
}.items():
    sql("invocation-chain", f"UPDATE invocation SET input_invocation_id = {change} WHERE id = '{I3}'", I3, name=name)
sql(
    "invocation-chain",
    f"UPDATE invocation SET input_invocation_id = '{I3}' WHERE id = '{uid(3, 0)}'",
    uid(3, 0),
    name="first_with_an_input",
)

# invocation-model, invocation-time
sql("invocation-model", f"UPDATE invocation SET model = '{NETWORK[0]}' WHERE id = '{I3}'", I3, name="model_out_of_turn")
sql("invocation-model", f"UPDATE invocation SET model = 'Nobody' WHERE id = '{I3}'", I3, name="model_unknown")
sql(
    "invocation-model",
    f"UPDATE run SET network = 'oops' WHERE id = '{RUN}'",
    RUN,
    name="network_not_json",
    also=("experiment-runs",),
)
EARLIER = "completed_at = '2025-08-12 09:29:59.000000'"
for table, row in {"invocation": I3, "embedding": E3, "persistencediagram": D, "experimentconfig": E}.items():
    sql("invocation-time", f"UPDATE {table} SET {EARLIER} WHERE id = '{row}'", row, name=f"{table}_completed_early")

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


@damage("diagram-current", repairable=True)
def diagram_stale(db: sqlite3.Connection, built: Built) -> Ids:
    moved = vectors(0, image=False)[1] + np.float32(0.01)
    db.execute("UPDATE embedding SET vector = ? WHERE id = ?", (moved.tobytes(), built.embedding(3)))
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


def npz(**arrays: object) -> bytes:
    """Any arrays, as NumPy itself would store them, pickles included."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


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
stored(
    "wrong_shape",
    npz(**(ARRAYS | {"dgms_1": np.zeros((2, 3), np.float32)}), dgms_count=np.array([3]), entropy=bars().entropy),
)

__all__ = ["DAMAGES", "MODELS", "Damage", "Planted"]
