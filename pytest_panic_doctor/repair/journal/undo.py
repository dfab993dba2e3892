"""Reverts repairs, each in one transaction that is itself a repair and can be undone."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping
from contextlib import closing
from functools import partial
from pathlib import Path
from secrets import token_hex

from pytest_panic_doctor.database.memory_room import MemoryRoom
from pytest_panic_doctor.formatting import plural
from pytest_panic_doctor.repair.journal import identity, salvage, verification
from pytest_panic_doctor.repair.journal.choice import ALL, EVERY, RepairFilter, is_group, named
from pytest_panic_doctor.repair.journal.errors import RepairError, RepairFailed, RepairRefused
from pytest_panic_doctor.repair.journal.locks import LOCK_TIMEOUT, RepairLock
from pytest_panic_doctor.repair.journal.opening import connect
from pytest_panic_doctor.repair.journal.preflight import recover
from pytest_panic_doctor.repair.journal.reading import check_version, exists, read_repairs
from pytest_panic_doctor.repair.journal.repair_record import Repair
from pytest_panic_doctor.repair.journal.restore import NothingToRestore, detach, restore_rows
from pytest_panic_doctor.repair.journal.transaction import Transactor
from pytest_panic_doctor.repair.journal.verification import RECORDS_SHOWN, list_ids

UNDO, REDO = "--doctor-undo", "--doctor-redo"
"""The options of this module."""

INTACT = ":intact"
"""The suffix of an id that restores only the rows whose before-images are intact."""


def repairs(database: Path) -> list[Repair]:
    """Return all repairs that took place, newest first.

    Raises:
        RepairRefused: The journal belongs to another database, or its list of repairs is damaged.
    """
    if not exists(database):
        identity.check_left_behind(database)
        return []
    identity.check_owner(database)
    return read_repairs(database, "status <> 'abandoned' AND status <> 'intended'")


def undo(
    database: Path,
    which: int | str,
    *,
    patience: float = LOCK_TIMEOUT,
    connection: type[sqlite3.Connection] = sqlite3.Connection,
    note: Callable[[str], None] = lambda sentence: None,  # noqa: ARG005
    space: MemoryRoom = MemoryRoom(),  # noqa: B008
    only: RepairFilter = EVERY,
    again: bool = False,
    progress: Callable[[int, int], None] = lambda done, of: None,  # noqa: ARG005
) -> list[Repair]:
    """Undo one repair, or several, newest first; or redo what was undone, oldest first.

    Rows are restored byte by byte, with their rowid unless it is taken. The function acquires the repair lock itself.
    If an undo of several repairs fails, the earlier undos stay, and the message lists them; repairs of which the file
    has nothing are skipped.

    Args:
        database: The path of the database.
        which: The id of a repair, or what `choice.named` reads: a range, a session, `"all"`. With `:intact` behind it,
            rows whose before-images are damaged are left.
        patience: Seconds that a step waits for locks.
        connection: The class of the SQLite connections.
        note: Called with a sentence about rows or repairs that were left.
        space: The memory that one row may take.
        only: Which of the named repairs are meant.
        again: Whether to redo: the undos of these repairs are undone.
        progress: Called before each repair with the number of those that are done, and of all.

    Returns:
        The undos.

    Raises:
        RepairRefused: Rows or before-images of a repair have changed, or a row is too large; nothing of it is undone.
        RepairFailed: A transaction was rolled back.
    """
    name = str(which)
    intact = name.endswith(INTACT)
    name = name.removesuffix(INTACT)
    with RepairLock(database):
        if not exists(database):
            identity.check_left_behind(database)
        check_structure(database, name, intact, note)
        recover(database)
        session = f"{'redo' if again else 'undo'}-{token_hex(4)}"
        transactor = Transactor(database, lambda: True, spill=True, patience=patience, connection=connection)
        done: list[Repair] = []
        try:
            selected = _select_undone(database, name, only) if again else _select_repairs(database, name, intact, only)
            for number, repair in enumerate(selected):
                progress(number, len(selected))
                stay: list[str] = []
                _check_fits(database, repair, space)
                try:
                    work = partial(restore_rows, repair, session, intact, stay)
                    made = transactor.run(f"of repair {repair.id}", work, detach)
                except NothingToRestore as error:
                    if not is_group(name):
                        raise
                    note(str(error))
                    continue
                done += read_repairs(database, "id = ?", (made,))
                if stay:
                    note(f"repair {repair.id}: {plural(len(stay), 'row')} not put back ({list_ids(stay)})")
        except RepairError as error:
            if not done:
                raise
            ids = ", ".join(str(each.undoes) for each in done)
            raise type(error)(f"{error} Undone before that: {ids}.") from error
        finally:
            transactor.close()
        return done


def check_structure(database: Path, which: str, intact: bool, note: Callable[[str], None]) -> None:
    """Check the file of the journal; with `intact`, build a new journal from what can be read of a damaged one.

    Raises:
        RepairRefused: The file is damaged, and `intact` is false.
    """
    if not exists(database):
        return
    try:
        wrong = verification.structure(database)
    except RepairRefused:  # not a journal at all, or one whose beginning is damaged
        if not intact:
            raise
        wrong = "its header"
    if not wrong:
        return
    if intact:
        note(salvage.salvage(database))
        return
    raise RepairRefused(
        f"The journal {identity.journal_path(database)} is damaged ({wrong}), and nothing was undone: "
        "restore it from a "
        f"backup, or take back what it still has as it was with --doctor-undo {which}{INTACT}."
    )


def _select_repairs(database: Path, which: str, intact: bool, only: RepairFilter) -> list[Repair]:
    """Return the repairs to undo, newest first.

    Of several, these are the applied ones that undo nothing, or, if all of them are undos, the applied undos.

    Raises:
        RepairRefused: The journal is damaged, or nothing can be undone by this name.
    """
    damaged = _damaged(database)
    if which == ALL and damaged and not intact:
        raise RepairRefused(
            f"The journal is damaged in the record of repair {', '.join(map(str, damaged[:RECORDS_SHOWN]))}, and "
            "nothing was undone: restore the journal from a backup, or take back what it still has as it was with "
            f"--doctor-undo all{INTACT}."
        )
    chosen = _named(database, which, only, UNDO)
    if not is_group(which):
        (repair,) = chosen
        if repair.status != "applied" and repair.id not in damaged:
            state = "undone already" if repair.status == "undone" else "never applied"
            raise RepairRefused(f"Repair {which} was {state}: --doctor-undo lists what can be undone.")
        return chosen
    undos = which != ALL and bool(chosen) and all(each.undoes for each in chosen)
    closed = ("abandoned", "intended", "undone")
    return [each for each in chosen if bool(each.undoes) is undos and each.status not in closed]


def _select_undone(database: Path, which: str, only: RepairFilter) -> list[Repair]:
    """Return for each undone repair the undo that took it back, in the order in which the repairs were made.

    Raises:
        RepairRefused: The only repair that is named is not undone.
    """
    last: dict[int, Repair] = {}
    every = {each.id: each for each in read_repairs(database, "status <> 'abandoned'")}
    for each in every.values():  # Newest first, so the first undo of a chain is the one to take back.
        if each.undoes and each.status == "applied":
            last.setdefault(_root_of_chain(every, each), each)
    chosen = {_root_of_chain(every, each) for each in _named(database, which, only, REDO)}
    undone = sorted(root for root in chosen if every[root].status == "undone" and root in last)
    if not undone and not is_group(which):
        raise RepairRefused(f"Repair {which} is not undone: --doctor-undo lists what can be redone.")
    return [last[root] for root in undone]


def _root_of_chain(every: Mapping[int, Repair], repair: Repair) -> int:
    """Return the id of the repair that a chain of undos began with."""
    while repair.undoes and repair.undoes in every:
        repair = every[repair.undoes]
    return repair.id


def _named(database: Path, which: str, only: RepairFilter, flag: str) -> list[Repair]:
    """Return the repairs that are named and that the filter takes, newest first.

    Raises:
        RepairRefused: The name fits no repair, or the filter does not take the only one.
    """
    found = named(read_repairs(database, "1"), which, flag)
    chosen = list(filter(only.takes, found))
    if found and not chosen and not is_group(which):
        raise RepairRefused(
            f"Repair {which} ({found[0].rule}) is not one of those that the other options choose: leave them out."
        )
    return chosen


def _check_fits(database: Path, repair: Repair, space: MemoryRoom) -> None:
    """Check that every row of a repair fits into memory.

    Raises:
        RepairRefused: A row is too large.
    """
    path = identity.journal_path(database)
    with closing(connect(path)) as connection:
        size, table, key = connection.execute(
            "SELECT max(c.bytes), c.table_name, c.key FROM steps s JOIN changes c ON c.step = s.id WHERE s.repair = ?",
            (repair.id,),
        ).fetchone()
    if (size or 0) > space.value:
        raise RepairRefused(f"{space.too_large(f'The row {key} of {table}', size)}.")


def _damaged(database: Path) -> list[int]:
    """Return the repairs whose records are damaged."""
    if not exists(database):
        return []
    path = identity.journal_path(database)
    try:
        with closing(connect(path)) as connection:
            return verification.records(connection) if check_version(connection, database) else []
    except sqlite3.Error as error:
        raise RepairFailed(f"The journal {path} could not be read: SQLite says «{error}»; run again.") from error
