"""Repairing through pytest: every kind of repair, in every mode; undo; plan; hooks; a second run writes nothing."""

from __future__ import annotations

import hashlib
import io
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import research_tool
from databases import DEFAULT, RULES, Built, build, dump, uid
from defects import DAMAGES, TOGETHER, plant
from embedders import HOOK
from pytest_runs import Doctor, items, on_one_line, outcomes

from pytest_panic_doctor.database.spelling import dashed

REPAIRABLE = {name: damage for name, damage in DAMAGES.items() if damage.repairable}


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.glob("x.*sqlite")}


@pytest.mark.parametrize("rule", sorted({damage.rule for damage in REPAIRABLE.values()}))
def test_each_repair_is_done_and_undone(run_doctor: Doctor, pytester: pytest.Pytester, rule: str) -> None:
    name, damage = next((name, damage) for name, damage in REPAIRABLE.items() if damage.rule == rule)
    built = build(pytester.path / "x.sqlite", older=damage.older)
    plant(built, name)
    before = dump(built.path)
    deep = [] if rule in DEFAULT else ["--doctor-deep"]
    result = run_doctor("--doctor-fix", "--doctor-report=r.json", *deep)
    assert result.ret == 0, result.stdout.str()
    found = outcomes(pytester.path / "r.json")
    assert "fixed" in {outcome for item, outcome in found.items() if item.split("[")[0] == rule}
    assert dump(built.path) != before
    assert run_doctor("--doctor-undo", "all").ret == 0
    assert dump(built.path) == before


@pytest.mark.integration
def test_all_modes_end_in_the_same_state(run_doctor: Doctor, pytester: pytest.Pytester) -> None:
    states, reports = [], []
    for mode in ((), ("-n0",), ("-n2",), ("-p", "no:xdist")):
        built = build(pytester.path / "x.sqlite", older=True, runs=4)
        plant(built, *TOGETHER)
        with built.open() as db:
            db.execute(
                "UPDATE persistencediagram SET diagram_data = NULL WHERE run_id IN (?, ?)", (uid(2, 2), uid(2, 3))
            )
        result = run_doctor("--doctor-fix", "--doctor-report=r.json", *mode)
        assert result.ret == 0, result.stdout.str()
        states.append(without_provenance(dump(built.path)))
        reports.append(outcomes(pytester.path / "r.json"))
        for sidecar in pytester.path.glob("x.doctor*"):
            sidecar.unlink()
    assert all(report == reports[0] for report in reports)
    assert all(state == states[0] for state in states)


def without_provenance(rows: dict[str, list[tuple[object, ...]]]) -> dict[str, object]:
    """A dump without what no two runs share: the times and the measured seconds of new diagrams."""
    plain: dict[str, object] = dict(rows)
    plain["persistencediagram"] = sorted((row[5], row[6], row[4] is None) for row in rows["persistencediagram"])
    return plain


def test_a_second_run_writes_nothing(run_doctor: Doctor, pytester: pytest.Pytester, mode: tuple[str, ...]) -> None:
    built = build(pytester.path / "x.sqlite", older=True)
    plant(built, *TOGETHER)
    assert run_doctor("--doctor-fix", *mode).ret == 0
    before = digests(pytester.path)
    assert set(before) == {"x.sqlite", "x.doctor.sqlite"}
    result = run_doctor("--doctor-fix", *mode)
    assert result.ret == 0
    assert result.parseoutcomes().get("fixed", 0) == 0
    assert digests(pytester.path) == before


def test_fixed_has_its_own_letter_word_and_count(run_doctor: Doctor, sick: Built) -> None:
    plant(sick, "diagram_null")
    result = run_doctor("--doctor-fix", "-v")
    result.stdout.fnmatch_lines([f"x.sqlite::diagram-missing[[]{dashed(sick.run())}-Nomic] FIXED*", "*1 fixed*"])
    plant(sick, "diagram_null")
    run_doctor("--doctor-fix").stdout.fnmatch_lines(["x.sqlite *+*", f"{RULES} rules: {RULES - 1} healthy, 1 fixed"])


def test_a_blocked_diagram_names_what_blocks_it(run_doctor: Doctor, sick: Built, mode: tuple[str, ...]) -> None:
    plant(sick, "diagram_null", "vector_null")
    before = dump(sick.path)
    result = run_doctor("--doctor-fix", *mode)
    assert result.ret == 1
    text = on_one_line(result)
    assert "not repaired: the point cloud is blocked: 1 of 6 vectors is unusable: 1 NULL (embedding-vector) " in text
    assert "not repaired: no embedding hook is installed for Nomic: " in text
    assert dump(sick.path) == before


@pytest.mark.parametrize("name", ["vector_null", "vector_nan", "vector_short", "embedding_gone"])
def test_an_embedding_hook_heals_vectors_and_then_the_diagram(
    run_doctor: Doctor, sick: Built, pytester: pytest.Pytester, name: str
) -> None:
    plant(sick, name, "diagram_null")
    pytester.makeconftest(HOOK)
    result = run_doctor("--doctor-fix", "-n2", "--doctor-report=r.json")
    assert result.ret == 0, result.stdout.str()
    found = outcomes(pytester.path / "r.json")
    assert found[f"{DAMAGES[name].rule}[{dashed(sick.experiment)}-Nomic]"] == "fixed"
    assert found[f"diagram-missing[{dashed(sick.run())}-Nomic]"] == "fixed"


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("return np.zeros((len(outputs), 8), np.float32)", "the hook returns a vector that is zero or not finite"),
        ("return np.ones((len(outputs), 7), np.float32)", "returned shape (5, 7) for Nomic instead of (5, 8)"),
        ("return np.ones(8, np.float32)", "returned shape (8,)"),
        ("return np.full((len(outputs), 8), 1e300)", "the hook returns a vector that is zero or not finite"),
        ("return np.random.rand(len(outputs), 8)", "5 of 5 stored embeddings differ from what the hook makes of"),
        ("return [[1.0] * 8, [1.0]]", "something for Nomic that is not an array of numbers"),
        ("return {}", "something for Nomic that is not an array of numbers"),
    ],
)
def test_a_hook_that_returns_nonsense_is_refused(
    run_doctor: Doctor, sick: Built, pytester: pytest.Pytester, body: str, said: str
) -> None:
    plant(sick, "vector_null")
    before = dump(sick.path)
    pytester.makeconftest(f"import numpy as np\ndef pytest_doctor_embed(embedding_model, outputs):\n    {body}\n")
    result = run_doctor("--doctor-fix")
    assert result.ret == 1
    assert said in on_one_line(result)
    assert dump(sick.path) == before


def test_one_rule_alone_is_repaired(run_doctor: Doctor, sick: Built) -> None:
    plant(sick, "embedding_of_lost_invocation", "diagram_null")
    assert run_doctor("--doctor-fix", "--doctor-rule=orphan-embedding").ret == 0
    result = run_doctor("--doctor-report=r.json")
    assert result.ret == 1
    assert [name.split("[")[0] for name, word in outcomes(sick.path.parent / "r.json").items() if word == "failed"] == [
        "diagram-missing"
    ]


def test_collecting_with_fix_writes_nothing(run_doctor: Doctor, sick: Built) -> None:
    plant(sick, "diagram_null")
    before = digests(sick.path.parent)
    assert run_doctor("--doctor-fix", "--collect-only").ret == 0
    assert digests(sick.path.parent) == before
    assert not list(sick.path.parent.glob("x.doctor*"))


def test_the_plan_says_what_fix_does_and_writes_nothing(run_doctor: Doctor, sick: Built, mode: tuple[str, ...]) -> None:
    plant(sick, "diagram_gone", "embedding_of_lost_invocation", "model_unknown")
    before = digests(sick.path.parent)
    result = run_doctor("--doctor-plan", *mode)
    assert result.ret == 1
    result.stdout.fnmatch_lines_random(
        [
            "would fix    diagram-missing       compute 1 diagram of 6 points, about 1 s*",
            "would fix    orphan-embedding      quarantine 1 row, * B",
            "would stay   invocation-model      1 item: regenerate *",
        ]
    )
    assert digests(sick.path.parent) == before
    assert not list(sick.path.parent.glob("x.doctor*"))
    assert run_doctor("--doctor-plan", "--doctor-rule=schema", *mode).ret == 0


def test_undo_lists_takes_back_and_can_be_undone(run_doctor: Doctor, sick: Built) -> None:
    plant(sick, "diagram_null", "embedding_of_lost_invocation")
    before = dump(sick.path)
    assert run_doctor("--doctor-fix").ret == 0
    after = dump(sick.path)
    listed = run_doctor("--doctor-undo").outlines
    assert listed[0] == "1 session with 2 repairs of x.sqlite, times in UTC"
    session = listed[1].split()[0]
    assert listed[-2].endswith(f" --doctor-undo {session}")
    run_doctor("--doctor-undo", session).stdout.fnmatch_lines(["*update*diagram-missing [[]Nomic]"])
    assert run_doctor("--doctor-undo", "all").ret == 0
    assert dump(sick.path) == before
    assert "undone: quarantine       1 " in run_doctor("--doctor-undo", session).stdout.str()
    run_doctor("--doctor-undo", "3").stdout.fnmatch_lines(["undid repair 3 *"])
    run_doctor("--doctor-redo", "all").stdout.fnmatch_lines(["redid repair ? (*): 1 row; this redo is repair 6"])
    assert dump(sick.path) == after
    run_doctor("--doctor-journal-export", "q.sqlite").stdout.fnmatch_lines(["wrote 1 row: 1 embedding, to q.sqlite"])
    assert run_doctor("--doctor-redo=all", "--doctor-undo=all").ret == pytest.ExitCode.USAGE_ERROR


def test_a_file_that_was_never_repaired_says_so(run_doctor: Doctor, sick: Built) -> None:
    assert run_doctor("--doctor-undo").outlines == ["no repairs yet: --doctor-fix has not changed x.sqlite"]
    assert run_doctor("--doctor-undo=all").outlines == ["nothing to undo: x.sqlite has no repair that is not undone"]
    plant(sick, "embedding_of_lost_invocation")
    run_doctor("--doctor-fix")
    assert run_doctor("--doctor-undo").outlines[0] == "1 session with 1 repair of x.sqlite, times in UTC"


def test_undo_refuses_what_has_changed_since(run_doctor: Doctor, sick: Built) -> None:
    plant(sick, "diagram_null")
    assert run_doctor("--doctor-fix").ret == 0
    with sick.open() as db:
        db.execute("UPDATE persistencediagram SET completed_at = 'now' WHERE id = ?", (sick.diagram(),))
    before = dump(sick.path)
    result = run_doctor("--doctor-undo", "all")
    assert result.ret == 4
    assert sick.diagram() in result.stderr.str()
    assert dump(sick.path) == before


def test_a_second_doctor_is_told_who_holds_it(run_doctor: Doctor, sick: Built) -> None:
    from pytest_panic_doctor.repair.journal.locks import RepairLock

    with RepairLock(sick.path):
        result = run_doctor("--doctor-fix")
    assert result.ret == 4
    assert f"pid {os.getpid()}" in result.stderr.str()


def test_what_cannot_be_written_is_refused(run_doctor: Doctor, sick: Built, pytester: pytest.Pytester) -> None:
    with sick.open() as db:
        db.execute("BEGIN EXCLUSIVE")
        result = run_doctor("--doctor-fix")
        db.execute("ROLLBACK")
    assert result.ret == 4
    assert "is locked by another program" in result.stderr.str()
    with sick.path.open("r+b") as file:
        file.seek(5 * 4096 + 8)
        file.write(b"\xff" * 4000)
    before = digests(pytester.path)
    result = run_doctor("--doctor-fix")
    assert result.ret == 4
    assert "is damaged" in result.stderr.str()
    assert digests(pytester.path) == before


def test_the_payload_is_read_by_the_research_tool(run_doctor: Doctor, sick: Built) -> None:
    plant(sick, "diagram_null")
    assert run_doctor("--doctor-fix").ret == 0
    with sick.open() as db:
        (payload,) = db.execute(
            "SELECT diagram_data FROM persistencediagram WHERE id = ?", (sick.diagram(),)
        ).fetchone()
    read = research_tool.read_payload(payload)
    assert set(read) == {"dgms", "entropy", "doctor"}
    assert '"points": 6' in str(read["doctor"])


SLOW = """
import time
import numpy as np

class Slow:
    name = "slow"
    version = "1"

    def bars(self, distances, max_dim, threads):
        time.sleep(60)

slow = Slow()
"""


def started(command: list[str], folder: Path) -> subprocess.Popen[str]:
    """A doctor whose diagrams take for ever, once its children compute."""
    (folder / "slow.py").write_text(SLOW)
    environment = os.environ | {"PYTHONPATH": str(folder)}
    process = subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        children = [child for child in psutil.Process(process.pid).children(recursive=True) if is_child(child)]
        if children:
            return process
        time.sleep(0.05)
    raise AssertionError("no child was started")


def is_child(process: psutil.Process) -> bool:
    try:
        return "pytest_panic_doctor.compute.child" in process.cmdline()
    except psutil.NoSuchProcess:
        return False


@pytest.mark.parametrize("workers", [[], ["-n", "2"]], ids=["plain", "n2"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda each: each.name)
def test_however_it_ends_nothing_outlives_it(
    pytester: pytest.Pytester, sick: Built, workers: list[str], number: signal.Signals
) -> None:
    plant(sick, "diagram_null")
    with sick.open() as db:
        db.execute("UPDATE persistencediagram SET diagram_data = NULL")
    before = dump(sick.path)
    python = [sys.executable, "-m", "pytest", "--doctor-db", "x.sqlite", "--doctor-fix", "--doctor-engine", "slow:slow"]
    python += ["-p", "no:hypothesispytest"]  # it imports for seconds when a session ends
    process = started([*python, *workers], pytester.path)
    tree = psutil.Process(process.pid).children(recursive=True)
    begun = time.monotonic()
    process.send_signal(number)
    out, _ = process.communicate(timeout=20)
    if number == signal.SIGINT:
        assert time.monotonic() - begun < 5
        assert "4 diagrams of 24 points left" in out
    gone, alive = psutil.wait_procs([each for each in tree if is_child(each)], timeout=3)
    assert not alive
    assert dump(sick.path) == before
    assert sqlite3.connect(sick.path).execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert gone is not None


@pytest.mark.parametrize(("args", "told"), [(("--doctor-fix",), True), (("--doctor-fix", "-q"), False), ((), False)])
@pytest.mark.usefixtures("sick")
def test_a_check_that_takes_long_is_announced(
    run_doctor: Doctor, pytester: pytest.Pytester, args: tuple[str, ...], told: bool
) -> None:
    pytester.makeconftest("from pytest_panic_doctor.session import startup\n\nstartup.SLOW_CHECK_BYTES = 1\n")
    result = run_doctor(*args, process=True)
    line = "doctor: every page of * is checked before the first write …"
    (result.stderr.fnmatch_lines if told else result.stderr.no_fnmatch_line)(line)


def test_a_timeout_is_a_sentence_and_the_others_go_on(
    run_doctor: Doctor, sick: Built, pytester: pytest.Pytester
) -> None:
    plant(sick, "diagram_null", "embedding_of_lost_invocation")
    (pytester.path / "slow.py").write_text(SLOW)
    result = run_doctor("--doctor-fix", "--doctor-timeout=1", "--doctor-engine=slow:slow")
    assert result.ret == 1
    expected = "the diagram of 6 points was ended after 1 s, its limit; give it more with --doctor-timeout 10 "
    assert f"not repaired: {expected}" in on_one_line(result)
    result.assert_outcomes(failed=1, passed=result.parseoutcomes()["passed"], skipped=2)


def test_an_engine_that_is_not_there_is_named(run_doctor: Doctor, sick: Built) -> None:
    plant(sick, "diagram_null")
    before = digests(sick.path.parent)
    for name, said in {
        "nowhere:x": "the engine nowhere:x does not exist: no module is called nowhere",
        "banana": "there is no engine banana: give native or gudhi or giotto-ph, or install the plugin that "
        "provides it",
    }.items():
        for more in (["--doctor-fix", "-n2"], []):
            result = run_doctor(f"--doctor-engine={name}", *more)
            assert result.ret == 4
            assert result.errlines == [f"ERROR: {said}", ""]
    assert digests(sick.path.parent) == before
    (sick.path.parent / "there.py").write_text("")
    result = run_doctor("--doctor-fix", "--doctor-rule=diagram-missing", "--doctor-engine=there:x")
    assert result.ret == 1
    assert "the engine there:x cannot be imported" in result.stdout.str()


def test_resume_does_only_the_rest(run_doctor: Doctor, sick: Built) -> None:
    with sick.open() as db:
        db.execute("UPDATE persistencediagram SET diagram_data = NULL")
    first = f"x.sqlite::diagram-missing[{dashed(sick.run())}-Nomic]"
    run_doctor("--doctor-fix", first).assert_outcomes(passed=0)
    result = run_doctor("--doctor-fix", "--doctor-rule=diagram-missing", "--doctor-report=r.json")
    result.stdout.fnmatch_lines(["doctor: 3 diagrams to compute, 18 points, *"])
    assert sorted(outcomes(sick.path.parent / "r.json").values()) == ["fixed", "fixed", "fixed", "passed"]
    measures = [item["measures"] for item in items(sick.path.parent / "r.json").values() if "measures" in item]
    assert len(measures) == 3


def test_a_lower_dimension_is_recorded_and_valid(run_doctor: Doctor, sick: Built) -> None:
    plant(sick, "diagram_null")
    assert run_doctor("--doctor-fix", "--doctor-max-dim=1").ret == 0
    assert run_doctor().ret == 0
    with sick.open() as db:
        (payload,) = db.execute(
            "SELECT diagram_data FROM persistencediagram WHERE id = ?", (sick.diagram(),)
        ).fetchone()
    arrays = np.load(io.BytesIO(payload), allow_pickle=False)
    assert "dgms_2" not in arrays.files
    assert '"max_dim": 1' in str(arrays["doctor_meta"][0])


def test_a_fingerprint_tells_that_embeddings_have_changed(run_doctor: Doctor, sick: Built) -> None:
    plant(sick, "diagram_null")
    assert run_doctor("--doctor-fix").ret == 0
    plant(sick, "diagram_stale")
    result = run_doctor("--doctor-rule=diagram-current")
    assert "the embeddings have changed since it was computed of 6 points" in on_one_line(result)
    assert run_doctor("--doctor-fix").ret == 0


def test_what_an_interrupted_repair_left_is_settled_and_said(run_doctor: Doctor, sick: Built) -> None:
    plant(sick, "embedding_of_lost_invocation")
    before = dump(sick.path)
    script = (
        "import os, sys; from pathlib import Path; "
        "from pytest_panic_doctor.repair.journal.writer import Writer; "
        "from pytest_panic_doctor.repair.journal.transaction import Step; "
        "from pytest_panic_doctor.database.subject import *; "
        "Step.remove = lambda *a: os.kill(os.getpid(), 9); "
        "Writer(Path(sys.argv[1]), 's', lambda: True).quarantine('orphan-embedding', Subject(), "
        "Rows('embedding', \"SELECT id FROM embedding WHERE id LIKE 'fff%'\"))"
    )
    killed = subprocess.run([sys.executable, "-c", script, str(sick.path)], check=False)
    assert killed.returncode == -9
    assert dump(sick.path) == before
    result = run_doctor("--doctor-fix")
    assert result.ret == 0
    assert run_doctor("--doctor-undo", "all").ret == 0
    assert dump(sick.path) == before


def test_a_disk_without_room_is_refused(run_doctor: Doctor, sick: Built, pytester: pytest.Pytester) -> None:
    plant(sick, "diagram_null")
    pytester.makeconftest(
        "import shutil, collections\n"
        "Usage = collections.namedtuple('Usage', 'total used free')\n"
        "shutil.disk_usage = lambda path: Usage(10**9, 10**9, 1000)\n"
    )
    result = run_doctor("--doctor-fix", process=True)
    assert result.ret == 4
    assert "bytes free" in result.stderr.str()
