"""Everything that the user decided, as one frozen value that travels to every worker. Imports nothing heavy."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from types import UnionType
from typing import Literal, Self, get_args, get_origin, get_type_hints


@dataclass(frozen=True, slots=True)
class Part:
    """The `number`-th of `of` equal parts; the first is 1."""

    number: int
    of: int

    def __str__(self) -> str:
        """The part as it is written on the command line, e.g. `2/7`."""
        return f"{self.number}/{self.of}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `K/N`; blanks are ignored.

        Args:
            text: What the user wrote.

        Returns:
            The part. `number` may be larger than `of`: the caller says what is wrong then.

        Raises:
            ValueError: The text is not two positive integers with a slash between them.
        """
        match = re.fullmatch(r"(\d+)/(\d+)", "".join(text.split()))
        if not match or not int(match[1]) or not int(match[2]):
            raise ValueError(f"{text!r} is not K/N")
        return cls(int(match[1]), int(match[2]))


@dataclass(frozen=True, slots=True)
class Shard(Part):
    """One part of the items, examined by one of several sessions."""

    @property
    def named(self) -> str:
        """The shard in words, e.g. `shard 2 of 3`."""
        return f"shard {self.number:,} of {self.of:,}"


NO_SHARDING = Shard(1, 1)


@dataclass(frozen=True, slots=True)
class Severity:
    """How serious the findings of one rule are, from `doctor_severity`.

    Attributes:
        level: `error` fails the item, `warn` only warns, `off` leaves the rule out.
        most: The number of rows up to which `warn` holds; None if there is no limit.
    """

    level: Literal["error", "warn", "off"] = "error"
    most: int | None = None

    def __str__(self) -> str:
        """The severity as it is written in the ini file, e.g. `warn <= 10`."""
        return self.level if self.most is None else f"{self.level} <= {self.most}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `error`, `warn`, `warn <= COUNT` or `off`.

        Raises:
            ValueError: The text is none of these.
        """
        match = re.fullmatch(r"(error|warn|off)|warn<=(\d+)", re.sub(r"\s*<=\s*", "<=", text.strip()))
        if not match:
            raise ValueError(f"{text!r} is not a severity")
        if match[2]:
            return cls("warn", int(match[2]))
        return cls(match[1])  # type: ignore[arg-type]

    def accepts(self, count: int) -> bool:
        """Whether findings of `count` rows are only a warning."""
        return self.level == "warn" and (self.most is None or count <= self.most)


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that the user decided. Sizes in bytes, times in seconds, ids as stored."""

    database: Path
    fix: bool = False
    plan: bool = False
    rules: tuple[str, ...] = ()
    experiments: tuple[str, ...] = ()
    runs: tuple[str, ...] = ()
    """The runs that are examined, ids as stored; as the user wrote them before the database was read."""
    memory: int | None = None
    max_workers: int | None = None
    timeout: float | None = None
    max_dim: int = 2
    engine: str = "auto"
    baseline: Path | None = None
    baseline_write: bool = False
    sample: Part | None = None
    deep: bool = False
    budget: float | None = None
    severity: Mapping[str, Severity] = field(default_factory=dict)
    ray: str | None = None
    """The address of the Ray cluster that computes; None where this machine does."""
    reports: tuple[Path, ...] = ()
    max_quarantine: str | None = None
    """Maximum number of rows of one quarantine, or part of each table: `5000` or `2%`; None: the default."""
    backup: Path | None = None
    """Where the database is copied to before the first write; None: it is not copied."""
    demo: str | None = None
    """The generation of the research tool, by its key, whose demo is built and examined; None for a database."""
    shard: Shard | None = None
    kinds: Mapping[str, Literal["TEXT", "IMAGE"]] = field(default_factory=dict)
    embed_cosine: float | None = None
    running: float = 3600.0

    def switches_off(self, rule: str) -> bool:
        """Whether `doctor_severity` leaves a rule out."""
        return rule in self.severity and self.severity[rule].level == "off"

    def as_dict(self) -> dict[str, object]:
        """Plain values: for JSON, and for the way to an xdist worker."""
        return {each.name: to_plain_value(getattr(self, each.name)) for each in fields(self)}

    @classmethod
    def from_dict(cls, plain: Mapping[str, object]) -> Self:
        """The inverse of `as_dict`.

        Raises:
            KeyError: A field is missing, or there is no such field.
        """
        kinds = get_type_hints(cls)
        values = {name: from_plain_value(kinds[name], plain[name]) for name in kinds.keys() | plain.keys()}
        return cls(**values)  # type: ignore[arg-type]


def to_plain_value(value: object) -> object:
    """Return the plain form of a field's value."""
    if isinstance(value, Path | Shard | Severity):
        return str(value)
    if isinstance(value, Part):
        return [value.number, value.of]
    if isinstance(value, tuple):
        return [to_plain_value(each) for each in value]
    if isinstance(value, Mapping):
        return {key: to_plain_value(each) for key, each in value.items()}
    return value


TEXT_FORMS: Mapping[object, Callable[[str], object]] = {Path: Path, Shard: Shard.parse, Severity: Severity.parse}
"""The types whose plain form is a text, and what reads it."""


def from_plain_value(kind: object, plain: object) -> object:
    """Return the value of a field from its plain form; `kind` is the field's type."""
    inner = get_args(kind)
    if plain is None:
        return None
    if get_origin(kind) is UnionType:
        return from_plain_value(inner[0], plain)
    if isinstance(plain, Mapping):
        return {key: from_plain_value(inner[1], each) for key, each in plain.items()}
    if isinstance(plain, list | tuple):
        return Part(*plain) if kind is Part else tuple(from_plain_value(inner[0], each) for each in plain)
    return TEXT_FORMS[kind](str(plain)) if kind in TEXT_FORMS else plain
