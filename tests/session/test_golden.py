"""The outputs about the research tool's sick reference file, line by line, as files of `golden/`.

    DOCTOR_GOLDEN=write .venv/bin/pytest tests/session/test_golden.py

writes the files anew; read their diff before you commit it. Times, paths and what depends on the machine are taken out.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest
from pytest_runs import CTRL_C, Doctor

GOLDEN = Path(__file__).parent / "golden"
MACHINE = re.compile(
    r"^(platform |plugins: |rootdir: |created: |configfile: |\d workers? \[|.*\[ *\d+%\]$|\w+ created|scheduling)"
    r"|^-+ generated xml"
)
"""Lines that depend on the machine, or on the order in which items end."""
OUTPUTS = ("--doctor-report=r.md", "--junitxml=r.xml")


@pytest.fixture
def sick_file(pytester: pytest.Pytester, shared_data: Path) -> Path:
    """The reference file, in the current folder."""
    path = pytester.path / "x.sqlite"
    shutil.copyfile(shared_data / "reference-sick.sqlite", path)
    return path


def check(name: str, found: str) -> None:
    """Compare an output with its golden file, or write it."""
    path = GOLDEN / name
    if os.environ.get("DOCTOR_GOLDEN") == "write":
        path.write_text(found, encoding="utf-8")
    assert found.splitlines() == path.read_text(encoding="utf-8").splitlines()


def terminal(result: pytest.RunResult) -> str:
    """What a terminal shows, without what differs from run to run; the failed ids are sorted."""
    lines = [line.rstrip() for line in result.outlines if not MACHINE.match(line) and not re.fullmatch("[.Fs+]+", line)]
    ids = iter(sorted(line for line in lines if line.startswith("FAILED ")))
    lines = [next(ids) if line.startswith("FAILED ") else line for line in lines]
    text = re.sub(r"=* ?(\d+ \w+, .* in )[\d.:]+s( \([\d:]+\))?( =+)?", r"\1TIME", "\n".join(lines))
    return re.sub(r"(next: ).*?( --doctor-db )", r"\1pytest\2", text) + "\n"


def junit(path: Path) -> str:
    """The test cases of a JUnit file, by name, with what a CI system shows of them."""

    def lines() -> Iterator[str]:
        cases = ElementTree.parse(path).iter("testcase")
        for case in sorted(cases, key=lambda case: case.get("name", "")):
            yield f"{case.get('classname')} {case.get('name')}"
            for each in case:
                text = re.sub(r"(next: ).*?( --doctor-db )", r"\1pytest\2", each.text or "").strip()
                yield from (
                    f"  {each.tag} {each.get('message', '')}".rstrip(),
                    *(f"    {x}" for x in text.splitlines()),
                )

    return "\n".join(lines()) + "\n"


def test_the_outputs_are_those_of_the_golden_files(run_doctor: Doctor, sick_file: Path, mode: tuple[str, ...]) -> None:
    """The same without workers, with none, and with two."""
    result = run_doctor(*OUTPUTS, *mode)
    assert result.ret == 1
    if mode:
        golden = (GOLDEN / "terminal.txt").read_text(encoding="utf-8")
        title = re.compile("=+ FAILURES =+")
        assert title.split(terminal(result))[1].splitlines() == title.split(golden)[1].splitlines()
    else:
        check("terminal.txt", terminal(result))
    check("report.md", (sick_file.parent / "r.md").read_text())
    check("junit.txt", junit(sick_file.parent / "r.xml"))
    shown = [line for line in terminal(result).splitlines() if not line.startswith(("next: ", "FAILED "))]
    assert max(map(len, shown)) <= 80
    assert len(shown) < 150, "24 failures were 190 lines and more before they were grouped"


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("tb-line", ("--tb=line",)),
        ("tb-no", ("--tb=no",)),
        ("q", ("-q",)),
        ("qq", ("-qq",)),
        ("none", ("--no-summary",)),
    ],
)
def test_pytests_own_options_do_what_they_do_elsewhere(
    run_doctor: Doctor, sick_file: Path, name: str, args: tuple[str, ...]
) -> None:
    assert sick_file.exists()
    result = run_doctor("--doctor-rule=invocation-sequence,orphan-run", *args)
    assert result.ret == 1
    check(f"terminal-{name}.txt", terminal(result))


@pytest.mark.parametrize("args", [("-rf",), ("--tb=no",), ("--tb=line",), ("CI",)], ids="".join)
def test_the_ids_of_failed_items_are_there_for_who_asks(
    run_doctor: Doctor, sick_file: Path, monkeypatch: pytest.MonkeyPatch, args: tuple[str, ...]
) -> None:
    """Beside the findings they would only be lines that are wider than the terminal."""
    assert sick_file.exists()
    if args == ("CI",):
        monkeypatch.setenv("CI", "1")
        args = ()
    result = run_doctor("--doctor-rule=orphan-run,orphan-diagram", *args)
    result.stdout.fnmatch_lines(["FAILED x.sqlite::orphan-diagram*"])
    result.assert_outcomes(failed=1, passed=1)


def test_a_run_has_its_output_alone(run_doctor: Doctor, sick_file: Path) -> None:
    assert sick_file.exists()
    result = run_doctor("--doctor-run", "penguin", "-v")
    shown = "\n".join(line for line in terminal(result).splitlines() if "::" not in line or line.startswith("FAILED"))
    check("terminal-run.txt", shown + "\n")


def test_what_was_not_reached_after_ctrl_c_is_one_line(
    run_doctor: Doctor, sick_file: Path, pytester: pytest.Pytester
) -> None:
    pytester.makeconftest(CTRL_C)
    result = run_doctor(str(sick_file))
    assert result.ret == pytest.ExitCode.INTERRUPTED
    found = [line for line in result.outlines if line.startswith("not examined")]
    result.stdout.fnmatch_lines(["*= FAILURES =*", "orphan-cluster: 3 of 41 cluster assignments are orphans: *"])
    assert found == ["not examined 30 rules: 106 of 106 items not reached"]


def test_other_tests_keep_their_own_section(run_doctor: Doctor, sick_file: Path, pytester: pytest.Pytester) -> None:
    """Failures of tests beside the database are pytest's, under the same title."""
    pytester.makepyfile("def test_theirs():\n    assert 1 == 2, 'theirs'\n")
    result = run_doctor("--doctor-rule=orphan-run,orphan-diagram", str(sick_file), str(pytester.path))
    assert result.ret == 1
    result.stdout.fnmatch_lines(
        ["*= FAILURES =*", "*_ test_theirs _*", "*AssertionError: theirs*", "orphan-diagram: 1 of 14 *", "*= doctor =*"]
    )
    result.assert_outcomes(failed=2, passed=1)
    assert result.stdout.str().count(" FAILURES ") == 1
    assert [line.split("::")[1].split()[0] for line in result.outlines if line.startswith("FAILED ")] == ["test_theirs"]
