"""A real pytest run, watched all the while: time, memory of the process tree, and bytes read."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from memory import EVERY, kind

ALONE = ("-p", "xdist", "-p", "pytest_panic_doctor.plugin", "-p", "no:cacheprovider")
"""The doctor and xdist, and none of the plugins that happen to be installed for the tests."""


@dataclass
class Watched:
    """What a run took: seconds on the clock, of the CPU, and to the end of the first item; bytes; and its items.

    `peaks` are the most bytes that the whole tree, the controller, a worker and a child had resident. `asked` are the
    bytes that all processes asked the kernel for, `read` those that came from the disk.
    """

    seconds: float = 0.0
    cpu: float = 0.0
    first: float = 0.0
    asked: int = 0
    read: int = 0
    status: int = 0
    peaks: Counter[str] = field(default_factory=Counter)
    items: list[dict[str, object]] = field(default_factory=list)

    def outcomes(self) -> Counter[str]:
        """How often each outcome came."""
        return Counter(str(each["outcome"]) for each in self.items)


def pytest_run(path: Path, *args: str, every: float = EVERY) -> Watched:
    """Run pytest on a database and look at it every so many seconds, which costs a few milliseconds each time.

    Raises SystemExit, with its output, where it ended with a usage error.
    """
    lines, output = path.with_suffix(".jsonl"), path.with_suffix(".txt")
    lines.unlink(missing_ok=True)
    command = [sys.executable, "-m", "pytest", *ALONE, "--doctor-db", str(path), f"--doctor-report={lines}", "-q"]
    found = Watched()
    begun = time.perf_counter()
    with output.open("w") as file:
        process = subprocess.Popen(
            [*command, *args],
            cwd=path.parent,
            stdout=file,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        )
        watcher = threading.Thread(target=watch, args=(process.pid, found, lines, begun, every))
        watcher.start()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        found.seconds = time.perf_counter() - begun
        found.asked, found.read = bytes_of(process.pid)
        _, status, usage = os.wait4(process.pid, 0)
    process.returncode = found.status = os.waitstatus_to_exitcode(status)
    watcher.join()
    found.cpu = usage.ru_utime + usage.ru_stime
    if found.status not in (0, 1):
        raise SystemExit(output.read_text())
    with lines.open() as report:
        found.items = [json.loads(line) for line in report]
    return found


def watch(pid: int, found: Watched, lines: Path, begun: float, every: float) -> None:
    """Keep the highest of each kind of memory until the process has ended, and note when the first item had."""
    root = psutil.Process(pid)
    while True:
        if not found.first and lines.exists() and lines.stat().st_size:
            found.first = time.perf_counter() - begun
        try:
            if root.status() == psutil.STATUS_ZOMBIE:
                return
            tree = [root, *root.children(recursive=True)]
        except psutil.NoSuchProcess:
            return
        sizes = []
        for each in tree:
            try:
                size, what = each.memory_info().rss, kind(each, root)
            except (psutil.NoSuchProcess, psutil.ZombieProcess):
                continue
            sizes.append(size)
            found.peaks[what] = max(found.peaks[what], size)
        found.peaks["tree"] = max(found.peaks["tree"], sum(sizes))
        time.sleep(every)


def bytes_of(pid: int) -> tuple[int, int]:
    """Bytes that a process that has just ended, and its children before it, asked for and had from the disk.

    See proc_pid_io(5); (0, 0) where the system does not say.
    """
    try:
        text = Path(f"/proc/{pid}/io").read_text()
    except OSError:
        return 0, 0
    values = {key: int(value) for key, value in re.findall(r"(\w+): (\d+)", text)}
    return values["rchar"], values["read_bytes"]


def make_cold(path: Path) -> None:
    """Let the kernel forget a file's pages, and no other file's; written ones go to the disk first."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
