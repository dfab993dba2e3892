"""What every test may use."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings
from runs import ALONE

pytest_plugins = ["pytester"]

# A shared machine is slow now and then: a deadline would fail a test for that.
settings.register_profile("doctor", deadline=None, max_examples=50)
settings.load_profile("doctor")

SHARED = Path(__file__).resolve().parent.parent / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The reference files of the research tool; skips, with the reason, where they are not beside the checkout."""
    if not SHARED.is_dir():
        pytest.skip(f"the reference files are not there: {os.path.relpath(SHARED)}")
    return SHARED


@pytest.fixture
def pytester(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """pytest's own, whose runs load of the other plugins only those that they name."""
    monkeypatch.setenv("PYTEST_ADDOPTS", " ".join(ALONE))
    return pytester
