"""`--doctor-fix` on a real Ray cluster: the same rows as from this machine, whatever happens to the cluster."""

from __future__ import annotations

import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from databases import Built, build, dump, uid
from defects import DAMAGES
from pytest_runs import Doctor, items, on_one_line, outcomes
from ray_cluster import Running, node

from pytest_panic_doctor.database.spelling import dashed
from pytest_panic_doctor.topology.engines import ENGINE_NAMES
from pytest_panic_doctor.topology.payload import Payload, decode

pytestmark = pytest.mark.integration

pytest.importorskip("ray", reason="Ray is not installed: pip install 'pytest-panic-doctor[ray]'")

RUNS = 3

ENGINES = """
import os, signal, time
import numpy as np
from pytest_panic_doctor.topology.engines import load_engine

class Deed:
    def __init__(self, deed):
        self.deed, self.engine = deed, load_engine()
        self.name, self.version = self.engine.name, self.engine.version

    def bars(self, distances, max_dim, threads):
        self.deed(distances)
        return self.engine.bars(distances, max_dim, threads)

def eat(distances):
    kept = [np.ones(8_000_000, np.uint8) for _ in range(35)]
    time.sleep(0.3)

def strike(distances):
    if len(distances) == 5:
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(9)

slow = Deed(lambda distances: time.sleep(1))
endless = Deed(lambda distances: time.sleep(60) if len(distances) == 6 else None)
hungry = Deed(eat)
killer = Deed(strike)
"""


@pytest.fixture
def empty(pytester: pytest.Pytester) -> Built:
    """A database without a single diagram's payload."""
    (pytester.path / "engines.py").write_text(ENGINES)
    return without_diagrams(pytester.path, RUNS)


def without_diagrams(folder: Path, runs: int) -> Built:
    built = build(folder / "x.sqlite", runs=runs)
    with built.open() as db:
        db.execute("UPDATE persistencediagram SET diagram_data = NULL")
    return built


def payloads(path: Path) -> dict[str, Payload]:
    """Every diagram of a database, by its id."""
    db = sqlite3.connect(path)
    rows = db.execute("SELECT id, diagram_data FROM persistencediagram WHERE diagram_data IS NOT NULL").fetchall()
    db.close()
    return {name: decode(data) for name, data in rows}


def check_all_are_there(built: Built, run_doctor: Doctor, before: object, runs: int = RUNS) -> None:
    """Every diagram once, with the bars of this machine; the journal takes all of it back."""
    whole = build(built.path.with_name("whole.sqlite"), runs=runs)
    expected, found = payloads(whole.path), payloads(built.path)
    assert found.keys() == expected.keys()
    for name, payload in found.items():
        for mine, theirs in zip(payload.diagram.bars, expected[name].diagram.bars, strict=True):
            np.testing.assert_array_equal(mine, theirs)
        assert payload.provenance
        assert payload.provenance.engine in ENGINE_NAMES
    journal = sqlite3.connect(built.path.with_name("x.doctor.sqlite"))
    states = journal.execute("SELECT status, count(*) FROM repairs GROUP BY 1").fetchall()
    journal.close()
    assert states == [("applied", len(expected))]
    assert run_doctor("--doctor-undo", "all").ret == 0
    assert dump(built.path) == before


@pytest.mark.parametrize("mode", [(), ("-n2",)], ids=["plain", "n2"])
def test_all_diagrams_come_from_the_cluster(
    run_doctor: Doctor, empty: Built, running: Running, monkeypatch: pytest.MonkeyPatch, mode: tuple[str, ...]
) -> None:
    before = dump(empty.path)
    monkeypatch.setenv("RAY_ADDRESS", running.address)
    result = run_doctor("--doctor-fix", "--doctor-engine=ray", "--doctor-report=r.json", *mode)
    assert result.ret == 0, result.stdout.str()
    assert result.stderr.str() == ""
    result.stdout.fnmatch_lines(
        ["doctor: 6 diagrams to compute, 36 points, about 1 s on a Ray cluster of 3 nodes, 3 cores"]
    )
    reported = items(empty.path.with_name("r.json"))
    fixed = [name for name, item in reported.items() if item["outcome"] == "fixed"]
    assert len(fixed) == 2 * RUNS
    assert {name.split("[")[0] for name in fixed} == {"diagram-missing"}
    for name in fixed:
        measures = reported[name]["measures"]
        assert isinstance(measures, dict)
        assert measures.keys() == {"points", "distinct", "seconds", "peak_memory", "engine"}
    check_all_are_there(empty, run_doctor, before)


def test_a_node_is_killed_in_mid_run(
    run_doctor: Doctor, empty: Built, running: Running, pytester: pytest.Pytester
) -> None:
    without_diagrams(pytester.path, 5)
    before = dump(empty.path)
    command = [sys.executable, "-m", "pytest", "--doctor-db=x.sqlite", "--doctor-fix", "-p", "no:hypothesispytest"]
    command += ["--doctor-engine=engines:slow", f"--doctor-ray={running.address}"]
    process = subprocess.Popen(command, cwd=pytester.path, stdout=subprocess.PIPE, text=True)
    wait_for(lambda: written(empty) >= 2)
    running.kill_last()
    assert written(empty) < 8
    running.add(node(1, 1000))
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0, out
    check_all_are_there(empty, run_doctor, before, runs=5)


def written(built: Built) -> int:
    with built.open() as db:
        return int(db.execute("SELECT count(*) FROM persistencediagram WHERE diagram_data IS NOT NULL").fetchone()[0])


def wait_for(happened: object, seconds: float = 40) -> None:
    deadline = time.monotonic() + seconds
    while not happened():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_what_is_lost_again_and_again_fails_and_the_others_go_on(
    run_doctor: Doctor, empty: Built, running: Running
) -> None:
    merge_two_points(empty)
    result = run_doctor("--doctor-fix", "--doctor-engine=engines:killer", f"--doctor-ray={running.address}")
    assert result.ret == 1
    expected = "was lost 4 times: its Ray worker died; check the cluster, then run again "
    assert f"not repaired: the diagram of 6 points {expected}" in on_one_line(result)
    result.stdout.fnmatch_lines(["*, 5 fixed in *"])


def merge_two_points(built: Built) -> None:
    """Make the cloud of one run have five distinct points."""
    with built.open() as db:
        db.execute(
            "UPDATE embedding SET vector = (SELECT vector FROM embedding WHERE id = ?) WHERE id = ?",
            (built.embedding(1), built.embedding(3)),
        )


def test_what_outgrows_its_task_gets_more(run_doctor: Doctor, empty: Built, running: Running) -> None:
    only = f"x.sqlite::diagram-missing[{dashed(empty.run())}-Nomic]"
    result = run_doctor("--doctor-fix", "--doctor-engine=engines:hungry", f"--doctor-ray={running.address}", only)
    assert result.ret == 0, result.stdout.str()
    (payload,) = payloads(empty.path).values()
    assert payload.provenance
    assert payload.provenance.peak_memory > 280e6


def test_what_outgrows_the_memory_given_says_so(run_doctor: Doctor, empty: Built, running: Running) -> None:
    only = f"x.sqlite::diagram-missing[{dashed(empty.run())}-Nomic]"
    ray = ("--doctor-engine=engines:hungry", f"--doctor-ray={running.address}")
    result = run_doctor("--doctor-fix", "--doctor-memory=400MB", *ray, only)
    assert result.ret == 1
    expected = r"the diagram of 6 points reached \d+ MB, its limit, after \d+ s in H0 to H2; give it more with"
    assert re.search(f"not repaired: {expected}", on_one_line(result))
    assert written(empty) == 0


def test_a_timeout_is_the_same_sentence(run_doctor: Doctor, empty: Built, running: Running) -> None:
    merge_two_points(empty)
    ray = ("--doctor-engine=engines:endless", f"--doctor-ray={running.address}", "--doctor-timeout=1")
    result = run_doctor("--doctor-fix", "--doctor-rule=diagram-missing", *ray)
    assert result.ret == 1
    expected = "the diagram of 6 points was ended after 1 s, its limit; give it more with --doctor-timeout 10 "
    assert f"not repaired: {expected}" in on_one_line(result)
    result.stdout.fnmatch_lines(["*5 failed, 1 fixed in *"])


def test_only_what_was_chosen_is_computed(run_doctor: Doctor, empty: Built, running: Running) -> None:
    only = f"x.sqlite::diagram-missing[{dashed(empty.run(1))}-Nomic]"
    result = run_doctor("--doctor-fix", "--doctor-engine=engines:slow", f"--doctor-ray={running.address}", only)
    assert result.ret == 0
    assert written(empty) == 1


def test_the_outcomes_are_those_of_this_machine(
    run_doctor: Doctor, pytester: pytest.Pytester, running: Running
) -> None:
    found = []
    for ray in ((), ("--doctor-engine=ray", f"--doctor-ray={running.address}", "-n2")):
        built = build(pytester.path / "x.sqlite", older=True, runs=4)
        with built.open() as db:
            for name in ("embedding_twice", "diagram_of_an_unused_model", "diagram_stale"):
                DAMAGES[name].plant(db, built)
            db.execute("UPDATE persistencediagram SET diagram_data = x'00' WHERE run_id = ?", (uid(2, 2),))
            db.execute("UPDATE persistencediagram SET diagram_data = NULL WHERE run_id = ?", (uid(2, 3),))
            db.execute("UPDATE embedding SET vector = NULL WHERE id = ?", (built.embedding(5, run=3),))
            other = "SELECT diagram_data FROM persistencediagram WHERE run_id = ? AND embedding_model = 'NomicVision'"
            db.execute(
                f"UPDATE persistencediagram SET diagram_data = ({other}) WHERE run_id = ?", (uid(2, 0), uid(2, 1))
            )
        run_doctor("--doctor-fix", "--doctor-report=r.json", *ray)
        found.append(outcomes(pytester.path / "r.json"))
        for sidecar in pytester.path.glob("x.doctor*"):
            sidecar.unlink()
    assert found[0] == found[1]
    assert set(found[0].values()) == {"passed", "failed", "skipped", "fixed"}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL], ids=lambda each: each.name)
def test_however_it_ends_a_local_ray_ends_too(pytester: pytest.Pytester, empty: Built, number: signal.Signals) -> None:
    command = [sys.executable, "-m", "pytest", "--doctor-db=x.sqlite", "--doctor-fix", "--doctor-ray=local"]
    command += ["-p", "no:hypothesispytest", "--doctor-engine=engines:slow"]
    process = subprocess.Popen(command, cwd=pytester.path, stdout=subprocess.PIPE, text=True)
    wait_for(lambda: written(empty) >= 1)
    tree = psutil.Process(process.pid).children(recursive=True)
    assert any("raylet" in each.name() for each in tree)
    process.send_signal(number)
    out, _ = process.communicate(timeout=20)
    wait_for(lambda: not any(map(alive, tree)), seconds=10)
    if number == signal.SIGINT:
        assert "diagrams of" in out
    assert 1 <= written(empty) < 2 * RUNS
    assert sqlite3.connect(empty.path).execute("PRAGMA integrity_check").fetchone() == ("ok",)


def alive(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_an_address_that_cannot_be_reached_is_a_usage_error(
    run_doctor: Doctor, empty: Built, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = dump(empty.path)
    for given in ("--doctor-ray=127.0.0.1:1", "--doctor-engine=ray"):
        monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
        result = run_doctor("--doctor-fix", given)
        assert result.ret == 4
        assert result.stderr.lines == [
            "ERROR: the Ray cluster at 127.0.0.1:1 cannot be reached (Connection refused): correct --doctor-ray, or "
            "begin one with `ray start --head`",
            "",
        ]
    assert dump(empty.path) == before


def test_without_ray_the_extra_is_named(
    run_doctor: Doctor, empty: Built, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    (pytester.path / "without_ray.py").write_text("import sys\nsys.modules['ray'] = None\n")
    monkeypatch.setenv("PYTHONPATH", os.fspath(pytester.path))
    result = run_doctor("-p", "without_ray", "--doctor-fix", "--doctor-engine=ray")
    assert result.ret == 4
    assert result.stderr.lines == [
        "ERROR: --doctor-engine ray needs Ray, which is not installed: pip install '.[ray]' in the doctor's checkout",
        "",
    ]
    assert json.dumps(result.stdout.lines).count("Traceback") == 0
    assert written(empty) == 0
