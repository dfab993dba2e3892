"""Finds which rows depend on which: the references of a trajectory database, and others that the file declares."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

from pytest_panic_doctor.database.schema import quote
from pytest_panic_doctor.repair.journal.tables import REFERENCES, tables

SUCCESSION = ("invocation", "input_invocation_id", "invocation")
"""The one reference that is not followed: a successor stays when its predecessor goes.

The rule orphan-invocation finds no row that has a successor in a run.
"""


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
    """Return all references of a file: the known ones, then those that it declares beside them."""
    there = {name.lower(): name for name in tables(connection)}
    found = [Reference(*known) for known in REFERENCES if known[0] in there and known[2] in there]
    keys = {each.key for each in found} | {SUCCESSION}
    for child, name in sorted(there.items()):
        by_key: dict[int, list[tuple[str, str, str | None]]] = {}
        for number, _, parent, column, to, *_ in connection.execute(f"PRAGMA main.foreign_key_list({quote(name)})"):
            by_key.setdefault(number, []).append((column, str(parent).lower(), to))
        for (column, parent, to), *more in by_key.values():
            each = Reference(child, column, parent, not more and (to is None or to.lower() == "id"))
            if parent in there and each.key not in keys:
                found.append(each)
                keys.add(each.key)
    return found
