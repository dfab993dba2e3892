"""Erlang terms: byte for byte what Erlang writes, and an end in one sentence for everything else."""

from __future__ import annotations

import shutil
import struct
import subprocess
import tracemalloc
import zlib
from math import copysign, inf, nan
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_panic_doctor.database import erlang_terms
from pytest_panic_doctor.database.erlang_terms import (
    MAX_DEPTH,
    MAX_TERM_BYTES,
    MAX_VALUES,
    Atom,
    ErlangTermError,
    Term,
    decode,
    encode,
)

BARS: list[Term] = [[0.0, step / 8] for step in range(1, 31)]

VECTORS: list[tuple[Term, str]] = [
    (Atom("inf"), "837703696e66"),
    (Atom("nil"), "8377036e696c"),
    (Atom("é€"), "837705c3a9e282ac"),
    (1.5, "83463ff8000000000000"),
    (-0.0, "83468000000000000000"),
    (0, "836100"),
    (255, "8361ff"),
    (256, "836200000100"),
    (-1, "8362ffffffff"),
    (-(2**31), "836280000000"),
    (2**31, "836e040000000080"),
    (-(2**31) - 1, "836e040101000080"),
    (2**64, "836e0900000000000000000001"),
    ([], "836a"),
    ([1, 2, 3], "836b0003010203"),
    ([256, 1], "836c00000002620000010061016a"),
    ([-1], "836c0000000162ffffffff6a"),
    (b"doctor_meta", "836d0000000b646f63746f725f6d657461"),
    ((1, 2), "83680261016102"),
    ((), "836800"),
    ({}, "837400000000"),
    (
        [7] * 65_535,
        (
            "835000010002789cedc1310100000cc3a03362e7ffee8c00b70500000000000000000000000000000000000000000000"
            "0000000000000000000000000000000000000000000000000000000000000000000000000000000000f528ec02cc"
        ),
    ),
    (
        [7] * 65_536,
        (
            "835000020006789cedc2a11100300804b047754e2cc7feba823572c9a6927e0000000000000000000000000000000000"
            "000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000"
            "000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000"
            "0000000000000000000000000000673e770f06f0"
        ),
    ),
    ([[]] * 17, "835000000017789ccb61606010ccc2000051dc07f2"),
    ([b"\0\0"] * 16, "835000000076789ccb61606010c805124c0c0c74a3b200dd0f07d7"),
    (
        {
            Atom("dgms"): [[[0.0, Atom("inf")], [0.0, 0.5]], [], []],
            Atom("entropy"): [-0.0, -0.0, -0.0],
            Atom("num_edges"): 0,
        },
        (
            "83500000007c789c2b616060602e674949cf2dce0131410413987063808272e6ccbcb42c543137fb071046160894b3a7"
            "e69514e51754828d706b8029c260649573e695e6c6a7a6a4a71627320000d94415cd"
        ),
    ),
    (
        {
            Atom("dgms"): [[[0.0, Atom("inf")], *BARS], [[0.75, 1.25]], []],
            Atom("entropy"): [1.25, 0.0, -0.0],
            Atom("num_edges"): 0,
            b"doctor_meta": b'{"a": 1}',
        },
        (
            "83500000036e789c75d33f0ac2301406f0d456db5af50a4a6fe0eaa253af518a8dc5625a69234144f0681ec1d1d1c1c1"
            "c141444444c4fed322fabde1f1e5f720cb4b382144118aebb1789244396dedb4552c529490c7c1c8ff36abbfcec38f6f"
            "806f81ef80ef811f801f819f809f815f805f81df80df813f803ffffb800097805780cbc015e055e035e02a700db80ebc"
            "0edc00de00de04de2a3c1b48f9f4fda8caed2725541af0289cceb37ff1199557ad8ae00b3d98319bba1e8d1dc21231dc"
            "70c8c3c866943be9595b988ed9eb74972f8bac5eb6"
        ),
    ),
    (
        {
            Atom("divergence_curve"): [1.0, 2.0, 4.0],
            Atom("exponent"): 0.6931471805599453,
            Atom("num_pairs"): 1,
            Atom("num_timesteps"): 3,
            Atom("r_squared"): Atom("nil"),
        },
        (
            "835000000079789c2b616060602d1748c92c4b2d4a4fcd4b4e8d4f2e2d2a4bcd010a33bbd97f600003370706184300c2"
            "c82ae748ad28c8cf4bcd2b71b37fa6e7f4ef97e5fb72cebcd2dcf882c4cca2e244c6725e10a7243337b5b824b5a03891"
            "b99cb328beb8b034b12835a59c392f330700d440251e"
        ),
    ),
]
"""Values, and the bytes that Erlang/OTP 25.3 wrote for them: term_to_binary(_, [compressed, {minor_version, 2}]).

Version 2, the default since OTP 26, writes every atom as UTF-8. Keys of maps stand in the order that Erlang gave them.
"""

NUMBERS = st.integers(-(2**2039), 2**2039) | st.integers(-300, 300) | st.floats(allow_nan=False, allow_infinity=False)
ATOMS = st.builds(Atom, st.text(st.characters(exclude_categories=["Cs"]), max_size=60))
KEYS = ATOMS | st.binary(max_size=20)
LEAVES: st.SearchStrategy[Term] = NUMBERS | ATOMS | st.binary(max_size=300)


def nested(depth: int) -> st.SearchStrategy[Term]:
    """Terms of at most this many levels."""
    if not depth:
        return LEAVES | st.just([])
    inner = nested(depth - 1)
    lists: st.SearchStrategy[Term] = st.lists(inner, max_size=6)
    strings: st.SearchStrategy[Term] = st.lists(st.integers(0, 255), max_size=40).map(as_terms)
    tuples: st.SearchStrategy[Term] = st.lists(inner, max_size=6).map(tuple)
    maps: st.SearchStrategy[Term] = st.dictionaries(KEYS, inner, max_size=4)
    return LEAVES | lists | strings | tuples | maps


def as_terms(values: list[int]) -> list[Term]:
    """Integers, for the type checker."""
    return list(values)


TERMS = nested(MAX_DEPTH)


@pytest.mark.parametrize(("value", "written"), VECTORS, ids=range(len(VECTORS)))
def test_a_value_is_written_as_erlang_writes_it_and_read_back(value: Term, written: str) -> None:
    assert encode(value).hex() == written
    assert decode(bytes.fromhex(written)) == value


def test_the_sign_of_a_zero_is_kept() -> None:
    assert copysign(1, decode(encode(-0.0))) == -1.0  # type: ignore[arg-type]


@given(TERMS)
def test_every_term_comes_back(value: Term) -> None:
    assert decode(encode(value)) == value


@given(st.binary(max_size=400) | st.binary(max_size=400).map(lambda data: b"\x83" + data))
def test_any_bytes_end_in_a_value_or_in_a_sentence(data: bytes) -> None:
    ends(data)


@given(TERMS, st.data())
def test_a_term_with_a_wrong_byte_ends_in_a_value_or_in_a_sentence(value: Term, data: st.DataObject) -> None:
    good = bytearray(encode(value))
    good[data.draw(st.integers(0, len(good) - 1))] = data.draw(st.integers(0, 255))
    ends(bytes(good))


@given(TERMS, st.data())
def test_a_torn_term_and_one_with_more_behind_it_are_refused(value: Term, data: st.DataObject) -> None:
    good = encode(value)
    for wrong in (good[: data.draw(st.integers(0, len(good) - 1))], good + b"j"):
        with pytest.raises(ErlangTermError):
            decode(wrong)


def ends(data: bytes) -> None:
    """Any bytes give a value that can be written again, or one sentence."""
    why = ""
    try:
        value = decode(data)
    except ErlangTermError as error:
        why = str(error)
    else:
        assert decode(encode(value)) == value
        return
    assert why
    assert why.isprintable()


def packed(plain: bytes, claimed: int | None = None) -> bytes:
    """A compressed term, with the size that it claims."""
    return b"\x83P" + struct.pack(">I", len(plain) if claimed is None else claimed) + zlib.compress(plain)


def entries(count: int, each: bytes) -> bytes:
    """A list."""
    return b"l" + struct.pack(">I", count) + each * count + b"j"


REFUSED = {
    "empty": (b"", "does not start"),
    "npz": (b"PK\3\4", "does not start"),
    "a size of 4 GB": (packed(b"j", 2**32 - 1), "claims 4,294,967,295 bytes"),
    "a size too small": (packed(entries(9, b"a\7"), 5), "exactly the 5 bytes"),
    "a size too large": (packed(b"j", 5), "exactly the 5 bytes"),
    "no size": (b"\x83P\0\0", "before its size"),
    "no zlib": (b"\x83P\0\0\0\1abc", "does not inflate"),
    "bytes behind zlib": (packed(b"j") + b"x", "exactly the 1 bytes"),
    "bytes behind the term": (b"\x83jj", "ends after 1 of 2 bytes"),
    "a list of 4 billion": (b"\x83l\xff\xff\xff\xff", "4,294,967,295 entries"),
    "a map of more than there is": (b"\x83t\0\0\0\2a\1", "2 entries"),
    "a binary of 4 GB": (b"\x83m\xff\xff\xff\xff", "in the midst"),
    "too deep": (b"\x83" + b"l\0\0\0\1" * 5 + b"j" * 6, "nested deeper than 4"),
    "tuples too deep": (b"\x83" + b"h\1" * 100_000, "nested deeper than 4"),
    "improper": (b"\x83l\0\0\0\1a\1a\2", "proper list"),
    "infinity as a float": (b"\x83F" + struct.pack(">d", inf), "inf as a float"),
    "NaN as a float": (b"\x83F" + struct.pack(">d", nan), "nan as a float"),
    "an atom that is not UTF-8": (b"\x83w\1\xff", "not UTF-8"),
    "a key twice": (b"\x83t\0\0\0\2w\1aa\1w\1aa\2", "same key twice"),
    "a number as a key": (b"\x83t\0\0\0\1a\1a\1", "neither an atom nor a binary"),
    "a list as a key": (b"\x83t\0\0\0\1ja\1", "neither an atom nor a binary"),
    "a sign": (b"\x83n\1\2\1", "sign 2"),
    "compressed within": (b"\x83" + entries(1, packed(b"j")[1:]), "tag 80"),
    **{
        name: (b"\x83" + tag + bytes(40), f"tag {tag[0]}, which the research tool never writes")
        for name, tag in {
            "an atom of OTP 25": b"d",
            "a large integer": b"o",
            "a large tuple": b"i",
            "a function": b"p",
            "an exported function": b"q",
            "a process": b"X",
            "a reference": b"Z",
            "a port": b"x",
            "a bit string": b"M",
            "an old float": b"c",
        }.items()
    },
}


@pytest.mark.parametrize(("data", "why"), REFUSED.values(), ids=REFUSED)
def test_what_the_tool_never_writes_is_refused_in_one_sentence(data: bytes, why: str) -> None:
    with pytest.raises(ErlangTermError, match=why):
        decode(data)


WRONG: dict[str, tuple[object, str]] = {
    "infinity": (inf, "no float inf"),
    "NaN": ([nan], "no float nan"),
    "a truth value": (True, "a bool is no term"),
    "nothing": (None, "a NoneType is no term"),
    "a text": ("text", "a str is no term"),
    "too deep": ([[[[[1.0]]]]], "nested deeper than 4"),
    "a long atom": (Atom("a" * 256), "an atom of 256 bytes"),
    "a long tuple": ((1.0,) * 256, "a tuple of 256 entries"),
    "a long integer": (2**2040, "an integer of 256 bytes"),
    "a long binary": (bytes(MAX_TERM_BYTES), "more than"),
}


@pytest.mark.parametrize(("value", "why"), WRONG.values(), ids=WRONG)
def test_what_is_no_term_is_not_written(value: Term, why: str) -> None:
    with pytest.raises(ErlangTermError, match=why):
        encode(value)


def peak(data: bytes) -> int:
    """Peak bytes while a term is refused."""
    tracemalloc.start()
    try:
        with pytest.raises(ErlangTermError):
            decode(data)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_a_bomb_is_refused_before_it_has_room() -> None:
    bomb = packed(bytes(2**30 // 8), MAX_TERM_BYTES)
    assert peak(bomb) < 3 * MAX_TERM_BYTES
    assert peak(packed(b"j", MAX_TERM_BYTES + 1)) < 2**20
    assert peak(b"\x83" + b"l\xff\xff\xff\xff" + bytes(1000)) < 2**20


def test_more_values_than_any_diagram_has_are_refused_as_they_are_read() -> None:
    assert peak(packed(entries(2**24 - 6, b"j"))) < 100 * MAX_VALUES + 2 * MAX_TERM_BYTES
    with pytest.raises(ErlangTermError, match="more than 1,000,000 values"):
        decode(packed(entries(20, b"k\xff\xff" + bytes(65_535))))


@pytest.mark.skipif(shutil.which("erl") is None, reason="Erlang is not installed")
def test_erlang_reads_what_is_written_and_writes_the_same(tmp_path: Path) -> None:
    chance = Random(7)
    values = [*(value for value, _ in VECTORS), *(made(chance, MAX_DEPTH) for _ in range(2_000))]
    ours = [encode(value) for value in values]
    (tmp_path / "ours").write_bytes(b"".join(struct.pack(">I", len(each)) + each for each in ours))
    subprocess.run(["erl", "-noshell", "-eval", ECHO], cwd=tmp_path, check=True, stdin=subprocess.DEVNULL)
    theirs = unframed((tmp_path / "theirs").read_bytes())
    for value, one, other in zip(values, ours, theirs, strict=True):
        assert decode(other) == value
        assert is_in_any_order(value) or other == one


def made(chance: Random, depth: int) -> Term:
    """A term of at most this many levels."""
    integers = [chance.randrange(-300, 300), chance.getrandbits(80), -chance.getrandbits(31), -chance.getrandbits(33)]
    others: list[Term] = [chance.gauss(0, 1), float(chance.randrange(4)), chance.randbytes(9), Atom("inf"), Atom("é€")]
    if not depth:
        return chance.choice([*integers, *others])
    inner = [made(chance, depth - 1) for _ in range(chance.randrange(7))]
    atoms: dict[Atom | bytes, Term] = {Atom(f"{at}"): each for at, each in enumerate(inner)}
    entries: list[Term] = [inner, tuple(inner), atoms]
    return chance.choice([*integers, *others, as_terms([7, 255] * 9), *3 * entries])


ECHO = (
    '{ok, All} = file:read_file("ours"), F = fun F(<<N:32, B:N/binary, Rest/binary>>) -> '
    "R = term_to_binary(binary_to_term(B), [compressed, {minor_version, 2}]), [<<(byte_size(R)):32>>, R | F(Rest)]; "
    'F(<<>>) -> [] end, ok = file:write_file("theirs", F(All)), halt().'
)
"""A program that reads the terms of a file, each after its length, and writes them again."""


def unframed(data: bytes) -> list[bytes]:
    found = []
    while data:
        (size,) = struct.unpack_from(">I", data)
        found.append(data[4 : 4 + size])
        data = data[4 + size :]
    return found


def is_in_any_order(value: Term) -> bool:
    """Whether a value holds a map of several keys: atoms stand in the order of Erlang's own table of them."""
    if isinstance(value, dict):
        return len(value) > 1 or any(map(is_in_any_order, value.values()))
    return isinstance(value, list | tuple) and any(map(is_in_any_order, value))


def floats(*values: float) -> bytes:
    """A list of floats, without the version byte."""
    entries = b"".join(b"F" + struct.pack(">d", value) for value in values)
    return b"l" + struct.pack(">I", len(values)) + entries + b"j"


def list_of(*terms: bytes) -> bytes:
    """A list of terms, without the version byte."""
    return b"l" + struct.pack(">I", len(terms)) + b"".join(terms) + b"j"


def test_pairs_of_floats_are_read_as_any_other_list() -> None:
    integers = b"l\0\0\0\2a\1F" + struct.pack(">d", 2.0) + b"j"
    improper = floats(1.0, 2.0)[:-1] + b"a\1"
    assert decode(b"\x83" + list_of(floats(1.0, 2.0), integers, floats(3.0), floats(-0.0, 5.0), b"j")) == [
        [1.0, 2.0],
        [1, 2.0],
        [3.0],
        [-0.0, 5.0],
        [],
    ]
    for refused in (floats(1.0, inf), floats(nan, 1.0), improper, floats(1.0, 2.0)[:-1]):
        with pytest.raises(ErlangTermError):
            decode(b"\x83" + list_of(refused))


def test_pairs_of_floats_count_as_three_values_and_as_one_level(monkeypatch: pytest.MonkeyPatch) -> None:
    deep = floats(1.0, 2.0)
    for _ in range(MAX_DEPTH - 1):
        deep = list_of(deep)
    decode(b"\x83" + deep)
    with pytest.raises(ErlangTermError, match="nested deeper than"):
        decode(b"\x83" + list_of(deep))
    monkeypatch.setattr(erlang_terms, "MAX_VALUES", 7)
    decode(b"\x83" + list_of(floats(1.0, 2.0), floats(3.0, 4.0)))
    monkeypatch.setattr(erlang_terms, "MAX_VALUES", 6)
    with pytest.raises(ErlangTermError, match="more than 6 values"):
        decode(b"\x83" + list_of(floats(1.0, 2.0), floats(3.0, 4.0)))
