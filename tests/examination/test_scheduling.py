"""The order in which diagrams are best begun."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pytest_panic_doctor.database.subject import DiagramTarget
from pytest_panic_doctor.examination.scheduling import distribute

PAIRS = [DiagramTarget(f"run{number}", model) for number in range(12) for model in ("A", "B")]


@given(
    st.lists(st.sampled_from(PAIRS), unique=True),
    st.integers(0, 50),
    st.integers(1, 5),
    st.integers(1, 8),
)
def test_every_pair_comes_once(first: list[DiagramTarget], before: int, each: int, workers: int) -> None:
    assert sorted(distribute(PAIRS, first, before, each, workers)) == sorted(PAIRS)


def test_each_worker_begins_with_its_largest() -> None:
    first = PAIRS[-4:]
    order = distribute(PAIRS, first, 0, 4, 2)
    half = len(order) // 2
    assert order[:2] == [first[0], first[2]]
    assert order[half : half + 2] == [first[1], first[3]]
