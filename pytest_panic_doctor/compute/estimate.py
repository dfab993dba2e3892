"""Estimates of the time and memory of a diagram, from the number of distinct points and the engine.

The memory of `native` is exact except for its columns, which are few, and its time follows from its edges. All else is
a fitted power law. The geometry matters more (200 near-equidistant points can be infeasible, while 2,400 on a
trajectory take seconds), so an estimate of time has a middle and an upper end, and none is used as a limit.
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

OTHER_SECONDS = (50.0, 2.9)
"""Seconds of giotto-ph and GUDHI at 1,000 distinct points of a trajectory of captions, on one thread, and the exponent.
"""

POINT_SECONDS, EDGE_SECONDS, WORD_SECONDS = 1.0e-5, 4.2e-7, 1.0e-10
"""Seconds of `native` for each point, for each edge within the enclosing radius, and for each edge and point: a link is
an intersection of two bitsets as long as the cloud (benchmarks/forecast.py).
"""

USUAL_SHARE = 0.88
"""The part of all pairs of a trajectory of captions that is within the enclosing radius, where it is not measured."""

LEAST_SECONDS, OTHER_LEAST = 0.25e-3, 0.01
"""Seconds of the smallest cloud, with `native` and with other engines."""

SPREAD = 2.5
"""Upper end divided by the middle."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """Estimated seconds on one thread: the middle, and the upper end."""

    seconds: float
    seconds_high: float


def estimate(distinct: int, engine: str = native.NAME, share: float = USUAL_SHARE) -> Estimate:
    """Estimate the time of a cloud.

    Args:
        distinct: Number of distinct points.
        engine: Name of the engine.
        share: The part of all pairs that is within the enclosing radius, as `sampled_share` finds it.
    """
    seconds = seconds_at(distinct, engine, share)
    return Estimate(seconds, SPREAD * seconds)


def seconds_at(distinct: int, engine: str = native.NAME, share: float = USUAL_SHARE) -> float:
    """Middle of the estimate, in seconds: for `native` by the arithmetic of what it does, otherwise by a power law."""
    if engine == native.NAME:
        edges = share * distinct * (distinct - 1) / 2
        return LEAST_SECONDS + POINT_SECONDS * distinct + edges * (EDGE_SECONDS + WORD_SECONDS * distinct)
    at_1000, power = OTHER_SECONDS
    return float(OTHER_LEAST + at_1000 * (distinct / 1000) ** power)


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
