"""The demo: what it plants is found and healed, it is the same each time, and it touches nothing of others."""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
import sqlite3
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
import pytest
from databases import dump
from pytest_runs import items, outcomes

from pytest_panic_doctor.repair.journal.errors import RepairRefused
from pytest_panic_doctor.repair.journal.locks import RepairLock
from pytest_panic_doctor.repair.journal.undo import repairs
from pytest_panic_doctor.session.demo.__main__ import main
from pytest_panic_doctor.session.demo.build import MARK, SIDECARS, DemoRefused, build, is_demo

FOLDER = "doctor-demo"
DATABASE = "trajectory_data.sqlite"
DEFECTS = "demo-defects.json"


def run(folder: Path, *args: str) -> subprocess.CompletedProcess[str]:
    """A pytest run in a process of its own."""
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *args]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST")}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@contextmanager
def room(size: int) -> Iterator[None]:
    """No file of this process may grow past `size` bytes: as on a full disk, the writer gets an error."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def contents(folder: Path) -> dict[str, object]:
    """Each file's bytes, but a demo's rows: the same rows may lie on other pages."""
    return {
        path.name: dump(path) if path.name == DATABASE and is_demo(path) else path.read_bytes()
        for path in folder.iterdir()
    }


@pytest.fixture(scope="session")
def examined(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the demo was built and examined."""
    folder = tmp_path_factory.mktemp("demo")
    done = run(folder, "--doctor-demo", "--doctor-report=r.json")
    assert done.returncode == 1, done.stdout + done.stderr
    assert f"pytest -p no:cacheprovider --doctor-db {FOLDER}/{DATABASE} --doctor-plan\n" in done.stdout
    return folder


@pytest.fixture
def copy(examined: Path, tmp_path: Path) -> Path:
    """A copy of the demo's folder, with whatever is in it."""
    return Path(shutil.copytree(examined / FOLDER, tmp_path / FOLDER))


def test_every_defect_is_found_by_its_rule_and_nothing_else_fails(examined: Path) -> None:
    defects = json.loads((examined / FOLDER / DEFECTS).read_text())
    assert len({defect["kind"] for defect in defects}) == len(defects) >= 10
    found = items(examined / "r.json")
    findings = [finding for item in found.values() for finding in item["findings"]]  # type: ignore[attr-defined]
    for defect in defects:
        named = [
            {*finding["ids"], finding["run"], finding["embedding_model"]}
            for finding in findings
            if finding["rule"] == defect["rule"]
        ]
        assert any(set(defect["ids"]) <= each for each in named), defect
    failed = Counter(item["rule"] for item in found.values() if item["outcome"] == "failed")
    assert failed == Counter(defect["rule"] for defect in defects)


def test_a_missing_constraint_is_worth_a_warning_only(examined: Path) -> None:
    schema = items(examined / "r.json")["schema"]
    assert schema["outcome"] == "passed"
    with closing(sqlite3.connect(examined / FOLDER / DATABASE)) as db:
        indexes = db.execute("PRAGMA index_list(embedding)").fetchall()
        of_clusters = db.execute("PRAGMA index_list(embeddingcluster)").fetchall()
    assert [name for _, name, unique, *_ in indexes if unique] == ["sqlite_autoindex_embedding_1"]  # the primary key
    assert [name for _, name, unique, origin, *_ in of_clusters if unique and origin == "c"] == ["unique_embedding"]


def test_it_is_small_and_its_trajectories_loop(examined: Path) -> None:
    path = examined / FOLDER / DATABASE
    assert path.stat().st_size < 5_000_000
    with closing(sqlite3.connect(path)) as db:
        said = db.execute(
            "SELECT r.seed, r.id, i.output_text, e.vector FROM run r JOIN invocation i ON i.run_id = r.id "
            "JOIN embedding e ON e.invocation_id = i.id AND e.embedding_model = 'Nomic' "
            "WHERE i.type = 'TEXT' ORDER BY r.id, i.sequence_number"
        ).fetchall()
    vectors: dict[tuple[str, str], list[bytes]] = defaultdict(list)
    captions: dict[tuple[int, str], list[str]] = defaultdict(list)
    for seed, of, caption, vector in said:
        vectors[of, caption].append(vector)
        captions[seed, of].append(caption)
    repeats = [each for each in vectors.values() if len(each) > 1]
    assert any(len(set(each)) < len(each) for each in repeats)
    assert any(len(set(each)) > 1 for each in repeats)
    for (seed, _), each in captions.items():
        assert (len(set(each)) < len(each)) == (seed == -1)  # another seed would have ended the run at a repeat
        assert 15 <= len(each) <= 30
    points = np.frombuffer(b"".join(row[3] for row in said), "<f4").reshape(-1, 768)
    assert np.allclose(np.linalg.norm(points, axis=1), 1, atol=1e-6)


def test_fix_heals_it_and_a_second_time_writes_nothing(copy: Path) -> None:
    at = ["--doctor-db", f"{FOLDER}/{DATABASE}", "--doctor-fix"]
    done = run(copy.parent, *at, "-n", "2", "--doctor-report=r.json")
    assert done.returncode == 0, done.stdout
    became = Counter(outcomes(copy.parent / "r.json").values())
    assert became["fixed"] == len(json.loads((copy / DEFECTS).read_text()))
    assert set(became) == {"passed", "fixed"}
    before = {path.name: path.read_bytes() for path in copy.glob("*.sqlite*")}
    done = run(copy.parent, *at, "--doctor-report=r.json")
    assert done.returncode == 0, done.stdout
    assert set(outcomes(copy.parent / "r.json").values()) == {"passed"}
    assert {path.name: path.read_bytes() for path in copy.glob("*.sqlite*")} == before


def test_a_seed_makes_the_same_demo_and_another_seed_another(examined: Path, tmp_path: Path) -> None:
    first = dump(examined / FOLDER / DATABASE)
    assert dump(build(tmp_path / "same", seed=0)) == first
    other = dump(build(tmp_path / "other", seed=1))
    assert other["invocation"] != first["invocation"]
    assert (tmp_path / "same" / DEFECTS).read_text() == (examined / FOLDER / DEFECTS).read_text()


def test_it_replaces_itself_whole_and_keeps_what_others_put_beside_it(
    copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(copy)
    with closing(sqlite3.connect(copy / DATABASE)) as db:
        db.execute("DELETE FROM embedding")
        db.commit()
    sidecars = {*SIDECARS} - {DATABASE}
    assert {"trajectory_data.doctor.sqlite", *(f"{DATABASE}-{end}" for end in ("journal", "wal", "shm"))} <= sidecars
    for name in (*sidecars, "trajectory_data.doctor.lock", "trajectory_data.doctor.write.lock"):
        (copy / name).write_bytes(b"of the former demo")
    strangers = {"trajectory_data.csv": b"mine", "trajectory_data.sqlite.backup": b"months of work"}
    for name, data in strangers.items():
        (copy / name).write_bytes(data)
    main([str(copy)])
    out, err = capsys.readouterr()
    assert (out.splitlines()[-1], err) == (f"next: pytest --doctor-db {copy / DATABASE}", "")
    assert contents(copy) == before | strangers


def stranger(folder: Path) -> None:
    folder.mkdir()
    (folder / DATABASE).write_text("months of work")


def stranger_of_another_name(folder: Path) -> None:
    folder.mkdir()
    (folder / "notes.txt").write_text("months of work")


def stranger_in_a_folder_of_ours(folder: Path) -> None:
    stranger(folder)
    (folder / DATABASE).unlink()
    with closing(sqlite3.connect(folder / DATABASE)) as db:
        db.execute("CREATE TABLE run (id)")
    (folder / MARK).touch()


def link_in_a_folder_of_ours(folder: Path) -> None:
    stranger(folder.with_name("elsewhere"))
    folder.mkdir()
    (folder / MARK).touch()
    (folder / DATABASE).symlink_to(folder.with_name("elsewhere") / DATABASE)


@pytest.mark.parametrize(
    "make", [stranger, stranger_of_another_name, stranger_in_a_folder_of_ours, link_in_a_folder_of_ours]
)
def test_what_it_did_not_make_is_refused_untouched(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / FOLDER)
    before = contents(tmp_path / FOLDER)
    with pytest.raises(DemoRefused, match=r"was not made by the demo: move it away") as refused:
        build(tmp_path / FOLDER)
    assert "\n" not in str(refused.value)
    assert contents(tmp_path / FOLDER) == before


def test_a_file_in_the_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / FOLDER).write_text("months of work")
    with pytest.raises(DemoRefused, match="was not made by the demo"):
        build(tmp_path / FOLDER)
    assert (tmp_path / FOLDER).read_text() == "months of work"


def test_while_a_doctor_repairs_it_it_stays(copy: Path) -> None:
    before = dump(copy / DATABASE)
    with RepairLock(copy / DATABASE), pytest.raises(RepairRefused, match="Another doctor is repairing"):
        build(copy)
    assert dump(copy / DATABASE) == before


def test_without_room_the_former_demo_stays_and_the_next_one_tidies_up(copy: Path) -> None:
    before = contents(copy)
    with room(500_000), pytest.raises(SystemExit) as ended:
        main([str(copy)])
    assert re.fullmatch(rf"the demo cannot be written in {copy} \(.+\): make room there.*", str(ended.value.code))
    left = contents(copy)
    assert {name: left[name] for name in before} == before
    build(copy)
    assert contents(copy) == before


@pytest.mark.parametrize("args", [[], ["x", "--seed", "-1"], ["x", "--seed", "half"]])
def test_a_wrong_call_of_the_child_is_told_in_a_sentence(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, args: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main(args)
    assert ended.value.code == 2
    assert not list(tmp_path.iterdir())


def test_a_refusal_reaches_the_user_of_pytest(tmp_path: Path) -> None:
    stranger(tmp_path / FOLDER)
    done = run(tmp_path, "--doctor-demo")
    assert done.returncode == 4
    (line,) = [line for line in done.stderr.splitlines() if line]
    assert "was not made by the demo" in line
    assert (tmp_path / FOLDER / DATABASE).read_text() == "months of work"


def test_demo_and_a_database_contradict_each_other(tmp_path: Path) -> None:
    done = run(tmp_path, "--doctor-demo", "--doctor-db", "x.sqlite")
    assert done.returncode == 4
    assert "leave out --doctor-db x.sqlite" in done.stderr


def test_what_it_replaces_is_said(tmp_path: Path) -> None:
    assert "former demo" not in run(tmp_path, "--doctor-demo", "-k", "schema").stdout
    again = run(tmp_path, "--doctor-demo", "--doctor-fix", "-m", "orphan_embedding or orphan_diagram")
    assert "doctor: the former demo in doctor-demo was replaced\n" in again.stdout
    count = len(repairs(tmp_path / FOLDER / DATABASE))
    assert count > 1
    said = f"doctor: the former demo in doctor-demo was replaced, and its {count} repairs with it\n"
    assert said in run(tmp_path, "--doctor-demo", "-q", "-k", "schema").stdout
