"""Files that the doctor writes: refused at the start where they cannot be, never where others are, true to links."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest
from databases import Built, build
from pytest_runs import ALONE, Doctor, outcomes
from user_files import ROOT_ONLY, as_second, mounted

from pytest_panic_doctor.errors import BadOption
from pytest_panic_doctor.examination.settings import Settings
from pytest_panic_doctor.report.files import check_outputs

ONE = "--doctor-rule=orphan-run"


def completed(path: Path) -> bool:
    """Whether a JUnit file has what the doctor adds."""
    return any(case.get("classname") == "doctor.orphan-run" for case in ElementTree.parse(path).iter("testcase"))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (
            "missing/r.json",
            "--doctor-report *missing/r.json cannot be written (No such file or directory): make *missing first",
        ),
        ("x" * 251 + ".html", "--doctor-report * cannot be written (File name too long): name another file"),
        ("file/r.jsonl", "--doctor-report *file/r.jsonl cannot be written (Not a directory): *"),
        ("r.xml", "--junitxml *r.xml is a folder"),
    ],
)
def test_what_cannot_be_written_is_refused(tmp_path: Path, name: str, said: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "r.xml").mkdir()
    path = tmp_path / name
    reports, junit = ((), path) if path.suffix == ".xml" else ((path,), None)
    with pytest.raises(BadOption) as caught:
        check_outputs(Settings(tmp_path / "x.sqlite", reports=reports), junit)
    pytest.LineMatcher([str(caught.value)]).fnmatch_lines([said.replace("is a folder", "cannot be written (Is a dir*")])
    assert sorted(each.name for each in tmp_path.iterdir()) == ["file", "r.xml"]


def test_no_output_takes_the_place_of_another_or_of_the_database(tmp_path: Path) -> None:
    database = tmp_path / "x.sqlite"
    database.touch()
    (tmp_path / "link.json").symlink_to("r.json")
    (tmp_path / "name.json").hardlink_to(database)
    report, link = tmp_path / "r.json", tmp_path / "link.json"
    cases = [
        (Settings(database, baseline=link, baseline_write=True, reports=(report,)), None),
        (Settings(database, reports=(report,)), link),
        (Settings(database), database),
        (Settings(database, baseline=tmp_path / "name.json", baseline_write=True), None),
        (Settings(database), tmp_path / "x.doctor.sqlite"),
    ]
    said = []
    for settings, junit in cases:
        with pytest.raises(BadOption) as caught:
            check_outputs(settings, junit)
        said.append(str(caught.value))
    assert [each.split("json ")[-1].split("sqlite ")[-1] for each in said] == [
        "is the file of --doctor-report too: name another file",
        "is the file of --doctor-report too: name another file",
        "is the database itself: name another file",
        "is the database itself: name another file",
        "is the doctor's journal: name another file",
    ]
    check_outputs(Settings(database, baseline=report, reports=(tmp_path / "other.json",)), None)


def test_the_session_ends_before_it_begins(run_doctor: Doctor, sick: Built, pytester: pytest.Pytester) -> None:
    assert sick.path.exists()
    result = run_doctor("--doctor-baseline=missing/known.json", "--doctor-baseline-write", "--doctor-fix")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: --doctor-baseline missing/known.json cannot be written (No such file *"])
    assert [each.name for each in pytester.path.iterdir() if "doctor" in each.name] == []
    assert run_doctor("--junitxml=x.sqlite").ret == pytest.ExitCode.USAGE_ERROR


def test_through_links_from_home_and_where_mounted(
    run_doctor: Doctor, sick: Built, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One file each, whatever its name; and what was a link stays one."""
    folder, outside = pytester.path, pytester.path / "outside"
    outside.mkdir()
    monkeypatch.setenv("HOME", str(outside))
    for name in ("known.json", "r.json"):
        (folder / name).symlink_to(outside / name)
    (outside / "r.xml").symlink_to(outside / "real.xml")
    reports = ("--doctor-report=r.json", "--doctor-report=~/r.jsonl", "--junitxml=~/r.xml")
    result = run_doctor(ONE, *reports, "--doctor-baseline=known.json", "--doctor-baseline-write")
    assert result.ret == 0, result.stdout.str()
    assert completed(outside / "real.xml")
    assert (outside / "r.xml").is_symlink()
    assert all((folder / name).is_symlink() for name in ("known.json", "r.json"))
    assert json.loads((outside / "known.json").read_text())["accepted"] == []
    assert outcomes(outside / "r.json") == {"orphan-run": "passed"}
    assert (outside / "r.jsonl").read_text().count("\n") == 1
    assert sorted(each.name for each in outside.iterdir()) == ["known.json", "r.json", "r.jsonl", "r.xml", "real.xml"]
    for name in ("m.xml", "m.json", "m.html"):
        (folder / name).touch()
        (outside / name).touch()
    with (
        mounted(outside / "m.xml", folder / "m.xml"),
        mounted(outside / "m.json", folder / "m.json"),
        mounted(outside / "m.html", folder / "m.html"),
    ):
        result = run_doctor(ONE, "--doctor-report=m.json", "--doctor-report=m.html", "--junitxml=m.xml")
    assert result.ret == 0, result.stdout.str()
    assert completed(outside / "m.xml")
    assert outcomes(outside / "m.json") == {"orphan-run": "passed"}
    assert "</html>" in (outside / "m.html").read_text()
    assert sick.path.exists()


@pytest.mark.usefixtures("sick")
def test_a_junit_file_for_which_there_is_no_room(run_doctor: Doctor, pytester: pytest.Pytester) -> None:
    (pytester.path / "full.xml").symlink_to("/dev/full")
    result = run_doctor(ONE, "--junitxml=full.xml", "-n2")
    assert result.ret == 1
    result.stdout.fnmatch_lines(["doctor: full.xml could not be written (No space left on device): *"])
    assert "Traceback" not in result.stdout.str() + result.stderr.str()


@ROOT_ONLY
def test_where_one_may_not_write_it_is_said_at_once(tmp_path: Path) -> None:
    folder = tmp_path / "theirs"
    folder.mkdir()
    build(folder / "x.sqlite")
    run_doctor = ["-m", "pytest", *ALONE, "-p", "no:cacheprovider", "--doctor-db=x.sqlite", ONE]
    for output in ("--doctor-report=r.html", "--junitxml=r.xml", "--junitxml=deep/er/r.xml"):
        done = as_second([*run_doctor, output], folder)
        assert done.returncode == pytest.ExitCode.USAGE_ERROR, done.stdout + done.stderr
        flag, _, name = output.partition("=")
        assert f"ERROR: {flag} {name} cannot be written (Permission denied): " in done.stderr
    assert [each.name for each in folder.iterdir()] == ["x.sqlite"]
