"""An option is declared once: one row in the table, and the field of the settings that has its value."""

from __future__ import annotations

import json

import pytest
from databases import Built
from defects import plant
from pytest_runs import Doctor, run_pytest

TOY = """
from dataclasses import dataclass

from pytest_panic_doctor.examination import settings


@dataclass(frozen=True, slots=True)
class ToySettings(settings.Settings):
    toy: tuple[settings.Part, ...] = ()


settings.Settings = ToySettings  # before any other module of the package has imported it

from pytest_panic_doctor.examination import options
from pytest_panic_doctor.examination.parsing import parse_sample

options.OPTIONS += (
    options.Option(
        "toy",
        options.OptionValue("list", "K/N", parse_sample),
        "a part of a toy",
        needs=(("memory",), "--doctor-toy needs memory: {}"),
        excludes={"deep": "--doctor-toy is not deep"},
        again=str,
    ),
)
"""


@pytest.fixture
def toy(run_doctor: Doctor, sick: Built, pytester: pytest.Pytester) -> Doctor:
    """Run the doctor with one option more, on a database with one finding."""
    plant(sick, "embedding_of_lost_invocation")
    pytester.makepyfile(toy=TOY)

    def run(*args: object) -> pytest.RunResult:
        return run_doctor("-p", "toy", *args, process=True)

    return run


def test_the_help_has_it_and_its_key(toy: Doctor) -> None:
    text = " ".join(toy("--help").stdout.str().split())
    assert "--doctor-toy=K/N a part of a toy" in text
    assert "doctor_toy (linelist): same as --doctor-toy: a part of a toy" in text


def test_it_is_parsed_sent_to_workers_reported_and_typed_again(toy: Doctor, pytester: pytest.Pytester) -> None:
    pytester.makeini("[pytest]\ndoctor_memory = 1GB\n")
    result = toy("--doctor-toy=1/2,2/3", "--doctor-rule=orphan-embedding", "--doctor-report=r.json", "-n1")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert json.loads((pytester.path / "r.json").read_text())["doctor"]["settings"]["toy"] == [[1, 2], [2, 3]]
    again = "--doctor-plan --doctor-rule orphan-embedding --doctor-toy 1/2 --doctor-toy 2/3"
    assert [line.endswith(again) for line in result.stdout.lines if line.startswith("next: ")] == [True]


def test_the_ini_file_has_it(toy: Doctor, pytester: pytest.Pytester) -> None:
    pytester.makeini("[pytest]\ndoctor_toy = 1/2\n")
    toy("--doctor-rule=schema", "--doctor-report=r.json")
    assert json.loads((pytester.path / "r.json").read_text())["doctor"]["settings"]["toy"] == [[1, 2]]


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("--doctor-toy=3/2",), "--doctor-toy 3/2 is not a part: give K/N with K from 1 to N, e.g. --doctor-toy 2/7"),
        (("--doctor-toy=1/2",), "--doctor-toy needs memory: *"),
        (("--doctor-toy=1/2", "--doctor-deep"), "--doctor-toy is not deep: give one of them"),
    ],
)
def test_what_is_wrong_with_it_is_said(toy: Doctor, args: tuple[str, ...], said: str) -> None:
    result = toy(*args)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"ERROR: {said}"])


def test_shards_may_not_differ_in_it(toy: Doctor, pytester: pytest.Pytester) -> None:
    for shard, part in (("1/2", "1/2"), ("2/2", "2/2")):
        name = shard[0]
        toy(
            f"--doctor-shard={shard}",
            f"--doctor-toy={part}",
            "--doctor-memory=1GB",
            f"--doctor-report={name}.json",
        )
    result = run_pytest(pytester, "-p", "toy", "--doctor-merge", "1.json", "2.json", process=True)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: *2.json was made with another toy than *1.json: *"])
