"""One budget for several processes: grants, queue, preemption, and cleanup after dead processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TypedDict

import psutil
import pytest
from faulty_engines import limit_for
from hypothesis import given
from hypothesis import strategies as st

from pytest_panic_doctor.compute.budget import GRANT_MARGIN, GRANT_STEP, Budget, Grant, GrowthDecision, headroom
from pytest_panic_doctor.compute.ledger import ProcessIdentity
from pytest_panic_doctor.compute.memory import resident, tree_resident
from pytest_panic_doctor.errors import Stopped

pytestmark = pytest.mark.integration

MB = 1_000_000
HERE = Path(__file__).parents[1] / "support"


@pytest.fixture
def room(tmp_path: Path) -> Callable[[int], Budget]:
    """A budget that leaves so many MB beside this process and its descendants."""

    def made(megabytes: int) -> Budget:
        return Budget(tmp_path / "budget", limit_for(tree_resident(os.getpid()) + megabytes * MB))

    return made


@contextmanager
def process(megabytes: int) -> Iterator[int]:
    """Start a process of about this size; gives its id."""
    code = f"kept = b'x' * {max(0, megabytes - 10) * MB}; print(flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout
        child.stdout.readline()
        yield child.pid
        child.kill()


def patiently(_: Grant, seconds: float) -> None:
    assert seconds < 20


class Impatient(Exception):
    """A callback that fails if it is called: nothing may wait."""


def impatient(_: Grant, seconds: float) -> None:
    if seconds > 0.15:
        raise Impatient


def refused(budget: Budget, megabytes: int, *, alone: bool = False) -> bool:
    """Whether there is no room for this size now."""
    try:
        with budget.admit(megabytes * MB, "x", 1, impatient, exclusive=alone):
            return False
    except Impatient:
        return True


@given(st.integers(0, 10**13))
def test_some_of_the_limit_is_never_granted(limit: int) -> None:
    assert int(0.05 * limit) <= headroom(limit) <= int(0.1 * limit)
    assert headroom(limit) >= 100 * MB or limit < 1_000 * MB
    assert limit - headroom(limit) <= limit + 1 - headroom(limit + 1)


def test_what_fits_is_admitted_and_what_does_not_waits(room: Callable[[int], Budget]) -> None:
    budget = room(500)
    with budget.admit(300 * MB, "one", 1, patiently) as one:
        assert one.bytes == 300 * MB
        assert refused(budget, 300)
        with budget.admit(100 * MB, "two", 1, patiently):
            assert refused(budget, 200)
    assert not refused(budget, 300)
    assert budget.running() == []


def test_what_a_child_has_is_counted_once(room: Callable[[int], Budget]) -> None:
    with process(150) as child:
        budget = room(300)
        budget.add(child)
        # The room is beside what the child has already, and a grant for it includes that.
        with budget.admit(400 * MB, "one", 1, patiently, child=child) as grant:
            assert grant.bytes == 400 * MB
            assert refused(budget, 100)
            assert not refused(budget, 30)


def test_a_process_that_nobody_named_counts_too(room: Callable[[int], Budget]) -> None:
    budget = room(400)
    with budget.admit(10 * MB, "small", 1, patiently):
        assert not refused(budget, 350)
        with process(200):
            budget._unregistered = (-1e9, ())
            assert refused(budget, 350)
        assert not refused(budget, 350)


def test_one_that_can_never_fit_is_tried_with_all_the_room(room: Callable[[int], Budget]) -> None:
    budget = room(300)
    with budget.admit(10**15, "huge", 1, patiently) as grant:
        assert 250 * MB < grant.bytes < 350 * MB
        assert refused(budget, 60)
        assert grant.grow(grant.bytes + 1) is GrowthDecision.FULL


def test_alone_waits_for_everybody_and_then_nobody_comes(room: Callable[[int], Budget]) -> None:
    budget = room(500)
    with budget.admit(10 * MB, "one", 1, patiently):
        assert refused(budget, 10, alone=True)
    with budget.admit(10 * MB, "alone", 1, patiently, exclusive=True) as grant:
        assert grant.bytes > 450 * MB
        assert refused(budget, 10)


class Waiter:
    """Waits for room in a thread."""

    def __init__(self, budget: Budget, name: str, megabytes: int, admitted: list[str], *, alone: bool = False) -> None:
        self.leave = threading.Event()
        self.thread = threading.Thread(target=self._run, args=(budget, name, megabytes, admitted, alone))
        before = budget.file.read().ticket
        self.thread.start()
        until(lambda: budget.file.read().ticket > before)

    def _run(self, budget: Budget, name: str, megabytes: int, admitted: list[str], alone: bool) -> None:
        with budget.admit(megabytes * MB, name, 1, patiently, exclusive=alone):
            admitted.append(name)
            self.leave.wait(20)

    def end(self) -> None:
        self.leave.set()
        self.thread.join()


def until(happened: Callable[[], bool], seconds: float = 15) -> None:
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_nobody_overtakes_a_large_one(room: Callable[[int], Budget]) -> None:
    budget = room(500)
    admitted: list[str] = []
    first = Waiter(budget, "first", 200, admitted)
    large = Waiter(budget, "large", 450, admitted)
    small = [Waiter(budget, f"small {number}", 10, admitted) for number in range(3)]
    time.sleep(0.3)
    assert admitted == ["first"]
    first.end()
    until(lambda: len(admitted) == 5)
    assert admitted[:2] == ["first", "large"]
    for each in (large, *small):
        each.end()


def test_one_who_gives_up_lets_the_next_go_on(room: Callable[[int], Budget]) -> None:
    budget = room(500)
    with budget.admit(200 * MB, "one", 1, patiently):
        assert refused(budget, 450)
        assert not refused(budget, 10)
    assert budget.file.read().waiting == {}


def test_a_grant_grows_while_there_is_room(room: Callable[[int], Budget]) -> None:
    budget = room(500)
    with process(60) as child, budget.admit(50 * MB, "one", 1, patiently, child=child) as grant:
        grant.attach(child)
        size = resident(child)
        assert grant.grow(size) is GrowthDecision.GRANTED
        assert grant.bytes == size + GRANT_STEP
        assert grant.grow(300 * MB) is GrowthDecision.GRANTED
        assert grant.bytes > 330 * MB
        assert grant.grow(10) is not GrowthDecision.FULL
        assert grant.grow(600 * MB) is GrowthDecision.FULL


def test_the_one_admitted_last_has_to_go(room: Callable[[int], Budget]) -> None:
    budget = room(500)
    with ExitStack() as stack:
        old, young, youngest = (stack.enter_context(process(100)) for _ in range(3))
        grants = [
            stack.enter_context(budget.admit(20 * MB, str(child), 1, patiently, child=child))
            for child in (old, young, youngest)
        ]
        for grant, child in zip(grants, (old, young, youngest), strict=True):
            grant.attach(child)
        # The youngest itself asks: it makes room.
        assert grants[2].grow(400 * MB) is GrowthDecision.YIELD
        assert grants[2].ended
        assert psutil.pid_exists(youngest)
        grants[2].release()
        # The oldest asks: the younger one is killed at once, and the oldest waits for its memory.
        assert grants[0].grow(400 * MB) is GrowthDecision.WAIT
        assert psutil.Process(young).wait(5) is not None
        assert grants[1].ended
        grants[1].refresh()
        assert grants[1].lease.ended
        until(lambda: grants[0].grow(300 * MB) is GrowthDecision.GRANTED)
        assert psutil.pid_exists(old)


def test_what_another_does_not_use_is_taken_back_before_anybody_has_to_go(room: Callable[[int], Budget]) -> None:
    budget = room(500)
    with ExitStack() as stack:
        old, young = (stack.enter_context(process(50)) for _ in range(2))
        first = stack.enter_context(budget.admit(100 * MB, "old", 1, patiently, child=old))
        first.attach(old)
        second = stack.enter_context(budget.admit(300 * MB, "young", 1, patiently, child=young))
        second.attach(young)
        assert first.grow(200 * MB) is GrowthDecision.GRANTED
        second.refresh()
        assert not second.lease.ended
        assert resident(young) + GRANT_MARGIN <= second.bytes < 300 * MB
        promised = sum(max(held.grant, resident(held.child)) for held in budget.running())
        assert promised + resident(os.getpid()) <= budget.limit


def test_other_processes_that_grow_push_the_last_one_out(room: Callable[[int], Budget]) -> None:
    budget = room(300)
    with ExitStack() as stack:
        old, young = (stack.enter_context(process(50)) for _ in range(2))
        first = stack.enter_context(budget.admit(80 * MB, "old", 1, patiently, child=old))
        first.attach(old)
        second = stack.enter_context(budget.admit(80 * MB, "young", 1, patiently, child=young))
        second.attach(young)
        assert first.report(resident(old), "H0 to H2") is GrowthDecision.KEPT
        shown = {held.label: held for held in budget.running()}
        assert shown["old"].stage == "H0 to H2"
        assert shown["old"].resident == pytest.approx(resident(old), abs=MB)
        kept = bytearray(b"x" * 280 * MB)
        assert first.report(resident(old), "H0 to H2") is GrowthDecision.WAIT
        assert psutil.Process(young).wait(5) is not None
        del kept


HOLDER = """
import sys, time
from pathlib import Path
from pytest_panic_doctor.compute.budget import Budget

budget = Budget(Path(sys.argv[1]), int(sys.argv[2]))
with budget.admit(int(sys.argv[3]), "holder", 7, lambda *_: print("waiting", flush=True)):
    print("admitted", flush=True)
    time.sleep(60)
"""


def holder(budget: Budget, megabytes: int) -> subprocess.Popen[str]:
    """A process that holds this size, or waits for it."""
    command = [sys.executable, "-c", HOLDER, str(budget.file.path.parent), str(budget.limit), str(megabytes * MB)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV], ids=lambda each: each.name)
def test_a_dead_holder_frees_its_share(room: Callable[[int], Budget], number: signal.Signals) -> None:
    budget = room(600)
    with holder(budget, 400) as dying:
        assert dying.stdout
        assert dying.stdout.readline() == "admitted\n"
        assert [held.points for held in budget.running()] == [7]
        assert refused(budget, 300)
        dying.send_signal(number)
        # A zombie holds nothing.
        until(lambda: budget.running() == [])
        assert not refused(budget, 300)


def test_a_dead_waiter_holds_nobody_up(room: Callable[[int], Budget]) -> None:
    budget = room(600)
    with budget.admit(300 * MB, "one", 1, patiently), holder(budget, 500) as dying:
        assert dying.stdout
        assert dying.stdout.readline() == "waiting\n"
        assert refused(budget, 10)
        dying.kill()
        until(lambda: not budget.file.read().waiting)
        assert not refused(budget, 10)


def test_a_later_process_with_the_same_number_is_not_the_holder(room: Callable[[int], Budget]) -> None:
    budget = room(300)
    with budget.admit(200 * MB, "one", 1, patiently) as grant:
        assert len(budget.running()) == 1
        with budget.file.change() as ledger:
            who = ledger.holders[grant.key].owner
            ledger.holders[grant.key].owner = ProcessIdentity(who.pid, who.started - 1)
        assert budget.running() == []


def test_one_killed_while_it_writes_leaves_a_whole_ledger(room: Callable[[int], Budget]) -> None:
    budget = room(600)
    code = (
        "import sys; from pathlib import Path; from pytest_panic_doctor.compute.budget import Budget\n"
        "budget = Budget(Path(sys.argv[1]), 10**9); print(flush=True)\n"
        "while True: budget.count()"
    )
    for number in range(8):
        with subprocess.Popen(
            [sys.executable, "-c", code, str(budget.file.path.parent)], stdout=subprocess.PIPE
        ) as writer:
            assert writer.stdout
            writer.stdout.readline()
            time.sleep(0.003 * number)
            writer.kill()
        assert budget.finished() >= number
        json.loads(budget.file.path.read_text())
        assert not refused(budget, 100)


def test_a_folder_that_is_gone_ends_the_session(room: Callable[[int], Budget]) -> None:
    budget = room(300)
    with budget.admit(100 * MB, "one", 1, patiently) as grant:
        for each in budget.file.path.parent.iterdir():
            each.unlink()
        with pytest.raises(Stopped):
            grant.grow(150 * MB)


def workers(budget_folder: Path, limit: int, engine: str, shares: Sequence[Sequence[tuple[float, float]]]) -> Results:
    """Run real workers, each a process with a runner, with one budget; gives their results and their peak together."""
    environment = os.environ | {"PYTHONPATH": str(HERE)}
    commands = [
        [sys.executable, str(HERE / "compute_process.py"), str(budget_folder), str(limit), engine, json.dumps(share)]
        for share in shares
    ]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) for command in commands]
    most = 0
    while any(each.poll() is None for each in started):
        most = max(most, sum(tree_resident(each.pid) for each in started))
        time.sleep(0.02)
    results: list[Line] = []
    for each in started:
        out, _ = each.communicate()
        results += [json.loads(line) for line in out.splitlines()[1:]]
    return Results(results, most)


class Line(TypedDict, total=False):
    """The result that a worker prints for a task."""

    done: float
    failed: float
    kind: str
    text: str


class Results:
    """The results of workers."""

    def __init__(self, lines: list[Line], most: int) -> None:
        self.most = most
        self.done = sorted(line["done"] for line in lines if "done" in line)
        self.failed = [line for line in lines if "failed" in line]


def test_two_workers_share_and_the_hopeless_one_fails_alone(tmp_path: Path) -> None:
    limit = 600 * MB
    results = workers(
        tmp_path / "budget",
        limit,
        "faulty_engines:eat",
        [[(150, 0.1), (3_000, 20), (120, 0.1)], [(200, 0.3), (180, 0.1)]],
    )
    assert results.done == [120, 150, 180, 200]
    (failed,) = results.failed
    assert failed["kind"] == "memory"
    assert results.most < limit


def test_two_that_do_not_fit_together_are_both_done(tmp_path: Path) -> None:
    limit = 700 * MB
    results = workers(tmp_path / "budget", limit, "faulty_engines:eat", [[(400, 0.2)], [(380, 0.2)]])
    assert results.done == [380, 400]
    assert results.most < limit


def test_four_workers_that_all_want_too_much_come_to_an_end(tmp_path: Path) -> None:
    limit = 900 * MB
    shares = [[(250 + 10 * number, 0.1), (40, 0.01)] for number in range(4)]
    results = workers(tmp_path / "budget", limit, "faulty_engines:eat", shares)
    assert results.failed == []
    assert results.done == [40, 40, 40, 40, 250, 260, 270, 280]
    assert results.most < limit
