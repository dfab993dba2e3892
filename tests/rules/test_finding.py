"""What a finding says of its repair."""

from __future__ import annotations

from pytest_panic_doctor.database.subject import Rows
from pytest_panic_doctor.repair.targets import NO_ROWS, not_repairable_reason
from pytest_panic_doctor.rules.base import Finding

FOUND = Finding(
    "r", "2 rows are wrong", table="run", ids=("a", "b"), count=2, rows=Rows("run", "SELECT id FROM run", {})
)


def test_a_reason_against_a_repair_is_a_field_and_ends_the_message() -> None:
    kept = FOUND.without_repair("they are needed")
    assert (kept.message, kept.rows) == ("2 rows are wrong; not repaired: they are needed", None)
    assert kept.not_repaired == "they are needed"
    assert Finding.from_dict(kept.as_dict()) == kept
    assert not_repairable_reason([kept, FOUND]) == "they are needed"


def test_without_a_reason_it_stays_as_it_is() -> None:
    assert FOUND.without_repair("") is FOUND
    assert "not_repaired" not in FOUND.as_dict()
    assert not_repairable_reason([FOUND]) == NO_ROWS
