"""Compact diagrams for a page with thousands of them: each homology dimension on a grid of 1,024 steps.

A plot is some hundred pixels wide, so a grid of 1,024 steps from a dimension's first birth to its last death loses
nothing visible. Bars in order of birth, then length, differ little from one to the next, and the differences deflate to
less than one byte for each bar.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pytest_panic_doctor.database.generation import Codec
from pytest_panic_doctor.topology.diagram import Bars
from pytest_panic_doctor.topology.payload import Payload, PayloadError, Provenance

STEPS = 1023
BAR_LIMITS = (None, 1024, 512, 256, 128, 64, 32, 16)
"""Numbers of longest bars that a dimension may keep: the largest with which all plots fit is used."""

ESSENTIAL_SHOWN = 16


@dataclass(frozen=True, slots=True)
class Dimension:
    """The bars of one homology dimension on the grid: uint16, shape (k, 2), birth and length in steps from `first`.

    `total` counts all bars, `undrawable` those with NaN, with an infinite birth, or that die before they are born.
    """

    grid: NDArray[np.uint16]
    first: float
    last: float
    essential: tuple[float, ...]
    total: int
    undrawable: int


@dataclass(frozen=True, slots=True)
class DiagramPlot:
    """One diagram. `what` is now, duplicate, before or removed; `problem` says why it cannot be drawn."""

    what: str
    row: str
    problem: str
    dimensions: tuple[Dimension, ...] = ()
    entropy: tuple[float, ...] = ()
    provenance: Provenance | None = None


def picture(what: str, row: str, payload: bytes | None, codec: Codec) -> DiagramPlot:
    """Make the plot of any payload; `codec` is that of the file's generation."""
    if payload is None:
        return DiagramPlot(what, row, "NULL: no payload is stored")
    try:
        read = codec.decode(payload)
    except PayloadError as error:
        return DiagramPlot(what, row, f"it {error}")
    return drawn(what, row, read)


def drawn(what: str, row: str, payload: Payload) -> DiagramPlot:
    """Make the plot of a decoded payload, valid or not."""
    entropy = () if payload.entropy is None else tuple(round(float(each), 4) for each in payload.entropy)
    if not np.isfinite(entropy).all():
        entropy = ()
    return DiagramPlot(what, row, "", tuple(map(on_grid, payload.diagram.bars)), entropy, payload.provenance)


def on_grid(bars: Bars) -> Dimension:
    """Put one dimension's bars on the grid, in order of birth, then length."""
    birth, death = bars[:, 0].astype(np.float64), bars[:, 1].astype(np.float64)
    endless = np.isfinite(birth) & np.isposinf(death)
    finite = np.isfinite(birth) & np.isfinite(death) & (death >= birth)
    birth, death = birth[finite], death[finite]
    essential = bars[endless, 0].tolist()
    starts = np.concatenate((birth, essential))
    first = float(starts.min()) if len(starts) else 0.0
    last = float(death.max(initial=first))
    scale = STEPS / (last - first) if last > first else 0.0
    steps = np.rint((np.column_stack((birth, death)) - first) * scale).astype(np.uint16)
    steps[:, 1] -= steps[:, 0]
    ordered = steps[np.lexsort((steps[:, 1], steps[:, 0]))]
    undrawable = len(bars) - len(ordered) - int(endless.sum())
    return Dimension(ordered, first, last, tuple(essential), len(bars), undrawable)


def longest(grid: NDArray[np.uint16], keep: int | None) -> NDArray[np.uint16]:
    """Return the `keep` longest bars, in their order."""
    if keep is None or len(grid) <= keep:
        return grid
    return grid[np.sort(np.argsort(grid[:, 1], kind="stable")[-keep:])]


def differences(grid: NDArray[np.uint16]) -> NDArray[np.uint16]:
    """Return births, then lengths, as differences; lengths only differ from the one before if the births are equal."""
    birth = np.diff(grid[:, 0], prepend=np.uint16(0))
    before = np.concatenate((np.zeros(1, np.uint16), grid[:-1, 1]))[: len(grid)]
    return np.concatenate((birth, grid[:, 1] - np.where(birth == 0, before, 0).astype(np.uint16)))


def varints(values: NDArray[np.uint16]) -> bytes:
    """Encode values below 16,384 in one or two bytes each, seven bits a byte, low first (LEB128)."""
    wide = values > 127
    place = np.arange(len(values)) + np.cumsum(wide) - wide
    out = np.empty(len(values) + int(wide.sum()), np.uint8)
    out[place] = (values & 127) | (wide.astype(np.uint16) << 7)
    out[place[wide] + 1] = values[wide] >> 7
    return out.tobytes()


def block(pictures: Sequence[DiagramPlot], keep: int | None) -> tuple[list[object], bytes]:
    """Convert plots to plain values that point into the bytes: an offset, and the bars of each dimension."""
    listed: list[object] = []
    data = bytearray()
    for each in pictures:
        grids = [longest(dimension.grid, keep) for dimension in each.dimensions]
        listed.append(as_plain_plot(each, len(data), [len(grid) for grid in grids]))
        data += varints(np.concatenate([np.empty(0, np.uint16), *map(differences, grids)]))
    return listed, bytes(data)


def as_plain_plot(each: DiagramPlot, offset: int, counts: Sequence[int]) -> dict[str, object]:
    """Convert one plot to plain values; `counts` are the bars of each dimension in the data."""
    dimensions = [
        [
            count,
            rounded(dimension.first),
            rounded(dimension.last),
            *(dimension.total, dimension.undrawable, len(dimension.essential)),
            [rounded(value) for value in dimension.essential[:ESSENTIAL_SHOWN]],
        ]
        for dimension, count in zip(each.dimensions, counts, strict=True)
    ]
    values = {"what": each.what, "row": each.row, "problem": each.problem, "entropy": each.entropy, "at": offset}
    return values | {"dims": dimensions}


def rounded(value: float) -> float:
    """Round to five digits: more than a plot or its tooltip can show."""
    return float(f"{value:.5g}")
