"""Memory: sizes as people write them, cgroups as kernels write them, and real processes."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_panic_doctor.compute.memory import (
    available_memory,
    family,
    forget_peak,
    peak,
    resident,
    start_time,
    tree_resident,
)
from pytest_panic_doctor.formatting import format_size, parse_size


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("4GB", 4_000_000_000),
        ("4 GB", 4_000_000_000),
        ("4gb", 4_000_000_000),
        ("1.5GB", 1_500_000_000),
        ("1.5GiB", 1_610_612_736),
        ("800M", 800_000_000),
        ("800MB", 800_000_000),
        ("800MiB", 838_860_800),
        ("2T", 2_000_000_000_000),
        ("2TiB", 2_199_023_255_552),
        ("64kB", 64_000),
        ("64KiB", 65_536),
        ("123B", 123),
        ("0.5k", 500),
    ],
)
def test_sizes_are_read(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text", ["banana", "", " ", "0GB", "0.1B", "-1GB", "GB", "1.GB", "4XB", "1e9", "4GB 2", "IB", "nan", "inf"]
)
def test_what_is_no_size_is_refused_in_a_sentence(text: str) -> None:
    with pytest.raises(ValueError, match=r"^that is not a size: give one such as 4GB, 1\.5GiB or 800MB$"):
        parse_size(text)


@pytest.mark.parametrize("text", ["12", " 0", "1.5"])
def test_a_number_without_a_unit_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=rf"^a size needs a unit: give one such as {text.strip()}GB$"):
        parse_size(text)


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (312, "312 B"),
        (64_000, "64 kB"),
        (1_400_000, "1.4 MB"),
        (312_000_000, "312 MB"),
        (999_600_000, "1.0 GB"),
        (4_000_000_000, "4.0 GB"),
        (64_000_000_000, "64.0 GB"),
        (2_000_000_000_000, "2.0 TB"),
    ],
)
def test_sizes_are_written(size: int, text: str) -> None:
    assert format_size(size) == text


@given(st.integers(10**6, 10**15))
def test_what_is_written_can_be_read(size: int) -> None:
    assert parse_size(format_size(size)) == pytest.approx(size, rel=0.06)


def cgroups(root: Path, limits: dict[str, tuple[str, str]], names: tuple[str, str]) -> None:
    for group, (limit, usage) in limits.items():
        folder = root / group
        folder.mkdir(parents=True, exist_ok=True)
        (folder / names[0]).write_text(limit + "\n")
        (folder / names[1]).write_text(usage + "\n")


V1 = ("memory.limit_in_bytes", "memory.usage_in_bytes")
V2 = ("memory.max", "memory.current")


@pytest.mark.parametrize(
    ("limits", "room"),
    [
        ({"a/b": ("5000", "1000")}, 4000),
        ({"a": ("5000", "1000"), "a/b": ("max", "10")}, 4000),
        ({"a": ("5000", "4500"), "a/b": ("4000", "10")}, 500),
        ({"a": ("9000", "10"), "a/b": ("4000", "10")}, 3990),
        ({"a/b": ("1000", "1500")}, 0),
    ],
)
def test_every_cgroup_above_counts(tmp_path: Path, limits: dict[str, tuple[str, str]], room: int) -> None:
    (tmp_path / "v2").write_text("0::/a/b\n")
    cgroups(tmp_path / "two", limits, V2)
    assert available_memory(tmp_path / "v2", tmp_path / "two") == room
    (tmp_path / "v1").write_text("5:cpu,cpuacct:/z\n4:hugetlb,memory:/a/b\n1:name=systemd:/a/b\n")
    cgroups(tmp_path / "one/memory", limits, V1)
    assert available_memory(tmp_path / "v1", tmp_path / "one") == room


def test_without_a_limit_it_is_the_machine(tmp_path: Path) -> None:
    (tmp_path / "v1").write_text("4:memory:/a\n0::/a\n")
    cgroups(tmp_path / "memory", {"a": (str(2**63 - 4096), "1000")}, V1)
    cgroups(tmp_path, {"a": ("max", "1000")}, V2)
    for proc in (tmp_path / "v1", tmp_path / "missing"):
        assert available_memory(proc, tmp_path) == pytest.approx(psutil.virtual_memory().available, rel=0.2)
    assert 0 < available_memory() <= psutil.virtual_memory().total


EATER = "import sys, time, subprocess; kept = b'x' * int(sys.argv[1]); {}; print('ready', flush=True); time.sleep(60)"
"""A process with this many bytes, and optionally a child."""


@pytest.fixture
def eater() -> Iterator[subprocess.Popen[str]]:
    """A process of 50 MB with a child of 70 MB."""
    below = EATER.format("pass")
    code = EATER.format(
        f"child = subprocess.Popen([sys.executable, '-c', {below!r}, '70000000'], stdout=subprocess.PIPE);"
        "child.stdout.readline()"
    )
    with subprocess.Popen([sys.executable, "-c", code, "50000000"], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        tree = [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]
        yield process
        for each in tree:
            each.kill()


def test_resident_memory_of_a_process_and_of_its_tree(eater: subprocess.Popen[str]) -> None:
    assert 50e6 < resident(eater.pid) < 70e6
    assert 120e6 < tree_resident(eater.pid) < 150e6
    (child,) = psutil.Process(eater.pid).children()
    assert set(family([eater.pid, child.pid])) == {eater.pid, child.pid}
    assert set(family([os.getpid()])) >= {os.getpid(), eater.pid, child.pid}


def test_a_process_that_is_gone_has_nothing() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        deadline = time.monotonic() + 20
        while start_time(process.pid) and time.monotonic() < deadline:
            time.sleep(0.01)
        # Now a zombie.
        assert (start_time(process.pid), resident(process.pid), tree_resident(process.pid)) == (0.0, 0, 0)
    assert (start_time(process.pid), resident(process.pid), tree_resident(process.pid)) == (0.0, 0, 0)
    assert peak(process.pid) == 0


def test_a_process_is_told_by_its_start(eater: subprocess.Popen[str]) -> None:
    assert start_time(eater.pid) > start_time(os.getpid()) > 0
    assert start_time(eater.pid) == start_time(eater.pid)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a peak that can be forgotten")
def test_a_peak_is_remembered_and_can_be_forgotten() -> None:
    before = resident(os.getpid())
    kept = np.ones(200_000_000, np.uint8)
    del kept
    assert peak(os.getpid()) >= before + 190e6
    assert forget_peak()
    assert peak(os.getpid()) < before + 100e6
