"""Whether what a check has read may be believed: the tables that it read, and their indexes, as SQLite verifies them.

Once a session, for all its processes. Where `file-integrity` is among the items, the whole file is checked before the
first of them, and that result is the item's; elsewhere each table when it is first read. Which tables a check reads is
asked of SQLite, which tells an authorizer (https://www.sqlite.org/c3ref/set_authorizer.html) when a statement is made
ready, so that no rule has to declare them.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from pathlib import Path

from pytest_panic_doctor.database import integrity
from pytest_panic_doctor.database.connection import Database
from pytest_panic_doctor.database.files import atomic_write, safe_file_name
from pytest_panic_doctor.database.integrity import FileDamage

LISTING_TABLES = ("experimentconfig", "run")
"""The tables that make the list of items, by the names that rules know."""

WHOLE_FILE = "(file)"
INDEX_PRAGMAS = ("index_list",)
"""Pragmas by which a rule takes SQLite's word for what an index is there to ensure."""

NOT_EXAMINED = "not examined: "


class Verification:
    """What one process of a session knows of the file, and shares with the others through a folder."""

    def __init__(self, database: Database, folder: Path | None = None, *, everything: bool = False) -> None:
        """`folder` is one that all processes of the session have, None where there is but this one.

        `everything`: the whole file is checked before anything is believed.
        """
        self.database = database
        self.folder = folder
        self.everything = everything
        self._known: dict[str, FileDamage] = {}
        self._read: set[str] = set()
        database.authorizer = self._watch

    def integrity(self, db: sqlite3.Connection) -> FileDamage:
        """What is wrong with the whole file; checked by whoever asks first."""
        return self._once(WHOLE_FILE, lambda: integrity.check_file(db))

    def before_item(self) -> str:
        """Before an item: check the whole file, where that is to be done at all; why that cannot be done, or nothing.

        On a damaged file, which tables the item reads is asked anew: a statement that is kept ready says nothing.
        """
        if self.everything and WHOLE_FILE not in self._known:
            try:
                self.database.read(self.integrity)
            except sqlite3.DatabaseError as error:
                return unchecked_message(error)
        if self.has_damage:
            self._read.clear()
            self.database.reset_authorizer()
        return ""

    @property
    def has_damage(self) -> bool:
        """Whether each item's own tables are to be told, and nothing remembered: this process has met damage."""
        return any(each.problems for each in self._known.values())

    def after_item(self) -> str:
        """After an item: why what it read cannot be believed, as a sentence; empty where it can."""
        if not self._read:
            return ""
        read, self._read = self._read, set()
        try:
            damaged = self.database.read(lambda db: self._damaged(db, read))
        except sqlite3.DatabaseError as error:
            return unchecked_message(error)
        if not damaged:
            return ""
        first = next(line for name in (*damaged, WHOLE_FILE) for line in self._known.get(name, FileDamage()).problems)
        if integrity.ABSENT in first:
            return f"{NOT_EXAMINED}{first}: {integrity.REMOVE}"
        which = f"table {damaged[0]} is" if len(damaged) == 1 else f"tables {', '.join(damaged)} are"
        return f"{NOT_EXAMINED}{which} damaged, or an index there ({first}): {integrity.RESTORE}"

    @property
    def damaged(self) -> bool:
        """Whether anything wrong with the file is known to any process of the session."""
        return any(each.problems for each in self._all())

    def _all(self) -> list[FileDamage]:
        found = [*self._known.values()]
        if self.folder is not None:
            found += [read_damage(path) for path in self.folder.glob("*.json")]
        return found

    @property
    def refusal(self) -> str:
        """Why nothing is written to the file, as a sentence; empty where nothing is known to be wrong with it."""
        problems = [line for each in self._all() for line in each.problems]
        if not problems:
            return ""
        if all(integrity.ABSENT in line for line in problems):
            return f"nothing is written to a file that cannot be checked: {integrity.REMOVE}"
        return f"nothing is written to a damaged file: {integrity.RESTORE}"

    def _damaged(self, db: sqlite3.Connection, read: set[str]) -> list[str]:
        if self.everything:
            return sorted(self.integrity(db).tables & read)
        existing = {name.lower() for name in integrity.table_names(db)}
        return [table for table in sorted(read & existing) if self._table(db, table).problems]

    def _table(self, db: sqlite3.Connection, name: str) -> FileDamage:
        return self._once(name, lambda: integrity.check_tables(db, [name]))

    def _once(self, name: str, find: Callable[[], FileDamage]) -> FileDamage:
        """What this process knows, or another one of the session has found or is finding; else what `find` finds."""
        if name not in self._known:
            before = set(self._read)
            self._known[name] = found_once(self.folder, name, find) if self.folder else find()
            self._read = before
        return self._known[name]

    def _watch(self, action: int, name: str | None, argument: str | None, *_: str | None) -> int:
        if action == sqlite3.SQLITE_PRAGMA and name in INDEX_PRAGMAS:
            name = argument
        elif action != sqlite3.SQLITE_READ:
            name = None
        if name and not name.startswith("sqlite_"):
            self._read.add(name.lower())
        return sqlite3.SQLITE_OK


def verified_folder(scratch: Path) -> Path:
    """Where in a session's scratch folder its processes keep what they found."""
    folder = scratch / "verified"
    folder.mkdir(exist_ok=True)
    return folder


def found_once(folder: Path, name: str, find: Callable[[], FileDamage]) -> FileDamage:
    """What `find` finds, in one process of all that share `folder`; the others wait for it, and read it there."""
    from filelock import FileLock

    kept = folder / f"{safe_file_name(name)}.json"
    with FileLock(kept.with_suffix(".lock")):
        if kept.exists():
            return read_damage(kept)
        found = find()
        write_damage(kept, found)
        return found


def write_damage(path: Path, found: FileDamage) -> None:
    """Write down what was found, whole or not at all."""
    with atomic_write(path) as partial:
        partial.write_text(json.dumps(found.as_plain()))


def read_damage(path: Path) -> FileDamage:
    """What was found."""
    return FileDamage.from_plain(json.loads(path.read_text()))


def unchecked_message(error: sqlite3.DatabaseError) -> str:
    """The sentence for a check that could not be made."""
    return f"{NOT_EXAMINED}whether the file is whole could not be checked: SQLite says «{error}»; run again"
