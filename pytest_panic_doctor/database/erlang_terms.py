"""The external term format of Erlang, as far as the research tool's Elixir generation writes it.

A diagram or a Lyapunov result is `:erlang.term_to_binary(value, [:compressed])`
(https://www.erlang.org/doc/apps/erts/erl_ext_dist.html). A stored blob may be damaged or malicious. So its size is
checked before it is inflated, its depth and number of values are limited, and other tags are refused: references,
processes, functions and modules. Atoms are plain values here.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass

VERSION_BYTE = b"\x83"
COMPRESSED = b"P"
LEVEL = 6
"""Compression level: Erlang's default."""

MAX_TERM_BYTES = 16 * 2**20
"""Largest term in bytes that is read or inflated: 700,000 bars, more than any cloud of the tool has."""

MAX_VALUES = 1_000_000
"""Most values in a term, lists included: each takes up to 100 bytes in Python."""

MAX_DEPTH = 4
"""Deepest nesting of lists, tuples and maps: a diagram is a map of lists of lists of bars."""

MAX_STRING = 65_535
"""Longest list of bytes that Erlang writes as a string."""

UINT32 = struct.Struct(">I")
INT32 = struct.Struct(">i")
UINT16 = struct.Struct(">H")
FLOAT64 = struct.Struct(">d")
PAIR = struct.Struct(">BIBdBdB")
"""A list of two floats, which most of a diagram is: tag, length, twice a tag and a float, and the empty list."""

PAIR_TAGS = (ord("l"), 2, ord("F"), ord("F"), ord("j"))
PAIR_VALUES = 3


class ErlangTermError(ValueError):
    """Raised for bytes or values that the tool never writes; the message is one sentence."""


@dataclass(frozen=True, slots=True)
class Atom:
    """An atom, represented by its name."""

    name: str


Term = Atom | int | float | bytes | list["Term"] | tuple["Term", ...] | Mapping["Atom | bytes", "Term"]
"""A term: integers and floats are numbers, binaries `bytes`, and keys of maps atoms or binaries."""


def decode(data: bytes) -> Term:
    """Decode the term in a blob.

    Args:
        data: As stored, compressed or plain.

    Returns:
        The term; lists are lists, tuples tuples, and strings of small integers lists of integers, as in Erlang.

    Raises:
        ErlangTermError: The blob is damaged, larger or deeper than any term of the tool, or has another type.
    """
    if data[:1] != VERSION_BYTE:
        raise ErlangTermError("the blob does not start as an Erlang term (byte 131)")
    plain = inflate(data[2:]) if data[1:2] == COMPRESSED else data[1:]
    if len(plain) > MAX_TERM_BYTES:
        raise ErlangTermError(f"the term has {len(plain):,} bytes, more than the {MAX_TERM_BYTES:,} of any diagram")
    reader = Reader(plain)
    value = reader.term(0)
    if reader.position != len(plain):
        raise ErlangTermError(f"the term ends after {reader.position:,} of {len(plain):,} bytes")
    return value


def inflate(data: bytes) -> bytes:
    """Decompress a term: 4 bytes of its size, then the compressed bytes; raises `ErlangTermError`."""
    if len(data) < UINT32.size:
        raise ErlangTermError("the compressed term ends before its size")
    (size,) = UINT32.unpack_from(data)
    if size > MAX_TERM_BYTES:
        raise ErlangTermError(f"the term claims {size:,} bytes, more than the {MAX_TERM_BYTES:,} of any diagram")
    unpacker = zlib.decompressobj()
    try:
        plain = unpacker.decompress(data[UINT32.size :], size + 1)
    except zlib.error as error:
        raise ErlangTermError(f"the compressed term does not inflate ({error})") from error
    if not unpacker.eof or unpacker.unused_data or len(plain) != size:
        raise ErlangTermError(f"the compressed term does not inflate to exactly the {size:,} bytes that it claims")
    return plain


class Reader:
    """Reads terms from bytes without their version.

    Attributes:
        data: The bytes.
        position: Where the next term begins.
        values: Number of values read, with the current one.
    """

    def __init__(self, data: bytes) -> None:
        """Read from `data`, one term without its version."""
        self.data = data
        self.position = 0
        self.values = 0

    def take(self, size: int) -> bytes:
        """Read the next `size` bytes."""
        end = self.position + size
        if end > len(self.data):
            raise ErlangTermError(f"the term ends after {len(self.data):,} bytes, in the midst of a value")
        taken = self.data[self.position : end]
        self.position = end
        return taken

    def term(self, depth: int) -> Term:
        """Read the next term, nested in `depth` others."""
        tag = self.take(1)
        self.count(1)
        read = READERS.get(tag)
        if read is None:
            raise ErlangTermError(f"the term has the tag {tag[0]}, which the research tool never writes")
        return read(self, depth)

    def count(self, more: int) -> None:
        """Count values before they are created."""
        self.values += more
        if self.values > MAX_VALUES:
            raise ErlangTermError(f"the term has more than {MAX_VALUES:,} values, more than any diagram")

    def length(self, depth: int, each: int = 1) -> int:
        """Read the number of entries of a list or map.

        Args:
            depth: Number of terms around it.
            each: Values of an entry.
        """
        if depth >= MAX_DEPTH:
            raise ErlangTermError(f"the term is nested deeper than {MAX_DEPTH}, as none of the research tool is")
        (count,) = UINT32.unpack(self.take(UINT32.size))
        # Every value takes at least a byte: refuse a longer list before it is allocated.
        if each * count > len(self.data) - self.position:
            raise ErlangTermError(f"the term ends before the {count:,} entries that a list or map of it claims")
        return int(count)

    def read_atom(self, _: int) -> Atom:
        """Read an atom whose name has up to 255 bytes."""
        raw = self.take(self.take(1)[0])
        try:
            return Atom(raw.decode())
        except UnicodeDecodeError as error:
            raise ErlangTermError("the name of an atom in the term is not UTF-8") from error

    def read_float(self, _: int) -> float:
        """Read a float; Erlang has neither NaN nor infinity."""
        number: float = FLOAT64.unpack(self.take(FLOAT64.size))[0]
        if not math.isfinite(number):
            raise ErlangTermError(f"the term holds {number} as a float, which no float of Erlang is")
        return number

    def read_small_integer(self, _: int) -> int:
        """Read an integer 0 … 255."""
        return self.take(1)[0]

    def read_integer(self, _: int) -> int:
        """Read an integer of 32 bits, signed."""
        return int(INT32.unpack(self.take(INT32.size))[0])

    def read_large_integer(self, _: int) -> int:
        """Read an integer of up to 255 bytes and a sign."""
        size, sign = self.take(2)
        if sign > 1:
            raise ErlangTermError(f"an integer in the term has the sign {sign}, which is neither 0 nor 1")
        value = int.from_bytes(self.take(size), "little")
        return -value if sign else value

    def read_binary(self, _: int) -> bytes:
        """Read a binary."""
        return self.take(UINT32.unpack(self.take(UINT32.size))[0])

    def read_empty_list(self, _: int) -> list[Term]:
        """Return an empty list."""
        return []

    def read_list(self, depth: int) -> list[Term]:
        """Read a proper list."""
        entries = [self.pair(depth + 1) or self.term(depth + 1) for _ in range(self.length(depth))]
        if self.take(1) != b"j":
            raise ErlangTermError("a list in the term does not end as a proper list")
        return entries

    def pair(self, depth: int) -> Term | None:
        """Read a list of two floats in one step; None if the next term is another one, or has to be refused."""
        if depth >= MAX_DEPTH or self.position + PAIR.size > len(self.data):
            return None
        tag, size, first, birth, second, death, end = PAIR.unpack_from(self.data, self.position)
        if (tag, size, first, second, end) != PAIR_TAGS or not (math.isfinite(birth) and math.isfinite(death)):
            return None
        self.count(PAIR_VALUES)
        self.position += PAIR.size
        return [birth, death]

    def read_string(self, _: int) -> list[Term]:
        """Read a list of integers 0 … 255, one byte each."""
        raw = self.take(UINT16.unpack(self.take(UINT16.size))[0])
        self.count(len(raw))
        return list(raw)

    def read_tuple(self, depth: int) -> tuple[Term, ...]:
        """Read a tuple of up to 255 entries."""
        if depth >= MAX_DEPTH:
            raise ErlangTermError(f"the term is nested deeper than {MAX_DEPTH}, as none of the research tool is")
        return tuple([self.term(depth + 1) for _ in range(self.take(1)[0])])

    def read_map(self, depth: int) -> Mapping[Atom | bytes, Term]:
        """Read a map with atoms and binaries as keys."""
        found: dict[Atom | bytes, Term] = {}
        for _ in range(self.length(depth, each=2)):
            key = self.term(depth + 1)
            if not isinstance(key, Atom | bytes):
                raise ErlangTermError("a key of a map in the term is neither an atom nor a binary")
            if key in found:
                raise ErlangTermError("a map in the term has the same key twice")
            found[key] = self.term(depth + 1)
        return found


READERS: Mapping[bytes, Callable[[Reader, int], Term]] = {
    b"w": Reader.read_atom,
    b"F": Reader.read_float,
    b"a": Reader.read_small_integer,
    b"b": Reader.read_integer,
    b"n": Reader.read_large_integer,
    b"m": Reader.read_binary,
    b"j": Reader.read_empty_list,
    b"l": Reader.read_list,
    b"k": Reader.read_string,
    b"h": Reader.read_tuple,
    b"t": Reader.read_map,
}
"""The method that reads each tag."""


def encode(value: Term) -> bytes:
    """Write a term as the research tool stores it: compressed if that is shorter.

    Args:
        value: Keys of maps are written in their order; Erlang's depends on its table of atoms.

    Returns:
        The bytes of `:erlang.term_to_binary(value, [:compressed])` in Erlang 26 and newer.

    Raises:
        ErlangTermError: A value has a type that `decode` never returns, or is too large.
    """
    plain = encode_plain(value)
    packed = zlib.compress(plain, LEVEL)
    if len(packed) + UINT32.size + 1 <= len(plain):
        return VERSION_BYTE + COMPRESSED + UINT32.pack(len(plain)) + packed
    return VERSION_BYTE + plain


def encode_plain(value: Term) -> bytes:
    """Write a term without its version; raises `ErlangTermError`."""
    parts: list[bytes] = []
    write(value, parts, 0)
    plain = b"".join(parts)
    if len(plain) > MAX_TERM_BYTES:
        raise ErlangTermError(f"the term has {len(plain):,} bytes, more than the {MAX_TERM_BYTES:,} of any diagram")
    return plain


def write(value: Term, parts: list[bytes], depth: int) -> None:
    """Append the bytes of a term nested in `depth` others."""
    if isinstance(value, Atom):
        parts.append(encode_atom(value))
    elif type(value) is int:
        parts.append(encode_integer(value))
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise ErlangTermError(f"Erlang has no float {value}: it is written as an atom")
        parts.append(b"F" + FLOAT64.pack(value))
    elif isinstance(value, bytes):
        parts.append(b"m" + UINT32.pack(len(value)) + value)
    elif isinstance(value, list | tuple | Mapping):
        write_entries(value, parts, depth)
    else:
        raise ErlangTermError(f"a {type(value).__name__} is no term that the research tool writes")


def write_entries(
    value: list[Term] | tuple[Term, ...] | Mapping[Atom | bytes, Term], parts: list[bytes], depth: int
) -> None:
    """Append the bytes of a list, a tuple or a map."""
    if isinstance(value, list) and not value:
        parts.append(b"j")
    elif isinstance(value, list) and len(value) <= MAX_STRING and all(map(is_byte, value)):
        parts.append(b"k" + UINT16.pack(len(value)) + bytes(value))  # type: ignore[arg-type]
    elif depth >= MAX_DEPTH:
        raise ErlangTermError(f"the term is nested deeper than {MAX_DEPTH}, as none of the research tool is")
    elif isinstance(value, Mapping):
        parts.append(b"t" + UINT32.pack(len(value)))
        for key, entry in value.items():
            write(key, parts, depth + 1)
            write(entry, parts, depth + 1)
    else:
        if isinstance(value, tuple) and len(value) > 255:
            raise ErlangTermError(f"a tuple of {len(value):,} entries is none that the research tool writes")
        parts.append(b"h" + bytes([len(value)]) if isinstance(value, tuple) else b"l" + UINT32.pack(len(value)))
        for entry in value:
            write(entry, parts, depth + 1)
        if isinstance(value, list):
            parts.append(b"j")


def is_byte(value: Term) -> bool:
    """Whether a value is an integer 0 … 255."""
    return type(value) is int and 0 <= value < 256


def encode_atom(value: Atom) -> bytes:
    """Bytes of an atom."""
    try:
        name = value.name.encode()
    except UnicodeEncodeError as error:
        raise ErlangTermError("the name of an atom holds half a surrogate pair, which is not UTF-8") from error
    if len(name) > 255:
        raise ErlangTermError(f"an atom of {len(name):,} bytes is none that the research tool writes")
    return b"w" + bytes([len(name)]) + name


def encode_integer(value: int) -> bytes:
    """Bytes of an integer, in the shortest of the three forms."""
    if 0 <= value < 256:
        return b"a" + bytes([value])
    if -(2**31) <= value < 2**31:
        return b"b" + INT32.pack(value)
    digits = abs(value).to_bytes((abs(value).bit_length() + 7) // 8, "little")
    if len(digits) > 255:
        raise ErlangTermError(f"an integer of {len(digits):,} bytes is none that the research tool writes")
    return b"n" + bytes([len(digits), value < 0]) + digits
