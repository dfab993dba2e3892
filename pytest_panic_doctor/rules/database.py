"""Rules about the whole database: the file, its schema, and rows without a parent."""

from __future__ import annotations

import re
from collections.abc import Iterator

from pytest_panic_doctor.database.generation import TableSchema
from pytest_panic_doctor.database.integrity import REMOVE
from pytest_panic_doctor.database.schema import affinity, columns_of, declared_types, has_rowid, is_unique
from pytest_panic_doctor.database.subject import Rows
from pytest_panic_doctor.formatting import plural, verb
from pytest_panic_doctor.rules import evidence
from pytest_panic_doctor.rules.base import Finding, RepairKind, RuleContext, Scope, rule

NAMELESS_IDS = ("id IS NULL", "id < ''", "id >= x''")
"""SQL conditions for an id that is NULL, a number or a blob.

SQLite sorts these before and after all texts, so an index finds them without reading them.
"""


@rule(
    "file-integrity",
    scope=Scope.DATABASE,
    description="SQLite's own check finds nothing wrong",
    manual_fix="restore the file from a backup",
)
def file_integrity(context: RuleContext) -> Iterator[Finding]:
    """Run `PRAGMA integrity_check`: every page, and every index against its table.

    Example: a page overwritten by a failing disk. The other rules read through the indexes, so that they would miss
    rows that an index has lost. Nothing repairs this: the file has to be restored from a backup.
    """
    context.examined(context.scalar("PRAGMA page_count"), "page")
    for problem in context.integrity(context.db).problems:
        unsupported = f"{problem}, so it cannot be checked: {REMOVE}"
        message = unsupported if problem.is_unsupported else f"SQLite's check says: {problem}"
        yield context.finding(message, count=1)


@rule(
    "schema",
    scope=Scope.DATABASE,
    description="every table and column exists, of a type that keeps values (a missing UNIQUE constraint: a warning)",
    manual_fix="migrate the file with the research tool",
)
def schema(context: RuleContext) -> Iterator[Finding]:
    """Compare tables and columns by name, without regard to case, and by type where another would change values.

    Example: the column `vector` is missing, so that nothing can be examined. Nothing repairs this. A missing UNIQUE
    constraint is only a warning, because two of the three are added by migrations.
    """
    version = context.generation.schema_version(context.db)
    if version.note:
        yield context.finding(f"the schema ({version.name}) is {version.note}", count=1, warning=True)
    for each in context.generation.tables:
        if not version.number or each.since <= version.number:
            yield from table_problems(context, each, version.number)


def table_problems(context: RuleContext, described: TableSchema, version: int) -> Iterator[Finding]:
    """Find what is wrong with one table.

    Args:
        context: The snapshot.
        described: The table as the generation defines it.
        version: The schema version of the file; 0 requires all tables and columns.

    Yields:
        One finding for each problem.
    """
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
        yield from converting_columns(context, described)
    for wanted, since in described.unique:
        if (
            (not version or since <= version)
            and columns.issuperset(wanted)
            and not is_unique(context.db, table, wanted)
        ):
            text = f"{table} has no UNIQUE ({', '.join(wanted)})"
            yield context.finding(text, table=canonical, count=1, warning=True)


CHANGED = {"INTEGER": ("TEXT", "REAL"), "TEXT": ("INTEGER", "REAL", "NUMERIC")}
"""By the type that SQLite stores a column's values as, the types that it would turn them into something else for.

An integer becomes a text or a fraction, and a text of digits, such as an id, a number.
"""


def converting_columns(context: RuleContext, described: TableSchema) -> Iterator[Finding]:
    """Find columns of a type that changes what the research tool writes into them."""
    declared = declared_types(context.db, described.name)
    wrong = [
        f"{each.name} is {declared[each.name]} instead of {each.type}"
        for each in described.columns
        if affinity(declared.get(each.name, "")) in CHANGED.get(affinity(each.type), ())
    ]
    if wrong:
        text = f"columns of {described.name} have a type that changes values: {', '.join(wrong)}"
        yield context.finding(text, table=described.canonical, count=len(wrong))


def unlike_a_table(context: RuleContext, table: str) -> str:
    """Explain why rows of a table cannot be identified by rowid, as rules and repairs require; empty if they can."""
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
    """Find rows that cannot be identified, because their id is not a text or is not unique."""
    if nameless := sum(context.scalar(f"SELECT count(*) FROM {table} WHERE {each}") for each in NAMELESS_IDS):
        has = verb(nameless, "has", "have")
        text = f"{plural(nameless, 'row')} of {table} {has} no id, or one that is not a text, so nothing can name them"
        yield context.finding(text, table=table, count=nameless)
    if is_unique(context.db, context.generation.real_name(table), ("id",)):
        return
    again = f"SELECT id, count(*) FROM {table} WHERE typeof(id) = 'text' GROUP BY id HAVING count(*) > 1 ORDER BY id"
    found = context.db.execute(again).fetchall()
    if found:
        rows = sum(count for _, count in found)
        text = f"{rows:,} rows of {table} have {plural(len(found), 'id')} between them, so an id does not name one row"
        yield context.finding(text, table=table, ids=[row_id for row_id, _ in found], count=rows)


@rule(
    "orphan-run",
    scope=Scope.DATABASE,
    description="every run belongs to an experiment",
    repair=RepairKind.QUARANTINE,
)
def orphan_run(context: RuleContext) -> Iterator[Finding]:
    """Find runs whose experiment does not exist.

    Example: an experiment was deleted by hand, and its runs stayed. No rule for experiments examines them. They are
    quarantined together with everything below them.
    """
    yield from orphans(context, "run", "experiment_id", "experimentconfig", "an experiment")


@rule(
    "orphan-invocation",
    scope=Scope.DATABASE,
    description="every invocation belongs to a run",
    repair=RepairKind.QUARANTINE,
)
def orphan_invocation(context: RuleContext) -> Iterator[Finding]:
    """Find invocations whose run does not exist.

    Example: a run was deleted by hand. Its invocations are quarantined. If an invocation is the input or the output of
    one whose run exists, only its reference is damaged, and it stays.
    """
    yield from orphans(context, "invocation", "run_id", "run", "a run", beside=NEIGHBOURS)


@rule(
    "orphan-embedding",
    scope=Scope.DATABASE,
    description="every embedding belongs to an invocation",
    repair=RepairKind.QUARANTINE,
)
def orphan_embedding(context: RuleContext) -> Iterator[Finding]:
    """Find embeddings whose invocation does not exist.

    Example: an invocation was deleted by hand. Its embeddings take space and belong to no trajectory. They are
    quarantined.
    """
    yield from orphans(context, "embedding", "invocation_id", "invocation", "an invocation")


@rule(
    "orphan-diagram",
    scope=Scope.DATABASE,
    description="every diagram belongs to a run",
    repair=RepairKind.QUARANTINE,
    requires=("orphan-invocation",),
)
def orphan_diagram(context: RuleContext) -> Iterator[Finding]:
    """Find diagrams whose run does not exist.

    Example: a run was deleted by hand. Its diagrams are quarantined. If invocations name the same run, the run itself
    is what was lost, and the diagram stays.
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
"""SQL condition under which an orphan `c` is not quarantined because of other rows, and the reason in words."""


def orphans(
    context: RuleContext,
    table: str,
    column: str,
    parent: str,
    parent_noun: str,
    noun: str | None = None,
    beside: tuple[str, str] | None = None,
) -> Iterator[Finding]:
    """Find rows whose reference has no row.

    Only the index on the column is read, and the rows themselves (4 KB each) only for findings.

    Args:
        context: The snapshot.
        table: The table of the rows.
        column: The column that holds the reference.
        parent: The table of the referenced rows.
        parent_noun: What a message calls the referenced row.
        noun: What a message calls the row; by default the noun of its table.
        beside: An SQL condition on a row `c` under which it is not quarantined, and the reason in words.

    Yields:
        One finding for the rows to quarantine, and one for those that stay: their parent exists under another spelling,
        or `beside` applies.
    """
    total = context.scalar(f"SELECT count(*) FROM {table}")
    context.examined(total, table)
    lost = f"NOT EXISTS (SELECT 1 FROM {parent} p WHERE p.id = c.{column})"
    if not context.scalar(f"SELECT EXISTS (SELECT 1 FROM {table} c WHERE {lost})"):
        return
    similar = evidence.misspelt(context, table, column, parent, lost)
    reasons = {}
    if similar is None:
        reasons["1"] = f"the references are spelt differently from the ids of {parent}"
    elif similar:
        # Never NULL: a reference that is NULL is not misspelt.
        misspelt = f"c.{column} IS NOT NULL AND CAST(c.{column} AS TEXT) IN ({evidence.LISTED})"
        reasons[misspelt] = f"{evidence.describe_spellings(similar)}; correct the reference, or that id"
    reasons |= dict([beside] if beside else [])
    inner = f"SELECT c.rowid FROM {table} c WHERE {lost} AND {{}}"
    rows = Rows(table, f"SELECT id FROM {table} WHERE rowid IN ({inner})", evidence.spelling_params(similar or {}))

    def message(count: int) -> str:
        does = verb(count, "does", "do")
        return f"{count:,} of {plural(total, noun or table)} {does} not belong to {parent_noun} that exists"

    def details(taken: Rows) -> str:
        named = evidence.commonest(context, column, taken)
        return ", ".join(f"{count:,} {verb(count, 'names', 'name')} {value or 'none'}" for value, count in named)

    yield from evidence.findings_by_reason(context, rows, reasons, message, details)
