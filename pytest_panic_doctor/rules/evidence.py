"""Evidence against a repair: a row that only seems wrong, because another row is damaged, is not quarantined."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

from pytest_panic_doctor.database.spelling import normalized_id_sql, one_character_variants
from pytest_panic_doctor.database.subject import Rows
from pytest_panic_doctor.rules.base import IDS_KEPT, Finding, RuleContext

CLOSE_LOOKS = 1_000
"""Maximum number of dangling references that are compared for a single wrong character; more have another cause."""

EVIDENCE_SHOWN = 3


def misspelt(context: RuleContext, table: str, column: str, parent: str, lost: str) -> dict[str, str] | None:
    """Find the dangling references whose row exists under another spelling.

    Args:
        context: The snapshot.
        table: The table of the references.
        column: The column that holds them.
        parent: The table of the referenced rows.
        lost: SQL condition for a row `c` of `table` whose reference has no row.

    Returns:
        The id of the existing row for each reference; None if there are too many, so that none can be trusted.
    """
    lost_ones = f"SELECT DISTINCT c.{column} AS name FROM {table} c WHERE {lost} AND c.{column} IS NOT NULL"
    spelt = f"SELECT id, {normalized_id_sql('id')} AS plain FROM {parent} WHERE id IS NOT NULL"
    found = context.db.execute(
        f"SELECT CAST(l.name AS TEXT), CAST(p.id AS TEXT) FROM ({lost_ones}) l "
        f"JOIN ({spelt}) p ON p.plain = {normalized_id_sql('l.name')} LIMIT ?",
        (IDS_KEPT + 1,),
    ).fetchall()
    if len(found) > IDS_KEPT:
        return None
    ids_by_name = {str(name): str(row_id) for name, row_id in found}
    names = context.db.execute(f"{lost_ones} AND typeof(c.{column}) = 'text' LIMIT ?", (CLOSE_LOOKS + 1,)).fetchall()
    if len(names) <= CLOSE_LOOKS:
        for (name,) in names:
            near = json.dumps(list(one_character_variants(name)))
            query = f"SELECT p.id FROM json_each(?) j JOIN {parent} p ON p.id = j.value LIMIT 1"
            for (row_id,) in context.db.execute(query, (near,)) if name not in ids_by_name else ():
                ids_by_name[name] = str(row_id)
    return ids_by_name


def quarantinable_rows(table: str, column: str, lost: str, ids_by_name: dict[str, str] | None) -> Rows:
    """Select the rows of `table` whose reference really has no row: those to quarantine."""
    sure = f" AND (c.{column} IS NULL OR CAST(c.{column} AS TEXT) NOT IN ({LISTED}))" if ids_by_name else ""
    inner = f"SELECT c.rowid FROM {table} c WHERE {lost}{sure}"
    return Rows(
        table, f"SELECT id FROM {table} WHERE rowid IN ({inner})", spelling_params(ids_by_name) if ids_by_name else {}
    )


LISTED = "SELECT value FROM json_each(:named)"


def spelling_params(ids_by_name: dict[str, str]) -> dict[str, str | int | None]:
    """Return the SQL parameter of `LISTED`."""
    return {"named": json.dumps(list(ids_by_name))}


def describe_spellings(ids_by_name: dict[str, str]) -> str:
    """Describe other spellings, e.g. `a exists as A, b as B and 3 more`."""
    first = [f"{name} exists as {row_id}" for name, row_id in list(ids_by_name.items())[:EVIDENCE_SHOWN]]
    more = f" and {len(ids_by_name) - EVIDENCE_SHOWN:,} more" if len(ids_by_name) > EVIDENCE_SHOWN else ""
    return ", ".join(first) + more


def unrepaired_finding(
    context: RuleContext, rows: Rows, message: Callable[[int], str], reason: str
) -> Iterator[Finding]:
    """Yield a finding about rows that seem wrong and that no repair touches.

    Args:
        context: The snapshot.
        rows: The rows.
        message: The message for their number.
        reason: Why they are not repaired.
    """
    for finding in context.finding_for_rows(rows, message):
        yield finding.without_repair(reason)
