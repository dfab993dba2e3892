"""A repair killed between two commits, another program that reuses ids, and a bit of the journal that is another."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from small_database import Dump, SmallDatabase, name

from pytest_panic_doctor.repair import RepairError, recover, undo

HERE = Path(__file__).parents[1]
KILLED = HERE / "repair" / "killed_process.py"
REPAIRS = HERE / "repair" / "repair_process.py"
STATEMENTS = 230
"""About as many statements has a whole session of `repair_process`."""
ORPHAN = name(2, 3)
ROW = (
    "INSERT INTO run (rowid, id, network, seed, max_length, initial_prompt, experiment_id) VALUES (?, ?, ?, 3, 6, ?, ?)"
)
INTRUDERS: dict[str, tuple[object, ...]] = {
    "the id": (4, ORPHAN, "[]", "another row", "x"),
    "the rowid": (4, "another", "[]", "another row", "x"),
    "the id and the content": (40, ORPHAN, '["a"]', "a prompt", name(1, 99)),
}
"""What another program inserts where the run is gone that the repair removed."""


@dataclass(frozen=True)
class Blow:
    """What was done: where the repair was killed, what another program reused, whether a bit of the journal flipped."""

    point: str
    reused: str
    flipped: bool
    refused: bool


def intrude(path: Path, template: Path, seed: int) -> Blow:
    """Kill, reuse, flip by the seed, then take everything back and check every promise. Raises AssertionError."""
    chance = random.Random(seed)
    for old in path.parent.glob(f"{path.stem}.*"):
        old.unlink()
    shutil.copy(template, path)
    small_database = SmallDatabase(path)
    original = small_database.dump()
    point = chance.choice(("mark", "mark", "commit", "statement"))
    killed(path, point, chance)
    small_database.check_nothing_lost(original)
    reused = chance.choice(("nothing", *INTRUDERS))
    gone = not small_database.values("SELECT count(*) FROM run WHERE id = ?", ORPHAN)[0]
    if reused != "nothing" and gone:
        small_database.do(ROW, *INTRUDERS[reused])
    flipped = chance.random() < 0.4 and flip(path.with_name(f"{path.stem}.doctor.sqlite"), chance)
    if not flipped:
        recover(path)
        small_database.check_nothing_lost(original)
    now = small_database.dump()
    said = taken_back(path, "all")
    if reused == "the id" and gone:
        assert said or flipped, "a row of another program was taken for the removed one"
        small_database.do("DELETE FROM run WHERE initial_prompt = 'another row'")
        said = taken_back(path, "all")
    refused = bool(said)
    if refused:
        assert flipped, said
        said = taken_back(path, "all:intact")
    check(small_database, original, now, complete=not said)
    return Blow(point, reused if gone else "nothing", flipped, refused)


def killed(path: Path, point: str, chance: random.Random) -> None:
    """A repair that dies of SIGKILL."""
    if point == "statement":
        arguments = [str(REPAIRS), str(path), str(chance.randrange(STATEMENTS)), *chance.choice(([], ["after"]))]
    else:
        arguments = [str(KILLED), str(path), chance.choice(("remove", "remove", "change", "add", "batch")), point]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE.parent), str(HERE / "repair")])}
    done = subprocess.run([sys.executable, *arguments], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode in (-signal.SIGKILL, 0), done.stderr


def flip(journal: Path, chance: random.Random) -> bool:
    """Change one bit of the journal, wherever; False where there is none yet."""
    if not journal.exists() or not journal.stat().st_size:
        return False
    place = chance.randrange(journal.stat().st_size)
    with journal.open("r+b") as file:
        file.seek(place)
        (byte,) = file.read(1)
        file.seek(place)
        file.write(bytes([byte ^ (1 << chance.randrange(8))]))
    return True


def taken_back(path: Path, which: str) -> str:
    """What an undo says that is not done as a whole; empty where it is."""
    notes: list[str] = []
    try:
        undo(path, which, note=notes.append)
    except RepairError as error:
        assert "\n" not in str(error), error  # noqa: PT017
        return str(error)
    return " ".join(note for note in notes if "is not in" not in note)


def check(small_database: SmallDatabase, original: Dump, now: Dump, complete: bool) -> None:
    """Nothing is there that never was; everything is back where nothing was said against it, and the file is whole."""
    after = small_database.dump()
    for table, rows in original.items():
        here, known = {data for _, data in after[table]}, {data for _, data in rows}
        assert here <= known | {data for _, data in now[table]}, table
        assert not complete or known <= here, table
    with closing(small_database.connect()) as db:
        assert db.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
