"""A row that does not fit into the memory is refused by name: neither quarantined, nor replaced, nor put back."""

from __future__ import annotations

from pathlib import Path

import pytest
from databases import Built, build, dump, uid

from pytest_panic_doctor.database.memory_room import MemoryRoom
from pytest_panic_doctor.database.subject import Rows, Subject
from pytest_panic_doctor.repair.journal.errors import RepairRefused
from pytest_panic_doctor.repair.journal.reading import read_repairs
from pytest_panic_doctor.repair.journal.undo import undo
from pytest_panic_doctor.repair.journal.writer import Writer

ROOM = MemoryRoom(40_000_000, 300_000_000, given=True)
"""Room for a row of 10 MB."""

LARGE = 12_000_000
SAID = "is 12 MB, and --doctor-memory leaves 10 MB for it: give --doctor-memory 1GB"


@pytest.fixture
def built(tmp_path: Path) -> Built:
    return build(tmp_path / "x.sqlite")


def orphan(built: Built, size: int = LARGE) -> Rows:
    """An invocation with a large image, of a run that does not exist, and small ones before and after it."""
    with built.open() as db:
        for number in range(3):
            db.execute(
                "INSERT INTO invocation SELECT ?, started_at, completed_at, model, type, seed, ?, 0, NULL, NULL, "
                "zeroblob(?) FROM invocation WHERE id = ?",
                (uid(8, number), "e" * 32, size if number == 1 else 10, uid(3, 0)),
            )
    return Rows("invocation", "SELECT id FROM invocation WHERE run_id = 'eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee'")


def test_a_large_row_is_not_quarantined(built: Built) -> None:
    rows = orphan(built)
    before = dump(built.path)
    writer = Writer(built.path, "s", lambda: True, space=ROOM)
    with pytest.raises(RepairRefused, match=f"The row {uid(8, 1)} of invocation {SAID}"):
        writer.quarantine("orphan-invocation", Subject(), rows)
    writer.close()
    assert dump(built.path) == before


def test_what_hangs_on_a_row_is_weighed_too(built: Built) -> None:
    with built.open() as db:
        db.execute("UPDATE embedding SET vector = zeroblob(?) WHERE id = ?", (LARGE, uid(4, 3)))
    before = dump(built.path)
    writer = Writer(built.path, "s", lambda: True, space=ROOM)
    with pytest.raises(RepairRefused, match=f"The row {uid(4, 3)} of embedding {SAID}"):
        writer.quarantine("x", Subject(), Rows("invocation", f"SELECT id FROM invocation WHERE id = '{uid(3, 3)}'"))
    writer.close()
    assert dump(built.path) == before


def test_a_large_diagram_is_not_replaced(built: Built) -> None:
    with built.open() as db:
        db.execute("UPDATE persistencediagram SET diagram_data = zeroblob(?) WHERE id = ?", (LARGE, uid(5, 0)))
    before = dump(built.path)
    writer = Writer(built.path, "s", lambda: True, space=ROOM)
    with pytest.raises(RepairRefused, match=f"The row {uid(5, 0)} of persistencediagram {SAID}"):
        writer.update(
            "diagram-valid", Subject(), "persistencediagram", uid(5, 0), {"diagram_data": b"x"}, lambda _: True
        )
    writer.close()
    assert dump(built.path) == before


def test_a_large_row_is_not_put_back_and_stays_in_the_journal(built: Built) -> None:
    rows = orphan(built)
    before = dump(built.path)
    writer = Writer(built.path, "s", lambda: True)
    writer.quarantine("orphan-invocation", Subject(), rows)
    writer.close()
    gone = dump(built.path)
    with pytest.raises(RepairRefused, match=f"The row {uid(8, 1)} of invocation {SAID}"):
        undo(built.path, "all", space=ROOM)
    assert dump(built.path) == gone
    assert [each.status for each in read_repairs(built.path, "1")] == ["applied"]
    undo(built.path, "all")
    assert dump(built.path) == before


def test_many_small_rows_are_no_large_one(built: Built) -> None:
    with built.open() as db:
        db.execute("UPDATE invocation SET output_image_data = zeroblob(2000000) WHERE type = 'IMAGE'")
    writer = Writer(built.path, "s", lambda: True, space=ROOM)
    done = writer.quarantine("x", Subject(), Rows("invocation", "SELECT id FROM invocation"))
    writer.close()
    assert done is not None
    assert done.bytes > 20_000_000
