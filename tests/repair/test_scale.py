"""Many rows, in bounded memory; and other programs that write at the same time."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from concurrent_writers import DOCTOR, HAMMER, REPAIRS, fill, start

from pytest_panic_doctor.repair import repairs

if TYPE_CHECKING:
    from small_database import SmallDatabase

MEGABYTE = 2**20


@pytest.mark.parametrize("count", [5_000, pytest.param(100_000, marks=pytest.mark.slow)])
def test_many_embeddings(small_database: SmallDatabase, count: int) -> None:
    fill(small_database, count)
    before = small_database.dump() if count < 10_000 else None
    repairer = start(REPAIRS, small_database.path)
    done = json.loads(repairer.communicate(timeout=600)[0])
    assert done["rows"] == [count] * 3
    assert done["bytes"] > count * 3_072
    assert done["batches"] > count * 3_072 // (9 * MEGABYTE)
    assert done["grown"] < 40 * MEGABYTE
    assert done["grown by undo"] < 60 * MEGABYTE
    assert small_database.values("SELECT count(*) FROM embedding") == [0]
    [last, *_] = repairs(small_database.path)
    assert last.rows == count
    if before is not None:
        small_database.check_nothing_lost(before)


@pytest.mark.parametrize("journal_mode", ["delete", "wal"])
def test_two_programs_write_throughout(make: Callable[..., SmallDatabase], tmp_path: Path, journal_mode: str) -> None:
    """Two workers quarantine while two other programs insert runs: all end, and no row of theirs is lost.

    How long they are kept waiting is measured by benchmarks/torture.py, on a machine that does nothing else.
    """
    small_database = make(tmp_path / "t.sqlite", journal_mode=journal_mode)
    fill(small_database, 6_000)
    original = {table: rows for table, rows in small_database.dump().items() if table != "run"}
    hammers = [start(HAMMER, small_database.path, who, 3) for who in "ab"]
    for hammer in hammers:
        assert hammer.stdout is not None
        assert hammer.stdout.readline() == "ready\n"
    doctors = [start(DOCTOR, small_database.path, half) for half in (0, 1)]
    written = [int(hammer.communicate("\n", timeout=60)[0].split()[0]) for hammer in hammers]
    taken = [int(examination.communicate(timeout=60)[0]) for examination in doctors]
    assert [process.returncode for process in hammers + doctors] == [0, 0, 0, 0]
    assert taken == [3_000, 3_000]
    for who, count in zip("ab", written, strict=True):
        assert count > 20
        rows = small_database.values(
            "SELECT count(*) FROM run WHERE id LIKE ? || '%' AND length(id) = 32 AND network = '[]'", who
        )
        assert rows == [count]
    assert small_database.values("SELECT count(*) FROM embedding") == [0]
    small_database.check_nothing_lost(original)
