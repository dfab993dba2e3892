"""What a rule is: an id, a scope, a sentence, a check that yields findings, and perhaps a repair."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Literal

from pytest_panic_doctor.database import integrity as integrities
from pytest_panic_doctor.database.generation import Generation, generation_of
from pytest_panic_doctor.database.integrity import FileDamage, check_file
from pytest_panic_doctor.database.python_generation import PYTHON
from pytest_panic_doctor.database.subject import Rows, Subject

BUILT_IN = "built in"
"""The source of a rule that comes with the doctor."""

if TYPE_CHECKING:
    from pytest_panic_doctor.database.room import MemoryRoom
    from pytest_panic_doctor.rules.embedder import Embedder

IDS_KEPT = 10_000
"""Row ids that a finding carries at most; its count stays exact beyond that."""

NOT_REPAIRED = "; not repaired: "
"""In a finding's message, before the reason why no repair takes its rows."""

Kind = Literal["TEXT", "IMAGE"]
"""What an embedding model embeds, as `invocation.type` spells it."""


class Scope(StrEnum):
    """What one item of a rule looks at."""

    DATABASE = "database"
    EXPERIMENT = "experiment"
    EXPERIMENT_MODEL = "experiment x embedding model"
    RUN_MODEL = "run x embedding model"


class RepairKind(StrEnum):
    """How `--doctor-fix` repairs what a rule finds."""

    QUARANTINE = "quarantine"
    KEEP_NEWEST = "quarantine all but the newest usable one"
    KEEP_CURRENT = "quarantine all but the newest that is valid and current"
    COMPUTE = "compute"
    EMBED = "embedding hook"


class NotApplicable(Exception):
    """Raised by a check that has nothing to judge; its text is the reason, and the item is skipped, never passed."""


class NotExaminable(Exception):
    """Raised where the subject of an item cannot be asked for; its text is the reason, and the item fails."""


def format_sentence(rule: object, embedding_model: object, message: object) -> str:
    """`rule [embedding model]: message`."""
    where = f" [{embedding_model}]" if embedding_model else ""
    return f"{rule}{where}: {message}"


@dataclass(frozen=True, slots=True)
class Finding:
    """One defect, or one kind of defect, in one subject.

    `message` is one sentence with the numbers. `ids` are the offending rows of `table` as stored (32 hex digits; as SQL
    spells it what is not a text), complete up to 10,000; `count` is exact. `rows`, where given, finds them all again at
    the moment of repair. `blocked_by` names what must be corrected before it can be repaired: rules, or the ini key
    `doctor_text_models` if it is not known what the embedding model embeds.
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

    @property
    def sentence(self) -> str:
        """`rule [embedding model]: message`."""
        return format_sentence(self.rule, self.embedding_model, self.message)

    def as_dict(self) -> dict[str, object]:
        """The finding as the JSON report prints it."""
        plain: dict[str, object] = {
            "rule": self.rule,
            "experiment": self.experiment,
            "run": self.run,
            "embedding_model": self.embedding_model,
            "table": self.table,
            "ids": list(self.ids),
            "count": self.count,
            "message": self.message,
        }
        return plain | ({"blocked_by": list(self.blocked_by)} if self.blocked_by else {})

    @classmethod
    def from_dict(cls, plain: Mapping[str, object]) -> Finding:
        """Make a finding from what `as_dict` printed."""
        ids, blocked_by = plain["ids"], plain.get("blocked_by", ())
        return cls(**{**plain, "ids": tuple(ids), "blocked_by": tuple(blocked_by)})  # type: ignore[arg-type]


def all_room() -> MemoryRoom:
    """No limit but the machine's; imported here, since every project that has the plugin would load psutil for it."""
    from pytest_panic_doctor.database.room import MemoryRoom

    return MemoryRoom()


@dataclass(frozen=True, slots=True)
class RuleContext:
    """What a check sees: one read-only snapshot of the database, and the subject that it is asked about.

    `subject` may be narrower than the rule's scope: before a diagram is computed, the embedding rules are asked about
    its run alone. The parameters of `params` do both: `:run` is NULL unless the subject is narrowed.
    """

    db: sqlite3.Connection
    rule: str
    subject: Subject
    kinds: Mapping[str, Kind]
    memo: dict[object, object] = field(default_factory=dict)
    integrity: Callable[[sqlite3.Connection], FileDamage] = check_file
    """What SQLite finds wrong with the file: asked once a session, however many ask."""
    looked_at: dict[str, int] = field(default_factory=dict)
    """How many rows of each table the check has said that it looked at."""
    space: MemoryRoom = field(default_factory=all_room)
    """What the check may hold in memory at once."""
    embedder: Embedder | None = None
    """The embedding hooks of this session; None where there is none."""
    least_cosine: float | None = None
    """Below this a vector of the hook's is another one than the stored one; None: what is usual; 0: never."""

    deep: bool = False
    """Whether what the doctor itself computed is computed again too."""
    timeout: float | None = None
    """Seconds that the computation of one diagram may take; None for no limit."""
    release: Callable[[], None] = lambda: None
    """Ends the snapshot, so that others can write during a long computation: after it, nothing more is read."""

    def examined(self, count: int, what: str) -> None:
        """Say that this check looked at `count` rows of the table `what`; what is said twice of one table adds up.

        A rule that finds nothing passes only where it looked at something. Where it says 0, its item is skipped. The
        count comes from an aggregate that the check makes anyway, never from a second pass over vectors or payloads.

        Args:
            count: How many rows were looked at, 0 included.
            what: A table, or the singular of what else was counted, such as `page`.
        """
        self.looked_at[what] = self.looked_at.get(what, 0) + count

    def cached_query(self, key: str, query: str) -> list[tuple[object, ...]]:
        """The rows of a query that several rules ask of the same subject's experiment and run, read once.

        What was read is forgotten as soon as anybody has written to the database.
        """
        known = (key, self.subject.experiment, self.subject.run)
        if known not in self.memo:
            self.memo[known] = self.db.execute(query, self.params).fetchall()
        return self.memo[known]  # type: ignore[return-value]

    @property
    def params(self) -> dict[str, str | int | None]:
        """`:experiment`, `:run` and `:model` for the queries of a check."""
        return {
            "experiment": self.subject.experiment,
            "run": self.subject.run,
            "model": self.subject.embedding_model,
        }

    @property
    def generation(self) -> Generation:
        """Of which generation of the research tool the file is, whose tables these views are."""
        if "generation" not in self.memo:
            self.memo["generation"] = generation_of(self.db) or PYTHON
        return self.memo["generation"]  # type: ignore[return-value]

    def unfinished(self) -> str:
        """Why nothing is wrong in what the subject's experiment lacks, as a clause; empty where it is finished.

        Only where the research tool can go on with it: then what is missing is still to come.
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
        """Whether the subject's experiment was never started, where the research tool writes down when it was."""
        sql = "SELECT count(*) FROM experimentconfig WHERE id = :experiment AND started_at IS NULL"
        return bool(self.generation.resume) and bool(self.scalar(sql))

    def retired(self, model: str) -> bool:
        """Whether no row in the whole file is by an embedding model: then all of them were deleted on purpose."""
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
        """What the subject's embedding model embeds; None where nobody has said."""
        return self.kinds.get(self.subject.embedding_model or "")

    def scalar(self, sql: str, **more: str | int | None) -> int:
        """The single integer that `sql` selects."""
        value = self.db.execute(sql, self.params | more).fetchone()[0]
        return int(value or 0)

    def require_subject(self) -> None:
        """Raise `NotExaminable` unless the subject's experiment and run can be asked for by their ids.

        An id that is not UTF-8 is another one once it is read: by it no row is found, and every rule would be content.
        """
        for noun, table, row_id in (
            ("experiment", "experimentconfig", self.subject.experiment),
            ("run", "run", self.subject.run),
        ):
            if row_id is None or self.db.execute(f"SELECT 1 FROM {table} WHERE id = ?", (row_id,)).fetchone():
                continue
            if "\\x" in row_id:
                why = f"the id of the {noun} is not UTF-8, so that its rows cannot be queried (see id-format)"
                raise NotExaminable(why)
            raise NotExaminable(f"the {noun} was deleted after the examination began: run again")

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
        """No finding where `rows` finds none, else one with their ids and exact count.

        Args:
            rows: The offenders.
            message: The sentence for their count.
            details: Asked only where there are any: ends the sentence after a colon.
            of: A query for the number of rows of the same table that were looked at, with the parameters of `rows`.
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

    `sentence` is true of a healthy database. `repair` says what `--doctor-fix` does; `remedy`, where nothing can repair
    it, what a person would have to do. `after` names the rules that are settled first, for the same subject, under
    `--doctor-fix`. `source` is the plugin or file that brought the rule. A `deep` rule computes or embeds again: it has
    items where it is named, with `--doctor-deep`, and in its share with `--doctor-sample`, for which it is `expensive`.
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

    @property
    def marker(self) -> str:
        """The rule's pytest marker: its id as an identifier, so that `-m` can name it."""
        return self.id.replace("-", "_")


def remedy_of(rule: Rule, found: Iterable[str]) -> str:
    """What a person has to do where nothing repairs a rule; of `file-integrity`, what each of its findings asks for."""
    if rule.id != "file-integrity":
        return rule.manual_fix
    return "; ".join(dict.fromkeys(map(integrities.remedy, found))) or rule.manual_fix


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
) -> Callable[[Check], Rule]:
    """Turn a check into a `Rule`: the function below the decorator is the whole rule, and nothing else registers it."""

    def wrap(check: Check) -> Rule:
        module = check.__module__
        source = BUILT_IN if module.startswith("pytest_panic_doctor.") else module
        return Rule(id, scope, description, check, repair, manual_fix, requires, expensive or deep, source, deep)

    return wrap


def format_id(value: object) -> str:
    """An id for a finding: a text as it is, anything else as SQL spells it, so that nothing is taken for a text."""
    if isinstance(value, str):
        return value
    return f"x'{value.hex()}'" if isinstance(value, bytes) else "NULL" if value is None else str(value)
