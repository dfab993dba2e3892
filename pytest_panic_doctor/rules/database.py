"""Rules about the whole database: the file, its schema, and rows that belong to nothing."""

from __future__ import annotations

import re
from collections.abc import Iterator

from pytest_panic_doctor.database.generation import TableSchema
from pytest_panic_doctor.database.integrity import ABSENT, REMOVE
from pytest_panic_doctor.database.schema import columns_of, has_rowid
from pytest_panic_doctor.database.subject import Rows
from pytest_panic_doctor.formatting import plural, verb
from pytest_panic_doctor.rules import evidence
from pytest_panic_doctor.rules.base import Finding, RepairKind, RuleContext, Scope, rule

SHOWN = 5
NAMELESS = ("id IS NULL", "id < ''", "id >= x''")
"""An id that is no text: NULL, a number or a blob. SQLite sorts these before and after all texts, so an index finds
them without being read."""


@rule(
    "file-integrity",
    scope=Scope.DATABASE,
    description="SQLite's own check finds nothing wrong",
    manual_fix="restore the file from a backup",
)
def file_integrity(context: RuleContext) -> Iterator[Finding]:
    """`PRAGMA integrity_check`: every page, and every index against its table, since the other rules read by index."""
    context.examined(context.scalar("PRAGMA page_count"), "page")
    for problem in context.integrity(context.db).problems:
        said = (
            f"{problem}, so it cannot be checked: {REMOVE}" if ABSENT in problem else f"SQLite's check says: {problem}"
        )
        yield context.finding(said, count=1)


@rule(
    "schema",
    scope=Scope.DATABASE,
    description="every table and column exists (a missing UNIQUE constraint: a warning)",
    manual_fix="migrate the file with the research tool",
)
def schema(context: RuleContext) -> Iterator[Finding]:
    """Tables and columns by name, in any case of letters.

    A missing UNIQUE constraint is worth a warning and no more: two of the three are added by migrations alone.
    """
    version = context.generation.schema_version(context.db)
    if version.note:
        yield context.finding(f"the schema ({version.name}) is {version.note}", count=1, warning=True)
    for each in context.generation.tables:
        if not version.number or each.since <= version.number:
            yield from table_problems(context, each, version.number)


def table_problems(context: RuleContext, described: TableSchema, version: int) -> Iterator[Finding]:
    """What is wrong with one table, by its name in the file; `version` is the schema's, 0: everything must be there."""
    table, canonical = described.name, described.canonical
    columns = columns_of(context.db, table)
    context.examined(1 if columns else 0, "table")
    expected = [each.name for each in described.columns if not version or each.since <= version]
    missing = [name for name in expected if name not in columns]
    if not columns:
        yield context.finding(f"table {table} does not exist", table=canonical, count=1)
    elif missing:
        noun = plural(len(missing), "column")
        yield context.finding(f"table {table} lacks {noun}: {', '.join(missing)}", table=canonical, count=len(missing))
    elif problem := unlike_a_table(context, table):
        yield context.finding(
            f"{table} {problem}: the rules about its rows cannot be applied", table=canonical, count=1
        )
    else:
        yield from wrong_ids(context, canonical)
    for wanted, since in described.unique:
        if (not version or since <= version) and columns.issuperset(wanted) and not is_unique(context, table, wanted):
            text = f"{table} has no UNIQUE ({', '.join(wanted)})"
            yield context.finding(text, table=canonical, count=1, warning=True)


def unlike_a_table(context: RuleContext, table: str) -> str:
    """Why the rows of `table` cannot be told apart by rowid, as the rules and the repairs do; empty where they can."""
    kind, sql = context.db.execute(
        "SELECT type, sql FROM sqlite_master WHERE name = ? COLLATE NOCASE AND type IN ('table', 'view')", (table,)
    ).fetchone()
    if kind != "table" or str(sql).lstrip().upper().startswith("CREATE VIRTUAL"):
        return "is not an ordinary table"
    if any(str(row[1]).lower() == "rowid" for row in context.db.execute(f"PRAGMA table_xinfo({table})")):
        return "has a column that is called rowid"
    if not has_rowid(context.db, table):
        return "is WITHOUT ROWID"
    if re.search(r"\bCOLLATE\s+(?![\"'`\[]?BINARY\b)", str(sql), re.IGNORECASE):
        return "compares texts by another collation than BINARY"
    return ""


def wrong_ids(context: RuleContext, table: str) -> Iterator[Finding]:
    """Rows that nothing can name, for want of an id or because others have the same."""
    if nameless := sum(context.scalar(f"SELECT count(*) FROM {table} WHERE {each}") for each in NAMELESS):
        has = verb(nameless, "has", "have")
        text = f"{plural(nameless, 'row')} of {table} {has} no id, or one that is not a text, so nothing can name them"
        yield context.finding(text, table=table, count=nameless)
    if is_unique(context, table, ("id",)):
        return
    again = f"SELECT id, count(*) FROM {table} WHERE typeof(id) = 'text' GROUP BY id HAVING count(*) > 1 ORDER BY id"
    found = context.db.execute(again).fetchall()
    if found:
        rows = sum(count for _, count in found)
        text = f"{rows:,} rows of {table} have {plural(len(found), 'id')} between them, so an id does not name one row"
        yield context.finding(text, table=table, ids=[row_id for row_id, _ in found], count=rows)


def is_unique(context: RuleContext, table: str, columns: tuple[str, ...]) -> bool:
    """Whether a UNIQUE index of `table` is exactly on `columns`, in any order, for all rows.

    `table` is its name in the file, or the one by which rules know it; `columns` are those of the file.
    """
    table = context.generation.real_name(table)
    for _, index, unique, _, partial in context.db.execute(f"PRAGMA index_list({table})").fetchall():
        if unique and not partial:
            names = {str(row[2]).lower() for row in context.db.execute("SELECT * FROM pragma_index_info(?)", (index,))}
            if names == set(columns):
                return True
    return False


@rule(
    "orphan-run",
    scope=Scope.DATABASE,
    description="every run belongs to an experiment",
    repair=RepairKind.QUARANTINE,
)
def orphan_run(context: RuleContext) -> Iterator[Finding]:
    """Runs whose experiment does not exist."""
    yield from orphans(context, "run", "experiment_id", "experimentconfig", "an experiment")


@rule(
    "orphan-invocation",
    scope=Scope.DATABASE,
    description="every invocation belongs to a run",
    repair=RepairKind.QUARANTINE,
)
def orphan_invocation(context: RuleContext) -> Iterator[Finding]:
    """Invocations whose run does not exist.

    One that stands before or after an invocation of a run that exists has lost its reference, and not its run.
    """
    yield from orphans(context, "invocation", "run_id", "run", "a run", beside=NEIGHBOURS)


@rule(
    "orphan-embedding",
    scope=Scope.DATABASE,
    description="every embedding belongs to an invocation",
    repair=RepairKind.QUARANTINE,
)
def orphan_embedding(context: RuleContext) -> Iterator[Finding]:
    """Embeddings whose invocation does not exist."""
    yield from orphans(context, "embedding", "invocation_id", "invocation", "an invocation")


@rule(
    "orphan-diagram",
    scope=Scope.DATABASE,
    description="every diagram belongs to a run",
    repair=RepairKind.QUARANTINE,
    requires=("orphan-invocation",),
)
def orphan_diagram(context: RuleContext) -> Iterator[Finding]:
    """Diagrams whose run does not exist.

    Where invocations name the same run, it is that row which is lost, and not the diagram that is wrong.
    """
    yield from orphans(context, "persistencediagram", "run_id", "run", "a run", noun="diagram", beside=OF_ITS_RUN)


NEIGHBOURS = (
    "(EXISTS (SELECT 1 FROM invocation n JOIN run r ON r.id = n.run_id WHERE n.id = c.input_invocation_id) "
    "OR EXISTS (SELECT 1 FROM invocation n JOIN run r ON r.id = n.run_id WHERE n.input_invocation_id = c.id))",
    "the ones before or after belong to a run that exists; correct the reference",
)
OF_ITS_RUN = (
    "EXISTS (SELECT 1 FROM invocation i WHERE i.run_id = c.run_id)",
    "invocations of the same run are there (orphan-invocation)",
)
"""What speaks against an orphan `c` by the rows beside it, as SQL and in words."""


def orphans(
    context: RuleContext,
    table: str,
    column: str,
    parent: str,
    parent_noun: str,
    noun: str | None = None,
    beside: tuple[str, str] | None = None,
) -> Iterator[Finding]:
    """Rows of `table` whose `column` names no row of `parent`.

    The inner query touches nothing but the index on `column`; the rows themselves, 4 KB a piece, are read only for
    offenders. Where the parent is there under another spelling, the row is no orphan, and is not taken for one; nor
    where `beside`, SQL about a row `c` and a reason, says that the rows beside it speak against it.
    """
    total = context.scalar(f"SELECT count(*) FROM {table}")
    context.examined(total, table)
    lost = f"NOT EXISTS (SELECT 1 FROM {parent} p WHERE p.id = c.{column})"
    if not context.scalar(f"SELECT EXISTS (SELECT 1 FROM {table} c WHERE {lost})"):
        return
    there = evidence.misspelt(context, table, column, parent, lost)
    rows = evidence.taken(table, column, f"{lost} AND NOT {beside[0]}" if beside else lost, there)

    def message(count: int) -> str:
        does = verb(count, "does", "do")
        return f"{count:,} of {plural(total, noun or table)} {does} not belong to {parent_noun} that exists"

    def details() -> str:
        named = context.db.execute(
            f"SELECT {column}, count(*) FROM {table} WHERE id IN ({rows.sql}) GROUP BY 1 ORDER BY 2 DESC LIMIT {SHOWN}",
            rows.params,
        ).fetchall()
        return ", ".join(f"{count:,} {verb(count, 'names', 'name')} {value or 'none'}" for value, count in named)

    if there is None:
        yield from evidence.left(
            context, rows, message, f"the references are spelt differently from the ids of {parent}"
        )
        return
    yield from context.finding_for_rows(rows, message, details)
    if there:
        misspelt = Rows(
            table,
            f"SELECT c.id FROM {table} c WHERE {lost} AND CAST(c.{column} AS TEXT) IN ({evidence.LISTED})",
            evidence.listed(there),
        )
        reason = f"{evidence.shown(there)}; correct the reference, or that id"
        yield from evidence.left(context, misspelt, message, reason)
    if beside:
        named = f" AND CAST(c.{column} AS TEXT) NOT IN ({evidence.LISTED})" if there else ""
        rest = Rows(table, f"SELECT c.id FROM {table} c WHERE {lost} AND {beside[0]}{named}", evidence.listed(there))
        yield from evidence.left(context, rest, message, beside[1])
