"""Checks of a decoded diagram: what makes it wrong, and what a valid one lacks."""

from __future__ import annotations

import numpy as np

from pytest_panic_doctor.formatting import plural
from pytest_panic_doctor.topology.diagram import Bars, persistent_entropy
from pytest_panic_doctor.topology.payload import DIMENSIONS, MAX_NAME_LENGTH, META, Payload

ENTROPY_TOLERANCE = 1e-3
"""Largest error of a stored entropy: sums in float32 over thousands of bars lose about 1e-4."""


def problems(payload: Payload) -> list[str]:
    """Everything wrong with a diagram.

    Returns:
        Clauses that follow «it», causes before consequences; empty for a valid diagram.
    """
    bars = payload.diagram.bars
    known = payload.provenance
    dimensions = known.max_dim + 1 if known else DIMENSIONS
    found = []
    if payload.has_meta and known is None and META not in payload.unindexed:
        found.append("holds a doctor_meta that the doctor did not write")
    if beyond := [name for name in payload.others if name.startswith("dgms_")]:
        found.append(f"holds {', '.join(beyond)[:MAX_NAME_LENGTH]} beside {len(bars)} homology dimensions")
    if len(bars) != dimensions:
        found.append(f"has {len(bars)} homology dimensions instead of {dimensions}")
    if payload.count != len(bars):
        found.append(f"says in dgms_count that it has {payload.count} homology dimensions, and has {len(bars)}")
    for dimension, each in enumerate(bars):
        found += wrong_bars(dimension, each)
    if not found and known and known.bars_sha256 not in ("", payload.diagram.sha256):
        found.append("has other bars than were computed: they do not fit the checksum in its doctor_meta")
    return found or wrong_entropy(payload) or wrong_shapes(payload)


def shortcomings(payload: Payload) -> list[str]:
    """What a valid diagram lacks or has in addition, without being wrong, as clauses that follow «it»."""
    dimensions = len(payload.diagram.bars)
    found = []
    if dimensions < DIMENSIONS:
        found.append(f"has {dimensions} of {DIMENSIONS} homology dimensions, as --doctor-max-dim asked")
    if payload.others:
        names = ", ".join(payload.others)[:MAX_NAME_LENGTH]
        found.append(f"holds arrays that the research tool does not write ({names})")
    return found


def wrong_bars(dimension: int, bars: Bars) -> list[str]:
    """Everything wrong with the bars of one dimension, as clauses."""
    name = f"H{dimension}"
    birth, death = bars[:, 0], bars[:, 1]
    counted = {
        "with NaN": np.isnan(bars).any(axis=1),
        "born at infinity": np.isinf(birth),
        "born before 0": birth < 0,
        "with a death before the birth": death < birth,
    }
    found = [f"has {plural(int(rows.sum()), 'bar')} in {name} {text}" for text, rows in counted.items() if rows.any()]
    if found:
        return found
    essential = int(np.isinf(death).sum())
    if essential != (dimension == 0):
        noun = "class" if essential == 1 else "classes"
        found.append(f"has {essential:,} essential {noun} in {name} instead of {int(dimension == 0)}")
    if dimension == 0 and (birth != 0).any():
        found.append(f"has {plural(int((birth != 0).sum()), 'bar')} in H0 not born at 0")
    return found


def wrong_entropy(payload: Payload) -> list[str]:
    """Everything wrong with the stored entropy of valid bars, as clauses."""
    entropy = payload.entropy
    if entropy is None:
        return ["has no entropy"]
    if entropy.dtype.kind != "f" or entropy.shape != (len(payload.diagram.bars),):
        return [f"holds an entropy of shape {entropy.shape} and type {entropy.dtype}, not one number each"]
    real = [persistent_entropy(bars) + 0.0 for bars in payload.diagram.bars]
    return [
        f"has entropy {stored:.4f} in H{dimension}, and its bars have {expected:.4f}"
        for dimension, (stored, expected) in enumerate(zip(entropy.tolist(), real, strict=True))
        if not abs(stored - expected) <= ENTROPY_TOLERANCE
    ]


def wrong_shapes(payload: Payload) -> list[str]:
    """Arrays with which the research tool fails with an IndexError, as clauses."""
    return [
        f"holds {name} of shape {shape} instead of (1,), so that the research tool cannot read it"
        for name, shape in payload.unindexed.items()
    ]
