"""The demo: what it plants is found and healed, it is the same each time, and it touches nothing of others."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from databases import dump
from runs import items, outcomes

FOLDER = "doctor-demo"


def run(folder: Path, *args: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *args]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST")}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def examined(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the demo was built and examined."""
    folder = tmp_path_factory.mktemp("demo")
    done = run(folder, "--doctor-demo", "--doctor-report=r.json")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "next: pytest --doctor-db doctor-demo/trajectory_data.sqlite --doctor-fix -n 2" in done.stdout
    return folder


def test_every_defect_is_found_by_its_rule_and_nothing_else_fails(examined: Path) -> None:
    defects = json.loads((examined / FOLDER / "demo-defects.json").read_text())
    assert len({defect["rule"] for defect in defects}) >= 8
    found = items(examined / "r.json")
    findings = [finding for item in found.values() for finding in item["findings"]]  # type: ignore[attr-defined]
    for defect in defects:
        named = {
            row
            for finding in findings
            if finding["rule"] == defect["rule"]
            for row in [*finding["ids"], finding["run"], finding["embedding_model"]]
        }
        assert set(defect["ids"]) <= named, defect
    failed = {item["rule"] for item in found.values() if item["outcome"] == "failed"}
    assert failed == {defect["rule"] for defect in defects} | {"embedding-vector"}  # the mismatched ones are NULL


def test_it_is_small_and_loops(examined: Path) -> None:
    path = examined / FOLDER / "trajectory_data.sqlite"
    assert path.stat().st_size < 5_000_000
    texts = [row[10] for row in dump(path)["invocation"] if row[10]]
    assert len(set(texts)) < len(texts)


def test_fix_heals_it_and_a_second_time_writes_nothing(tmp_path: Path) -> None:
    done = run(tmp_path, "--doctor-demo", "--doctor-fix", "-n", "2", "--doctor-report=r.json")
    assert done.returncode == 0, done.stdout
    assert set(outcomes(tmp_path / "r.json").values()) == {"passed", "fixed"}
    before = {path.name: path.read_bytes() for path in (tmp_path / FOLDER).glob("*.sqlite")}
    done = run(tmp_path, "--doctor-db", f"{FOLDER}/trajectory_data.sqlite", "--doctor-fix")
    assert done.returncode == 0
    assert "fixed" not in done.stdout.splitlines()[-1]
    assert {path.name: path.read_bytes() for path in (tmp_path / FOLDER).glob("*.sqlite")} == before


def test_it_is_the_same_each_time_and_replaces_only_itself(examined: Path, tmp_path: Path) -> None:
    for _ in range(2):
        done = subprocess.run([sys.executable, "-m", "pytest_panic_doctor.demo", FOLDER], cwd=tmp_path, check=False)
        assert done.returncode == 0
        assert dump(tmp_path / FOLDER / "trajectory_data.sqlite") == dump(examined / FOLDER / "trajectory_data.sqlite")


def test_a_strangers_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / FOLDER).mkdir()
    (tmp_path / FOLDER / "trajectory_data.sqlite").write_text("months of work")
    done = run(tmp_path, "--doctor-demo")
    assert done.returncode == 4
    (line,) = [line for line in done.stderr.splitlines() if line]
    assert "was not made by the demo" in line
    assert (tmp_path / FOLDER / "trajectory_data.sqlite").read_text() == "months of work"


def test_demo_and_a_database_contradict_each_other(tmp_path: Path) -> None:
    done = run(tmp_path, "--doctor-demo", "--doctor-db", "x.sqlite")
    assert done.returncode == 4
    assert "leave --doctor-db x.sqlite away" in done.stderr
