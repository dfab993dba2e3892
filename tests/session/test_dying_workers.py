"""Workers that die at every moment, by force: the item that one died of fails by name, and all others are examined."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from databases import DEFAULT, Built, dump
from pytest_runs import Doctor, items, outcomes

from pytest_panic_doctor.examination.opening import from_database
from pytest_panic_doctor.examination.settings import Settings
from pytest_panic_doctor.topology.payload import decode

pytestmark = pytest.mark.integration

RULES = len(DEFAULT)

STARTING = ("gateway", "configure", "ready", "collected")
RUNNING = ("runtests", "before an item", "item begun", "verdict told", "shutdown")


@pytest.fixture
def dying(run_doctor: Doctor, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Doctor:
    """Run the doctor with workers that die: gw0 at the first moment, whoever takes its place at the second, …

    gw1 stays in its first item until all have died.
    """
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1] / "support"))
    monkeypatch.setenv("WAITS", "gw1")
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)

    def run(moments: dict[str, str], *args: object) -> pytest.RunResult:
        monkeypatch.setenv("DYING", json.dumps(moments))
        result = run_doctor("-p", "dying_worker_plugins", "--doctor-report=r.json", *args)
        assert {path.name.removeprefix("died-") for path in pytester.path.glob("died-*")} == set(moments)
        assert "INTERNALERROR" not in result.stdout.str() + result.stderr.str()
        return result

    return run


def one_after_another(*moments: str) -> dict[str, str]:
    """gw0 dies, then gw2, gw3, …"""
    return {f"gw{number + bool(number)}": moment for number, moment in enumerate(moments)}


def check(folder: Path, *, died: int) -> None:
    """Every item has one outcome, and as many failed, by name, as workers died of one."""
    report = json.loads((folder / "r.json").read_text())["items"]
    names = [entry.name for entry in from_database(Settings(folder / "x.sqlite")).entries()]
    assert sorted(item["nodeid"].removeprefix("x.sqlite::") for item in report) == sorted(names)
    failed = {name: item for name, item in items(folder / "r.json").items() if item["outcome"] == "failed"}
    assert len(failed) == died
    for name, item in failed.items():
        assert f"crashed while running 'x.sqlite::{name}'" in str(item["note"])


@pytest.mark.parametrize(
    ("mode", "moments", "died"),
    [
        ("worksteal", (*STARTING, *RUNNING), 1),
        pytest.param("load", ("runtests", "item begun", "verdict told"), 1, marks=pytest.mark.slow),
        pytest.param("loadgroup", ("item begun", "verdict told"), 1, marks=pytest.mark.slow),
    ],
)
def test_the_rest_is_examined(dying: Doctor, sick: Built, mode: str, moments: tuple[str, ...], died: int) -> None:
    result = dying(one_after_another(*moments), "-n2", f"--dist={mode}")
    assert result.ret == 1
    check(sick.path.parent, died=died)


@pytest.mark.parametrize("moment", ["steal", pytest.param("stopped steal", marks=pytest.mark.slow)])
def test_a_worker_that_dies_while_it_is_asked_to_give_back(dying: Doctor, sick: Built, moment: str) -> None:
    """gw1 is in its first item: the request finds it dead, or, stopped before and killed after, unable to answer."""
    assert dying({"gw1": moment}, "-n2").ret == 1
    check(sick.path.parent, died=1)


def test_an_item_that_kills_is_not_handed_on_with_its_file(
    dying: Doctor, sick: Built, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WAITS", "")
    assert dying({"gw0": "item begun"}, "-n1", "--dist=loadfile").ret == 1
    check(sick.path.parent, died=1)


def test_who_takes_its_place_repairs_too(dying: Doctor, sick: Built) -> None:
    with sick.open() as db:
        db.execute("UPDATE persistencediagram SET diagram_data = NULL")
        db.execute("UPDATE embedding SET invocation_id = ? WHERE id = ?", ("e" * 32, sick.embedding(5)))
    result = dying(one_after_another("runtests", "verdict told"), "-n2", "--doctor-fix")
    came = outcomes(sick.path.parent / "r.json")
    assert {word for name, word in came.items() if name.startswith("diagram-missing")} == {"fixed", "failed"}
    assert result.ret == 1, "the lost embedding has no hook"
    payloads = [row[4] for row in dump(sick.path)["persistencediagram"] if isinstance(row[4], bytes)]
    assert [len(decode(each).diagram.bars) for each in payloads] == [3] * 3


def test_where_all_die_nothing_is_green(dying: Doctor, sick: Built, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WAITS", "")
    moments = {f"gw{number}": "ready" for number in range(4)}
    result = dying(moments, "-n1", "--junitxml=r.xml")
    assert result.ret == pytest.ExitCode.INTERRUPTED
    result.stdout.fnmatch_lines(
        ["not examined * rules: * items not reached", "*doctor: the last 4 workers died before any item ended: *"]
    )
    assert json.loads((sick.path.parent / "r.json").read_text())["doctor"]["rules"]["not examined"] == RULES


def test_where_none_can_be_started(dying: Doctor, sick: Built, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WAITS", "")
    assert sick.path.exists()
    result = dying({f"gw{number}": "gateway" for number in range(3)}, "-n1")
    assert result.ret == 1
    result.stderr.fnmatch_lines(["*doctor: no worker could be started (it died at once): free memory, or run *"])


def test_where_the_user_allows_no_other_the_rest_is_not_examined(dying: Doctor, sick: Built) -> None:
    """The worker had begun nothing, so that no item fails: the session does all the same."""
    assert sick.path.exists()
    result = dying({"gw0": "before an item"}, "-n1", "--max-worker-restart=0")
    assert result.ret == 1
    result.stdout.fnmatch_lines(["not examined *", f"{RULES} rules: 0 healthy, {RULES} not examined"])


def test_an_item_is_not_examined_once_a_worker(run_doctor: Doctor, sick: Built) -> None:
    assert sick.path.exists()
    result = run_doctor("-n2", "--dist=each")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: --dist each would examine every item once per worker: leave it out, or *"])
