"""The controller's part of a repair whose diagrams a Ray cluster computes. Imports no pytest."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from pytest_panic_doctor.compute.ray.client import ClusterClient
from pytest_panic_doctor.database.connection import Database
from pytest_panic_doctor.database.subject import Subject
from pytest_panic_doctor.examination.examination import Examination
from pytest_panic_doctor.repair.cluster.dispatcher import Dispatcher
from pytest_panic_doctor.repair.cluster.requests import INVALID, STALE, ComputeOptions, DiagramRequests
from pytest_panic_doctor.repair.controller import RepairRun
from pytest_panic_doctor.repair.result_store import ResultStore


class ClusterRepair:
    """Holds the connection to the cluster, and the dispatcher that computes while the items run."""

    def __init__(self, examination: Examination, repair_run: RepairRun, engine: Callable[[str], str]) -> None:
        """Join the cluster.

        Args:
            examination: The session's examination; its cluster and cores are set.
            repair_run: What the processes of the session share.
            engine: Returns the place of an engine, for the name that the user gave.

        Raises:
            ClusterUnavailableError: The cluster cannot be joined; nothing was computed.
        """
        settings = examination.settings
        assert settings.ray is not None
        self.examination = examination
        self.client = ClusterClient(settings.ray, repair_run.memory, repair_run.scratch, repair_run.is_active)
        examination.state.cluster, examination.state.cores = str(self.client.size), max(1, self.client.size.cores)
        self.dispatcher = Dispatcher(
            self.client,
            repair_run.context(examination, Database(settings.database, shared=True)),
            DiagramRequests(repair_run.shared),
            ResultStore(repair_run.shared),
            repair_run.budget(),
            ComputeOptions(engine(settings.engine), settings.timeout, settings.memory),
            repair_run.is_active,
        )

    @contextmanager
    def dispatching(self) -> Iterator[None]:
        """Compute diagrams while the block runs."""
        self.dispatcher.start()
        try:
            yield
        finally:
            self.dispatcher.close()

    def collected(self) -> None:
        """Pass the collected items to the dispatcher, so that only their diagrams are computed."""
        names = self.examination.state.collected or ()
        scans: dict[str, list[Subject]] = {INVALID: [], STALE: []}
        for entry in self.examination.entries():
            if entry.name in names and entry.rule in scans:
                scans[entry.rule].append(entry.subject)
        self.dispatcher.prefetch([each.subject for each in self.examination.planned()], scans)

    def status(self) -> Sequence[str]:
        """Return lines about the submitted tasks, for the progress display."""
        return self.dispatcher.status()

    def close(self) -> None:
        """Stop the dispatcher and leave the cluster; a local Ray ends."""
        self.dispatcher.close()
        self.client.close()
