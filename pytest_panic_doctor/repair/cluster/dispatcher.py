"""Computes all missing diagrams of a session on a cluster, and writes each as it arrives.

One thread of the controller does this for all workers. The missing diagrams are known from the start, so the thread
does not wait for the items: it keeps the cluster busy, and an item finds its diagram in the database, or requests it
and waits. Ray decides where and when a task runs, and retries those that are lost. A cloud is loaded only if few tasks
wait on the cluster, and is freed as soon as it is sent, so that memory does not grow with the number of diagrams.
"""

from __future__ import annotations

import heapq
import math
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime

from pytest_panic_doctor.compute import estimate
from pytest_panic_doctor.compute.budget import Budget
from pytest_panic_doctor.compute.process import ChildDied
from pytest_panic_doctor.compute.ray.client import LOCAL_ADDRESS, ClientAnswer, ClusterClient, describe_address
from pytest_panic_doctor.compute.ray.task import TaskSpec, memory_request
from pytest_panic_doctor.compute.task import ComputationFailed, Computed, more_memory
from pytest_panic_doctor.database.subject import Subject
from pytest_panic_doctor.examination.examiner import RepairResult
from pytest_panic_doctor.formatting import format_size, plural
from pytest_panic_doctor.repair import recompute
from pytest_panic_doctor.repair.cluster.requests import (
    EXACT,
    MISSING,
    ComputeOptions,
    DiagramRequest,
    DiagramRequests,
    Job,
    SubmittedTask,
    failing_rule,
)
from pytest_panic_doctor.repair.journal.errors import RepairError, RepairFailed
from pytest_panic_doctor.repair.recompute import DiagramSnapshot, Precondition, RepairContext
from pytest_panic_doctor.repair.result_store import ResultStore
from pytest_panic_doctor.topology.cloud import merge
from pytest_panic_doctor.topology.diagram import Diagram
from pytest_panic_doctor.topology.engines import would_compute
from pytest_panic_doctor.topology.threads import one_thread

POLL = 0.05
"""Seconds between two checks for requests, and for which a result is waited for."""

FEWEST_WAITING = 2
"""Tasks kept waiting on the cluster, so that no node is idle while the next cloud loads; at least 1 per 4 cores."""

REQUESTED, PLANNED = 0, 1
"""Priorities: diagrams that an item waits for, and others."""

NO_NODES_TIMEOUT = 60.0
"""Seconds without any node after which the submitted tasks fail."""


class Dispatcher:
    """Keeps the cluster busy, in a thread of its own from `start` to `close`."""

    def __init__(
        self,
        link: ClusterClient,
        repairs: RepairContext,
        requests: DiagramRequests,
        results: ResultStore,
        budget: Budget,
        manner: ComputeOptions,
        wanted: Callable[[], bool],
    ) -> None:
        """Store what the thread needs; nothing is started yet.

        Args:
            link: The connection to the cluster.
            repairs: Reads clouds and writes diagrams; used by the thread alone.
            requests: The requests of the workers.
            results: Stores the result of each diagram, also of those that no worker has requested.
            budget: Counts the computed diagrams.
            manner: How diagrams are computed.
            wanted: Whether the session is still active; the thread ends when it is not.
        """
        self.client, self.repairs, self.budget = link, repairs, budget
        self.requests, self.results = requests, results
        self.compute_options, self.is_active = manner, wanted
        self.submitted: dict[str, SubmittedTask] = {}
        self._jobs: dict[Subject, Job] = {}
        self._waiting: list[tuple[int, int, Job]] = []
        self._scans: Mapping[str, Sequence[Subject]] = {}
        self._blocked: dict[tuple[str | None, str | None], list[Job]] = {}
        self._failed: dict[Subject, tuple[str, ComputationFailed | RepairError]] = {}
        self._done: set[tuple[str, Subject]] = set()
        self._count = 0
        self._size = link.size
        self._no_nodes_since = 0.0
        self._inbox: queue.SimpleQueue[tuple[Sequence[Subject], Mapping[str, Sequence[Subject]]]] = queue.SimpleQueue()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="doctor-dispatcher", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def prefetch(self, missing: Sequence[Subject], scans: Mapping[str, Sequence[Subject]]) -> None:
        """Announce the diagrams that the collected items need.

        Args:
            missing: The subjects of missing diagrams, in the best order.
            scans: By rule, the subjects whose diagrams may be defective. None is examined before an item of the rule
                has found a defective diagram: then others are likely.
        """
        self._inbox.put((missing, scans))

    def close(self) -> None:
        """End the thread; submitted tasks are abandoned, written diagrams stay."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()

    def status(self) -> list[str]:
        """Return `12 in flight on 3 nodes, 6 cores` for the progress display, nothing if no task is submitted."""
        size = self.client.size
        place = f"{plural(size.nodes, 'node')}, {plural(size.cores, 'core')}"
        return [f"{len(self.submitted):,} in flight on {place}"] if self.submitted else []

    def _run(self) -> None:
        try:
            while not self._stopping.is_set() and self.is_active():
                self._step()
        except ChildDied as death:
            why = "its head does not answer" if "GCS" in str(death) else f"its driver {death}"
            self.requests.close(
                RepairFailed(
                    f"{describe_address(self.client.address)} was lost: {why}; check the cluster, then run again"
                )
            )
        except BaseException as error:
            self.requests.close(RepairFailed(f"what computes on the cluster has failed: {error!r}"))
            raise
        finally:
            self.repairs.writer.close()
            self.repairs.database.close()

    def _step(self) -> None:
        while not self._inbox.empty():
            missing, self._scans = self._inbox.get()
            self._plan(MISSING, missing)
        for request in self.requests.pending():
            self._on_request(request)
        if answer := self.client.receive(POLL if self._idle() else 0):
            self._on_result(answer)
        self._track_nodes()
        if not self._idle():
            priority, _, job = heapq.heappop(self._waiting)
            if priority == REQUESTED or self._is_new(job):
                self._jobs[job.subject] = job
                self._launch(job)

    def _idle(self) -> bool:
        """Return whether to block: there is nothing to submit, or enough tasks wait on the cluster."""
        cores = self.client.size.cores
        most = cores + max(FEWEST_WAITING, math.ceil(cores / 4)) if cores else 0
        return self.client.busy or not self._waiting or len(self.submitted) >= most

    def _plan(self, rule: str, subjects: Iterable[Subject]) -> None:
        for subject in subjects:
            self._enqueue(PLANNED, Job(rule, subject))

    def _enqueue(self, priority: int, job: Job) -> None:
        self._count += 1
        heapq.heappush(self._waiting, (priority, self._count, job))

    def _is_new(self, job: Job) -> bool:
        subject = job.subject
        return not (subject in self._jobs or subject in self._failed or (job.rule, subject) in self._done)

    def _on_request(self, request: DiagramRequest) -> None:
        if job := self._jobs.get(request.subject):
            job.requests.append(request.key)
            return
        self._jobs[request.subject] = job = Job(request.rule, request.subject, [request.key])
        self._enqueue(REQUESTED, job)
        if request.rule in self._scans:
            self._plan(request.rule, self._scans[request.rule])
            self._scans = {rule: each for rule, each in self._scans.items() if rule != request.rule}

    def _launch(self, job: Job) -> None:
        try:
            seen = self.repairs.snapshot(job.subject)
            if not job.requests and seen.cloud.complete and failing_rule(seen) != job.rule:
                del self._jobs[job.subject]
                return
            exact = job.rule == EXACT
            if seen.healthy and not exact:
                self._finish(job, next(self.results.find(job.rule, job.subject), recompute.BY_ANOTHER))
                return
            if not exact and (payload := recompute.readable(seen)):
                self._record(
                    job, seen.before, recompute.REWRITTEN, lambda: self.repairs.rewrite(job.rule, seen, payload)
                )
                return
            recompute.check_computable(seen)
        except RepairFailed as blocked:
            self._block(job, blocked)
        except sqlite3.DatabaseError as error:
            self._finish(job, RepairFailed(self.repairs.database.describe_error(error)))
        else:
            self._submit(job, seen)

    def _block(self, job: Job, blocked: RepairFailed) -> None:
        """Handle a cloud that cannot be computed now.

        If an item is waiting, fail it with the reason. Otherwise retry later, because its embeddings may be repaired
        first.
        """
        if job.requests:
            self._finish(job, blocked)
            return
        del self._jobs[job.subject]
        self._blocked.setdefault((job.subject.experiment, job.subject.embedding_model), []).append(job)

    def _submit(self, job: Job, seen: DiagramSnapshot) -> None:
        before = seen.before
        fingerprint, failure = self._failed.get(job.subject, ("", None))
        if failure and fingerprint == before.fingerprint:
            self._finish(job, failure)
            return
        if job.requests:
            # The embeddings of this one are complete: if others of its kind were set aside, they may be by now.
            for blocked in self._blocked.pop((job.subject.experiment, job.subject.embedding_model), ()):
                self._enqueue(PLANNED, blocked)
        with one_thread():
            merged = merge(seen.cloud.points)
        options, size, max_dim = self.compute_options, self.client.size, self.repairs.max_dim
        engine = would_compute(options.engine, max_dim)
        need = memory_request(estimate.memory(len(merged.points), engine, merged.points.nbytes))
        memory = min(max(job.memory, need), self._memory_limit())
        # One thread for each task, while enough diagrams are left to keep every core busy.
        left = len(self.submitted) + len(self._waiting) + 1
        threads = max(1, min(size.largest_cores, size.cores // left))
        label = " ".join(job.subject.target)
        spec = TaskSpec(label, before.points, max_dim, options.engine, threads, memory, options.timeout)
        self._count += 1
        key = str(self._count)
        self.submitted[key] = SubmittedTask(
            job, before, len(merged.points), merged.tolerance, threads, memory, datetime.now()
        )
        self.client.submit(key, spec, merged.points)

    def _memory_limit(self) -> int:
        """Return the bytes that one task can be given."""
        return min(self.client.size.largest_memory, self.compute_options.most_memory or 1 << 62)

    def _on_result(self, answer: ClientAnswer) -> None:
        header, bars = answer
        submitted_task = self.submitted.pop(str(header["key"]), None)
        if submitted_task is None:
            return
        if header["kind"] == "done":
            self._write(submitted_task, header, Diagram(tuple(bars)))
        elif header["why"] == "memory":
            self._on_out_of_memory(submitted_task, ComputationFailed.from_plain(header))
        else:
            self._finish(submitted_task.job, ComputationFailed.from_plain(header), submitted_task.before)

    def _write(self, submitted_task: SubmittedTask, header: dict[str, object], diagram: Diagram) -> None:
        job = submitted_task.job
        computed = Computed(
            diagram,
            submitted_task.distinct,
            submitted_task.tolerance,
            str(header["engine"]),
            str(header["version"]),
            float(str(header["seconds"])),
            int(str(header["peak"])),
        )
        self.budget.count()
        done = recompute.computed_result(submitted_task.before.points, computed)
        before, begun = submitted_task.before, submitted_task.begun
        self._record(job, before, done, lambda: self.repairs.write(job.rule, before, begun, computed))

    def _record(self, job: Job, before: Precondition, done: RepairResult, write: Callable[[], bool]) -> None:
        """Store the result of a job and write its diagram."""
        # Before it is written, for an item may find it there in the same moment; without a row nobody asks for it.
        self.results.save(job.rule, job.subject, done)
        try:
            written = write()
        except RepairError as error:
            self._finish(job, error, before)
            return
        if written:
            self._finish(job, done)
        else:
            self._retry(job, before)

    def _retry(self, job: Job, before: Precondition) -> None:
        """Retry a job whose embeddings or diagrams were changed during its computation."""
        job.changes += 1
        if job.changes == recompute.TRIES:
            self._finish(job, RepairFailed(recompute.EMBEDDINGS_KEEP_CHANGING), before)
        else:
            self._enqueue(REQUESTED, job)

    def _on_out_of_memory(self, submitted_task: SubmittedTask, failure: ComputationFailed) -> None:
        most = self._memory_limit()
        if submitted_task.memory < most:
            submitted_task.job.memory = min(most, 2 * submitted_task.memory)
            self._enqueue(REQUESTED, submitted_task.job)
            return
        advice = f"the largest node of the cluster has {format_size(most)} for tasks: add one that has more"
        if self.compute_options.most_memory == most or self.client.address == LOCAL_ADDRESS:
            advice = f"give it more with --doctor-memory {more_memory(failure.peak_memory, most)}"
        final = ComputationFailed(failure.reason, failure.kind, failure.seconds, failure.peak_memory, advice=advice)
        self._finish(submitted_task.job, final, submitted_task.before)

    def _finish(
        self, job: Job, answer: RepairResult | ComputationFailed | RepairError, before: Precondition | None = None
    ) -> None:
        for key in job.requests:
            self.requests.respond(key, answer)
        del self._jobs[job.subject]
        if isinstance(answer, RepairResult):
            self._done.add((job.rule, job.subject))
        elif before:
            self._failed[job.subject] = (before.fingerprint, answer)

    def _track_nodes(self) -> None:
        """Note the nodes that came and went; a task that fits on no node any more is submitted again."""
        size = self.client.size
        if size.nodes:
            self._no_nodes_since = 0.0
        elif not self._no_nodes_since:
            self._no_nodes_since = time.monotonic()
        elif time.monotonic() - self._no_nodes_since > NO_NODES_TIMEOUT:
            self._give_up()
        if size == self._size:
            return
        self._size = size
        for key, task in list(self.submitted.items()):
            if size.nodes and (task.memory > size.largest_memory or task.threads > size.largest_cores):
                self._withdraw(key)

    def _withdraw(self, key: str) -> None:
        self.client.cancel(key)
        self._enqueue(REQUESTED, self.submitted.pop(key).job)

    def _give_up(self) -> None:
        failure = RepairFailed(
            f"{describe_address(self.client.address)} has no node left to compute on; add some, then run again"
        )
        for key in list(self.submitted):
            self._withdraw(key)
        waiting, self._waiting = self._waiting, []
        for _, _, job in sorted(waiting):
            if self._jobs.get(job.subject) is job:
                self._finish(job, failure)
