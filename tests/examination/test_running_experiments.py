"""What the research tool is about to add is left to it: in a running experiment it is neither sick nor green."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, nullcontext
from datetime import datetime, timedelta, timezone
from functools import partial
from pathlib import Path

import embedders
import pytest
from databases import LATER, LENGTH, TIME, Built, build, dump, uid

from pytest_panic_doctor.compute.budget import Budget
from pytest_panic_doctor.compute.runner import DiagramRunner
from pytest_panic_doctor.compute.task import Computed, Task
from pytest_panic_doctor.database.connection import Database
from pytest_panic_doctor.database.python_generation import new_id
from pytest_panic_doctor.database.shared_folder import SharedFolder
from pytest_panic_doctor.database.subject import Subject
from pytest_panic_doctor.errors import BadOption
from pytest_panic_doctor.examination.examiner import Examiner
from pytest_panic_doctor.examination.outcome import Outcome
from pytest_panic_doctor.examination.parsing import Given, model_types, parse_running
from pytest_panic_doctor.examination.running_experiments import Running, format_age, parse_moment, youngest
from pytest_panic_doctor.repair.journal.reading import written
from pytest_panic_doctor.repair.journal.writer import Writer
from pytest_panic_doctor.repair.recompute import RepairContext
from pytest_panic_doctor.repair.repairer import DatabaseRepairer
from pytest_panic_doctor.repair.result_store import ResultStore
from pytest_panic_doctor.rules import registry

RULES = registry()
KINDS = model_types([], [])


def stamp(seconds: float = 0) -> str:
    """A local time that many seconds ago, as the tool stores it."""
    return (datetime.now() - timedelta(seconds=seconds)).strftime("%Y-%m-%d %H:%M:%S.%f")


@pytest.fixture
def built(tmp_path: Path) -> Built:
    """An experiment that has begun long ago and was never completed."""
    made = build(tmp_path / "x.sqlite")
    do(made, "UPDATE experimentconfig SET completed_at = NULL")
    return made


def do(built: Built, sql: str, *parameters: object) -> None:
    with built.open() as db:
        db.execute(sql, parameters)


def clause(built: Built, window: float = 3600, experiment: str | None = None) -> str:
    with built.open() as db:
        return Running(built.path, window, written).clause(db, experiment or built.experiment)


FRESH = {
    "the experiment": "UPDATE experimentconfig SET started_at = :now",
    "an invocation": "UPDATE invocation SET completed_at = :now WHERE id = (SELECT max(id) FROM invocation)",
    "an embedding": "UPDATE embedding SET started_at = :now WHERE id = (SELECT max(id) FROM embedding)",
    "a diagram": f"UPDATE persistencediagram SET completed_at = :now WHERE id = '{uid(5, 1)}'",
    "a time with a T": "UPDATE experimentconfig SET started_at = replace(:now, ' ', 'T')",
    "a time of another zone": "UPDATE experimentconfig SET started_at = :zoned",
    "an id": "INSERT INTO embedding SELECT :id, NULL, NULL, invocation_id, 'Other', vector FROM embedding LIMIT 1",
}


@pytest.mark.parametrize("what", FRESH)
def test_a_young_row_makes_it_running(built: Built, what: str) -> None:
    assert clause(built) == ""
    with built.open() as db:
        zoned = datetime.now(timezone(timedelta(hours=-9))).isoformat(" ")
        db.execute(FRESH[what], {"now": stamp(5), "id": new_id(), "zoned": zoned})
    assert clause(built).startswith(
        f"experiment {built.experiment} is running: it is not completed, and has a row that is "
    )
    assert clause(built, 0) == ""
    assert clause(built, experiment=uid(1, 7)) == ""


def test_what_is_completed_old_or_unreadable_is_not_running(built: Built) -> None:
    old = "UPDATE experimentconfig SET started_at = ?"
    for value in (stamp(3700), stamp(-90_000), "yesterday", None, b"\x00", 5):
        do(built, old, value)
        assert clause(built) == "", value
    do(built, old, stamp(3500))
    assert "58 min old" in clause(built)
    do(built, "UPDATE experimentconfig SET completed_at = ?", LATER)
    assert clause(built) == ""


def test_a_file_without_the_column_is_the_rule_schemas(built: Built) -> None:
    do(built, "UPDATE experimentconfig SET started_at = ?", stamp())
    do(built, "ALTER TABLE experimentconfig DROP COLUMN completed_at")
    assert clause(built) == ""


def test_what_the_doctor_wrote_does_not_make_it_running(built: Built) -> None:
    values = {"started_at": stamp(), "completed_at": stamp()}
    new: dict[str, str | bytes | int | float | None] = {
        "id": new_id(),
        "invocation_id": built.invocation(3),
        "embedding_model": "Other",
        "vector": b"\x00",
        **values,
    }
    subject = Subject(built.experiment, None, "Nomic")
    with closing(Writer(built.path, "session", lambda: True)) as writer:
        assert writer.insert("embedding-missing", subject, "embedding", new, lambda _: True)
        assert writer.update("x", subject, "persistencediagram", built.diagram(), values, lambda _: True)
        assert clause(built) == ""
    do(built, "UPDATE persistencediagram SET completed_at = ? WHERE id = ?", stamp(), built.diagram("Nomic", 1))
    assert "is running" in clause(built)


def test_ages() -> None:
    assert youngest(None, []) is None
    assert youngest("no id", [None, 3, "never"]) is None
    assert youngest(uid(3, 0), []) == pytest.approx(time.time() - 0x06B051713, abs=5)
    assert youngest(new_id(), [TIME]) == pytest.approx(0, abs=5)
    assert parse_moment("2025-08-12 09:30:00+00:00") == parse_moment("2025-08-12T11:30:00+02:00") == 1754991000
    assert parse_moment("9999-99-99") is None
    assert [format_age(12.2), format_age(119), format_age(3000)] == ["12 s", "119 s", "50 min"]


def test_the_ini_key_is_a_time_or_0() -> None:
    assert [parse_running(Given("doctor_running", text)) for text in ("0", "10m")] == [0, 600]
    with pytest.raises(BadOption, match="doctor_running soon is not a time"):
        parse_running(Given("doctor_running", "soon"))


Hook = Callable[[str, Sequence[str | bytes]], object]


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DiagramRunner]:
    with DiagramRunner(budget=Budget(tmp_path_factory.mktemp("budget"), 4_000_000_000)) as made:
        yield made


def examine(
    built: Built, runner: DiagramRunner | None = None, window: float = 3600, hook: Hook = embedders.embed
) -> dict[str, Outcome]:
    """The outcomes of the items about the first run's captions, repaired where there is a computer."""
    database, running = Database(built.path, shared=True), Running(built.path, window, written)
    writer = Writer(built.path, "session", lambda: True)
    repairer = DatabaseRepairer(
        RepairContext(database, writer, KINDS, running),
        lambda: runner,  # type: ignore[arg-type, return-value]
        hook,  # type: ignore[arg-type]
        lambda name, *, wait=True: nullcontext(),  # noqa: ARG005
        ResultStore(SharedFolder(built.path.with_suffix(".settled"))),
    )
    examiner = Examiner(database, RULES, KINDS, repairer=repairer if runner else None, running=running)
    found = {}
    with closing(database), closing(writer):
        for name in ("embedding-missing", "embedding-vector", "diagram-missing", "diagram-valid", "diagram-current"):
            run = built.run() if name.startswith("diagram") else None
            found[name] = examiner.examine(RULES[name], Subject(built.experiment, run, "Nomic"))
    return found


def begin(built: Built) -> None:
    """Captions 7, 9 and 11 of the first run, and its diagram, are still to come; caption 1 was embedded as nothing."""
    for k in (7, 9, 11):
        do(built, "DELETE FROM embedding WHERE id = ?", built.embedding(k))
    do(built, "DELETE FROM persistencediagram WHERE id = ?", built.diagram())
    do(built, "UPDATE embedding SET vector = NULL WHERE id = ?", built.embedding(1))
    do(built, "UPDATE invocation SET completed_at = ? WHERE id = ?", stamp(), built.invocation(LENGTH - 1, 1))


@pytest.mark.parametrize("repaired", [False, True], ids=["examined", "repaired"])
def test_what_is_to_come_is_neither_sick_nor_green(built: Built, runner: DiagramRunner, repaired: bool) -> None:
    begin(built)
    before = dump(built.path)
    found = examine(built, runner if repaired else None)
    assert {name: outcome.status for name, outcome in found.items()} == {
        "embedding-missing": "skipped",
        "embedding-vector": "failed",
        "diagram-missing": "skipped",
        "diagram-valid": "skipped",
        "diagram-current": "skipped",
    }
    assert found["embedding-missing"].note.startswith(
        f"3 of 12 TEXT invocations have no embedding: it may still come, since experiment {built.experiment} is running"
    )
    if repaired:
        assert found["embedding-vector"].note.startswith("not repaired: experiment ")
    assert dump(built.path) == before


def test_a_stale_diagram_of_a_running_experiment_stays(built: Built, runner: DiagramRunner) -> None:
    begin(built)
    other = "(SELECT diagram_data FROM persistencediagram WHERE id = ?)"
    do(
        built,
        f"INSERT INTO persistencediagram VALUES (?, ?, ?, {other}, ?, 'Nomic')",
        *(built.diagram(), TIME, LATER, built.diagram("Nomic", 1), built.run()),
    )
    before = dump(built.path)
    found = examine(built, runner)["diagram-current"]
    assert found.status == "failed"
    assert "is running" in found.note
    assert dump(built.path) == before


@pytest.mark.parametrize("how", ["completed", "at rest", "told so"])
def test_what_is_not_running_is_repaired(built: Built, runner: DiagramRunner, how: str) -> None:
    begin(built)
    if how == "completed":
        do(built, "UPDATE experimentconfig SET completed_at = ?", stamp())
    if how == "at rest":
        do(built, "UPDATE invocation SET completed_at = ? WHERE completed_at > ?", LATER, LATER)
    found = examine(built, runner, 0 if how == "told so" else 3600)
    assert [outcome.status for outcome in found.values()] == ["fixed", "fixed", "fixed", "passed", "passed"]


ENGINE = """
import sqlite3, sys, time
from pathlib import Path
path, folder = sys.argv[1], Path(sys.argv[2])
db = sqlite3.connect(path, isolation_level=None, timeout=30)
missing = db.execute(
    "SELECT i.id FROM invocation i WHERE i.type = 'TEXT' AND NOT EXISTS "
    "(SELECT 1 FROM embedding e WHERE e.invocation_id = i.id AND e.embedding_model = 'Nomic')").fetchall()
(folder / "looked").touch()
while not (folder / "go").exists():
    time.sleep(0.02)
for number, (invocation,) in enumerate(missing):
    new = f"06ffffff{number:04x}70008000000000000000"
    db.execute("INSERT INTO embedding VALUES (?, NULL, NULL, ?, 'Nomic', zeroblob(32))", (new, invocation))
print(len(missing))
"""
"""The tool: it looks what is missing, embeds, and inserts."""


@pytest.mark.parametrize(("window", "status"), [(3600, 0), (0, 1)], ids=["left to it", "told otherwise"])
def test_an_engine_beside_it_comes_to_its_end(
    built: Built, runner: DiagramRunner, tmp_path: Path, window: float, status: int
) -> None:
    begin(built)
    command = [sys.executable, "-c", ENGINE, str(built.path), str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as engine:
        while not (tmp_path / "looked").exists():
            time.sleep(0.02)
        examine(built, runner, window)
        (tmp_path / "go").touch()
        out, err = engine.communicate(timeout=60)
    assert engine.returncode == status, err
    assert ("UNIQUE constraint failed" in err) == bool(status)
    assert out == ("" if status else "3\n")


def embed_while_an_engine_begins(built: Built, model: str, outputs: Sequence[str | bytes]) -> object:
    """A hook during which the research tool begins."""
    do(built, "UPDATE experimentconfig SET started_at = ?", stamp())
    return embedders.embed(model, outputs)


def test_an_engine_that_begins_while_the_hook_embeds_is_left_alone(built: Built, runner: DiagramRunner) -> None:
    begin(built)
    do(built, "UPDATE invocation SET completed_at = ? WHERE completed_at > ?", LATER, LATER)

    before = dump(built.path)
    found = examine(built, runner, hook=partial(embed_while_an_engine_begins, built))
    assert found["embedding-missing"].status == "failed"
    assert "not repaired: experiment " in found["embedding-missing"].note
    after = dump(built.path)
    assert after.pop("experimentconfig") != before.pop("experimentconfig")
    assert after == before


def test_a_vector_is_not_replaced_once_an_engine_has_begun(built: Built, runner: DiagramRunner) -> None:
    do(built, "UPDATE embedding SET vector = NULL WHERE id = ?", built.embedding(1))

    before = dump(built.path)
    found = examine(built, runner, hook=partial(embed_while_an_engine_begins, built))
    assert found["embedding-vector"].status == "failed"
    assert "not repaired: experiment " in found["embedding-vector"].note
    assert dump(built.path)["embedding"] == before["embedding"]


class Beside:
    """A computer beside which an engine begins."""

    def __init__(self, runner: DiagramRunner, built: Built) -> None:
        self.runner, self.built = runner, built

    def compute(self, task: Task) -> Computed:
        computed = self.runner.compute(task)
        do(self.built, "UPDATE experimentconfig SET started_at = ?", stamp())
        return computed


def test_an_engine_that_begins_while_a_diagram_is_computed_is_left_alone(built: Built, runner: DiagramRunner) -> None:
    do(built, "DELETE FROM persistencediagram WHERE id = ?", built.diagram())
    before = dump(built.path)
    found = examine(built, Beside(runner, built))  # type: ignore[arg-type]
    assert found["diagram-missing"].status == "failed"
    assert "not repaired: experiment " in found["diagram-missing"].note
    assert dump(built.path)["persistencediagram"] == before["persistencediagram"]
    assert examine(built)["diagram-missing"].status == "skipped"


def test_a_row_that_comes_between_look_and_write_is_not_written_twice(built: Built, runner: DiagramRunner) -> None:
    do(built, "UPDATE experimentconfig SET completed_at = ?", LATER)
    do(built, "DELETE FROM embedding WHERE id = ?", built.embedding(7))

    def hook(model: str, outputs: Sequence[str | bytes]) -> object:
        vector = embedders.vector_of(str(outputs[0])).tobytes()
        row = (built.embedding(7), TIME, LATER, built.invocation(7), "Nomic", vector)
        do(built, "INSERT OR IGNORE INTO embedding VALUES (?, ?, ?, ?, ?, ?)", *row)
        return embedders.embed(model, outputs)

    found = examine(built, runner, hook=hook)
    assert (found["embedding-missing"].status, found["embedding-missing"].note) == (
        "fixed",
        "another worker was faster",
    )
