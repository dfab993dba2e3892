"""What hangs on what: the references of a trajectory database, and those that other tables of the file declare."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

from pytest_panic_doctor.repair.journal.tables import REFERENCES, quote, tables

SUCCESSION = ("invocation", "input_invocation_id", "invocation")
"""A successor does not hang on its predecessor, and stays; `orphan-invocation` takes none that has one in a run."""


@dataclass(frozen=True, slots=True)
class Reference:
    """Rows of the table `child` name by `column` the ids of rows of `parent`; tables by their names in lower case.

    `plain`: by one column, and the parent's id; only then can rows be taken along.
    """

    child: str
    column: str
    parent: str
    plain: bool = True

    @property
    def key(self) -> tuple[str, str, str]:
        """The reference without what its names look like."""
        return self.child, self.column.lower(), self.parent


def references(connection: sqlite3.Connection) -> list[Reference]:
    """All of a file, whatever the case of its names: those that are known, then those that are declared besides."""
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
