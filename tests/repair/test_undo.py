"""Undo: the rows as they were, to the byte, and back again; refused where they have changed since."""

from __future__ import annotations

import shutil
import sqlite3
import struct
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_panic_doctor.database.subject import Rows, Subject
from pytest_panic_doctor.repair import Repair, RepairError, RepairRefused, Writer, repairs, undo

if TYPE_CHECKING:
    from small_database import Dump, SmallDatabase

DIAGRAM = f"{5:04x}{0:028x}"
ORPHAN = f"{2:04x}{3:028x}"
LAST_EMBEDDING = f"{4:04x}{30:028x}"
NEW: dict[str, int | float | str | bytes | None] = {
    "id": "f" * 32,
    "started_at": "2025-08-12 09:30:00.123456",
    "run_id": f"{2:04x}{1:028x}",
    "embedding_model": "NomicVision",
    "diagram_data": b"computed",
}


def remove_run(writer: Writer) -> Repair | None:
    return writer.quarantine("orphan-run", Subject(), Rows("run", "SELECT :id AS id", {"id": ORPHAN}))


def remove_embeddings(writer: Writer) -> Repair | None:
    return writer.quarantine(
        "embedding-type", Subject(), Rows("embedding", "SELECT id FROM embedding WHERE rowid % 3 = 0")
    )


def change(writer: Writer) -> Repair | None:
    values = {"diagram_data": b"recomputed", "completed_at": None}
    return writer.update("diagram-valid", Subject(), "persistencediagram", DIAGRAM, values, lambda _: True)


def add(writer: Writer) -> Repair | None:
    return writer.insert("diagram-missing", Subject(), "persistencediagram", NEW, lambda _: True)


KINDS = [remove_run, remove_embeddings, change, add]


@pytest.mark.parametrize("repair", KINDS)
def test_each_kind_alone(
    small_database: SmallDatabase, writer: Writer, repair: Callable[[Writer], Repair | None]
) -> None:
    before = small_database.dump()
    done = repair(writer)
    assert done is not None
    after = small_database.dump()
    assert after != before
    [taken_back] = undo(small_database.path, done.id)
    assert (taken_back.verb, taken_back.undoes, taken_back.rows) == ("undo", done.id, done.rows)
    assert small_database.dump() == before
    [again] = undo(small_database.path, taken_back.id)
    assert small_database.dump() == after
    assert {found.id: found.status for found in repairs(small_database.path)} == {
        done.id: "applied",
        taken_back.id: "undone",
        again.id: "applied",
    }
    undo(small_database.path, again.id)
    assert small_database.dump() == before


@pytest.mark.parametrize("journal_mode", ["delete", "wal"])
def test_all_together(make: Callable[..., SmallDatabase], tmp_path: Path, journal_mode: str) -> None:
    small_database = make(tmp_path / "t.sqlite", journal_mode=journal_mode)
    before = small_database.dump()
    with closing(Writer(small_database.path, "s", lambda: True)) as writer:
        for repair in KINDS:
            repair(writer)
    after = small_database.dump()
    undos = undo(small_database.path, "all")
    assert [each.undoes for each in undos] == [4, 3, 2, 1]
    assert small_database.dump() == before
    assert undo(small_database.path, "all") == []
    for each in reversed(undos):
        undo(small_database.path, each.id)
    assert small_database.dump() == after
    undo(small_database.path, "all")
    assert small_database.dump() == before


def test_in_any_order(small_database: SmallDatabase, writer: Writer) -> None:
    """Repairs of different rows: the oldest may go first, and rowids come back all the same."""
    before = small_database.dump()
    last = writer.quarantine(
        "diagram-model",
        Subject(),
        Rows("persistencediagram", "SELECT id FROM persistencediagram ORDER BY id DESC LIMIT 1"),
    )
    added = add(writer)
    assert last is not None
    assert added is not None
    undo(small_database.path, last.id)
    undo(small_database.path, added.id)
    assert small_database.dump() == before


def test_listing(small_database: SmallDatabase, writer: Writer) -> None:
    assert repairs(small_database.path) == []
    for repair in KINDS:
        repair(writer)
    found = repairs(small_database.path)
    assert [(each.id, each.rule, each.verb) for each in found] == [
        (4, "diagram-missing", "insert"),
        (3, "diagram-valid", "update"),
        (2, "embedding-type", "quarantine"),
        (1, "orphan-run", "quarantine"),
    ]
    assert [each.rows for each in found] == [1, 1, 8 + 14, 20]  # one of the 8 embeddings is a medoid


CHANGES: dict[str, tuple[Callable[[Writer], Repair | None], str, str, str]] = {
    "updated row": (
        change,
        "UPDATE persistencediagram SET completed_at = 'x' WHERE id = ?",
        DIAGRAM,
        "persistencediagram",
    ),
    "row gone": (change, "DELETE FROM persistencediagram WHERE id = ?", DIAGRAM, "persistencediagram"),
    "added row": (add, "UPDATE persistencediagram SET started_at = 'x' WHERE id = ?", "f" * 32, "persistencediagram"),
    "same bytes, other type": (
        change,
        "UPDATE persistencediagram SET diagram_data = CAST(diagram_data AS TEXT) WHERE id = ?",
        DIAGRAM,
        "persistencediagram",
    ),
    "removed row is back": (
        remove_embeddings,
        "INSERT INTO embedding VALUES (?, 't', NULL, 'other', 'Nomic', NULL)",
        LAST_EMBEDDING,
        "embedding",
    ),
}


@pytest.mark.parametrize("case", CHANGES)
def test_refused_after_a_change(small_database: SmallDatabase, writer: Writer, case: str) -> None:
    repair, sql, row, table = CHANGES[case]
    done = repair(writer)
    assert done is not None
    small_database.do(sql, row)
    now, known = small_database.dump(), repairs(small_database.path)
    with pytest.raises(
        RepairRefused, match=rf"^1 row of {table} has changed since the repair \({row}\): put it back as"
    ):
        undo(small_database.path, done.id)
    assert small_database.dump() == now
    assert repairs(small_database.path) == known


def test_refused_where_a_successor_took_the_place(small_database: SmallDatabase, writer: Writer) -> None:
    """An embedding was made anew for the same invocation: the old one has no place any more."""
    remove_embeddings(writer)
    small_database.do("INSERT INTO embedding VALUES ('new', 't', NULL, ?, 'Nomic', x'00')", f"{3:04x}{30:028x}")
    now = small_database.dump()
    with pytest.raises(
        RepairRefused, match=rf"other rows have the same invocation_id and embedding_model now \({LAST_EMBEDDING}\)"
    ):
        undo(small_database.path, 1)
    assert small_database.dump() == now


def test_newest_first_where_two_repairs_changed_a_row(small_database: SmallDatabase, writer: Writer) -> None:
    before = small_database.dump()
    change(writer)
    writer.quarantine("diagram-model", Subject(), Rows("persistencediagram", "SELECT :id AS id", {"id": DIAGRAM}))
    with pytest.raises(RepairRefused, match="undo repair 2 first"):
        undo(small_database.path, 1)
    undo(small_database.path, 2)
    undo(small_database.path, 1)
    assert small_database.dump() == before


def test_all_stops_at_what_has_changed(small_database: SmallDatabase, writer: Writer) -> None:
    change(writer)
    add(writer)
    small_database.do("UPDATE persistencediagram SET completed_at = 'x' WHERE id = ?", DIAGRAM)
    with pytest.raises(RepairRefused, match=r"has changed since .* Undone before that: 2"):
        undo(small_database.path, "all")
    assert [(each.id, each.status) for each in repairs(small_database.path)] == [
        (3, "applied"),
        (2, "undone"),
        (1, "applied"),
    ]


def test_taken_rowid(small_database: SmallDatabase, writer: Writer) -> None:
    """SQLite gives the rowid of a quarantined last row to the next new row; both must live after the undo."""
    before = small_database.dump()["embedding"]
    remove_embeddings(writer)
    small_database.do("INSERT INTO embedding VALUES ('new', 't', NULL, 'somewhere', 'Nomic', x'00')")
    assert small_database.values("SELECT rowid FROM embedding WHERE id = 'new'") == [30]
    [taken_back] = undo(small_database.path, 1)
    now = small_database.dump()["embedding"]
    assert {data for _, data in before} < {data for _, data in now}
    assert [row for row in now if row[0] < 30] == before[:-1]
    assert small_database.values("SELECT rowid FROM embedding WHERE id = ?", LAST_EMBEDDING) == [31]
    undo(small_database.path, taken_back.id)
    assert small_database.values("SELECT count(*) FROM embedding") == [21]
    undo(small_database.path, repairs(small_database.path)[0].id)
    assert small_database.values("SELECT count(*) FROM embedding") == [31]


def test_after_rowids_were_renumbered(small_database: SmallDatabase, writer: Writer) -> None:
    """As VACUUM may do, and as a dump and restore or a migration that copies a table does: a row is found by its id."""
    small_database.do("DELETE FROM persistencediagram WHERE rowid = 1")
    before, row = small_database.dump(), f"{5:04x}{2:028x}"
    writer.update("r", Subject(), "persistencediagram", row, {"diagram_data": b"recomputed"}, lambda _: True)
    for repair in (remove_run, remove_embeddings, add):
        repair(writer)
    writer.close()
    for sql in (
        "CREATE TABLE kept AS SELECT * FROM persistencediagram ORDER BY rowid",
        "DELETE FROM persistencediagram",
        "INSERT INTO persistencediagram SELECT * FROM kept",
        "DROP TABLE kept",
        "VACUUM",
    ):
        small_database.do(sql)
    assert small_database.values("SELECT rowid FROM persistencediagram WHERE id = ?", row) == [2]
    assert len(undo(small_database.path, "all")) == 4
    assert {t: {data for _, data in rows} for t, rows in small_database.dump().items()} == {
        t: {data for _, data in rows} for t, rows in before.items()
    }


def test_other_schema_is_refused(small_database: SmallDatabase, writer: Writer) -> None:
    remove_embeddings(writer)
    small_database.do("ALTER TABLE embedding ADD COLUMN colour")
    with pytest.raises(RepairRefused, match="Table embedding has other columns"):
        undo(small_database.path, 1)


@pytest.mark.parametrize(
    ("which", "sentence"),
    [
        (7, "no repair 7"),
        ("seven", "give an id, a range such as 3-9"),
        (1, "undone already"),
        (2, "There is no repair 2"),
        (10**20, "There is no repair 10"),
    ],
)
def test_what_cannot_be_undone(small_database: SmallDatabase, writer: Writer, which: int | str, sentence: str) -> None:
    if which in (1, 10**20):  # the others without a journal
        add(writer)
        undo(small_database.path, 1)
    before = small_database.dump()
    with pytest.raises(RepairRefused, match=sentence):
        undo(small_database.path, which)
    assert small_database.dump() == before


def test_conflict_clauses_of_the_schema_do_nothing(small_database: SmallDatabase, writer: Writer) -> None:
    """A constraint ON CONFLICT REPLACE would delete another row on an insert, without a before-image."""
    small_database.do("CREATE TABLE greedy (id TEXT PRIMARY KEY, name UNIQUE ON CONFLICT REPLACE)")
    small_database.do("INSERT INTO greedy VALUES ('a', 'x')")
    with pytest.raises(RepairError, match="UNIQUE constraint failed"):
        writer.insert("r", Subject(), "greedy", {"id": "b", "name": "x"}, lambda _: True)
    assert small_database.values("SELECT id FROM greedy") == ["a"]


# --- properties

TEXT = st.text(max_size=12) | st.just("embedded\0zero") | st.just("é\u2028𝄞")
VALUE = (
    st.none()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False)
    | TEXT
    | st.binary(max_size=40)
    | st.sampled_from([b"\xff\xfe", b"", -0.0, float("inf"), 2**53 + 1, 1e300, b"x" * 20_000])
)
CELL = st.tuples(VALUE, st.booleans())
"""A value, and whether bytes go in as TEXT that may be no valid UTF-8."""
AFFINITIES = ("", "INTEGER", "REAL", "NUMERIC", "TEXT", "BLOB", "DATETIME", "JSON", "VARCHAR")


def odd_table(db: sqlite3.Connection, rows: list[list[tuple[object, bool]]]) -> None:
    columns = ", ".join(f"c{number} {kind}" for number, kind in enumerate(AFFINITIES))
    db.execute(f"CREATE TABLE odd (id CHAR(32) NOT NULL PRIMARY KEY, {columns})")
    for number, row in enumerate(rows):
        marks = ", ".join("CAST(? AS TEXT)" if as_text and isinstance(value, bytes) else "?" for value, as_text in row)
        db.execute(f"INSERT INTO odd VALUES ('{number}', {marks})", [value for value, _ in row])


def exact(db: sqlite3.Connection) -> list[tuple[object, ...]]:
    """Independent of the code under test: quote() of integers and text, IEEE bytes of reals, hex of all bytes."""
    columns = ", ".join(f"typeof(c{n}), hex(c{n}), c{n} IS NULL" for n in range(len(AFFINITIES)))
    reals = ", ".join(f"CASE typeof(c{n}) WHEN 'real' THEN c{n} END" for n in range(len(AFFINITIES)))
    found = db.execute(f"SELECT rowid, id, {columns}, {reals} FROM odd ORDER BY rowid").fetchall()
    return [tuple(struct.pack("<d", v) if isinstance(v, float) else v for v in row) for row in found]


@settings(max_examples=30)
@given(rows=st.lists(st.lists(CELL, min_size=len(AFFINITIES), max_size=len(AFFINITIES)), min_size=1, max_size=4))
@pytest.mark.parametrize("encoding", ["UTF-8", "UTF-16le"])
def test_every_value_comes_back(rows: list[list[tuple[object, bool]]], encoding: str) -> None:
    """Whatever a row holds, in columns of every affinity, is the same after an update, a quarantine and their undo."""
    with TemporaryDirectory() as place:
        path = Path(place) / "odd.sqlite"
        with closing(sqlite3.connect(path, isolation_level=None)) as db:
            db.execute(f"PRAGMA encoding = '{encoding}'")
            odd_table(db, rows)
            before = exact(db)
            with closing(Writer(path, "s", lambda: True)) as writer:
                writer.update(
                    "r", Subject(), "odd", "0", {f"c{n}": None for n in range(len(AFFINITIES))}, lambda _: True
                )
                writer.quarantine("r", Subject(), Rows("odd", "SELECT id FROM odd"))
            assert exact(db) == []
            undo(path, "all")
            assert exact(db) == before


STEP = st.one_of(
    st.tuples(
        st.just("remove"), st.sampled_from(["run", "invocation", "embedding", "persistencediagram"]), st.integers(2, 9)
    ),
    st.tuples(st.just("change"), st.integers(0, 3), st.binary(max_size=8)),
    st.tuples(st.just("add"), st.integers(0, 3), st.integers(0, 9)),
    st.tuples(st.just("undo"), st.integers(0, 5), st.none()),
)


def perform(path: Path, writer: Writer, step: tuple[str, object, object]) -> None:
    kind, what, how = step
    if kind == "remove":
        writer.quarantine("r", Subject(), Rows(str(what), f"SELECT id FROM {what} WHERE rowid % {how} = 1"))
    elif kind == "change":
        row, values = f"{5:04x}{what:028x}", {"diagram_data": how}
        writer.update("r", Subject(), "persistencediagram", row, values, lambda _: True)  # type: ignore[arg-type]
    elif kind == "add":
        row = f"{9:04x}{how:028x}"
        writer.insert(
            "r",
            Subject(),
            "persistencediagram",
            NEW | {"id": row},
            lambda db: not db.execute("SELECT 1 FROM persistencediagram WHERE id = ?", (row,)).fetchone(),
        )
    else:
        known = [repair for repair in repairs(path) if repair.status == "applied"]
        if known:
            undo(path, known[int(str(what)) % len(known)].id)


@settings(max_examples=25)
@given(steps=st.lists(STEP, min_size=1, max_size=7))
def test_any_sequence_of_repairs_and_undos(
    template: Path, at: Callable[[Path], SmallDatabase], steps: list[tuple[str, object, object]]
) -> None:
    """A refused undo changes nothing, and at the end undoing all that is applied leads back to the start."""
    with TemporaryDirectory() as place:
        small_database = at(Path(place) / template.name)
        shutil.copy(template, small_database.path)
        before = small_database.dump()
        with closing(Writer(small_database.path, "s", lambda: True)) as writer:
            for step in steps:
                now = small_database.dump()
                try:
                    perform(small_database.path, writer, step)
                except RepairRefused:
                    assert small_database.dump() == now
        small_database.check_nothing_lost(before)
        undo(small_database.path, "all")
        assert small_database.dump() == before


def test_dump_sees_types(small_database: SmallDatabase) -> None:
    """The comparison that these tests stand on tells 1 from 1.0 and from '1', and a blob from the same text."""
    small_database.do("CREATE TABLE odd (id, value)")
    seen: list[Dump] = []
    for value in (1, 1.0, "1", b"1", None, -0.0, 0.0):
        small_database.do("DELETE FROM odd")
        small_database.do("INSERT INTO odd VALUES ('a', ?)", value)
        assert small_database.dump() not in seen
        seen.append(small_database.dump())
