"""Which journal belongs to which file, whatever the two are called and wherever they were moved, copied or restored."""

from __future__ import annotations

import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_panic_doctor.database.subject import Rows, Subject
from pytest_panic_doctor.repair import RepairLock, RepairRefused, Writer, preflight, recover, repairs, undo

if TYPE_CHECKING:
    from small_database import Dump, SmallDatabase

ORPHANS = Rows(
    "run", "SELECT id FROM run r WHERE NOT EXISTS (SELECT 1 FROM experimentconfig e WHERE e.id = r.experiment_id)"
)
DIAGRAM = f"{5:04x}{0:028x}"
IDS = {"experimentconfig": ("id",), "run": ("id", "experiment_id"), "invocation": ("id", "run_id")}


def operate(path: Path, value: bytes = b"recomputed") -> None:
    """A quarantine and an update."""
    with closing(Writer(path, "s", lambda: True)) as writer:
        writer.quarantine("orphan-run", Subject(), ORPHANS)
        values = {"diagram_data": value}
        writer.update("diagram-valid", Subject(), "persistencediagram", DIAGRAM, values, lambda _: True)


def other(small_database: SmallDatabase, path: Path) -> SmallDatabase:
    """A database of the same kind, whose ids are its own."""
    shutil.copy(small_database.path, path)
    made = type(small_database)(path)
    with closing(made.connect()) as db:
        for table, columns in IDS.items():
            for column in columns:
                db.execute(f"UPDATE {table} SET {column} = 'b' || substr({column}, 2)")
    return made


def all_refuse(small_database: SmallDatabase, sentence: str) -> None:
    """Nothing that would write goes on, and nothing is changed."""
    before = small_database.dump()
    for act in (
        lambda: preflight(small_database.path, 0),
        lambda: repairs(small_database.path),
        lambda: undo(small_database.path, "all"),
    ):
        with pytest.raises(RepairRefused, match=sentence):
            act()
    assert small_database.dump() == before


@pytest.fixture
def before(small_database: SmallDatabase) -> Dump:
    return small_database.dump()


def test_another_database_in_its_place(small_database: SmallDatabase, before: Dump, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere.sqlite"
    new = other(small_database, tmp_path / "new.sqlite")
    operate(small_database.path)
    small_database.path.rename(elsewhere)
    new.path.rename(small_database.path)
    all_refuse(small_database, r"journal .* is another database's: none of the experiments and runs .* move it away")
    with (
        closing(Writer(small_database.path, "s", lambda: True)) as writer,
        pytest.raises(RepairRefused, match="another data"),
    ):
        writer.quarantine("orphan-run", Subject(), ORPHANS)
    with pytest.raises(RepairRefused, match="another database's"):
        recover(small_database.path)
    elsewhere.rename(small_database.path)
    undo(small_database.path, "all")
    assert small_database.dump() == before


def test_another_text_encoding_is_another_database(small_database: SmallDatabase) -> None:
    operate(small_database.path)
    small_database.path.unlink()
    with closing(sqlite3.connect(small_database.path)) as db, db:
        db.execute("PRAGMA encoding = 'UTF-16le'")
        db.execute("CREATE TABLE run (id PRIMARY KEY)")
    with pytest.raises(RepairRefused, match="another database's"):
        undo(small_database.path, "all")


def test_a_database_that_has_grown_and_lost(small_database: SmallDatabase, before: Dump) -> None:
    """New experiments, old ones deleted, rowids renumbered: one run in common is enough."""
    operate(small_database.path)
    small_database.do("INSERT INTO experimentconfig VALUES ('new', '[]', '[]', '[]', '[]', 1, NULL, NULL)")
    small_database.do("INSERT INTO run VALUES ('new', '[]', 0, 1, 'p', 'new')")
    recover(small_database.path)
    for table in ("experimentconfig", "run"):
        small_database.do(f"DELETE FROM {table} WHERE id <> 'new'")
    small_database.do("VACUUM")
    undo(small_database.path, "all")
    assert set(before["embedding"]) == set(small_database.dump()["embedding"])


def test_all_runs_removed_by_the_repair_itself(small_database: SmallDatabase) -> None:
    small_database.do("DELETE FROM experimentconfig")
    before = small_database.dump()
    with closing(Writer(small_database.path, "s", lambda: True)) as writer:
        writer.quarantine("orphan-run", Subject(), ORPHANS)
    assert small_database.values("SELECT count(*) FROM run") == [0]
    undo(small_database.path, "all")
    assert small_database.dump() == before


SUFFIXES = (".db", "", ".sqlite3", ".SQLITE", ".x.sqlite")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_two_files_of_one_stem(small_database: SmallDatabase, before: Dump, suffix: str) -> None:
    """Each has its own journal and its own locks, also while the other is away."""
    second = other(small_database, small_database.path.with_name(f"trajectory_data{suffix}"))
    of_second = second.dump()
    with RepairLock(second.path), RepairLock(small_database.path):
        operate(small_database.path)
        operate(second.path)
    away = small_database.path.with_name("away")
    small_database.path.rename(away)
    undo(second.path, "all")
    away.rename(small_database.path)
    undo(small_database.path, "all")
    assert small_database.dump() == before
    assert second.dump() == of_second


def test_the_name_that_journals_had(small_database: SmallDatabase) -> None:
    """`a.db` had the journal `a.doctor.sqlite`."""
    path = small_database.path.with_suffix(".db")
    small_database.path.rename(path)
    small_database = type(small_database)(path)
    before = small_database.dump()
    operate(path)
    old = path.with_name("trajectory_data.doctor.sqlite")
    path.with_name("trajectory_data.doctor.db").rename(old)
    assert [each.id for each in repairs(path)] == [2, 1]
    namesake = other(small_database, path.with_suffix(".sqlite"))
    all_refuse(namesake, r"belongs to trajectory_data\.db, not to trajectory_data\.sqlite: rename it to .*doctor\.db")
    undo(path, "all")
    assert small_database.dump() == before
    assert not path.with_name("trajectory_data.doctor.db").exists()


def test_renamed_without_its_journal(small_database: SmallDatabase, before: Dump) -> None:
    operate(small_database.path)
    renamed = type(small_database)(small_database.path.rename(small_database.path.with_name("renamed.sqlite")))
    all_refuse(renamed, r"repaired under another name.*trajectory_data\.doctor\.sqlite: rename it to renamed\.doctor")
    stranger = other(renamed, small_database.path.with_name("stranger.sqlite"))
    assert repairs(stranger.path) == []
    assert preflight(stranger.path, 0) == []
    small_database.path.with_name("trajectory_data.doctor.sqlite").rename(
        small_database.path.with_name("renamed.doctor.sqlite")
    )
    undo(renamed.path, "all")
    assert renamed.dump() == before


def test_copied_with_its_journal(small_database: SmallDatabase, before: Dump, tmp_path: Path) -> None:
    """Into another folder, and beside it under another name: each goes its own way."""
    operate(small_database.path)
    now = small_database.dump()
    (tmp_path / "folder").mkdir()
    for name, place in ((small_database.path.name, tmp_path / "folder"), ("copy.sqlite", small_database.path.parent)):
        copy = type(small_database)(place / name)
        shutil.copy(small_database.path, copy.path)
        shutil.copy(
            small_database.path.with_name("trajectory_data.doctor.sqlite"), copy.path.with_suffix(".doctor.sqlite")
        )
        undo(copy.path, "all")
        assert copy.dump() == before
    assert small_database.dump() == now


def test_an_older_backup_restored(small_database: SmallDatabase, before: Dump) -> None:
    """The journal knows repairs that the file has nothing of; then it is repaired again, and all is taken back."""
    backup = small_database.path.read_bytes()
    operate(small_database.path)
    after = small_database.path.read_bytes()
    small_database.path.write_bytes(backup)
    with pytest.raises(RepairRefused, match=r"Repair 1 \(orphan-run\) is not in trajectory_data\.sqlite as it is now"):
        undo(small_database.path, 1)
    notes: list[str] = []
    assert undo(small_database.path, "all", note=notes.append) == []
    assert [note[:8] for note in notes] == ["Repair 2", "Repair 1"]
    assert small_database.dump() == before
    operate(small_database.path, b"again")
    done = undo(small_database.path, "all", note=notes.append)
    assert [each.undoes for each in done] == [4, 3]
    assert small_database.dump() == before
    small_database.path.write_bytes(after)
    assert [each.undoes for each in undo(small_database.path, "all")] == [2, 1]
    assert small_database.dump() == before


def test_a_backup_of_the_midst_of_it(small_database: SmallDatabase, before: Dump) -> None:
    """The file has the first repair and not the second."""
    with closing(Writer(small_database.path, "s", lambda: True)) as writer:
        writer.quarantine("orphan-run", Subject(), ORPHANS)
    middle = small_database.path.read_bytes()
    operate(small_database.path)
    small_database.path.write_bytes(middle)
    notes: list[str] = []
    assert [each.undoes for each in undo(small_database.path, "all", note=notes.append)] == [1]
    assert len(notes) == 1
    assert "Repair 2 (diagram-valid) is not in" in notes[0]
    assert small_database.dump() == before


def test_part_of_the_rows_put_back_by_hand(small_database: SmallDatabase, before: Dump) -> None:
    """What is as it was needs no undo; the rest comes back."""
    backup = small_database.path.with_name("backup")
    shutil.copy(small_database.path, backup)
    operate(small_database.path)
    with closing(small_database.connect()) as db:
        db.execute("ATTACH ? AS backup", (str(backup),))
        db.execute("INSERT INTO run SELECT * FROM backup.run WHERE id NOT IN (SELECT id FROM run)")
    [second, first] = undo(small_database.path, "all")
    assert (second.rows, first.rows) == (1, 19)
    assert {t: {data for _, data in rows} for t, rows in small_database.dump().items()} == {
        t: {data for _, data in rows} for t, rows in before.items()
    }


def test_a_later_repair_that_made_the_same_of_a_row(small_database: SmallDatabase, before: Dump) -> None:
    """Found by Hypothesis: the first could be undone alone, and then the second never more."""
    operate(small_database.path, b"same")
    operate(small_database.path, b"same")
    with pytest.raises(RepairRefused, match=r"Repair 3 depends on rows .* undo repair 3 first"):
        undo(small_database.path, 2)
    [back] = undo(small_database.path, 3)
    undo(small_database.path, back.id)
    with pytest.raises(RepairRefused, match="undo repair 3 first"):
        undo(small_database.path, 2)
    undo(small_database.path, "all")
    assert small_database.dump() == before


def test_a_refusal_never_names_an_undo_that_was_just_made(small_database: SmallDatabase) -> None:
    backup = small_database.path.read_bytes()
    operate(small_database.path)
    small_database.path.write_bytes(backup)
    operate(small_database.path)
    undo(small_database.path, 4)
    small_database.do("UPDATE persistencediagram SET completed_at = 'x' WHERE id = ?", DIAGRAM)
    with pytest.raises(RepairRefused, match=r"1 row of persistencediagram has changed .*: put it back as it was first"):
        undo(small_database.path, 2)


def test_hard_links_are_refused(small_database: SmallDatabase) -> None:
    alias = small_database.path.with_name("alias.sqlite")
    os.link(small_database.path, alias)
    before = small_database.dump()
    for path in (small_database.path, alias):
        with pytest.raises(RepairRefused, match=r"one of 2 hard links .* make it a copy of its own"):
            RepairLock(path).acquire()
        with pytest.raises(RepairRefused, match="one of 2 hard links"):
            undo(path, "all")
    assert small_database.dump() == before
    alias.unlink()
    with RepairLock(small_database.path):
        pass


@pytest.mark.parametrize("chain", [1, 2])
def test_symbolic_links_are_the_file(small_database: SmallDatabase, before: Dump, tmp_path: Path, chain: int) -> None:
    path = small_database.path
    for number in range(chain):
        link = tmp_path / f"link{number}.sqlite"
        link.symlink_to(path)
        path = link
    operate(path)
    assert [each.id for each in repairs(small_database.path)] == [2, 1]
    undo(path, "all")
    assert small_database.dump() == before
