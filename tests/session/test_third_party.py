"""Other people's rules, embedders and engines: brought by an installed plugin, and by a project's conftest.py."""

from __future__ import annotations

import base64
import io
import json
import os
import re
import zlib
from pathlib import Path

import numpy as np
import pytest
from databases import RULES, WIDTH, Built, dump
from junitparser import JUnitXml
from pytest_runs import Doctor, items, outcomes

from pytest_panic_doctor.database.spelling import dashed
from pytest_panic_doctor.rules import registry

REPAIRED = sum(each.repair is not None for each in registry().values())

RULE = """
from pytest_panic_doctor import RepairKind, Rows, Scope, rule


@rule(
    "caption-length",
    scope=Scope.EXPERIMENT,
    description="every caption has at least three words",
    repair=RepairKind.QUARANTINE,
)
def caption_length(context):
    rows = Rows(
        "invocation",
        "SELECT i.id FROM run r JOIN invocation i ON i.run_id = r.id WHERE r.experiment_id = :experiment "
        "AND i.type = 'TEXT' AND length(i.output_text) - length(replace(i.output_text, ' ', '')) < 2",
        context.params,
    )
    yield from context.finding_for_rows(rows, lambda count: f"captions of fewer than three words: {count:,}")


def pytest_doctor_rules():
    return [caption_length]
"""
"""The rule of docs/how-to/own-rule.md, with a repair."""

HOOKS = """
import numpy as np


def pytest_doctor_embed(embedding_model, outputs):
    if embedding_model == "Nomic":
        return np.array([[len(text), *range(1, 8)] for text in outputs], dtype=np.float32)


def pytest_doctor_engine(name):
    if name == "lab":
        return "lab_engine:engine"
"""

ENGINE = """
from pytest_panic_doctor.topology.engines import load_engine


class Lab:
    name, version = "lab", "2.1"

    def bars(self, *args):
        return load_engine().bars(*args)


engine = Lab()
"""

CONFTEST = "conftest.py"
INSTALLED = "installed plugin"
SOURCE = {CONFTEST: "conftest", INSTALLED: "pytest_lab"}


@pytest.fixture(params=[INSTALLED, CONFTEST])
def brought(request: pytest.FixtureRequest, sick: Built, monkeypatch: pytest.MonkeyPatch) -> str:
    """How the rule comes: as a distribution with an entry point, or in the project's conftest.py."""
    folder = sick.path.parent
    site = folder / "site"
    site.mkdir()
    (site / "lab_engine.py").write_text(ENGINE)
    monkeypatch.setenv("PYTHONPATH", str(site), prepend=os.pathsep)
    if request.param == CONFTEST:
        (folder / "conftest.py").write_text(RULE + HOOKS)
    else:
        install(site)
    return str(request.param)


def install(site: Path) -> None:
    """A distribution as pip leaves one behind: a module, and metadata with its entry point."""
    (site / "pytest_lab.py").write_text(RULE + HOOKS)
    info = site / "pytest_lab-2.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: pytest-lab\nVersion: 2.1\n")
    (info / "entry_points.txt").write_text("[pytest11]\nlab = pytest_lab\n")


def plant(built: Built) -> None:
    """A short caption at the end of a run, so that nothing but its embedding hangs on it."""
    with built.open() as db:
        db.execute("UPDATE invocation SET output_text = 'no' WHERE id = ?", (built.invocation(11),))


def test_it_is_listed_with_where_it_comes_from(run_doctor: Doctor, brought: str) -> None:
    result = run_doctor("--doctor-rules", database=None, process=True)
    assert result.ret == 0
    result.stdout.fnmatch_lines(
        [
            f"caption-length        experiment          quarantine      {SOURCE[brought]}",
            "  every caption has at least three words",
            f"{len(registry()) + 1} rules, {REPAIRED + 1} of them with a repair (--doctor-fix)",
        ]
    )


def test_it_is_in_every_report(run_doctor: Doctor, sick: Built, brought: str, pytester: pytest.Pytester) -> None:
    plant(sick)
    reports = ("--doctor-report=r.json", "--doctor-report=r.html", "--junitxml=r.xml")
    result = run_doctor(*reports, *(("-n2",) if brought == INSTALLED else ()), process=True)
    assert result.ret == 1
    said = "captions of fewer than three words: 1"
    result.stdout.fnmatch_lines([f"caption-length: {said}", f"{RULES + 1} rules: {RULES} healthy, 1 sick"])
    if brought == INSTALLED:
        result.stdout.fnmatch_lines(["plugins: *lab-2.1*"])
    item = items(pytester.path / "r.json")[f"caption-length[{dashed(sick.experiment)}]"]
    (finding,) = item["findings"]  # type: ignore[misc]
    assert (item["outcome"], finding["message"], finding["ids"]) == ("failed", said, [sick.invocation(11)])  # type: ignore[has-type]
    assert_in_junit(pytester.path / "r.xml", f"caption-length[{dashed(sick.experiment)}]", said)
    assert_in_html(pytester.path / "r.html", SOURCE[brought], said)


def assert_in_junit(path: Path, name: str, said: str) -> None:
    (suite,) = JUnitXml.fromfile(str(path))
    (case,) = [each for each in suite if each.classname == "doctor.caption-length"]
    assert case.name == name
    assert said in case.result[0].text


def assert_in_html(path: Path, source: str, said: str) -> None:
    found = re.search(r'id="data">([A-Za-z0-9+/=]*)<', path.read_text(encoding="utf-8"))
    assert found
    data = json.loads(zlib.decompress(base64.b64decode(found[1]), -zlib.MAX_WBITS))
    (rule,) = [each for each in data["rules"] if each["id"] == "caption-length"]
    assert (rule["verdict"], rule["source"]) == ("sick", source)
    assert said in json.dumps(data)


def test_it_is_repaired_and_undone(run_doctor: Doctor, sick: Built, brought: str, pytester: pytest.Pytester) -> None:
    plant(sick)
    before = dump(sick.path)
    workers = ("-n2",) if brought == CONFTEST else ()
    result = run_doctor("--doctor-fix", "-m", "caption_length", *workers, "--doctor-report=r.json", process=True)
    assert result.ret == 0, result.stdout.str()
    assert outcomes(pytester.path / "r.json") == {f"caption-length[{dashed(sick.experiment)}]": "fixed"}
    with sick.open() as db:
        assert not db.execute("SELECT 1 FROM invocation WHERE id = ?", (sick.invocation(11),)).fetchone()
    assert run_doctor("--doctor-undo", "all", process=True).ret == 0
    assert dump(sick.path) == before


def test_its_embedder_and_its_engine_are_used(
    run_doctor: Doctor, sick: Built, brought: str, pytester: pytest.Pytester
) -> None:
    assert brought
    with sick.open() as db:
        for row_id, text in db.execute(
            "SELECT e.id, output_text FROM embedding e JOIN invocation i ON i.id = invocation_id WHERE type = 'TEXT'"
        ).fetchall():
            vector = np.array([len(text), *range(1, WIDTH)], "<f4").tobytes()
            db.execute("UPDATE embedding SET vector = ? WHERE id = ?", (vector, row_id))
        db.execute("UPDATE embedding SET vector = NULL WHERE id = ?", (sick.embedding(3),))
    result = run_doctor("--doctor-fix", "--doctor-engine=lab", "-n2", "--doctor-report=r.json", process=True)
    assert result.ret == 0, result.stdout.str()
    with sick.open() as db:
        (blob,) = db.execute("SELECT vector FROM embedding WHERE id = ?", (sick.embedding(3),)).fetchone()
    assert np.frombuffer(blob, "<f4").tolist() == [len("text 3 of an apple"), *range(1, WIDTH)]
    current = items(pytester.path / "r.json")[f"diagram-current[{dashed(sick.run())}-Nomic]"]
    assert current["outcome"] == "fixed"
    measures = current["measures"]
    assert isinstance(measures, dict)
    assert measures["engine"] == "lab"
    with sick.open() as db:
        (payload,) = db.execute(
            "SELECT diagram_data FROM persistencediagram WHERE run_id = ? AND embedding_model = 'Nomic'", (sick.run(),)
        ).fetchone()
    meta = json.loads(str(np.load(io.BytesIO(payload), allow_pickle=False)["doctor_meta"][0]))
    assert (meta["engine"], meta["engine_version"]) == ("lab", "2.1")


def test_the_rule_of_the_documentation_works_as_it_stands(run_doctor: Doctor, sick: Built) -> None:
    page = Path(__file__).parents[2] / "docs" / "how-to" / "own-rule.md"
    block = re.search(r"```python\n(# conftest\.py\n.*?)```", page.read_text(), re.DOTALL)
    assert block
    (sick.path.parent / "conftest.py").write_text(block[1])
    result = run_doctor(process=True)
    assert result.ret == 0
    result.stdout.fnmatch_lines([f"{RULES + 1} rules: {RULES + 1} healthy"])
