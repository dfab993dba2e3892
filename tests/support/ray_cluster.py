"""A real Ray cluster of several nodes on this machine, in a process of its own.

`python tests/support/ray_cluster.py NODES` starts it.

NODES is JSON, one object a node, as `ray.cluster_utils.Cluster.add_node` takes it; the first is the head. It prints the
address, then obeys a line each: `kill`, `add JSON`, and answers `done`.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

Node = Mapping[str, int]

QUICK = {"health_check_period_ms": 500, "health_check_failure_threshold": 4, "health_check_initial_delay_ms": 0}
"""A node that is gone is missed after two seconds and not fifteen."""


def node(cores: int, megabytes: int) -> Node:
    """A small one."""
    return {"num_cpus": cores, "memory": megabytes * 10**6, "object_store_memory": 80_000_000}


@dataclass(frozen=True)
class Running:
    """A cluster."""

    process: subprocess.Popen[str]
    address: str

    def do(self, order: str) -> None:
        """Give an order and wait until it was obeyed."""
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(order + "\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline() == "done\n"

    def kill_last(self) -> None:
        """Kill the node that was added last, with all that runs on it."""
        self.do("kill")

    def add(self, another: Node) -> None:
        """Add a node."""
        self.do(f"add {json.dumps(another)}")


@contextmanager
def cluster(*nodes: Node) -> Iterator[Running]:
    """A cluster, until the end of the block; nothing of it is left then."""
    command = [sys.executable, str(Path(__file__)), json.dumps(nodes)]
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=os.environ | {"RAY_USAGE_STATS_ENABLED": "0"},
        start_new_session=True,
    )
    try:
        assert process.stdout
        yield Running(process, json.loads(process.stdout.readline()))
    finally:
        end(process)


def end(process: subprocess.Popen[str]) -> None:
    """Kill a process and all below it."""
    tree = psutil.Process(process.pid).children(recursive=True)
    for each in tree:
        each.suspend() if each.is_running() and each.status() != psutil.STATUS_ZOMBIE else None
    for each in tree:
        each.kill()
    process.kill()
    process.wait()
    for stream in (process.stdin, process.stdout):
        assert stream
        stream.close()


def main(nodes: str) -> None:
    """Serve."""
    from ray.cluster_utils import Cluster

    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    cluster = Cluster()
    there = []
    for number, each in enumerate(json.loads(nodes)):
        there.append(cluster.add_node(**each, **({"_system_config": QUICK} if number == 0 else {})))
    print(json.dumps(cluster.address), file=answers)
    for line in sys.stdin:
        order, _, rest = line.strip().partition(" ")
        if order == "kill":
            strike(there.pop().all_processes["raylet"][0].process.pid)
        else:
            there.append(cluster.add_node(**json.loads(rest)))
        print("done", file=answers)


def strike(pid: int) -> None:
    """End a node as a power failure does: its raylet and every process below it at the same moment."""
    for each in [*psutil.Process(pid).children(recursive=True), psutil.Process(pid)]:
        os.kill(each.pid, signal.SIGKILL)


if __name__ == "__main__":
    main(sys.argv[1])
