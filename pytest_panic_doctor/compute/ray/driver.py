"""The process that uses Ray: `python -m pytest_panic_doctor.compute.ray.driver CONFIG`.

It receives frames with clouds from the pytest side, submits them to the cluster, and sends the results back.
"""

from __future__ import annotations

import json
import logging
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import BinaryIO

import numpy as np
import psutil
import ray
from numpy.typing import NDArray

from pytest_panic_doctor.compute.child import take_over_stdio
from pytest_panic_doctor.compute.frames import Frame, read_frame, write_frame
from pytest_panic_doctor.compute.ray import task
from pytest_panic_doctor.compute.ray.task import failure_header
from pytest_panic_doctor.compute.task import ComputationFailed, describe_diagram

RESULT_POLL = 0.05
"""Seconds between two checks for results."""

RETRIES = 3
"""How often Ray runs a task again after its node or its worker was lost; Ray's own limit is none if memory is short."""

NODE_POLL = 1.0
"""Seconds between two checks of the nodes."""

LOCAL_STORE = 200_000_000
"""Bytes of a local Ray's object store: submitted clouds have some MB each."""


def listen(source: BinaryIO, frames: queue.SimpleQueue[Frame]) -> None:
    """Read frames without end; exit with all descendants when the pytest side is gone."""
    while frame := read_frame(source):
        frames.put(frame)
    exit_now()


def exit_now() -> None:
    """Exit immediately, without ray.shutdown(), which takes over a second and has nothing left to save.

    The head of a cluster ends the tasks of a driver whose connection is gone.
    """
    for each in psutil.Process().children(recursive=True):
        each.kill()
    os._exit(0)


class Driver:
    """One connection to one cluster."""

    def __init__(self, sink: BinaryIO, frames: queue.SimpleQueue[Frame]) -> None:
        """Set the stream to the pytest side, and the queue of frames from it."""
        self.sink = sink
        self.frames = frames
        self.submitted: dict[ray.ObjectRef, tuple[str, str]] = {}
        """By reference: the key of a task, and its diagram in words."""
        self.size: dict[str, int] = {}
        self.polled = 0.0

    def connect(self, address: str, memory: int, folder: str) -> None:
        """Join a cluster, or start one on this machine.

        Args:
            address: `host:port`, or `local`.
            memory: Bytes of a local cluster.
            folder: Folder of a local cluster.
        """
        os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_task_oom_retries": str(RETRIES)}
        options: dict[str, object] = {"log_to_driver": False, "logging_level": logging.ERROR}
        if address == "local":
            options |= {
                "include_dashboard": False,
                "num_cpus": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
                "object_store_memory": LOCAL_STORE,
                "_memory": memory,
                "_temp_dir": folder,
            }
        try:
            ray.init(address, **options)
        except (ConnectionError, RuntimeError, ValueError, OSError) as error:
            text = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
            self.send({"kind": "unable", "text": text.rstrip(".")})
            exit_now()
        self.compute = ray.remote(task.run_task)
        self.poll_nodes()
        self.send({"kind": "ready", "version": version("ray")})

    def serve(self) -> None:
        """Handle frames and results until the pytest side is gone."""
        while True:
            try:
                header, arrays = self.frames.get(timeout=0 if self.submitted else RESULT_POLL)
            except queue.Empty:
                self.poll_results()
            else:
                self.handle(header, arrays)
            if time.monotonic() - self.polled > NODE_POLL:
                self.poll_nodes()

    def handle(self, header: dict[str, object], arrays: list[NDArray[np.generic]]) -> None:
        """Submit or cancel a task."""
        key = str(header["key"])
        if header["kind"] == "cancel":
            for ref in [ref for ref, (each, _) in self.submitted.items() if each == key]:
                del self.submitted[ref]
                ray.cancel(ref, force=True)
            return
        spec = header["spec"]
        assert isinstance(spec, dict)
        diagram = describe_diagram(spec["stored"])
        options = self.compute.options(
            num_cpus=spec["threads"], memory=spec["memory"], max_retries=RETRIES, name=f"diagram {spec['label']}"
        )
        try:
            ref = options.remote(spec, ray.put(arrays[0]), sys.path)
        except ray.exceptions.RayError as error:
            self.send({**failure_header(loss_failure(diagram, error)), "key": key})
        else:
            self.submitted[ref] = key, diagram

    def poll_results(self) -> None:
        """Send all results that have arrived."""
        if not self.submitted:
            return
        finished, _ = ray.wait(list(self.submitted), num_returns=len(self.submitted), timeout=RESULT_POLL)
        for ref in finished:
            self.send_result(ref, *self.submitted.pop(ref))

    def send_result(self, ref: ray.ObjectRef, key: str, diagram: str) -> None:
        """Send one result, or the reason for its failure."""
        try:
            header, bars = ray.get(ref)
        except ray.exceptions.RayTaskError as error:
            header, bars = failure_header(broken_failure(diagram, error)), []
        except ray.exceptions.RayError as error:
            header, bars = failure_header(loss_failure(diagram, error)), []
        self.send({**header, "key": key}, bars)

    def poll_nodes(self) -> None:
        """Send the size of the cluster if it has changed."""
        self.polled = time.monotonic()
        alive = [each["Resources"] for each in ray.nodes() if each["Alive"] and each["Resources"].get("CPU", 0) >= 1]
        cores = [int(each["CPU"]) for each in alive]
        size = {
            "nodes": len(alive),
            "cores": sum(cores),
            "largest_cores": max(cores, default=0),
            "largest_memory": max((int(each.get("memory", 0)) for each in alive), default=0),
        }
        if size != self.size:
            self.size = size
            self.send({"kind": "nodes", "size": size})

    def send(self, header: dict[str, object], arrays: Sequence[NDArray[np.generic]] = ()) -> None:
        """Send one frame."""
        write_frame(self.sink, header, arrays)


LOSSES = {
    "NodeDiedError": "its node died",
    "WorkerCrashedError": "its Ray worker died",
    "OutOfMemoryError": "its node ran out of memory",
}
"""Errors after which Ray has retried a task, as clauses."""


def loss_failure(diagram: str, error: BaseException) -> ComputationFailed:
    """Failure of a task that Ray could not run to its end."""
    name = type(error).__name__
    how = f"{RETRIES + 1} times: {LOSSES[name]}" if name in LOSSES else f"on the cluster: Ray reports {name}"
    return ComputationFailed(f"{diagram} was lost {how}", "died", advice="check the cluster, then run again")


def broken_failure(diagram: str, error: BaseException) -> ComputationFailed:
    """Failure of a task that raised an exception; the last line of its message names it."""
    last = (str(error).strip().splitlines() or [type(error).__name__])[-1].strip()
    advice = "install the same pytest-panic-doctor, with its engine, on every node of the cluster"
    return ComputationFailed(f"{diagram}: its task ended with «{last}»", "died", advice=advice)


def run_driver(config: str) -> None:
    """Run the driver; `config` is JSON with the keys address, memory, folder and path."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    settings = json.loads(config)
    source, sink = take_over_stdio()
    sys.path.extend(folder for folder in settings["path"] if folder not in sys.path)
    frames: queue.SimpleQueue[Frame] = queue.SimpleQueue()
    threading.Thread(target=listen, args=(source, frames), daemon=True).start()
    driver = Driver(sink, frames)
    Path(settings["folder"]).mkdir(parents=True, exist_ok=True)
    driver.connect(settings["address"], settings["memory"], settings["folder"])
    driver.serve()


if __name__ == "__main__":
    run_driver(sys.argv[1])
