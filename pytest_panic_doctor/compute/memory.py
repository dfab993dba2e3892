"""Memory: sizes read and written, what is there, and what processes have of it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import psutil

PROC = Path("/proc")
"""Where Linux tells about processes."""

LEAST_MEMORY = 200_000_000
"""Bytes with which a diagram can be computed at all: pytest has 120 MB at most, a child at rest 40, and some is never
granted. Tiny diagrams are computed with 150 MB, none with 130."""


def available_memory(proc: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")) -> int:
    """Bytes that can still be used: of the machine, and of every cgroup above this process (v1 and v2)."""
    return max(0, min([int(psutil.virtual_memory().available), *cgroup_room(proc, root)]))


def cgroup_room(proc: Path, root: Path) -> Iterator[int]:
    """What each cgroup above this process still allows."""
    try:
        lines = proc.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            yield from hierarchy_room(root, path, "memory.max", "memory.current")
        elif "memory" in controllers.split(","):
            yield from hierarchy_room(root / "memory", path, "memory.limit_in_bytes", "memory.usage_in_bytes")


def hierarchy_room(root: Path, path: str, limit: str, usage: str) -> Iterator[int]:
    """The same for one hierarchy, from the process's own group up to the root."""
    folder = root / path.lstrip("/")
    for group in (folder, *folder.parents):
        if not group.is_relative_to(root):
            return
        try:
            yield int((group / limit).read_text()) - int((group / usage).read_text())
        except (OSError, ValueError):
            # No limit here: the file is missing, or says «max».
            continue


def resident(pid: int) -> int:
    """Resident memory of a process in bytes; 0 where it is gone.

    Shared pages count in every process that has them: what several processes have together is less than the sum,
    never more. PSS would tell them apart, but the kernel walks every mapping for it.
    """
    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.NoSuchProcess:
        return 0


def family(pids: Iterable[int]) -> dict[int, int]:
    """Resident bytes of processes and all below them, each once, by process id. Looks through all processes: ms."""
    found: dict[int, int] = {}
    for pid in pids:
        if pid not in found:
            try:
                below = psutil.Process(pid).children(recursive=True)
            except psutil.NoSuchProcess:
                continue
            found |= {each: resident(each) for each in (pid, *(child.pid for child in below))}
    return found


def tree_resident(pid: int) -> int:
    """Resident memory of a process and all below it, in bytes; pages that they share are counted in each."""
    return sum(family([pid]).values())


def start_time(pid: int) -> float:
    """When a process was started, 0.0 where it is gone or a zombie: with its number it tells it from all others.

    On Linux in clock ticks since boot, which no correction of the clock changes, as it does the epoch that psutil adds.
    """
    if (PROC / "self/stat").exists():
        try:
            state, *rest = (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            return 0.0
        return 0.0 if state in "ZX" else float(rest[18])
    try:
        process = psutil.Process(pid)
        return 0.0 if process.status() == psutil.STATUS_ZOMBIE else float(process.create_time())
    except psutil.NoSuchProcess:
        return 0.0


def forget_peak() -> bool:
    """Begin to measure this process's peak anew; False where the kernel cannot (proc(5), clear_refs)."""
    try:
        (PROC / "self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def peak(pid: int) -> int:
    """The largest resident memory that a process had, in bytes; 0 where the kernel does not tell."""
    try:
        match = re.search(r"^VmHWM:\s*(\d+) kB", (PROC / str(pid) / "status").read_text(), re.MULTILINE)
    except OSError:
        return 0
    return int(match[1]) * 1024 if match else 0
