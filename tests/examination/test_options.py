"""The command line and the ini file, by parsing alone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path

import pytest

from pytest_panic_doctor.errors import BadOption
from pytest_panic_doctor.examination import options
from pytest_panic_doctor.examination.parsing import absolute
from pytest_panic_doctor.examination.settings import Part, Settings, Severity
from pytest_panic_doctor.formatting import did_you_mean
from pytest_panic_doctor.session.chosen_options import check_once, is_requested, read_options


class Given:
    """Options as a test writes them."""

    def __init__(self, line: Mapping[str, object] | None = None, ini: Mapping[str, object] | None = None) -> None:
        self.line = line or {}
        self.ini = ini or {}

    def getoption(self, name: str) -> object:
        return self.line.get(name)

    def getini(self, name: str) -> object:
        return self.ini.get(name, "")


def read(given: Given, line_dir: Path = Path("/line"), ini_dir: Path = Path("/ini")) -> Settings:
    return read_options(given, line_dir, ini_dir).settings


def test_nothing_given_asks_for_nothing() -> None:
    assert not is_requested(Given())


@pytest.mark.parametrize(
    "option", [each for each in options.OPTIONS if not each.ini_only], ids=lambda option: option.name
)
def test_every_option_on_the_command_line_asks(option: options.Option) -> None:
    value = {"flag": True, "list": ["x"]}.get(option.value.kind, "x")
    assert is_requested(Given({option.key: value}))


@pytest.mark.parametrize("option", options.OPTIONS, ids=lambda option: option.name)
@pytest.mark.parametrize("empty", [None, "", []])
def test_an_empty_ini_key_is_the_default(option: options.Option, empty: object) -> None:
    assert read(Given(ini={option.key: empty})) == read(Given())


def test_every_setting_is_of_an_option() -> None:
    kinds = {"kinds"}
    """What two ini keys make together."""
    assert {option.setting for option in options.OPTIONS} - {""} == {each.name for each in fields(Settings)} - kinds
    commands = {"undo", "redo", "journal-export", "merge", "try-rule", "rules"}
    parts = {"demo-generation", "text-models", "image-models"}
    assert {option.name for option in options.OPTIONS if not option.setting} == commands | parts


def test_ini_keys_that_only_tune_do_not_ask() -> None:
    assert not is_requested(Given(ini={"doctor_memory": "4GB", "doctor_timeout": "5", "doctor_text_models": ["X"]}))
    assert is_requested(Given(ini={"doctor_db": "x.sqlite"}))
    assert not is_requested(Given(ini={"doctor_fix": "false"}))


def test_a_database_on_the_line_is_relative_to_where_pytest_was_called() -> None:
    assert read(Given({"doctor_db": "a.sqlite"})).database == Path("/line/a.sqlite")


def test_a_database_in_the_ini_is_relative_to_the_ini_file() -> None:
    assert read(Given(ini={"doctor_db": "a.sqlite"})).database == Path("/ini/a.sqlite")


def test_without_either_it_is_the_research_tools_place() -> None:
    assert read(Given({"doctor_fix": True})).database == Path("/line/db/trajectory_data.sqlite")


def test_the_line_wins_over_the_ini() -> None:
    given = Given({"doctor_db": "a.sqlite", "doctor_timeout": "7"}, {"doctor_db": "b.sqlite", "doctor_timeout": "8"})
    settings = read(given)
    assert (settings.database, settings.timeout) == (Path("/line/a.sqlite"), 7.0)


def test_a_uuid_reads_with_dashes_and_without() -> None:
    stored = "06b05170fe317f6c9f86f96b160111f8"
    given = ["06b05170-fe31-7f6c-9f86-f96b160111f8", stored.upper()]
    assert read(Given({"doctor_experiment": given})).experiments == (stored, stored)


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("doctor_experiment", ["not-a-uuid"], "not-a-uuid is not a UUID"),
        ("doctor_memory", "banana", "--doctor-memory banana"),
        ("doctor_memory", "0GB", "--doctor-memory 0GB"),
        ("doctor_max_workers", "0", "--doctor-max-workers 0"),
        ("doctor_max_workers", "two", "--doctor-max-workers two"),
        ("doctor_timeout", "soon", "--doctor-timeout soon"),
        ("doctor_timeout", "-1", "--doctor-timeout -1"),
        ("doctor_timeout", "nan", "--doctor-timeout nan"),
        ("doctor_memory", "12", "--doctor-memory 12: a size needs a unit: give one such as 12GB"),
        ("doctor_memory", "20MB", "--doctor-memory 20MB is too little to compute any diagram: give at least 200 MB"),
        ("doctor_max_dim", "3", "--doctor-max-dim 3"),
        ("doctor_demo_generation", "elixir", "--doctor-demo-generation elixir is about the demo: give --doctor-demo"),
        ("doctor_report", ["x.pdf"], "x.pdf has no known suffix"),
        ("doctor_report", ["nowhere/x.json"], "nowhere"),
    ],
)
def test_bad_values_are_named_in_one_sentence(key: str, value: object, said: str) -> None:
    with pytest.raises(BadOption) as caught:
        read(Given({key: value}))
    text = str(caught.value)
    assert said in text
    assert "\n" not in text


def test_the_demo_is_of_a_known_generation_and_of_the_first_without_a_choice() -> None:
    assert read(Given()).demo is None
    assert read(Given({"doctor_demo": True})).demo == "python"
    assert read(Given({"doctor_demo": True, "doctor_demo_generation": "elixir"})).demo == "elixir"
    assert read(Given({"doctor_demo": True}, {"doctor_demo_generation": "elixir"})).demo == "elixir"
    assert read(Given(ini={"doctor_demo_generation": "elixir"})).demo is None, "an ini key alone asks for no demo"
    with pytest.raises(BadOption, match="--doctor-demo-generation rust is not known: give python or elixir"):
        read(Given({"doctor_demo": True, "doctor_demo_generation": "rust"}))


def test_models_of_the_ini_are_known() -> None:
    kinds = read(Given(ini={"doctor_text_models": ["NewText"], "doctor_image_models": ["NewVision"]})).kinds
    assert (kinds["NewText"], kinds["NewVision"], kinds["Nomic"]) == ("TEXT", "IMAGE", "TEXT")


def test_a_model_cannot_be_of_both_kinds() -> None:
    with pytest.raises(BadOption, match="X is in both"):
        read(Given(ini={"doctor_text_models": ["X"], "doctor_image_models": ["X"]}))


def test_settings_survive_the_way_to_a_worker(tmp_path: Path) -> None:
    line = {"doctor_db": "a.sqlite", "doctor_memory": "2GB", "doctor_rule": ["schema"], "doctor_report": ["r.json"]}
    given = Given(line)
    settings = read(given, line_dir=tmp_path)
    assert Settings.from_dict(settings.as_dict()) == settings


@pytest.mark.parametrize(
    ("text", "names", "said"),
    [("orphan-rum", ["orphan-run", "schema"], ": did you mean orphan-run?"), ("zzz", ["schema"], "")],
)
def test_the_nearest_name_is_offered(text: str, names: list[str], said: str) -> None:
    assert did_you_mean(text, names) == said


def test_a_path_keeps_its_links_and_loses_its_dots() -> None:
    assert absolute(Path("/a/b/../c.sqlite")) == Path("/a/c.sqlite")


def test_a_report_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "r.json").mkdir()
    with pytest.raises(BadOption, match=r"r\.json is a folder: name a file in it"):
        read(Given({"doctor_report": [str(tmp_path / "r.json")]}))


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("20m", 1200), ("1h30m", 5400), ("45s", 45), ("1.5h", 5400), (" 2M ", 120)]
)
def test_a_time_reads(text: str, seconds: float) -> None:
    assert read(Given({"doctor_budget": text})).budget == seconds
    assert read(Given({"doctor_timeout": text})).timeout == seconds


@pytest.mark.parametrize("text", ["20", "45", " 1.5 ", "3600"])
def test_a_budget_demands_a_unit_as_a_size_does(text: str) -> None:
    for given in (Given({"doctor_budget": text}), Given(ini={"doctor_budget": text})):
        with pytest.raises(BadOption, match=rf"--doctor-budget {text} has no unit: give one such as {text.strip()}s"):
            read(given)
    assert read(Given({"doctor_timeout": text})).timeout == float(text)


def test_paths_of_commands_are_relative_like_the_database() -> None:
    given = Given({"doctor_merge": ["a.json"]}, {"doctor_merge": ["b.json"], "doctor_journal_export": "rows.sqlite"})
    values = read_options(given, Path("/line"), Path("/ini")).values
    assert values["merge"] == (Path("/line/a.json"),)
    assert values["journal-export"] == Path("/ini/rows.sqlite")
    given = Given(ini={"doctor_merge": ["b.json"]})
    assert read_options(given, Path("/line"), Path("/ini")).values["merge"] == (Path("/ini/b.json"),)


def test_a_baseline_is_relative_like_the_database() -> None:
    assert read(Given({"doctor_baseline": "k.json"})).baseline == Path("/line/k.json")
    assert read(Given(ini={"doctor_baseline": "k.json"})).baseline == Path("/ini/k.json")


def test_all_choices_travel_to_a_worker() -> None:
    line = {"doctor_baseline": "k.json", "doctor_sample": "2/7", "doctor_budget": "5m", "doctor_report": []}
    given = Given(line, {"doctor_severity": ["run: warn <= 3", "schema:off"]})
    settings = read(given)
    assert (settings.sample, settings.severity) == (
        Part(2, 7),
        {"run": Severity("warn", 3), "schema": Severity("off")},
    )
    assert Settings.from_dict(json.loads(json.dumps(settings.as_dict()))) == settings


@pytest.mark.parametrize("text", ["~/a.sqlite", "$PLACE/a.sqlite", "${PLACE}/a.sqlite", "$PLACE/b/../a.sqlite"])
def test_paths_are_expanded_as_pytest_does_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PLACE", str(tmp_path))
    assert read(Given({"doctor_db": text})).database == tmp_path / "a.sqlite"
    assert read(Given(ini={"doctor_db": text})).database == tmp_path / "a.sqlite"
    assert read(Given({"doctor_baseline": text})).baseline == tmp_path / "a.sqlite"
    (tmp_path / "b").mkdir()
    report = read(Given({"doctor_report": [text.replace("sqlite", "json")]})).reports[0]
    assert absolute(report) == tmp_path / "a.json"


@pytest.mark.parametrize("name", ["$NOT_SET.sqlite", "~nobody-of-that-name", "$PLACE.sqlite", "~"])
def test_what_cannot_be_expanded_or_has_that_very_name_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("PLACE", "elsewhere")
    (tmp_path / name).touch()
    assert read(Given({"doctor_db": name}), line_dir=tmp_path).database == tmp_path / name


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--doctor-db", "a", "--doctor-db", "b"], "--doctor-db is given 2 times (a, b): give it once"),
        (["--doctor-db=a", "-q", "--doctor-db", "b", "--doctor-db=c"], "--doctor-db is given 3 times (a, b, c)"),
        (["--doctor-memory=1GB", "--doctor-memory=2GB"], "--doctor-memory is given 2 times"),
        (["--doctor-undo", "3", "--doctor-undo", "4"], "--doctor-undo is given 2 times (3, 4)"),
    ],
)
def test_an_option_of_one_value_is_given_once(arguments: list[str], said: str) -> None:
    with pytest.raises(BadOption) as caught:
        check_once(arguments)
    assert str(caught.value).startswith(said)


def test_the_same_value_twice_and_options_that_repeat_are_no_contradiction() -> None:
    check_once(["--doctor-db", "a", "--doctor-db=a", "--doctor-rule=x", "--doctor-rule=y", "--doctor-fix"])
