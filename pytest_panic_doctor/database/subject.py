"""What a rule speaks about: a subject, and rows of a table. Standard library only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Subject:
    """The part of the database that one item looks at.

    Ids are as stored: 32 hex digits, lower case, no dashes. All three empty: the whole database.
    """

    experiment: str | None = None
    run: str | None = None
    embedding_model: str | None = None


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows of one table, named by the query that finds them.

    `sql` selects exactly one column, the `id` of rows of `table`; `params` are its named parameters.
    A query and not a list, so that a million offenders cost no memory and are looked up again at the moment of repair.
    """

    table: str
    sql: str
    params: Mapping[str, str | int | None] = field(default_factory=dict)
