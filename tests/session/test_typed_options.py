"""Options as pytest gives them: from the command line, an ini file, and a native TOML file."""

from __future__ import annotations

import json

import pytest
from databases import Built, build
from pytest_runs import Doctor


def test_one_database_of_two_is_never_ignored(run_doctor: Doctor, sick: Built, pytester: pytest.Pytester) -> None:
    build(pytester.path / "y.sqlite")
    result = run_doctor("--doctor-db", "y.sqlite", "-n2")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: --doctor-db is given 2 times (x.sqlite, y.sqlite): give it once"])
    pytester.makeini("[pytest]\naddopts = --doctor-db=gone.sqlite\n")
    assert sick.path.exists()
    assert run_doctor("--doctor-rule=schema").ret == 0, "what addopts gives is replaced"


@pytest.mark.skipif(pytest.version_tuple < (9, 2), reason="native TOML files with keys of several types are newer")
@pytest.mark.parametrize(("name", "table"), [("pytest.toml", "pytest"), ("pyproject.toml", "tool.pytest")])
def test_a_native_toml_file_has_typed_values(
    run_doctor: Doctor, pytester: pytest.Pytester, name: str, table: str
) -> None:
    build(pytester.path / "x.sqlite")
    (pytester.path / name).write_text(
        f"[{table}]\ndoctor_fix = true\ndoctor_plan = false\ndoctor_max_workers = 2\ndoctor_memory = '1GB'\n"
        "doctor_embed_cosine = 0.5\ndoctor_max_dim = 1\n"
    )
    result = run_doctor("-n8", "--doctor-rule=schema", "--doctor-report=r.json")
    assert result.ret == 0, result.stdout.str()
    said = json.loads((pytester.path / "r.json").read_text())["doctor"]["settings"]
    assert [said[name] for name in ("fix", "plan", "max_workers", "max_dim")] == [True, False, 2, 1]
    (pytester.path / name).write_text(f"[{table}]\ndoctor_max_workers = 0\n")
    result = run_doctor()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: --doctor-max-workers 0 is not a whole number of at least 1*"])
