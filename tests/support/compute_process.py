"""A worker as a process of its own: `python tests/support/compute_process.py FOLDER LIMIT ENGINE TASKS [TIMEOUT]`.

TASKS is JSON: a list of [megabytes, seconds] for the engines of `hostile`. It prints one JSON object a line: first
`{"ready": true}`, then for each task what became of it.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from faulty_engines import order

from pytest_panic_doctor.compute.budget import Budget
from pytest_panic_doctor.compute.runner import DiagramRunner
from pytest_panic_doctor.compute.task import ComputationFailed, Task


def main(folder: str, limit: str, engine: str, tasks: str, timeout: str = "") -> None:
    """Compute one after another."""
    budget = Budget(Path(folder), int(limit))
    with DiagramRunner(engine, budget=budget, timeout=float(timeout) if timeout else None) as runner:
        print(json.dumps({"ready": True}), flush=True)
        for megabytes, seconds in json.loads(tasks):
            try:
                computed = runner.compute(Task(order(megabytes, seconds), label=f"{megabytes:g}"))
                result: dict[str, object] = {"done": megabytes, "peak": computed.peak_memory}
            except ComputationFailed as failure:
                result = {"failed": megabytes, "kind": failure.kind, "text": str(failure)}
            print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
