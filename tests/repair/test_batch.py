"""Several changes in one transaction: each is a repair of its own, and all are there or none."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING

import pytest
from batches import ADDED, SECOND_DIAGRAM, batch

from pytest_panic_doctor.database.subject import Subject
from pytest_panic_doctor.repair import RepairFailed, RepairRefused, Writer, repairs, undo
from pytest_panic_doctor.repair.journal import writer
from pytest_panic_doctor.repair.journal.selection import TARGET
from pytest_panic_doctor.repair.journal.writer import Change

if TYPE_CHECKING:
    from small_database import SmallDatabase


@pytest.fixture(autouse=True)
def patient_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """A transaction may take long: how many a batch has is no matter of how busy the machine is."""
    monkeypatch.setattr(writer, "TARGET", 60.0)


def committing(small_database: SmallDatabase, seen: list[int]) -> type[sqlite3.Connection]:
    """A connection class that counts the added diagrams which others see after each commit that changes them."""

    class Counting(sqlite3.Connection):
        def execute(self, sql: str, parameters: object = (), /) -> sqlite3.Cursor:
            result = super().execute(sql, parameters)  # type: ignore[arg-type]
            if sql == "COMMIT":
                there = len(
                    small_database.values("SELECT 1 FROM persistencediagram WHERE embedding_model LIKE 'Model %'")
                )
                if there != (seen[-1] if seen else 0):
                    seen.append(there)
            return result

    return Counting


def written(small_database: SmallDatabase, changes: list[Change]) -> tuple[list[bool], list[int]]:
    """Whether each change was made, and how many added diagrams there were after each transaction."""
    seen: list[int] = []
    with closing(Writer(small_database.path, "s", lambda: True, connection=committing(small_database, seen))) as made:
        return [repair is not None for repair in made.write(changes)], seen


def test_one_transaction_and_a_repair_each(small_database: SmallDatabase) -> None:
    made, seen = written(small_database, batch())
    assert made == [True] * 4
    assert seen == [3]
    found = repairs(small_database.path)
    assert [(each.id, each.verb, each.rows, each.status) for each in found] == [
        (4, "insert", 1, "applied"),
        (3, "insert", 1, "applied"),
        (2, "update", 1, "applied"),
        (1, "insert", 1, "applied"),
    ]


def test_each_is_undone_by_its_id_and_all_together(small_database: SmallDatabase) -> None:
    before = small_database.dump()
    written(small_database, batch())
    undo(small_database.path, "3")
    left = {str(row["id"]) for row in ADDED} & set(small_database.values("SELECT id FROM persistencediagram"))
    assert left == {"b" * 32, "d" * 32}
    undo(small_database.path, "2")
    assert small_database.values("SELECT diagram_data FROM persistencediagram WHERE id = ?", SECOND_DIAGRAM) != [
        b"recomputed too"
    ]
    undo(small_database.path, "all")
    assert small_database.dump() == before


def test_who_is_not_allowed_is_left_out(small_database: SmallDatabase) -> None:
    changes = batch()
    for place in (0, 2):
        changes[place] = changed(changes[place], guard=lambda _: False)
    made, seen = written(small_database, changes)
    assert made == [False, True, False, True]
    assert seen == [1]
    assert len(repairs(small_database.path)) == 2


def test_a_guard_is_asked_within_the_transaction(small_database: SmallDatabase) -> None:
    """Each sees what those before it wrote, and cannot write itself."""

    def guard(db: sqlite3.Connection) -> bool:
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            db.execute("DELETE FROM persistencediagram")
        there.append(db.execute("SELECT count(*) FROM persistencediagram WHERE id = ?", ("b" * 32,)).fetchone()[0])
        return db.in_transaction

    there: list[int] = []
    made, _ = written(small_database, [changed(each, guard=guard) for each in batch()])
    assert made == [True] * 4
    assert there == [0, 1, 1, 1]


def test_what_is_refused_of_the_others_is_left_to_them(small_database: SmallDatabase) -> None:
    changes = batch()
    changes[2] = changed(changes[2], values={"no_such_column": 1, "id": "x"})
    made, _ = written(small_database, changes)
    assert made == [True, True, False, True]


def test_nothing_is_written_where_the_first_is_refused(small_database: SmallDatabase) -> None:
    before, changes = small_database.dump(), batch()
    changes[0] = changed(changes[0], values={"no_such_column": 1, "id": "x"})
    with pytest.raises(RepairRefused, match="has no column no_such_column"):
        written(small_database, changes)
    assert small_database.dump() == before
    assert repairs(small_database.path) == []


def test_nothing_is_written_where_the_transaction_fails(small_database: SmallDatabase) -> None:
    """The third has the id of the first: SQLite refuses it, and with it all of them."""
    before, changes = small_database.dump(), batch()
    changes[2] = changed(changes[2], values=changes[0].values, guard=lambda _: True)
    with pytest.raises(RepairFailed, match="UNIQUE constraint failed"):
        written(small_database, changes)
    assert small_database.dump() == before
    assert {each.status for each in repairs(small_database.path)} <= {"abandoned"}


def test_other_programs_wait_for_no_more_than_one_that_is_slow(
    small_database: SmallDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "TARGET", TARGET)

    def slow(guard: Callable[[sqlite3.Connection], bool], db: sqlite3.Connection) -> bool:
        time.sleep(1.1 * TARGET)
        return guard(db)

    made, seen = written(small_database, [changed(each, guard=partial(slow, each.guard)) for each in batch()])
    assert made == [True] * 4
    assert seen == [1, 2, 3]


def changed(change: Change, **parts: object) -> Change:
    """The same with other parts."""
    plain: dict[str, object] = {name: getattr(change, name) for name in Change.__slots__}
    return Change(**{**plain, **parts})  # type: ignore[arg-type]


def test_a_subject_is_found_whoever_repaired_it(small_database: SmallDatabase) -> None:
    """Also what another process wrote after the first question; a part of a subject that is None means any."""
    subjects = [Subject("e", str(number), "m") for number in range(3)]
    changes = [changed(each, subject=subject) for each, subject in zip(batch(), subjects, strict=False)]
    with (
        closing(Writer(small_database.path, "s", lambda: True)) as asking,
        closing(Writer(small_database.path, "s", lambda: True)) as writing,
        closing(Writer(small_database.path, "other", lambda: True)) as other,
    ):
        assert asking.repaired("diagram-missing", subjects[0]) == []
        writing.write(changes[:1])
        assert [each.id for each in asking.repaired("diagram-missing", subjects[0])] == [1]
        assert asking.repaired("diagram-missing", subjects[2]) == []
        other.write(changes[1:2])
        writing.write(changes[2:])
        assert asking.repaired("diagram-valid", subjects[1]) == []
        assert [each.id for each in asking.repaired("diagram-missing", subjects[2])] == [3]
        assert [each.id for each in asking.repaired("diagram-missing", Subject("e"))] == [3, 1]
