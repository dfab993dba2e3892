"""What tests in several folders share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from clusters import Running, cluster, node


@pytest.fixture(scope="session")
def running() -> Iterator[Running]:
    """Three nodes, one core each, the last of which has the most memory. Who kills it puts another in its place."""
    with cluster(node(1, 500), node(1, 500), node(1, 1000)) as it:
        yield it
