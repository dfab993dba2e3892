"""A repairing session whose diagrams a Ray cluster computes: the controller's part. Knows no pytest."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

from pytest_panic_doctor.compute.ray.client import Link, said_of
from pytest_panic_doctor.compute.ray.packing import cores
from pytest_panic_doctor.database.connection import Database
from pytest_panic_doctor.database.subject import Subject
from pytest_panic_doctor.examination.examination import Doctor
from pytest_panic_doctor.repair.cluster.dispatcher import Dispatcher
from pytest_panic_doctor.repair.cluster.job import INVALID, STALE, Manner
from pytest_panic_doctor.repair.cluster.requests import Desk
from pytest_panic_doctor.repair.controller import Ward
from pytest_panic_doctor.repair.journal.writer import Writer
from pytest_panic_doctor.repair.targets import place_of


class Remote:
    """The connection to the cluster, and what dispatches to it while the items run."""

    def __init__(self, doctor: Doctor, ward: Ward, engine: Callable[[str], str]) -> None:
        """Join the cluster; raises `NoCluster`, in one sentence, before anything is computed.

        `engine` finds an engine by the name that the user gave.
        """
        settings = doctor.settings
        assert settings.ray is not None
        self.doctor = doctor
        self.link = Link(settings.ray, ward.memory, ward.scratch, ward.wanted)
        doctor.cluster, doctor.cores = said_of(self.link.nodes), max(1, cores(self.link.nodes))

        self.dispatcher = Dispatcher(
            self.link,
            Database(settings.database, shared=True),
            Writer(settings.database, ward.session, ward.wanted, space=doctor.space),
            Desk(ward.scratch, ward.wanted),
            ward.budget(),
            partial(place_of, kinds=settings.kinds, running=doctor.running),
            Manner(settings.max_dim, engine(settings.engine), settings.timeout, settings.memory),
            ward.wanted,
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
        names = self.doctor.collected or ()
        scans: dict[str, list[Subject]] = {INVALID: [], STALE: []}
        for entry in self.doctor.entries():
            if entry.name in names and entry.rule in scans:
                scans[entry.rule].append(entry.subject)
        self.dispatcher.prefetch([each.subject for each in self.doctor.ahead()], scans)

    def status(self) -> Sequence[str]:
        """What is in flight, for whoever shows the progress."""
        return self.dispatcher.status()

    def close(self) -> None:
        """Leave the cluster; a local Ray ends."""
        self.dispatcher.close()
        self.link.close()
