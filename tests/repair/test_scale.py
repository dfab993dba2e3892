"""Many rows, in bounded memory; and other programs that write at the same time."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_panic_doctor.repair import repairs

if TYPE_CHECKING:
    from patients import Patient

SURGEON = """
import json, resource, sys
from pathlib import Path
from pytest_panic_doctor.repair import Writer, finish, undo
from pytest_panic_doctor.store.subject import Rows, Subject

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

path, before, told = Path(sys.argv[1]), peak(), []
writer = Writer(path, "s", lambda: True)
sql = "SELECT e.id FROM embedding e JOIN invocation i ON i.id = e.invocation_id WHERE i.type = :kind"
repair = writer.quarantine(
    "embedding-type", Subject(), Rows("embedding", sql, {"kind": "IMAGE"}), lambda *at: told.append(at)
)
writer.close()
finish(path)
quarantined = peak()
[back] = undo(path, repair.id)
[again] = undo(path, back.id)
print(json.dumps([repair.rows, repair.bytes, len(told), back.rows, again.rows, quarantined - before, peak() - before]))
"""

MEGABYTE = 2**20


def fill(patient: Patient, count: int) -> None:
    """`count` embeddings of 3,072 bytes by a text model, on images."""
    noise = random.Random(3)
    with closing(patient.connect()) as db:
        db.execute("BEGIN")
        db.execute("DELETE FROM embedding")
        for number in range(count):
            invocation = f"{noise.getrandbits(128):032x}"
            db.execute(
                "INSERT INTO invocation VALUES (?, 't', 't', 'a', 'IMAGE', 0, 'run', ?, NULL, NULL, x'00')",
                (invocation, number),
            )
            db.execute(
                "INSERT INTO embedding VALUES (?, 't', 't', ?, 'Nomic', ?)",
                (f"{noise.getrandbits(128):032x}", invocation, noise.randbytes(3_072)),
            )
        db.execute("COMMIT")


@pytest.mark.parametrize("count", [5_000, pytest.param(100_000, marks=pytest.mark.slow)])
def test_many_embeddings(patient: Patient, count: int) -> None:
    fill(patient, count)
    before = patient.dump() if count < 10_000 else None
    done = subprocess.run(
        [sys.executable, "-c", SURGEON, str(patient.path)],
        env={"PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    rows, size, batches, back, again, grown, grown_by_undo = json.loads(done.stdout)
    assert rows == back == again == count
    assert size > count * 3_072
    assert batches > count * 3_072 // (9 * MEGABYTE)
    assert grown < 40 * MEGABYTE
    assert grown_by_undo < 60 * MEGABYTE
    assert patient.values("SELECT count(*) FROM embedding") == [0]
    [last, *_] = repairs(patient.path)
    assert last.rows == count
    if before is not None:
        patient.check_nothing_lost(before)


HAMMER = """
import sqlite3, sys, time
db = sqlite3.connect(sys.argv[1], timeout=30, isolation_level=None)
print("ready", flush=True)
sys.stdin.readline()
who, done, worst = sys.argv[2], 0, 0.0
end = time.monotonic() + float(sys.argv[3])
while time.monotonic() < end:
    began = time.monotonic()
    db.execute("BEGIN IMMEDIATE")
    db.execute("INSERT INTO run VALUES (?, '[]', 0, 1, 'p', ?)", (f"{who}{done:031x}", f"{1:04x}{1:028x}"))
    db.execute("COMMIT")
    worst = max(worst, time.monotonic() - began)
    done += 1
    time.sleep(0.002)
print(done, worst)
"""
DOCTOR = """
import sys, time
from pathlib import Path
from pytest_panic_doctor.repair import Writer
from pytest_panic_doctor.store.subject import Rows, Subject
writer = Writer(Path(sys.argv[1]), "s", lambda: True)
sql = "SELECT id FROM embedding WHERE rowid % 2 = :half"
print(writer.quarantine("r", Subject(), Rows("embedding", sql, {"half": int(sys.argv[2])})).rows)
writer.close()
"""


def start(code: str, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        env={"PYTHONPATH": str(Path(__file__).parents[2])},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("journal_mode", ["delete", "wal"])
def test_two_programs_write_throughout(make: Callable[..., Patient], tmp_path: Path, journal_mode: str) -> None:
    """Two workers quarantine while two other programs insert runs: all end, and no row of theirs is lost.

    How long they are kept waiting is measured by benchmarks/torture.py, on a machine that does nothing else.
    """
    patient = make(tmp_path / "t.sqlite", journal_mode=journal_mode)
    fill(patient, 6_000)
    original = {table: rows for table, rows in patient.dump().items() if table != "run"}
    hammers = [start(HAMMER, patient.path, who, 3) for who in "ab"]
    for hammer in hammers:
        assert hammer.stdout is not None
        assert hammer.stdout.readline() == "ready\n"
    doctors = [start(DOCTOR, patient.path, half) for half in (0, 1)]
    written = [int(hammer.communicate("\n", timeout=60)[0].split()[0]) for hammer in hammers]
    taken = [int(doctor.communicate(timeout=60)[0]) for doctor in doctors]
    assert [process.returncode for process in hammers + doctors] == [0, 0, 0, 0]
    assert taken == [3_000, 3_000]
    for who, count in zip("ab", written, strict=True):
        assert count > 20
        rows = patient.values(
            "SELECT count(*) FROM run WHERE id LIKE ? || '%' AND length(id) = 32 AND network = '[]'", who
        )
        assert rows == [count]
    assert patient.values("SELECT count(*) FROM embedding") == [0]
    patient.check_nothing_lost(original)
