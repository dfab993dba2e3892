"""Values that the Elixir generation stores as Erlang terms.

A diagram is a map of the atoms `dgms` (a list of bars `[birth, death]` for each homology dimension), `entropy` and
`num_edges`. The provenance is under the binary `doctor_meta`, which can be read by an Erlang that creates no new atoms.
Numbers are float32 stored as doubles. Infinity, which Erlang does not have, is the atom `inf`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from pytest_panic_doctor.database import erlang_terms
from pytest_panic_doctor.database.erlang_terms import Atom, ErlangTermError, Term
from pytest_panic_doctor.topology.diagram import Bars, Diagram
from pytest_panic_doctor.topology.lyapunov import Lyapunov
from pytest_panic_doctor.topology.payload import (
    MAX_DIMENSIONS,
    META,
    Payload,
    PayloadError,
    Provenance,
    provenance_as_json,
    provenance_from_json,
)

DGMS, ENTROPY, NUM_EDGES = Atom("dgms"), Atom("entropy"), Atom("num_edges")
META_KEY = META.encode()
KNOWN_KEYS = {DGMS, ENTROPY, NUM_EDGES, META_KEY}

INF, NEGATIVE_INF, NAN, NIL = Atom("inf"), Atom("-inf"), Atom("nan"), Atom("nil")
FLOAT_ATOMS: Mapping[Atom, float] = {INF: math.inf, NEGATIVE_INF: -math.inf, NAN: math.nan}
"""Atoms that represent floats."""

LYAPUNOV_KEYS = ("divergence_curve", "exponent", "num_pairs", "num_timesteps", "r_squared")
SHOWN_NAME = 40
"""Characters of a key that are shown."""

MOST_COUNT = 2**53
"""Upper limit of a number of pairs or steps."""


def encode(diagram: Diagram, provenance: Provenance | None = None) -> bytes:
    """Write the payload of a diagram as the Elixir generation of the research tool does.

    Args:
        diagram: Its bars are written as float32 in their order, with their entropy.
        provenance: Written under the binary key `doctor_meta` as JSON; None for no such key.

    Returns:
        A compressed term. Equal arguments give equal bytes.
    """
    found: dict[Atom | bytes, Term] = {
        DGMS: [[[term_of(birth), term_of(death)] for birth, death in bars.tolist()] for bars in diagram.bars],
        ENTROPY: [term_of(each) for each in diagram.entropy.tolist()],
        NUM_EDGES: 0,
    }
    if provenance is not None:
        found[META_KEY] = provenance_as_json(provenance, diagram).encode()
    return erlang_terms.encode(found)


def decode(payload: bytes) -> Payload:
    """Read a diagram.

    Args:
        payload: As stored.

    Returns:
        The same value as from a `.npz` of the Python generation; `count` is the number of dimensions.

    Raises:
        PayloadError: The payload is damaged, larger than any diagram, or is not a map with a diagram's keys.
    """
    found = map_of(payload)
    if DGMS not in found:
        raise PayloadError("holds no diagram: there is no key dgms")
    edges = found.get(NUM_EDGES)
    if type(edges) is not int or edges < 0:
        raise PayloadError("holds no number under the key num_edges, which the research tool writes")
    dimensions = found[DGMS]
    if not isinstance(dimensions, list) or not dimensions:
        raise PayloadError("holds no diagram: dgms is not a list of homology dimensions")
    if len(dimensions) > MAX_DIMENSIONS:
        raise PayloadError(f"has {len(dimensions):,} homology dimensions, more than any diagram")
    bars = tuple(bars_of(each, f"H{dimension}") for dimension, each in enumerate(dimensions))
    meta = found.get(META_KEY)
    return Payload(
        Diagram(bars),
        len(bars),
        entropy_of(found[ENTROPY]) if ENTROPY in found else None,
        provenance_from_json(meta) if isinstance(meta, bytes) else None,
        {},
        META_KEY in found,
        # The research tool has always written 0 edges: its library returns no number.
        tuple(sorted([display_key(key) for key in found.keys() - KNOWN_KEYS] + [f"num_edges {edges:,}"] * (edges > 0))),
    )


def make_indexable(payload: bytes) -> bytes:
    """Return a payload as it is: the tool reads every diagram that `decode` reads."""
    return payload


def map_of(payload: bytes) -> Mapping[Atom | bytes, Term]:
    """Decode the map in a payload; raises `PayloadError`."""
    try:
        found = erlang_terms.decode(payload)
    except ErlangTermError as error:
        raise PayloadError(f"is damaged: {error}") from error
    if not isinstance(found, Mapping):
        raise PayloadError("holds another term than the map that the research tool writes")
    return found


def display_key(key: Atom | bytes) -> str:
    """A key, as text for a sentence."""
    name = key.name if isinstance(key, Atom) else key.decode(errors="replace")
    return name[:SHOWN_NAME] if name.isprintable() else ascii(name)[1 : 1 + SHOWN_NAME]


def bars_of(value: Term, name: str) -> Bars:
    """Convert a list of bars; raises `PayloadError`."""
    if not isinstance(value, list):
        raise PayloadError(f"holds no list of bars in {name}")
    pairs = [each if isinstance(each, list | tuple) and len(each) == 2 else None for each in value]
    if None in pairs:
        raise PayloadError(f"holds a bar in {name} that is not a birth and a death")
    return as_float32([number for pair in pairs if pair is not None for number in pair], name).reshape(-1, 2)


def entropy_of(value: Term) -> NDArray[np.float32]:
    """Convert the stored entropy; raises `PayloadError`."""
    if not isinstance(value, list):
        raise PayloadError("holds an entropy that is not a list")
    return as_float32(value, "entropy")


def as_float32(values: Sequence[Term], name: str) -> NDArray[np.float32]:
    """Convert numbers; those that are too large for a float32 become infinite. Raises `PayloadError`."""
    with np.errstate(over="ignore"):
        return np.array([float_of(each, name) for each in values], dtype=np.float64).astype(np.float32)


def float_of(value: Term, name: str) -> float:
    """Convert a number, or an atom for infinity or NaN, to a float; raises `PayloadError`."""
    if isinstance(value, float):
        return value
    if isinstance(value, Atom) and value in FLOAT_ATOMS:
        return FLOAT_ATOMS[value]
    if type(value) is int and abs(value) < MOST_COUNT:
        return float(value)
    raise PayloadError(f"holds a value in {name} that is not a number")


def term_of(value: float) -> Term:
    """Write a number as a float, or as an atom if it is infinite or NaN."""
    if math.isfinite(value):
        return value
    return NAN if math.isnan(value) else INF if value > 0 else NEGATIVE_INF


def encode_lyapunov(result: Lyapunov) -> bytes:
    """Write a Lyapunov result as the research tool writes `lyapunov_data`; equal results give equal bytes."""
    found: dict[Atom | bytes, Term] = {
        Atom("divergence_curve"): [term_of(each) for each in result.divergence_curve.tolist()],
        Atom("exponent"): term_of(result.exponent),
        Atom("num_pairs"): result.num_pairs,
        Atom("num_timesteps"): result.num_timesteps,
        Atom("r_squared"): NIL if result.r_squared is None else term_of(result.r_squared),
    }
    return erlang_terms.encode(found)


def decode_lyapunov(payload: bytes) -> Lyapunov:
    """Read a Lyapunov result without checking that its parts are consistent.

    Args:
        payload: As stored.

    Raises:
        PayloadError: The payload is damaged, or one of the five keys is missing or has a wrong type.
    """
    found = map_of(payload)
    if missing := [key for key in LYAPUNOV_KEYS if Atom(key) not in found]:
        raise PayloadError(f"lacks {', '.join(missing)}")
    curve, exponent, pairs, steps, fit = (found[Atom(key)] for key in LYAPUNOV_KEYS)
    if not isinstance(curve, list):
        raise PayloadError("holds a divergence_curve that is not a list")
    for key, value in (("num_pairs", pairs), ("num_timesteps", steps)):
        if type(value) is not int or not 0 <= value < MOST_COUNT:
            raise PayloadError(f"holds no whole number under {key}")
    return Lyapunov(
        float_of(exponent, "exponent"),
        None if fit == NIL else float_of(fit, "r_squared"),
        np.array([float_of(each, "divergence_curve") for each in curve], dtype=np.float64),
        int(str(pairs)),
        int(str(steps)),
    )
