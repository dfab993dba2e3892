"""The files that the research tool itself wrote: healthy is green; in sick, each of the 18 defects is found."""

from __future__ import annotations

import io
import json
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from databases import dump
from pytest_runs import ALONE, items
from reference_homology import h_bars

from pytest_panic_doctor.database import clouds
from pytest_panic_doctor.database.subject import DiagramTarget
from pytest_panic_doctor.topology.cloud import h0_deaths

EXPLAINED = {
    "diagram-current": "clouds that lost an embedding or hold an unusable one",
    "invocation-chain": "the gap, and the repeated number",
    "invocation-model": "the repeated number",
    "time-order": "the planted embedding, which is older than its invocation",
}
"""Rules that fail by plain consequence of the list."""


def run(folder: Path, *args: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", *ALONE, "-p", "no:cacheprovider", "--doctor-db", "x.sqlite", *args]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def copied(shared_data: Path, name: str, folder: Path) -> Path:
    shutil.copy(shared_data / name, folder / "x.sqlite")
    (folder / "x.sqlite").chmod(0o644)
    return folder / "x.sqlite"


def test_the_healthy_file_is_green(shared_data: Path, tmp_path: Path) -> None:
    before = copied(shared_data, "reference-healthy.sqlite", tmp_path).read_bytes()
    done = run(tmp_path, "-n2", "--doctor-report=r.json")
    assert done.returncode == 0, done.stdout
    assert {item["outcome"] for item in items(tmp_path / "r.json").values()} == {"passed"}
    assert (tmp_path / "x.sqlite").read_bytes() == before


def test_each_defect_of_the_sick_file_is_found(shared_data: Path, tmp_path: Path) -> None:
    copied(shared_data, "reference-sick.sqlite", tmp_path)
    assert run(tmp_path, "--doctor-report=r.json").returncode == 1
    found = items(tmp_path / "r.json").values()
    findings = [finding for item in found for finding in item["findings"]]  # type: ignore[attr-defined]
    defects = json.loads((shared_data / "reference-sick.json").read_text())
    assert len(defects) == 18
    for defect in defects:
        named = [
            {*finding["ids"], finding["run"], finding["embedding_model"]}
            for finding in findings
            if finding["rule"] == defect["rule"]
        ]
        assert any(set(defect["ids"]) <= each for each in named), defect
    failed = {item["rule"] for item in found if item["outcome"] == "failed"}
    assert failed == {defect["rule"] for defect in defects} | set(EXPLAINED)


@pytest.fixture(scope="module")
def fixed(tmp_path_factory: pytest.TempPathFactory, shared_data: Path) -> Path:
    """A folder in which a copy of the sick file was repaired on two workers."""
    folder = tmp_path_factory.mktemp("fixed")
    copied(shared_data, "reference-sick.sqlite", folder)
    done = run(folder, "--doctor-fix", "-n2", "--doctor-report=r.json")
    assert done.returncode == 1, done.stdout
    return folder


def test_what_can_be_repaired_is_and_the_rest_says_what_it_needs(fixed: Path, shared_data: Path) -> None:
    repaired = {item["rule"] for item in items(fixed / "r.json").values() if item["outcome"] == "fixed"}
    assert repaired == {
        *("orphan-cluster", "orphan-invocation", "orphan-embedding", "orphan-diagram", "embedding-type"),
        # Not diagram-current: the stale diagrams are right of their runs before these lost rows.
        *("diagram-model", "diagram-duplicate", "diagram-missing", "diagram-valid"),
    }
    left = [item for item in items(fixed / "r.json").values() if item["outcome"] == "failed"]
    assert left
    assert all(item["note"] for item in left)
    assert shared_data.is_dir()


def test_the_new_diagrams_are_those_of_an_independent_implementation(fixed: Path) -> None:
    db = sqlite3.connect(fixed / "x.sqlite")
    for run_id, model in (
        ("06b0517101d57dc1b84c1c285b64bd6c", "NomicVision"),
        ("06b05170fe3e7a8fb98e2a523d52099f", "Nomic"),
    ):
        kind = "IMAGE" if model == "NomicVision" else "TEXT"
        points = clouds.load_cloud(db, DiagramTarget(run_id, model), kind, 768).points
        (diagram,) = clouds.iterate_diagrams(db, DiagramTarget(run_id, model))
        assert diagram.payload is not None
        arrays = np.load(io.BytesIO(diagram.payload), allow_pickle=False)
        expected = h_bars(points, 2)
        for dimension in (1, 2):
            assert arrays[f"dgms_{dimension}"] == pytest.approx(expected[dimension], abs=1e-6)
        deaths = np.sort(arrays["dgms_0"][:, 1])[:-1]
        edges = h0_deaths(points)
        assert deaths == pytest.approx(edges[len(edges) - len(deaths) :], abs=1e-6)
    db.close()


def test_a_second_fix_writes_nothing(fixed: Path) -> None:
    before = {path.name: path.read_bytes() for path in fixed.glob("*.sqlite")}
    assert run(fixed, "--doctor-fix", "-n2").returncode == 1
    assert {path.name: path.read_bytes() for path in fixed.glob("*.sqlite")} == before


def test_undo_gives_the_sick_file_back(fixed: Path, shared_data: Path, tmp_path: Path) -> None:
    for path in fixed.glob("x.*"):
        shutil.copy(path, tmp_path / path.name)
    assert run(tmp_path, "--doctor-undo", "all").returncode == 0
    assert dump(tmp_path / "x.sqlite") == dump(shared_data / "reference-sick.sqlite")
