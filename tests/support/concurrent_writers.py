"""Many rows to quarantine, and other programs that write meanwhile: for tests and for benchmarks."""

from __future__ import annotations

import random
import subprocess
import sys
from contextlib import closing
from pathlib import Path

from small_database import SmallDatabase

PACKAGE = str(Path(__file__).parents[2])

REPAIRS = """
import json, resource, sys, time
from pathlib import Path
from pytest_panic_doctor.repair import Writer, finish, undo
from pytest_panic_doctor.database.subject import Rows, Subject

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

path, before, told, begun = Path(sys.argv[1]), peak(), [], time.monotonic()
writer = Writer(path, "s", lambda: True)
sql = "SELECT e.id FROM embedding e JOIN invocation i ON i.id = e.invocation_id WHERE i.type = :kind"
repair = writer.quarantine(
    "embedding-type", Subject(), Rows("embedding", sql, {"kind": "IMAGE"}), lambda *at: told.append(at)
)
writer.close()
finish(path)
quarantined, between = peak(), time.monotonic()
[back] = undo(path, repair.id)
undone = time.monotonic()
[again] = undo(path, back.id)
print(json.dumps({
    "rows": [repair.rows, back.rows, again.rows], "bytes": repair.bytes, "batches": len(told), "peak": quarantined,
    "grown": quarantined - before, "grown by undo": peak() - before,
    "seconds": between - begun, "seconds of undo": undone - between,
}))
"""


def fill(small_database: SmallDatabase, count: int) -> None:
    """`count` embeddings of 3,072 bytes by a text model, on images."""
    noise = random.Random(3)
    with closing(small_database.connect()) as db:
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
from pytest_panic_doctor.database.subject import Rows, Subject
writer = Writer(Path(sys.argv[1]), "s", lambda: True)
sql = "SELECT id FROM embedding WHERE rowid % 2 = :half"
print(writer.quarantine("r", Subject(), Rows("embedding", sql, {"half": int(sys.argv[2])})).rows)
writer.close()
"""


def start(code: str, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        env={"PYTHONPATH": PACKAGE},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
