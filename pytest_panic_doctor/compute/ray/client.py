"""The pytest side of a Ray cluster: sends clouds, receives bars, knows the nodes. Does not import Ray."""

from __future__ import annotations

import os
import re
import shutil
import socket
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
from numpy.typing import NDArray

from pytest_panic_doctor.compute.memory import tree_resident
from pytest_panic_doctor.compute.process import ChildDied, PipedProcess, defer_sigint
from pytest_panic_doctor.compute.ray.task import TaskSpec
from pytest_panic_doctor.errors import DoctorError
from pytest_panic_doctor.formatting import plural
from pytest_panic_doctor.topology.cloud import Points

DRIVER = "pytest_panic_doctor.compute.ray.driver"

LOCAL_ADDRESS = "local"
"""Ray's name for a cluster that is started here and ends with its driver."""

REACHABLE_TIMEOUT = 5.0
"""Seconds for a cluster's address to accept a connection."""

CONNECT_TIMEOUT = 45.0
"""Seconds for Ray to join or start a cluster; 4 to 5 were measured."""

EXIT_WAIT = 1.0
"""Seconds to wait until killed processes are gone."""

MAX_FOLDER = 40
"""Longest path in bytes of a local Ray's folder: its sockets are 64 bytes longer, and unix(7) allows 107."""

SHORT_FOLDERS = ("/tmp", "/var/tmp", "/dev/shm")
"""Folders with short paths, tried in this order."""

RAY_OVERHEAD = 600_000_000
"""Bytes of a local Ray's own processes; 540 MB were measured."""

ClientAnswer = tuple[dict[str, object], list[NDArray[np.float32]]]
"""Header of the kind done or failed, with the key of its task; and the bars."""


@dataclass(frozen=True, slots=True)
class ClusterSize:
    """Resources of a cluster.

    Attributes:
        nodes: Number of nodes with at least one core.
        cores: Cores of all nodes.
        largest_cores: Cores of the node that has most.
        largest_memory: Bytes for tasks of the node that has most.
    """

    nodes: int = 0
    cores: int = 0
    largest_cores: int = 0
    largest_memory: int = 0

    def __str__(self) -> str:
        """`a Ray cluster of 3 nodes, 6 cores`."""
        return f"a Ray cluster of {plural(self.nodes, 'node')}, {plural(self.cores, 'core')}"


class ClusterUnavailableError(DoctorError):
    """Raised when there is no cluster; the message is one sentence that says what to do."""


class ClusterClient:
    """A connection to a cluster, through a driver process."""

    def __init__(self, address: str, memory: int, scratch: Path, is_active: Callable[[], bool] = lambda: True) -> None:
        """Join the cluster, or start a local Ray.

        Args:
            address: `host:port`, or `local`.
            memory: Bytes for a local Ray.
            scratch: Folder for the files of a local Ray.
            is_active: Called while waiting; ends the attempt when it returns False.

        Raises:
            ClusterUnavailableError: There is no cluster.
        """
        self.address = address
        self.size = ClusterSize()
        check_reachable(address)
        room = memory - RAY_OVERHEAD - tree_resident(os.getpid())
        self._folder = folder_for_ray(scratch) if address == LOCAL_ADDRESS else scratch / "ray"
        self._own_folder = self._folder.parent != scratch
        config = {"address": address, "memory": max(room, memory // 4), "folder": str(self._folder)}
        with defer_sigint():
            self._driver = PipedProcess(DRIVER, config, new_session=True)
        try:
            self._join(time.monotonic() + CONNECT_TIMEOUT, is_active)
        except BaseException:
            self.close()
            raise

    def _join(self, deadline: float, is_active: Callable[[], bool]) -> None:
        while time.monotonic() < deadline and is_active():
            try:
                frame = self._driver.receive(0.2)
            except ChildDied as death:
                raise ClusterUnavailableError(
                    f"{describe_address(self.address)} cannot be used: its driver {death}"
                ) from None
            if frame is None:
                continue
            header = frame[0]
            if header["kind"] == "nodes":
                self.size = ClusterSize(**header["size"])  # type: ignore[arg-type]
            elif header["kind"] == "ready":
                return
            else:
                raise ClusterUnavailableError(
                    f"{describe_address(self.address)} cannot be used ({header['text']}): {REMEDY}"
                )
        raise ClusterUnavailableError(
            f"{describe_address(self.address)} did not answer within {CONNECT_TIMEOUT:g} s: {REMEDY}"
        )

    @property
    def busy(self) -> bool:
        """Whether something still has to be written to the driver."""
        return bool(self._driver.outgoing)

    def submit(self, key: str, spec: TaskSpec, points: Points) -> None:
        """Send merged points to the cluster; the answer has the same key."""
        self._driver.send({"kind": "submit", "key": key, "spec": spec.as_plain()}, points)

    def cancel(self, key: str) -> None:
        """Cancel a task; there will be no answer."""
        self._driver.send({"kind": "cancel", "key": key})

    def receive(self, seconds: float) -> ClientAnswer | None:
        """Wait for the next answer.

        Returns:
            None if there is none within `seconds`.

        Raises:
            ChildDied: The cluster is lost.
        """
        frame = self._driver.receive(seconds)
        if frame is None:
            return None
        header, arrays = frame
        if header["kind"] == "nodes":
            self.size = ClusterSize(**header["size"])  # type: ignore[arg-type]
            return None
        return header, [np.array(each, np.float32) for each in arrays]

    def close(self) -> None:
        """End the driver and its tasks, and all processes of a local Ray."""
        try:
            tree = psutil.Process(self._driver.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            tree = []
        self._driver.end()
        for each in tree:
            with suppress(psutil.NoSuchProcess):
                each.kill()
        deadline = time.monotonic() + EXIT_WAIT
        while any(map(is_running, tree)) and time.monotonic() < deadline:
            time.sleep(0.01)
        if self._own_folder:
            shutil.rmtree(self._folder.parent, ignore_errors=True)


def folder_for_ray(scratch: Path) -> Path:
    """Folder for the files of a local Ray: in `scratch`, or a new one if that path is too long.

    Raises:
        ClusterUnavailableError: No short folder can be created.
    """
    within = scratch / "ray"
    if len(os.fsencode(within)) <= MAX_FOLDER:
        return within
    for place in SHORT_FOLDERS:
        with suppress(OSError):
            return Path(tempfile.mkdtemp(prefix="doctor-", dir=place), "ray")
    tried = ", ".join(SHORT_FOLDERS)
    raise ClusterUnavailableError(
        f"a local Ray makes sockets, for which {scratch} is too long, and nothing can be written to {tried}: "
        f"set TMPDIR to a folder of at most {MAX_FOLDER - len('/panic-doctor-12345678/ray')} characters"
    )


def is_running(process: psutil.Process) -> bool:
    """Whether a process is running. Zombies count as ended."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


REMEDY = "correct --doctor-ray, or begin one with `ray start --head`"


def describe_address(address: str) -> str:
    """`the Ray cluster at head:6379`."""
    return "a local Ray" if address == LOCAL_ADDRESS else f"the Ray cluster at {address}"


def check_reachable(address: str) -> None:
    """Raise `ClusterUnavailableError` if nothing listens at `host:port`: Ray itself tries for minutes."""
    match = re.fullmatch(r"(?:ray://)?\[?([^/\[\]]+)\]?:(\d+)", address)
    if not match:
        return
    try:
        socket.create_connection((match[1], int(match[2])), timeout=REACHABLE_TIMEOUT).close()
    except (OSError, OverflowError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise ClusterUnavailableError(f"{describe_address(address)} cannot be reached ({why}): {REMEDY}") from error
