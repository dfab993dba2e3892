"""Text of the database, of a path or of foreign code forges no line of the terminal, and can be typed again."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import pytest
from databases import Built, build
from pytest_runs import findings, items
from reports import examined

from pytest_panic_doctor.database.subject import Subject
from pytest_panic_doctor.errors import DoctorError
from pytest_panic_doctor.examination.acceptance import Comparison, Identity
from pytest_panic_doctor.examination.manifest import name_of
from pytest_panic_doctor.examination.settings import Settings
from pytest_panic_doctor.formatting import printable, typed
from pytest_panic_doctor.plugin import usage_errors
from pytest_panic_doctor.report import terminal
from pytest_panic_doctor.report.junit import clean
from pytest_panic_doctor.report.progress import status_line
from pytest_panic_doctor.report.results import Results
from pytest_panic_doctor.report.text import display_path
from pytest_panic_doctor.rules import registry
from pytest_panic_doctor.rules.base import Scope
from pytest_panic_doctor.session.commands import write_line

MARKS = ["\x1b[2K", "\x07", "\r", "\n", "\x00", "\u202e", "\u2066", "\ud800", "\u2028", "\x9b"]
FORGED = "Nomic\x1b[2K\r\n30 rules: 30 healthy\u202e"


@pytest.mark.parametrize("mark", MARKS)
def test_what_is_no_letter_is_escaped(mark: str) -> None:
    shown = printable(f"a pear{mark}PASSED")
    assert shown.isprintable()
    assert shown.startswith("a pear\\")


def test_words_in_any_script_stay() -> None:
    assert printable("«café» ☕ 梨 → é") == "«café» ☕ 梨 → é"


@pytest.mark.parametrize("scope", [scope for scope in Scope if scope is not Scope.DATABASE])
def test_names_of_items_are_printable_and_differ(scope: Scope) -> None:
    rule = replace(next(iter(registry().values())), scope=scope)
    ids = [f"a{mark}b" for mark in MARKS] + [printable(f"a{mark}b") for mark in MARKS]
    names = [name_of(rule, Subject(each, each, each)) for each in ids]
    assert all(name.isprintable() for name in names)
    assert len(set(names)) == len(names)
    assert name_of(rule, Subject("e" * 32, "f" * 32, "Nomic v1.5")).endswith(
        ("Nomic v1.5]", "eeeeeeeeeeee]", "ffffffffffff]")
    )


@pytest.mark.parametrize("mark", MARKS)
def test_every_way_to_the_terminal_escapes(mark: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(pytest.UsageError) as raised, usage_errors():
        raise DoctorError(f"{mark} is no rule")
    lines = [str(raised.value), status_line([], [f"waiting{mark}"], 0, 1, None, time.time(), 200)]
    write_line(f"repair{mark}")
    terminal.PlainWriter().line(f"rule{mark}")
    lines += capsys.readouterr().out.split("\n")
    assert len(lines) == 5
    assert all(each.isprintable() for each in lines)
    assert "\x1b" not in clean(mark)


class Lines:
    """A terminal that keeps what is written."""

    verbosity = 0

    def __init__(self) -> None:
        self.text = ""

    def section(self, title: str, **markup: object) -> None:
        del title, markup

    def write(self, text: str, **markup: object) -> None:
        del markup
        self.text += text

    def line(self, text: str, **markup: object) -> None:
        self.write(f"{text}\n", **markup)


@pytest.fixture
def forged(tmp_path: Path) -> Built:
    """A sick database whose folder, prompt, model and ids would forge lines."""
    folder = tmp_path / "a\x1b[2K\n30 rules: 30 healthy"
    folder.mkdir()
    built = build(folder / "x.sqlite")
    with built.open() as db:
        db.execute("UPDATE run SET initial_prompt = ?", (FORGED,))
        db.execute("UPDATE embedding SET embedding_model = ?, vector = NULL WHERE embedding_model = 'Nomic'", (FORGED,))
        db.execute("UPDATE experimentconfig SET embedding_models = ?", (json.dumps([FORGED, "NomicVision"]),))
        db.execute("UPDATE embeddingcluster SET id = ? || rowid, embedding_id = ? || rowid", (FORGED, FORGED))
    return built


@pytest.mark.filterwarnings("ignore")
def test_no_line_of_a_session_is_forged(forged: Built) -> None:
    examination, results = examined(forged.path)
    healed = {f"rule[{FORGED}]": frozenset({Identity("run", FORGED, FORGED)})}
    results.compared = Comparison(healed=healed)
    settings = Settings(forged.path, baseline=forged.path.with_suffix(".json"), plan=True)
    examination.database.close()
    examination = replace(examination, settings=settings)
    writer = Lines()
    terminal.summary(writer, examination, results)  # type: ignore[arg-type]
    lines = [*writer.text.split("\n"), *terminal.header(examination, None)]
    examination.database.close()
    assert any("healed" in each for each in lines)
    assert all(each.isprintable() for each in lines), [each for each in lines if not each.isprintable()]
    assert not any(each.startswith("30 rules: 30 healthy") for each in lines)
    assert isinstance(results, Results)


def test_a_real_session_prints_and_names_them(forged: Built, pytester: pytest.Pytester) -> None:
    shutil.copy(forged.path, "x.sqlite")
    args = ("--doctor-db=x.sqlite", "-v", "-rs", "--doctor-report=r.json", "--junitxml=r.xml", "-p", "no:xdist")
    done = pytester.runpytest_subprocess(*args)
    lines = done.stdout.str().split("\n")
    assert any("embedding-vector[" in each and "FAILED" in each for each in lines)
    assert not any(each.startswith("30 rules: 30 healthy") for each in lines)
    assert not any(each in done.stdout.str() for each in ("\x1b", "\u202e", "\r"))
    assert "\u202e" not in Path("r.xml").read_text()
    models = {finding["embedding_model"] for item in items(Path("r.json")).values() for finding in findings(item)}
    assert FORGED in models


@pytest.mark.parametrize("text", ["plain", "a b", "it's", "a\nb", "a\x1b[2K'\\b", "x\u202ey", "-dash", "$HOME"])
def test_a_shell_takes_it_back(text: str) -> None:
    shown = typed(text)
    assert shown.isprintable()
    assert subprocess.check_output(["bash", "-c", f"printf %s {shown}"], env={"LC_ALL": "C.UTF-8"}).decode() == text


@pytest.mark.parametrize("name", ["-dash.sqlite", "--doctor-fix", "-", "-n 2"])
def test_no_path_is_taken_for_an_option(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert display_path(tmp_path / name) == typed(f"./{name}")
