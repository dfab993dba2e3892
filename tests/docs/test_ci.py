"""The workflows of the guide to CI: valid by the schemas of the CI systems, and their commands do what is promised."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from databases import build
from defects import plant
from pytest_runs import ALONE

PAGE = (Path(__file__).parents[2] / "docs" / "how-to" / "ci.md").read_text(encoding="utf-8")
WORKFLOWS = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
SCHEMAS = ("vendor.github-workflows", "vendor.gitlab-ci")


@pytest.mark.parametrize(("schema", "number"), list(zip(SCHEMAS, range(2), strict=True)))
def test_the_workflow_is_valid(tmp_path: Path, schema: str, number: int) -> None:
    """By the schema in the package, without a network; a wrong key is seen."""
    good, bad = tmp_path / "good.yml", tmp_path / "bad.yml"
    good.write_text(WORKFLOWS[number])
    bad.write_text(WORKFLOWS[number].replace("steps:", "stepps:").replace("when: always", "when: sometimes"))
    tool = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema]
    checked = subprocess.run([*tool, str(good)], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout
    assert subprocess.run([*tool, str(bad)], capture_output=True, check=False).returncode == 1


def commands(text: str) -> list[str]:
    """The commands of pytest in a text, each on one line."""
    joined = re.sub(r"\n +(?=--)", " ", text)
    return [line.strip(" -") for line in joined.splitlines() if "python -m pytest" in line]


def test_a_job_fails_on_what_is_new_with_a_readable_list(tmp_path: Path) -> None:
    """The commands of the page as they stand, with the path of another database."""
    built = build(tmp_path / "x.sqlite")
    plant(built, "embedding_of_lost_invocation", "diagram_null")
    write, github, gitlab = commands(PAGE)
    assert "--doctor-baseline-write" in write

    def run(command: str) -> int:
        words = shlex.split(command.replace("/data/trajectory_data.sqlite", "x.sqlite"))
        line = [sys.executable, *words[1:], "-n0", *ALONE, "-p", "no:cacheprovider"]
        return subprocess.run(line, cwd=tmp_path, capture_output=True, check=False).returncode

    assert [run(write), run(github)] == [0, 0]
    report = (tmp_path / "doctor.md").read_text()
    assert "baseline: 0 new, 2 known, 0 healed" in report
    assert "## " not in report
    plant(built, "model_unknown")
    assert [run(github), run(gitlab)] == [1, 1]
    report = (tmp_path / "doctor.md").read_text()
    assert report.count("\n") <= 60
    assert "baseline: 1 new, 2 known, 0 healed" in report
    assert "- 1 run to regenerate: `panic-tda experiment perform CONFIG.json --db-path x.sqlite`" in report
    assert [line.split(" | ")[0] for line in report.splitlines() if line.startswith("| ")][1:] == ["| invocation-model"]
    xml = (tmp_path / "doctor.xml").read_text()
    assert '<testcase classname="doctor.invocation-model" name="invocation-model[' in xml
    assert '<failure message="1 of 24 invocations is by a model out of turn' in xml
