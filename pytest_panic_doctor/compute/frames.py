"""The protocol between a worker and its child: frames of a JSON header and raw arrays, never a pickle."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

LENGTHS = struct.Struct("<QQ")
"""Bytes of the header, and of the arrays after it."""

Header = Mapping[str, object]
Frame = tuple[dict[str, object], list[NDArray[np.generic]]]
"""A header and its arrays."""


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


def unpack(text: bytes, data: bytes) -> Frame:
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


def read_frame(stream: BinaryIO) -> Frame | None:
    """Read a frame, and wait for it; None if the stream has ended."""
    sizes = stream.read(LENGTHS.size)
    if len(sizes) < LENGTHS.size:
        return None
    text_size, data_size = LENGTHS.unpack(sizes)
    text, data = stream.read(text_size), stream.read(data_size)
    return unpack(text, data) if len(text) + len(data) == text_size + data_size else None


def write_frame(stream: BinaryIO, header: Header, arrays: Sequence[NDArray[np.generic]] = ()) -> None:
    """Write a frame to a stream without a buffer, which may take less than is given."""
    for piece in pack(header, arrays):
        sent = 0
        while sent < len(piece):
            sent += stream.write(piece[sent:]) or 0
