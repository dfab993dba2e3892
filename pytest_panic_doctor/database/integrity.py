"""SQLite's own check of the file: every page, and every index against its table.

`integrity_check` is used (https://www.sqlite.org/pragma.html#pragma_integrity_check), not `quick_check`, which skips
indexes: rules and repairs read by index, and one flipped bit in a key makes existing rows seem to be missing.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from pytest_panic_doctor.database.progress import file_size, pages_read

MAX_PROBLEMS = 10_000
"""Most lines that SQLite's check returns; further problems are unknown."""

HEADING = "*** in "
UNREADABLE_ERRORS = ("SQLITE_CORRUPT", "SQLITE_NOTADB", "SQLITE_IOERR")
UNKNOWN = ("no such collation sequence", "no such function", "unknown function")
"""SQLite's messages for an index that needs something this SQLite does not have; the file may be undamaged."""


RESTORE = "restore the file from a backup (docs/how-to/damaged-files.md says when REINDEX can help)"

ABSENT = "which this SQLite does not have"
REMOVE = "remove what needs it with the program that made it, or use a Python whose SQLite has it"
"""Remedy if this SQLite lacks something and the file is undamaged."""


def remedy(problem: str) -> str:
    """What to do about one problem, as part of a sentence."""
    if ABSENT in problem:
        return REMOVE
    if OF_A_CONSTRAINT.search(problem):
        return CORRECT
    return REBUILD if OF_AN_INDEX.search(problem) else RESTORE


def missing_feature(error: sqlite3.Error) -> str:
    """What SQLite would need to read the file, such as `the collation GERMAN`; empty for other errors."""
    text = str(error)
    if not text.startswith(UNKNOWN):
        return ""
    kind = "collation" if "collation" in text else "function"
    return f"the {kind} {text.partition(': ')[2]}"


def describe_missing_feature(db: sqlite3.Connection, error: sqlite3.Error) -> str:
    """`index odd of run needs the function german(), which …`; empty if nothing in the file needs it."""
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
"""Remedy if only an index is damaged."""

OF_A_CONSTRAINT = re.compile(
    r"\bnon-unique entry in index\b|\bCHECK constraint failed in\b|\b(NULL|[\w-]+) value in \S+\."
)
CORRECT = "correct by hand the rows that break the constraint, or restore the file from a backup"
"""Remedy if the pages are valid but rows break a constraint."""


class Problem(NamedTuple):
    """One problem of a file: a line of SQLite, or what this SQLite lacks to read the file, which may be undamaged."""

    text: str
    is_unsupported: bool = False

    def __str__(self) -> str:
        """The line."""
        return self.text


@dataclass(frozen=True, slots=True)
class FileDamage:
    """Damage found in a file.

    Attributes:
        problems: What the check found; empty if there is no damage.
        tables: Names, in lower case, of the tables that are damaged or have a damaged index. Nothing may be decided by
            reading them.
    """

    problems: tuple[Problem, ...] = ()
    tables: frozenset[str] = frozenset()

    def as_plain(self) -> list[object]:
        """Plain lists, for JSON."""
        return [list(map(list, self.problems)), sorted(self.tables)]

    @classmethod
    def from_plain(cls, plain: tuple[Iterable[tuple[str, bool]], Iterable[str]]) -> FileDamage:
        """Make the damage from the lists of `as_plain`."""
        problems, tables = plain
        return cls(tuple(Problem(*each) for each in problems), frozenset(tables))


def check_file(db: sqlite3.Connection) -> FileDamage:
    """Check all of the file. If it is damaged, each table is checked again to find the damaged ones."""
    with pages_read("checking every page", "comparing rows with indexes", file_size(db)):
        problems = run_check(db, f"PRAGMA integrity_check({MAX_PROBLEMS})")
    return FileDamage(tuple(problems), check_tables(db, table_names(db)).tables if problems else frozenset())


def check_tables(db: sqlite3.Connection, tables: Iterable[str]) -> FileDamage:
    """Check only these tables with their indexes: not free pages, nor pages used twice."""
    found = {table: run_check(db, f"PRAGMA integrity_check({quote_literal(table)})") for table in tables}
    lines = tuple(line for problems in found.values() for line in problems)
    return FileDamage(lines, frozenset(table.lower() for table, problems in found.items() if problems))


def table_names(db: sqlite3.Connection) -> list[str]:
    """Names of the file's tables."""
    return [
        str(name)
        for (name,) in db.execute(
            "SELECT name FROM sqlite_master WHERE type = 'table' AND sql NOT LIKE 'create virtual%' ORDER BY rowid"
        )
    ]


def run_check(db: sqlite3.Connection, pragma: str) -> list[Problem]:
    """Run a check.

    Args:
        db: The database.
        pragma: The PRAGMA statement.

    Returns:
        The problems; empty if there are none.

    Raises:
        sqlite3.Error: The check cannot run now.
    """
    found: list[Problem] = []
    try:
        for (text,) in db.execute(pragma):
            lines = [line for line in str(text).splitlines() if line != "ok" and not line.startswith(HEADING)]
            found += map(Problem, lines)
    except sqlite3.DatabaseError as error:
        if str(error).startswith(UNKNOWN):
            what = describe_missing_feature(db, error) or f"the file needs {missing_feature(error)}, {ABSENT}"
            found.append(Problem(what, is_unsupported=True))
        elif getattr(error, "sqlite_errorname", "").startswith(UNREADABLE_ERRORS):
            found.append(Problem(f"the check ended early: {error}"))
        else:
            raise
    return found


def quote_literal(name: str) -> str:
    """A name as a PRAGMA takes it."""
    return "'" + name.replace("'", "''") + "'"


def advice_for(rule: str, name: str) -> str:
    """Return what to do about an SQLite error that ended the check of a rule; `name` is SQLite's name of it."""
    if "BUSY" in name or "LOCKED" in name:
        return "another program holds it: run again"
    return RESTORE if rule == "file-integrity" else "see file-integrity"
