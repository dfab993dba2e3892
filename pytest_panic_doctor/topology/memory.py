"""Memory sizes: read, written, and what is there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import psutil

UNITS = {"": 1, "B": 1}
UNITS |= {f"{prefix}B": 1000**power for power, prefix in enumerate("KMGT", 1)}
UNITS |= {f"{prefix}IB": 1024**power for power, prefix in enumerate("KMGT", 1)}
UNITS |= {prefix: 1000**power for power, prefix in enumerate("KMGT", 1)}


def parse_size(text: str) -> int:
    """`4GB`, `1.5 GiB`, `800M` in bytes; raises `ValueError`, whose text says what a size looks like."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?I?B?)\s*", text, re.IGNORECASE)
    size = int(float(match[1]) * UNITS[match[2].upper()]) if match and match[2].upper() in UNITS else 0
    if size <= 0:
        raise ValueError("that is no size: give one such as 4GB, 1.5GiB or 800MB")
    return size


def format_size(size: float) -> str:
    """A size in bytes as a person reads it: `312 MB`, `4.0 GB`."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 999.5:
            return f"{size:.1f} {unit}" if unit == "GB" or (unit == "MB" and size < 10) else f"{size:.0f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def available(proc: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")) -> int:
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
            yield from rooms(root, path, "memory.max", "memory.current")
        elif "memory" in controllers.split(","):
            yield from rooms(root / "memory", path, "memory.limit_in_bytes", "memory.usage_in_bytes")


def rooms(root: Path, path: str, limit: str, usage: str) -> Iterator[int]:
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
    """Resident memory of a process in bytes; 0 where it is gone."""
    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.NoSuchProcess:
        return 0


def tree_resident(pid: int) -> int:
    """Resident memory of a process and all below it, in bytes; pages that they share are counted in each."""
    try:
        tree = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0
    return sum(resident(each.pid) for each in tree)
