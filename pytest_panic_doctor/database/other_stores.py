"""Stores of trajectories of other programs: described by a user, examined, and not repaired."""

from __future__ import annotations

import re
import sqlite3
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_panic_doctor.database.elixir_generation import stamp as utc_time
from pytest_panic_doctor.database.generation import Codec, ColumnSource, Generation, SchemaVersion, TableSchema
from pytest_panic_doctor.database.python_generation import codec as numpy_archives
from pytest_panic_doctor.database.schema import TABLES, columns

if TYPE_CHECKING:
    from pytest_panic_doctor.topology.diagram import Diagram
    from pytest_panic_doctor.topology.payload import Payload, Provenance


@dataclass(frozen=True)
class ReadOnlyCodec:
    """A codec that only reads.

    Attributes:
        read: Reads a payload; raises `PayloadError`.
    """

    read: Callable[[bytes], Payload]

    def decode(self, payload: bytes) -> Payload:
        """Read a payload; raises `PayloadError`."""
        return self.read(payload)

    def make_indexable(self, payload: bytes) -> bytes:
        """Return a payload as it is."""
        return payload

    def encode(self, diagram: Diagram, provenance: Provenance | None = None) -> bytes:
        """Raise an error: diagrams of other stores are not written."""
        raise NotImplementedError("the doctor writes no diagram into the store of another program")


def describe_table(
    name: str,
    canonical: str,
    declared: str,
    sources: Mapping[str, str | tuple[str, str]],
    *,
    unique: Iterable[tuple[str, ...]] = (),
) -> TableSchema:
    """Describe a table of a store.

    Args:
        name: Its name in the file.
        canonical: The name that rules use.
        declared: Its columns, each `name TYPE`, with commas between them.
        sources: For a column of the rules the column of the file, or that and an SQL expression in which `{0}`
            represents it. A column that neither is here nor in the file is NULL for the rules, and `seed` is -1.
        unique: The columns that are unique together.
    """
    existing = columns(*(each.strip() for each in declared.split(",")))
    known = {each.name for each in existing} | sources.keys()
    found = {name: ColumnSource(*([given] if isinstance(given, str) else given)) for name, given in sources.items()}
    absent = [each for each in TABLES.get(canonical, ()) if each not in known]
    found |= {each: ColumnSource(None, "-1" if each == "seed" else "") for each in absent}
    return TableSchema(name, canonical, existing, tuple((each, 1) for each in unique), found)


def describe_store(
    key: str,
    name: str,
    tables: Iterable[TableSchema],
    *,
    decode: Callable[[bytes], Payload] | None = None,
    seeded: bool = False,
    dashed_ids: bool = True,
    image_formats: tuple[str, ...] = ("WEBP",),
    schema_version: Callable[[sqlite3.Connection], str] = lambda db: "",  # noqa: ARG005
) -> Generation:
    """Describe a store of trajectories in an SQLite file, so that the rules examine it.

    Args:
        key: Its name in `RuleContext.generation.key` and in `rule(generation=…)`.
        name: Its name in a sentence, such as `the lab's store`.
        tables: Its tables, each with the canonical name that rules use, parents before children. Canonical tables that
            it does not have are empty for the rules.
        decode: Reads a diagram, or raises `PayloadError`; None for NumPy archives as in the Python generation.
        seeded: Whether runs have seeds, in `run.seed` and `experimentconfig.seeds`. Otherwise they are numbered from 0
            in `run.run_number`, and `experimentconfig.num_runs` is their number for each network and prompt.
        dashed_ids: Whether ids are UUIDs with dashes; otherwise without.
        image_formats: Formats of images: `WEBP`, `AVIF`.
        schema_version: Finds the schema version of a file, as text; empty if there is none.
    """
    codec: Callable[[], Codec] = numpy_archives if decode is None else lambda: ReadOnlyCodec(decode)
    return Generation(
        key=key,
        name=name,
        tables=tuple(tables),
        references=(),
        schema_version=lambda db: SchemaVersion(0, schema_version(db)),
        refusal=lambda _: "",
        codec=codec,
        new_id=lambda: str(uuid.uuid4()),
        stamp=utc_time,
        id_pattern=re.compile(r"[0-9a-f-]+"),
        seeded=seeded,
        dashed_ids=dashed_ids,
        image_formats=image_formats,
        repairs=False,
    )
