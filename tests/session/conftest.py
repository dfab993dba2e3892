"""Real pytest runs in a folder of their own."""

from __future__ import annotations

import pytest
from databases import Built, build
from pytest_runs import Doctor, run_pytest


@pytest.fixture
def sick(pytester: pytest.Pytester) -> Built:
    """A database in the current folder, healthy until a test plants something."""
    return build(pytester.path / "x.sqlite")


@pytest.fixture
def run_doctor(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Doctor:
    """Run pytest on x.sqlite, with more arguments, as `run_pytest` does."""
    for name in ("CI", "BUILD_NUMBER"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COLUMNS", "80")

    def run(*args: object, database: str | None = "x.sqlite", process: bool = False) -> pytest.RunResult:
        named = ["--doctor-db", database] if database else []
        return run_pytest(pytester, *named, *args, process=process)

    return run


@pytest.fixture(params=[(), ("-n", "0"), ("-n", "2")], ids=["plain", "n0", "n2"])
def mode(request: pytest.FixtureRequest) -> tuple[str, ...]:
    """Without xdist's distribution, with none, and with two workers."""
    chosen: tuple[str, ...] = request.param
    return chosen
