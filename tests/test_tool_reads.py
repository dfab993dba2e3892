"""The research tool reads what the product writes: repaired databases, the demo, and what the benchmarks build."""

from __future__ import annotations

import importlib.util
import shutil
import sqlite3
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import research_tool
from numpy.typing import NDArray
from repair_item import fix_file

from pytest_panic_doctor.compute.budget import Budget
from pytest_panic_doctor.compute.runner import DiagramRunner
from pytest_panic_doctor.session.demo.build import build as build_demo

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DiagramRunner]:
    with DiagramRunner(budget=Budget(tmp_path_factory.mktemp("budget"), 4_000_000_000)) as made:
        yield made


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_demo(tmp_path_factory.mktemp("demo") / "doctor-demo")


DAMAGE = """
UPDATE persistencediagram SET diagram_data = NULL WHERE rowid % 3 = 1;
DELETE FROM persistencediagram WHERE rowid % 3 = 2;
UPDATE embedding SET vector = NULL WHERE rowid % 50 = 7;
DELETE FROM embedding WHERE rowid % 50 = 9;
"""


def copied(shared_data: Path, name: str, folder: Path) -> tuple[Path, Path]:
    """Two copies of a reference file: the one to repair, and the one that stays."""
    path, before = folder / "x.sqlite", folder / "before.sqlite"
    for each in (path, before):
        each.write_bytes((shared_data / name).read_bytes())
    return path, before


def test_the_reader_reads_what_the_tool_wrote_and_finds_what_it_did_not(shared_data: Path, tmp_path: Path) -> None:
    path, _ = copied(shared_data, "reference-healthy.sqlite", tmp_path)
    assert research_tool.unread(path) == []
    early, _ = copied(shared_data, "reference-early-stops.sqlite", tmp_path)
    assert research_tool.unread(early) == []
    wrong = {
        "invocation": ("type", "Text"),
        "run": ("id", "06B05171-0000-7000-8000-000000000000"),
        "embedding": ("started_at", "2025-08-12T09:30:00+00:00"),
        "experimentconfig": ("seeds", "{}"),
        "clusteringresult": ("parameters", "[]"),
    }
    path, _ = copied(shared_data, "reference-healthy.sqlite", tmp_path)
    with closing(sqlite3.connect(path)) as db:
        for table, (column, value) in wrong.items():
            db.execute(f"UPDATE {table} SET {column} = ? WHERE rowid = (SELECT min(rowid) FROM {table})", (value,))
        db.commit()
    assert sorted(each.split(" ")[0] for each in research_tool.unread(path)) == sorted(
        f"{t}.{c}" for t, (c, _) in wrong.items()
    )


@pytest.mark.parametrize("name", ["reference-sick.sqlite", "reference-early-stops.sqlite"])
def test_a_repaired_file(shared_data: Path, tmp_path: Path, runner: DiagramRunner, name: str) -> None:
    path, before = copied(shared_data, name, tmp_path)
    with closing(sqlite3.connect(path)) as db:
        known: dict[str | bytes, NDArray[np.float32]] = {
            output: np.frombuffer(vector, "<f4")
            for output, vector in db.execute(
                "SELECT coalesce(output_text, output_image_data), vector FROM invocation i "
                "JOIN embedding e ON e.invocation_id = i.id WHERE length(vector) > 0 AND embedding_model = 'DummyText'"
            )
        }
        if "early" in name:
            db.executescript(DAMAGE)
    if "early" in name:
        shutil.copy(path, before)

    def hook(model: str, outputs: Sequence[str | bytes]) -> NDArray[np.float32] | None:
        return np.stack([known[output] for output in outputs]) if model == "DummyText" else None

    found = fix_file(path, runner, hook=hook)
    assert any(outcome.status == "fixed" for outcome in found["diagram-missing"])
    if "early" in name:
        assert {outcome.status for outcome in found["embedding-missing"]} >= {"fixed"}
    assert research_tool.unread(path, before) == []
    new = set(research_tool.rows(path, "persistencediagram")) - set(research_tool.rows(before, "persistencediagram"))
    assert new
    for row in new:
        payload = dict(row)["diagram_data"]
        assert isinstance(payload, bytes)
        assert '"bars_sha256"' in str(research_tool.read_payload(payload)["doctor"])


def test_the_demo_repaired(demo: Path, tmp_path: Path, runner: DiagramRunner) -> None:
    path = tmp_path / "x.sqlite"
    shutil.copy(demo, path)
    assert any(outcome.status == "fixed" for outcome in fix_file(path, runner)["diagram-valid"])
    assert research_tool.unread(path) == []


def test_what_benchmarks_build(tmp_path: Path) -> None:
    spec = importlib.util.spec_from_file_location("built_by_benchmarks", BENCHMARKS / "build.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    path = module.build(tmp_path / "x.sqlite", module.Shape(runs=1, length=12))
    assert research_tool.unread(path) == []
