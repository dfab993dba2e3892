"""Databases of the tool's Elixir generation, made by the script that stands beside the reference files."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[3] / "shared" / "tools" / "make_elixir_db.py"
SMALL = ("--prompts", "2", "--lengths", "4,6", "--width", "8")
SCHEMAS = (4, 5, 6, 7)
"""The schema versions that can hold rows."""


@functools.cache
def template(*args: str) -> Path:
    """A database made with these arguments, once for all tests of the process."""
    if not SCRIPT.is_file():
        pytest.skip(f"the script that makes such files is not there: {os.path.relpath(SCRIPT)}")
    path = Path(tempfile.mkdtemp(prefix="doctor-elixir-")) / "elixir.sqlite"
    subprocess.run([sys.executable, str(SCRIPT), str(path), *args], check=True, capture_output=True)
    return path


def elixir_file(folder: Path, *args: str, name: str = "elixir.sqlite") -> Path:
    """A database of its own, small unless `args` say otherwise."""
    path = folder / name
    shutil.copyfile(template(*SMALL, *args), path)
    return path
