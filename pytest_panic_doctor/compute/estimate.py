"""Estimates of the time and memory of a diagram, from the number of distinct points and the engine.

The memory of `native` is exact except for its columns, which are few. All else is a fitted power law. The geometry
matters more (200 near-equidistant points can be infeasible, while 2,400 on a trajectory take seconds), so an estimate
of time has a middle and an upper end, and none is used as a limit.
"""

from __future__ import annotations

from dataclasses import dataclass

from pytest_panic_doctor.topology import native

CHILD = 40_000_000
"""Bytes of a child before it computes."""

IMPORTS = {"giotto-ph": 90_000_000, "gudhi": 90_000_000}
"""Additional bytes of a child that has imported an engine."""

WORKING = 16_000_000
"""Bytes needed to compute the distances, beside the cloud."""

OTHER_AT_1000, OTHER_POWER = 280e6, 1.7
"""Bytes of giotto-ph and GUDHI at 1,000 points, and the exponent. All laws are fitted to 98 to 1,250 distinct points
(benchmarks/README.md).
"""

SECONDS_AT_1000 = {"native": (0.2, 2.5)}
OTHER_SECONDS = (50.0, 2.9)
"""Seconds at 1,000 distinct points of a trajectory of captions, on one thread, and the exponent."""

LEAST_SECONDS = 0.01
SPREAD = 2.5
"""Upper end divided by the middle."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """Estimated seconds on one thread: the middle, and the upper end."""

    seconds: float
    seconds_high: float


def estimate(distinct: int, engine: str = native.NAME) -> Estimate:
    """Estimate the time of a cloud.

    Args:
        distinct: Number of distinct points.
        engine: Name of the engine.
    """
    seconds = seconds_at(distinct, engine)
    return Estimate(seconds, SPREAD * seconds)


def seconds_at(distinct: int, engine: str = native.NAME) -> float:
    """Middle of the estimate, in seconds."""
    at_1000, power = SECONDS_AT_1000.get(engine, OTHER_SECONDS)
    return float(LEAST_SECONDS + at_1000 * (distinct / 1000) ** power)


def memory(distinct: int, engine: str, cloud: int = 0) -> int:
    """Estimate the bytes of the child.

    Args:
        distinct: Number of distinct points.
        engine: Name of the engine.
        cloud: Bytes of the cloud, which is held twice: as it is, and merged.

    Returns:
        For `native`, the most that it needs without its columns; else about as much as such a cloud took.
    """
    if engine == native.NAME:
        return CHILD + WORKING + 2 * cloud + native.memory_need(distinct)
    other = int(OTHER_AT_1000 * (distinct / 1000) ** OTHER_POWER)
    return CHILD + IMPORTS.get(engine, 0) + 2 * cloud + other
