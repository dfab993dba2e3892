"""What `--doctor-plan` prints is what `--doctor-fix` then does, by the journal."""

from __future__ import annotations

import re
from collections import Counter

import pytest
from databases import LENGTH, Built, build, uid
from defects import plant
from pytest_runs import Doctor, items

from pytest_panic_doctor.examination.outcome import Result
from pytest_panic_doctor.formatting import format_size
from pytest_panic_doctor.repair.journal.size import rows_by_table
from pytest_panic_doctor.repair.journal.undo import repairs
from pytest_panic_doctor.repair.repair_forecast import DIAGRAM_BYTES, Outlook, Seconds
from pytest_panic_doctor.report.plan import plan_lines
from pytest_panic_doctor.report.results import Results

OWN = """
from pytest_panic_doctor import RepairKind, Rows, Scope, rule


@rule("odd", scope=Scope.RUN_MODEL, description="items that share rows", repair=RepairKind.QUARANTINE)
def odd(context):
    for number in (3, 5):
        rows = Rows(
            "invocation",
            f"SELECT id FROM invocation WHERE run_id = :run AND sequence_number IN ({number}, 7)",
            context.params,
        )
        yield from context.finding_for_rows(rows, lambda count: f"{count} odd ones")


@rule("seven", scope=Scope.DATABASE, description="rows that another rule takes too", repair=RepairKind.QUARANTINE)
def seven(context):
    rows = Rows("invocation", "SELECT id FROM invocation WHERE sequence_number = 7", {})
    yield from context.finding_for_rows(rows, lambda count: f"{count} sevens")


def pytest_doctor_rules():
    return [odd, seven]
"""


@pytest.fixture
def shared(pytester: pytest.Pytester) -> Built:
    """Rows that findings, items and rules share, and a cluster of one run whose medoid is in the other."""
    pytester.makeconftest(OWN)
    built = build(pytester.path / "x.sqlite", runs=2)
    with built.open() as db:
        for k in range(1, LENGTH, 2):
            row = (f"{k:032x}", built.embedding(k, run=1), uid(6, 0), built.embedding(3))
            db.execute("INSERT INTO embeddingcluster VALUES (?, ?, ?, ?)", row)
    return built


def weighed(rule: str, rows: int, size: int) -> str:
    return f"would fix    {rule:<21} quarantine {rows} rows, {format_size(size)}"


def test_rows_that_items_share_are_planned_once(
    run_doctor: Doctor, shared: Built, pytester: pytest.Pytester, mode: tuple[str, ...]
) -> None:
    planned = run_doctor("--doctor-plan", "--doctor-rule=odd", "--doctor-report=r.json", *mode)
    measured = [item["measures"] for item in items(pytester.path / "r.json").values()]
    alone = [int(each["rows"]) for each in measured if isinstance(each, dict)]
    run_doctor("--doctor-fix", "--doctor-rule=odd", *mode)
    done = repairs(shared.path)
    rows, size = sum(each.rows for each in done), sum(each.bytes for each in done)
    planned.stdout.fnmatch_lines([weighed("odd", rows, size)])
    assert len(alone) == 4
    assert sum(alone) > rows


def test_an_item_that_is_repaired_alone_takes_what_was_planned(
    run_doctor: Doctor, shared: Built, pytester: pytest.Pytester
) -> None:
    run_doctor("--doctor-plan", "--doctor-rule=odd", "--doctor-report=r.json")
    name, item = next(iter(items(pytester.path / "r.json").items()))
    run_doctor(f"x.sqlite::{name}", "--doctor-fix")
    done = Counter(rows=sum(each.rows for each in repairs(shared.path)))
    done["bytes"] = sum(each.bytes for each in repairs(shared.path))
    assert item["measures"] == done


def test_rows_that_rules_share_are_said_in_all(run_doctor: Doctor, shared: Built) -> None:
    planned = run_doctor("--doctor-plan", "--doctor-rule=odd", "--doctor-rule=seven")
    run_doctor("--doctor-fix", "--doctor-rule=odd", "--doctor-rule=seven")
    done = repairs(shared.path)
    rows, size = sum(each.rows for each in done), sum(each.bytes for each in done)
    planned.stdout.fnmatch_lines([f"{weighed('in all', rows, size)}: some for several rules"])


def test_accepted_findings_are_planned_as_they_are_repaired(
    run_doctor: Doctor, sick: Built, pytester: pytest.Pytester
) -> None:
    plant(sick, "embedding_of_lost_invocation")
    pytester.makeini("[pytest]\ndoctor_severity = orphan-embedding: warn")
    result = run_doctor("--doctor-plan")
    assert result.ret == 0
    result.stdout.fnmatch_lines(["would fix    orphan-embedding      quarantine 1 row, *"])
    run_doctor("--doctor-fix")
    assert [each.rule for each in repairs(sick.path)] == ["orphan-embedding"]


def test_what_is_done_comes_before_what_stays() -> None:
    def result(rule: str, note: str = "", **measures: float) -> Result:
        return Result(
            "failed", note=note, measures=measures, planned=not note, nodeid=f"x::{rule}", rule=rule, duration=0.1
        )

    stays = [result("b", "no hook", rows=3)] * 3
    compute = result("a", points=6, seconds=0.2, seconds_high=0.4, peak_memory=1e6)
    slow = result("c", points=6, seconds=8, seconds_high=30, peak_memory=1e6)
    printed = "\n".join(plan_lines(Results([*stays, compute, slow, result("a", "blocked")])))
    lines = [" ".join(part.split()) for part in re.split(r"\n(?=would)", printed)]
    assert [line.split()[:3] for line in lines] == [
        ["would", "fix", "a"],
        ["would", "fix", "c"],
        ["would", "stay", "b"],
        ["would", "stay", "a"],
    ]
    assert "about 1 s on 1 core" in lines[0]
    assert "about 8 s (up to 30 s) on 1 core" in lines[1]


def test_the_end_of_a_plan_and_the_header_of_a_repair_are_what_the_journal_has_then(
    run_doctor: Doctor, sick: Built
) -> None:
    plant(sick, "embedding_of_lost_invocation", "diagram_of_lost_run", "diagram_null")
    with sick.open() as db:
        db.execute("UPDATE clusteringresult SET parameters = '[1]'")
    planned = run_doctor("--doctor-plan")
    planned.stdout.fnmatch_lines(
        [
            "plan         quarantine 2 rows: 1 embedding, 1 diagram",
            "             compute 1 diagram of 6 points",
            "             about * s (* s to * s) with 2 workers",
            "             at most * kB more on the disk, where * are free",
            "             stays sick: cluster-consistent (1 item)",
            "             --doctor-backup PATH copies the database first: * kB",
            "next: * --doctor-fix -n 2",
        ],
        consecutive=True,
    )
    fixed = run_doctor("--doctor-fix")
    fixed.stdout.fnmatch_lines(
        [
            "doctor: quarantine at least 2 rows: 1 embedding, 1 diagram",
            "doctor: compute at least 1 diagram of 6 points",
            "doctor: about * s (* s to * s) with 1 worker",
            "doctor: at most * kB more on the disk, where * are free",
        ]
    )
    done = repairs(sick.path)
    assert rows_by_table(sick.path, [each.id for each in done if each.verb == "quarantine"]) == {
        "embedding": 1,
        "persistencediagram": 1,
    }
    assert [each.verb for each in done if each.verb != "quarantine"] == ["update"]


def test_a_plan_that_would_do_nothing_has_no_end(run_doctor: Doctor, sick: Built) -> None:
    plant(sick, "text_with_an_image")
    planned = run_doctor("--doctor-plan", "--doctor-rule=invocation-output")
    assert "would stay" in planned.stdout.str()
    assert "plan  " not in planned.stdout.str()


def test_times_add_up_and_workers_share_what_can_be_shared() -> None:
    planned = Outlook(rows={"run": 1000}, quarantines=1, computing=Seconds(1, 10, 100), examining=20)
    alone, two = planned.time(1), planned.time(2)
    assert alone.low < alone.middle < alone.high
    assert alone.middle - two.middle == pytest.approx((10 + 20) / 2 - 2.25)
    assert Outlook(diagrams=3, row_bytes=7).space == 3 * DIAGRAM_BYTES + 7
