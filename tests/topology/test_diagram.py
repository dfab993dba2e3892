"""The value of a diagram: its order and its entropy."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_panic_doctor.topology.diagram import Bars, Diagram, sorted_bars

LENGTHS = st.floats(0, 1000, width=32)


@st.composite
def bars(draw: st.DrawFn, essential: int = 0) -> Bars:
    """Any bars that satisfy the invariants of a diagram."""
    pairs = draw(st.lists(st.tuples(LENGTHS, LENGTHS), max_size=20))
    rows = [sorted(pair) for pair in pairs] if not essential else [[0, max(pair)] for pair in pairs]
    return sorted_bars(rows + [[0, math.inf]] * essential)


@given(bars(essential=1), bars(), bars())
def test_entropy_is_that_of_persim(first: Bars, second: Bars, third: Bars) -> None:
    persistent_entropy = pytest.importorskip("persim.persistent_entropy").persistent_entropy
    lasting = [each[each[:, 0] < each[:, 1]] for each in (first, second, third)]
    found = Diagram((first, second, third)).entropy
    assert found.dtype == np.float32
    for mine, each in zip(found, lasting, strict=True):
        finite = each[np.isfinite(each[:, 1])].astype(np.float64)
        wanted = persistent_entropy(finite, normalize=False)[0] if len(finite) else 0
        assert mine == pytest.approx(wanted, abs=1e-5)


def test_known_entropies() -> None:
    equal = sorted_bars([[0, 1], [0, 1], [1, 2], [2, 3]])
    one = sorted_bars([[0, 5], [0, math.inf]])
    found = Diagram((one, equal, sorted_bars([]))).entropy
    assert found.tolist() == [0, pytest.approx(math.log(4)), 0]


@given(bars(), st.randoms())
def test_the_order_of_bars_says_nothing(each: Bars, random: object) -> None:
    shuffled = each.tolist()
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert sorted_bars(shuffled).tobytes() == each.tobytes()


def test_bars_are_ordered_by_birth_then_death() -> None:
    found = sorted_bars(np.array([[1, 2], [0, math.inf], [0, 3], [1, 1.5]], np.float64))
    assert found.dtype == np.float32
    assert found.tolist() == [[0, 3], [0, math.inf], [1, 1.5], [1, 2]]
    assert sorted_bars([]).shape == (0, 2)
