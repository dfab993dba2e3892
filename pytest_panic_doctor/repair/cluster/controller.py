"""A repairing session whose diagrams a Ray cluster computes: the controller's part. Knows no pytest."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

from pytest_panic_doctor.compute.ray.client import ClusterClient, describe_nodes
from pytest_panic_doctor.compute.ray.packing import total_cores
from pytest_panic_doctor.database.connection import Database
from pytest_panic_doctor.database.subject import Subject
from pytest_panic_doctor.examination.examination import Examination
from pytest_panic_doctor.repair.cluster.dispatcher import Dispatcher
from pytest_panic_doctor.repair.cluster.job import INVALID, STALE, ComputeOptions
from pytest_panic_doctor.repair.cluster.requests import DiagramRequests
from pytest_panic_doctor.repair.controller import RepairRun
from pytest_panic_doctor.repair.journal.writer import Writer
from pytest_panic_doctor.repair.targets import diagram_target


class ClusterRepair:
    """The connection to the cluster, and what dispatches to it while the items run."""

    def __init__(self, examination: Examination, repair_run: RepairRun, engine: Callable[[str], str]) -> None:
        """Join the cluster; raises `NoCluster`, in one sentence, before anything is computed.

        `engine` finds an engine by the name that the user gave.
        """
        settings = examination.settings
        assert settings.ray is not None
        self.examination = examination
        self.client = ClusterClient(settings.ray, repair_run.memory, repair_run.scratch, repair_run.is_active)
        examination.cluster, examination.cores = (
            describe_nodes(self.client.nodes),
            max(1, total_cores(self.client.nodes)),
        )

        self.dispatcher = Dispatcher(
            self.client,
            Database(settings.database, shared=True),
            Writer(settings.database, repair_run.session, repair_run.is_active, space=examination.space),
            DiagramRequests(repair_run.scratch, repair_run.is_active),
            repair_run.budget(),
            partial(diagram_target, kinds=settings.kinds, running=examination.running),
            ComputeOptions(settings.max_dim, engine(settings.engine), settings.timeout, settings.memory),
            repair_run.is_active,
        )

    @contextmanager
    def dispatching(self) -> Iterator[None]:
        """Compute while the items run."""
        self.dispatcher.start()
        try:
            yield
        finally:
            self.dispatcher.close()

    def collected(self) -> None:
        """Say which items there are, so that what nobody asked for is not computed."""
        names = self.examination.collected or ()
        scans: dict[str, list[Subject]] = {INVALID: [], STALE: []}
        for entry in self.examination.entries():
            if entry.name in names and entry.rule in scans:
                scans[entry.rule].append(entry.subject)
        self.dispatcher.prefetch([each.subject for each in self.examination.planned()], scans)

    def status(self) -> Sequence[str]:
        """What is in flight, for whoever shows the progress."""
        return self.dispatcher.status()

    def close(self) -> None:
        """Leave the cluster; a local Ray ends."""
        self.dispatcher.close()
        self.client.close()
