"""Evidence against a repair: a row that only seems wrong, because another row is damaged, is not quarantined."""

from __future__ import annotations

import json
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial

from pytest_panic_doctor.database.spelling import nearly_equal, normalized_id_sql, one_character_variants
from pytest_panic_doctor.database.subject import Rows
from pytest_panic_doctor.formatting import name_first
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


LISTED = "SELECT value FROM json_each(:named)"


def spelling_params(ids_by_name: dict[str, str]) -> dict[str, str | int | None]:
    """Return the SQL parameter of `LISTED`."""
    return {"named": json.dumps(list(ids_by_name))}


def describe_spellings(ids_by_name: dict[str, str]) -> str:
    """Describe other spellings, e.g. `a exists as A, b as B and 3 more`."""
    return name_first([f"{name} exists as {row_id}" for name, row_id in ids_by_name.items()], EVIDENCE_SHOWN)


def commonest(context: RuleContext, column: str, rows: Rows) -> list[tuple[object, int]]:
    """Return the five commonest values of a column in some rows, each with its number."""
    sql = f"SELECT {column}, count(*) FROM {rows.table} WHERE id IN ({rows.sql}) GROUP BY 1 ORDER BY 2 DESC LIMIT 5"
    return context.db.execute(sql, rows.params).fetchall()


def findings_by_reason(
    context: RuleContext,
    found: Rows,
    reasons: Mapping[str, str],
    message: Callable[[int], str],
    details: Callable[[Rows], str] | None = None,
) -> Iterator[Finding]:
    """Yield a finding about the rows to quarantine, and one about those that stay for each reason.

    Args:
        context: The snapshot.
        found: All of them; a condition is put in the place of `{}` in its query.
        reasons: SQL conditions, never NULL, under which a row is not quarantined, with the reason in words; of several
            the first is named.
        message: Makes the message for a number of rows.
        details: Makes what follows the message about the rows to quarantine.
    """

    def those(condition: str) -> Rows:
        return replace(found, sql=found.sql.format(condition))

    taken = those("".join(f"NOT ({each}) AND " for each in reasons) + "1")
    yield from context.finding_for_rows(taken, message, partial(details, taken) if details else None)
    for place, (condition, reason) in enumerate(reasons.items()):
        earlier = "".join(f" AND NOT ({each})" for each in list(reasons)[:place])
        yield from unrepaired_finding(context, those(f"({condition}){earlier}"), message, reason)


def misspelt_models(found: Iterable[tuple[object, Iterable[str]]], known: Container[str]) -> tuple[str, str]:
    """Find unused embedding models whose names may be misspelt.

    Args:
        found: The names that an experiment does not use, each with the names that it does use.
        known: The models whose type is known, which are never taken for a misspelling.

    Returns:
        The names as JSON, for the parameter `:near`, and what they may mean, as a reason.
    """
    near = {str(name): meant for name, used in found if (meant := meant_by(name, used, known))}
    choices = ", ".join(f"{name} may be {meant}" for name, meant in near.items())
    return json.dumps(list(near)), f"{choices}, misspelt: correct the name"


def meant_by(name: object, used: Iterable[str], known: Container[str]) -> str:
    """Return the used model that an unused name may be a misspelling of; empty if there is none."""
    if not isinstance(name, str) or name in known:
        return ""
    return next((each for each in used if nearly_equal(name, each)), "")


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
