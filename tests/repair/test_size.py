"""A plan weighs what the repair then does: rows and bytes are those of the journal."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NoReturn

import numpy as np
import pytest
from databases import LATER, TIME, Built, build, payload, uid, vectors
from defect import NEW
from defects import DAMAGES, plant
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from small_database import SmallDatabase, name

from pytest_panic_doctor.database.connection import Database
from pytest_panic_doctor.database.shared_folder import SharedFolder
from pytest_panic_doctor.database.subject import Rows, Subject
from pytest_panic_doctor.examination import manifest as manifests
from pytest_panic_doctor.examination.examiner import Examiner
from pytest_panic_doctor.examination.parsing import model_types
from pytest_panic_doctor.repair.journal.size import SessionTotals, quarantine_size
from pytest_panic_doctor.repair.journal.undo import repairs
from pytest_panic_doctor.repair.journal.writer import Writer
from pytest_panic_doctor.repair.preview import DatabasePlanner
from pytest_panic_doctor.repair.recompute import RepairContext
from pytest_panic_doctor.repair.repairer import DatabaseRepairer
from pytest_panic_doctor.repair.result_store import ResultStore
from pytest_panic_doctor.repair.targets import NO_ROWS, QUARANTINES
from pytest_panic_doctor.rules import registry
from pytest_panic_doctor.rules.base import Finding, Rule

RULES = registry()
QUARANTINED = {
    name: damage for name, damage in DAMAGES.items() if damage.repairable and RULES[damage.rule].repair in QUARANTINES
}
KINDS = model_types([], [])

ROOTS = {
    "run": (2, 4),
    "invocation": (3, 30),
    "embedding": (4, 30),
    "embeddingcluster": (7, 30),
    "clusteringresult": (6, 1),
}
"""Tables of a patient: the kind of their ids, and how many there are."""


def some(table: str) -> st.SearchStrategy[Rows]:
    kind, most = ROOTS[table]
    ids = st.lists(st.integers(0, most).map(lambda number: f"'{name(kind, number)}'"), min_size=1, max_size=9)
    return ids.map(lambda chosen: Rows(table, f"SELECT id FROM {table} WHERE id IN ({', '.join(chosen)})", {}))


@examples(max_examples=25, deadline=None)
@given(found=st.lists(st.sampled_from(list(ROOTS)).flatmap(some), min_size=1, max_size=4))
def test_rows_that_hang_on_several_weigh_once(
    template: Path, at: Callable[[Path], SmallDatabase], found: list[Rows]
) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder, "x.sqlite")
        shutil.copy(template, path)
        with closing(at(path).connect()) as db:
            planned = quarantine_size(db, found)
        with closing(Writer(path, "session", lambda: True)) as writer:
            for rows in found:
                writer.quarantine("rule", Subject(), rows)
        assert planned == journalled(path)


def journalled(path: Path) -> tuple[int, int]:
    """Rows and bytes of all repairs in the journal."""
    done = repairs(path)
    return sum(repair.rows for repair in done), sum(repair.bytes for repair in done)


@contextmanager
def opened(built: Built, totals: Path) -> Iterator[tuple[Database, DatabasePlanner, DatabaseRepairer]]:
    """Who plans and who repairs."""
    database = Database(built.path, shared=True)
    writer = Writer(built.path, "session", lambda: True)
    settled = ResultStore(SharedFolder(totals.with_suffix(".settled")))
    repairer = DatabaseRepairer(RepairContext(database, writer, KINDS), never, no_hook, unclaimed, settled)
    yield database, DatabasePlanner(database, KINDS, SessionTotals(totals)), repairer
    repairer.close()
    database.close()


def unclaimed(name: str, *, wait: bool = True) -> AbstractContextManager[None]:
    """There is no other worker."""
    del name, wait
    return nullcontext()


def never() -> NoReturn:
    """A quarantine computes nothing."""
    raise AssertionError


def no_hook(model: str, outputs: Sequence[str | bytes]) -> None:
    """Nobody has brought an embedding hook."""
    del model, outputs


def sick_items(database: Database) -> Iterator[tuple[Rule, Subject, tuple[Finding, ...]]]:
    """The items that a quarantine repairs."""
    examiner = Examiner(database, RULES, KINDS)
    for entry in list(database.read(manifests.build_manifest).entries(RULES.values())):
        rule = RULES[entry.rule]
        findings = examiner.examine(rule, entry.subject).findings
        if findings and rule.repair in QUARANTINES:
            yield rule, entry.subject, findings


def cluster_all(built: Built) -> None:
    """Each embedding is in a cluster, as its medoid: the assignment hangs on it twice."""
    with built.open() as db:
        db.execute(
            f"INSERT INTO embeddingcluster SELECT 'a' || substr(id, 2), id, '{uid(6, 0)}', id FROM embedding "
            "WHERE invocation_id IN (SELECT id FROM invocation)"
        )


@pytest.mark.parametrize("name", QUARANTINED)
def test_the_plan_of_an_item_is_what_the_journal_has(tmp_path: Path, name: str) -> None:
    built = build(tmp_path / "x.sqlite", older=QUARANTINED[name].older)
    plant(built, name)
    cluster_all(built)
    with opened(built, tmp_path / "tally") as (database, planner, repairer):
        ((rule, subject, findings),) = sick_items(database)
        assert rule.id == QUARANTINED[name].rule
        note, measures = planner.plan(rule, subject, findings)
        assert not note
        assert not repairs(built.path)
        repairer.repair(rule, subject, findings)
        done = journalled(built.path)
        assert done == (measures["rows"], measures["bytes"])
        assert planner.totals.by_rule() == {rule.id: done}
        assert "bytes_high" not in measures


def test_every_rule_that_quarantines_is_compared() -> None:
    assert {damage.rule for damage in QUARANTINED.values()} == {
        rule.id for rule in RULES.values() if rule.repair in QUARANTINES and rule.applies_to("python")
    }, "those of the Elixir generation are compared in test_elixir_repairs.py"


def test_the_plan_says_where_another_diagram_may_be_kept(tmp_path: Path) -> None:
    built = build(tmp_path / "x.sqlite")
    with built.open() as db:
        (vector,) = db.execute("SELECT vector FROM embedding WHERE id = ?", (built.embedding(3),)).fetchone()
        larger = payload(np.vstack([vectors(run, image=True) for run in range(9)]))
        newest = (NEW, TIME, "2026-01-01 00:00:00.000000", larger, built.run())
        db.execute("INSERT INTO persistencediagram VALUES (?, ?, ?, ?, ?, 'Nomic')", newest)
        db.execute(
            "INSERT INTO persistencediagram VALUES (?, ?, ?, NULL, ?, 'Nomic')", ("d" * 32, TIME, LATER, built.run())
        )
        db.execute("UPDATE embedding SET vector = NULL WHERE id = ?", (built.embedding(3),))
        sizes = dict(
            db.execute(
                "SELECT id, length(id) + length(started_at) + length(completed_at) + coalesce(length(diagram_data), 0)"
                " + length(run_id) + length(embedding_model) FROM persistencediagram WHERE run_id = ? "
                "AND embedding_model = 'Nomic'",
                (built.run(),),
            )
        )
    kept_now, kept_then = sum(sizes.values()) - sizes[NEW], sum(sizes.values()) - sizes[built.diagram()]
    with opened(built, tmp_path / "tally") as (database, planner, repairer):
        ((rule, subject, findings),) = sick_items(database)
        reason, measures = planner.plan(rule, subject, findings)
        assert "which of them is right is unknown: 1 of 6 vectors is unusable" in reason
        assert not measures
        planner.embeds = True  # only a hook can make the cloud whole
        _, measures = planner.plan(rule, subject, findings)
        assert (measures["rows"], measures["bytes"]) == (2, kept_now)
        assert measures["bytes_high"] == kept_then > kept_now
        with built.open() as db:
            db.execute("UPDATE embedding SET vector = ? WHERE id = ?", (vector, built.embedding(3)))
        repairer.repair(rule, subject, findings)
        assert journalled(built.path) == (2, kept_then)


def test_what_cannot_be_repaired_is_planned_to_stay(tmp_path: Path) -> None:
    built = build(tmp_path / "x.sqlite")
    plant(built, "embedding_of_lost_invocation")
    with opened(built, tmp_path / "tally") as (database, planner, _):
        ((rule, subject, findings),) = sick_items(database)
        nameless = Finding(rule.id, "no rows")
        assert planner.plan(rule, subject, (nameless,)) == (NO_ROWS, {})
        with built.open() as db:
            db.execute("CREATE TRIGGER mine AFTER DELETE ON embedding BEGIN SELECT 1; END")
        note, measures = planner.plan(rule, subject, findings)
        assert "trigger mine" in note
        assert not measures
        assert planner.totals.total() == (0, 0)
