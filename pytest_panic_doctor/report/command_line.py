"""The command by which pytest was called, to be typed again."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from pytest_panic_doctor.formatting import typed

PLAIN = "pytest"
PROGRAM_NAMES = ("pytest", "py.test", "pytest.exe", "py.test.exe")


def invoked_command(script: str | None = None, words: Sequence[str] | None = None) -> str:
    """Return `pytest`, `.venv/bin/pytest` or `python -m pytest`; `pytest` if a program called it.

    Args:
        script: The script that Python runs, as first in `sys.argv`.
        words: The command line with the interpreter, as in `sys.orig_argv`.
    """
    path = Path(sys.argv[0] if script is None else script)
    line = list(sys.orig_argv if words is None else words)
    if path.name == "__main__.py" and path.parent.name == "pytest":
        for place, word in enumerate(line):
            if word == "-m" and line[place + 1 : place + 2] == ["pytest"]:
                return " ".join(map(typed, line[: place + 2]))
            if word == "-mpytest":
                return " ".join(map(typed, [*line[:place], "-m", "pytest"]))
    if path.name not in PROGRAM_NAMES:
        return PLAIN
    found = shutil.which(path.name)
    if found and Path(found).exists() and path.exists() and Path(found).samefile(path):
        return path.name
    relative = os.path.relpath(path)
    # A name without a folder would be searched in PATH.
    relative = relative if os.sep in relative else f".{os.sep}{relative}"
    return typed(min(relative, str(path), key=len) if path.is_absolute() else relative)
