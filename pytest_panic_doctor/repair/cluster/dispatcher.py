"""Diagrams of a whole session, computed on a cluster and written as they come.

One thread in the controller does it for all workers. What it will have to compute is known from the start, so it does
not wait for the items: it keeps the cluster full, and an item finds its diagram there, or orders it at the desk and
waits. A cloud is loaded when there is room in flight and let go of when it is sent, so that memory does not grow with
the number in flight.
"""

from __future__ import annotations

import queue
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime

from pytest_panic_doctor.compute import estimate
from pytest_panic_doctor.compute.budget import Budget
from pytest_panic_doctor.compute.process import ChildDied
from pytest_panic_doctor.compute.ray import packing
from pytest_panic_doctor.compute.ray.client import LOCAL, Answer, Link, where
from pytest_panic_doctor.compute.ray.packing import Ask
from pytest_panic_doctor.compute.ray.task import Order
from pytest_panic_doctor.compute.runner import ComputationFailed, Computed, more_memory
from pytest_panic_doctor.database.connection import Database
from pytest_panic_doctor.database.subject import Subject
from pytest_panic_doctor.formatting import format_size
from pytest_panic_doctor.repair import recompute
from pytest_panic_doctor.repair.cluster.job import EXACT, MISSING, Flight, Job, Manner, Pair, sickness
from pytest_panic_doctor.repair.cluster.requests import Desk, Wish
from pytest_panic_doctor.repair.journal.errors import RepairError, RepairFailed
from pytest_panic_doctor.repair.journal.writer import Writer
from pytest_panic_doctor.repair.recompute import Before, Done, Place, Seen
from pytest_panic_doctor.topology.cloud import merge
from pytest_panic_doctor.topology.diagram import Diagram
from pytest_panic_doctor.topology.engines import would_compute
from pytest_panic_doctor.topology.threads import one_thread

POLL = 0.05
"""Seconds between two looks at the desk, and for which an answer is waited for."""

RETRIES = 3
"""How often a diagram is computed again that was lost with its node or its worker."""

DESERTED = 60.0
"""Seconds without a single node after which what is in flight fails."""


class Dispatcher:
    """Keeps the cluster full. Runs in a thread of its own from `start` to `close`."""

    def __init__(
        self,
        link: Link,
        database: Database,
        writer: Writer,
        desk: Desk,
        budget: Budget,
        place: Callable[[sqlite3.Connection, Subject], Place],
        manner: Manner,
        wanted: Callable[[], bool],
    ) -> None:
        """`database` and `writer` belong to the thread; `budget` counts what is computed."""
        self.link, self.database, self.writer, self.desk, self.budget = link, database, writer, desk, budget
        self.place, self.manner, self.wanted = place, manner, wanted
        self.flights: dict[str, Flight] = {}
        self._jobs: dict[Pair, Job] = {}
        self._urgent: deque[Job] = deque()
        self._ahead: deque[tuple[str, Subject]] = deque()
        self._scans: Mapping[str, Sequence[Subject]] = {}
        self._scanned: set[str] = set()
        self._aside: dict[tuple[str | None, str | None], list[tuple[str, Subject]]] = {}
        self._failed: dict[Pair, tuple[str, ComputationFailed | RepairError]] = {}
        self._done: set[tuple[str, Pair]] = set()
        self._count = 0
        self._nodes = link.nodes
        self._deserted = 0.0
        self._told: queue.SimpleQueue[tuple[Sequence[Subject], Mapping[str, Sequence[Subject]]]] = queue.SimpleQueue()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="doctor-dispatcher", daemon=True)

    def start(self) -> None:
        """Begin to serve the desk."""
        self._thread.start()

    def prefetch(self, missing: Sequence[Subject], scans: Mapping[str, Sequence[Subject]]) -> None:
        """Say which diagrams will be needed, in the best order, and by rule which may turn out to be.

        Of the latter nothing is looked at before an item of that rule has found a diagram sick: then it is likely that
        others are.
        """
        self._told.put((missing, scans))

    def close(self) -> None:
        """End it; what is in flight is given up, what was written stays."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()

    def status(self) -> list[str]:
        """`12 in flight on 3 nodes, 6 cores`, for whoever shows the progress."""
        count, nodes = len(self.flights), self.link.nodes
        if not count:
            return []
        noun = "node" if len(nodes) == 1 else "nodes"
        return [f"{count:,} in flight on {len(nodes):,} {noun}, {packing.cores(nodes):,} cores"]

    def _run(self) -> None:
        try:
            while not self._stopping.is_set() and self.wanted():
                self._step()
        except ChildDied as death:
            why = "its head does not answer" if "GCS" in str(death) else f"its driver {death}"
            self.desk.close(
                RepairFailed(f"{where(self.link.address)} was lost: {why}; check the cluster, then run again")
            )
        except BaseException as error:
            self.desk.close(RepairFailed(f"what computes on the cluster has failed: {error!r}"))
            raise
        finally:
            self.writer.close()
            self.database.close()

    def _step(self) -> None:
        while not self._told.empty():
            missing, self._scans = self._told.get()
            self._ahead.extend((MISSING, subject) for subject in missing)
        for wish in self.desk.taken():
            self._ordered(wish)
        if answer := self.link.receive(POLL if self._idle() else 0):
            self._answered(answer)
        self._follow()
        if not self._idle() and (job := self._next()):
            self._launch(job)

    def _idle(self) -> bool:
        """Whether there is nothing to do but wait: for an answer, for an order, or for room."""
        if self.link.busy or not (self._urgent or self._ahead):
            return True
        return not packing.room([flight.ask for flight in self.flights.values()], self.link.nodes)

    def _ordered(self, wish: Wish) -> None:
        job = Job(wish.rule, wish.subject)
        if job.pair in self._jobs:
            self._jobs[job.pair].orders.append(wish.key)
            return
        job.orders.append(wish.key)
        self._jobs[job.pair] = job
        self._urgent.append(job)
        if wish.rule in self._scans and wish.rule not in self._scanned:
            self._scanned.add(wish.rule)
            self._ahead.extend((wish.rule, subject) for subject in self._scans[wish.rule])

    def _next(self) -> Job | None:
        if self._urgent:
            return self._urgent.popleft()
        rule, subject = self._ahead.popleft()
        job = Job(rule, subject)
        if job.pair in self._jobs or job.pair in self._failed or (rule, job.pair) in self._done:
            return None
        self._jobs[job.pair] = job
        return job

    def _launch(self, job: Job) -> None:
        try:
            seen = self.database.read(lambda db: recompute.see(db, self.place(db, job.subject)))
            if not job.orders and seen.cloud.whole and sickness(seen) != job.rule:
                del self._jobs[job.pair]
                return
            exact = job.rule == EXACT
            if seen.healthy and not exact:
                known = self.desk.recorded(job.rule, job.subject)
                self._conclude(job, known or Done("another worker computed it", {}))
                return
            if not exact and (payload := recompute.readable(seen)):
                self._rewrite(job, seen, payload)
                return
            recompute.check_computable(seen)
        except RepairFailed as blocked:
            self._block(job, blocked)
        except sqlite3.DatabaseError as error:
            self._conclude(job, RepairFailed(self.database.why(error)))
        else:
            self._send(job, seen)

    def _block(self, job: Job, blocked: RepairFailed) -> None:
        """An item says why its cloud is blocked; without one, the embeddings may be repaired before its turn comes."""
        if job.orders:
            self._conclude(job, blocked)
            return
        del self._jobs[job.pair]
        aside = self._aside.setdefault((job.subject.experiment, job.subject.embedding_model), [])
        aside.append((job.rule, job.subject))

    def _send(self, job: Job, seen: Seen) -> None:
        before = seen.before
        fingerprint, failure = self._failed.get(job.pair, ("", None))
        if failure and fingerprint == before.fingerprint:
            self._conclude(job, failure)
            return
        if job.orders:
            # The embeddings of this one are whole: if others of its kind were set aside, they may be by now.
            self._ahead.extend(self._aside.pop((job.subject.experiment, job.subject.embedding_model), ()))
        with one_thread():
            merged = merge(seen.cloud.points)
        distinct = len(merged.points)
        engine = would_compute(self.manner.engine, self.manner.max_dim)
        need = estimate.memory(distinct, engine, merged.points.nbytes)
        memory = max(job.memory, packing.asked_for(need))
        left = len(self.flights) + len(self._urgent) + len(self._ahead) + 1
        ask = Ask(packing.threads(self.link.nodes, left), min(memory, self._most()), merged.points.nbytes)
        order = Order(
            f"{before.place.run} {before.place.model}",
            before.points,
            self.manner.max_dim,
            self.manner.engine,
            ask.cores,
            ask.memory,
            self.manner.timeout,
        )
        self._count += 1
        key = str(self._count)
        self.flights[key] = Flight(job, before, distinct, merged.tolerance, ask, datetime.now())
        self.link.submit(key, order, merged.points)

    def _most(self) -> int:
        """Bytes that a task can be given."""
        return min(packing.largest(self.link.nodes), self.manner.most_memory or 1 << 62)

    def _answered(self, answer: Answer) -> None:
        header, bars = answer
        flight = self.flights.pop(str(header["key"]), None)
        if flight is None:
            return
        kind = header["kind"]
        if kind == "done":
            self._write(flight, header, Diagram(tuple(bars)))
        elif kind == "lost":
            self._lost(flight, str(header["text"]))
        elif kind == "broken":
            said = f"{flight.said}: its task ended with «{header['text']}»"
            advice = "install the same pytest-panic-doctor, with its engine, on every node of the cluster"
            self._conclude(flight.job, ComputationFailed(said, "died", advice=advice), flight.before)
        elif header["why"] == "memory":
            self._outgrown(flight, ComputationFailed.from_plain(header))
        else:
            self._conclude(flight.job, ComputationFailed.from_plain(header), flight.before)

    def _write(self, flight: Flight, header: dict[str, object], diagram: Diagram) -> None:
        job = flight.job
        computed = Computed(
            diagram,
            flight.distinct,
            flight.tolerance,
            str(header["engine"]),
            str(header["version"]),
            float(str(header["seconds"])),
            int(str(header["peak"])),
        )
        self.budget.count()
        done = recompute.done(flight.before.points, computed)
        # Before it is written, for an item may find it there in the same moment; without a row nobody asks for it.
        self.desk.record(job.rule, job.subject, done)
        try:
            written = recompute.write(
                self.writer, job.rule, job.subject, flight.before, flight.begun, computed, self.manner.max_dim
            )
        except RepairError as error:
            self._conclude(job, error, flight.before)
            return
        if written:
            self._conclude(job, done)
        else:
            self._look_again(job, flight.before)

    def _rewrite(self, job: Job, seen: Seen, payload: bytes) -> None:
        self.desk.record(job.rule, job.subject, recompute.REWRITTEN)
        try:
            written = recompute.rewrite(self.writer, job.rule, job.subject, seen, payload)
        except RepairError as error:
            self._conclude(job, error, seen.before)
            return
        if written:
            self._conclude(job, recompute.REWRITTEN)
        else:
            self._look_again(job, seen.before)

    def _look_again(self, job: Job, before: Before) -> None:
        """After its embeddings or diagrams changed meanwhile."""
        job.changes += 1
        if job.changes == recompute.TRIES:
            self._conclude(job, RepairFailed(recompute.RESTLESS), before)
        else:
            self._urgent.append(job)

    def _lost(self, flight: Flight, how: str) -> None:
        job = flight.job
        job.lost.append(how)
        if len(job.lost) <= RETRIES:
            self._urgent.append(job)
            return
        times = f"{len(job.lost):,} times: {'; '.join(dict.fromkeys(job.lost))}"
        failure = ComputationFailed(
            f"{flight.said} was lost {times}", "died", advice="check the cluster, then run again"
        )
        self._conclude(job, failure, flight.before)

    def _outgrown(self, flight: Flight, failure: ComputationFailed) -> None:
        most = self._most()
        if flight.ask.memory < most:
            flight.job.memory = min(most, 2 * flight.ask.memory)
            self._urgent.append(flight.job)
            return
        advice = f"the largest node of the cluster has {format_size(most)} for tasks: add one that has more"
        if self.manner.most_memory == most or self.link.address == LOCAL:
            advice = f"give it more with --doctor-memory {more_memory(failure.peak_memory, most)}"
        final = ComputationFailed(failure.happened, failure.kind, failure.seconds, failure.peak_memory, advice=advice)
        self._conclude(flight.job, final, flight.before)

    def _conclude(self, job: Job, answer: Done | ComputationFailed | RepairError, before: Before | None = None) -> None:
        for key in job.orders:
            self.desk.answer(key, answer)
        del self._jobs[job.pair]
        if isinstance(answer, Done):
            self._done.add((job.rule, job.pair))
        elif before:
            self._failed[job.pair] = (before.fingerprint, answer)

    def _follow(self) -> None:
        """See what nodes have come and gone: a task that no node can run any more is asked for anew."""
        if self.link.nodes:
            self._deserted = 0.0
        elif not self._deserted:
            self._deserted = time.monotonic()
        elif time.monotonic() - self._deserted > DESERTED:
            self._give_up()
        if self.link.nodes == self._nodes:
            return
        self._nodes = self.link.nodes
        for key, flight in list(self.flights.items()):
            if self._nodes and not packing.fits(flight.ask, self._nodes):
                self.link.cancel(key)
                del self.flights[key]
                self._urgent.append(flight.job)

    def _give_up(self) -> None:
        failure = RepairFailed(f"{where(self.link.address)} has no node left to compute on; add some, then run again")
        for key, flight in list(self.flights.items()):
            self.link.cancel(key)
            self._urgent.append(flight.job)
        self.flights.clear()
        while self._urgent:
            self._conclude(self._urgent.popleft(), failure)
