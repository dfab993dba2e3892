"""A database outside of the project brings no code; one within it does, as pytest users expect."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from databases import Built, build

pytestmark = pytest.mark.integration

LOUD = "from pathlib import Path\nPath(__file__).with_name('was-here').touch()\n"
HOOK = "\ndef pytest_report_header():\n    return 'project: its hooks are here'\n"


@pytest.fixture
def data(pytester: pytest.Pytester) -> Built:
    """A database in a folder with code of its own, and a project in another one, which is the current one."""
    folder = pytester.path / "data" / "deep"
    folder.mkdir(parents=True)
    for each in (folder.parent, folder):
        for name in ("conftest.py", "__init__.py"):
            (each / name).write_text(LOUD)
    project = pytester.path / "project"
    project.mkdir()
    (project / "conftest.py").write_text(LOUD + HOOK)
    pytester.chdir()
    return build(folder / "x.sqlite")


def run(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, folder: Path, *args: object) -> pytest.RunResult:
    monkeypatch.chdir(folder)
    return pytester.runpytest_subprocess("--doctor-rule=schema", *map(str, args), timeout=120)


def loud(pytester: pytest.Pytester) -> set[str]:
    """The folders whose code ran."""
    return {mark.parent.relative_to(pytester.path).as_posix() for mark in pytester.path.rglob("was-here")}


Arguments = Callable[[Path], list[object]]
FOREIGN: dict[str, Arguments] = {
    "by option": lambda path: ["--doctor-db", path],
    "relative": lambda _: ["--doctor-db", "../data/deep/x.sqlite", "../data/deep/x.sqlite::schema"],
    "with xdist": lambda path: ["--doctor-db", path, f"{path}::schema", "-n1"],
    "with a confcutdir above both": lambda path: ["--doctor-db", path, "--confcutdir=/"],
    "beside tests": lambda path: ["--doctor-db", path, f"{path}::schema", "test_it.py"],
    "with a confcutdir and tests": lambda path: ["--doctor-db", path, "--confcutdir=..", path, "test_it.py"],
}


@pytest.mark.parametrize("how", FOREIGN)
def test_a_database_outside_of_the_project_brings_no_code(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, data: Built, how: str
) -> None:
    project = pytester.path / "project"
    (project / "test_it.py").write_text("def test_it():\n    pass\n")
    result = run(pytester, monkeypatch, project, *FOREIGN[how](data.path))
    assert result.ret == 0, result.stdout.str()
    assert result.parseoutcomes()["passed"] == (2 if "tests" in how else 1)
    assert loud(pytester) == {"project"}
    result.stdout.fnmatch_lines(["project: its hooks are here"])


@pytest.mark.parametrize(("name", "node"), [("pytest.ini", True), ("pyproject.toml", False)])
def test_an_ini_file_beside_it_makes_it_no_project(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, data: Built, name: str, node: bool
) -> None:
    section = "[pytest]\n" if name == "pytest.ini" else "[tool.pytest.ini_options]\n"
    (data.path.parent / name).write_text(section)
    ids = [f"{data.path}::schema"] if node else []
    assert run(pytester, monkeypatch, pytester.path / "project", "--doctor-db", data.path, *ids).ret == 0
    assert not {each for each in loud(pytester) if each.startswith("data")}


@pytest.mark.parametrize("how", ["file", "folder"])
def test_where_a_symbolic_link_leads_counts(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, data: Built, how: str
) -> None:
    project = pytester.path / "project"
    if how == "file":
        (project / "linked.sqlite").symlink_to(data.path)
        name = "linked.sqlite"
    else:
        (project / "linked").symlink_to(data.path.parent)
        name = "linked/x.sqlite"
    assert run(pytester, monkeypatch, project, "--doctor-db", name, f"{name}::schema").ret == 0
    assert loud(pytester) == {"project"}


INSIDE: dict[str, tuple[str, Arguments]] = {
    "in the current folder": ("data/deep", lambda _: ["--doctor-db", "x.sqlite"]),
    "below the current folder": ("data", lambda _: ["--doctor-db", "deep/x.sqlite", "deep/x.sqlite::schema"]),
    "in the rootdir that was named": ("project", lambda path: ["--doctor-db", path, f"--rootdir={path.parent.parent}"]),
    "in a folder that was named": ("project", lambda path: ["--doctor-db", path, path.parent]),
}


@pytest.mark.parametrize("how", INSIDE)
def test_a_database_within_the_project_brings_code(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, data: Built, how: str
) -> None:
    folder, arguments = INSIDE[how]
    result = run(pytester, monkeypatch, pytester.path / folder, *arguments(data.path))
    assert result.ret == 0, result.stdout.str()
    assert "data/deep" in loud(pytester)
