"""Diagrams and Lyapunov results of the Elixir generation: the values of the Python generation, or an error."""

from __future__ import annotations

import json
import math
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from elixir_files import elixir_file
from hypothesis import given
from hypothesis import strategies as st

from pytest_panic_doctor.database import elixir_payload, erlang_terms
from pytest_panic_doctor.database.elixir_payload import decode, decode_lyapunov, encode, encode_lyapunov
from pytest_panic_doctor.database.erlang_terms import Atom, Term
from pytest_panic_doctor.topology.diagram import Diagram, sorted_bars
from pytest_panic_doctor.topology.lyapunov import Lyapunov, lyapunov
from pytest_panic_doctor.topology.payload import PayloadError, Provenance
from pytest_panic_doctor.topology.validation import problems, shortcomings

INF = math.inf
PROVENANCE = Provenance("ab" * 32, 2500, 1125, 1.5e-6, "giotto-ph", "0.2.4", 2, 77.25, 457_000_000, "0.1.0")
HEALTHY = Diagram((sorted_bars([[0, 1], [0, 2], [0, INF]]), sorted_bars([[1, 1.5], [1, 2]]), sorted_bars([])))
CURVE = Lyapunov(0.5, 0.75, np.array([1.0, 2.0, 4.5]), 3, 3)


def values(blob: bytes) -> dict[Atom | bytes, Term]:
    """The map in a payload."""
    found = erlang_terms.decode(blob)
    assert isinstance(found, dict)
    return found


def test_what_is_written_is_read_and_is_valid() -> None:
    for provenance in (None, PROVENANCE):
        payload = decode(encode(HEALTHY, provenance))
        assert payload.diagram.sha256 == HEALTHY.sha256
        assert payload.count == 3
        assert payload.has_meta == (provenance is not None)
        assert payload.entropy is not None
        assert payload.entropy.tobytes() == HEALTHY.entropy.tobytes()
        assert problems(payload) == shortcomings(payload) == []


def test_provenance_is_under_a_binary_key_that_needs_no_new_atom_and_holds_the_checksum_of_the_bars() -> None:
    stored = values(encode(HEALTHY, PROVENANCE))
    assert [each.name for each in stored if isinstance(each, Atom)] == ["dgms", "entropy", "num_edges"]
    assert json.loads(stored[b"doctor_meta"])["bars_sha256"] == HEALTHY.sha256  # type: ignore[arg-type]
    assert decode(encode(HEALTHY, PROVENANCE)).provenance is not None


def test_other_bars_than_were_computed_are_told_by_their_checksum() -> None:
    stored = values(encode(HEALTHY, PROVENANCE))
    stored[Atom("dgms")][1][0][1] = 1.625  # type: ignore[index]
    assert problems(decode(erlang_terms.encode(stored))) == [
        "has other bars than were computed: they do not fit the checksum in its doctor_meta"
    ]


def test_keys_stand_in_any_order() -> None:
    turned = erlang_terms.encode(dict(reversed(values(encode(HEALTHY, PROVENANCE)).items())))
    assert turned != encode(HEALTHY, PROVENANCE)
    assert decode(turned).diagram.sha256 == HEALTHY.sha256


def replaced(key: Atom | bytes, value: Term | None) -> bytes:
    """A healthy payload with one other value, or without it."""
    stored = values(encode(HEALTHY)) | ({} if value is None else {key: value})
    if value is None:
        del stored[key]
    return erlang_terms.encode(stored)


DGMS, ENTROPY, EDGES = Atom("dgms"), Atom("entropy"), Atom("num_edges")
TORN: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "is damaged: the blob does not start as an Erlang term"),
    "an npz": (b"PK\3\4", "is damaged: the blob does not start"),
    "half": (encode(HEALTHY)[:40], "is damaged: the compressed term does not inflate"),
    "a list": (erlang_terms.encode([1.0]), "holds another term than the map"),
    "an atom": (erlang_terms.encode(Atom("nil")), "holds another term than the map"),
    "no dgms": (replaced(DGMS, None), "there is no key dgms"),
    "dgms under a binary": (erlang_terms.encode({b"dgms": [[], [], []], EDGES: 0}), "there is no key dgms"),
    "no num_edges": (replaced(EDGES, None), "no number under the key num_edges"),
    "num_edges of text": (replaced(EDGES, b"0"), "no number under the key num_edges"),
    "dgms of no dimension": (replaced(DGMS, []), "not a list of homology dimensions"),
    "dgms of an atom": (replaced(DGMS, Atom("nil")), "not a list of homology dimensions"),
    "dgms of nine dimensions": (replaced(DGMS, [[]] * 9), "has 9 homology dimensions, more than any"),
    "a dimension of an atom": (replaced(DGMS, [[], Atom("nil"), []]), "no list of bars in H1"),
    "a bar of three": (replaced(DGMS, [[[0.0, 1.0, 2.0]], [], []]), "a bar in H0 that is not a birth and a death"),
    "a bar of an atom": (replaced(DGMS, [[], [], [Atom("nil")]]), "a bar in H2 that is not a birth and a death"),
    "a birth of text": (replaced(DGMS, [[[b"0", 1.0]], [], []]), "a value in H0 that is not a number"),
    "a death of another atom": (replaced(DGMS, [[[0.0, Atom("infinity")]], [], []]), "in H0 that is not a number"),
    "a huge death": (replaced(DGMS, [[[0, 2**2000]], [], []]), "a value in H0 that is not a number"),
    "an entropy of text": (replaced(ENTROPY, [b"0", 0.0, 0.0]), "a value in entropy that is not a number"),
    "an entropy of one": (replaced(ENTROPY, 0.0), "an entropy that is not a list"),
}  # fmt: skip


@pytest.mark.parametrize(("blob", "why"), TORN.values(), ids=TORN)
def test_what_does_not_read_is_said_in_a_clause(blob: bytes, why: str) -> None:
    with pytest.raises(PayloadError, match=why):
        decode(blob)


WRONG: dict[str, tuple[bytes, str]] = {
    "two dimensions": (replaced(DGMS, [[[0.0, Atom("inf")]], []]), "has 2 homology dimensions instead of 3"),
    "no essential class": (replaced(DGMS, [[[0.0, 1.0]], [], []]), "has 0 essential classes in H0 instead of 1"),
    "NaN": (replaced(DGMS, [[[0.0, Atom("nan")]], [], []]), "has 1 bar in H0 with NaN"),
    "born at infinity": (replaced(DGMS, [[[Atom("inf"), Atom("inf")]], [], []]), "has 1 bar in H0 born at infinity"),
    "backwards": (replaced(DGMS, [[[0.0, Atom("-inf")]], [], []]), "has 1 bar in H0 with a death before the birth"),
    "beyond float32": (replaced(DGMS, [[[0.0, 1e300]], [], []]), "has entropy 0.6365 in H0, and its bars have"),
    "no entropy": (replaced(ENTROPY, None), "has no entropy"),
    "an entropy of two": (replaced(ENTROPY, [0.5, 0.5]), "holds an entropy of shape (2,)"),
    "another entropy": (replaced(ENTROPY, [9.0, 0.0, 0.0]), "has entropy 9.0000 in H0"),
    "a meta of no doctor": (replaced(b"doctor_meta", b"{}"), "holds a doctor_meta that the doctor did not write"),
    "a meta that is no text": (replaced(b"doctor_meta", 1), "holds a doctor_meta that the doctor did not write"),
}


@pytest.mark.parametrize(("blob", "why"), WRONG.values(), ids=WRONG)
def test_what_reads_and_is_wrong_is_told_as_in_the_python_generation(blob: bytes, why: str) -> None:
    assert problems(decode(blob))[0].startswith(why)


def test_tuples_and_whole_numbers_are_bars_too() -> None:
    bars = decode(replaced(DGMS, [[(0, 1), [0, 2], (0, Atom("inf"))], [], []])).diagram.bars[0]
    assert bars.tolist() == [[0, 1], [0, 2], [0, INF]]


def test_a_key_that_nobody_knows_is_worth_a_warning() -> None:
    payload = decode(replaced(Atom("other"), 1))
    assert payload.others == ("other",)
    assert problems(payload) == []
    assert "other" in shortcomings(payload)[0]


@given(st.binary(max_size=200), st.integers(0, 150))
def test_any_bytes_end_in_a_payload_or_in_the_error(data: bytes, at: int) -> None:
    for blob in (data, encode(HEALTHY)[:at] + data, encode_lyapunov(CURVE)[:at] + data):
        for read in (decode, decode_lyapunov):
            try:
                read(blob)
            except PayloadError as error:
                text = str(error)
            else:
                continue
            assert text.isprintable()


def rows(path: Path, query: str) -> Iterator[tuple[object, ...]]:
    """The rows of a query."""
    with closing(sqlite3.connect(path)) as db:
        yield from db.execute(query).fetchall()


@pytest.fixture
def healthy(shared_data: Path, tmp_path: Path) -> Path:
    """A copy of the reference file."""
    shutil.copyfile(shared_data / "elixir-healthy.sqlite", tmp_path / "x.sqlite")
    return tmp_path / "x.sqlite"


def test_the_diagrams_of_the_reference_file_read_are_valid_and_are_written_to_the_same_bytes(healthy: Path) -> None:
    blobs = [blob for (blob,) in rows(healthy, "SELECT diagram_data FROM persistence_diagrams")]
    assert len(blobs) == 48
    same = 0
    for blob in blobs:
        assert isinstance(blob, bytes)
        payload = decode(blob)
        assert problems(payload) == shortcomings(payload) == []
        # As they stand, the values are written to the same bytes, whichever order the keys have.
        assert erlang_terms.encode(erlang_terms.decode(blob)) == blob
        again = encode(payload.diagram)
        assert decode(again).diagram.sha256 == payload.diagram.sha256
        same += again == blob
    # Half of the file has its keys in the other order; some entropies differ in the last digit of float32.
    assert same > 0


def test_the_lyapunov_results_of_the_reference_file_are_those_of_its_vectors(healthy: Path) -> None:
    found = list(
        rows(healthy, "SELECT experiment_id, network, prompt, embedding_model, lyapunov_data FROM lyapunov_results")
    )
    assert len(found) == 24
    for experiment, network, prompt, model, blob in found:
        assert isinstance(blob, bytes)
        stored = decode_lyapunov(blob)
        with closing(sqlite3.connect(healthy)) as db:
            runs = db.execute(
                "SELECT id FROM runs WHERE experiment_id = ? AND network = ? AND initial_prompt = ?",
                (experiment, network, prompt),
            ).fetchall()
            clouds = [
                np.array(
                    [
                        np.frombuffer(vector, "<f4")
                        for (vector,) in db.execute(
                            "SELECT vector FROM embeddings e JOIN invocations i ON i.id = e.invocation_id "
                            "WHERE i.run_id = ? AND e.embedding_model = ? ORDER BY i.sequence_number",
                            (*run, model),
                        )
                    ]
                )
                for run in runs
            ]
        ours = lyapunov(clouds)
        assert ours.exponent == pytest.approx(stored.exponent, abs=1e-12)
        assert ours.r_squared == pytest.approx(stored.r_squared, abs=1e-12)
        assert np.abs(ours.divergence_curve - stored.divergence_curve).max() < 1e-12
        assert (ours.num_pairs, ours.num_timesteps) == (stored.num_pairs, stored.num_timesteps)
        assert encode_lyapunov(stored) == blob


LYAPUNOV_WRONG: dict[str, tuple[bytes, str]] = {
    "torn": (encode_lyapunov(CURVE)[:20], "is damaged"),
    "a diagram": (encode(HEALTHY), "lacks divergence_curve, exponent"),
    **{
        key: (erlang_terms.encode(values(encode_lyapunov(CURVE)) | {Atom(key): b"1"}), why)
        for key, why in {
            "divergence_curve": "holds a divergence_curve that is not a list",
            "exponent": "a value in exponent that is not a number",
            "num_pairs": "no whole number under num_pairs",
            "num_timesteps": "no whole number under num_timesteps",
            "r_squared": "a value in r_squared that is not a number",
        }.items()
    },
}


@pytest.mark.parametrize(("blob", "why"), LYAPUNOV_WRONG.values(), ids=LYAPUNOV_WRONG)
def test_a_lyapunov_result_that_does_not_read_is_said_in_a_clause(blob: bytes, why: str) -> None:
    with pytest.raises(PayloadError, match=why):
        decode_lyapunov(blob)


def test_a_lyapunov_result_without_a_fit_comes_back() -> None:
    assert decode_lyapunov(encode_lyapunov(Lyapunov(0.0, None, np.zeros(3), 1, 3))).r_squared is None
    assert decode_lyapunov(encode_lyapunov(CURVE)).divergence_curve.tolist() == [1.0, 2.0, 4.5]


def test_every_schema_has_diagrams_that_read(tmp_path: Path) -> None:
    for schema in ("4", "7"):
        path = elixir_file(tmp_path, "--schema", schema)
        for (blob,) in rows(path, "SELECT diagram_data FROM persistence_diagrams"):
            assert isinstance(blob, bytes)
            assert problems(elixir_payload.decode(blob)) == []
