"""The rule about the format of ids."""

from __future__ import annotations

from collections.abc import Iterator

from pytest_panic_doctor.database.schema import NOUNS, TABLES, columns_of
from pytest_panic_doctor.database.subject import Rows
from pytest_panic_doctor.formatting import plural, verb
from pytest_panic_doctor.rules.base import Finding, RuleContext, Scope, rule

DIGIT = "[0-9a-f]"

SHOWN = 3


@rule(
    "id-format",
    scope=Scope.DATABASE,
    description="every id is a UUID in lower case, with dashes in the Elixir generation and without in the Python "
    "generation",
    manual_fix="correct the ids, and all that refers to them, by hand",
)
def id_format(context: RuleContext) -> Iterator[Finding]:
    """Check each table's own ids, by their index. References in another format are found by the orphan rules.

    Example: an id in upper case. The research tool queries 32 lower-case hex digits, so that it never finds the row.
    Nothing repairs this.
    """
    malformed, form = malformed_id(context.generation.dashed_ids)
    for table in context.generation.tables:
        if table.canonical not in TABLES and not columns_of(context.db, table.canonical):
            continue  # An older schema has not every table.
        rows = Rows(table.canonical, f"SELECT id FROM {table.canonical} WHERE {malformed}")
        noun = NOUNS[table.canonical]

        def message(count: int, noun: str = noun) -> str:
            has = verb(count, "has an id that is not a UUID", "have ids that are not UUIDs")
            return f"{plural(count, noun)} {has} {form}"

        def details(rows: Rows = rows) -> str:
            found = context.db.execute(f"SELECT quote(id) FROM {rows.table} WHERE {malformed} LIMIT {SHOWN}")
            return ", ".join(str(text)[:60] for (text,) in found)

        yield from context.finding_for_rows(rows, message, details, of=f"SELECT count(*) FROM {table.canonical}")


def malformed_id(dashed: bool) -> tuple[str, str]:
    """Describe a valid id.

    Args:
        dashed: Whether this generation stores ids with dashes.

    Returns:
        The SQL condition that an id is NULL or not a UUID as the research tool stores it; and the format in words.
    """
    if not dashed:
        return (
            "(typeof(id) <> 'text' OR length(id) <> 32 OR trim(id, '0123456789abcdef') <> '')",
            "of 32 hex digits in lower case",
        )
    pattern = "-".join(DIGIT * count for count in (8, 4, 4, 4, 12))
    return f"(typeof(id) <> 'text' OR id NOT GLOB '{pattern}')", "in lower case with dashes"
