"""The child process: its frames, its imports, and its end with its parent."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psutil
import pytest
from faulty_engines import order
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pytest_panic_doctor.compute.child import Limits
from pytest_panic_doctor.compute.frames import LENGTHS, pack, unpack
from pytest_panic_doctor.compute.process import Child, ChildDied
from pytest_panic_doctor.topology import native
from pytest_panic_doctor.topology.engines import load_engine

Frame = tuple[dict[str, object], list[np.ndarray]]
PROMISED = 1.0
"""Seconds by which no child outlives its parent."""


@contextmanager
def child_of(engine: str, threads: int = 1) -> Iterator[Child]:
    child = Child(engine, threads)
    try:
        yield child
    finally:
        child.end()


def frames(
    child: Child, until: tuple[str, ...] = ("done", "refused", "unable", "ended"), seconds: float = 30
) -> list[Frame]:
    """The child's frames, up to the one that ends a task."""
    said: list[Frame] = []
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if frame := child.receive(0.1):
            said.append(frame)
            if frame[0]["kind"] in until:
                return said
    raise AssertionError(f"only {said}")


def task(child: Child, points: np.ndarray, max_dim: int = 2) -> list[Frame]:
    child.send({"max_dim": max_dim, "tolerance": None}, points)
    return frames(child)


def kinds(said: list[Frame]) -> list[object]:
    return [header.get("stage", header["kind"]) for header, _ in said]


@given(
    st.dictionaries(st.text(), st.integers() | st.text() | st.none()),
    st.lists(hnp.arrays(st.sampled_from([np.float32, np.float64]), hnp.array_shapes(min_dims=2, min_side=0))),
)
def test_frames_come_back(header: dict[str, object], arrays: list[np.ndarray]) -> None:
    header.pop("arrays", None)
    frame = b"".join(pack(header, arrays))
    text, data = LENGTHS.unpack_from(frame)
    begin = LENGTHS.size + text
    assert len(frame) == begin + data
    found, back = unpack(frame[LENGTHS.size : begin], frame[begin:])
    assert found == header
    for mine, theirs in zip(back, arrays, strict=True):
        assert mine.dtype == theirs.dtype
        np.testing.assert_array_equal(mine, theirs)


def test_a_frame_never_carries_an_object() -> None:
    with pytest.raises(ValueError, match=r"(?i)object"):
        unpack(b'{"arrays": [["O", [1]]]}', b"\0" * 8)


def test_it_serves_many_diagrams_and_says_what_comes_next() -> None:
    rng = np.random.default_rng(0)
    with child_of("auto") as child:
        for count in (1, 5, 60, 2):
            said = task(child, rng.standard_normal((count, 3)).astype(np.float32), max_dim=1)
            header, bars = said[-1]
            assert header["distinct"] == count
            assert [each.dtype for each in bars] == [np.float32] * 2
            assert len(bars[0]) == count
            assert kinds(said)[-3:] == (["merging", "H0 to H1", "done"] if count > 1 else kinds(said)[-3:])
        assert kinds(said)[0] == "merging"


@pytest.mark.skipif(load_engine().name != "native", reason="the engine native was not built")
def test_it_says_how_far_it_is_and_ends_in_whole_frames() -> None:
    with child_of("native") as child:
        said = task(child, np.random.default_rng(0).normal(size=(1800, 3)).astype(np.float32), max_dim=2)
        far = [str(header["text"]) for header, _ in said if header["kind"] == "progress"]
        assert all(
            re.fullmatch(r"the ranks of the edges|(the links, edge|H[12], column) [\d,]+ of [\d,]+", each)
            for each in far
        )
        assert far
        assert said[-1][0]["kind"] == "done"
        assert kinds(task(child, np.eye(3, dtype=np.float32), max_dim=2))[-1] == "done"


def test_a_large_cloud_goes_in_without_blocking() -> None:
    points = np.repeat(np.arange(8, dtype=np.float32)[:, None], 768, 1)
    with child_of("auto") as child:
        said = task(child, np.tile(points, (2_000, 1)))
        assert said[-1][0]["distinct"] == 8


def test_what_a_library_prints_does_not_get_between() -> None:
    with child_of("faulty_engines:chatter") as child:
        for _ in range(3):
            assert kinds(task(child, order()))[-1] == "done"


def test_an_engine_that_is_not_there_is_a_sentence() -> None:
    with child_of("nowhere:engine") as child:
        ((header, _),) = frames(child)
        assert header["kind"] == "unable"
        assert "nowhere:engine" in str(header["text"])


def test_it_is_lean_and_its_threads_are_told() -> None:
    with child_of("faulty_engines:confess", threads=3) as child:
        said = task(child, order())[-1][0]
        names = str(said["text"]).split()
        assert "OMP_NUM_THREADS=3" in names
        heavy = {"pytest", "_pytest", "sqlmodel", "sqlalchemy", "pydantic", "sklearn", "scipy", "xdist", "gph"}
        assert not heavy & set(names)


@pytest.mark.skipif(sys.platform != "linux", reason="measured on Linux")
@pytest.mark.skipif(not native.is_built(), reason="the engine native was not built")
def test_an_idle_child_is_small() -> None:
    with child_of("native") as child:
        task(child, order())
        assert psutil.Process(child.pid).memory_info().rss < 60e6


@pytest.mark.skipif(not native.is_built(), reason="the engine native was not built")
@pytest.mark.parametrize(("limit", "allowed"), [("timeout", 0.5), ("memory", 10_000_000)])
def test_native_ends_at_its_limits_by_itself_and_the_child_goes_on(limit: str, allowed: float) -> None:
    points = np.random.default_rng(0).normal(size=(200, 768))
    hard = (points / np.linalg.norm(points, axis=1, keepdims=True)).astype(np.float32)
    with child_of("native") as child:
        task(child, order())
        beside = psutil.Process(child.pid).memory_info().rss if limit == "memory" else 0
        child.send(
            {"max_dim": 2, "tolerance": None, limit: allowed if limit == "timeout" else int(beside + allowed)}, hard
        )
        header, _ = frames(child)[-1]
        assert (header["kind"], header["limit"]) == ("ended", limit)
        assert re.fullmatch(r"H[12], column [\d,]+ of [\d,]+", str(header["far"]))
        assert kinds(task(child, order()))[-1] == "done"


def test_limits_are_of_what_is_left() -> None:
    limits = Limits.of({"timeout": 5.0, "memory": 10**12}, time.monotonic() - 2)
    assert limits.seconds_left is not None
    assert 2.5 < limits.seconds_left <= 3
    assert limits.bytes_left is not None
    assert 10**12 - 2e9 < limits.bytes_left < 10**12 - 1e6
    none = Limits.of({"timeout": None}, time.monotonic())
    assert (none.seconds_left, none.bytes_left) == (None, None)


def test_what_native_does_not_compute_another_engine_does() -> None:
    if not native.is_built():
        pytest.skip("the engine native was not built")
    points = np.random.default_rng(0).normal(size=(12, 3)).astype(np.float32)
    with child_of("native") as child:
        for max_dim, name in ((2, "native"), (3, load_engine("auto", 3).name), (1, "native")):
            child.send({"max_dim": max_dim, "tolerance": None}, points)
            header, bars = frames(child)[-1]
            assert (header["kind"], header["engine"], len(bars)) == ("done", name, max_dim + 1)


def test_nothing_is_imported_from_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("numpy.py", "json.py", "pytest_panic_doctor.py"):
        (tmp_path / name).write_text("raise SystemExit('imported from the current folder')")
    monkeypatch.chdir(tmp_path)
    with child_of("auto") as child:
        assert kinds(task(child, order()))[-1] == "done"


def test_a_projects_folders_do_not_hide_the_standard_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "numbers.py").write_text("raise SystemExit('imported in place of the standard library')")
    (tmp_path / "mine.py").write_text("from faulty_engines import refuse as engine")
    monkeypatch.syspath_prepend(tmp_path)
    with child_of("mine:engine") as child:
        assert task(child, order())[-1][0]["text"] == "the cloud is not to my taste"


@pytest.mark.parametrize(
    ("engine", "words"),
    [
        ("crash", "died of SIGSEGV"),
        ("abort", "died of SIGABRT"),
        ("killed", "died of SIGKILL"),
        ("shout", "ended with «RuntimeError: all is lost»"),
        ("starve", "ended with «"),
        ("mute", "closed its stream and went on"),
    ],
)
def test_how_it_died_is_told(engine: str, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pytest_panic_doctor.compute.process.EXIT_TIMEOUT", 2.0)
    with child_of(f"faulty_engines:{engine}") as child, pytest.raises(ChildDied, match=words):
        task(child, order())


def test_a_refusal_does_not_end_it() -> None:
    with child_of("faulty_engines:refuse") as child:
        for _ in range(2):
            header, _ = task(child, order())[-1]
            assert header["kind"] == "refused"
            assert header["text"] == "the cloud is not to my taste"
        assert task(child, np.array([[0], [np.nan]], np.float32))[-1][0]["kind"] == "refused"
        assert task(child, np.empty((0, 3), np.float32))[-1][0]["kind"] == "refused"


def test_interrupts_of_the_terminal_are_not_for_it() -> None:
    with child_of("faulty_engines:hold") as child:
        frames(child, until=("ready",))
        child.process.send_signal(signal.SIGINT)
        assert kinds(task(child, order(1, 0.3)))[-1] == "done"


def test_it_can_be_held_still_and_ended_so() -> None:
    with child_of("faulty_engines:eat") as child:
        frames(child, until=("ready",))
        child.pause()
        child.pause()
        deadline = time.monotonic() + 10
        while psutil.Process(child.pid).status() != psutil.STATUS_STOPPED and time.monotonic() < deadline:
            time.sleep(0.01)
        assert psutil.Process(child.pid).status() == psutil.STATUS_STOPPED
        child.send({"max_dim": 1, "tolerance": None}, order())
        assert child.receive(0.2) is None
        child.resume()
        assert kinds(frames(child))[-1] == "done"
        child.pause()
    assert not psutil.pid_exists(child.pid)


PARENT = """
import sys, threading, time
from faulty_engines import order
from pytest_panic_doctor.compute.process import Child

def start():
    global child
    child = Child("faulty_engines:hold", 1)

if sys.argv[1] == "thread":
    thread = threading.Thread(target=start)
    thread.start()
    thread.join()
else:
    start()
if sys.argv[2] == "busy":
    child.send({{"max_dim": 1, "tolerance": None}}, order(1000, 60))
    while (frame := child.receive(1)) is None or frame[0].get("stage") != "H0 to H1":
        pass
elif sys.argv[2] == "idle":
    while child.receive(1) is None:
        pass
print(child.pid, flush=True)
{end}
time.sleep(60)
"""


def alive(process: psutil.Process) -> bool:
    """Whether it still runs; zombies count as ended."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def dies(process: psutil.Process) -> bool:
    """Whether it ends within the promised time."""
    deadline = time.monotonic() + PROMISED
    while alive(process) and time.monotonic() < deadline:
        time.sleep(0.01)
    return not alive(process)


@pytest.mark.parametrize("thread", ["main", "thread"])
@pytest.mark.parametrize("state", ["starting", "idle", "busy"])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, None], ids=["SIGKILL", "SIGTERM", "os._exit"])
def test_it_dies_with_its_parent(thread: str, state: str, number: signal.Signals | None) -> None:
    code = PARENT.format(end="" if number else "import os; sys.stdin.readline(); os._exit(0)")
    with subprocess.Popen(
        [sys.executable, "-c", code, thread, state],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=path_to_tests(),
    ) as parent:
        assert parent.stdin
        assert parent.stdout
        child = psutil.Process(int(parent.stdout.readline()))
        if number:
            parent.send_signal(number)
        else:
            parent.stdin.write("\n")
            parent.stdin.flush()
        parent.wait(20)
        assert dies(child)


def test_an_idle_one_dies_with_the_controller_though_its_parent_lives() -> None:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as controller:
        child = Child("faulty_engines:hold", 1, controller.pid)
        try:
            frames(child, until=("ready",))
            time.sleep(1.2)
            assert alive(psutil.Process(child.pid))
            controller.kill()
            controller.wait(20)
            assert dies(psutil.Process(child.pid))
        finally:
            child.end()


FORKED = """
import os, time
from faulty_engines import order
from pytest_panic_doctor.compute.process import Child

child = Child("faulty_engines:hold", 1)
child.send({"max_dim": 1, "tolerance": None}, order(1000, 60))
while (frame := child.receive(1)) is None or frame[0].get("stage") != "H0 to H1":
    pass
sibling = os.fork()
if sibling:
    print(child.pid, sibling, flush=True)
time.sleep(60)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the guard holds on to the lifeline alone")
def test_a_sibling_that_holds_the_lifeline_does_not_keep_it_alive() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", FORKED], stdout=subprocess.PIPE, text=True, env=path_to_tests()
    ) as parent:
        assert parent.stdout
        child, sibling = (psutil.Process(int(pid)) for pid in parent.stdout.readline().split())
        try:
            parent.kill()
            parent.wait(20)
            assert alive(sibling)
            assert dies(child)
        finally:
            sibling.kill()


def path_to_tests() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(Path(__file__).parents[1] / "support")}


def test_it_outlives_the_thread_that_started_it() -> None:
    started: list[Child] = []

    def start() -> None:
        started.append(Child("faulty_engines:eat", 1))
        frames(started[0], until=("ready",))

    thread = threading.Thread(target=start)
    thread.start()
    thread.join()
    (child,) = started
    try:
        assert kinds(task(child, order(1, 0.5)))[-1] == "done"
    finally:
        child.end()


GUARDED = """
import os, sys, time
from pytest_panic_doctor.compute.child import start_guard
read, write = os.pipe()
pid = os.fork()
if pid:
    os.close(read)
    print(pid, flush=True)
    if sys.argv[1] == "child":
        os.waitpid(pid, 0)
        os.close(write)
        print("reaped", flush=True)
    time.sleep(60)
os.close(write)
start_guard(read)
time.sleep(0.5 if sys.argv[1] == "child" else 60)
"""


def keeper_of(child: psutil.Process) -> psutil.Process:
    deadline = time.monotonic() + 10
    while not child.children() and time.monotonic() < deadline:
        time.sleep(0.01)
    (keeper,) = child.children()
    return keeper


def test_a_guard_kills_it_where_the_kernel_does_not() -> None:
    with subprocess.Popen([sys.executable, "-c", GUARDED, "parent"], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout
        child = psutil.Process(int(parent.stdout.readline()))
        keeper = keeper_of(child)
        parent.kill()
        parent.wait()
        assert dies(child)
        assert dies(keeper)


def test_a_guard_ends_with_what_it_guards() -> None:
    with subprocess.Popen([sys.executable, "-c", GUARDED, "child"], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout
        child = psutil.Process(int(parent.stdout.readline()))
        keeper = keeper_of(child)
        assert parent.stdout.readline() == "reaped\n"
        assert dies(keeper)
        parent.kill()
