"""Defects that make a stored vector unusable as a point of a cloud."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

VALUE_BYTES = 4
"""Bytes of a value: vectors are stored as little-endian float32."""


@dataclass(frozen=True, slots=True)
class VectorDefect:
    """Why a vector is unusable.

    Attributes:
        kind: The kind of the defect.
        values: Number of values (for `bytes`: of bytes) of a vector of the wrong width.
    """

    kind: Literal["null", "not a blob", "width", "bytes", "not finite", "too large", "zero"]
    values: int = 0

    def clause(self, count: int, width: int) -> str:
        """The defect as the end of a sentence that begins with `count`; `width` is the expected number of values."""
        has, holds, is_ = ("has", "holds", "is") if count == 1 else ("have", "hold", "are")
        match self.kind:
            case "null":
                return "NULL"
            case "not a blob":
                return f"{is_} not a blob"
            case "width":
                return f"{has} {self.values:,} values instead of {width:,}"
            case "bytes":
                return f"{has} {self.values:,} bytes instead of {width * VALUE_BYTES:,}"
            case "not finite":
                return f"{holds} NaN or infinity"
            case "too large":
                return f"{is_} too large to measure in float32"
            case "zero":
                return f"{is_} zero"


def describe_defects(counts: Counter[VectorDefect], width: int) -> str:
    """Describe defects, e.g. `1 NULL, 1 has 668 values instead of 768`, the commonest first."""
    return ", ".join(f"{count:,} {defect.clause(count, width)}" for defect, count in counts.most_common())


def usable_vectors(vectors: Sequence[object], width: int) -> NDArray[np.float32] | None:
    """Vectors as an array of shape (n, width) if all are usable, else None; `find_defects` gives the reasons."""
    expected = width * VALUE_BYTES
    if not expected or not all(type(vector) is bytes and len(vector) == expected for vector in vectors):
        return None
    block = np.frombuffer(b"".join(vectors), "<f4").reshape(len(vectors), width)  # type: ignore[arg-type]
    with np.errstate(over="ignore", invalid="ignore"):
        norms = np.einsum("ij,ij->i", block, block, dtype=np.float32)
    return block if ((norms > 0) & (norms < np.inf)).all() else None


def find_defects(vectors: Sequence[object], width: int) -> Iterator[tuple[int, VectorDefect]]:
    """Find the unusable vectors.

    Args:
        vectors: Values as SQLite returns them.
        width: The expected number of values.

    Yields:
        Index and defect of each unusable vector.
    """
    expected = width * VALUE_BYTES
    good: list[int] = []
    for index, vector in enumerate(vectors):
        if type(vector) is bytes and len(vector) == expected and expected:
            good.append(index)
        else:
            yield index, shape_defect(vector)
    if not good:
        return
    block = np.frombuffer(b"".join(vectors[index] for index in good), dtype="<f4").reshape(len(good), width)  # type: ignore[misc]
    with np.errstate(over="ignore", invalid="ignore"):
        # One pass over the block: a sum of squares is NaN, infinite or zero wherever a vector is unusable.
        norms = np.einsum("ij,ij->i", block, block, dtype=np.float32)
    for row in np.flatnonzero(~((norms > 0) & np.isfinite(norms))):
        if not np.isfinite(block[row]).all():
            yield good[row], VectorDefect("not finite")
        elif not np.isfinite(norms[row]):
            # Distances between such vectors may exceed float32, and then there is no diagram.
            yield good[row], VectorDefect("too large")
        elif not block[row].any():
            yield good[row], VectorDefect("zero")


def shape_defect(vector: object) -> VectorDefect:
    """Defect of a value that does not have the right number of bytes."""
    if vector is None:
        return VectorDefect("null")
    if not isinstance(vector, bytes):
        return VectorDefect("not a blob")
    if len(vector) % VALUE_BYTES:
        return VectorDefect("bytes", len(vector))
    return VectorDefect("width", len(vector) // VALUE_BYTES)
