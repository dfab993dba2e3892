"""SIGKILL in the midst of a repair: nothing is lost, and the next session ends where an uninterrupted one does."""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from intruders import intrude
from small_database import SmallDatabase, build_elixir

from pytest_panic_doctor.repair import repairs, undo

pytestmark = pytest.mark.integration

RepairProcess = Callable[..., "subprocess.CompletedProcess[str]"]
MODES = ("delete", "wal", "elixir")
MOMENTS = random.Random(20250812).sample(range(1_000), 12)
KILLS = [*((mode, moment) for mode in MODES[:2] for moment in MOMENTS), *(("elixir", each) for each in MOMENTS[:4])]


@pytest.fixture
def sick(make: Callable[..., SmallDatabase], tmp_path: Path, mode: str) -> SmallDatabase:
    """A database with something for every kind of repair: in a journal mode, or of the Elixir generation in WAL."""
    if mode == "elixir":
        build_elixir(tmp_path / "sick.sqlite")
        return SmallDatabase(tmp_path / "sick.sqlite")
    return make(tmp_path / "sick.sqlite", journal_mode=mode)


def healed(sick: SmallDatabase, repairer: RepairProcess) -> tuple[int, SmallDatabase]:
    """The number of statements of an uninterrupted session, and what it leaves."""
    other = type(sick)(sick.path.with_name("healed.sqlite"))
    shutil.copy(sick.path, other.path)
    done = repairer(other.path)
    assert done.returncode == 0, done.stderr
    return int(done.stdout), other


@pytest.mark.parametrize(("mode", "moment"), KILLS)
def test_killed_at_a_statement(sick: SmallDatabase, repairer: RepairProcess, mode: str, moment: int) -> None:
    original, schema, dangling = sick.dump(), sick.schema(), sick.dangling()
    statements, other = healed(sick, repairer)
    killed = repairer(sick.path, moment % statements, *(["after"] if moment % 2 else []))
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    sick.check_nothing_lost(original)
    assert mode != "elixir" or sick.dangling() <= dangling
    again = repairer(sick.path)
    assert again.returncode == 0, again.stderr
    assert mode != "elixir" or sick.dangling() == set()
    assert sick.dump() == other.dump()
    assert sick.schema() == schema
    sick.check_nothing_lost(original)
    undo(sick.path, "all")
    assert sick.dump() == original


@pytest.mark.parametrize("mode", MODES)
def test_killed_at_random_times(sick: SmallDatabase, repairer: RepairProcess, mode: str) -> None:
    """One database, killed again and again until a session gets through."""
    original = sick.dump()
    _, other = healed(sick, repairer)
    moments = random.Random(mode)
    script = [sys.executable, str(Path(__file__).with_name("repair_process.py")), str(sick.path)]
    for _ in range(8):
        process = subprocess.Popen(
            script, env={"PYTHONPATH": str(Path(__file__).parents[2])}, stdout=subprocess.DEVNULL
        )
        time.sleep(moments.uniform(0.05, 0.3))
        process.kill()
        process.wait()
        sick.check_nothing_lost(original)
    assert repairer(sick.path).returncode == 0
    assert sick.dump() == other.dump()
    assert {repair.status for repair in repairs(sick.path)} == {"applied"}
    undo(sick.path, "all")
    assert sick.dump() == original


@pytest.mark.parametrize("seed", range(10))
def test_another_program_reuses_ids_and_the_journal_is_damaged(template: Path, tmp_path: Path, seed: int) -> None:
    """`benchmarks/torture.py --part between` does it as often as one likes."""
    intrude(tmp_path / "x.sqlite", template, seed)
