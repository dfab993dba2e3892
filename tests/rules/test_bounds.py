"""What a rule takes does not grow with what is wrong: time not faster than the rows, and memory not at all."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from databases import build, uid

from pytest_panic_doctor import manifest as manifests
from pytest_panic_doctor.examine import Examiner
from pytest_panic_doctor.rules import registry
from pytest_panic_doctor.rules.model import Finding
from pytest_panic_doctor.store.session import Database
from pytest_panic_doctor.values import kinds

RULES = registry()
MANY = 20_000


def found(path: Path, statement: str, rule: str = "invocation-sequence") -> list[Finding]:
    """The findings of one rule after a statement, which is given the number `MANY`."""
    built = build(path / "x.sqlite", runs=1)
    with built.open() as db:
        db.execute("CREATE INDEX i ON invocation (run_id, sequence_number)")
        db.executescript(statement)
    return examine(built.path, rule)


def examine(path: Path, rule: str) -> list[Finding]:
    """The findings of all items of one rule."""
    database = Database(path)
    examiner = Examiner(database, RULES, kinds([], []))
    entries = list(database.read(manifests.build).entries([RULES[rule]]))
    outcomes = [examiner.examine(RULES[rule], entry.subject) for entry in entries]
    database.close()
    return [finding for outcome in outcomes for finding in outcome.findings]


def further(number: str) -> str:
    """A statement that gives the run `MANY` further invocations, whose sequence number is an expression in k."""
    return (
        f"WITH RECURSIVE k (k) AS (SELECT 12 UNION ALL SELECT k + 1 FROM k WHERE k < {MANY + 11}) "
        "INSERT INTO invocation SELECT printf('06b0517100037000800%013d', 100000 + k), started_at, completed_at, "
        f"model, type, seed, run_id, {number}, input_invocation_id, output_text, NULL FROM invocation, k "
        f"WHERE id = '{uid(3, 11)}';"
    )


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        (
            further("k") + "UPDATE run SET max_length = 1",
            f"{MANY + 11:,} sequence numbers outside 0 … 0: 1, 2, 3, 4, 5",
        ),
        (
            further("-k"),
            f"{MANY:,} sequence numbers outside 0 … 11: {', '.join(str(-MANY - 11 + k) for k in range(5))}",
        ),
        (further("'x' || k"), f"{MANY:,} sequence numbers outside 0 … 11: x100, x1000, x10000, x10001, x10002"),
        (
            further("2 * k") + f"UPDATE run SET max_length = {2 * MANY + 24}",
            f"{MANY + 12:,} sequence numbers of {2 * MANY + 24:,} are missing: 12–23, 25, 27, 29, 31 and "
            f"{MANY + 12 - 16:,} more",
        ),
        (
            further("k / 2") + "UPDATE run SET max_length = 1000000000000000",
            f"{10**15 - MANY // 2 - 6:,} sequence numbers of 1,000,000,000,000,000 are missing: "
            f"{MANY // 2 + 6:,}–999,999,999,999,999; {MANY // 2:,} sequence numbers stand more than once: "
            f"6, 7, 8, 9, 10 and {MANY // 2 - 5:,} more",
        ),
    ],
    ids=["beyond the end", "negative", "texts", "gaps", "repeats"],
)
def test_numbers_are_judged_in_time_that_grows_with_the_rows(tmp_path: Path, statement: str, said: str) -> None:
    begun = time.process_time()
    (finding,) = found(tmp_path, statement)
    assert finding.message == said
    assert time.process_time() - begun < 2.0  # quadratic: 6 s for the first of these
