"""The payload: written and read, by the research tool too; damaged and malicious ones are refused."""

from __future__ import annotations

import hashlib
import io
import json
import math
import pickle
import re
import struct
import tracemalloc
import zipfile
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import research_tool
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import ArrayLike, NDArray

from pytest_panic_doctor.topology.diagram import Bars, Diagram, sorted_bars
from pytest_panic_doctor.topology.payload import (
    MAX_ARRAY_BYTES,
    META,
    PayloadError,
    Provenance,
    decode,
    encode,
    make_indexable,
)
from pytest_panic_doctor.topology.validation import problems, shortcomings

INF = math.inf
PROVENANCE = Provenance("ab" * 32, 2500, 1125, 1.5e-6, "giotto-ph", "0.2.4", 2, 77.25, 457_000_000, "0.1.0")
HEALTHY = Diagram((sorted_bars([[0, 1], [0, 2], [0, INF]]), sorted_bars([[1, 1.5], [1, 2]]), sorted_bars([])))
GENERATORS: dict[str, ArrayLike] = {
    "gens_0": np.arange(6).reshape(2, 3),
    "gens_1_0": np.arange(8).reshape(2, 4),
    "gens_1_count": np.array([1]),
    "gens_2": np.array([0]),
    "gens_3_0": np.empty((0, 2), int),
    "gens_3_count": np.array([1]),
}
ANY_BARS = st.integers(0, 30).flatmap(lambda count: arrays(np.float32, (count, 2), elements=st.floats(width=32)))


def saved(**changes: ArrayLike) -> bytes:
    """A payload as the research tool writes it, with these arrays instead; an array of None is left out."""
    held: dict[str, ArrayLike] = {
        **{f"dgms_{dimension}": bars for dimension, bars in enumerate(HEALTHY.bars)},
        "dgms_count": np.array([3]),
        "entropy": HEALTHY.entropy,
    } | changes
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer, allow_pickle=True, **{name: np.asarray(each) for name, each in held.items() if each is not None}
    )
    return buffer.getvalue()


def members(payload: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(payload)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def zipped(content: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, data in content.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def with_member(data: bytes, name: str = "dgms_0") -> bytes:
    """A payload, one of whose arrays is these bytes."""
    return zipped(members(saved()) | {f"{name}.npy": data})


def npy(header: str, data: bytes = b"", version: tuple[int, int] = (1, 0)) -> bytes:
    """Bytes in `.npy` format, with this header."""
    length = struct.pack("<H" if version == (1, 0) else "<I", len(header))
    return b"\x93NUMPY" + bytes(version) + length + header.encode("latin1") + data


def described(shape: str, kind: str = "<f4", fortran: bool = False) -> str:
    return f"{{'descr': '{kind}', 'fortran_order': {fortran}, 'shape': {shape}, }}\n"


# What is written


@given(st.tuples(ANY_BARS, ANY_BARS, ANY_BARS), st.sampled_from([None, PROVENANCE]))
def test_what_is_written_is_read(bars: tuple[Bars, ...], provenance: Provenance | None) -> None:
    with np.errstate(all="ignore"):
        found = decode(encode(Diagram(bars), provenance))
    assert [each.tobytes() for each in found.diagram.bars] == [each.tobytes() for each in bars]
    assert found.count == 3
    if provenance is None:
        assert found.provenance is None
    else:
        assert found.provenance == replace(provenance, bars_sha256=found.diagram.sha256)


def test_the_checksum_is_of_every_bar_in_its_place() -> None:
    expected = hashlib.sha256()
    for dimension, bars in enumerate(HEALTHY.bars):
        expected.update(f"H{dimension} {len(bars)}\n".encode() + struct.pack(f"<{bars.size}f", *bars.ravel()))
    assert HEALTHY.sha256 == expected.hexdigest()
    moved = (*HEALTHY.bars[:1], sorted_bars([[1, 1.5]]), sorted_bars([[1, 2]]))
    others = [
        Diagram(HEALTHY.bars[:2]),
        Diagram((*HEALTHY.bars, sorted_bars([]))),
        Diagram(moved),
        Diagram((HEALTHY.bars[0][::-1], *HEALTHY.bars[1:])),
    ]
    assert len({HEALTHY.sha256, *(each.sha256 for each in others)}) == 5


def test_the_checksum_is_of_the_same_bytes_on_any_layout() -> None:
    swapped = tuple(np.asfortranarray(bars.astype(">f4")) for bars in HEALTHY.bars)
    assert Diagram(swapped).sha256 == HEALTHY.sha256


def test_equal_diagrams_are_equal_bytes() -> None:
    other = Diagram(tuple(sorted_bars(bars[::-1]) for bars in HEALTHY.bars))
    assert encode(HEALTHY, PROVENANCE) == encode(other, PROVENANCE)
    assert encode(HEALTHY) != encode(HEALTHY, PROVENANCE)
    with zipfile.ZipFile(io.BytesIO(encode(HEALTHY))) as archive:
        assert {info.date_time for info in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}


def test_the_research_tool_reads_it() -> None:
    read = research_tool.read_payload(encode(HEALTHY, PROVENANCE))
    assert json.loads(str(read.pop("doctor"))) == asdict(replace(PROVENANCE, bars_sha256=HEALTHY.sha256))
    assert sorted(read) == ["dgms", "entropy"]
    for bars, expected in zip(read["dgms"], HEALTHY.bars, strict=True):
        assert bars.dtype == np.float32
        np.testing.assert_array_equal(bars, expected)
    entropy = read["entropy"]
    assert isinstance(entropy, np.ndarray)
    assert entropy.dtype == np.float32
    np.testing.assert_array_equal(entropy, HEALTHY.entropy)


@pytest.mark.parametrize("name", ["doctor_meta", "dgms_count", "gens_1_count", "gens_3_count", "of_another_meta"])
@pytest.mark.parametrize("value", [np.array(3), np.empty(0, int), np.empty((0, 4), "U1")], ids=["0-d", "none", "rows"])
def test_what_has_no_first_element_is_named_where_the_tool_takes_it(name: str, value: ArrayLike) -> None:
    changes = GENERATORS | {name: value} if name.startswith("gens") else {name: value}
    payload = saved(**changes)
    with pytest.raises(IndexError):
        research_tool.read_payload(payload)
    (clause,) = problems(decode(payload))
    if name == "dgms_count" and np.size(value) == 0:
        assert clause == "says in dgms_count that it has None homology dimensions, and has 3"
    else:
        assert clause.startswith(f"holds {name} of shape {np.shape(value)} instead of (1,)")


def test_only_what_has_no_dimension_is_given_one() -> None:
    payload = saved(doctor_meta=np.array("abc"), dgms_count=np.array(3), left_alone=np.array(7))
    mended = make_indexable(payload)
    before, after = members(payload), members(mended)
    assert list(before) == list(after)
    assert {name for name in before if before[name] != after[name]} == {"doctor_meta.npy", "dgms_count.npy"}
    assert research_tool.read_payload(mended)["doctor"] == "abc"
    assert make_indexable(mended) == mended
    assert make_indexable(saved()) == saved()


@pytest.mark.parametrize("twice", ["dgms_0.npy", "doctor_meta.npy"])
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_an_archive_that_names_an_array_twice_is_not_packed_again(twice: str) -> None:
    buffer = io.BytesIO(saved(doctor_meta=np.array("abc")))
    with zipfile.ZipFile(buffer, "a") as archive:
        archive.writestr(twice, archive.read(twice))
    with pytest.raises(PayloadError, match="twice"):
        make_indexable(buffer.getvalue())


def test_it_is_valid_and_so_is_the_tools_own() -> None:
    assert problems(decode(encode(HEALTHY, PROVENANCE))) == []
    assert problems(decode(saved())) == []


def test_a_diagram_to_h1_alone_is_valid_where_its_provenance_says_so() -> None:
    short = Diagram(HEALTHY.bars[:2])
    to_h1 = Provenance(**asdict(PROVENANCE) | {"max_dim": 1})
    assert problems(decode(encode(short, to_h1))) == []
    assert problems(decode(encode(short))) == ["has 2 homology dimensions instead of 3"]
    assert problems(decode(encode(HEALTHY, to_h1))) == ["has 3 homology dimensions instead of 2"]


# What older tools wrote


def test_payloads_with_generators_are_read() -> None:
    payload = saved(
        **GENERATORS,
        else_meta=np.array(["something"]),
    )
    found = decode(payload)
    assert problems(found) == []
    np.testing.assert_array_equal(found.diagram.bars[1], HEALTHY.bars[1])


def test_uncompressed_payloads_and_float64_are_read() -> None:
    stored = zipped(members(saved(dgms_1=HEALTHY.bars[1].astype(np.float64))), zipfile.ZIP_STORED)
    assert problems(decode(stored)) == []
    assert decode(stored).diagram.bars[1].dtype == np.float32


@pytest.mark.parametrize("meta", ["no json", "[]", "{}", '{"fingerprint": 1}', "[" * 100_000])
def test_provenance_that_is_not_the_doctors_is_none_and_named(meta: str) -> None:
    found = decode(saved(doctor_meta=np.array([meta])))
    assert found.provenance is None
    assert problems(found) == ["holds a doctor_meta that the doctor did not write"]


@pytest.mark.parametrize(
    "change", [{"max_dim": -1}, {"max_dim": 8}, {"points": 0}, {"distinct": 0}, {"distinct": 10**9}]
)
def test_provenance_that_cannot_be_is_none_and_named(change: dict[str, object]) -> None:
    meta = json.dumps(asdict(PROVENANCE) | change)
    assert problems(decode(saved(doctor_meta=np.array([meta])))) == [
        "holds a doctor_meta that the doctor did not write"
    ]


def test_bars_that_do_not_fit_their_checksum_are_named() -> None:
    whole = members(encode(HEALTHY, PROVENANCE))
    assert problems(decode(zipped(whole))) == []
    for name, bars in (("dgms_1", HEALTHY.bars[1][::-1] * np.float32(2)), ("dgms_2", sorted_bars([[3, 4]]))):
        other = Diagram(tuple(bars if name == f"dgms_{at}" else each for at, each in enumerate(HEALTHY.bars)))
        changed = whole | {key: members(encode(other))[key] for key in (f"{name}.npy", "entropy.npy")}
        (clause,) = problems(decode(zipped(changed)))
        assert clause == "has other bars than were computed: they do not fit the checksum in its doctor_meta"


def test_fewer_dimensions_and_unknown_arrays_are_worth_a_warning() -> None:
    flat = Diagram(HEALTHY.bars[:1])
    found = decode(encode(flat, replace(PROVENANCE, max_dim=0)))
    assert problems(found) == []
    assert shortcomings(found) == ["has 1 of 3 homology dimensions, as --doctor-max-dim asked"]
    assert shortcomings(decode(saved(extra=np.arange(3)))) == [
        "holds arrays that the research tool does not write (extra)"
    ]
    assert shortcomings(decode(saved(**GENERATORS))) == []


@pytest.mark.parametrize("name", ["gens_0", "gens_1_0", "anything", "lab_meta"])
def test_a_pickle_is_named_wherever_it_is(name: str) -> None:
    with pytest.raises(PayloadError, match=f"holds a pickled object in {name}"):
        decode(saved(**{name: np.array([{}], dtype=object)}))


@pytest.mark.parametrize(
    ("name", "clause"), [("dgms_0", "holds 'dgms_0', which is not an array"), ("notes.txt", "holds 'notes.txt'")]
)
def test_a_member_that_is_no_array_is_named(name: str, clause: str) -> None:
    with pytest.raises(PayloadError, match=clause):
        decode(zipped(members(saved()) | {name: b"hello"}))


@pytest.mark.parametrize(
    "change", [{"max_dim": "2"}, {"bars_sha256": 5}, {"fingerprint": 5}, {"points": None}, {"seconds": []}]
)
def test_provenance_of_other_types_is_none(change: dict[str, object]) -> None:
    meta = json.dumps(asdict(PROVENANCE) | change)
    assert decode(saved(doctor_meta=np.array([meta]))).provenance is None
    assert decode(saved(doctor_meta=np.array([json.dumps(asdict(PROVENANCE))]))).provenance == PROVENANCE


def test_provenance_of_an_earlier_doctor_is_read() -> None:
    plain = asdict(PROVENANCE)
    del plain["bars_sha256"]
    for meta in (np.array([json.dumps(plain)]), np.array(json.dumps(plain))):
        assert decode(saved(doctor_meta=meta)).provenance == PROVENANCE


# What is damaged


def test_a_payload_torn_at_any_byte_is_torn() -> None:
    payload = encode(HEALTHY, PROVENANCE)
    for cut in range(len(payload)):
        with pytest.raises(PayloadError, match="is damaged"):
            decode(payload[:cut])


def test_a_payload_torn_at_its_head_is_torn() -> None:
    payload = encode(HEALTHY, PROVENANCE)
    for cut in (1, 30, 100, len(payload) // 2):
        with pytest.raises(PayloadError):
            decode(payload[cut:])


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_no_flipped_bit_changes_a_bar(compression: int) -> None:
    payload = zipped(members(saved()), compression)
    for place in range(len(payload)):
        flipped = bytearray(payload)
        flipped[place] ^= 0x10
        try:
            found = decode(bytes(flipped))
        except PayloadError:
            continue
        kept = found.diagram.bars[: len(HEALTHY.bars)]
        assert [bars.tobytes() for bars in kept] == [bars.tobytes() for bars in HEALTHY.bars[: len(kept)]]


@settings(max_examples=300)
@given(st.binary(max_size=200))
@example(b"")
@example(b"PK\x05\x06" + bytes(18))
def test_bytes_are_read_or_refused(payload: bytes) -> None:
    with pytest.raises(PayloadError):
        decode(payload)


@settings(max_examples=300)
@given(st.text(st.characters(max_codepoint=255), max_size=120), st.binary(max_size=40))
@example("(((", b"")
@example("[" * 9000, b"")
@example("{'descr': '<f4', 'fortran_order': False, 'shape': (1L, 2L)}\n", bytes(8))
@example(described("(-1, 2)"), b"")
@example(described("(0, 2)", "<U0"), b"")
@example(described("(0, 2)", "|V0"), b"")
@example(described(f"(0, {10**30})"), b"")
@example(described("(1, 2)", "(99999999999,)f4"), b"")
def test_headers_are_read_or_refused(header: str, data: bytes) -> None:
    try:
        decode(with_member(npy(header, data)))
    except PayloadError:
        return
    assert header.startswith("{'descr': '<f4'")


@pytest.mark.parametrize("shape", ["(True, 2)", "(1, True)", "(False, 2)", "(True,)", "(-1, 2)"])
def test_a_length_that_is_no_number_is_refused(shape: str) -> None:
    with pytest.raises(PayloadError, match=r"is damaged: .* has the shape"):
        decode(with_member(npy(described(shape), bytes(8))))


# What is malicious


class Planted:
    """Leaves a mark when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.mark,)


@pytest.mark.parametrize("name", ["dgms_0", "dgms_2", "dgms_count", "entropy", META])
def test_nothing_is_unpickled(tmp_path: Path, name: str) -> None:
    mark = tmp_path / "mark"
    planted = np.empty(1, object)
    planted[0] = Planted(mark)
    payload = saved(**{name: planted})
    with pytest.raises(PayloadError, match=f"pickled object in {name}"):
        decode(payload)
    assert not mark.exists()
    with np.load(io.BytesIO(payload), allow_pickle=True) as read:
        read[name]
    assert mark.exists(), "the payload plants nothing, and the test proves nothing"


def test_a_bare_pickle_is_not_unpickled(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    bare = pickle.dumps(Planted(mark))
    for payload in (bare, with_member(bare), zipped({"dgms_0": bare})):
        with pytest.raises(PayloadError):
            decode(payload)
    assert not mark.exists()


BOMB = bytes(2 * MAX_ARRAY_BYTES)


@pytest.mark.parametrize(
    "data",
    [
        npy(described(f"({len(BOMB) // 8}, 2)")) + BOMB,
        npy(described("(1, 2)")) + BOMB,
        npy(" " * 65_535) + BOMB,
        b"\x93NUMPY\x02\x00" + struct.pack("<I", len(BOMB)) + BOMB,
        npy(described(f"({2**60}, 2)")),
        npy(described("(1,)", "<U99999999")) + BOMB,
    ],
    ids=["large array", "small array", "long header", "huge header", "huge shape", "huge type"],
)
def test_a_bomb_is_not_unpacked(data: bytes) -> None:
    payload = with_member(data)
    del data
    tracemalloc.start()
    try:
        with pytest.raises(PayloadError):
            decode(payload)
        assert tracemalloc.get_traced_memory()[1] < MAX_ARRAY_BYTES
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("compression", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_compressions_are_refused(compression: int) -> None:
    with pytest.raises(PayloadError, match="compression"):
        decode(zipped(members(saved()), compression))


def test_an_encrypted_member_is_refused() -> None:
    payload = bytearray(saved())
    for mark, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        payload[payload.index(mark) + place] |= 1
    with pytest.raises(PayloadError, match="encrypted"):
        decode(bytes(payload))


@pytest.mark.parametrize(
    ("changes", "clause"),
    [
        ({"dgms_0": None}, "no diagram: there is no dgms_0"),
        ({"dgms_0": np.zeros((2, 3), np.float32)}, r"dgms_0 of shape \(2, 3\)"),
        ({"dgms_1": np.zeros(4, np.float32)}, r"dgms_1 of shape \(4,\)"),
        ({"dgms_1": np.zeros((2, 2), np.int32)}, "dgms_1 of type int32"),
        ({"dgms_1": np.zeros((2, 2), np.float16)}, "dgms_1 of type float16"),
        ({"dgms_1": np.zeros((2, 2), complex)}, "dgms_1 of type complex128"),
        ({"dgms_1": np.zeros((2, 2), "U3")}, "dgms_1 of type <U3"),
        ({"dgms_1": np.asfortranarray(np.ones((3, 2), np.float32))}, "dgms_1 in column order"),
    ],
)
def test_what_is_no_diagram_is_refused(changes: dict[str, ArrayLike], clause: str) -> None:
    with pytest.raises(PayloadError, match=clause):
        decode(saved(**changes))


NAN = math.nan


@pytest.mark.parametrize(
    ("changes", "clauses"),
    [
        (
            {"dgms_2": None, "entropy": HEALTHY.entropy[:2]},
            ["has 2 homology dimensions", "says in dgms_count that it has 3"],
        ),
        (
            {"dgms_3": HEALTHY.bars[1], "entropy": np.zeros(4, np.float32)},
            ["has 4 homology dimensions", "has 3 .*has 4"],
        ),
        ({"dgms_count": np.array([2])}, ["says in dgms_count that it has 2 homology dimensions, and has 3"]),
        ({"dgms_count": None}, ["says in dgms_count that it has None"]),
        ({"dgms_count": np.array([3.0])}, ["says in dgms_count that it has None"]),
        ({"dgms_1": sorted_bars([[1, NAN], [1, 2]])}, ["has 1 bar in H1 with NaN"]),
        ({"dgms_1": sorted_bars([[2, 1], [3, 2], [1, 2]])}, ["has 2 bars in H1 with a death before the birth"]),
        ({"dgms_1": sorted_bars([[-1, 2]])}, ["has 1 bar in H1 born before 0"]),
        ({"dgms_2": sorted_bars([[INF, INF]])}, ["has 1 bar in H2 born at infinity"]),
        ({"dgms_0": sorted_bars([[0, 1], [0, 2]])}, ["has 0 essential classes in H0 instead of 1"]),
        ({"dgms_0": sorted_bars([[0, INF], [0, INF]])}, ["has 2 essential classes in H0 instead of 1"]),
        ({"dgms_1": sorted_bars([[1, INF]])}, ["has 1 essential class in H1 instead of 0"]),
        ({"dgms_0": sorted_bars([])}, ["has 0 essential classes in H0 instead of 1"]),
        ({"dgms_0": sorted_bars([[0.5, 1], [0, INF]])}, ["has 1 bar in H0 not born at 0"]),
        ({"entropy": None}, ["has no entropy"]),
        (
            {"entropy": HEALTHY.entropy + np.array([0, 0.01, 0], np.float32)},
            ["has entropy .* in H1, and its bars have"],
        ),
        ({"entropy": np.array([0.6365, NAN, 0], np.float32)}, ["has entropy nan in H1"]),
        ({"entropy": np.zeros(2, np.float32)}, [r"entropy of shape \(2,\)"]),
        ({"entropy": np.zeros(3, int)}, ["entropy of shape .* type int64"]),
        # A lost dimension comes before the entropy that no longer fits.
        ({"dgms_2": None}, ["has 2 homology dimensions", "says in dgms_count that it has 3"]),
        ({"dgms_5": HEALTHY.bars[1]}, ["holds dgms_5 beside 3 homology dimensions"]),
    ],
)
def test_every_broken_promise_is_named(changes: dict[str, ArrayLike], clauses: list[str]) -> None:
    found = problems(decode(saved(**changes)))
    assert len(found) == len(clauses)
    for text, clause in zip(found, clauses, strict=True):
        assert re.search(clause, text), text


def test_an_entropy_summed_in_float32_is_near_enough() -> None:
    bars = sorted_bars(np.sort(np.random.default_rng(0).random((5000, 2)), axis=1))
    lengths = bars[:, 1] - bars[:, 0]
    share = lengths / lengths.sum()
    rough = -(share * np.log(share)).sum()
    exact = Diagram((bars,)).entropy[0]
    assert rough.dtype == np.float32
    assert abs(rough - exact) < 2e-4
    entropy = HEALTHY.entropy.copy()
    entropy[1] = rough
    assert problems(decode(saved(dgms_1=bars, entropy=entropy))) == []


def broken(payload: bytes, place: int) -> bytes:
    """The payload with one bit of one byte flipped."""
    return payload[:place] + bytes([payload[place] ^ 4]) + payload[place + 1 :]


def judged(payload: bytes) -> object:
    """The decoded payload, or the message of the error."""
    try:
        found = decode(payload)
    except PayloadError as error:
        return str(error)
    return [bars.tobytes() for bars in found.diagram.bars], found.count, str(found.entropy), found.unindexed


def test_a_member_that_is_unpacked_at_once_is_judged_as_zipfile_judges_it(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = encode(Diagram(tuple(sorted_bars(random_bars(20, dimension)) for dimension in range(3))))
    payloads = [whole, *(broken(whole, place) for place in range(0, len(whole), 3)), whole[:-1], whole + b"x"]
    at_once = [judged(payload) for payload in payloads]
    monkeypatch.setattr("pytest_panic_doctor.topology.archive.SMALL_MEMBER", -1)
    assert at_once == [judged(payload) for payload in payloads]
    assert len({str(each) for each in at_once}) > 20


def random_bars(count: int, dimension: int) -> NDArray[np.float32]:
    """Bars of one dimension."""
    random = np.random.default_rng(dimension)
    births = random.random(count) * (dimension > 0)
    deaths = births + random.random(count)
    if dimension == 0:
        deaths[-1] = np.inf
    return np.stack((births, deaths), axis=1).astype(np.float32)
