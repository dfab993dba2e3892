"""Computing in a watched child: real memory, real signals, real engines."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from faulty_engines import limit_for, order

from pytest_panic_doctor.compute import estimate
from pytest_panic_doctor.compute.attempt import Attempt
from pytest_panic_doctor.compute.budget import Budget, Grant, GrowthDecision
from pytest_panic_doctor.compute.memory import tree_resident
from pytest_panic_doctor.compute.runner import DiagramRunner, crash_failure
from pytest_panic_doctor.compute.task import ComputationFailed, Task, more_memory, timeout_message
from pytest_panic_doctor.errors import Stopped
from pytest_panic_doctor.topology.cloud import Points
from pytest_panic_doctor.topology.engines import load_engine

pytestmark = pytest.mark.integration


@pytest.fixture
def budget(tmp_path: Path) -> Budget:
    """A budget large enough for all tests."""
    return Budget(tmp_path / "budget", 8_000_000_000)


@pytest.fixture
def tight(tmp_path: Path) -> Callable[[int], Budget]:
    """A budget that leaves so many MB to a child beside this process and its descendants."""
    return lambda megabytes: Budget(tmp_path / "tight", limit_for(tree_resident(os.getpid()) + megabytes * 10**6))


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    """No test leaves a child or a zombie."""
    yield
    assert children() == []


def processes() -> list[psutil.Process]:
    """The children and zombies, without the cluster that other tests may share."""
    found = []
    for each in psutil.Process().children():
        try:
            found += [each] if "compute.child" in " ".join(each.cmdline()) else []
        except psutil.ZombieProcess:
            found.append(each)
        except psutil.NoSuchProcess:
            continue
    return found


def children() -> list[str]:
    return [str(each) for each in processes()]


def equidistant(count: int) -> Points:
    """Random points on the unit sphere in 768 dimensions: nearly the same distance from each other."""
    points = np.random.default_rng(0).standard_normal((count, 768))
    return np.asarray(points / np.linalg.norm(points, axis=1)[:, None], np.float32)


def failure(runner: DiagramRunner, task: Task) -> ComputationFailed:
    with pytest.raises(ComputationFailed) as caught:
        runner.compute(task)
    return caught.value


def test_one_warm_child_computes_many(budget: Budget) -> None:
    with DiagramRunner(budget=budget) as runner:
        square = Task(np.array([[0, 0], [0, 1], [1, 0], [1, 1], [1, 1]], np.float32), max_dim=1)
        pids = set()
        for _ in range(3):
            computed = runner.compute(square)
            np.testing.assert_allclose(computed.diagram.bars[1], [[1, np.sqrt(2)]], rtol=1e-6)
            assert computed.distinct == 4
            assert (computed.engine, computed.engine_version) == (load_engine().name, load_engine().version)
            assert 10e6 < computed.peak_memory < 500e6
            assert 0 < computed.seconds < 60
            pids |= {each.pid for each in processes()}
        assert len(pids) == 1
        assert budget.finished() == 3
        assert budget.running() == []


def test_a_peak_between_two_looks_is_measured(budget: Budget, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FASTEST_POLL", "SLOWEST_POLL"):
        monkeypatch.setattr(f"pytest_panic_doctor.compute.runner.{name}", 5.0)
    with DiagramRunner("faulty_engines:gulp", budget=budget) as runner:
        assert runner.compute(Task(order(300, 0.001))).peak_memory > 300e6
        assert runner.compute(Task(order(1))).peak_memory < 100e6


def test_near_equidistant_points_end_at_the_timeout_and_others_go_on(budget: Budget) -> None:
    with DiagramRunner(budget=budget, timeout=2) as runner:
        runner.compute(Task(order()))
        before = children()
        begun = time.monotonic()
        failed = failure(runner, Task(equidistant(200)))
        assert time.monotonic() - begun < 2 + 1
        far = r", in H[12], column [\d,]+ of [\d,]+" if load_engine().name == "native" else ""
        said = f"the diagram of 200 points was ended after 2 s, its limit{far}; give it more with --doctor-timeout 30"
        assert re.fullmatch(said, str(failed))
        assert failed.kind == "timeout"
        assert 2 <= failed.seconds < 3
        # The doctor's own engine ends itself, and its child goes on.
        assert children() == (before if load_engine().name == "native" else [])
        assert runner.compute(Task(order())).distinct == 3


def test_the_time_begins_with_the_computation(budget: Budget, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sluggish.py").write_text("import time; time.sleep(1.5)\nfrom faulty_engines import hold as engine\n")
    monkeypatch.syspath_prepend(tmp_path)
    with DiagramRunner("sluggish:engine", budget=budget, timeout=1) as runner:
        assert runner.compute(Task(order())).distinct == 3


def test_a_child_that_never_starts_is_given_up(budget: Budget, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pytest_panic_doctor.compute.runner.START_TIMEOUT", 0.5)
    (tmp_path / "stuck.py").write_text("import time; time.sleep(60)\n")
    monkeypatch.syspath_prepend(tmp_path)
    with DiagramRunner("stuck:engine", budget=budget) as runner:
        failed = failure(runner, Task(order()))
    assert failed.kind == "died"
    assert "did not start within 0.5 s twice" in str(failed)


@pytest.mark.skipif(load_engine().name != "native", reason="the engine native was not built")
def test_native_reaches_its_memory_by_itself_and_says_how_far_it_came(
    budget: Budget, monkeypatch: pytest.MonkeyPatch
) -> None:
    with DiagramRunner(budget=budget) as runner:
        runner.compute(Task(order()))
        (child,) = processes()
        monkeypatch.setattr(budget, "largest_grant", lambda: child.memory_info().rss + 10_000_000)
        failed = failure(runner, Task(equidistant(200)))
        assert failed.kind == "memory"
        assert re.fullmatch(
            r"the diagram of 200 points reached \d+ MB, its limit, after \d+ s in H[12], column [\d,]+ of [\d,]+; "
            r"give it more with --doctor-memory 12GB",
            str(failed),
        )
        assert processes() == [child]


def test_one_child_alone_may_have_what_others_compute_with(tight: Callable[[int], Budget]) -> None:
    budget = tight(300)
    alone = budget.largest_grant()
    assert alone == pytest.approx(300e6, abs=20e6)
    with DiagramRunner("faulty_engines:hold", budget=budget) as runner:
        thread = threading.Thread(target=lambda: runner.compute(Task(order(2, 1.5))))
        thread.start()
        wait_until(lambda: any(held.stage.startswith("H0") for held in budget.running()))
        assert budget.largest_grant() == pytest.approx(alone, abs=10e6)
        thread.join()


def test_one_that_ends_itself_has_some_grace_and_no_more(budget: Budget) -> None:
    with DiagramRunner(budget=budget, timeout=1) as runner:
        attempt = Attempt(time.monotonic() - 1.2, working=True, exact=True)
        runner._check_time(Task(order()), attempt)
        attempt.exact = False
        with pytest.raises(ComputationFailed, match="ended after 1 s, its limit"):
            runner._check_time(Task(order()), attempt)
        attempt.exact, attempt.started_at = True, time.monotonic() - 2
        with pytest.raises(ComputationFailed, match="ended after 1 s, its limit"):
            runner._check_time(Task(order()), attempt)


@pytest.mark.skipif(load_engine().name != "native", reason="the engine native was not built")
@pytest.mark.parametrize("count", [100, 1_500])
def test_a_child_needs_what_admission_reckons_with(budget: Budget, count: int) -> None:
    points = np.random.default_rng(0).normal(size=(count, 256)).astype(np.float32)
    with DiagramRunner(budget=budget) as runner:
        peak = runner.compute(Task(points, max_dim=1)).peak_memory
    assert 0.6 < peak / estimate.memory(count, "native", points.nbytes) < 1.05


@pytest.mark.parametrize(
    ("timeout", "longer"), [(0.5, 10), (5, 60), (60, 600), (100, 1800), (300, 3600), (3600, 36000)]
)
def test_a_longer_time_is_suggested(timeout: float, longer: int) -> None:
    assert timeout_message(Task(order()), timeout).endswith(
        f"after {timeout:g} s, its limit; give it more with --doctor-timeout {longer}"
    )


def test_whoever_ends_it_says_how_far_it_came() -> None:
    attempt = Attempt(time.monotonic())
    attempt.enter("H0 to H2")
    assert "after 0 s in H0 to H2; " in str(crash_failure(Task(order()), [("was killed", attempt)] * 2))
    attempt.progress = "H2, column 1,204 of 1,862"
    assert "after 0 s in H2, column 1,204 of 1,862; " in str(
        crash_failure(Task(order()), [("was killed", attempt)] * 2)
    )
    attempt.enter("merging")
    assert attempt.place == "merging"


def test_over_its_memory_alone_it_is_ended_and_its_memory_is_back(tight: Callable[[int], Budget]) -> None:
    budget = tight(250)
    with DiagramRunner("faulty_engines:eat", budget=budget) as runner:
        before = tree_resident(os.getpid())
        failed = failure(runner, Task(order(2_000, 20)))
        assert children() == []
        assert tree_resident(os.getpid()) < before + 20e6
        match = re.fullmatch(
            r"the diagram of 3 points reached (\d+) MB, its limit, after \d+ s in H0 to H2; "
            r"give it more with --doctor-memory ([\d.]+)GB",
            str(failed),
        )
        assert match
        assert failed.kind == "memory"
        assert 200 < int(match[1]) < 270
        assert failed.peak_memory <= 270e6
        assert float(match[2]) * 1e9 >= 1.5 * budget.limit
        # The same DiagramRunner continues normally.
        assert runner.compute(Task(order(60, 0.01))).distinct == 3


ANOTHER = """
import sys
from contextlib import suppress
from pathlib import Path
from pytest_panic_doctor.compute.budget import Budget

Budget(Path(sys.argv[1]), int(sys.argv[2])).register_worker()
print("entered", flush=True)
sys.stdin.read()
"""


def test_fewer_workers_are_suggested_where_there_are_more(tight: Callable[[int], Budget]) -> None:
    budget = tight(250)
    command = [sys.executable, "-c", ANOTHER, str(budget.file.path.parent), str(budget.limit)]
    with (
        DiagramRunner("faulty_engines:eat", budget=budget) as runner,
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as another,
    ):
        assert another.stdout
        another.stdout.readline()
        assert str(failure(runner, Task(order(2_000, 20)))).endswith("GB, or fewer workers")
        another.kill()


def test_growing_as_fast_as_can_be_it_stays_within_the_limit(tight: Callable[[int], Budget]) -> None:
    budget = tight(400)
    worst = Sampled()
    with DiagramRunner("faulty_engines:gulp", budget=budget) as runner, worst:
        assert failure(runner, Task(order(6_000, 20))).kind == "memory"
    assert worst.most < budget.limit


def test_it_is_held_still_until_the_room_is_there(budget: Budget, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    grow = Grant.grow

    def crowded(grant: Grant, size: int) -> GrowthDecision:
        # As if another child was ended for this one and is not gone yet.
        if len(seen) < 20:
            seen.append(psutil.Process(grant.lease.child).status())
            return GrowthDecision.WAIT
        return grow(grant, size)

    monkeypatch.setattr(Grant, "grow", crowded)
    monkeypatch.setattr("pytest_panic_doctor.compute.runner.REPORT_INTERVAL", 1e9)
    with DiagramRunner("faulty_engines:eat", budget=budget) as runner:
        assert runner.compute(Task(order(300, 0.01))).distinct == 3
    assert seen[-10:] == [psutil.STATUS_STOPPED] * 10


FROZEN = """
import sys, time
from contextlib import suppress
from pathlib import Path
from pytest_panic_doctor.compute.ledger import LedgerFile

with LedgerFile(Path(sys.argv[1])).change():
    print("locked", flush=True)
    time.sleep(60)
"""


def test_it_cannot_grow_while_somebody_keeps_the_ledger(tight: Callable[[int], Budget]) -> None:
    budget = tight(400)
    worst = Sampled()
    holder: list[subprocess.Popen[str]] = []

    def freeze() -> None:
        wait_until(lambda: any(held.stage.startswith("H0") for held in budget.running()))
        command = [sys.executable, "-c", FROZEN, str(budget.file.path.parent)]
        holder.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        assert holder[0].stdout
        holder[0].stdout.readline()
        os.kill(holder[0].pid, signal.SIGSTOP)
        time.sleep(2)
        holder[0].kill()

    freezer = threading.Thread(target=freeze)
    with DiagramRunner("faulty_engines:eat", budget=budget) as runner, worst:
        freezer.start()
        assert failure(runner, Task(order(4_000, 20))).kind == "memory"
    freezer.join()
    holder[0].communicate()
    assert worst.most < budget.limit


def resident() -> int:
    """What this process and its descendants have, but for one that is not yet what it will be: it shares our memory."""
    mine = psutil.Process()
    total: int = mine.memory_info().rss
    for each in mine.children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            total += each.memory_info().rss if each.cmdline() != mine.cmdline() else 0
    return total


class Sampled:
    """The peak of this process and its descendants together, polled every few milliseconds."""

    def __init__(self) -> None:
        self.most = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> Sampled:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(0.005):
            self.most = max(self.most, resident())


@pytest.mark.parametrize(
    ("reached", "limit", "more"),
    [
        (4_000_000_000, 5_000_000_000, "12GB"),
        (600_000_000, 1_000_000_000, "2GB"),
        (200_000_000, 1_000_000_000, "2GB"),
        (30_000_000_000, 32_000_000_000, "96GB"),
        (50_000_000, 100_000_000, "1GB"),
    ],
)
def test_a_sensible_limit_is_suggested(reached: int, limit: int, more: str) -> None:
    assert more_memory(reached, limit) == more


@pytest.mark.parametrize(
    ("engine", "how"),
    [
        ("crash", "died of SIGSEGV twice"),
        ("abort", "died of SIGABRT twice"),
        ("killed", "died of SIGKILL twice"),
        ("shout", "ended with «RuntimeError: all is lost» twice"),
        ("starve", "ended with «.*MemoryError.*» twice"),
    ],
)
def test_one_that_dies_is_tried_once_more_and_says_how(budget: Budget, engine: str, how: str) -> None:
    with DiagramRunner(f"faulty_engines:{engine}", budget=budget) as runner:
        failed = failure(runner, Task(order()))
        assert failed.kind == "died"
        assert re.fullmatch(
            rf"the diagram of 3 points: its computation {how}, at \d+ MB after \d s in H0 to H2; "
            "try another engine with --doctor-engine",
            str(failed),
        )
        assert budget.running() == []


def test_one_that_died_once_is_computed(budget: Budget, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOSTILE_MARK", str(tmp_path / "mark"))
    with DiagramRunner("faulty_engines:crash_once", budget=budget) as runner:
        assert runner.compute(Task(order())).distinct == 3
        assert (tmp_path / "mark").exists()


def test_the_second_try_is_alone(tmp_path: Path, budget: Budget, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOSTILE_MARK", str(tmp_path / "mark"))
    with (
        DiagramRunner("faulty_engines:hold", budget=budget) as other,
        DiagramRunner("faulty_engines:crash_once", budget=budget) as runner,
    ):
        ended: list[float] = []

        def occupy() -> None:
            other.compute(Task(order(1, 0.99), label="other"))
            ended.append(time.monotonic())

        thread = threading.Thread(target=occupy)
        thread.start()
        wait_until(lambda: any(held.stage.startswith("H0") for held in budget.running()))
        begun = time.monotonic()
        runner.compute(Task(order()))
        assert begun < ended[0] < time.monotonic()
        thread.join()


def wait_until(happened: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("engine", "points", "words"),
    [
        ("faulty_engines:refuse", order(), "the diagram of 3 points: the cloud is not to my taste"),
        ("auto", np.array([[0], [np.nan]], np.float32), "the diagram of 2 points: the cloud holds NaN or infinity"),
        ("auto", np.array([[0], [np.inf]], np.float32), "the diagram of 2 points: the cloud holds NaN or infinity"),
        ("auto", np.empty((0, 4), np.float32), "the diagram of 0 points: a cloud without a point has no diagram"),
    ],
)
def test_a_refusal_is_final_and_the_child_stays(budget: Budget, engine: str, points: Points, words: str) -> None:
    with DiagramRunner(engine, budget=budget) as runner:
        for _ in range(2):
            failed = failure(runner, Task(points))
            assert failed.kind == "refused"
            assert str(failed) == words
        assert len(children()) == 1


def test_an_engine_that_is_not_there_is_one_sentence(budget: Budget) -> None:
    with DiagramRunner("nowhere:engine", budget=budget) as runner:
        failed = failure(runner, Task(order()))
    assert failed.kind == "refused"
    assert "nowhere:engine" in str(failed)
    assert "\n" not in str(failed)


def test_one_that_has_to_make_room_begins_again_alone(budget: Budget) -> None:
    with DiagramRunner("faulty_engines:hold", budget=budget) as runner:
        thread = threading.Thread(target=lambda: runner.compute(Task(order(2, 1.5), label="young")))
        thread.start()
        wait_until(lambda: any(held.stage.startswith("H0") for held in budget.running()))
        (first,) = budget.running()
        # As another worker does that needs the room before the child's pid is known, so that it cannot kill it.
        with budget.file.change() as ledger:
            (held,) = ledger.holders.values()
            held.ended = True
        wait_until(lambda: any(held.child != first.child and held.stage.startswith("H0") for held in budget.running()))
        (second,) = budget.running()
        assert not psutil.pid_exists(first.child)
        thread.join()
    assert second.ticket == first.ticket
    assert second.grant > first.grant
    assert budget.finished() == 1


def test_no_longer_wanted_it_is_ended_at_once(budget: Budget) -> None:
    begun: list[float] = []

    def wanted() -> bool:
        if not begun and budget.running() and budget.running()[0].stage.startswith("H0"):
            begun.append(time.monotonic())
        return not begun

    with DiagramRunner("faulty_engines:hold", budget=budget, is_active=wanted) as runner:
        with pytest.raises(Stopped):
            runner.compute(Task(order(1000, 60)))
        assert time.monotonic() - begun[0] < 1
        assert children() == []
        assert budget.running() == []


def test_no_longer_wanted_while_it_waits(budget: Budget) -> None:
    with budget.admit(1, "other", 1, lambda *_: None, exclusive=True):
        begun = time.monotonic()
        with (
            DiagramRunner(budget=budget, is_active=lambda: time.monotonic() - begun < 0.3) as runner,
            pytest.raises(Stopped),
        ):
            runner.compute(Task(order()))
    assert budget.running() == []


def test_an_idle_child_is_given_up_while_waiting(budget: Budget, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pytest_panic_doctor.compute.runner.LEDGER_TIMEOUT", 0.2)
    with DiagramRunner(budget=budget) as runner:
        runner.compute(Task(order()))
        assert len(children()) == 1
        # So that the next task is estimated to need more than the idle child has.
        monkeypatch.setattr("pytest_panic_doctor.compute.estimate.CHILD", 4_000_000_000)
        with budget.admit(1, "other", 1, lambda *_: None, exclusive=True):
            waiting = threading.Thread(target=lambda: runner.compute(Task(order())))
            waiting.start()
            wait_until(lambda: children() == [])
        waiting.join()
        assert budget.finished() == 2


def test_a_child_that_keeps_its_heap_is_replaced(budget: Budget, monkeypatch: pytest.MonkeyPatch) -> None:
    with DiagramRunner(budget=budget) as runner:
        runner.compute(Task(order()))
        before = children()
        assert len(before) == 1
        monkeypatch.setattr("pytest_panic_doctor.compute.runner.RECYCLE", 1)
        runner.compute(Task(order()))
        assert children() == []


INTERRUPTED = """
import sys, tempfile, time
from contextlib import suppress
from pathlib import Path
import psutil
from faulty_engines import order
from pytest_panic_doctor.compute.budget import GrowthDecision, Budget, Grant
from pytest_panic_doctor.compute.runner import DiagramRunner
from pytest_panic_doctor.compute.task import Task

budget = Budget(Path(sys.argv[1]), 4_000_000_000)
computer = DiagramRunner("faulty_engines:hold", budget=budget)
if sys.argv[2] == "idle":
    computer.compute(Task(order()))
print("begun", flush=True)
try:
    computer.compute(Task(order(1000, 60)))
except KeyboardInterrupt:
    print(len(psutil.Process().children()), len(budget.running()), flush=True)
"""


@pytest.mark.parametrize("when", [0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.5])
def test_ctrl_c_leaves_no_child(tmp_path: Path, when: float) -> None:
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1] / "support")}
    command = [sys.executable, "-c", INTERRUPTED, str(tmp_path), "idle" if when == 0.01 else "cold"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout
        assert process.stdout.readline() == "begun\n"
        time.sleep(when)
        process.send_signal(signal.SIGINT)
        begun = time.monotonic()
        out, _ = process.communicate(timeout=20)
        assert out == "0 0\n"
        assert time.monotonic() - begun < 2


def test_ctrl_c_in_the_moment_of_the_start_leaves_no_child(budget: Budget, monkeypatch: pytest.MonkeyPatch) -> None:
    class Interrupted(subprocess.Popen[bytes]):
        """A process whose start is interrupted before its pid is recorded."""

        def __init__(self, command: list[str], **options: Any) -> None:
            super().__init__(command, **options)
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.01)

    monkeypatch.setattr(subprocess, "Popen", Interrupted)
    with DiagramRunner("faulty_engines:hold", budget=budget) as runner:
        with pytest.raises(KeyboardInterrupt):
            runner.compute(Task(order(1000, 60)))
        assert children() == []
        assert budget.running() == []
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_child_that_is_killed_from_outside_is_replaced(budget: Budget) -> None:
    with DiagramRunner("faulty_engines:hold", budget=budget) as runner:
        runner.compute(Task(order()))
        (idle,) = processes()
        idle.kill()
        assert runner.compute(Task(order())).distinct == 3


def test_a_session_whose_folder_is_gone_is_over(tmp_path: Path) -> None:
    budget = Budget(tmp_path / "budget", 4_000_000_000)
    with DiagramRunner(budget=budget) as runner:
        runner.compute(Task(order()))
        for each in (tmp_path / "budget").iterdir():
            each.unlink()
        (tmp_path / "budget").rmdir()
        with pytest.raises(Stopped):
            runner.compute(Task(order()))
    assert not (tmp_path / "budget").exists()
