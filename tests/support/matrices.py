"""Distance matrices for engines: points, ties, integers, no metrics, repeats; and other engines to compare with."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from pytest_panic_doctor.topology.cloud import Filtration, filtration
from pytest_panic_doctor.topology.diagram import sorted_bars

Random = np.random.Generator


def symmetric(square: NDArray[np.floating] | NDArray[np.integer]) -> Filtration:
    """The entries above the diagonal, mirrored."""
    upper: Filtration = np.triu(square, 1).astype(np.float32)
    return upper + upper.T


def points(random: Random, count: int) -> Filtration:
    return filtration(random.normal(size=(count, random.integers(1, 8))).astype(np.float32))


def equidistant(random: Random, count: int) -> Filtration:
    return filtration(random.normal(size=(min(count, 30), 200)).astype(np.float32))


def ring(random: Random, count: int) -> Filtration:
    turn = 2 * np.pi * np.arange(count) / count
    circle = np.stack((np.cos(turn), np.sin(turn)), axis=1) + random.normal(scale=0.05, size=(count, 2))
    return filtration(circle.astype(np.float32))


def grid(random: Random, count: int) -> Filtration:
    """Points of a small grid: many ties, and repeats."""
    return filtration(random.integers(0, 4, (count, random.integers(1, 5))).astype(np.float32))


def integers(random: Random, count: int) -> Filtration:
    """No metric, few values."""
    return symmetric(random.integers(1, random.integers(2, 9), (count, count)))


def arbitrary(random: Random, count: int) -> Filtration:
    """No metric, no ties."""
    return symmetric(random.random((count, count)))


def repeats(random: Random, count: int) -> Filtration:
    """Points of which many are the same."""
    places = random.normal(size=(max(2, count // 3), 3))
    return filtration(places[random.integers(0, len(places), count)].astype(np.float32))


def suspended(random: Random, count: int) -> Filtration:
    """Far pairs, each near all others: the spheres of the cross-polytopes, with noise."""
    distances = symmetric(1 + 0.2 * random.random((count, count)))
    for one in range(0, count - 1, 2):
        distances[one, one + 1] = distances[one + 1, one] = 2 + random.random()
    return distances


KINDS: tuple[Callable[[Random, int], Filtration], ...] = (
    points,
    equidistant,
    ring,
    grid,
    integers,
    arbitrary,
    repeats,
    suspended,
)


def a_matrix(seed: int, least: int = 3, most: int = 70) -> Filtration:
    """One of many, by its number; those of kinds that cost much are smaller."""
    random = np.random.default_rng(seed)
    kind = KINDS[seed % len(KINDS)]
    hard = kind in (integers, arbitrary, suspended)
    return kind(random, int(random.integers(least, min(most, 40) + 1 if hard else most + 1)))


def bars_of_gudhi(distances: Filtration, max_dim: int = 2) -> list[NDArray[np.float32]]:
    """By GUDHI's fork of Ripser, over all scales; of positive length, in order."""
    from gudhi.sklearn.rips_persistence import RipsPersistence

    computed = RipsPersistence(
        homology_dimensions=list(range(max_dim + 1)), input_type="full distance matrix", homology_coeff_field=2
    ).fit_transform([distances])[0]
    return lasting(computed)


def lasting(computed: Sequence[NDArray[np.floating]]) -> list[NDArray[np.float32]]:
    """Bars of positive length as float32, in order."""
    ordered = [sorted_bars(each) for each in computed]
    return [each[each[:, 0] < each[:, 1]] for each in ordered]


def differences(one: Sequence[NDArray[np.float32]], other: Sequence[NDArray[np.float32]], within: float = 1e-6) -> str:
    """How two diagrams differ as multisets, by dimension; empty where they do not.

    Bars no longer than `within` times the largest value count for nothing: another engine may have rounded them away.
    """
    said = []
    for dimension, (mine, theirs) in enumerate(zip(one, other, strict=True)):
        scale = max((float(each[np.isfinite(each)].max(initial=1)) for each in (mine, theirs)), default=1.0)
        kept = [each[each[:, 1] - each[:, 0] > within * scale] for each in (mine, theirs)]
        if len(kept[0]) != len(kept[1]):
            said.append(f"H{dimension}: {len(kept[0])} bars and {len(kept[1])}")
        elif not np.allclose(kept[0], kept[1], rtol=0, atol=within * scale):
            said.append(f"H{dimension}: bars differ")
    return ", ".join(said)
