"""The payload of a diagram: a NumPy `.npz`, as the research tool writes and reads it, never unpickled.

Keys: `dgms_0` … `dgms_2` (float32, (k, 2)), `dgms_count` (one int), `entropy` (float32, one a dimension). Older
payloads carry generators (`gens_…`), which are left alone. One more key, `doctor_meta`, holds the provenance as JSON:
of a key that ends in `_meta` the tool takes `str(array[0])`, so that its shape is (1,).
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
from pytest_panic_doctor.topology.diagram import Bars, Diagram, persistent_entropy

META = "doctor_meta"
COUNTS = ("dgms_count", "gens_1_count", "gens_3_count")
"""The keys, beside those that end in `_meta`, of which the research tool takes the first element."""

DIMENSIONS = 3
KNOWN = re.compile(r"dgms_count|entropy|doctor_meta|gens_(0|2|1_count|3_count|[13]_\d+)")
"""The arrays beside the diagrams that the research tool or the doctor writes."""

MAX_MEMBERS = 1_000
MAX_NAME_LENGTH = 40
MAX_DIMENSIONS = 8
"""Homology dimensions that are looked for."""

MAX_ARRAY_BYTES = 16 * 2**20
"""Bytes that one array may have when unpacked: 2 million bars, more than any cloud of the production's size has."""

ARCHIVE_TIME = (1980, 1, 1, 0, 0, 0)
"""The time in the archive, so that equal diagrams are equal bytes."""

ENTROPY_TOLERANCE = 1e-3
"""How far a stored entropy may be from that of its bars: sums in float32 over thousands of bars lose about 1e-4."""

JSON_TYPES: dict[str, type | tuple[type, ...]] = {"str": str, "int": int, "float": (int, float)}


class PayloadError(ValueError):
    """A payload that does not read; the text is a clause that follows «it»."""


@dataclass(frozen=True, slots=True)
class Provenance:
    """Where a diagram came from. Seconds of wall time, bytes of resident memory, tolerance in units of distance.

    `bars_sha256` is `Diagram.sha256` of the bars as they were computed, which `encode` fills in; empty in the diagrams
    of doctors that did not write it yet.
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
    """What a payload holds: bars of the right shape. `count` is `dgms_count`; None where the key is absent.

    `entropy` is as it is stored. `unindexed` are the arrays that have no first element, where the research tool takes
    it: their shapes by name. `has_meta` tells whether there is a `doctor_meta`, were it one that the doctor did not
    write.
    `others` are the arrays that neither the research tool nor the doctor writes.
    """

    diagram: Diagram
    count: int | None
    entropy: NDArray[np.generic] | None
    provenance: Provenance | None
    unindexed: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    has_meta: bool = False
    others: tuple[str, ...] = ()


def encode(diagram: Diagram, provenance: Provenance | None = None) -> bytes:
    """The payload of a diagram; equal arguments give equal bytes.

    Args:
        diagram: Its bars are written as float32 in their order, with their entropy.
        provenance: Written into `doctor_meta`, shape (1,), as JSON, with the SHA-256 of these bars; None: no such key.

    Returns:
        A `.npz`, as `numpy.savez_compressed` makes it.
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
    """An archive of these members, by name."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(zipfile.ZipInfo(name, ARCHIVE_TIME), data, zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


def make_indexable(payload: bytes) -> bytes:
    """The same payload, its arrays of no dimension made those of one element where the research tool takes the first.

    Every other member is kept byte for byte. An earlier doctor wrote `doctor_meta` so that the tool could not read it.

    Args:
        payload: As it is stored.

    Returns:
        The payload itself where there is no such array.

    Raises:
        PayloadError: It is torn, or holds more than a payload may.
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
    """Whether the research tool takes the first element of the array of this name."""
    return name in COUNTS or name.endswith("_meta")


def decode(payload: bytes) -> Payload:
    """Read a payload without unpickling, and without unpacking more than it may hold; raises `PayloadError`."""
    try:
        with zipfile.ZipFile(io.BytesIO(payload)) as archive:
            return read_payload(archive, members_of(archive))
    except PayloadError:
        raise
    except (zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError, RuntimeError, ValueError) as error:
        raise PayloadError(f"is damaged: {str(error).rstrip('.') or type(error).__name__}") from error


def members_of(archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """The arrays of an archive by name; raises `PayloadError` where one of its members is none, or stands twice."""
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
    """What an open archive holds. Of generators, and of arrays that nobody knows, the headers alone are unpacked."""
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
    """The shape of one array of the archive; nothing but its header is read."""
    name = info.filename.removesuffix(".npy")
    check_compression(info, name)
    with open_member(archive, info) as member:
        return read_header(member, name, any_order)[0]


def check_compression(info: zipfile.ZipInfo, name: str) -> None:
    """Raise `PayloadError` where a member is packed in a way that may unpack to more than its size says."""
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise PayloadError(f"holds {name} in a compression that NumPy never writes")


def bars_of(stored: NDArray[np.generic], name: str) -> Bars:
    """An array as bars."""
    if stored.ndim != 2 or stored.shape[1] != 2:
        raise PayloadError(f"holds {name} of shape {stored.shape} instead of (k, 2)")
    if stored.dtype.kind != "f" or stored.dtype.itemsize < 4:
        raise PayloadError(f"holds {name} of type {stored.dtype} instead of float32")
    with np.errstate(over="ignore"):
        return stored.astype(np.float32, copy=False)


def read_array(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> NDArray[np.generic]:
    """One array of the archive. Its header is judged before anything is allocated, and read no further than it says."""
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
    """Shape and dtype of an array in `.npy` format 1.0, in C order or in any, of a type that needs no unpickling.

    Format 1.0 is what NumPy writes for every header below 64 KiB, and bounds what is read of a longer one.
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
    """What NumPy reads in a header of format 1.0, its length included: thousands of diagrams have the same few."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return np.lib.format.read_array_header_1_0(io.BytesIO(text))


def provenance_of(meta: NDArray[np.generic] | None) -> Provenance | None:
    """The provenance, None where there is none or where it is not one that this doctor writes."""
    if meta is None or meta.dtype.kind != "U" or meta.size != 1:
        return None
    return provenance_from_json(str(meta.item()))


def provenance_as_json(provenance: Provenance, diagram: Diagram) -> str:
    """The text of a `doctor_meta`: the provenance, with the SHA-256 of these bars."""
    return json.dumps(asdict(replace(provenance, bars_sha256=diagram.sha256)), sort_keys=True)


def provenance_from_json(text: str | bytes) -> Provenance | None:
    """The provenance that a `doctor_meta` holds, None where it is not one that this doctor writes."""
    try:
        values = {"bars_sha256": ""} | json.loads(text)
        found = Provenance(**{each.name: values[each.name] for each in fields(Provenance)})
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    typed = all(isinstance(getattr(found, each.name), JSON_TYPES[str(each.type)]) for each in fields(found))
    return found if typed and 0 <= found.max_dim < MAX_DIMENSIONS and 1 <= found.distinct <= found.points else None


def problems(payload: Payload) -> list[str]:
    """What is wrong with a diagram, as clauses that follow «it», a cause before its consequences; none: it is valid."""
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
    """What a valid diagram has too little or too much, as clauses that follow «it»: nothing that makes it wrong."""
    dimensions = len(payload.diagram.bars)
    found = []
    if dimensions < DIMENSIONS:
        found.append(f"has {dimensions} of {DIMENSIONS} homology dimensions, as --doctor-max-dim asked")
    if payload.others:
        names = ", ".join(payload.others)[:MAX_NAME_LENGTH]
        found.append(f"holds arrays that the research tool does not write ({names})")
    return found


def wrong_bars(dimension: int, bars: Bars) -> list[str]:
    """What is wrong with the bars of one dimension."""
    name = f"H{dimension}"
    birth, death = bars[:, 0], bars[:, 1]
    counted = {
        "with NaN": np.isnan(bars).any(axis=1),
        "born at infinity": np.isinf(birth),
        "born before 0": birth < 0,
        "with a death before the birth": death < birth,
    }
    found = [f"has {counted_bars(int(rows.sum()))} in {name} {text}" for text, rows in counted.items() if rows.any()]
    if found:
        return found
    essential = int(np.isinf(death).sum())
    if essential != (dimension == 0):
        noun = "class" if essential == 1 else "classes"
        found.append(f"has {essential:,} essential {noun} in {name} instead of {int(dimension == 0)}")
    if dimension == 0 and (birth != 0).any():
        found.append(f"has {counted_bars(int((birth != 0).sum()))} in H0 not born at 0")
    return found


def counted_bars(count: int) -> str:
    """`1 bar`, `2 bars`."""
    return f"{count:,} bar{'' if count == 1 else 's'}"


def wrong_entropy(payload: Payload) -> list[str]:
    """What is wrong with the stored entropy of valid bars."""
    entropy = payload.entropy
    if entropy is None:
        return ["has no entropy"]
    if entropy.dtype.kind != "f" or entropy.shape != (len(payload.diagram.bars),):
        return [f"holds an entropy of shape {entropy.shape} and type {entropy.dtype}, not one number each"]
    real = [persistent_entropy(bars) + 0.0 for bars in payload.diagram.bars]
    return [
        f"has entropy {stored:.4f} in H{dimension}, and its bars have {ours:.4f}"
        for dimension, (stored, ours) in enumerate(zip(entropy.tolist(), real, strict=True))
        if not abs(stored - ours) <= ENTROPY_TOLERANCE
    ]


def wrong_shapes(payload: Payload) -> list[str]:
    """Which arrays make the research tool stop with an IndexError."""
    return [
        f"holds {name} of shape {shape} instead of (1,), so that the research tool cannot read it"
        for name, shape in payload.unindexed.items()
    ]
