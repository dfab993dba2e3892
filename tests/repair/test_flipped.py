"""One bit of the journal is another now, wherever it is: the right rows come back, or a refusal names what does not."""

from __future__ import annotations

import random
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_panic_doctor.database.subject import Rows, Subject
from pytest_panic_doctor.repair import RepairError, Writer, preflight, repairs, undo

if TYPE_CHECKING:
    from small_database import Dump, SmallDatabase

PAGE = 4096
DIAGRAM = f"{5:04x}{0:028x}"
ORPHANS = Rows(
    "run", "SELECT id FROM run r WHERE NOT EXISTS (SELECT 1 FROM experimentconfig e WHERE e.id = r.experiment_id)"
)


@pytest.fixture
def operated(small_database: SmallDatabase) -> tuple[SmallDatabase, Path, Dump]:
    """A database with three repairs; its journal, and all rows as they were."""
    before = small_database.dump()
    with closing(Writer(small_database.path, "s", lambda: True)) as writer:
        writer.quarantine("orphan-run", Subject(), ORPHANS)
        values = {"diagram_data": b"recomputed"}
        writer.update("diagram-valid", Subject(), "persistencediagram", DIAGRAM, values, lambda _: True)
        writer.quarantine("r", Subject(), Rows("embedding", "SELECT id FROM embedding WHERE rowid % 3 = 0"))
    return small_database, small_database.path.with_name("trajectory_data.doctor.sqlite"), before


def places(size: int, seed: int, flips: int) -> list[tuple[int, int]]:
    """(byte, bit) all over the file: its header, the head of each page, and anywhere."""
    chance = random.Random(seed)
    heads = [page * PAGE + chance.randrange(12) for page in range(size // PAGE)]
    anywhere = [chance.randrange(size) for _ in range(3 * flips)]
    header = list(range(100))
    chosen = [*chance.sample(header, flips // 4), *chance.sample(heads, min(len(heads), flips // 4))]
    return [(place, chance.randrange(8)) for place in [*chosen, *anywhere[: flips // 2]]]


def flip(path: Path, place: int, bit: int) -> None:
    with path.open("r+b") as file:
        file.seek(place)
        (byte,) = file.read(1)
        file.seek(place)
        file.write(bytes([byte ^ (1 << bit)]))


def attempt(path: Path, which: str, notes: list[str]) -> str:
    """What an undo says; empty where it says nothing against it."""
    try:
        undo(path, which, note=notes.append)
    except RepairError as error:
        assert "\n" not in str(error)  # noqa: PT017
        return str(error)
    return ""


@pytest.mark.parametrize(("seed", "flips"), [(1, 24), pytest.param(2, 400, marks=pytest.mark.slow)])
def test_wherever_a_bit_flips(
    operated: tuple[SmallDatabase, Path, Dump], tmp_path: Path, seed: int, flips: int
) -> None:
    small_database, journal, before = operated
    now, file = small_database.dump(), small_database.path.read_bytes()
    size, lost, refused = journal.stat().st_size, [], 0
    for number, (place, bit) in enumerate(places(size, seed, flips)):
        here = type(small_database)(tmp_path / str(number) / small_database.path.name)
        here.path.parent.mkdir()
        here.path.write_bytes(file)
        copy = here.path.with_name(journal.name)
        shutil.copy(journal, copy)
        flip(copy, place, bit)
        where = f"byte {place}, bit {bit}"
        notes: list[str] = []
        said = attempt(here.path, "all", notes)
        check(here, before, now, f"{where}: {said}")
        if not said and not notes:
            assert here.dump() == before, where
        else:
            refused += 1
            again = attempt(here.path, "all:intact", notes)
            left = check(here, before, now, f"{where}: {again}")
            assert not left or again or notes, where
            lost.append(left)
        shutil.rmtree(here.path.parent)
    assert refused > flips // 3
    # A bit is of one page, and one page has so many rows at most; most often it is one row or none.
    assert max(lost) < 60
    assert sorted(lost)[len(lost) // 2] <= 1


def check(small_database: SmallDatabase, before: Dump, now: Dump, where: str) -> int:
    """Every row is one that was there before or after the repairs; returns how many are not back."""
    after = small_database.dump()
    for table, rows in after.items():
        known = {data for _, data in [*before[table], *now[table]]}
        assert {data for _, data in rows} <= known, where
    assert small_database.values("PRAGMA integrity_check") == ["ok"], where
    return sum(len({data for _, data in before[t]} - {data for _, data in rows}) for t, rows in after.items())


def test_a_damaged_journal_begins_no_repair(operated: tuple[SmallDatabase, Path, Dump]) -> None:
    small_database, journal, _ = operated
    with closing(sqlite3.connect(journal)) as db:
        page = db.execute("SELECT rootpage FROM sqlite_master WHERE name = 'changes_of_row'").fetchone()[0]
    flip(journal, (page - 1) * PAGE + PAGE - 3, 0)
    with pytest.raises(RepairError, match=r"journal .* is damaged \(integrity_check: .*\).*--doctor-undo all:intact"):
        preflight(small_database.path, 0)


def test_salvaged_and_used_again(operated: tuple[SmallDatabase, Path, Dump]) -> None:
    """The schema's page is gone: everything else is read without it, and what was damaged stays."""
    small_database, journal, before = operated
    data = journal.read_bytes()
    journal.write_bytes(bytes(PAGE) + data[PAGE:])
    with pytest.raises(RepairError, match="is not a doctor's journal"):
        undo(small_database.path, "all")
    notes: list[str] = []
    done = undo(small_database.path, "all:intact", note=notes.append)
    assert [each.undoes for each in done] == [3, 2, 1]
    assert small_database.dump() == before
    assert len(notes) == 1
    damaged = journal.with_name(f"{journal.name}.damaged-1")
    assert str(damaged.name) in notes[0]
    assert damaged.read_bytes()[PAGE:] == data[PAGE:]
    assert preflight(small_database.path, 0) == []
    assert len(repairs(small_database.path)) == 6


@pytest.mark.parametrize("encoding", ["UTF-16le", "UTF-16be"])
def test_salvaged_in_another_encoding(tmp_path: Path, small_database: SmallDatabase, encoding: str) -> None:
    odd = type(small_database)(tmp_path / "odd.sqlite")
    with closing(sqlite3.connect(odd.path)) as db, db:
        db.execute(f"PRAGMA encoding = '{encoding}'")
        db.execute("CREATE TABLE run (id TEXT PRIMARY KEY, a, b, c, d, e)")
        values = ("é𝄞", 0, -(2**63), 1.5, b"\xff" * 9_000)
        db.execute("INSERT INTO run VALUES (?, ?, ?, ?, ?, NULL)", values)
        db.execute("INSERT INTO run VALUES ('b', CAST(x'00d8' AS TEXT), 127, 1e300, 1, -1)")
    before = odd.dump()
    with closing(Writer(odd.path, "s", lambda: True)) as writer:
        writer.quarantine("r", Subject(), Rows("run", "SELECT id FROM run"))
    journal = odd.path.with_name("odd.doctor.sqlite")
    journal.write_bytes(bytes(PAGE) + journal.read_bytes()[PAGE:])
    undo(odd.path, "all:intact")
    assert odd.dump() == before
