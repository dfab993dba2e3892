"""The subject of an item, and the rows of a finding. Imports the standard library only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple


class DiagramTarget(NamedTuple):
    """What a diagram is of: the id of a run, and the name of an embedding model."""

    run: str
    model: str


@dataclass(frozen=True, slots=True)
class Subject:
    """The part of the database that one item examines.

    Ids are as stored: 32 hex digits, lower case, no dashes. All three are None for the database as a unit.
    """

    experiment: str | None = None
    run: str | None = None
    embedding_model: str | None = None

    @property
    def target(self) -> DiagramTarget:
        """The run and the embedding model of an item about a diagram."""
        return DiagramTarget(str(self.run), str(self.embedding_model))


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows of one table, given by a query.

    A query instead of a list, so that a million rows need no memory and are read again when they are repaired.

    Attributes:
        table: The table.
        sql: Selects exactly one column, the `id` of rows of `table`.
        params: Its named parameters.
    """

    table: str
    sql: str
    params: Mapping[str, str | int | None] = field(default_factory=dict)
