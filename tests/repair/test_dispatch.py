"""Dispatching to a cluster that does what a test says: the desk, the pressure, and what is done again."""

from __future__ import annotations

import io
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from databases import ENGINE, Built, build, npz, uid

from pytest_panic_doctor.compute.budget import Budget
from pytest_panic_doctor.compute.process import ChildDied
from pytest_panic_doctor.compute.ray.client import ClientAnswer, ClusterSize
from pytest_panic_doctor.compute.ray.task import TaskSpec
from pytest_panic_doctor.compute.task import ComputationFailed
from pytest_panic_doctor.database.connection import Database
from pytest_panic_doctor.database.shared_folder import SharedFolder
from pytest_panic_doctor.database.subject import Subject
from pytest_panic_doctor.errors import Stopped
from pytest_panic_doctor.examination.examiner import RepairResult
from pytest_panic_doctor.repair import recompute
from pytest_panic_doctor.repair.cluster.dispatcher import FEWEST_WAITING, Dispatcher
from pytest_panic_doctor.repair.cluster.requests import (
    EXACT,
    INVALID,
    MISSING,
    STALE,
    ComputeOptions,
    DiagramRequests,
    from_dict,
    to_dict,
)
from pytest_panic_doctor.repair.journal.errors import RepairFailed
from pytest_panic_doctor.repair.journal.writer import Writer
from pytest_panic_doctor.repair.recompute import RepairContext
from pytest_panic_doctor.repair.result_store import ResultStore
from pytest_panic_doctor.topology.cloud import Points
from pytest_panic_doctor.topology.diagram import Diagram, sorted_bars
from pytest_panic_doctor.topology.diagram_comparison import have_same_bars
from pytest_panic_doctor.topology.engines import compute
from pytest_panic_doctor.topology.payload import META, decode, encode

RUNS = 10
NODE = ClusterSize(1, 2, 2, 4_000_000_000)


class Scripted:
    """A link whose answers a test chooses: by default the right ones, when `hold` is False."""

    address = "head:6379"
    busy = False

    def __init__(self) -> None:
        self.size = NODE
        self.orders: list[TaskSpec] = []
        self.open: dict[str, tuple[TaskSpec, Points]] = {}
        self.script: deque[dict[str, object]] = deque()
        self.cancelled: list[str] = []
        self.most = 0
        self.hold = False
        self.dead = False

    def submit(self, key: str, order: TaskSpec, points: Points) -> None:
        self.orders.append(order)
        self.open[key] = (order, points)
        self.most = max(self.most, len(self.open))

    def cancel(self, key: str) -> None:
        self.cancelled.append(key)
        del self.open[key]

    def receive(self, seconds: float) -> ClientAnswer | None:
        if self.dead:
            raise ChildDied("ended with «Failed to connect to GCS within 60 seconds»")
        if self.hold or not self.open:
            time.sleep(min(seconds, 0.01))
            return None
        key, (_, points) = next(iter(self.open.items()))
        del self.open[key]
        if self.script:
            return {**self.script.popleft(), "key": key}, []
        diagram, _ = compute(points, engine=ENGINE)
        header = {"kind": "done", "engine": ENGINE.name, "version": ENGINE.version, "seconds": 0.1, "peak": 10**8}
        return {**header, "key": key}, list(diagram.bars)


class RepairSetup:
    """A dispatcher at work on a database of ten runs without a diagram."""

    def __init__(self, folder: Path, most_memory: int | None = None) -> None:
        self.built = build(folder / "x.sqlite", runs=RUNS)
        self.do("UPDATE persistencediagram SET diagram_data = NULL")
        self.link = Scripted()
        self.wanted = True
        shared = SharedFolder(folder / "shared", lambda: self.wanted)
        self.requests, self.results = DiagramRequests(shared), ResultStore(shared)
        self.dispatcher = Dispatcher(
            self.link,  # type: ignore[arg-type]
            repairs_of(self.built, lambda: self.wanted),
            self.requests,
            self.results,
            Budget(folder / "budget", 10**10),
            ComputeOptions("auto", None, most_memory),
            lambda: self.wanted,
        )

    def do(self, sql: str, *parameters: object) -> None:
        with self.built.open() as db:
            db.execute(sql, parameters)

    @property
    def ordered(self) -> int:
        """How many orders wait for their answer."""
        return sum(len(job.requests) for job in list(self.dispatcher._jobs.values()))

    def order(self, run: int, rule: str = MISSING) -> RepairResult:
        return self.requests.submit_and_wait(rule, subject(self.built, run))

    def written(self) -> int:
        sql = "SELECT count(*) FROM persistencediagram WHERE diagram_data IS NOT NULL AND embedding_model = 'Nomic'"
        with self.built.open() as db:
            return int(db.execute(sql).fetchone()[0])

    def rules(self) -> dict[str, int]:
        """How many repairs were journalled for each rule."""
        db = sqlite3.connect(self.built.path.with_name("x.doctor.sqlite"))
        found = dict(db.execute("SELECT rule, count(*) FROM repairs GROUP BY 1").fetchall())
        db.close()
        return found


def repairs_of(built: Built, wanted: Callable[[], bool]) -> RepairContext:
    writer = Writer(built.path, "session", wanted)
    return RepairContext(Database(built.path, shared=True), writer, {"Nomic": "TEXT"})


def subject(built: Built, run: int) -> Subject:
    return Subject(built.experiment, built.run(run), "Nomic")


@pytest.fixture
def repair_run(tmp_path: Path) -> Iterator[RepairSetup]:
    """At work."""
    it = RepairSetup(tmp_path)
    it.dispatcher.start()
    yield it
    it.dispatcher.close()


def subjects(repair_run: RepairSetup, *, but: int = -1) -> list[Subject]:
    return [subject(repair_run.built, run) for run in range(RUNS) if run != but]


def until(happened: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_what_is_known_ahead_is_written_without_an_order(repair_run: RepairSetup) -> None:
    repair_run.dispatcher.prefetch(subjects(repair_run), {})
    until(lambda: repair_run.written() == RUNS)
    assert repair_run.rules() == {MISSING: RUNS}
    (done,) = repair_run.results.find(MISSING, subject(repair_run.built, 3))
    assert done.measures["points"] == 6
    assert repair_run.order(3) == RepairResult(done.note, done.measures)
    assert len(repair_run.link.orders) == RUNS


def test_no_more_is_in_flight_than_the_cluster_takes_and_no_point_is_kept(repair_run: RepairSetup) -> None:
    repair_run.link.hold = True
    repair_run.dispatcher.prefetch(subjects(repair_run), {})
    until(lambda: len(repair_run.link.open) == NODE.cores + FEWEST_WAITING)
    time.sleep(0.2)
    assert repair_run.link.most == NODE.cores + FEWEST_WAITING
    assert repair_run.dispatcher.status() == ["4 in flight on 1 node, 2 cores"]
    repair_run.link.size = ClusterSize(3, 6, 2, 4_000_000_000)
    until(lambda: len(repair_run.link.open) == 6 + FEWEST_WAITING)
    for submitted_task in list(repair_run.dispatcher.submitted.values()):
        assert not any(
            isinstance(getattr(submitted_task, name), np.ndarray) for name in submitted_task.__dataclass_fields__
        )
    repair_run.link.hold = False
    until(lambda: repair_run.written() == RUNS)


def test_an_order_goes_before_what_is_known_ahead(repair_run: RepairSetup) -> None:
    repair_run.link.hold = True
    repair_run.dispatcher.prefetch(subjects(repair_run), {})
    until(lambda: len(repair_run.link.open) == 4)
    ordering = threading.Thread(target=repair_run.order, args=(RUNS - 1,))
    ordering.start()
    until(lambda: repair_run.ordered == 1)
    repair_run.link.hold = False
    ordering.join()
    assert repair_run.link.orders[4].label.startswith(repair_run.built.run(RUNS - 1))


LOST = {
    "kind": "failed",
    "why": "died",
    "happened": "the diagram of 6 points was lost 4 times: its node died",
    "advice": "check the cluster, then run again",
    "seconds": 0.0,
    "peak": 0,
}


def test_what_ray_lost_is_said_and_not_sent_again_for_the_same_cloud(repair_run: RepairSetup) -> None:
    repair_run.link.script.append(LOST)
    for _ in range(2):
        with pytest.raises(ComputationFailed) as caught:
            repair_run.order(1)
        assert str(caught.value) == f"{LOST['happened']}; {LOST['advice']}"
    assert len(repair_run.link.orders) == 1


@pytest.mark.parametrize(("cores", "count"), [(1, 3), (16, 20), (512, 640)])
def test_the_number_in_flight_follows_the_cores(tmp_path: Path, cores: int, count: int) -> None:
    dispatcher = RepairSetup(tmp_path).dispatcher
    dispatcher.client.size = ClusterSize(1, cores, cores, 10**9)
    dispatcher._plan(MISSING, [Subject()])
    submitted: dict[str, object] = {str(number): None for number in range(count - 1)}
    dispatcher.submitted = submitted  # type: ignore[assignment]
    assert not dispatcher._idle()
    submitted["one more"] = None
    assert dispatcher._idle()


def test_threads_are_for_the_end_when_cores_are_idle(tmp_path: Path) -> None:
    repair_run = RepairSetup(tmp_path)
    repair_run.link.size = ClusterSize(2, 6, 4, 4_000_000_000)
    repair_run.dispatcher.start()
    repair_run.order(0)
    assert repair_run.link.orders[0].threads == 4
    repair_run.dispatcher.prefetch(subjects(repair_run, but=0), {})
    until(lambda: repair_run.written() == RUNS)
    repair_run.dispatcher.close()
    assert [order.threads for order in repair_run.link.orders][1:5] == [1, 1, 1, 1]
    assert repair_run.link.orders[-1].threads == 4


OUTGREW = {
    "kind": "failed",
    "why": "memory",
    "happened": "the diagram of 6 points reached 3.9 GB, its limit, after 5 s in H0 to H2",
    "advice": "give it more with --doctor-memory 12GB",
    "seconds": 5.0,
    "peak": 3_900_000_000,
}


def test_what_outgrows_its_task_gets_twice_as_much_up_to_the_largest_node(repair_run: RepairSetup) -> None:
    repair_run.link.script.extend([OUTGREW] * 20)
    with pytest.raises(ComputationFailed) as caught:
        repair_run.order(0)
    asked = [order.memory for order in repair_run.link.orders]
    assert asked == sorted(set(asked))
    assert asked[-1] == NODE.largest_memory
    assert all(after in (2 * before, NODE.largest_memory) for before, after in pairwise(asked))
    assert str(caught.value) == (
        "the diagram of 6 points reached 3.9 GB, its limit, after 5 s in H0 to H2; "
        "the largest node of the cluster has 4.0 GB for tasks: add one that has more"
    )


def test_the_memory_that_was_given_is_the_most(tmp_path: Path) -> None:
    repair_run = RepairSetup(tmp_path, most_memory=500_000_000)
    repair_run.dispatcher.start()
    repair_run.link.script.extend([OUTGREW] * 20)
    with pytest.raises(ComputationFailed, match=r"after 5 s in H0 to H2; give it more with --doctor-memory 12GB$"):
        repair_run.order(0)
    repair_run.dispatcher.close()
    assert repair_run.link.orders[-1].memory == 500_000_000


def test_embeddings_that_change_meanwhile_are_seen(repair_run: RepairSetup) -> None:
    repair_run.link.hold = True
    repair_run.dispatcher.prefetch([subject(repair_run.built, 0)], {})
    until(lambda: len(repair_run.link.open) == 1)
    repair_run.do(
        "UPDATE embedding SET vector = (SELECT vector FROM embedding WHERE id = ?) WHERE id = ?", uid(4, 1), uid(4, 3)
    )
    repair_run.link.hold = False
    until(lambda: repair_run.written() == 1)
    assert len(repair_run.link.orders) == 2
    assert "5 of them distinct" in repair_run.order(0).note


def test_what_no_node_can_run_any_more_is_asked_for_anew(repair_run: RepairSetup) -> None:
    repair_run.link.hold = True
    repair_run.dispatcher.prefetch([subject(repair_run.built, 0)], {})
    until(lambda: len(repair_run.link.open) == 1)
    (first,) = repair_run.link.open
    small = repair_run.link.orders[0].memory - 1
    repair_run.link.size = ClusterSize(1, 1, 1, small)
    until(lambda: len(repair_run.link.orders) == 2)
    assert repair_run.link.cancelled == [first]
    assert (repair_run.link.orders[1].memory, repair_run.link.orders[1].threads) == (small, 1)


def test_a_cluster_without_nodes_is_given_up(repair_run: RepairSetup, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pytest_panic_doctor.repair.cluster.dispatcher.NO_NODES_TIMEOUT", 0.3)
    repair_run.link.hold = True
    repair_run.dispatcher.prefetch(subjects(repair_run), {})
    until(lambda: len(repair_run.link.open) == 4)
    repair_run.link.size = ClusterSize()
    with pytest.raises(RepairFailed, match=r"^the Ray cluster at head:6379 has no node left to compute on; add some"):
        repair_run.order(0)


def test_a_cluster_that_is_lost_answers_every_order(repair_run: RepairSetup) -> None:
    repair_run.link.dead = True
    for run in (0, 1):
        with pytest.raises(
            RepairFailed, match="the Ray cluster at head:6379 was lost: its head does not answer; check"
        ):
            repair_run.order(run)


def test_a_blocked_cloud_is_said_to_its_item_and_tried_again_once_one_is_whole(repair_run: RepairSetup) -> None:
    vectors: dict[int, tuple[bytes]] = {}
    with repair_run.built.open() as db:
        for run in (0, 1):
            vectors[run] = db.execute(
                "SELECT vector FROM embedding WHERE id = ?", (repair_run.built.embedding(1, run),)
            ).fetchone()
            db.execute("UPDATE embedding SET vector = NULL WHERE id = ?", (repair_run.built.embedding(1, run),))
    repair_run.dispatcher.prefetch(subjects(repair_run), {})
    until(lambda: repair_run.written() == RUNS - 2)
    with pytest.raises(RepairFailed, match="the point cloud is blocked: 1 of 6 vectors is unusable"):
        repair_run.order(0)
    for run in (0, 1):
        repair_run.do("UPDATE embedding SET vector = ? WHERE id = ?", *vectors[run], repair_run.built.embedding(1, run))
    repair_run.order(0)
    until(lambda: repair_run.written() == RUNS)


@pytest.mark.parametrize("rule", [INVALID, STALE])
def test_one_that_turns_out_sick_makes_it_look_at_the_others(repair_run: RepairSetup, rule: str) -> None:
    repair_run.dispatcher.prefetch(subjects(repair_run), {rule: subjects(repair_run)})
    until(lambda: repair_run.written() == RUNS)
    other = "SELECT diagram_data FROM persistencediagram WHERE run_id = ? AND embedding_model = 'Nomic'"
    payload = "x'00'" if rule == INVALID else f"({other})"
    sick = (2, 5, 7)
    for run in sick:
        values: tuple[str, ...] = () if rule == INVALID else (repair_run.built.run(0),)
        repair_run.do(
            f"UPDATE persistencediagram SET diagram_data = {payload} WHERE id = ?",
            *values,
            repair_run.built.diagram(run=run),
        )
    repair_run.order(5, rule)
    until(lambda: len(repair_run.link.orders) == RUNS + len(sick))
    until(lambda: repair_run.rules() == {MISSING: RUNS, rule: len(sick)})


def test_a_payload_whose_form_alone_is_wrong_is_rewritten_and_not_sent(repair_run: RepairSetup) -> None:
    repair_run.dispatcher.prefetch(subjects(repair_run), {INVALID: subjects(repair_run)})
    until(lambda: repair_run.written() == RUNS)
    sick = (2, 5)
    for run in sick:
        with repair_run.built.open() as db:
            row = (repair_run.built.diagram(run=run),)
            ((payload,),) = db.execute("SELECT diagram_data FROM persistencediagram WHERE id = ?", row)
            with np.load(io.BytesIO(payload)) as stored:
                arrays = {name: stored[name] for name in stored.files}
            arrays[META] = arrays[META].reshape(())
            db.execute("UPDATE persistencediagram SET diagram_data = ? WHERE id = ?", (npz(**arrays), *row))
    assert repair_run.order(5, INVALID) == recompute.REWRITTEN
    until(lambda: repair_run.rules() == {MISSING: RUNS, INVALID: len(sick)})
    assert len(repair_run.link.orders) == RUNS


def test_bars_that_only_computing_again_tells_are_computed_though_all_seems_healthy(repair_run: RepairSetup) -> None:
    repair_run.dispatcher.prefetch(subjects(repair_run), {})
    until(lambda: repair_run.written() == RUNS)
    read = "SELECT diagram_data FROM persistencediagram WHERE id = ?"
    row = (repair_run.built.diagram(run=5),)
    with repair_run.built.open() as db:
        ((data,),) = db.execute(read, row)
        right = decode(data).diagram
        wrong = Diagram((right.bars[0], right.bars[1], sorted_bars([right.bars[0][-2]])))
        db.execute("UPDATE persistencediagram SET diagram_data = ? WHERE id = ?", (encode(wrong), *row))
    assert repair_run.order(5, EXACT).note.startswith("computed from 6 points")
    assert len(repair_run.link.orders) == RUNS + 1
    assert repair_run.rules() == {MISSING: RUNS, EXACT: 1}
    with repair_run.built.open() as db:
        ((data,),) = db.execute(read, row)
    assert have_same_bars(decode(data).diagram, right)


def test_who_waits_is_told_when_it_is_no_longer_wanted(repair_run: RepairSetup) -> None:
    repair_run.link.hold = True
    repair_run.dispatcher.prefetch(subjects(repair_run), {})
    until(lambda: len(repair_run.link.open) == 4)
    repair_run.wanted = False
    with pytest.raises(Stopped):
        repair_run.order(0)
    repair_run.link.hold = False
    assert repair_run.written() == 0


def test_answers_come_back_as_they_were_sent() -> None:
    done = RepairResult("computed", {"points": 6, "engine": "gudhi"})
    assert from_dict(to_dict(done)) == done
    for failure in (ComputationFailed("it ended", "died", 1.5, 7, advice="try"), RepairFailed("no", ["schema"])):
        with pytest.raises(type(failure)) as caught:
            from_dict(to_dict(failure))
        assert str(caught.value) == str(failure)
        assert vars(caught.value) == vars(failure)


def test_what_changed_is_a_fingerprint_and_ids(repair_run: RepairSetup) -> None:
    seen = repairs_of(repair_run.built, lambda: True).snapshot(subject(repair_run.built, 0))
    assert seen.before.points == 6
    assert seen.before.diagrams == (repair_run.built.diagram(),)
