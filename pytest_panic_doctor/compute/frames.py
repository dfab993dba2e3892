"""The protocol between a worker and its child: frames of a JSON header and raw arrays, never a pickle."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

LENGTHS = struct.Struct("<QQ")
"""Bytes of the header, and of the arrays after it."""

Header = Mapping[str, object]


def pack(header: Header, arrays: Sequence[NDArray[np.generic]] = ()) -> list[memoryview]:
    """Make a frame.

    Args:
        header: Values for JSON.
        arrays: Arrays of any type and shape; they are not copied.

    Returns:
        Pieces to write one after another.
    """
    contiguous = [np.ascontiguousarray(each) for each in arrays]
    shapes = [[str(each.dtype), list(each.shape)] for each in contiguous]
    text = json.dumps({**header, "arrays": shapes}).encode()
    size = sum(each.nbytes for each in contiguous)
    pieces = [memoryview(LENGTHS.pack(len(text), size)), memoryview(text)]
    return pieces + [each.data.cast("B") for each in contiguous if each.nbytes]


def unpack(text: bytes, data: bytes) -> tuple[dict[str, object], list[NDArray[np.generic]]]:
    """Parse a complete frame; the arrays are views of `data`."""
    header: dict[str, object] = json.loads(text)
    arrays: list[NDArray[np.generic]] = []
    start = 0
    for name, shape in header.pop("arrays"):  # type: ignore[attr-defined]
        dtype = np.dtype(name)
        count = int(np.prod(shape, dtype=np.int64))
        arrays.append(np.frombuffer(data, dtype, count, start).reshape(shape))
        start += count * dtype.itemsize
    return header, arrays
