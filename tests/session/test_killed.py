"""`--doctor-fix -n 2`, killed six times, or two dozen with `-m slow`; `benchmarks/torture.py` does it 500 times."""

from __future__ import annotations

import functools
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from kill_harness import Row, command, essence, sick, sick_elixir, strike

Undisturbed = Callable[[str], tuple[Path, dict[str, list[Row]], float]]
KILLS = [
    *(("python", seed) for seed in range(4)),
    *(("elixir", seed) for seed in range(2)),
    *(pytest.param("python", seed, marks=pytest.mark.slow) for seed in range(4, 12)),
    *(pytest.param("elixir", seed, marks=pytest.mark.slow) for seed in range(2, 12)),
]

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    """A sick database of a generation, what a repair makes of it, and how long that takes."""

    @functools.cache
    def made(generation: str) -> tuple[Path, dict[str, list[Row]], float]:
        folder = tmp_path_factory.mktemp("torture")
        template = folder / "template.sqlite"
        sick_elixir(template) if generation == "elixir" else sick(template)
        path = folder / "x.sqlite"
        shutil.copy(template, path)
        begun = time.monotonic()
        done = subprocess.run(command(path), cwd=folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout
        return template, essence(path), time.monotonic() - begun

    return made


@pytest.mark.parametrize(("generation", "seed"), KILLS)
def test_killed_at_any_moment(tmp_path: Path, undisturbed: Undisturbed, generation: str, seed: int) -> None:
    template, expected, longest = undisturbed(generation)
    strike(tmp_path / "x.sqlite", template, expected, seed, longest)
