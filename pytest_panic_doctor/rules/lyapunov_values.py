"""Lyapunov results as values: what is wrong with a stored one, and how it differs from one that is computed."""

from __future__ import annotations

from math import isqrt

import numpy as np

from pytest_panic_doctor.database.elixir_payload import decode_lyapunov
from pytest_panic_doctor.formatting import plural
from pytest_panic_doctor.topology.lyapunov import LEAST_DISTANCE, LEAST_RUNS, LEAST_STEPS, Lyapunov, fit_line
from pytest_panic_doctor.topology.payload import PayloadError

TOLERANCE = 1e-6
"""Within which two curves, or two exponents, are the same: of the value itself where that is more than 1."""

LEAST_VARIANCE = 1e-9
"""Where the logarithms of a curve vary less, how well a line fits them is rounding alone."""


def read(data: object) -> tuple[Lyapunov | None, list[str]]:
    """A result as it is stored, and where it does not read, why, as clauses that follow «it»."""
    if not isinstance(data, bytes):
        return None, ["is NULL" if data is None else "is not a blob"]
    try:
        return decode_lyapunov(data), []
    except PayloadError as error:
        return None, [str(error)]


def defects(data: object) -> list[str]:
    """What is wrong with a stored result by itself, as clauses that follow «it»."""
    result, wrong = read(data)
    return wrong or (wrong_numbers(result) if result else [])


def wrong_numbers(result: Lyapunov) -> list[str]:
    """What is wrong with a result that reads, as clauses that follow «it»."""
    curve, fit = result.divergence_curve, result.r_squared
    found = []
    if not (np.isfinite(curve).all() and (curve >= 0).all()):
        found.append("has a curve with a distance that is negative or not finite")
    if len(curve) != result.num_timesteps or len(curve) < LEAST_STEPS:
        found.append(f"has a curve of {len(curve):,} steps, and num_timesteps is {result.num_timesteps:,}")
    runs = (1 + isqrt(1 + 8 * result.num_pairs)) // 2
    if runs < LEAST_RUNS or runs * (runs - 1) // 2 != result.num_pairs:
        found.append(f"has {plural(result.num_pairs, 'pair')} of runs, which no number of runs makes")
    if fit is not None and not (np.isfinite(fit) and fit <= 1 + TOLERANCE):
        found.append(f"has an r_squared of {fit}")
    if not found and not same(result.exponent, fit_line(np.log(np.maximum(curve, LEAST_DISTANCE)))[0]):
        found.append(f"has an exponent of {result.exponent:.6g}, which is not the slope of its curve's logarithm")
    return found


def same(one: float, other: float) -> bool:
    """Whether two numbers are the same to `TOLERANCE`; one that is not finite is never."""
    return bool(np.isclose(one, other, rtol=TOLERANCE, atol=TOLERANCE)) and bool(np.isfinite(one))


def difference(stored_result: Lyapunov, found: Lyapunov) -> str:
    """How a result differs from the one that the embeddings make, as a clause; empty where it does not."""
    for noun, one, other in (
        ("pairs of runs", stored_result.num_pairs, found.num_pairs),
        ("steps", stored_result.num_timesteps, found.num_timesteps),
    ):
        if one != other:
            return f"it is of {one:,} {noun}, and the embeddings are of {other:,}"
    curve, now = stored_result.divergence_curve, found.divergence_curve
    if len(curve) != len(now):
        return f"its curve has {len(curve):,} steps, and the embeddings have {len(now):,}"
    wrong = ~np.isclose(curve, now, rtol=TOLERANCE, atol=TOLERANCE)
    if wrong.any():
        apart = np.abs(curve - now).max()
        return f"{int(wrong.sum()):,} of {len(now):,} distances of its curve differ, by {apart:.3g} at most"
    if not same(stored_result.exponent, found.exponent):
        return f"its exponent is {stored_result.exponent:.6g}, and that of the embeddings {found.exponent:.6g}"
    return difference_of_fit(stored_result, found)


def difference_of_fit(stored_result: Lyapunov, found: Lyapunov) -> str:
    """The same for how well the line fits, where the logarithms vary by more than rounding."""
    varies = float(np.log(np.maximum(found.divergence_curve, LEAST_DISTANCE)).var()) > LEAST_VARIANCE
    one, other = stored_result.r_squared, found.r_squared
    if not varies or other is None or (one is not None and same(one, other)):
        return ""
    return f"its r_squared is {'nil' if one is None else f'{one:.6g}'}, and that of the embeddings {other:.6g}"
