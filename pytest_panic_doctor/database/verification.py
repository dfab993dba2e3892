"""Whether the tables that a check has read are undamaged, according to SQLite's integrity check.

Tables are checked once a session, for all its processes. If `file-integrity` is among the items, the complete file is
checked before the first item; otherwise each table is checked when it is first read. SQLite reports the tables of
a statement to an authorizer (https://www.sqlite.org/c3ref/set_authorizer.html), so that rules need not declare them.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable

from pytest_panic_doctor.database import integrity
from pytest_panic_doctor.database.connection import Database
from pytest_panic_doctor.database.files import safe_file_name
from pytest_panic_doctor.database.integrity import FileDamage
from pytest_panic_doctor.database.shared_folder import SharedFolder

LISTING_TABLES = ("experimentconfig", "run")
"""Canonical names of the tables from which the list of items is made."""

WHOLE_FILE = "(file)"
INDEX_PRAGMAS = ("index_list",)
"""Pragmas by which a rule relies on an index to guarantee something."""

NOT_EXAMINED_PREFIX = "not examined: "


class Verification:
    """Results of integrity checks, shared by the processes of a session through a folder."""

    def __init__(self, database: Database, shared: SharedFolder | None = None, *, everything: bool = False) -> None:
        """Watch the tables that `database` reads.

        Args:
            database: The database.
            shared: What is shared by all processes of the session; None if this is the only one.
            everything: Whether to check the complete file before the first item.
        """
        self.database = database
        self.shared = shared
        self.everything = everything
        self._known: dict[str, FileDamage] = {}
        self._read: set[str] = set()
        database.authorizer = self._watch

    def integrity(self, db: sqlite3.Connection) -> FileDamage:
        """Damage of the complete file; the first process that needs it runs the check."""
        return self._once(WHOLE_FILE, lambda: integrity.check_file(db))

    def before_item(self) -> str:
        """Check the complete file if configured.

        Returns:
            Why this is not possible; empty otherwise.
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
        """Whether this process knows of damage; then the tables of each item are recorded anew."""
        return any(each.problems for each in self._known.values())

    def after_item(self) -> str:
        """Sentence that says which damaged tables the item has read; empty if all are undamaged."""
        if not self._read:
            return ""
        read, self._read = self._read, set()
        try:
            damaged = self.database.read(lambda db: self._damaged(db, read))
        except sqlite3.DatabaseError as error:
            return unchecked_message(error)
        if not damaged:
            return ""
        first = next(each for name in (*damaged, WHOLE_FILE) for each in self._known.get(name, FileDamage()).problems)
        if first.is_unsupported:
            return f"{NOT_EXAMINED_PREFIX}{first}: {integrity.REMOVE}"
        which = f"table {damaged[0]} is" if len(damaged) == 1 else f"tables {', '.join(damaged)} are"
        return f"{NOT_EXAMINED_PREFIX}{which} damaged, or an index there ({first}): {integrity.RESTORE}"

    @property
    def damaged(self) -> bool:
        """Whether any process of the session knows of damage."""
        return any(each.problems for each in self._all())

    def _all(self) -> list[FileDamage]:
        found = [*self._known.values()]
        if self.shared is not None:
            found += [FileDamage.from_plain(each["damage"]) for each in self.shared.find("verified/*")]  # type: ignore[arg-type]
        return found

    @property
    def refusal(self) -> str:
        """Sentence that says why nothing is written to the file; empty if no damage is known."""
        problems = [problem for each in self._all() for problem in each.problems]
        if not problems:
            return ""
        if all(each.is_unsupported for each in problems):
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
        """Result of `find`, or the known result of this or another process."""
        if name not in self._known:
            before = set(self._read)
            self._known[name] = found_once(self.shared, name, find) if self.shared else find()
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


def found_once(shared: SharedFolder, name: str, find: Callable[[], FileDamage]) -> FileDamage:
    """Run `find` in one of the processes that share a folder; the others wait and read its result."""
    document = f"verified/{safe_file_name(name)}"
    with shared.lock(document):
        if plain := shared.read(document):
            return FileDamage.from_plain(plain["damage"])  # type: ignore[arg-type]
        found = find()
        shared.write(document, {"damage": found.as_plain()})
        return found


def unchecked_message(error: sqlite3.DatabaseError) -> str:
    """Sentence for a check that could not run."""
    return f"{NOT_EXAMINED_PREFIX}whether the file is whole could not be checked: SQLite says «{error}»; run again"
