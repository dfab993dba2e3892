"""The page as a file: what it holds, how large it gets, that nothing in a database can break out of its data."""

from __future__ import annotations

import json
import re
import sqlite3
import sys
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from databases import DEFAULT, Built, build
from defects import plant
from html_payload import data_of
from hypothesis import given
from hypothesis import strategies as st
from reports import HOSTILE, examined, make_hostile, page

from pytest_panic_doctor.database.elixir_payload import decode_lyapunov, encode_lyapunov
from pytest_panic_doctor.errors import DoctorError
from pytest_panic_doctor.examination.outcome import Result
from pytest_panic_doctor.report.html import lyapunov_curves, write_html
from pytest_panic_doctor.report.html.contents import IDS_IN_ALL, max_ids_per_finding
from pytest_panic_doctor.report.html.lyapunov_curves import MOST_STEPS, curve_of
from pytest_panic_doctor.report.html.plot_data import STEPS, block, drawn, longest, on_grid
from pytest_panic_doctor.report.html.timelines import gaps, spans
from pytest_panic_doctor.report.results import Results
from pytest_panic_doctor.rules.base import Finding
from pytest_panic_doctor.session.demo.build import build as build_demo
from pytest_panic_doctor.topology.diagram import Bars, Diagram, sorted_bars
from pytest_panic_doctor.topology.lyapunov import Lyapunov
from pytest_panic_doctor.topology.payload import Payload, encode

LIMIT = 5_000_000


def items_of(data: Mapping[str, Any], rule: str) -> list[dict[str, Any]]:
    return [item for item in data["items"] if item["rule"] == rule]


@pytest.fixture
def sick(tmp_path: Path) -> Built:
    return build(tmp_path / "x.sqlite")


def test_head_says_what_was_examined(sick: Built) -> None:
    plant(sick, "diagram_of_lost_run")
    text = page(sick.path).read_text(encoding="utf-8")
    shown = re.sub(r"<script.*?</script>|<[^>]*>", " ", text, flags=re.DOTALL)
    words = " ".join(shown.split())
    assert f"x.sqlite {sick.path}" in words
    assert "<title>x.sqlite: 1 rule sick," in text
    examined = len(DEFAULT)
    assert re.search(rf"1 × sick 0 \+ fixed {examined - 1} ✓ healthy 0 – not examined", words)
    assert "1 experiment, 2 runs, 24 invocations, 24 embeddings, 5 diagrams" in words
    assert "mode examine, read only" in words
    assert "TEXT models Nomic, JinaClip" in words
    assert re.search(r"size \d+\.?\d* [kM]B", words)
    assert "pytest-panic-doctor 0.1.0" in words
    assert re.search(r"next pytest --doctor-db \S+ --doctor-plan", words)


def test_every_rule_and_every_subject_has_its_state(sick: Built) -> None:
    plant(sick, "vector_null")
    data = data_of(page(sick.path))
    assert data["rules"][0]["verdict"] == "sick"
    assert {len(letters) for letters in data["states"].values()} == {1, 2, 4}
    assert data["states"]["embedding-vector"] == "sh"
    assert data["states"]["diagram-current"] == "shhh"
    assert data["states"]["invocation-chain"] == "h"
    assert [rule["id"] for rule in data["rules"] if rule["verdict"] == "sick"] == [
        "diagram-current",
        "embedding-vector",
    ]


def test_rows_of_an_experiment_are_placed_in_their_runs(sick: Built) -> None:
    plant(sick, "vector_null", "gap")
    data = data_of(page(sick.path))
    (vector,) = items_of(data, "embedding-vector")
    assert vector["experiment"] == 0
    assert vector["model"] == "Nomic"
    assert [(each["runs"], each["complete"]) for each in vector["findings"]] == [([[0, 1]], True)]
    (sequence,) = items_of(data, "invocation-sequence")
    assert [each["runs"] for each in sequence["findings"]] == [[[0, 1]]]


def test_rows_that_a_repair_took_away_are_placed_by_the_journal(sick: Built) -> None:
    with sick.open() as db:
        db.execute("UPDATE embedding SET embedding_model = 'NomicVision' WHERE id = ?", (sick.embedding(3, run=1),))
    data = data_of(page(sick.path, fix=True))
    (of_type,) = items_of(data, "embedding-type")
    assert of_type["outcome"] == "fixed"
    assert (of_type["runs"], of_type["complete"]) == ([[1, 1]], True)


def test_a_repaired_diagram_has_its_before(sick: Built) -> None:
    with sick.open() as db:
        db.execute("UPDATE persistencediagram SET diagram_data = x'00' WHERE id = ?", (sick.diagram(),))
        db.execute("UPDATE persistencediagram SET diagram_data = NULL WHERE id = ?", (sick.diagram(run=1),))
        db.execute("DELETE FROM persistencediagram WHERE id = ?", (sick.diagram("NomicVision"),))
        stale = db.execute(
            "SELECT diagram_data FROM persistencediagram WHERE id = ?", (sick.diagram("NomicVision", 1),)
        )
        old = stale.fetchone()[0]
        other = encode(Diagram((sorted_bars([[0, 0.5], [0, np.inf]]), sorted_bars([]), sorted_bars([]))))
        db.execute("UPDATE persistencediagram SET diagram_data = ? WHERE diagram_data = ?", (other, old))
    data = data_of(page(sick.path, fix=True))
    shots = {(each["run"], each["model"]): each["shots"] for each in data["diagrams"]}
    told = {pair: [(each["what"], each["problem"]) for each in those] for pair, those in shots.items()}
    assert told == {
        (0, "Nomic"): [("now", ""), ("before", "it is damaged: File is not a zip file")],
        (0, "NomicVision"): [("now", ""), ("before", "it did not exist")],
        (1, "Nomic"): [("now", ""), ("before", "NULL: no payload is stored")],
        (1, "NomicVision"): [("now", ""), ("before", "")],
    }
    now, before = shots[1, "NomicVision"]
    assert [dim[3] for dim in before["dims"]] == [2, 0, 0]
    assert now["dims"][0][3] > 2
    measures = [each["measures"] for each in data["diagrams"]]
    assert {each["how"] for each in measures} == {"now"}
    assert all(each["points"] == 6 and each["seconds"] >= 0 and each["peak_memory"] > 1e6 for each in measures)


def test_nothing_of_an_earlier_session_counts_as_repaired_now(sick: Built) -> None:
    with sick.open() as db:
        db.execute("UPDATE persistencediagram SET diagram_data = x'00' WHERE id = ?", (sick.diagram(),))
    page(sick.path, fix=True)
    data = data_of(page(sick.path))
    assert [[shot["what"] for shot in each["shots"]] for each in data["diagrams"]] == [["now"]] * 4
    assert [each["measures"].get("how") for each in data["diagrams"]] == ["earlier", None, None, None]


def test_a_second_diagram_is_shown_too(sick: Built) -> None:
    plant(sick, "diagram_twice")
    data = data_of(page(sick.path))
    whats = {(each["run"], each["model"]): [shot["what"] for shot in each["shots"]] for each in data["diagrams"]}
    assert sorted(whats.values()) == [["now"], ["now"], ["now"], ["now", "duplicate"]]


def test_hostile_texts_stay_data(sick: Built) -> None:
    make_hostile(sick)
    path = page(sick.path)
    text = path.read_text(encoding="utf-8")
    assert not re.search("<[^>]*onerror", text), "only escaped, among what has to be done"
    assert text.count("<script") == text.count("</script>") == 4
    labels = json.dumps(data_of(path), ensure_ascii=False)
    assert json.dumps(HOSTILE, ensure_ascii=False)[1:-1] in labels


def test_a_hostile_file_name_is_escaped(tmp_path: Path) -> None:
    built = build(tmp_path / "<b onclick=x>&.sqlite")
    assert "<b onclick" not in page(built.path).read_text(encoding="utf-8")


def test_texts_that_are_not_unicode_are_shown_as_far_as_they_go(sick: Built) -> None:
    with sick.open() as db:
        db.execute("UPDATE run SET initial_prompt = CAST(x'61ff62' AS TEXT) WHERE id = ?", (sick.run(),))
    data = data_of(page(sick.path))
    assert data["experiments"][0]["runs"][0][1] == "a\\xffb: FluxDev → Moondream"


def test_nothing_is_loaded_from_elsewhere(sick: Built) -> None:
    text = page(sick.path).read_text(encoding="utf-8")
    frame = re.sub(r"(<script[^>]*>|<style>).*?(</script>|</style>)", "", text, flags=re.DOTALL)
    assert not re.search(r"(src|href)\s*=\s*[\"'](?!#|data:,)", frame)
    assert "default-src 'none'" in frame
    assert "@import" not in text
    assert not re.search(r"url\((?!#)", text.split("</style>")[0])


def test_ten_thousand_items_fit(large_report: tuple[Path, Results]) -> None:
    path, results = large_report
    assert len(results.items) >= 10_000
    assert path.stat().st_size < LIMIT
    data = data_of(path)
    assert len(data["diagrams"]) == 3_220
    assert all(shot["dims"][0][3] == 400 for each in data["diagrams"] for shot in each["shots"])
    assert data["keep"] is None or data["keep"] >= 128
    sick = sum(item.status == "failed" for item in results.items)
    assert len(data["items"]) == sick
    counted = sum(finding["count"] for item in data["items"] for finding in item["findings"])
    assert counted == sum(finding.count for item in results.items for finding in item.findings)
    assert all(len(f["ids"]) + f["more"] == f["count"] for item in data["items"] for f in item["findings"])


@pytest.mark.parametrize(("findings", "ids"), [(3, 20_000), (40, 10_000), (60_000, 1), (20_000, 50)])
def test_ids_are_as_many_as_there_is_room_for(findings: int, ids: int) -> None:
    finding = Finding("r", "bad", ids=("x",) * min(ids, 10_000))
    items = [Result("failed", (finding,), nodeid="x", rule="r", duration=0.0) for _ in range(findings)]
    most = max_ids_per_finding(items)
    assert most >= 5
    assert findings * min(most, ids) <= max(IDS_IN_ALL, 5 * findings)


def test_without_jinja_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch, sick: Built) -> None:
    examination, results = examined(sick.path)
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(DoctorError, match=r"x\.html needs Jinja2.*pip install '\.\[html\]' in the doctor's checkout"):
        write_html(sick.path.with_name("x.html"), examination, results)


def test_it_is_written_whole_or_not_at_all(tmp_path: Path, sick: Built) -> None:
    examination, results = examined(sick.path)
    target = tmp_path / "folder"
    target.mkdir()
    with pytest.raises(OSError, match=r"."):
        write_html(target, examination, results)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".folder")]


def test_a_database_that_is_gone_or_torn_has_a_report(sick: Built) -> None:
    examination, results = examined(sick.path)
    examination.database.close()
    sick.path.unlink()
    path = sick.path.with_name("x.html")
    write_html(path, examination, results)
    assert "size unknown" in path.read_text(encoding="utf-8")
    assert {each["shots"][0]["problem"].split(":")[0] for each in data_of(path)["diagrams"]} == {
        "SQLite cannot read it"
    }


def test_no_item_at_all(sick: Built) -> None:
    examination, _ = examined(sick.path)
    path = sick.path.with_name("x.html")
    write_html(path, examination, Results())
    data = data_of(path)
    assert (data["rules"], data["items"], data["diagrams"]) == ([], [], [])


numbers = st.floats(allow_nan=True, allow_infinity=True, width=32)
bars_of_any_kind = st.lists(st.tuples(numbers, numbers), max_size=30)


@given(bars_of_any_kind)
def test_any_bars_have_a_picture(bars: list[tuple[float, float]]) -> None:
    array: Bars = np.array(bars, np.float32).reshape(-1, 2)
    dimension = on_grid(array)
    assert dimension.total == len(bars)
    assert len(dimension.grid) + len(dimension.essential) + dimension.undrawable == len(bars)
    assert (dimension.grid <= STEPS).all()
    shot = drawn("now", "x", Payload(Diagram((array,)), None, np.array([np.nan]), None))
    json.dumps(block([shot], None)[0], allow_nan=False)


finite = st.floats(0, 2, width=32)


@given(st.lists(st.tuples(finite, finite), max_size=60), st.integers(1, 20))
def test_the_longest_bars_are_kept(ends: list[tuple[float, float]], keep: int) -> None:
    grid = on_grid(sorted_bars([(min(pair), max(pair)) for pair in ends])).grid
    kept = longest(grid, keep)
    assert sorted(kept[:, 1].tolist()) == sorted(grid[:, 1].tolist())[-keep:]
    assert kept.tolist() == sorted(kept.tolist())


@pytest.fixture(scope="module")
def elixir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of the Elixir generation's demo."""
    folder = tmp_path_factory.mktemp("elixir")
    return page(build_demo(folder / "demo", generation="elixir"))


def test_each_lyapunov_result_has_its_curve_its_fit_and_its_state(elixir: Path) -> None:
    data = data_of(elixir)
    curves = data["lyapunov"]
    assert [each["state"] for each in curves] == ["sick"] * 2 + ["healthy"] * 5
    assert "does not inflate" in curves[0]["problem"]
    with closing(sqlite3.connect(elixir.with_suffix(".sqlite"))) as db:
        stored = dict(db.execute("SELECT id, lyapunov_data FROM lyapunov_results").fetchall())
    for each in curves[1:]:
        result = decode_lyapunov(stored[each["row"]])
        assert each["curve"] == pytest.approx(result.divergence_curve.tolist(), rel=1e-3)
        assert (each["pairs"], each["steps"]) == (result.num_pairs, result.num_timesteps)
        steps = np.arange(result.num_timesteps)
        slope, offset = np.polyfit(steps, np.log(result.divergence_curve), 1)
        assert each["line"] == pytest.approx(np.exp([offset, offset + slope * steps[-1]]).tolist(), rel=1e-3)
        assert each["exponent"] == pytest.approx(slope, rel=1e-3)
    text = elixir.read_text(encoding="utf-8")
    assert '<a href="#lyapunov">Lyapunov</a>' in text
    assert data["lyapunov_left"] == 0


def test_a_repaired_lyapunov_result_is_fixed(tmp_path: Path) -> None:
    curves = data_of(page(build_demo(tmp_path / "demo", generation="elixir"), fix=True))["lyapunov"]
    assert sorted(each["state"] for each in curves) == ["fixed"] * 3 + ["healthy"] * 5
    assert all(each["line"] for each in curves)


def test_a_page_of_the_python_generation_has_no_lyapunov_results(sick: Built) -> None:
    path = page(sick.path)
    assert data_of(path)["lyapunov"] == []
    assert 'id="lyapunov"' not in path.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("curve", "exponent", "line"),
    [
        ((1.0, np.e), 1.0, [1.0, 2.718]),
        ((0.0, 0.0), 0.0, [1e-10, 1e-10]),
        ((1.0, np.nan), 1.0, None),
        ((1.0, 2.0), np.inf, None),
        ((1.0, 2.0), 1e300, None),
        ((), 0.0, None),
    ],
)
def test_a_curve_of_any_numbers_is_plain(curve: tuple[float, ...], exponent: float, line: list[float] | None) -> None:
    data = encode_lyapunov(Lyapunov(exponent, None, np.array(curve, dtype=np.float64), 1, len(curve)))
    plain = curve_of(data, is_null=False)
    assert plain["line"] == line
    json.dumps(plain, allow_nan=False)


def test_of_a_long_curve_some_steps_are_kept_the_first_and_the_last_too() -> None:
    values = np.linspace(1, 2, 5 * MOST_STEPS)
    plain = curve_of(encode_lyapunov(Lyapunov(0.1, 0.5, values, 1, len(values))), is_null=False)
    at, curve = plain["at"], plain["curve"]
    assert isinstance(at, list)
    assert isinstance(curve, list)
    assert len(at) == len(curve) == MOST_STEPS
    assert (at[0], at[-1], plain["steps"]) == (0, len(values) - 1, len(values))
    assert curve == pytest.approx(values[at].tolist(), rel=1e-3)


def test_what_is_no_lyapunov_result_says_why() -> None:
    assert curve_of(None, is_null=True) == {"problem": "it is NULL"}
    assert curve_of(None, is_null=False)["problem"] == "it is not a blob of a Lyapunov result's size"
    assert str(curve_of(b"\x83", is_null=False)["problem"]).startswith("it is damaged")


def test_lyapunov_results_for_which_there_is_no_room_are_counted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(lyapunov_curves, "MOST_DISTANCES", 30)
    data = data_of(page(build_demo(tmp_path / "demo", generation="elixir")))
    assert len(data["lyapunov"]) + data["lyapunov_left"] == 7
    assert [each["state"] for each in data["lyapunov"]][:2] == ["sick", "sick"]
    assert sum(len(each.get("curve", ())) for each in data["lyapunov"]) < 30 + MOST_STEPS


def test_a_timeline_says_where_in_its_sequence_a_run_has_defects(sick: Built) -> None:
    plant(sick, "number_twice", "vector_null")
    with sick.open() as db:
        vector = db.execute("SELECT invocation_id FROM embedding WHERE vector IS NULL").fetchone()[0]
        (place,) = db.execute("SELECT sequence_number FROM invocation WHERE id = ?", (vector,)).fetchone()
    data = data_of(page(sick.path))
    (timeline,) = data["timelines"]
    marks = {(rule, model): spans for rule, model, spans in timeline["marks"]}
    assert (timeline["run"], timeline["length"], timeline["missing"]) == (0, 12, [[4, 4]])
    assert marks["invocation-sequence", ""] == [[3, 3]]
    assert marks["embedding-vector", "Nomic"] == [[place, place]]
    assert set(marks) > {("invocation-model", ""), ("invocation-chain", "")}


def test_healthy_runs_have_no_timeline_and_healthy_rules_nothing_found(sick: Built) -> None:
    data = data_of(page(sick.path))
    assert data["timelines"] == []
    assert {rule["found"] for rule in data["rules"]} == {""}


@pytest.mark.parametrize(
    ("numbers", "length", "joined", "missing"),
    [
        ([], 3, [], [(0, 2)]),
        ([0, 1, 2], 3, [(0, 2)], []),
        ([1, 1, 4, 5, 9], 8, [(1, 1), (4, 5), (9, 9)], [(0, 0), (2, 3), (6, 8)]),
        ([2], 0, [(2, 2)], [(0, 1)]),
    ],
)
def test_spans_and_gaps(
    numbers: list[int], length: int, joined: list[tuple[int, int]], missing: list[tuple[int, int]]
) -> None:
    assert spans(numbers) == joined
    assert gaps(numbers, length) == missing


def test_a_heading_says_what_was_found_and_the_page_what_has_to_be_done(sick: Built) -> None:
    plant(sick, "model_unknown", "embedding_of_lost_invocation")
    path = page(sick.path)
    found = {rule["id"]: rule["found"] for rule in data_of(path)["rules"] if rule["verdict"] == "sick"}
    assert set(found) == {"invocation-model", "orphan-embedding"}
    assert found["invocation-model"].startswith("1 of 24 invocations is by a model out of turn")
    words = " ".join(re.sub(r"<script.*?</script>|<[^>]*>", " ", path.read_text(), flags=re.DOTALL).split())
    assert re.search(r"To do 1 run to regenerate \S+ an apple: FluxDev → Moondream panic-tda experiment perform", words)
    assert "1 finding that --doctor-fix resolves by a quarantine" in words
    assert re.search(r"items \d+ items: 2 failed, \d+ passed", words)
