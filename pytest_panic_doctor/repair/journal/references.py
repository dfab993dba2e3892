"""Finds which rows depend on which: the references of a trajectory database, and others that the file declares."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

from pytest_panic_doctor.database.generation import Generation
from pytest_panic_doctor.database.schema import quote
from pytest_panic_doctor.repair.journal.tables import generation_of_file, tables


@dataclass(frozen=True, slots=True)
class Reference:
    """Rows of one table that refer to rows of another.

    Attributes:
        child: The referring table, in lower case.
        column: The referring column.
        parent: The table whose ids the column holds, in lower case.
        plain: Whether the reference is one column to an id; only then can rows be taken along.
    """

    child: str
    column: str
    parent: str
    plain: bool = True

    @property
    def key(self) -> tuple[str, str, str]:
        """The reference, with its names in lower case."""
        return self.child, self.column.lower(), self.parent


def references(connection: sqlite3.Connection) -> list[Reference]:
    """Return the references along which a quarantine takes rows: the known ones, then others that the file declares.

    The one to a predecessor is left out: a successor stays when its predecessor goes.
    """
    generation = generation_of_file(connection)
    existing = {name.lower(): name for name in tables(connection)}
    found = [Reference(*known) for known in generation.references if known[0] in existing and known[2] in existing]
    keys = {each.key for each in [*found, *to_predecessor(generation)]}
    for child, name in sorted(existing.items()):
        by_key: dict[int, list[tuple[str, str, str | None]]] = {}
        for number, _, parent, column, to, *_ in connection.execute(f"PRAGMA main.foreign_key_list({quote(name)})"):
            by_key.setdefault(number, []).append((column, str(parent).lower(), to))
        for (column, parent, to), *more in by_key.values():
            each = Reference(child, column, parent, not more and (to is None or to.lower() == "id"))
            if parent in existing and each.key not in keys:
                found.append(each)
                keys.add(each.key)
    return found


def to_predecessor(generation: Generation) -> list[Reference]:
    """Return the reference of a row to its predecessor, if there is one."""
    succession = generation.succession
    return [Reference(succession.table, succession.column, succession.table)] if succession else []


def has_index_for(connection: sqlite3.Connection, each: Reference) -> bool:
    """Return whether an index finds the rows of a reference, so that the table need not be scanned."""
    for _, index, _, _, partial in connection.execute(f"PRAGMA main.index_list({quote(each.child)})").fetchall():
        first = connection.execute(f"PRAGMA main.index_info({quote(index)})").fetchone()
        if not partial and str(first[2]).lower() == each.column.lower():
            return True
    return False
