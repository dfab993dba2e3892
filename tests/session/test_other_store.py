"""Another store of trajectories, described as the documentation does it: the rules examine its file."""

from __future__ import annotations

import json
import math
import re
import sqlite3
from contextlib import closing
from pathlib import Path
from uuid import UUID

import numpy as np
import pytest
from pytest_runs import Doctor, findings, items, outcomes

from pytest_panic_doctor.database import generations
from pytest_panic_doctor.database.other_stores import describe_store, describe_table
from pytest_panic_doctor.examination.foreign_code import Misbehaved
from pytest_panic_doctor.session.foreign_hooks import add_generations
from pytest_panic_doctor.topology import persistence_diagram

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "other-store.md"
STEPS = 6
SCHEMA = """
CREATE TABLE study (id TEXT PRIMARY KEY, graphs TEXT, openings TEXT, encoders TEXT, steps INT, repeats INT, begun TEXT,
    ended TEXT);
CREATE TABLE walk (id TEXT PRIMARY KEY, study TEXT, graph TEXT, opening TEXT, repeat INT);
CREATE TABLE step (id TEXT PRIMARY KEY, walk TEXT, n INT, before TEXT, model TEXT, words TEXT, pixels BLOB, begun TEXT,
    ended TEXT, UNIQUE (walk, n));
CREATE TABLE code (id TEXT PRIMARY KEY, step TEXT, encoder TEXT, floats BLOB, begun TEXT, ended TEXT,
    UNIQUE (step, encoder));
CREATE TABLE shape (id TEXT PRIMARY KEY, walk TEXT, encoder TEXT, bars BLOB, begun TEXT, ended TEXT);
"""
IMAGE = b"RIFF\x0e\x00\x00\x00WEBPVP8L\x02\x00\x00\x00\x00\x00"


def identify(table: int, number: int) -> str:
    """An id: of a table, by its number, and a row."""
    return str(UUID(int=table << 80 | 7 << 76 | 2 << 62 | number))


def at(second: int) -> dict[str, str]:
    """The times of a row."""
    return {"begun": f"2026-01-01 00:00:{second:02}", "ended": f"2026-01-01 00:00:{second:02}.5"}


def insert(db: sqlite3.Connection, table: str, **values: object) -> None:
    """Insert one row."""
    places = ", ".join("?" * len(values))
    db.execute(f"INSERT INTO {table} ({', '.join(values)}) VALUES ({places})", tuple(values.values()))


def make_store(path: Path) -> None:
    """A healthy file of the lab: one study with two walks of six steps, three of them encoded."""
    generator = np.random.default_rng(3)
    with closing(sqlite3.connect(path)) as db, db:
        db.executescript(SCHEMA)
        graph = json.dumps(["Painter", "Speaker"])
        study = {"graphs": f"[{graph}]", "openings": '["a pear"]', "encoders": '["Coder"]', "steps": STEPS}
        insert(db, "study", id=identify(1, 0), **study, repeats=2, begun=at(0)["begun"], ended=at(59)["ended"])
        for number in range(2):
            walk = identify(2, number)
            insert(db, "walk", id=walk, study=identify(1, 0), graph=graph, opening="a pear", repeat=number)
            points = generator.standard_normal((STEPS // 2, 4)).astype("<f4")
            for n in range(STEPS):
                step = identify(3, 100 * number + n)
                before = identify(3, 100 * number + n - 1) if n else None
                content = {"words": f"pear {n}"} if n % 2 else {"pixels": IMAGE}
                model = ("Painter", "Speaker")[n % 2]
                insert(db, "step", id=step, walk=walk, n=n, before=before, model=model, **content, **at(n))
                if n % 2:
                    floats = points[n // 2].tobytes()
                    insert(db, "code", id=step, step=step, encoder="Coder", floats=floats, **at(20))
            bars = [
                [[birth, None if math.isinf(death) else death] for birth, death in dimension.tolist()]
                for dimension in persistence_diagram(points).bars
            ]
            insert(db, "shape", id=walk, walk=walk, encoder="Coder", bars=json.dumps(bars).encode(), **at(30))


def description() -> str:
    """The file conftest.py that the page shows."""
    (block,) = re.findall(r"```python\n(# conftest\.py\n.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    return str(block)


@pytest.fixture
def lab(pytester: pytest.Pytester) -> Path:
    """A folder with the description and a healthy file."""
    (pytester.path / "conftest.py").write_text(description(), encoding="utf-8")
    pytester.makeini("[pytest]\ndoctor_text_models = Coder\n")
    make_store(pytester.path / "lab.sqlite")
    return pytester.path / "lab.sqlite"


def test_a_description_is_shorter_than_a_hundred_lines() -> None:
    assert 50 < len(description().splitlines()) < 100


def test_its_file_is_examined_by_the_same_rules_and_nothing_is_written(lab: Path, run_doctor: Doctor) -> None:
    before = lab.read_bytes()
    result = run_doctor("--doctor-report=r.json", "-n1", database="lab.sqlite")
    assert result.ret == 0
    result.stdout.fnmatch_lines(
        [
            "doctor: a database of the lab's store",
            "doctor: 1 experiment, 2 runs, 12 invocations, 6 embeddings, 2 diagrams",
        ]
    )
    became = outcomes(Path("r.json"))
    passed = {name.split("[")[0] for name, outcome in became.items() if outcome == "passed"}
    skipped = {name for name, outcome in became.items() if outcome == "skipped"}
    assert set(became.values()) == {"passed", "skipped"}
    assert skipped == {"orphan-cluster", "cluster-consistent", f"invocation-seed[{identify(1, 0)}]"}
    assert passed > {"schema", "experiment-runs", "invocation-chain", "output-plausible", "time-order"}
    assert passed > {"embedding-missing", "embedding-vector", "diagram-valid", "diagram-current", "diagram-missing"}
    assert lab.read_bytes() == before


DAMAGE = """
UPDATE shape SET bars = '[[[0' WHERE rowid = 1;
DELETE FROM shape WHERE rowid = 2;
UPDATE code SET floats = zeroblob(16) WHERE rowid = 1;
UPDATE step SET before = id WHERE n = 3;
UPDATE step SET model = 'Stranger' WHERE n = 4;
UPDATE walk SET repeat = 7 WHERE rowid = 2;
INSERT INTO walk VALUES ('00000000-0000-7000-8000-000000000000', 'none', '["x"]', 'x', 0);
DROP TABLE code;
"""


def test_its_damage_is_found_in_its_own_terms(lab: Path, run_doctor: Doctor) -> None:
    *statements, dropped = DAMAGE.strip().splitlines()
    with closing(sqlite3.connect(lab)) as db:
        db.executescript("\n".join(statements))
    assert run_doctor("--doctor-report=r.json", database="lab.sqlite").ret == 1
    became = outcomes(Path("r.json"))
    failed = {name.split("[")[0] for name, outcome in became.items() if outcome == "failed"}
    assert failed >= {"diagram-valid", "diagram-missing", "embedding-vector", "invocation-chain", "invocation-model"}
    assert failed >= {"experiment-runs", "orphan-run"}
    (valid,) = [
        each for name, each in items(Path("r.json")).items() if name.startswith("diagram-valid[") and findings(each)
    ]
    assert "is not JSON of bars" in str(findings(valid)[0]["message"])
    with closing(sqlite3.connect(lab)) as db:
        db.execute(dropped)
    result = run_doctor("--doctor-rule=schema", database="lab.sqlite")
    result.stdout.fnmatch_lines(["schema: table code does not exist"])


def test_nothing_that_would_be_refused_is_advised(lab: Path, run_doctor: Doctor) -> None:
    with closing(sqlite3.connect(lab)) as db, db:
        db.execute("DELETE FROM shape WHERE rowid = 2")
    result = run_doctor("-n", "2", database="lab.sqlite")
    assert result.ret == 1
    said = "not repaired: this doctor only examines a database of the lab's store"
    result.stdout.fnmatch_lines([f"  {said}", "sick         diagram-missing*"])
    result.stdout.no_fnmatch_line("*--doctor-fix*")


def test_it_is_not_repaired_and_unknown_without_its_description(lab: Path, run_doctor: Doctor) -> None:
    result = run_doctor("--doctor-fix", database="lab.sqlite")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*is a database of the lab's store, which this doctor examines and does not repair*"])
    (lab.parent / "conftest.py").unlink()
    result = run_doctor(database="lab.sqlite")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*lab.sqlite is an SQLite database, but not a trajectory database*"])


class Given:
    """A config whose hook returns these."""

    def __init__(self, *returned: object) -> None:
        self.hook = self
        self.returned = returned

    def pytest_doctor_generations(self) -> list[object]:
        if self.returned == ("raise",):
            raise ZeroDivisionError("division by zero")
        return list(self.returned)


@pytest.mark.parametrize(
    ("returned", "told"),
    [
        (["lab"], "returned 'lab', which is not a generation: make it with describe_store"),
        ([describe_store("python", "x", [])], "returned two generations called python or x: rename one"),
        ([describe_store("a", "x", []), describe_store("b", "x", [])], "returned two generations called b or x"),
        ("raise", "raised ZeroDivisionError"),
    ],
)
def test_a_hook_that_returns_something_else_is_refused(
    returned: object, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generations, "ADDED", [])
    with pytest.raises(Misbehaved, match=f"^pytest_doctor_generations {re.escape(told)}"):
        add_generations(Given(returned))  # type: ignore[arg-type]


def test_a_later_session_of_the_process_knows_its_own_stores_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generations, "ADDED", [])
    for key in ("one", "other"):
        add_generations(Given([describe_store(key, key, [])], None))  # type: ignore[arg-type]
        assert [each.key for each in generations.generations()] == ["python", "elixir", key]


def test_what_a_store_has_nothing_of_is_null_or_empty_for_the_rules() -> None:
    walk = describe_table("walk", "run", "id TEXT, seed_text TEXT", {"network": "seed_text"})
    store = describe_store("lab", "the lab's store", [walk])
    with closing(sqlite3.connect(":memory:")) as db:
        db.execute("CREATE TABLE walk (id TEXT, seed_text TEXT)")
        db.execute("INSERT INTO walk VALUES ('x', '[1]')")
        store.create_views(db)
        assert db.execute("SELECT id, network, seed, max_length FROM run").fetchall() == [("x", "[1]", -1, None)]
        assert db.execute("SELECT id, medoid_embedding_id FROM embeddingcluster").fetchall() == []
    assert store.describe(sqlite3.connect(":memory:")) == "the lab's store"
    with pytest.raises(NotImplementedError, match="writes no diagram into the store of another program"):
        describe_store("lab", "x", [], decode=lambda _: None).codec().encode(None)  # type: ignore[arg-type, return-value]
