"""Reads the records of an SQLite file page by page, without its header, schema, trees and indexes.

This is for a damaged journal. Every leaf page is read alone (https://sqlite.org/fileformat2.html, 1.6), and a record is
used only if its seal or digest is correct. What cannot be read is skipped.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

PAGE = 4096
"""Bytes of a page if the header is damaged: SQLite's default, which every journal has."""
TABLE_LEAF = 0x0D
"""The type of a page that holds records of a table."""
INTEGERS = {1: 1, 2: 2, 3: 3, 4: 4, 5: 6, 6: 8}
"""Bytes of each serial type of an integer."""


@dataclass(frozen=True, slots=True)
class Text:
    """TEXT as bytes, in the encoding of the file."""

    data: bytes


Cell = int | float | bytes | Text | None
"""A value of a record."""


def leaf_records(path: Path) -> Iterator[tuple[int, tuple[Cell, ...]]]:
    """Yield (rowid, values) of every record of a table that can be read."""
    with path.open("rb") as file:
        size = page_size(file.read(100), path.stat().st_size)
        for number in range(path.stat().st_size // size):
            file.seek(number * size)
            page = file.read(size)
            start = 100 if number == 0 else 0
            if page[start] != TABLE_LEAF:
                continue
            count = int.from_bytes(page[start + 3 : start + 5], "big")
            for index in range(min(count, size // 4)):
                place = start + 8 + 2 * index
                try:
                    yield _cell(file, page, int.from_bytes(page[place : place + 2], "big"), size)
                except (IndexError, ValueError, struct.error, OSError, MemoryError, OverflowError):
                    continue


def page_size(header: bytes, total: int) -> int:
    """Return the size of a page in bytes, from the header if it is possible for a file of `total` bytes."""
    size = int.from_bytes(header[16:18], "big")
    return size if size >= 512 and size & (size - 1) == 0 and total % size == 0 else PAGE


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for index in range(9):
        byte = data[at + index]
        if index == 8:
            return (value << 8) | byte, at + 9
        value = (value << 7) | (byte & 0x7F)
        if byte < 0x80:
            return value, at + index + 1
    raise AssertionError


def _cell(file: BinaryIO, page: bytes, at: int, size: int) -> tuple[int, tuple[Cell, ...]]:
    length, at = _varint(page, at)
    rowid, at = _varint(page, at)
    end = file.seek(0, os.SEEK_END)
    if length > end:
        raise ValueError("longer than the file")
    local = length
    if length > size - 35:
        least = (size - 12) * 32 // 255 - 23
        local = least + (length - least) % (size - 4)
        local = local if local <= size - 35 else least
    payload = bytearray(page[at : at + local])
    if local < length:
        follow = int.from_bytes(page[at + local : at + local + 4], "big")
        while len(payload) < length:
            if not 0 < follow <= end // size:
                raise ValueError("an overflow page that the file does not have")
            file.seek((follow - 1) * size)
            overflow = file.read(size)
            follow = int.from_bytes(overflow[:4], "big")
            payload += overflow[4 : 4 + length - len(payload)]
    return rowid - (1 << 64) * (rowid >= 1 << 63), tuple(_values(bytes(payload)))


def _values(payload: bytes) -> Iterator[Cell]:
    header, at = _varint(payload, 0)
    body = header
    while at < header:
        kind, at = _varint(payload, at)
        if kind in INTEGERS:
            width = INTEGERS[kind]
        elif kind >= 12:
            width = (kind - 12) // 2
        else:
            width = 8 if kind == 7 else 0
        data = payload[body : body + width]
        if len(data) != width:
            raise ValueError("shorter than it says")
        body += width
        yield _value(kind, data)


def _value(kind: int, data: bytes) -> Cell:
    if kind == 0:
        return None
    if kind in INTEGERS:
        return int.from_bytes(data, "big", signed=True)
    if kind == 7:
        return float(struct.unpack(">d", data)[0])
    if kind in (8, 9):
        return kind - 8
    if kind < 12:
        raise ValueError("a type that SQLite does not write")
    return Text(data) if kind % 2 else data
