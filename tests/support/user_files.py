"""A second user, and files that are mounted by themselves: what only root can make."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

SECOND = 65534
"""The id of a user who owns nothing here."""

LAB = 54321
"""A group that both are in."""

ROOT_ONLY = pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("setpriv"), reason="only root has a second user")


def as_second(arguments: Sequence[str | Path], folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run this Python as the second user, umask 022; it may read everything, as if all were installed for all."""
    capabilities = [f"--{kind}-caps=+dac_read_search" for kind in ("inh", "ambient")]
    user = ["setpriv", f"--reuid={SECOND}", f"--regid={SECOND}", f"--groups={LAB}", *capabilities]
    environment = os.environ | {"HOME": str(folder), "PYTHONDONTWRITEBYTECODE": "1"} | variables
    environment.pop("PYTEST_XDIST_WORKER", None)
    command = [*user, sys.executable, *map(str, arguments)]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False, umask=0o022, timeout=120
    )


def shared(folder: Path) -> Path:
    """Make a folder one of the group's: 2775."""
    folder.mkdir(exist_ok=True)
    os.chown(folder, 0, LAB)
    folder.chmod(0o2775)
    return folder


@contextmanager
def mounted(file: Path, over: Path) -> Iterator[None]:
    """Mount a file over another one, as containers do; skips, with the reason, where that is not allowed."""
    done = subprocess.run(["mount", "--bind", str(file), str(over)], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"nothing can be mounted here: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", str(over)], check=True)
