"""Sessions on a database of the Elixir generation: what they say of it, and that nothing is written to it."""

from __future__ import annotations

import json
import re
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from databases import build, dump
from elixir_files import elixir_file
from html_payload import data_of
from pytest_runs import Doctor, outcomes

from pytest_panic_doctor.database.elixir_generation import ELIXIR
from pytest_panic_doctor.examination.opening import from_database
from pytest_panic_doctor.examination.settings import Settings

SKIPPED = ("invocation-seed", "run-lockstep")
"""The rules that have nothing to look at in a healthy file whose experiments are finished."""


@pytest.fixture
def elixir(pytester: pytest.Pytester) -> Path:
    """A healthy database in the current folder."""
    return elixir_file(pytester.path, name="x.sqlite")


def test_a_healthy_file_is_green_and_untouched(elixir: Path, run_doctor: Doctor, mode: tuple[str, ...]) -> None:
    before = elixir.read_bytes(), sorted(elixir.parent.glob("x.sqlite*"))
    result = run_doctor(*mode, "--doctor-report=r.json")
    assert result.ret == 0
    result.stdout.fnmatch_lines(
        [
            "doctor: a database of the Elixir generation, schema 20260519233115",
            "doctor: 2 experiments, 16 runs, 80 invocations, 80 embeddings, 32 diagrams,",
            "doctor: 16 Lyapunov results, 4 clustering results, 160 cluster assignments",
        ]
    )
    assert {each for name, each in outcomes(Path("r.json")).items() if not name.startswith(SKIPPED)} == {"passed"}
    assert (elixir.read_bytes(), sorted(elixir.parent.glob("x.sqlite*"))) == before


def test_an_older_schema_is_named_and_warned_of(pytester: pytest.Pytester, run_doctor: Doctor) -> None:
    elixir_file(pytester.path, "--schema", "5", name="x.sqlite")
    result = run_doctor()
    assert result.ret == 0
    result.stdout.fnmatch_lines(
        [
            "doctor: a database of the Elixir generation, schema 20260327035722, older than the*",
            "warning      schema: the schema (20260327035722) is older than the research*",
        ]
    )


def test_it_is_planned_and_repaired_while_the_tool_has_it_open_and_comes_back(elixir: Path, run_doctor: Doctor) -> None:
    pytest.importorskip("jinja2")
    with closing(sqlite3.connect(elixir)) as db, db:
        for change in SICK:
            assert db.execute(change).rowcount
    before = dump(elixir)
    with closing(sqlite3.connect(elixir, isolation_level=None)) as tool:
        tool.execute("PRAGMA foreign_keys = ON")
        tool.execute("BEGIN")
        assert tool.execute("SELECT count(*) FROM runs").fetchone() == (16,)
        plan = run_doctor("--doctor-plan")
        plan.stdout.fnmatch_lines_random(
            [
                "would fix    diagram-missing       compute 2 diagrams of *",
                "would fix    lyapunov-missing      compute 1 Lyapunov result",
                "would fix    orphan-lyapunov       quarantine 1 row, *",
            ]
        )
        assert dump(elixir) == before
        result = run_doctor("--doctor-fix", "-n2", "--doctor-report=r.json", "--doctor-report=r.html", process=True)
        assert result.ret == 0
    fixed = [name.split("[")[0] for name, each in outcomes(Path("r.json")).items() if each == "fixed"]
    assert sorted(fixed) == ["diagram-missing", "diagram-missing", "lyapunov-missing", "orphan-lyapunov"]
    result.stdout.fnmatch_lines_random(["*quarantined 1 row: 1 Lyapunov result (repair *"])
    earlier = [
        shot for each in data_of(Path("r.html"))["diagrams"] for shot in each["shots"] if shot["what"] == "before"
    ]
    assert sorted(shot["problem"] for shot in earlier) == ["NULL: no payload is stored", "it did not exist"]
    with closing(sqlite3.connect(elixir)) as db:
        assert db.execute("PRAGMA foreign_key_check").fetchall() == []
    after = dump(elixir)
    assert run_doctor("--doctor-fix").ret == 0
    assert dump(elixir) == after
    assert run_doctor("--doctor-undo", "all").ret == 0
    assert dump(elixir) == before


def test_a_repair_that_breaks_a_clustering_is_no_green(elixir: Path, run_doctor: Doctor) -> None:
    """`clustering-complete` passes before the embedding of another type, and its assignments, are taken."""
    of_type = "SELECT i.id FROM invocations i WHERE i.type = '{}' ORDER BY rowid LIMIT 1"
    image, text = (of_type.format(kind) for kind in ("image", "text"))
    of_a_text = f"SELECT id FROM embeddings WHERE invocation_id = ({text}) AND embedding_model = 'Qwen3Embed'"
    odd = "019f0000-0000-7000-8000-00000000dead"
    with closing(sqlite3.connect(elixir)) as db, db:
        for change in (
            f"INSERT INTO embeddings SELECT ({image}), updated_at, inserted_at, completed_at, started_at, vector, "
            f"embedding_model, '{odd}' FROM embeddings WHERE id = ({of_a_text})",
            f"INSERT INTO embedding_clusters SELECT medoid_embedding_id, clustering_result_id, '{odd}', updated_at, "
            f"inserted_at, 'f' || substr(id, 2) FROM embedding_clusters WHERE embedding_id = ({of_a_text})",
            "UPDATE clustering_results SET parameters = json_set(parameters, '$.n_embeddings', "
            "json_extract(parameters, '$.n_embeddings') + 1) WHERE embedding_model = 'Qwen3Embed'",
        ):
            assert db.execute(change).rowcount
    result = run_doctor("--doctor-fix", "--doctor-report=r.json")
    words = outcomes(Path("r.json"))
    assert words["clustering-complete"] == "passed"
    assert "failed" not in words.values()
    assert "fixed" in {word for name, word in words.items() if name.startswith("embedding-type")}
    assert result.ret == 1
    (doubt,) = json.loads(Path("r.json").read_text())["doctor"]["doubts"]
    assert doubt.startswith("clustering-complete passed before the repairs, and fails now: layer 0 of the clustering")
    assert run_doctor("--doctor-undo", "all").ret == 0
    assert run_doctor("--doctor-rule", "clustering-complete").ret == 0


SICK = (
    "UPDATE persistence_diagrams SET diagram_data = NULL WHERE rowid = 1",
    "DELETE FROM persistence_diagrams WHERE rowid = 2",
    "DELETE FROM lyapunov_results WHERE rowid = 1",
    "INSERT INTO lyapunov_results SELECT '019f0000-0000-7000-8000-00000000dead', updated_at, inserted_at, "
    "completed_at, started_at, lyapunov_data, prompt, network, embedding_model, 'f' || substr(id, 2) "
    "FROM lyapunov_results WHERE rowid = 2",
)


def test_an_experiment_is_named_with_dashes_or_without(elixir: Path, run_doctor: Doctor) -> None:
    with closing(sqlite3.connect(elixir)) as db:
        experiment = str(db.execute("SELECT id FROM experiments").fetchone()[0])
    for name in (experiment, experiment.replace("-", "")):
        assert run_doctor("--doctor-experiment", name, "--doctor-report=r.json").ret == 0
        narrowed = [each for each in outcomes(Path("r.json")) if each.startswith("experiment-runs[")]
        assert narrowed == [f"experiment-runs[{experiment}]"]


def test_damage_that_sqlite_tells_of_is_told_of_the_files_own_tables(elixir: Path, run_doctor: Doctor) -> None:
    with closing(sqlite3.connect(elixir)) as db:
        (page,) = db.execute("SELECT rootpage FROM sqlite_master WHERE name = 'embeddings'").fetchone()
        (size,) = db.execute("PRAGMA page_size").fetchone()
    data = bytearray(elixir.read_bytes())
    data[(page - 1) * size : (page - 1) * size + 8] = bytes(8)
    elixir.write_bytes(data)
    result = run_doctor("--doctor-rule", "embedding-missing", "-rA")
    assert result.ret == 1
    assert "table embeddings is damaged" in result.stdout.str()


@pytest.mark.usefixtures("elixir")
def test_every_report_says_of_which_generation_the_file_is_and_draws_its_diagrams(run_doctor: Doctor) -> None:
    pytest.importorskip("jinja2")
    said = "the Elixir generation, schema 20260519233115"
    assert run_doctor("--doctor-report=r.json", "--doctor-report=r.html", "--junitxml=r.xml").ret == 0
    assert json.loads(Path("r.json").read_text())["doctor"]["generation"] == said
    assert f'name="doctor.generation" value="{said}"' in Path("r.xml").read_text()
    assert f"<dd>{said}</dd>" in Path("r.html").read_text()
    diagrams = data_of(Path("r.html"))["diagrams"]
    assert len(diagrams) == 32
    assert {shot["problem"] for each in diagrams for shot in each["shots"]} == {""}


def test_the_rule_of_the_documentation_works_on_it_too(elixir: Path, run_doctor: Doctor) -> None:
    page = Path(__file__).parents[2] / "docs" / "how-to" / "own-rule.md"
    block = re.search(r"```python\n(# conftest\.py\n.*?)```", page.read_text(), re.DOTALL)
    assert block
    (elixir.parent / "conftest.py").write_text(block[1])
    result = run_doctor("--doctor-rule=caption-length", "--doctor-report=r.json")
    assert result.ret == 0
    assert set(outcomes(Path("r.json")).values()) == {"passed"}
    with closing(sqlite3.connect(elixir)) as db, db:
        db.execute("UPDATE invocations SET output_text = 'short' WHERE type = 'text' AND rowid % 3 = 0")
    result = run_doctor("--doctor-rule=caption-length")
    assert result.ret == 1
    result.stdout.fnmatch_lines(["*captions of fewer than three words: *"])


@pytest.mark.usefixtures("elixir")
def test_the_html_report_and_the_demanding_options_have_no_objection(run_doctor: Doctor) -> None:
    pytest.importorskip("jinja2")
    result = run_doctor("--doctor-report=r.html", "--doctor-deep", "--doctor-sample=1/2", "--doctor-shard=1/2", "-n2")
    assert result.ret == 0
    assert Path("r.html").stat().st_size > 10_000


def test_a_rule_of_the_other_generation_is_refused_by_name(pytester: pytest.Pytester, run_doctor: Doctor) -> None:
    build(pytester.path / "x.sqlite")
    result = run_doctor("--doctor-rule", "lyapunov-valid")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    said = (
        "*the rule lyapunov-valid is about databases of another generation of the research tool, and *x.sqlite is of "
    )
    result.stderr.fnmatch_lines([f"{said}the Python generation: leave it out"])


def test_a_rule_of_this_generation_alone_is_run_by_name(elixir: Path, run_doctor: Doctor) -> None:
    assert elixir.is_file()
    result = run_doctor("--doctor-rule", "lyapunov-valid")
    assert result.ret == 0
    result.stdout.fnmatch_lines(["doctor: 1 rule, 4 items*"])


def test_damage_that_only_this_generation_can_have_is_in_every_report(elixir: Path, run_doctor: Doctor) -> None:
    with closing(sqlite3.connect(elixir)) as db, db:
        db.execute("UPDATE lyapunov_results SET lyapunov_data = NULL WHERE rowid = 1")
    result = run_doctor("--doctor-report=r.json", "--doctor-report=r.html", "-n2")
    assert result.ret == 1
    result.stdout.fnmatch_lines(["  lyapunov_results ????????-*"])
    failed = [name for name, each in outcomes(Path("r.json")).items() if each == "failed"]
    assert [name.split("[")[0] for name in failed] == ["lyapunov-valid"]
    (item,) = [each for each in data_of(Path("r.html"))["items"] if each["rule"] == "lyapunov-valid"]
    assert item["findings"][0]["table"] == "lyapunov_results"
    said = item["findings"][0]["message"]
    assert said.startswith("the Lyapunov result for Flux2Klein → Qwen25VL, prompt 'a door")
    assert said.endswith("is not valid: it is NULL")


TASKS = ("experiment.run", "experiment.resume", "experiment.list", "embeddings.recompute", "cluster.recompute")
"""The mix tasks of the research tool that a remedy may name."""


@pytest.mark.usefixtures("elixir")
def test_a_remedy_names_the_mix_task_and_not_only_the_research_tool() -> None:
    rules = from_database(Settings(Path("x.sqlite"))).rules
    remedies = {rule.id: rule.manual_fix for rule in rules.values() if rule.applies_to("elixir") and not rule.repair}
    assert all(re.search(r"mix [a-z]+\.[a-z]+", text) or "research tool" not in text for text in remedies.values())
    assert {task for text in remedies.values() for task in re.findall(r"mix ([a-z]+\.[a-z]+)", text)} == set(TASKS)
    assert set(ELIXIR.remedies) <= set(remedies)
    assert all(text == remedies[name] for name, text in ELIXIR.remedies.items())


def test_a_remedy_of_the_python_generation_names_no_mix_task(pytester: pytest.Pytester) -> None:
    build(pytester.path / "x.sqlite")
    rules = from_database(Settings(Path("x.sqlite"))).rules
    assert not [rule.id for rule in rules.values() if rule.applies_to("python") and "mix " in rule.manual_fix]


def test_what_nothing_repairs_says_which_mix_task_does(elixir: Path, run_doctor: Doctor) -> None:
    with closing(sqlite3.connect(elixir)) as db, db:
        db.execute("UPDATE invocations SET output_text = NULL WHERE type = 'text' AND sequence_number = 1")
    result = run_doctor("--doctor-rule", "invocation-output", "--doctor-report=r.html")
    assert result.ret == 1
    assert "mix experiment.run CONFIG.json" in result.stdout.str()
    remedies = {rule["id"]: rule["remedy"] for rule in data_of(Path("r.html"))["rules"]}
    assert "mix experiment.run CONFIG.json" in remedies["invocation-output"]
