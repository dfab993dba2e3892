"""The payload of a diagram: a NumPy `.npz`, as the research tool writes and reads it, never unpickled.

Keys: `dgms_0` … `dgms_2` (float32, (k, 2)), `dgms_count` (one int), `entropy` (float32, one a dimension). Older payloads
carry generators (`gens_…`), which are left alone. One more key, `doctor_meta`, holds the provenance as JSON: the tool
reads a key that ends in `_meta` as a string.
"""

from __future__ import annotations

import io
import json
import zipfile
import zlib
from dataclasses import asdict, dataclass, fields
from typing import IO

import numpy as np
from numpy.typing import NDArray

from pytest_panic_doctor.topology.diagram import Diagram, persistent_entropy

META = "doctor_meta"
DIMENSIONS = 3
LARGEST = 64 * 2**20
"""Bytes that one array may have when unpacked: 8 million bars, more than any cloud of the production's size has."""

STAMP = (1980, 1, 1, 0, 0, 0)
"""The time in the archive, so that equal diagrams are equal bytes."""

ENTROPY_TOLERANCE = 1e-3
"""How far a stored entropy may be from that of its bars: sums in float32 over thousands of bars lose about 1e-4."""


class PayloadError(ValueError):
    """A payload that does not read; the text is a clause that follows «it»."""


@dataclass(frozen=True, slots=True)
class Provenance:
    """Where a diagram came from. Seconds of wall time, bytes of resident memory, tolerance in units of distance."""

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


@dataclass(frozen=True)
class Payload:
    """What a payload holds. `count` is `dgms_count`, `entropy` as stored; None where the key is absent."""

    diagram: Diagram
    count: int | None
    entropy: NDArray[np.floating] | None
    provenance: Provenance | None


def encode(diagram: Diagram, provenance: Provenance | None = None) -> bytes:
    """The payload of a diagram; equal arguments give equal bytes."""
    arrays: dict[str, NDArray[np.generic]] = {
        f"dgms_{dimension}": np.ascontiguousarray(bars, dtype=np.float32) for dimension, bars in enumerate(diagram.bars)
    }
    arrays["dgms_count"] = np.array([len(diagram.bars)])
    arrays["entropy"] = diagram.entropy
    if provenance is not None:
        arrays[META] = np.array(json.dumps(asdict(provenance), sort_keys=True))
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, array in arrays.items():
            with archive.open(zipfile.ZipInfo(f"{name}.npy", STAMP), "w") as member:
                np.lib.format.write_array(member, array, allow_pickle=False)
    return buffer.getvalue()


def decode(payload: bytes) -> Payload:
    """Read a payload without unpickling and without unpacking more than it may hold; raises `PayloadError`."""
    try:
        with zipfile.ZipFile(io.BytesIO(payload)) as archive:
            names = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
            bars = []
            while (name := f"dgms_{len(bars)}") in names and len(bars) <= DIMENSIONS:
                bars.append(array(archive, names[name]))
            if not bars:
                raise PayloadError("holds no diagram: there is no dgms_0")
            count = array(archive, names["dgms_count"]) if "dgms_count" in names else None
            entropy = array(archive, names["entropy"]) if "entropy" in names else None
            meta = array(archive, names[META]) if META in names else None
    except PayloadError:
        raise
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, RuntimeError) as error:
        raise PayloadError(f"is torn: {str(error).rstrip('.') or type(error).__name__}") from error
    whole = int(count.item()) if count is not None and count.size == 1 and count.dtype.kind in "iu" else None
    return Payload(Diagram(tuple(bars)), whole, entropy, provenance_of(meta))


def array(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> NDArray[np.generic]:
    """One array of the archive. Its header is judged before anything is allocated, and read no further than it says."""
    name = info.filename.removesuffix(".npy")
    with archive.open(info) as member:
        shape, dtype = header(member, name)
        size = int(np.prod(shape, dtype=object)) * dtype.itemsize
        if dtype.hasobject:
            raise PayloadError(f"holds a pickled object in {name}, which is never loaded")
        if size > LARGEST:
            raise PayloadError(f"claims {size:,} bytes in {name}, more than any diagram has")
        data = member.read(size)
        if len(data) < size:
            raise PayloadError(f"is torn: {name} has {len(data):,} bytes instead of {size:,}")
    return np.frombuffer(data, dtype=dtype).reshape(shape)


def header(member: IO[bytes], name: str) -> tuple[tuple[int, ...], np.dtype[np.generic]]:
    """Shape and dtype of an array in `.npy` format, in C order."""
    try:
        version = np.lib.format.read_magic(member)
        read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}[version]
        shape, fortran, dtype = read(member)
    except (ValueError, KeyError, TypeError, SyntaxError, RecursionError, MemoryError) as error:
        raise PayloadError(f"is torn: {name} is no NumPy array") from error
    if fortran and len(shape) > 1 and min(shape) > 1:
        raise PayloadError(f"holds {name} in column order, which the research tool never writes")
    if any(length < 0 for length in shape):
        raise PayloadError(f"is torn: {name} has the shape {shape}")
    return shape, dtype


def provenance_of(meta: NDArray[np.generic] | None) -> Provenance | None:
    """The provenance, None where there is none or where it is not one that this doctor writes."""
    if meta is None or meta.dtype.kind != "U" or meta.size != 1:
        return None
    try:
        values = json.loads(str(meta.item()))
        return Provenance(**{each.name: values[each.name] for each in fields(Provenance)})
    except (ValueError, KeyError, TypeError):
        return None


def problems(payload: Payload) -> list[str]:
    """What is wrong with a diagram, as clauses that follow «it»; none: it is valid."""
    bars = payload.diagram.bars
    dimensions = payload.provenance.max_dim + 1 if payload.provenance else DIMENSIONS
    found = []
    if len(bars) != dimensions:
        found.append(f"has {len(bars)} homology dimensions instead of {dimensions}")
    if payload.count != len(bars):
        found.append(f"says in dgms_count that it has {payload.count} homology dimensions, and has {len(bars)}")
    for dimension, each in enumerate(bars):
        found += wrong_bars(dimension, each)
    return found or wrong_entropy(payload)


def wrong_bars(dimension: int, bars: NDArray[np.generic]) -> list[str]:
    """What is wrong with the bars of one dimension."""
    name = f"H{dimension}"
    if bars.ndim != 2 or bars.shape[1] != 2:
        return [f"has bars of shape {bars.shape} in {name} instead of (k, 2)"]
    if bars.dtype.kind != "f":
        return [f"has bars of type {bars.dtype} in {name} instead of float32"]
    birth, death = bars[:, 0], bars[:, 1]
    counted = {
        "with NaN": np.isnan(bars).any(axis=1),
        "born at infinity": np.isinf(birth),
        "born before 0": birth < 0,
        "that die before they are born": death < birth,
    }
    found = [f"has {int(rows.sum()):,} bars in {name} {text}" for text, rows in counted.items() if rows.any()]
    if found:
        return found
    essential = int(np.isinf(death).sum())
    if essential != (dimension == 0):
        found.append(f"has {essential:,} essential classes in {name} instead of {int(dimension == 0)}")
    if dimension == 0 and (birth != 0).any():
        found.append(f"has {int((birth != 0).sum()):,} bars in H0 that are not born at 0")
    return found


def wrong_entropy(payload: Payload) -> list[str]:
    """What is wrong with the stored entropy of valid bars."""
    stored = payload.entropy
    if stored is None:
        return ["has no entropy"]
    bars = payload.diagram.bars
    if stored.shape != (len(bars),) or stored.dtype.kind != "f":
        return [f"has an entropy of shape {stored.shape} and type {stored.dtype} instead of one number a dimension"]
    return [
        f"has entropy {value:.4f} in H{dimension}, and its bars have {real:.4f}"
        for dimension, (value, real) in enumerate(zip(stored.tolist(), map(persistent_entropy, bars), strict=True))
        if not abs(value - real) <= ENTROPY_TOLERANCE
    ]
