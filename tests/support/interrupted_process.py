"""Another program that dies while it writes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

WRITER = """
import os, signal, sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute("PRAGMA cache_size = 1")
db.execute("BEGIN IMMEDIATE")
db.execute("UPDATE invocation SET model = model || 'x'")
db.execute("UPDATE embedding SET vector = zeroblob(4000)")
if db.execute("PRAGMA journal_mode").fetchone() == ("wal",):
    db.execute("COMMIT")
os.kill(os.getpid(), signal.SIGKILL)
"""
"""Its changes have gone to the file before it dies; in WAL mode they are committed, and not checkpointed."""


def leave_half_written(path: Path) -> None:
    """Write to a database, and die before the end: with a hot journal beside it, or a WAL."""
    subprocess.run([sys.executable, "-c", WRITER, str(path)], check=False)
