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
from pytest_panic_doctor.repair import DoctorLock, RepairRefused, Writer, preflight, repairs, settle, undo

if TYPE_CHECKING:
    from small_database import Dump, Patient

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


def other(patient: Patient, path: Path) -> Patient:
    """A database of the same kind, whose ids are its own."""
    shutil.copy(patient.path, path)
    made = type(patient)(path)
    with closing(made.connect()) as db:
        for table, columns in IDS.items():
            for column in columns:
                db.execute(f"UPDATE {table} SET {column} = 'b' || substr({column}, 2)")
    return made


def all_refuse(patient: Patient, sentence: str) -> None:
    """Nothing that would write goes on, and nothing is changed."""
    before = patient.dump()
    for act in (lambda: preflight(patient.path, 0), lambda: repairs(patient.path), lambda: undo(patient.path, "all")):
        with pytest.raises(RepairRefused, match=sentence):
            act()
    assert patient.dump() == before


@pytest.fixture
def before(patient: Patient) -> Dump:
    return patient.dump()


def test_another_database_in_its_place(patient: Patient, before: Dump, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere.sqlite"
    new = other(patient, tmp_path / "new.sqlite")
    operate(patient.path)
    patient.path.rename(elsewhere)
    new.path.rename(patient.path)
    all_refuse(patient, r"journal .* is another database's: none of the experiments and runs .* move it away")
    with closing(Writer(patient.path, "s", lambda: True)) as writer, pytest.raises(RepairRefused, match="another data"):
        writer.quarantine("orphan-run", Subject(), ORPHANS)
    with pytest.raises(RepairRefused, match="another database's"):
        settle(patient.path)
    elsewhere.rename(patient.path)
    undo(patient.path, "all")
    assert patient.dump() == before


def test_another_text_encoding_is_another_database(patient: Patient) -> None:
    operate(patient.path)
    patient.path.unlink()
    with closing(sqlite3.connect(patient.path)) as db, db:
        db.execute("PRAGMA encoding = 'UTF-16le'")
        db.execute("CREATE TABLE run (id PRIMARY KEY)")
    with pytest.raises(RepairRefused, match="another database's"):
        undo(patient.path, "all")


def test_a_database_that_has_grown_and_lost(patient: Patient, before: Dump) -> None:
    """New experiments, old ones deleted, rowids renumbered: one run in common is enough."""
    operate(patient.path)
    patient.do("INSERT INTO experimentconfig VALUES ('new', '[]', '[]', '[]', '[]', 1, NULL, NULL)")
    patient.do("INSERT INTO run VALUES ('new', '[]', 0, 1, 'p', 'new')")
    settle(patient.path)
    for table in ("experimentconfig", "run"):
        patient.do(f"DELETE FROM {table} WHERE id <> 'new'")
    patient.do("VACUUM")
    undo(patient.path, "all")
    assert set(before["embedding"]) == set(patient.dump()["embedding"])


def test_all_runs_removed_by_the_repair_itself(patient: Patient) -> None:
    patient.do("DELETE FROM experimentconfig")
    before = patient.dump()
    with closing(Writer(patient.path, "s", lambda: True)) as writer:
        writer.quarantine("orphan-run", Subject(), ORPHANS)
    assert patient.values("SELECT count(*) FROM run") == [0]
    undo(patient.path, "all")
    assert patient.dump() == before


SUFFIXES = (".db", "", ".sqlite3", ".SQLITE", ".x.sqlite")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_two_files_of_one_stem(patient: Patient, before: Dump, suffix: str) -> None:
    """Each has its own journal and its own locks, also while the other is away."""
    second = other(patient, patient.path.with_name(f"trajectory_data{suffix}"))
    of_second = second.dump()
    with DoctorLock(second.path), DoctorLock(patient.path):
        operate(patient.path)
        operate(second.path)
    away = patient.path.with_name("away")
    patient.path.rename(away)
    undo(second.path, "all")
    away.rename(patient.path)
    undo(patient.path, "all")
    assert patient.dump() == before
    assert second.dump() == of_second


def test_the_name_that_journals_had(patient: Patient) -> None:
    """`a.db` had the journal `a.doctor.sqlite`."""
    path = patient.path.with_suffix(".db")
    patient.path.rename(path)
    patient = type(patient)(path)
    before = patient.dump()
    operate(path)
    old = path.with_name("trajectory_data.doctor.sqlite")
    path.with_name("trajectory_data.doctor.db").rename(old)
    assert [each.id for each in repairs(path)] == [2, 1]
    namesake = other(patient, path.with_suffix(".sqlite"))
    all_refuse(namesake, r"belongs to trajectory_data\.db, not to trajectory_data\.sqlite: rename it to .*doctor\.db")
    undo(path, "all")
    assert patient.dump() == before
    assert not path.with_name("trajectory_data.doctor.db").exists()


def test_renamed_without_its_journal(patient: Patient, before: Dump) -> None:
    operate(patient.path)
    renamed = type(patient)(patient.path.rename(patient.path.with_name("renamed.sqlite")))
    all_refuse(renamed, r"repaired under another name.*trajectory_data\.doctor\.sqlite: rename it to renamed\.doctor")
    stranger = other(renamed, patient.path.with_name("stranger.sqlite"))
    assert repairs(stranger.path) == []
    assert preflight(stranger.path, 0) == []
    patient.path.with_name("trajectory_data.doctor.sqlite").rename(patient.path.with_name("renamed.doctor.sqlite"))
    undo(renamed.path, "all")
    assert renamed.dump() == before


def test_copied_with_its_journal(patient: Patient, before: Dump, tmp_path: Path) -> None:
    """Into another folder, and beside it under another name: each goes its own way."""
    operate(patient.path)
    now = patient.dump()
    (tmp_path / "folder").mkdir()
    for name, place in ((patient.path.name, tmp_path / "folder"), ("copy.sqlite", patient.path.parent)):
        copy = type(patient)(place / name)
        shutil.copy(patient.path, copy.path)
        shutil.copy(patient.path.with_name("trajectory_data.doctor.sqlite"), copy.path.with_suffix(".doctor.sqlite"))
        undo(copy.path, "all")
        assert copy.dump() == before
    assert patient.dump() == now


def test_an_older_backup_restored(patient: Patient, before: Dump) -> None:
    """The journal knows repairs that the file has nothing of; then it is repaired again, and all is taken back."""
    backup = patient.path.read_bytes()
    operate(patient.path)
    after = patient.path.read_bytes()
    patient.path.write_bytes(backup)
    with pytest.raises(RepairRefused, match=r"Repair 1 \(orphan-run\) is not in trajectory_data\.sqlite as it is now"):
        undo(patient.path, 1)
    notes: list[str] = []
    assert undo(patient.path, "all", note=notes.append) == []
    assert [note[:8] for note in notes] == ["Repair 2", "Repair 1"]
    assert patient.dump() == before
    operate(patient.path, b"again")
    done = undo(patient.path, "all", note=notes.append)
    assert [each.undoes for each in done] == [4, 3]
    assert patient.dump() == before
    patient.path.write_bytes(after)
    assert [each.undoes for each in undo(patient.path, "all")] == [2, 1]
    assert patient.dump() == before


def test_a_backup_of_the_midst_of_it(patient: Patient, before: Dump) -> None:
    """The file has the first repair and not the second."""
    with closing(Writer(patient.path, "s", lambda: True)) as writer:
        writer.quarantine("orphan-run", Subject(), ORPHANS)
    middle = patient.path.read_bytes()
    operate(patient.path)
    patient.path.write_bytes(middle)
    notes: list[str] = []
    assert [each.undoes for each in undo(patient.path, "all", note=notes.append)] == [1]
    assert len(notes) == 1
    assert "Repair 2 (diagram-valid) is not in" in notes[0]
    assert patient.dump() == before


def test_part_of_the_rows_put_back_by_hand(patient: Patient, before: Dump) -> None:
    """What is as it was needs no undo; the rest comes back."""
    backup = patient.path.with_name("backup")
    shutil.copy(patient.path, backup)
    operate(patient.path)
    with closing(patient.connect()) as db:
        db.execute("ATTACH ? AS backup", (str(backup),))
        db.execute("INSERT INTO run SELECT * FROM backup.run WHERE id NOT IN (SELECT id FROM run)")
    [second, first] = undo(patient.path, "all")
    assert (second.rows, first.rows) == (1, 19)
    assert {t: {data for _, data in rows} for t, rows in patient.dump().items()} == {
        t: {data for _, data in rows} for t, rows in before.items()
    }


def test_a_later_repair_that_made_the_same_of_a_row(patient: Patient, before: Dump) -> None:
    """Found by Hypothesis: the first could be undone alone, and then the second never more."""
    operate(patient.path, b"same")
    operate(patient.path, b"same")
    with pytest.raises(RepairRefused, match=r"Repair 3 stands on rows .* undo repair 3 first"):
        undo(patient.path, 2)
    [back] = undo(patient.path, 3)
    undo(patient.path, back.id)
    with pytest.raises(RepairRefused, match="undo repair 3 first"):
        undo(patient.path, 2)
    undo(patient.path, "all")
    assert patient.dump() == before


def test_a_refusal_never_names_an_undo_that_was_just_made(patient: Patient) -> None:
    backup = patient.path.read_bytes()
    operate(patient.path)
    patient.path.write_bytes(backup)
    operate(patient.path)
    undo(patient.path, 4)
    patient.do("UPDATE persistencediagram SET completed_at = 'x' WHERE id = ?", DIAGRAM)
    with pytest.raises(RepairRefused, match=r"1 row of persistencediagram has changed .*: put it back as it was first"):
        undo(patient.path, 2)


def test_hard_links_are_refused(patient: Patient) -> None:
    alias = patient.path.with_name("alias.sqlite")
    os.link(patient.path, alias)
    before = patient.dump()
    for path in (patient.path, alias):
        with pytest.raises(RepairRefused, match=r"one of 2 hard links .* make it a copy of its own"):
            DoctorLock(path).acquire()
        with pytest.raises(RepairRefused, match="one of 2 hard links"):
            undo(path, "all")
    assert patient.dump() == before
    alias.unlink()
    with DoctorLock(patient.path):
        pass


@pytest.mark.parametrize("chain", [1, 2])
def test_symbolic_links_are_the_file(patient: Patient, before: Dump, tmp_path: Path, chain: int) -> None:
    path = patient.path
    for number in range(chain):
        link = tmp_path / f"link{number}.sqlite"
        link.symlink_to(path)
        path = link
    operate(path)
    assert [each.id for each in repairs(patient.path)] == [2, 1]
    undo(path, "all")
    assert patient.dump() == before
