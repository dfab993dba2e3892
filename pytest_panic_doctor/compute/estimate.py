"""What a diagram will take: time and memory from its number of distinct points, learnt from those before it.

Geometry decides, and no formula in the number of points alone predicts (200 near-equidistant points can be hopeless
where 2,400 on a trajectory take minutes). So an estimate has a middle and an upper end, and is never a limit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import quantiles

CHILD = 40_000_000
"""Bytes of a child before it computes, with giotto-ph."""

TELLING = 20_000_000
"""Expected bytes from which a measurement says more about the cloud than about the engine's own size."""

SECONDS_AT_1000, SECONDS_POWER = 9.0, 2.9
BYTES_AT_1000, BYTES_POWER = 60e6, 1.7
"""Fitted to trajectories of captions, 98 to 1,250 distinct points, one thread (benchmarks/README.md)."""

SPREAD = 2.5
"""Upper end over middle, where too little was measured to know better."""

ENOUGH = 8
"""Measurements from which the spread is taken from them."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What one diagram took: distinct points, seconds, and peak bytes of the child."""

    distinct: int
    seconds: float
    peak: int


@dataclass(frozen=True, slots=True)
class Estimate:
    """Seconds on one thread, and bytes of the child: middle and upper end."""

    seconds: float
    seconds_high: float
    memory: int
    memory_high: int


def seconds_at(distinct: int) -> float:
    """The law that the measurements correct."""
    return float(0.01 + SECONDS_AT_1000 * (distinct / 1000) ** SECONDS_POWER)


def bytes_at(distinct: int) -> float:
    """The same for the memory beyond that of an idle child."""
    return float(1e6 + BYTES_AT_1000 * (distinct / 1000) ** BYTES_POWER)


def estimate(distinct: int, known: Sequence[Measured] = ()) -> Estimate:
    """What a cloud of `distinct` different points will take; `known` are measurements of this session."""
    times = ratios([each.seconds / seconds_at(each.distinct) for each in known])
    telling = [each for each in known if max(bytes_at(each.distinct), each.peak - 4 * CHILD) > TELLING]
    sizes = ratios([max(1.0, each.peak - CHILD) / bytes_at(each.distinct) for each in telling])
    seconds, memory = seconds_at(distinct), bytes_at(distinct)
    return Estimate(
        seconds * times[0], seconds * times[1], int(CHILD + memory * sizes[0]), int(CHILD + memory * sizes[1])
    )


def ratios(measured: list[float]) -> tuple[float, float]:
    """Middle and upper end of measured over expected; few measurements are tempered by an expectation of 1."""
    if not measured:
        return 1.0, SPREAD
    tempered = sorted([*measured, 1.0])
    middle = tempered[len(tempered) // 2]
    if len(measured) < ENOUGH:
        return middle, max(middle * SPREAD, tempered[-1])
    return middle, max(quantiles(measured, n=10)[-1], middle)
