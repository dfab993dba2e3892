"""The payload of a diagram: a NumPy `.npz` as the research tool writes and reads it, never unpickled.

Keys: `dgms_0` … `dgms_2` (float32, (k, 2)), `dgms_count` (one int), `entropy` (float32, one for each dimension). Older
payloads have generators (`gens_…`), which are left alone. The key `doctor_meta` holds the provenance as JSON, in shape
(1,): the tool reads a key that ends in `_meta` as `str(array[0])`.
"""

from __future__ import annotations

import io
import json
import math
import re
import struct
import warnings
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from functools import lru_cache
from itertools import takewhile
from tokenize import TokenError
from typing import IO

import numpy as np
from numpy.typing import NDArray

from pytest_panic_doctor.topology.archive import open_member
from pytest_panic_doctor.topology.diagram import Bars, Diagram

META = "doctor_meta"
COUNTS = ("dgms_count", "gens_1_count", "gens_3_count")
"""Keys, beside those that end in `_meta`, of which the research tool reads the first element."""

DIMENSIONS = 3
KNOWN = re.compile(r"dgms_count|entropy|doctor_meta|gens_(0|2|1_count|3_count|[13]_\d+)")
"""Arrays beside the diagrams that the research tool or this package writes."""

MAX_MEMBERS = 1_000
MAX_NAME_LENGTH = 40
MAX_DIMENSIONS = 8
"""Most homology dimensions that are read."""

MAX_ARRAY_BYTES = 16 * 2**20
"""Largest array in bytes when unpacked: 2 million bars, more than any cloud in production has."""

ARCHIVE_TIME = (1980, 1, 1, 0, 0, 0)
"""Fixed time of the members, so that equal diagrams are equal bytes."""

JSON_TYPES: dict[str, type | tuple[type, ...]] = {"str": str, "int": int, "float": (int, float)}


class PayloadError(ValueError):
    """Raised for a payload that cannot be read; the message is a clause that follows «it»."""


@dataclass(frozen=True, slots=True)
class Provenance:
    """How a diagram was computed, stored in `doctor_meta`.

    Attributes:
        fingerprint: `cloud.fingerprint` of the points.
        points: Number of points.
        distinct: Number of points after merging.
        tolerance: Merging tolerance, in units of distance.
        engine: Name of the engine.
        engine_version: Version of the engine.
        max_dim: The highest homology dimension.
        seconds: Wall time.
        peak_memory: Resident memory in bytes.
        doctor_version: Version of this package.
        bars_sha256: `Diagram.sha256` of the bars as computed, set by `encode`; empty in older diagrams.
    """

    fingerprint: str
    points: int
    distinct: int
    tolerance: float
    engine: str
    engine_version: str
    max_dim: int
    seconds: float
    peak_memory: int
    doctor_version: str
    bars_sha256: str = ""


@dataclass(frozen=True)
class Payload:
    """The content of a payload, with bars of the right shape.

    Attributes:
        diagram: The bars.
        count: The value of `dgms_count`; None if the key is missing.
        entropy: As stored; None if missing.
        provenance: None if missing, or not written by this package.
        unindexed: Shapes by name of the arrays of which the research tool reads the first element but which have none.
        has_meta: Whether there is a `doctor_meta`, even one that this package did not write.
        others: Names of the arrays that neither the research tool nor this package writes.
    """

    diagram: Diagram
    count: int | None
    entropy: NDArray[np.generic] | None
    provenance: Provenance | None
    unindexed: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    has_meta: bool = False
    others: tuple[str, ...] = ()


def encode(diagram: Diagram, provenance: Provenance | None = None) -> bytes:
    """Write the payload of a diagram; equal arguments give equal bytes.

    Args:
        diagram: Its bars are written as float32 in their order, with their entropy.
        provenance: Written to `doctor_meta`, shape (1,), as JSON, with the SHA-256 of the bars; None for no such key.

    Returns:
        A `.npz` as `numpy.savez_compressed` makes it.
    """
    arrays: dict[str, NDArray[np.generic]] = {
        f"dgms_{dimension}": np.ascontiguousarray(bars, dtype=np.float32) for dimension, bars in enumerate(diagram.bars)
    }
    arrays["dgms_count"] = np.array([len(diagram.bars)])
    arrays["entropy"] = diagram.entropy
    if provenance is not None:
        arrays[META] = np.array([provenance_as_json(provenance, diagram)])
    return make_archive({f"{name}.npy": as_npy(array) for name, array in arrays.items()})


def as_npy(array: NDArray[np.generic]) -> bytes:
    """An array in `.npy` format."""
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def make_archive(members: Mapping[str, bytes]) -> bytes:
    """A zip archive of these members, by name."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(zipfile.ZipInfo(name, ARCHIVE_TIME), data, zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


def make_indexable(payload: bytes) -> bytes:
    """Rewrite arrays without dimension as arrays of one element if the research tool reads their first element.

    Every other member is kept byte for byte. An earlier version of this package wrote a `doctor_meta` that the tool
    could not read.

    Args:
        payload: As stored.

    Returns:
        The new payload, or the same one if nothing has to change.

    Raises:
        PayloadError: The payload is damaged, or holds more than a payload may.
    """
    if not any(shape == () for shape in decode(payload).unindexed.values()):
        return payload
    with zipfile.ZipFile(io.BytesIO(payload)) as archive:
        members: dict[str, bytes] = {}
        for info in archive.infolist():
            name = info.filename.removesuffix(".npy")
            if info.filename in members or info.file_size > MAX_ARRAY_BYTES:
                raise PayloadError(f"holds {name} twice, or larger than any diagram has it")
            if is_indexed(name) and shape_of(archive, info) == ():
                members[info.filename] = as_npy(read_array(archive, info).reshape(1))
            else:
                members[info.filename] = archive.read(info)
    return make_archive(members)


def is_indexed(name: str) -> bool:
    """Whether the research tool reads the first element of the array of this name."""
    return name in COUNTS or name.endswith("_meta")


def decode(payload: bytes) -> Payload:
    """Read a payload without unpickling, and within limits of size.

    Args:
        payload: As stored.

    Raises:
        PayloadError: The payload is damaged, or is not a diagram.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(payload)) as archive:
            return read_payload(archive, members_of(archive))
    except PayloadError:
        raise
    except (zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError, RuntimeError, ValueError) as error:
        raise PayloadError(f"is damaged: {str(error).rstrip('.') or type(error).__name__}") from error


def members_of(archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """Arrays of an archive by name; raises `PayloadError` if a member is not an array, or occurs twice."""
    infos = archive.infolist()
    if len(infos) > MAX_MEMBERS:
        raise PayloadError(f"holds {len(infos):,} arrays, more than any diagram has")
    members: dict[str, zipfile.ZipInfo] = {}
    for info in infos:
        name = info.filename.removesuffix(".npy")
        if name == info.filename:
            raise PayloadError(
                f"holds {name[:MAX_NAME_LENGTH]!r}, which is not an array, and which NumPy reads instead of one"
            )
        if name in members:
            raise PayloadError(f"holds {name[:MAX_NAME_LENGTH]} twice")
        members[name] = info
    return members


def read_payload(archive: zipfile.ZipFile, members: Mapping[str, zipfile.ZipInfo]) -> Payload:
    """Read an open archive. Only the headers of generators and of unknown arrays are unpacked."""
    stored = list(takewhile(members.__contains__, (f"dgms_{dimension}" for dimension in range(MAX_DIMENSIONS))))
    if not stored:
        raise PayloadError("holds no diagram: there is no dgms_0")
    for name in members.keys() - stored - {"dgms_count", "entropy", META}:
        shape_of(archive, members[name], any_order=True)
    bars = tuple(bars_of(read_array(archive, members[name]), name) for name in stored)
    count, entropy, meta = (
        read_array(archive, members[name]) if name in members else None for name in ("dgms_count", "entropy", META)
    )
    declared = int(count.item()) if count is not None and count.size == 1 and count.dtype.kind in "iu" else None
    shapes = {name: shape_of(archive, info) for name, info in members.items() if is_indexed(name)}
    return Payload(
        Diagram(bars),
        declared,
        entropy,
        provenance_of(meta),
        {name: shape for name, shape in shapes.items() if not shape or not shape[0]},
        meta is not None,
        tuple(sorted(name for name in members if name not in stored and not KNOWN.fullmatch(name))),
    )


def shape_of(archive: zipfile.ZipFile, info: zipfile.ZipInfo, any_order: bool = False) -> tuple[int, ...]:
    """Shape of one array of the archive, read from its header."""
    name = info.filename.removesuffix(".npy")
    check_compression(info, name)
    with open_member(archive, info) as member:
        return read_header(member, name, any_order)[0]


def check_compression(info: zipfile.ZipInfo, name: str) -> None:
    """Raise `PayloadError` for a compression that may unpack to more than the size in the archive."""
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise PayloadError(f"holds {name} in a compression that NumPy never writes")


def bars_of(stored: NDArray[np.generic], name: str) -> Bars:
    """Check an array and convert it to bars; raises `PayloadError`."""
    if stored.ndim != 2 or stored.shape[1] != 2:
        raise PayloadError(f"holds {name} of shape {stored.shape} instead of (k, 2)")
    if stored.dtype.kind != "f" or stored.dtype.itemsize < 4:
        raise PayloadError(f"holds {name} of type {stored.dtype} instead of float32")
    with np.errstate(over="ignore"):
        return stored.astype(np.float32, copy=False)


def read_array(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> NDArray[np.generic]:
    """Read one array of the archive. Its header is checked before memory is allocated, and limits what is read."""
    name = info.filename.removesuffix(".npy")
    check_compression(info, name)
    with open_member(archive, info) as member:
        shape, dtype = read_header(member, name)
        size = math.prod(shape) * dtype.itemsize
        if size > MAX_ARRAY_BYTES:
            raise PayloadError(f"claims {size:,} bytes in {name}, more than any diagram has")
        data = member.read(size)
        if len(data) < size:
            raise PayloadError(f"is damaged: {name} has {len(data):,} bytes instead of {size:,}")
        if member.read(1):  # Only at its end is a member's checksum compared.
            raise PayloadError(f"is damaged: {name} has more bytes than the {size:,} of its shape")
    return np.frombuffer(data, dtype=dtype).reshape(shape)


def read_header(member: IO[bytes], name: str, any_order: bool = False) -> tuple[tuple[int, ...], np.dtype[np.generic]]:
    """Read shape and dtype of an array in `.npy` format 1.0 of a type that needs no unpickling.

    NumPy writes format 1.0 for every header below 64 KiB, so the header has a limited size.

    Args:
        member: The open member.
        name: Its name, for messages.
        any_order: Whether column order is accepted.

    Raises:
        PayloadError: The header is damaged, or not of this format.
    """
    try:
        if np.lib.format.read_magic(member) != (1, 0):
            raise PayloadError(f"holds {name} in a version of the NumPy format that is never written for a diagram")
        size = member.read(2)
        shape, fortran, dtype = parse_header(size + member.read(int.from_bytes(size, "little")))
    except PayloadError:
        raise
    except (ValueError, TypeError, SyntaxError, TokenError, RecursionError, MemoryError) as error:
        raise PayloadError(f"is damaged: {name} is not a NumPy array") from error
    if dtype.hasobject:
        raise PayloadError(f"holds a pickled object in {name}, which is never loaded")
    if fortran and not any_order and len(shape) > 1 and min(shape) > 1:
        raise PayloadError(f"holds {name} in column order, which the research tool never writes")
    if dtype.itemsize == 0 or any(type(length) is not int or length < 0 for length in shape):
        raise PayloadError(f"is damaged: {name} has the shape {shape} and the type {dtype}")
    return shape, dtype


@lru_cache(256)
def parse_header(text: bytes) -> tuple[tuple[int, ...], bool, np.dtype[np.generic]]:
    """Parse a header of format 1.0, its length included. Cached, because thousands of diagrams share a few headers."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return np.lib.format.read_array_header_1_0(io.BytesIO(text))


def provenance_of(meta: NDArray[np.generic] | None) -> Provenance | None:
    """Provenance in an array; None if the array is missing, or was not written by this package."""
    if meta is None or meta.dtype.kind != "U" or meta.size != 1:
        return None
    return provenance_from_json(str(meta.item()))


def provenance_as_json(provenance: Provenance, diagram: Diagram) -> str:
    """Text of `doctor_meta`: the provenance with the SHA-256 of these bars."""
    return json.dumps(asdict(replace(provenance, bars_sha256=diagram.sha256)), sort_keys=True)


def provenance_from_json(text: str | bytes) -> Provenance | None:
    """Provenance in the text of a `doctor_meta`; None if this package did not write it."""
    try:
        values = {"bars_sha256": ""} | json.loads(text)
        found = Provenance(**{each.name: values[each.name] for each in fields(Provenance)})
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    typed = all(isinstance(getattr(found, each.name), JSON_TYPES[str(each.type)]) for each in fields(found))
    return found if typed and 0 <= found.max_dim < MAX_DIMENSIONS and 1 <= found.distinct <= found.points else None
