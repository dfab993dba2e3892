"""`--doctor-merge`: shards' reports make the whole session's, need no database, and what is not whole is not green."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from databases import RULES, Built, build
from html_payload import data_of
from hypothesis import given
from hypothesis import strategies as st
from pytest_runs import ALONE, run_pytest

from pytest_panic_doctor.report.merge import NotMergeable
from pytest_panic_doctor.report.merge import merge_reports as merge_reports

Edit = Callable[[dict[str, Any]], object]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sick database, the report of a whole session, and those of three shards; then the database is gone."""
    made = tmp_path_factory.mktemp("shards")
    built = build(made / "x.sqlite")
    with built.open() as db:
        db.execute("UPDATE persistencediagram SET diagram_data = NULL WHERE id = ?", (built.diagram(),))
        db.execute("UPDATE embedding SET invocation_id = ? WHERE id = ?", ("e" * 32, built.embedding(5)))
    environment = os.environ | {"PYTEST_ADDOPTS": " ".join(ALONE)}
    for name, *more in (("whole",), *((str(number), f"--doctor-shard={number}/3") for number in (1, 2, 3))):
        command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--doctor-db=x.sqlite", *more]
        done = subprocess.run([*command, f"--doctor-report={name}.json"], cwd=made, env=environment, check=False)
        assert done.returncode in (0, 1)
    built.path.unlink()
    return made


@pytest.fixture
def merge(folder: Path, pytester: pytest.Pytester) -> Callable[..., pytest.RunResult]:
    """Merge copies of these reports, each perhaps edited, with more arguments."""

    def run(*names: str, edits: dict[str, Edit] | None = None, more: tuple[str, ...] = ()) -> pytest.RunResult:
        for path in folder.glob("*.json"):
            plain = json.loads(path.read_text())
            if edits and path.stem in edits:
                edits[path.stem](plain)
            (pytester.path / path.name).write_text(json.dumps(plain))
        return run_pytest(pytester, "--doctor-merge", *(f"{name}.json" for name in names), *more)

    return run


def told(path: Path) -> dict[str, Any]:
    plain: dict[str, Any] = json.loads(path.read_text())
    return plain


def without_times(plain: dict[str, Any]) -> list[object]:
    return sorted(
        (item | {"duration": 0} for item in plain["items"]),
        key=lambda item: str(item["nodeid"]),
    )


def recount(plain: dict[str, Any]) -> None:
    """Make the totals those of the items, as a session writes them."""
    counted = Counter(item["outcome"] for item in plain["items"])
    plain["doctor"]["totals"] = {outcome: counted[outcome] for outcome in plain["doctor"]["totals"]}


def test_the_merged_report_is_that_of_one_session(
    merge: Callable[..., pytest.RunResult], pytester: pytest.Pytester
) -> None:
    run = merge(
        "3", "1", "2", more=("--doctor-report=all.json", "--doctor-report=all.jsonl", "--doctor-report=all.html")
    )
    assert run.ret == 1
    merged, whole = told(pytester.path / "all.json"), told(pytester.path / "whole.json")
    assert without_times(merged) == without_times(whole)
    for key in ("version", "database", "rows", "totals", "rules", "experiments", "selected"):
        assert merged["doctor"][key] == whole["doctor"][key]
    assert merged["doctor"]["settings"]["shard"] is None
    assert merged["doctor"]["shards"]["missing"] == []
    lines = (pytester.path / "all.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == merged["items"]
    page = data_of(pytester.path / "all.html")
    assert {rule["id"]: rule["verdict"] for rule in page["rules"]}["diagram-missing"] == "sick"
    assert "." not in "".join(page["states"].values())
    run.stdout.fnmatch_lines(
        [
            f"doctor: 3 reports of 3 shards merged, x.sqlite: {len(whole['items'])} items",
            "sick*orphan-embedding *1 of 1 item failed",
            f"{RULES} rules: * sick*",
        ]
    )


def test_where_all_is_healthy_the_status_is_0(merge: Callable[..., pytest.RunResult]) -> None:
    def heal(plain: dict[str, Any]) -> None:
        plain["items"] = [item | {"outcome": "passed", "findings": []} for item in plain["items"]]
        recount(plain)

    names = ("1", "2", "3")
    assert merge(*names, edits=dict.fromkeys(names, heal)).ret == 0
    missing = merge(*names[:2], edits=dict.fromkeys(names, heal), more=("--doctor-report=all.json",))
    assert missing.ret == 1


def test_shards_may_have_run_on_machines_that_differ(merge: Callable[..., pytest.RunResult]) -> None:
    """What one machine was given, and how long it was to take, says nothing of what it looked at."""

    def elsewhere(plain: dict[str, Any]) -> None:
        plain["doctor"]["settings"].update(memory=2**34, max_workers=7, timeout=9.0, budget=60.0, ray="head:6379")

    run = merge("1", "2", "3", edits={"2": elsewhere})
    assert run.ret == 1
    run.stdout.fnmatch_lines(["doctor: 3 reports of 3 shards merged*"])


def test_a_missing_shard_is_named_everywhere(merge: Callable[..., pytest.RunResult], pytester: pytest.Pytester) -> None:
    run = merge("1", "3", more=("--doctor-report=all.json", "--doctor-report=all.html"))
    assert run.ret == 1
    said = "shard 2 of 3 is missing, so nothing is known about its items: give the report too"
    run.stdout.fnmatch_lines([f"doctor: {said}"])
    assert told(pytester.path / "all.json")["doctor"]["shards"]["missing"] == ["2/3"]
    assert said in (pytester.path / "all.html").read_text()


def test_a_shard_that_was_stopped_is_not_green(merge: Callable[..., pytest.RunResult]) -> None:
    def stop(plain: dict[str, Any]) -> None:
        del plain["items"][2:4]
        recount(plain)

    run = merge("1", "2", "3", edits={"2": stop})
    assert run.ret == 1
    run.stdout.fnmatch_lines(["doctor: *2.json lacks 2 of the * items of shard 2 of 3: it was stopped, or -k*"])


def renamed(plain: dict[str, Any]) -> None:
    plain["items"][0]["nodeid"] += "x"


def called_passed(plain: dict[str, Any]) -> None:
    """Found by an attack: the merged report was healthy."""
    for item in plain["items"]:
        item["outcome"] = "passed"


def emptied(plain: dict[str, Any]) -> None:
    for item in plain["items"]:
        item |= {"outcome": "passed", "findings": []}


def recounted(plain: dict[str, Any]) -> None:
    called_passed(plain)
    recount(plain)


def of_another(plain: dict[str, Any]) -> None:
    plain["doctor"]["experiments"][0]["runs"].pop()


@pytest.mark.parametrize(
    ("names", "edit", "said"),
    [
        (("1", "2", "2"), None, "shard 2 of 3 was given twice: *2.json and *2.json"),
        (
            ("1", "whole"),
            None,
            "*whole.json is shard 1 of 1, and *1.json is shard 1 of 3: give the reports of one split",
        ),
        (("1", "2"), of_another, "*2.json is of another database than *1.json: their experiments or runs differ"),
        (("1", "2"), lambda plain: plain["doctor"].update(version="0.0.1"), "*2.json was written by version 0.0.1*"),
        (
            ("1", "2"),
            lambda plain: plain["doctor"]["settings"].update(fix=True),
            "*2.json was made with another fix than *1.json: run both with the same options",
        ),
        (
            ("1", "2"),
            lambda plain: plain["doctor"]["selected"].pop(),
            "*2.json was made with other rules than *1.json*",
        ),
        (("whole",), called_passed, "*whole.json is not a report of this doctor*"),
        (("whole",), recounted, "*whole.json is not a report of this doctor*"),
        (
            ("whole",),
            emptied,
            "*whole.json was changed after it was written: its totals are not those of its items; examine that*",
        ),
        (("1", "2"), lambda plain: plain["items"][0].update(outcome="ok"), "*2.json is not a report of this doctor*"),
        (("1", "2"), renamed, "*2.json holds *x, which is not an item of shard 2 of 3: run it again"),
        (("1", "2"), lambda plain: plain.clear(), "*2.json is not a report of this doctor: give what --doctor-report*"),
        (("1", "2"), lambda plain: plain["items"].append({}), "*2.json is not a report of this doctor*"),
        (("1", "2"), lambda plain: plain["doctor"].update(shards={}), "*2.json is already merged: give the*"),
        (("1", "2", "absent"), None, "--doctor-merge *absent.json cannot be read: No such file or directory"),
    ],
)
def test_what_does_not_belong_together_is_refused_in_one_sentence(
    merge: Callable[..., pytest.RunResult],
    pytester: pytest.Pytester,
    names: tuple[str, ...],
    edit: Edit | None,
    said: str,
) -> None:
    run = merge(*names, edits={names[-1]: edit} if edit else None, more=("--doctor-report=all.json",))
    assert run.ret == pytest.ExitCode.USAGE_ERROR
    run.stderr.fnmatch_lines([f"ERROR: {said}"])
    assert "Traceback" not in run.stderr.str()
    assert not (pytester.path / "all.json").exists()


def test_no_report_is_overwritten_that_is_to_be_read(
    merge: Callable[..., pytest.RunResult], pytester: pytest.Pytester
) -> None:
    run = merge("1", "2", "3", more=("--doctor-report=2.json",))
    assert run.ret == pytest.ExitCode.USAGE_ERROR
    assert told(pytester.path / "2.json")["doctor"]["settings"]["shard"] == "2/3"


def test_a_whole_report_becomes_a_page(merge: Callable[..., pytest.RunResult], pytester: pytest.Pytester) -> None:
    assert merge("whole", more=("--doctor-report=all.html",)).ret == 1
    assert len(data_of(pytester.path / "all.html")["rules"]) == RULES


def test_a_rule_that_is_not_known_here_is_named(merge: Callable[..., pytest.RunResult]) -> None:
    def bring(plain: dict[str, Any]) -> None:
        plain["doctor"]["selected"].append("caption-length")

    run = merge("1", "2", edits={"1": bring, "2": bring})
    assert run.ret == pytest.ExitCode.USAGE_ERROR
    run.stderr.fnmatch_lines(["*1.json was made with the rule caption-length, which is not known here: merge where*"])


def test_repairs_of_shards_are_merged_too(pytester: pytest.Pytester) -> None:
    built: Built = build(pytester.path / "x.sqlite")
    with built.open() as db:
        db.execute("UPDATE persistencediagram SET diagram_data = NULL")
    for number in (1, 2):
        run_pytest(
            pytester,
            "--doctor-db=x.sqlite",
            "--doctor-fix",
            "--doctor-rule=diagram-missing",
            f"--doctor-shard={number}/2",
            f"--doctor-report={number}.json",
        )
    run = run_pytest(pytester, "--doctor-merge", "1.json", "2.json", "--doctor-report=all.html")
    assert run.ret == 0
    page = data_of(pytester.path / "all.html")
    (rule,) = page["rules"]
    assert rule["outcomes"] == {"failed": 0, "fixed": 4, "warned": 0, "passed": 0, "skipped": 0, "not examined": 0}
    assert {each["measures"]["how"] for each in page["diagrams"]} == {"now"}
    shots = [shot["problem"] for each in page["diagrams"] for shot in each["shots"]]
    assert shots == ["not drawn: reports were merged without the database"] * 4


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["doctor", "items", "settings", "version", "shard", "nodeid"]), inner)
    ),
    max_leaves=12,
)


@given(JSON)
def test_a_file_that_is_no_report_is_refused_whatever_it_holds(
    tmp_path_factory: pytest.TempPathFactory, plain: object
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.json"
    path.write_text(json.dumps(plain))
    with pytest.raises(NotMergeable, match=r"is not |already merged|written by"):
        merge_reports([path], [], ())


def test_what_was_accepted_and_what_was_not_begun_stays_so(merge: Callable[..., pytest.RunResult]) -> None:
    def accept(plain: dict[str, Any]) -> None:
        for item in plain["items"]:
            if item["rule"] == "schema":
                item |= {"outcome": "skipped", "findings": [], "warnings": [], "late": True}
            elif item["outcome"] == "failed":
                item |= {"outcome": "passed", "accepted": item["findings"], "findings": [], "by": "baseline"}
        recount(plain)

    edits: dict[str, Edit] = dict.fromkeys(("1", "2", "3"), accept)
    run = merge("1", "2", "3", edits=edits)
    assert run.ret == 0
    run.stdout.fnmatch_lines(["not examined schema *1 of 1 item not started", "warned       orphan-embedding *"])
