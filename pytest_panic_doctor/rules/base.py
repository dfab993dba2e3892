"""The parts of a rule: scope, finding, context of a check, and the rule itself."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Literal, TypeVar

from pytest_panic_doctor.database import integrity as integrities
from pytest_panic_doctor.database.generation import Generation
from pytest_panic_doctor.database.generations import generation_of
from pytest_panic_doctor.database.integrity import FileDamage, check_file
from pytest_panic_doctor.database.python_generation import PYTHON
from pytest_panic_doctor.database.subject import Rows, Subject

BUILT_IN = "built in"
"""The source of a rule of this package."""

if TYPE_CHECKING:
    from pytest_panic_doctor.database.memory_room import MemoryRoom
    from pytest_panic_doctor.rules.embedder import Embedder

IDS_KEPT = 10_000
"""Maximum number of row ids in a finding; its count stays exact."""

T = TypeVar("T")

Kind = Literal["TEXT", "IMAGE"]
"""What an embedding model embeds, as in `invocation.type`."""


class Scope(StrEnum):
    """What one item of a rule examines."""

    DATABASE = "database"
    EXPERIMENT = "experiment"
    RUN = "run"
    EXPERIMENT_MODEL = "experiment x embedding model"
    RUN_MODEL = "run x embedding model"


class RepairKind(StrEnum):
    """How `--doctor-fix` repairs the findings of a rule."""

    QUARANTINE = "quarantine"
    KEEP_NEWEST = "quarantine all but the newest usable one"
    KEEP_CURRENT = "quarantine all but the newest that is valid and current"
    COMPUTE = "compute"
    LYAPUNOV = "compute, and quarantine surplus results"
    EMBED = "embedding hook"


class NotApplicable(Exception):
    """Raised by a check that has nothing to examine. The item is skipped, never passed; the message is the reason."""


class NotExaminable(Exception):
    """Raised if the subject of an item cannot be queried. The item fails; the message is the reason."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One defect, or one kind of defect, in one subject.

    `ids` are the damaged rows of `table` as stored (32 hex digits; as an SQL literal if not a text), at most 10,000;
    `count` is exact. `rows` finds them all again when they are repaired. `blocked_by` names what must be corrected
    before the repair: rules, or the ini key `doctor_text_models` if the type of the embedding model is unknown. A
    `warning` lets the item pass. `not_repaired` says why no repair is made, although the rule has one. `runs`, which
    the doctor fills in, count the `ids` of an experiment's finding by run.
    """

    rule: str
    message: str
    experiment: str | None = None
    run: str | None = None
    embedding_model: str | None = None
    table: str | None = None
    ids: tuple[str, ...] = ()
    count: int = 0
    rows: Rows | None = field(default=None, compare=False, repr=False)
    warning: bool = False
    blocked_by: tuple[str, ...] = ()
    not_repaired: str = ""
    runs: Mapping[str, int] = field(default_factory=dict, compare=False)

    @property
    def sentence(self) -> str:
        """The finding as `rule [embedding model]: message`."""
        where = f" [{self.embedding_model}]" if self.embedding_model else ""
        return f"{self.rule}{where}: {self.message}"

    def without_repair(self, reason: str) -> Finding:
        """Return the finding with the reason why no repair is made, which also ends the message; itself without one."""
        message = f"{self.message}; not repaired: {reason}"
        return replace(self, message=message, rows=None, not_repaired=reason) if reason else self

    def as_dict(self) -> dict[str, object]:
        """Convert to the form of the JSON report."""
        names = ("rule", "experiment", "run", "embedding_model", "table")
        plain: dict[str, object] = {name: getattr(self, name) for name in names}
        plain |= {"ids": list(self.ids), "count": self.count, "message": self.message}
        plain |= {"blocked_by": list(self.blocked_by)} if self.blocked_by else {}
        plain |= {"not_repaired": self.not_repaired} if self.not_repaired else {}
        return plain | ({"runs": dict(self.runs)} if self.runs else {})

    @classmethod
    def from_dict(cls, plain: Mapping[str, object]) -> Finding:
        """Make a finding from the result of `as_dict`."""
        ids, blocked_by = plain["ids"], plain.get("blocked_by", ())
        return cls(**{**plain, "ids": tuple(ids), "blocked_by": tuple(blocked_by)})  # type: ignore[arg-type]


def all_room() -> MemoryRoom:
    """Return the machine's memory limit. The import is local, so that other projects need not load psutil."""
    from pytest_panic_doctor.database.memory_room import MemoryRoom

    return MemoryRoom()


@dataclass(frozen=True, slots=True)
class RuleContext:
    """What a check has: one read-only snapshot of the database, and the subject to examine.

    `subject` may be narrower than the rule's scope: before a diagram is computed, the embedding rules examine its run
    only. `params` serves both cases: `:run` is NULL unless the subject is a run.
    """

    db: sqlite3.Connection
    rule: str
    subject: Subject
    kinds: Mapping[str, Kind]
    memo: dict[object, object] = field(default_factory=dict)
    integrity: Callable[[sqlite3.Connection], FileDamage] = check_file
    """Runs SQLite's check of the file; the result is shared in the session."""
    looked_at: dict[str, int] = field(default_factory=dict)
    """Number of examined rows by table."""
    space: MemoryRoom = field(default_factory=all_room)
    """The memory limit of the check."""
    embedder: Embedder | None = None
    """The embedding hooks of this session; None if there are none."""
    least_cosine: float | None = None
    """Minimum cosine between a hook's vector and the stored one; None: the default; 0: vectors are not compared."""
    deep: bool = False
    """Whether diagrams that the plugin itself computed are computed again too."""
    timeout: float | None = None
    """Seconds for the computation of one diagram; None for no limit."""
    release: Callable[[], None] = lambda: None
    """Ends the snapshot, so that others can write during a long computation. Nothing may be read after it."""

    def examined(self, count: int, what: str) -> None:
        """Record that this check examined rows; counts for the same table are added.

        An item without findings passes only if something was examined; it is skipped if the count is 0. The count
        should come from an aggregate that the check needs anyway, not from a second pass over vectors or payloads.

        Args:
            count: How many rows were examined, 0 included.
            what: A table, or another noun in the singular, such as `page`.
        """
        self.looked_at[what] = self.looked_at.get(what, 0) + count

    def cached_query(self, key: str, query: str) -> list[tuple[object, ...]]:
        """Run a query that several rules share, once for each experiment and run.

        `key` identifies the query. The cache is emptied when anybody writes to the database.
        """
        return self.cached(key, lambda: self.db.execute(query, self.params).fetchall())

    def cached(self, key: str, compute: Callable[[], T]) -> T:
        """Compute what several rules share, once for each experiment and run, as `cached_query` does."""
        known = (key, self.subject.experiment, self.subject.run)
        if known not in self.memo:
            self.memo[known] = compute()
        return self.memo[known]  # type: ignore[return-value]

    @property
    def params(self) -> dict[str, str | int | None]:
        """The parameters `:experiment`, `:run` and `:model` for the queries of a check."""
        return {
            "experiment": self.subject.experiment,
            "run": self.subject.run,
            "model": self.subject.embedding_model,
        }

    @property
    def generation(self) -> Generation:
        """The generation of the research tool that the file belongs to."""
        if "generation" not in self.memo:
            self.memo["generation"] = generation_of(self.db) or PYTHON
        return self.memo["generation"]  # type: ignore[return-value]

    def unfinished(self) -> str:
        """Explain why missing rows of the subject's experiment are not damage; empty if they are.

        Only experiments that the research tool can resume count: their missing rows may still be added.
        """
        if not self.generation.resume or self.subject.experiment is None:
            return ""
        known = ("unfinished", self.subject.experiment)
        if known not in self.memo:
            found = self.db.execute(
                "SELECT started_at IS NULL FROM experimentconfig WHERE id = ? AND completed_at IS NULL",
                (self.subject.experiment,),
            ).fetchone()
            command = f"{self.generation.resume} {self.subject.experiment}"
            state = "has not been started" if found and found[0] else f"is not finished: {command}"
            self.memo[known] = f"the experiment {state}" if found else ""
        return str(self.memo[known])

    def pending(self) -> bool:
        """Whether the subject's experiment was never started, in a generation whose tool records starts."""
        sql = "SELECT count(*) FROM experimentconfig WHERE id = :experiment AND started_at IS NULL"
        return bool(self.generation.resume) and bool(self.scalar(sql))

    def retired(self, model: str) -> bool:
        """Whether the file has no row at all by an embedding model, in a generation that deletes models on purpose."""
        if not self.generation.retires_models:
            return False
        known = ("retired", model)
        if known not in self.memo:
            self.memo[known] = not any(
                self.scalar(
                    f"SELECT EXISTS (SELECT 1 FROM {table.canonical} WHERE embedding_model = :name)", name=model
                )
                for table in self.generation.tables
                if any(column.name == "embedding_model" for column in table.columns)
                and self.db.execute(f"PRAGMA table_info({table.canonical})").fetchone()
            )
        return bool(self.memo[known])

    def kind(self) -> Kind | None:
        """Return what the subject's embedding model embeds; None if unknown."""
        return self.kinds.get(self.subject.embedding_model or "")

    def scalar(self, sql: str, **more: str | int | None) -> int:
        """Return the single integer that a query selects, 0 for NULL; its parameters are `params` and `more`."""
        value = self.db.execute(sql, self.params | more).fetchone()[0]
        return int(value or 0)

    def finding(
        self,
        message: str,
        *,
        table: str | None = None,
        ids: Iterable[object] = (),
        count: int | None = None,
        run: object = None,
        rows: Rows | None = None,
        warning: bool = False,
        blocked_by: Iterable[str] = (),
    ) -> Finding:
        """Make a finding about this subject.

        Args:
            message: One sentence with the numbers.
            table: The table of `ids`.
            ids: The damaged rows, as stored.
            count: How many rows are damaged; the number of `ids` if it is not given.
            run: The run that the finding is about; the subject's if it is not given.
            rows: A query that finds all damaged rows again.
            warning: Whether the item passes in spite of it.
            blocked_by: The rules that must be healthy before it can be repaired, named in `requires` too.
        """
        kept = tuple(format_id(value) for value in ids)
        return Finding(
            rule=self.rule,
            message=message,
            experiment=self.subject.experiment,
            run=self.subject.run if run is None else format_id(run),
            embedding_model=self.subject.embedding_model,
            table=table,
            ids=kept[:IDS_KEPT],
            count=len(kept) if count is None else count,
            rows=rows,
            warning=warning,
            blocked_by=tuple(blocked_by),
        )

    def finding_for_rows(
        self,
        rows: Rows,
        message: Callable[[int], str],
        details: Callable[[], str] | None = None,
        of: str | None = None,
    ) -> Iterator[Finding]:
        """Yield one finding with the ids and exact count of the rows, or nothing if there are none.

        Args:
            rows: The query for the damaged rows.
            message: Makes the message from their count.
            details: Makes the end of the message, after a colon; only called if there are rows.
            of: A query for the number of examined rows of the same table, with the parameters of `rows`.
        """
        if of is not None:
            self.examined(int(self.db.execute(of, rows.params).fetchone()[0]), rows.table)
        ids: list[str] = []
        count = 0
        for (row_id,) in self.db.execute(rows.sql, rows.params):
            count += 1
            if count <= IDS_KEPT:
                ids.append(format_id(row_id))
        if count:
            text = message(count) + (f": {details()}" if details else "")
            yield self.finding(text, table=rows.table, ids=ids, count=count, rows=rows)


Check = Callable[[RuleContext], Iterable[Finding]]


@dataclass(frozen=True, slots=True)
class Rule:
    """One integrity rule.

    Attributes:
        id: The id, e.g. `orphan-run`.
        scope: What one item examines.
        description: A sentence that is true of a healthy database.
        check: Yields the findings.
        repair: What `--doctor-fix` does; None if nothing can repair it.
        manual_fix: What a person has to do if nothing can repair it.
        requires: Rules that are repaired first, for the same subject.
        expensive: Whether `--doctor-sample` applies to it.
        source: The plugin or file that defines it.
        deep: Whether it computes or embeds again; its items need `--doctor-rule`, `--doctor-deep` or `--doctor-sample`.
        generation: The key of the only generation of the research tool whose databases it has items in; empty: of all.
    """

    id: str
    scope: Scope
    description: str
    check: Check
    repair: RepairKind | None = None
    manual_fix: str = ""
    requires: tuple[str, ...] = ()
    expensive: bool = False
    source: str = BUILT_IN
    deep: bool = False
    generation: str = ""

    def applies_to(self, generation: str) -> bool:
        """Whether it has items in databases of a generation of the research tool, which is given by its key."""
        return self.generation in ("", generation)

    @property
    def marker(self) -> str:
        """The rule's pytest marker for `-m`: its id with underscores."""
        return self.id.replace("-", "_")


def remedy_of(rule: Rule, findings: Iterable[Finding]) -> str:
    """Return what a person has to do about a rule without repair; for `file-integrity` by its messages."""
    if rule.id != "file-integrity":
        return rule.manual_fix
    return "; ".join(dict.fromkeys(integrities.remedy(each.message) for each in findings)) or rule.manual_fix


def rule(
    id: str,  # noqa: A002 - the field's own word
    *,
    scope: Scope,
    description: str,
    repair: RepairKind | None = None,
    manual_fix: str = "",
    requires: tuple[str, ...] = (),
    expensive: bool = False,
    deep: bool = False,
    generation: str = "",
) -> Callable[[Check], Rule]:
    """Make a decorator that turns a check into a `Rule`; the arguments are the attributes of `Rule`."""

    def wrap(check: Check) -> Rule:
        by = BUILT_IN if check.__module__.startswith("pytest_panic_doctor.") else check.__module__
        return Rule(id, scope, description, check, repair, manual_fix, requires, expensive | deep, by, deep, generation)

    return wrap


def format_id(value: object) -> str:
    """Format an id for a finding: a text as it is, anything else as an SQL literal, so that the two differ."""
    if isinstance(value, str):
        return value
    return f"x'{value.hex()}'" if isinstance(value, bytes) else "NULL" if value is None else str(value)
