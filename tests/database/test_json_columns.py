"""JSON columns as Python values."""

from __future__ import annotations

import pytest

from pytest_panic_doctor.database.json_columns import load_json


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (r'["No\ud800mic"]', ["No\ufffdmic"]),
        (r'{"\udfff": 1}', {"\ufffd": 1}),
        (r'["\ud83d\ude00"]', ["\U0001f600"]),
        (b'["a"]', ["a"]),
        (b'["\xff"]', None),
        ("[" * 100_000, None),
        (7, None),
    ],
    ids=["half", "half in a key", "pair", "bytes", "not UTF-8", "deep", "number"],
)
def test_what_is_loaded_can_be_written_anywhere(text: object, value: object) -> None:
    assert load_json(text) == value
