"""The demo of the Elixir generation: what it plants is found, what is not sick is not, and it is the same each time."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

import pytest
from databases import dump
from pytest_runs import items

from pytest_panic_doctor.database import elixir_payload
from pytest_panic_doctor.session.demo.build import build, is_demo

FOLDER = Path("doctor-demo")
DATABASE = "trajectory_data.sqlite"
DEFECTS = "demo-defects.json"


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A demo that nobody changes."""
    return build(tmp_path_factory.mktemp("demo") / FOLDER, generation="elixir")


def test_a_session_finds_every_defect_and_nothing_else_and_another_repairs_all(pytester: pytest.Pytester) -> None:
    result = pytester.runpytest_subprocess(
        "--doctor-demo", "--doctor-demo-generation", "elixir", "--doctor-report=r.json", "-p", "no:cacheprovider"
    )
    assert result.ret == 1
    result.stdout.fnmatch_lines(["doctor: a database of the Elixir generation, schema 20260519233115"])
    defects = json.loads((pytester.path / FOLDER / DEFECTS).read_text())
    found = items(pytester.path / "r.json")
    failed = [item for item in found.values() if item["outcome"] == "failed"]
    assert Counter(item["rule"] for item in failed) == Counter(defect["rule"] for defect in defects)
    findings = [finding for item in failed for finding in listed(item)]
    for defect in defects:
        named = [
            {*finding["ids"], finding["run"], finding["embedding_model"], finding["experiment"]}
            for finding in findings
            if finding["rule"] == defect["rule"]
        ]
        assert any(set(defect["ids"]) <= each for each in named), defect
    assert json.loads((pytester.path / "r.json").read_text())["doctor"]["settings"]["demo"] == "elixir"
    at = ("--doctor-db", str(FOLDER / DATABASE), "--doctor-fix", "--doctor-report=r.json", "-p", "no:cacheprovider")
    assert pytester.runpytest_subprocess(*at).ret == 0
    became = Counter(str(item["outcome"]) for item in items(pytester.path / "r.json").values())
    assert became["fixed"] == len(defects)
    assert set(became) == {"fixed", "passed", "skipped"}


def listed(item: Mapping[str, object]) -> list[dict[str, list[str]]]:
    """The findings of an item of a report."""
    found = item["findings"]
    assert isinstance(found, list)
    return found


def test_its_kinds_of_defect_are_many_and_of_this_generation_too(demo: Path) -> None:
    defects = json.loads((demo.parent / DEFECTS).read_text())
    assert len({defect["kind"] for defect in defects}) == len(defects) >= 10
    rules = {defect["rule"] for defect in defects}
    assert rules > {"diagram-missing", "diagram-current", "lyapunov-missing", "lyapunov-valid", "run-lockstep"}


def test_it_has_what_is_legitimately_absent(demo: Path) -> None:
    with closing(sqlite3.connect(demo)) as db:
        ((unfinished,),) = db.execute("SELECT count(*) FROM experiments WHERE completed_at IS NULL").fetchall()
        named = db.execute("SELECT count(*) FROM experiments WHERE embedding_models LIKE '%\"Nomic\"%'").fetchone()[0]
        made = db.execute("SELECT count(*) FROM embeddings WHERE embedding_model = 'Nomic'").fetchone()[0]
        phi = db.execute("SELECT count(*) FROM experiments WHERE networks LIKE '%Phi4Vision%'").fetchone()[0]
        runs = db.execute("SELECT count(*) FROM runs WHERE network LIKE '%Phi4Vision%'").fetchone()[0]
    assert unfinished == 2
    assert (named, made) == (1, 0)
    assert (phi, runs) == (1, 0)


def test_its_trajectories_part_and_its_curves_are_of_every_step(demo: Path) -> None:
    with closing(sqlite3.connect(demo)) as db:
        found = [
            elixir_payload.decode_lyapunov(data)
            for (data,) in db.execute(
                "SELECT l.lyapunov_data FROM lyapunov_results l JOIN experiments e ON e.id = l.experiment_id "
                "WHERE l.lyapunov_data NOT NULL ORDER BY l.rowid DESC LIMIT 4"
            )
        ]
    assert {each.num_timesteps for each in found} == {20}
    assert all((each.divergence_curve > 0.1).all() for each in found)


def test_a_seed_makes_the_same_demo_and_another_seed_another(demo: Path, tmp_path: Path) -> None:
    assert dump(build(tmp_path / "same", generation="elixir")) == dump(demo)
    assert dump(build(tmp_path / "other", seed=1, generation="elixir"))["invocations"] != dump(demo)["invocations"]


def test_it_is_small_in_wal_mode_as_the_tools_own_files_and_has_its_mark(demo: Path) -> None:
    header = demo.read_bytes()[:20]
    assert header[18:20] == b"\2\2"
    assert demo.stat().st_size < 5_000_000
    assert is_demo(demo)
    assert sorted(path.name for path in demo.parent.iterdir()) == [".made-by-pytest-panic-doctor", DEFECTS, DATABASE]


def test_each_generation_replaces_the_other(tmp_path: Path) -> None:
    path = build(tmp_path / FOLDER, generation="elixir")
    assert "runs" in dump(path)
    assert build(tmp_path / FOLDER) == path
    assert {"run", "experimentconfig"} <= dump(path).keys()
    assert "runs" not in dump(path)
