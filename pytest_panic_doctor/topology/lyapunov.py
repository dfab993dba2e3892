"""The Lyapunov exponent of the runs of one prompt through one network: how fast their trajectories diverge."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pytest_panic_doctor.topology.threads import one_thread

LEAST_DISTANCE = 1e-10
"""Lower limit of a distance before its logarithm is taken, as in the research tool."""

LEAST_RUNS, LEAST_STEPS = 2, 2
"""Fewest trajectories, and fewest steps, for which the research tool has a result."""


@dataclass(frozen=True)
class Lyapunov:
    """How the trajectories of a group of runs diverge.

    Attributes:
        exponent: Slope of the natural logarithm of the curve, per step, by least squares.
        r_squared: Fraction of the logarithm's variance that the line explains; None if it does not vary.
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
    """Compute the Lyapunov exponent of a group of trajectories, as the research tool defines it.

    Args:
        trajectories: For each run its vectors in sequence order, shape (steps, width), finite and of one width. All are
            cut to the shortest.

    Raises:
        ValueError: There are fewer than two trajectories, or the shortest has fewer than two steps.
    """
    steps = min((len(each) for each in trajectories), default=0)
    if len(trajectories) < LEAST_RUNS or steps < LEAST_STEPS:
        raise ValueError(f"a Lyapunov exponent takes {LEAST_RUNS} trajectories of {LEAST_STEPS} steps")
    cut = np.stack([each[:steps] for each in trajectories]).astype(np.float64)
    total = np.zeros(steps)
    with one_thread():
        for first in range(len(cut) - 1):
            # All distances at once would take the square of the runs in memory.
            total += np.linalg.norm(cut[first + 1 :] - cut[first], axis=2).sum(axis=0)
        pairs = len(cut) * (len(cut) - 1) // 2
        curve = total / pairs
        slope, fit = fit_line(np.log(np.maximum(curve, LEAST_DISTANCE)))
    return Lyapunov(slope, fit, curve, pairs, steps)


def fit_line(values: NDArray[np.float64]) -> tuple[float, float | None]:
    """Slope of values over 0, 1, 2, … by least squares, and R²; None for R² if the values do not vary."""
    steps = np.arange(len(values), dtype=np.float64)
    steps -= steps.mean()
    off = values - values.mean()
    slope = float(steps @ off / (steps @ steps))
    varies = float(off @ off)
    rest = off - slope * steps
    return slope, 1.0 - float(rest @ rest) / varies if varies > 0 else None
