"""`--doctor-fix -n 2`, killed six times, or a dozen with `-m slow` too; `benchmarks/torture.py` does it 500 times."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest
from kill_harness import Row, command, essence, sick, strike

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, list[Row]], float]:
    """A sick database, what a repair makes of it, and how long that takes."""
    folder = tmp_path_factory.mktemp("torture")
    template = sick(folder / "template.sqlite").path
    built = sick(folder / "x.sqlite")
    begun = time.monotonic()
    done = subprocess.run(command(built.path), cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    return template, essence(built.path), time.monotonic() - begun


@pytest.mark.parametrize("seed", [*range(6), *(pytest.param(each, marks=pytest.mark.slow) for each in range(6, 12))])
def test_killed_at_any_moment(tmp_path: Path, undisturbed: tuple[Path, dict[str, list[Row]], float], seed: int) -> None:
    template, expected, longest = undisturbed
    strike(tmp_path / "x.sqlite", template, expected, seed, longest)
