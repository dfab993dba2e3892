"""How a measure grows with the rows, and what it comes to at production's size, with the uncertainty of a few runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

T95 = (np.nan, 12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31)
"""Student's t, two-sided 95 %, by degrees of freedom."""


@dataclass(frozen=True)
class Growth:
    """A line through measurements, and the power of the rows with which they grow; with half a 95 % interval each."""

    power: float
    power_off: float
    at_full: float
    at_full_off: float


def line(x: np.ndarray, y: np.ndarray, at: float) -> tuple[float, float, float, float]:
    """Slope, half its 95 % interval, and the same of a single new value at `at`: ordinary least squares."""
    count = len(x)
    middle, spread = x.mean(), ((x - x.mean()) ** 2).sum()
    slope = float(((x - middle) * (y - y.mean())).sum() / spread)
    left = y - (y.mean() + slope * (x - middle))
    deviation = float(np.sqrt((left**2).sum() / (count - 2)))
    t = T95[min(count - 2, len(T95) - 1)]
    value = float(y.mean() + slope * (at - middle))
    return (
        slope,
        float(t * deviation / np.sqrt(spread)),
        value,
        float(t * deviation * np.sqrt(1 + 1 / count + (at - middle) ** 2 / spread)),
    )


def growth(rows: Sequence[int], values: Sequence[float], full: int) -> Growth:
    """How `values`, measured at so many `rows`, grow, and what they come to at `full` rows."""
    x, y = np.array(rows, float), np.array(values, float)
    power, power_off, _, _ = line(np.log(x), np.log(np.maximum(y, 1e-9)), 0.0)
    _, _, at_full, at_full_off = line(x, y, full)
    return Growth(power, power_off, at_full, at_full_off)
