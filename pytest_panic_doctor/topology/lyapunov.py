"""The Lyapunov exponent of the runs of one prompt through one network: how fast their trajectories part."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

LEAST_DISTANCE = 1e-10
"""Of a distance that is smaller, 0 included, this one's logarithm is taken, as the research tool does."""

LEAST_RUNS, LEAST_STEPS = 2, 2
"""Of fewer trajectories, or of shorter ones, the research tool has no result."""


@dataclass(frozen=True)
class Lyapunov:
    """How the trajectories of a group of runs part.

    Attributes:
        exponent: Slope of the natural logarithm of the curve, per step, by least squares.
        r_squared: The part of the logarithm's variance that the line explains; None where it does not vary.
        divergence_curve: float64, shape (steps,): the mean Euclidean distance of all pairs of runs at each step.
        num_pairs: Pairs of runs.
        num_timesteps: Steps of the shortest trajectory.
    """

    exponent: float
    r_squared: float | None
    divergence_curve: NDArray[np.float64]
    num_pairs: int
    num_timesteps: int


def lyapunov(trajectories: Sequence[NDArray[np.float32]]) -> Lyapunov:
    """The Lyapunov exponent of a group of trajectories, as the research tool defines it.

    Args:
        trajectories: Of each run its vectors in the order of their sequence numbers, shape (steps, width), finite and
            of one width. All are cut to the shortest.

    Returns:
        The result, in float64.

    Raises:
        ValueError: There are fewer than two trajectories, or the shortest has fewer than two steps.
    """
    steps = min((len(each) for each in trajectories), default=0)
    if len(trajectories) < LEAST_RUNS or steps < LEAST_STEPS:
        raise ValueError(f"a Lyapunov exponent takes {LEAST_RUNS} trajectories of {LEAST_STEPS} steps")
    cut = np.stack([each[:steps] for each in trajectories]).astype(np.float64)
    total = np.zeros(steps)
    for first in range(len(cut) - 1):
        # All distances at once would take the square of the runs in memory.
        total += np.linalg.norm(cut[first + 1 :] - cut[first], axis=2).sum(axis=0)
    pairs = len(cut) * (len(cut) - 1) // 2
    curve = total / pairs
    slope, fit = fit_line(np.log(np.maximum(curve, LEAST_DISTANCE)))
    return Lyapunov(slope, fit, curve, pairs, steps)


def fit_line(values: NDArray[np.float64]) -> tuple[float, float | None]:
    """The slope of values over 0, 1, 2, … by least squares, and R²; None where the values do not vary."""
    steps = np.arange(len(values), dtype=np.float64)
    steps -= steps.mean()
    off = values - values.mean()
    slope = float(steps @ off / (steps @ steps))
    varies = float(off @ off)
    rest = off - slope * steps
    return slope, 1.0 - float(rest @ rest) / varies if varies > 0 else None
