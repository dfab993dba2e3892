"""Memory: what is available, and what processes use."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import psutil

PROC = Path("/proc")
"""Linux's file system of processes."""

LEAST_MEMORY = 200_000_000
"""Least limit in bytes with which a diagram can be computed.

pytest takes up to 120 MB, an idle child 40, and some is never granted. Tiny diagrams succeed with 150 MB and fail with
130.
"""


def available_memory(proc: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")) -> int:
    """Bytes that can still be used: the least of the machine and every cgroup above this process (v1 and v2)."""
    return max(0, min([int(psutil.virtual_memory().available), *cgroup_room(proc, root)]))


def cgroup_room(proc: Path, root: Path) -> Iterator[int]:
    """Bytes that each cgroup above this process still allows."""
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
    """Bytes that each cgroup of one hierarchy still allows, from the process's own group up to the root."""
    folder = root / path.lstrip("/")
    for group in (folder, *folder.parents):
        if not group.is_relative_to(root):
            return
        try:
            yield int((group / limit).read_text()) - int((group / usage).read_text())
        except (OSError, ValueError):
            # No limit here: the file is missing, or contains «max».
            continue


def resident(pid: int) -> int:
    """Resident memory of a process in bytes; 0 if it is gone.

    Shared pages count in every process, so a sum over processes is never too small. PSS would be exact, but the kernel
    walks every mapping for it.
    """
    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.NoSuchProcess:
        return 0


def family(pids: Iterable[int]) -> dict[int, int]:
    """Resident bytes of processes and all their descendants, by process id.

    It scans all processes of the machine, which takes milliseconds.
    """
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
    """Resident memory of a process and its descendants in bytes; shared pages count in each."""
    return sum(family([pid]).values())


def start_time(pid: int) -> float:
    """Start time of a process, which together with its pid identifies it; 0.0 if it is gone or a zombie.

    On Linux in clock ticks since boot. Unlike the epoch that psutil computes, it does not change with the system clock.
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
    """Reset this process's peak memory; False if the kernel cannot (proc(5), clear_refs)."""
    try:
        (PROC / "self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def peak(pid: int) -> int:
    """Largest resident memory that a process had, in bytes; 0 if the kernel does not report it."""
    try:
        match = re.search(r"^VmHWM:\s*(\d+) kB", (PROC / str(pid) / "status").read_text(), re.MULTILINE)
    except OSError:
        return 0
    return int(match[1]) * 1024 if match else 0
