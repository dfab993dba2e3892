"""The process that speaks to Ray: `python -m pytest_panic_doctor.compute.ray.driver ORDERS`.

It takes frames with clouds from the pytest side, hands them to the cluster, and sends back what comes.
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
from pytest_panic_doctor.compute.frames import LENGTHS, pack, unpack
from pytest_panic_doctor.compute.ray import task

RESULT_POLL = 0.05
"""Seconds between two looks at what has come."""

NODE_POLL = 1.0
"""Seconds between two looks at the nodes."""

LOCAL_STORE = 200_000_000
"""Bytes of a local Ray's object store: clouds in flight, of some MB each."""

Frame = tuple[dict[str, object], list[NDArray[np.generic]]]


def listen(source: BinaryIO, frames: queue.SimpleQueue[Frame]) -> None:
    """Read frames for ever; end this process, and all that it has started, where the pytest side is gone."""
    while True:
        sizes = source.read(LENGTHS.size)
        if len(sizes) < LENGTHS.size:
            exit_now()
        text_size, data_size = LENGTHS.unpack(sizes)
        text, data = source.read(text_size), source.read(data_size)
        if len(data) < data_size:
            exit_now()
        frames.put(unpack(text, data))


def exit_now() -> None:
    """At once: Ray takes more than a second to shut down, and then nothing is left that it could still save.

    The head of a cluster ends the tasks of a driver whose connection is gone.
    """
    for each in psutil.Process().children(recursive=True):
        each.kill()
    os._exit(0)


class Driver:
    """One connection to one cluster."""

    def __init__(self, sink: BinaryIO, frames: queue.SimpleQueue[Frame]) -> None:
        """`sink` leads to the pytest side, `frames` come from it."""
        self.sink = sink
        self.frames = frames
        self.submitted: dict[ray.ObjectRef, str] = {}
        self.nodes: list[list[float]] = []
        self.polled = 0.0

    def connect(self, address: str, memory: int, folder: str) -> None:
        """Join the cluster at `address`, or begin one of `memory` bytes on this machine where that is «local»."""
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
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
        """Until the pytest side is gone."""
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
        """Hand a task to the cluster, or take one back."""
        key = str(header["key"])
        if header["kind"] == "cancel":
            for ref in [ref for ref, each in self.submitted.items() if each == key]:
                del self.submitted[ref]
                ray.cancel(ref, force=True)
            return
        spec = header["spec"]
        assert isinstance(spec, dict)
        # Nothing is tried again by Ray: what is lost is counted, and said, on the pytest side.
        options = self.compute.options(
            num_cpus=spec["threads"], memory=spec["memory"], max_retries=0, name=f"diagram {spec['label']}"
        )
        try:
            ref = options.remote(spec, ray.put(arrays[0]), sys.path)
        except ray.exceptions.RayError as error:
            self.send({"kind": "lost", "key": key, "text": describe_loss(error)})
        else:
            self.submitted[ref] = key

    def poll_results(self) -> None:
        """Send what has come back."""
        if not self.submitted:
            return
        finished, _ = ray.wait(list(self.submitted), num_returns=len(self.submitted), timeout=RESULT_POLL)
        for ref in finished:
            self.send_result(ref, self.submitted.pop(ref))

    def send_result(self, ref: ray.ObjectRef, key: str) -> None:
        """Send one answer, or why there is none."""
        try:
            header, bars = ray.get(ref)
        except ray.exceptions.RayTaskError as error:
            self.send({"kind": "broken", "key": key, "text": last_line(error)})
        except ray.exceptions.RayError as error:
            self.send({"kind": "lost", "key": key, "text": describe_loss(error)})
        else:
            self.send({**header, "key": key}, bars)

    def poll_nodes(self) -> None:
        """Tell which nodes there are, where that has changed."""
        self.polled = time.monotonic()
        nodes = [
            [each["Resources"].get(name, 0) for name in ("CPU", "memory", "object_store_memory")]
            for each in ray.nodes()
            if each["Alive"]
        ]
        if nodes != self.nodes:
            self.nodes = nodes
            self.send({"kind": "nodes", "nodes": nodes})

    def send(self, header: dict[str, object], arrays: Sequence[NDArray[np.generic]] = ()) -> None:
        """One frame."""
        for piece in pack(header, arrays):
            self.sink.write(piece)
        self.sink.flush()


LOSSES = {
    "NodeDiedError": "its node died",
    "LocalRayletDiedError": "its node died",
    "WorkerCrashedError": "its Ray worker died",
    "OutOfMemoryError": "its node ran out of memory",
    "ObjectLostError": "its cloud was lost with a node",
    "OwnerDiedError": "its cloud was lost with a node",
    "ObjectFetchTimedOutError": "its cloud did not reach the node",
    "ObjectStoreFullError": "the object store had no room for its cloud",
    "OutOfDiskError": "the object store had no room for its cloud",
    "TaskCancelledError": "it was cancelled by somebody else",
    "TaskUnschedulableError": "no node could take it",
}


def describe_loss(error: BaseException) -> str:
    """How a task was lost, as a clause: by the class of the error or the nearest above it that has words."""
    names = [each.__name__ for each in type(error).__mro__]
    return next((LOSSES[name] for name in names if name in LOSSES), f"Ray reports {names[0]}")


def last_line(error: BaseException) -> str:
    """The last line of an error that a task ended with, which names it."""
    return (str(error).strip().splitlines() or [type(error).__name__])[-1].strip()


def run_driver(config: str) -> None:
    """`orders` is JSON: address, memory, folder, and the folders where modules may lie."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    settings = json.loads(config)
    source, sink = take_over_stdio()
    sys.path.extend(folder for folder in settings["path"] if folder not in sys.path)
    frames: queue.SimpleQueue[Frame] = queue.SimpleQueue()
    threading.Thread(target=listen, args=(source, frames), daemon=True).start()
    driver = Driver(os.fdopen(sink.fileno(), "wb", closefd=False), frames)
    Path(settings["folder"]).mkdir(parents=True, exist_ok=True)
    driver.connect(settings["address"], settings["memory"], settings["folder"])
    driver.serve()


if __name__ == "__main__":
    run_driver(sys.argv[1])
