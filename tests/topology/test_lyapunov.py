"""The Lyapunov exponent: the research tool's stored results, and simple trajectories by its definition."""

from __future__ import annotations

import math

import numpy as np
import pytest

from pytest_panic_doctor.topology.lyapunov import LEAST_DISTANCE, lyapunov


def parting(rate: float, steps: int) -> list[np.ndarray]:
    """Two trajectories on a line, whose distance is exp(rate * step)."""
    away = np.exp(rate * np.arange(steps))
    return [np.zeros((steps, 3), np.float32), np.stack([away, 0 * away, 0 * away], axis=1).astype(np.float32)]


def test_two_trajectories_that_part_at_a_rate_have_that_exponent() -> None:
    found = lyapunov(parting(0.25, 20))
    assert found.exponent == pytest.approx(0.25, abs=1e-7)
    assert found.r_squared == pytest.approx(1, abs=1e-12)
    assert (found.num_pairs, found.num_timesteps) == (1, 20)
    assert found.divergence_curve.dtype == np.float64
    assert found.divergence_curve[0] == 1


def test_all_pairs_count_and_the_shortest_trajectory_ends_it() -> None:
    places = [0.0, 1.0, 3.0, 7.0]
    found = lyapunov([np.full((steps, 1), at, np.float32) for at, steps in zip(places, (5, 3, 4, 9), strict=True)])
    assert (found.num_pairs, found.num_timesteps) == (6, 3)
    assert found.divergence_curve.tolist() == pytest.approx([(1 + 3 + 7 + 2 + 6 + 4) / 6] * 3)


def test_the_line_is_that_of_least_squares() -> None:
    chance = np.random.default_rng(3)
    found = lyapunov([each.astype(np.float32) for each in chance.normal(size=(5, 12, 7))])
    logs = np.log(found.divergence_curve)
    slope, offset = np.polyfit(np.arange(12), logs, 1)
    rest = ((logs - slope * np.arange(12) - offset) ** 2).sum()
    assert found.exponent == pytest.approx(slope, abs=1e-14)
    assert found.r_squared == pytest.approx(1 - rest / ((logs - logs.mean()) ** 2).sum(), abs=1e-12)


def test_equal_trajectories_have_no_fit_and_the_logarithm_of_the_least_distance() -> None:
    found = lyapunov([np.ones((4, 2), np.float32)] * 3)
    assert found.divergence_curve.tolist() == [0] * 4
    assert found.exponent == 0
    assert found.r_squared is None


def test_a_distance_of_zero_counts_as_the_least() -> None:
    found = lyapunov([np.array([[0], [0]], np.float32), np.array([[0], [1]], np.float32)])
    assert found.exponent == pytest.approx(-math.log(LEAST_DISTANCE))


@pytest.mark.parametrize("trajectories", [[], [np.ones((5, 2), np.float32)], [np.ones((1, 2), np.float32)] * 2])
def test_too_few_or_too_short_trajectories_have_no_exponent(trajectories: list[np.ndarray]) -> None:
    with pytest.raises(ValueError, match="2 trajectories of 2 steps"):
        lyapunov(trajectories)
