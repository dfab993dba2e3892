"""What repairing all diagrams takes on many cores: a simulation with costs that were measured.

The largest clouds are begun first, by their points, which is all that is known beforehand; a core takes the next as
soon as its diagram is written, and one writer at a time writes.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

DRAWS = 100
"""Times that the whole repair is simulated, each with other costs drawn from the measured ones."""


@dataclass(frozen=True)
class Makespan:
    """Seconds to the last diagram (median, and the middle 90 %), busy part of all cores, and the three lower bounds."""

    seconds: float
    low: float
    high: float
    utilisation: float
    work: float
    longest: float
    writing: float

    @property
    def bound(self) -> str:
        """What the time cannot go below, whatever the order: the largest of the three."""
        bounds = {"computing": self.work, "the longest diagram": self.longest, "the one writer": self.writing}
        return max(bounds, key=lambda name: bounds[name])


def simulate(costs: Sequence[float], cores: int, write: float) -> float:
    """Seconds to the last diagram, begun in this order; each is held by its core until the writer has written it."""
    free = [0.0] * min(cores, len(costs))
    writer = last = 0.0
    # Diagrams end in another order than they begin, and the writer takes them as they end.
    ended: list[tuple[float, int]] = []
    begun = 0
    while begun < len(costs) or ended:
        if begun < len(costs) and free and (not ended or free[0] <= ended[0][0]):
            heapq.heappush(ended, (heapq.heappop(free) + costs[begun], begun))
            begun += 1
            continue
        end, _ = heapq.heappop(ended)
        writer = max(writer, end) + write
        last = max(last, writer)
        heapq.heappush(free, writer)
    return last


def makespan(measured: Mapping[int, Sequence[float]], counts: Mapping[int, int], cores: int, write: float) -> Makespan:
    """All diagrams, so many of each number of points, with costs drawn from those measured at that number."""
    random = np.random.default_rng(cores)
    times, works, longest = [], [], []
    for _ in range(DRAWS):
        costs = [
            float(cost)
            for points in sorted(counts, reverse=True)
            for cost in random.choice(np.asarray(measured[points]), counts[points])
        ]
        times.append(simulate(costs, cores, write))
        works.append(sum(costs) / cores)
        longest.append(max(costs) + write)
    middle = float(np.median(times))
    return Makespan(
        middle,
        float(np.quantile(times, 0.05)),
        float(np.quantile(times, 0.95)),
        float(np.median(np.array(works) / np.array(times))),
        float(np.median(works)),
        float(np.median(longest)),
        write * sum(counts.values()),
    )
