"""A file is whole, or as it was before."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_panic_doctor.store.whole import as_file_name, whole


def test_it_takes_the_place_of_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text("before")
    with whole(path) as partial:
        partial.write_text("after")
        assert path.read_text() == "before"
    assert path.read_text() == "after"
    assert list(tmp_path.iterdir()) == [path]


def test_what_fails_leaves_no_part_behind(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text("before")

    def fail() -> None:
        with whole(path) as partial:
            partial.write_text("half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", ["Nomic", "a/../b", "模型" * 100, "a\0b", "x" * 300, ".", "*?["])
def test_any_name_can_be_part_of_a_file_name(tmp_path: Path, name: str) -> None:
    path = tmp_path / f"{as_file_name(name)}-{as_file_name(name)}.json"
    path.touch()
    assert list(tmp_path.glob(f"{as_file_name(name)}-*.json")) == [path]
    assert as_file_name(name) != as_file_name(name + "x")
