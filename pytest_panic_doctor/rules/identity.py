"""The rule about how ids are written."""

from __future__ import annotations

from collections.abc import Iterator

from pytest_panic_doctor.database.schema import NOUNS, TABLES
from pytest_panic_doctor.database.subject import Rows
from pytest_panic_doctor.formatting import plural, verb
from pytest_panic_doctor.rules.base import Finding, Scope, View, rule

MALFORMED = "(typeof(id) <> 'text' OR length(id) <> 32 OR trim(id, '0123456789abcdef') <> '')"
"""An id that is no UUID as the research tool stores it, NULL among them: 32 hex digits in lower case."""

SHOWN = 3


@rule(
    "id-format",
    scope=Scope.DATABASE,
    sentence="every id is a UUID of 32 hex digits in lower case, without dashes",
    remedy="correct the ids, and all that refers to them, by hand",
)
def id_format(view: View) -> Iterator[Finding]:
    """Every table's own ids, over their index. A reference that is written otherwise names no row: see the orphans.

    The research tool asks for a row by 32 hex digits in lower case, so that it never finds one of another id.
    """
    for table in TABLES:
        rows = Rows(table, f"SELECT id FROM {table} WHERE {MALFORMED}")
        noun = NOUNS[table]

        def message(count: int, noun: str = noun) -> str:
            has = verb(count, "has an id that is", "have ids that are")
            return f"{plural(count, noun)} {has} no UUID of 32 hex digits in lower case"

        def details(rows: Rows = rows) -> str:
            found = view.db.execute(f"SELECT quote(id) FROM {rows.table} WHERE {MALFORMED} LIMIT {SHOWN}")
            return ", ".join(str(text)[:60] for (text,) in found)

        yield from view.offenders(rows, message, details, of=f"SELECT count(*) FROM {table}")
