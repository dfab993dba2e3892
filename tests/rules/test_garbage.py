"""Whatever a column holds, no rule raises: what it cannot judge it fails or skips, and no other rule is stopped."""

from __future__ import annotations

import sqlite3
import tempfile
from pathlib import Path

from databases import DEFAULT, build
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pytest_panic_doctor.database.connection import Database
from pytest_panic_doctor.database.schema import TABLES
from pytest_panic_doctor.examination import manifest as manifests
from pytest_panic_doctor.examination.examiner import Examiner
from pytest_panic_doctor.examination.parsing import model_types

RULES = DEFAULT
COLUMNS = [(table, column) for table, columns in TABLES.items() for column in columns]
JSON = ["[]", "{}", "null", "[null]", "[[1]]", '["a"]', "[[]]", "1", '"x"', "[1e400]", "[" * 2000, '{"a": [1]}']
VALUES = st.one_of(
    st.none(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(),
    st.text(max_size=20),
    st.binary(max_size=40),
    st.sampled_from(JSON),
    st.sampled_from([b"\xff\xfe", "IMAGE", "TEXT", "Nomic", "-1", "0", "", "%s", "'", "[0]"]),
)


@settings(max_examples=150)
@given(st.sampled_from(COLUMNS), VALUES, st.booleans())
@example(("run", "network"), "[" * 2000, True)
@example(("invocation", "output_text"), b"\xff\xfe", False)
@example(("run", "max_length"), 2**62, False)
@example(("invocation", "sequence_number"), 2**62, False)
@example(("experimentconfig", "embedding_models"), '["a::b", "[x]", ""]', False)
def test_no_garbage_makes_a_rule_raise(place: tuple[str, str], value: object, as_text: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        built = build(Path(folder) / "x.sqlite", older=True)
        table, column = place
        with built.open() as db:
            db.execute("PRAGMA writable_schema = ON")
            db.execute("UPDATE sqlite_master SET sql = replace(sql, 'NOT NULL', '') WHERE type = 'table'")
        db = sqlite3.connect(built.path, isolation_level=None)
        try:
            new = "CAST(? AS TEXT)" if as_text and isinstance(value, bytes) else "?"
            db.execute(f"UPDATE {table} SET {column} = {new} WHERE rowid = (SELECT max(rowid) FROM {table})", (value,))
        except (sqlite3.IntegrityError, OverflowError):
            return
        finally:
            db.close()
        database = Database(built.path)
        examiner = Examiner(database, RULES, model_types([], []))
        try:
            for entry in database.read(manifests.build_manifest).entries(RULES.values()):
                assert examiner.examine(RULES[entry.rule], entry.subject).status in ("passed", "failed", "skipped")
        finally:
            database.close()
