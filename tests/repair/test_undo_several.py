"""Several repairs at once: by range, session, rule, run and experiment; taken back and made again, to the byte."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from small_database import SmallDatabase

from pytest_panic_doctor.database.subject import Rows, Subject
from pytest_panic_doctor.errors import BadOption
from pytest_panic_doctor.examination.settings import Settings
from pytest_panic_doctor.repair import Repair, RepairRefused, Writer, repairs, undo
from pytest_panic_doctor.repair.journal import journal_schema
from pytest_panic_doctor.repair.journal.choice import RepairFilter, shortest
from pytest_panic_doctor.session.journal_commands import undo_or_list

if TYPE_CHECKING:
    from small_database import Dump

EXPERIMENT = f"{1:04x}{1:028x}"
RUNS = [f"{2:04x}{run:028x}" for run in range(4)]
DIAGRAMS = [f"{5:04x}{run:028x}" for run in range(4)]


def recompute(writer: Writer, run: int, data: bytes) -> Repair:
    """Replace the diagram of a run."""
    subject = Subject(EXPERIMENT, RUNS[run], "Nomic")
    values: dict[str, int | float | str | bytes | None] = {"diagram_data": data}
    done = writer.update("diagram-valid", subject, "persistencediagram", DIAGRAMS[run], values, lambda _: True)
    assert done is not None
    return done


def quarantine(writer: Writer, number: int) -> Repair:
    """Quarantine an embedding, for an experiment."""
    rows = Rows("embedding", "SELECT :id AS id", {"id": f"{4:04x}{number:028x}"})
    done = writer.quarantine("embedding-type", Subject(EXPERIMENT, None, "Nomic"), rows)
    assert done is not None
    return done


@pytest.fixture(scope="module")
def repaired(template: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Dump]]:
    """A folder with a database and its journal, and the database before each of six repairs and after the last.

    1: diagram of run 0. 2: embedding 1. 3: diagram of run 1. 4: diagram of run 0 again. Another session, 5: embedding
    2. 6: the orphan run.
    """
    folder = tmp_path_factory.mktemp("repaired")
    small_database = SmallDatabase(Path(shutil.copy(template, folder)))
    found = [small_database.dump()]
    for session, work in (
        ("aaaa1111bbbb2222", (lambda w: recompute(w, 0, b"one"), lambda w: quarantine(w, 1))),
        ("aaaa1111bbbb2222", (lambda w: recompute(w, 1, b"two"), lambda w: recompute(w, 0, b"three"))),
        ("aaaa3333cccc4444", (lambda w: quarantine(w, 2), remove_run)),
    ):
        with closing(Writer(small_database.path, session, lambda: True)) as writer:
            for each in work:
                each(writer)
                found.append(small_database.dump())
    return folder, found


@pytest.fixture
def states(repaired: tuple[Path, list[Dump]], small_database: SmallDatabase) -> list[Dump]:
    """The same in the folder of this test."""
    folder, found = repaired
    shutil.copytree(folder, small_database.path.parent, dirs_exist_ok=True)
    return found


def remove_run(writer: Writer) -> Repair:
    done = writer.quarantine("orphan-run", Subject(), Rows("run", "SELECT :id AS id", {"id": RUNS[3]}))
    assert done is not None
    return done


def undone(path: Path) -> set[int]:
    return {each.id for each in repairs(path) if each.status == "undone" and not each.undoes}


@pytest.mark.parametrize(
    ("which", "only", "ids"),
    [
        ("3-6", RepairFilter(), [6, 5, 4, 3]),
        ("2,5-6", RepairFilter(), [6, 5, 2]),
        ("session:aaaa1", RepairFilter(), [4, 3, 2, 1]),
        ("session:aaaa3333cccc4444", RepairFilter(), [6, 5]),
        ("all", RepairFilter(rules=("embedding-type", "orphan-run")), [6, 5, 2]),
        ("all", RepairFilter(runs=(RUNS[0],)), [4, 1]),
        ("all", RepairFilter(experiments=(EXPERIMENT,)), [5, 4, 3, 2, 1]),
        ("1-5", RepairFilter(rules=("diagram-valid",)), [4, 3, 1]),
        ("all:intact", RepairFilter(runs=(RUNS[1],)), [3]),
        ("all", RepairFilter(rules=("schema",)), []),
    ],
)
def test_what_is_named_is_taken_back_newest_first_and_made_again_oldest_first(
    small_database: SmallDatabase, states: list[Dump], which: str, only: RepairFilter, ids: list[int]
) -> None:
    path = small_database.path
    seen: list[tuple[int, int]] = []
    done = undo(path, which, only=only, progress=lambda number, of: seen.append((number, of)))
    assert [each.undoes for each in done] == ids
    assert undone(path) == set(ids)
    assert seen == [(number, len(ids)) for number in range(len(ids))]
    assert len({each.session for each in done}) <= 1
    if which == "3-6":
        assert small_database.dump() == states[2]
    again = undo(path, which.removesuffix(":intact"), only=only, again=True)
    by_id = {each.id: each for each in done}
    assert [by_id[each.undoes or 0].undoes for each in again] == ids[::-1]
    assert undone(path) == set()
    assert small_database.dump() == states[-1]


def test_the_work_grows_with_the_repairs_and_not_with_their_square(
    small_database: SmallDatabase, states: list[Dump], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    original = journal_schema.repair_seal

    def counting(connection: sqlite3.Connection, repair: int) -> bytes:
        seen.append(repair)
        return original(connection, repair)

    monkeypatch.setattr(journal_schema, "repair_seal", counting)
    assert len(undo(small_database.path, "all")) == len(states) - 1
    assert max(seen.count(repair) for repair in seen) <= 2, "once for the journal, and once before its undo"


def test_a_chain_of_undos_and_redos_ends_where_it_began(small_database: SmallDatabase, states: list[Dump]) -> None:
    path = small_database.path
    for _ in range(3):
        undo(path, "all")
        assert small_database.dump() == states[0]
        undo(path, "all", again=True)
        assert small_database.dump() == states[-1]
    undo(path, 6)
    undo(path, 6, again=True)
    assert small_database.dump() == states[-1]
    with pytest.raises(RepairRefused, match="Repair 6 is not undone"):
        undo(path, 6, again=True)


def test_the_undos_of_one_command_are_a_session_that_can_be_taken_back(
    small_database: SmallDatabase, states: list[Dump]
) -> None:
    done = undo(small_database.path, "3-5")
    assert done[0].session.startswith("undo-")
    undo(small_database.path, f"session:{done[0].session}")
    assert small_database.dump() == states[-1]


def test_an_older_repair_of_the_same_row_waits_for_the_newer(small_database: SmallDatabase, states: list[Dump]) -> None:
    with pytest.raises(RepairRefused, match="repair 4"):
        undo(small_database.path, "1-3", only=RepairFilter(runs=(RUNS[0],)))
    assert small_database.dump() == states[-1]


@pytest.mark.parametrize(
    ("which", "sentence"),
    [
        ("9-12", "There is no repair 9-12"),
        ("5-2", "ends before it begins"),
        ("session:ffff", "There is no session ffff"),
        ("session:aaaa", "begins the ids of 2 sessions"),
        ("run:x", "give an id, a range such as 3-9, session:ID"),
        ("6", "Repair 6 .orphan-run. is not one of those that the other options choose"),
    ],
)
@pytest.mark.usefixtures("states")
def test_a_name_that_fits_nothing_is_refused(small_database: SmallDatabase, which: str, sentence: str) -> None:
    before = small_database.dump()
    with pytest.raises(RepairRefused, match=sentence):
        undo(small_database.path, which, only=RepairFilter(rules=("diagram-valid",)))
    assert small_database.dump() == before
    assert undone(small_database.path) == set()


def lines(database: Path, which: str, **chosen: tuple[str, ...]) -> list[str]:
    return list(undo_or_list(Settings(database, **chosen), which))  # type: ignore[arg-type]


@pytest.mark.usefixtures("states")
def test_sessions_are_listed_and_opened_with_names_and_a_filter(small_database: SmallDatabase) -> None:
    path = small_database.path
    listed = "\n".join(lines(path, ""))
    assert listed.startswith("2 sessions with 6 repairs of ")
    assert "aaaa3333  20" in listed
    assert " 2 repairs, " in listed
    assert "orphan-run 1, embedding-type 1" in " ".join(listed.split())
    opened = lines(path, "aaaa1111bb")
    assert opened[0].startswith("4 repairs of session aaaa1111bbbb2222, 20")
    assert [line.split()[0] for line in opened if "update" in line or "quarantine" in line] == ["4", "3", "2", "1"]
    assert f"       run 00020000-0000-0000-0000-{0:012x} a prompt: a" in opened
    assert "       experiment 00010000-0000-0000-0000-000000000001 p" in opened
    filtered = lines(path, "aaaa1111", rules=("embedding-type",))
    assert filtered[0].startswith("1 of 4 repairs of session aaaa1111bbbb2222, ")
    assert [line.split()[0] for line in filtered if "quarantine" in line] == ["2"]
    assert lines(path, "", rules=("schema",))[0].endswith("choose: it has 6 others")
    assert max(len(line) for line in (*lines(path, ""), *opened) if not line.startswith(("next: ", "2 ", "4 "))) <= 80


@pytest.mark.usefixtures("states")
def test_one_undo_by_run_names_what_else_may_have_its_rows(small_database: SmallDatabase) -> None:
    path = small_database.path
    with pytest.raises(BadOption, match=r"could be any of [34] runs"):
        lines(path, "all", runs=("a prompt",))
    said = lines(path, "all", runs=(RUNS[0],))
    assert [line.split(" (")[0] for line in said[:2]] == ["undid repair 4", "undid repair 1"]
    assert said[2] == "repairs of its whole experiment, which may have rows of it too: 5, 2"
    assert lines(path, "all", runs=(RUNS[0],))[0].startswith("nothing to undo: ")
    assert lines(path, "all", runs=(RUNS[3],))[0].startswith("nothing to undo: "), "known from the journal alone"


def test_what_a_damaged_journal_still_has_is_taken_back(small_database: SmallDatabase, states: list[Dump]) -> None:
    journal = small_database.path.with_name("trajectory_data.doctor.sqlite")
    with journal.open("r+b") as file:
        file.write(bytes(100))
    with pytest.raises(RepairRefused):
        lines(small_database.path, "all")
    said = lines(small_database.path, "all:intact")
    assert len([line for line in said if line.startswith("undid repair ")]) == len(states) - 1
    assert small_database.dump() == states[0]


def test_a_session_is_named_as_shortly_as_is_unique() -> None:
    assert shortest("abcdef0123456789", ["abcdef0123456789", "abcdef01ffffffff"]) == "abcdef012"
    assert shortest("undo", ["undo", "undo-1"]) == "undo"


def test_a_journal_is_listed_with_digits_for_a_session(small_database: SmallDatabase) -> None:
    with closing(Writer(small_database.path, "12345678abcdef00", lambda: True)) as writer:
        recompute(writer, 0, b"one")
    assert lines(small_database.path, "12345678")[0].startswith("1 repair of session 12345678abcdef00")
    with pytest.raises(RepairRefused, match="There is no repair 99"):
        lines(small_database.path, "99")
    with closing(sqlite3.connect(small_database.path)) as db:
        assert db.execute("SELECT diagram_data FROM persistencediagram WHERE id = ?", (DIAGRAMS[0],)).fetchone() == (
            b"one",
        )
