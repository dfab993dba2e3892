"""Files that are there whole, or as they were before."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

LONGEST = 60
"""Characters of a name that may be part of a file's name, of which there may be several."""


def as_file_name(name: str) -> str:
    """A part of a file's name that stands for `name`, whatever its characters and its length."""
    safe = quote(name, safe="")
    return safe if len(safe) <= LONGEST else hashlib.sha256(safe.encode()).hexdigest()[:LONGEST]


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A path beside `path` to write to; it takes the place of `path` at the end, and is gone where that fails."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
