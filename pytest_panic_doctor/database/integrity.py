"""What SQLite itself finds wrong with the file: every page, and every index against its table.

`quick_check` does not look at indexes, and the rules and the repairs read by index: one flipped bit in a key makes
whole rows, that are there, seem to be gone. So it is `integrity_check` that is asked
(https://www.sqlite.org/pragma.html#pragma_integrity_check).
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass

MAX_PROBLEMS = 10_000
"""Lines that SQLite's check says at most; what it says beyond them is not known."""

HEADING = "*** in "
UNREADABLE = ("SQLITE_CORRUPT", "SQLITE_NOTADB", "SQLITE_IOERR")
UNKNOWN = ("no such collation sequence", "no such function", "unknown function")
"""What SQLite says where an index needs something that this SQLite does not have: the file itself may be whole."""


RESTORE = "restore the file from a backup (docs/how-to/damaged-files.md says when REINDEX can help)"

ABSENT = "which this SQLite does not have"
REMOVE = "remove what needs it with the program that made it, or use a Python whose SQLite has it"
"""What to do where the file is as it should be, and SQLite is not."""


def remedy(problem: str) -> str:
    """What to do about one problem, which a sentence may hold."""
    if ABSENT in problem:
        return REMOVE
    if OF_A_CONSTRAINT.search(problem):
        return CORRECT
    return REBUILD if OF_AN_INDEX.search(problem) else RESTORE


def missing_feature(error: sqlite3.Error) -> str:
    """`the collation GERMAN`: what SQLite would need to read the file; empty where that is not what is wrong."""
    text = str(error)
    if not text.startswith(UNKNOWN):
        return ""
    kind = "collation" if "collation" in text else "function"
    return f"the {kind} {text.partition(': ')[2]}"


def describe_missing_feature(db: sqlite3.Connection, error: sqlite3.Error) -> str:
    """`index odd of run needs the function german(), which …`; empty where nothing of the file needs it."""
    what = missing_feature(error)
    found = db.execute(
        "SELECT type, name, tbl_name FROM sqlite_master WHERE type IN ('table', 'index') AND instr(lower(sql), ?) "
        "ORDER BY rowid LIMIT 1",
        (what.rpartition(" ")[2].removesuffix("()").lower(),),
    ).fetchone()
    if not what or found is None:
        return ""
    kind, name, table = found
    return f"{kind} {name}{f' of {table}' if kind == 'index' else ''} needs {what}, {ABSENT}"


OF_AN_INDEX = re.compile(
    r"\b(missing from|wrong # of entries in|values differ from|end-of-record for row \S+ of) index\b"
)
REBUILD = "rebuild the index with REINDEX (docs/how-to/damaged-files.md), or restore the file from a backup"
"""Where no more than an index is wrong."""

OF_A_CONSTRAINT = re.compile(
    r"\bnon-unique entry in index\b|\bCHECK constraint failed in\b|\b(NULL|[\w-]+) value in \S+\."
)
CORRECT = "correct by hand the rows that break the constraint, or restore the file from a backup"
"""Where the pages are as they should be, and rows are not as their table demands."""


@dataclass(frozen=True, slots=True)
class FileDamage:
    """What is wrong with a file.

    `problems` are SQLite's own words, one line each, empty where nothing is wrong. `tables` are the tables, by their
    names in lower case, that are damaged or have a damaged index: nothing may be decided through them.
    """

    problems: tuple[str, ...] = ()
    tables: frozenset[str] = frozenset()

    def as_plain(self) -> list[list[str]]:
        """Plain lists, for JSON."""
        return [list(self.problems), sorted(self.tables)]

    @classmethod
    def from_plain(cls, plain: Iterable[Iterable[str]]) -> FileDamage:
        """The inverse."""
        problems, tables = plain
        return cls(tuple(problems), frozenset(tables))


def check_file(db: sqlite3.Connection) -> FileDamage:
    """Check the whole file. One that is damaged is checked once more, table by table, to tell which those are."""
    problems = run_check(db, f"PRAGMA integrity_check({MAX_PROBLEMS})")
    return FileDamage(tuple(problems), check_tables(db, table_names(db)).tables if problems else frozenset())


def check_tables(db: sqlite3.Connection, tables: Iterable[str]) -> FileDamage:
    """Check these tables with their indexes, and no others: not the free pages, nor whether a page is used twice."""
    found = {table: run_check(db, f"PRAGMA integrity_check({quote_literal(table)})") for table in tables}
    lines = tuple(line for problems in found.values() for line in problems)
    return FileDamage(lines, frozenset(table.lower() for table, problems in found.items() if problems))


def table_names(db: sqlite3.Connection) -> list[str]:
    """The tables of the file."""
    return [
        str(name)
        for (name,) in db.execute(
            "SELECT name FROM sqlite_master WHERE type = 'table' AND sql NOT LIKE 'create virtual%' ORDER BY rowid"
        )
    ]


def run_check(db: sqlite3.Connection, pragma: str) -> list[str]:
    """What a check says, line by line; empty where all is well. Raises sqlite3.Error where it cannot be asked now."""
    found: list[str] = []
    try:
        for (text,) in db.execute(pragma):
            found += [line for line in str(text).splitlines() if line != "ok" and not line.startswith(HEADING)]
    except sqlite3.DatabaseError as error:
        if str(error).startswith(UNKNOWN):
            found.append(describe_missing_feature(db, error) or f"the file needs {missing_feature(error)}, {ABSENT}")
        elif getattr(error, "sqlite_errorname", "").startswith(UNREADABLE):
            found.append(f"the check ended early: {error}")
        else:
            raise
    return found


def quote_literal(name: str) -> str:
    """A name as a PRAGMA takes it."""
    return "'" + name.replace("'", "''") + "'"
