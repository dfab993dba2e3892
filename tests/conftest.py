"""What every test may use."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from pytest_runs import ALONE

if TYPE_CHECKING:
    from ray_cluster import Running

# pytest reads this too where somebody runs the demo in this folder, and has installed the package alone.
if find_spec("hypothesis"):
    from hypothesis import settings

    # A shared machine is slow now and then: a deadline would fail a test for that.
    settings.register_profile("doctor", deadline=None, max_examples=50)
    settings.load_profile("doctor")

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What runs once more with two workers is an integration test; the same without them is not."""
    for item in items:
        if re.search(r"\bn ?2\b", item.nodeid.partition("[")[2]):
            item.add_marker("integration")


@pytest.fixture(scope="session", autouse=True)
def ctrl_c() -> None:
    """Ctrl-C is heard, here and in what the tests start, also where these run in the background of a shell."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


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


@pytest.fixture(scope="session")
def running() -> Iterator[Running]:
    """Three nodes, one core each, the last of which has the most memory. Who kills it puts another in its place."""
    from ray_cluster import cluster, node

    with cluster(node(1, 500), node(1, 500), node(1, 1000)) as it:
        yield it
