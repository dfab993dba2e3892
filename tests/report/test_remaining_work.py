"""What has to be done, from the findings of a session: by whom, and with which command."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest
from databases import Built, build
from defects import plant
from reports import examined

from pytest_panic_doctor.examination.examination import Examination
from pytest_panic_doctor.examination.manifest import Experiment, Manifest, Run
from pytest_panic_doctor.examination.outcome import Result
from pytest_panic_doctor.examination.settings import Settings
from pytest_panic_doctor.report.markdown import MOST_LINES, escape, markdown_lines
from pytest_panic_doctor.report.remaining_work import TodoEntry, named_runs, tasks
from pytest_panic_doctor.report.results import Results
from pytest_panic_doctor.rules import registry
from pytest_panic_doctor.rules.base import Finding

MANIFEST = Manifest(
    (Experiment("e" * 32, "an apple", ("Nomic",), tuple(Run(f"{n:032x}", f"an apple {n}: A → B") for n in range(9))),)
)
RUN = MANIFEST.experiments[0].runs[0].id


def failed(rule: str, *, runs: Iterable[str] = (), count: int = 1, note: str = "", **more: object) -> Result:
    """A failed item with one finding."""
    found = Finding(
        rule, "it is bad", "e" * 32, ids=("x",), count=count, table="invocation", runs=dict.fromkeys(runs, 1)
    )
    findings = (replace(found, **more),)  # type: ignore[arg-type]
    return Result("failed", findings, note, nodeid=f"x.sqlite::{rule}", rule=rule, duration=0.1)


def entries(tmp_path: Path, *items: Result, **settings: bool) -> list[TodoEntry]:
    """What has to be done about items."""
    examination = Examination(Settings(tmp_path / "x.sqlite", **settings), registry(), MANIFEST)  # type: ignore[arg-type]
    return tasks(examination, items)


@pytest.mark.parametrize(
    ("item", "action", "text"),
    [
        (failed("invocation-chain", runs=[RUN]), "regenerate", "1 run to regenerate"),
        (failed("invocation-chain", runs=[RUN], count=9), "regenerate", "at least 1 run to regenerate"),
        (
            failed("embedding-missing", embedding_model="Nomic", count=7),
            "embed",
            "1 model to embed again: 7 outputs of Nomic (--doctor-fix does it by an embedding hook)",
        ),
        (failed("time-order"), "by hand", "1 finding of time-order: correct the times by hand, or leave them"),
        (failed("diagram-missing", run=RUN, embedding_model="Nomic"), "fix", "1 diagram that --doctor-fix computes"),
        (failed("lyapunov-valid"), "fix", "1 finding about Lyapunov results that --doctor-fix computes"),
        (failed("orphan-run"), "fix", "1 finding that --doctor-fix resolves by a quarantine"),
        (
            failed("diagram-missing", blocked_by=["embedding-vector"]),
            "later",
            "1 finding that --doctor-fix can repair once the rest is corrected",
        ),
    ],
)
def test_each_finding_is_for_somebody(tmp_path: Path, item: Result, action: str, text: str) -> None:
    (entry,) = entries(tmp_path, item)
    assert (entry.action, entry.text, entry.rules) == (action, text, (item.rule,))


def test_after_a_repair_nothing_is_promised_again(tmp_path: Path) -> None:
    items = failed("orphan-run"), failed("diagram-missing", run=RUN)
    (entry,) = entries(tmp_path, *items, fix=True)
    assert (entry.action, entry.text) == ("later", "2 findings that could not be repaired")


def test_what_did_not_end_is_examined_again(tmp_path: Path) -> None:
    raised = Result("failed", error="it raised", nodeid="x.sqlite::schema", rule="schema", duration=0.1)
    (entry,) = entries(tmp_path, raised)
    assert (entry.action, entry.text) == ("examine", "1 item not examined to the end: schema")


def test_runs_are_named_once_in_the_order_of_the_manifest(tmp_path: Path) -> None:
    runs = [run.id for run in MANIFEST.experiments[0].runs]
    items = failed("invocation-chain", runs=runs[3:1:-1]), failed("invocation-output", runs=[runs[2], runs[0]])
    (entry,) = entries(tmp_path, *items)
    assert entry.runs == (runs[0], runs[2], runs[3])
    assert entry.command.startswith("panic-tda experiment perform CONFIG.json --db-path ")
    assert entry.as_plain()["runs"] == list(entry.runs)
    examination = Examination(Settings(tmp_path / "x.sqlite"), registry(), MANIFEST)
    shown = list(named_runs(examination, runs))
    assert len(shown) == 6
    assert shown[0].endswith("  an apple 0: A → B")
    assert shown[-1] == "… and 4 more"


def test_nothing_has_to_be_done_about_what_is_healthy_or_accepted(tmp_path: Path) -> None:
    item = failed("orphan-run")
    accepted = replace(item, status="passed", findings=(), accepted=item.findings, accepted_by="baseline")
    assert entries(tmp_path, accepted) == []


def test_the_markdown_has_at_most_sixty_lines(tmp_path: Path) -> None:
    """Every rule sick, with the worst that a prompt can hold."""
    rules = registry()
    results = Results([failed(name, runs=[RUN], message="a|b <script>\n@all `x`") for name in rules])
    results.doubts = [f"doubt {number}" for number in range(20)]
    examination = Examination(Settings(tmp_path / "x.sqlite"), rules, MANIFEST)
    lines = markdown_lines(examination, results)
    assert len(rules) > 35
    assert 40 < len(lines) <= MOST_LINES
    assert not any("\n" in line or "<script" in line or " @all" in line for line in lines)
    rows = [line for line in lines if line.startswith("| ")]
    assert {line.replace("\\|", "").count("|") for line in rows} == {5}
    assert lines[-1].startswith("| … and ")


def test_markup_is_escaped() -> None:
    assert escape("*a* [b](c) <d> &e; @f #g |h| `i` ~j~ \x1b[1m") == (
        "\\*a\\* \\[b\\](c) &lt;d&gt; &amp;e; &#64;f \\#g \\|h\\| \\`i\\` \\~j\\~ \\\\x1b\\[1m"
    )


def test_a_healthy_report_is_short(tmp_path: Path) -> None:
    built: Built = build(tmp_path / "x.sqlite")
    examination, results = examined(built.path)
    lines = markdown_lines(examination, results)
    assert lines[0] == f"# x.sqlite: {len(results.by_rule())} healthy"
    assert len(lines) == 3
    plant(built, "model_unknown")
    examination, results = examined(built.path)
    assert "## To do" in markdown_lines(examination, results)
