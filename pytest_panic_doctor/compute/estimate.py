"""What a diagram will take, from its number of distinct points and the engine.

Memory of `native` is arithmetic, up to its columns, which are few. That of others is a law that was fitted, as time is
for all: geometry decides (200 near-equidistant points can be hopeless where 2,400 on a trajectory take seconds), so an
estimate of time has a middle and an upper end, and none is a limit.
"""

from __future__ import annotations

from dataclasses import dataclass

from pytest_panic_doctor.topology import native

CHILD = 40_000_000
"""Bytes of a child before it computes."""

IMPORTS = {"giotto-ph": 90_000_000, "gudhi": 90_000_000}
"""Bytes more that an engine has imported by then."""

WORKING = 16_000_000
"""Bytes in which the distances are computed, beside the cloud."""

OTHER_AT_1000, OTHER_POWER = 280e6, 1.7
"""Bytes of giotto-ph and GUDHI. Fitted, as all below, to 98 to 1,250 distinct points (benchmarks/README.md)."""

SECONDS_AT_1000 = {"native": (0.2, 2.5)}
OTHER_SECONDS = (50.0, 2.9)
"""Seconds at 1,000 distinct points of a trajectory of captions, on one thread, and the power that they grow by."""

LEAST_SECONDS = 0.01
SPREAD = 2.5
"""Upper end over middle."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """Seconds on one thread, middle and upper end."""

    seconds: float
    seconds_high: float


def estimate(distinct: int, engine: str = native.NAME) -> Estimate:
    """What a cloud of `distinct` different points will take of `engine`, by its name."""
    seconds = seconds_at(distinct, engine)
    return Estimate(seconds, SPREAD * seconds)


def seconds_at(distinct: int, engine: str = native.NAME) -> float:
    """The middle of it."""
    at_1000, power = SECONDS_AT_1000.get(engine, OTHER_SECONDS)
    return float(LEAST_SECONDS + at_1000 * (distinct / 1000) ** power)


def memory(distinct: int, engine: str, cloud: int = 0) -> int:
    """Bytes of the child.

    Args:
        distinct: The number of different points.
        engine: The name of the engine.
        cloud: Bytes of the cloud, which are there twice: as it is, and merged.

    Returns:
        With `native`, the most that it needs but for its columns; else about as much as such a cloud took.
    """
    if engine == native.NAME:
        return CHILD + WORKING + 2 * cloud + native.memory_need(distinct)
    other = int(OTHER_AT_1000 * (distinct / 1000) ** OTHER_POWER)
    return CHILD + IMPORTS.get(engine, 0) + 2 * cloud + other
