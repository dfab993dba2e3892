"""What the processes of a session share: documents and locks."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_panic_doctor.database.shared_folder import SharedFolder
from pytest_panic_doctor.errors import Stopped


@pytest.fixture
def shared(tmp_path: Path) -> SharedFolder:
    return SharedFolder(tmp_path / "shared")


def test_a_document_is_read_as_it_was_written_last(shared: SharedFolder) -> None:
    assert shared.read("a/b") is None
    for number in (1, 2):
        shared.write("a/b", {"number": number})
    assert shared.read("a/b") == {"number": 2}
    assert shared.exists("a/b")
    shared.remove("a/b")
    shared.remove("a/b")
    assert not shared.exists("a/b")


def test_documents_are_found_by_name_and_taken_once_the_oldest_first(shared: SharedFolder) -> None:
    for name in ("b", "a", "c"):
        shared.write(f"requests/{name}", {"name": name})
    assert [each["name"] for each in shared.find("requests/*")] == ["a", "b", "c"]
    assert [each["name"] for each in shared.take("requests/*")] == ["b", "a", "c"]
    assert shared.take("requests/*") == []


def test_a_lock_is_held_by_one_and_not_waited_for_in_a_session_that_has_ended(shared: SharedFolder) -> None:
    ended = SharedFolder(shared.folder, lambda: False)
    with shared.lock("the same/name"):
        with pytest.raises(TimeoutError), shared.lock("the same/name", wait=False):
            pass
        with pytest.raises(Stopped), ended.lock("the same/name"):
            pass
        with shared.lock("another"):
            pass
    with ended.lock("the same/name", wait=False):
        pass
