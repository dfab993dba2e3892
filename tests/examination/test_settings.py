"""The settings as plain values, and those that have a form of their own: parts and severities."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import pytest

from pytest_panic_doctor.examination.settings import Part, Settings, Severity, Shard


@pytest.mark.parametrize("text", ["1/1", "2/7", " 2 / 7 ", "4/3"])
def test_a_part_reads_and_prints(text: str) -> None:
    assert str(Part.parse(text)) == text.replace(" ", "")
    assert isinstance(Shard.parse(text), Shard)


@pytest.mark.parametrize("text", ["", "2", "0/3", "1/0", "-1/3", "1/3/5", "banana", "1.5/3"])
def test_what_is_not_a_part_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not K/N"):
        Part.parse(text)


@pytest.mark.parametrize(
    ("text", "severity"),
    [
        ("error", Severity()),
        (" warn ", Severity("warn")),
        ("off", Severity("off")),
        ("warn<=0", Severity("warn", 0)),
        ("warn  <= 10", Severity("warn", 10)),
    ],
)
def test_a_severity_reads_and_prints(text: str, severity: Severity) -> None:
    assert Severity.parse(text) == severity
    assert Severity.parse(str(severity)) == severity


@pytest.mark.parametrize("text", ["", "warn <=", "warn <= -1", "error <= 3", "off <= 1", "warning", "warn 3"])
def test_what_is_not_a_severity_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a severity"):
        Severity.parse(text)


@pytest.mark.parametrize(
    ("severity", "accepted"),
    [
        (Severity(), [False, False]),
        (Severity("off"), [False, False]),
        (Severity("warn"), [True, True]),
        (Severity("warn", 10), [True, False]),
    ],
)
def test_only_a_warning_within_its_limit_accepts(severity: Severity, accepted: list[bool]) -> None:
    assert [severity.accepts(10), severity.accepts(11)] == accepted


EVERY = Settings(
    Path("/a/x.sqlite"),
    fix=True,
    plan=True,
    rules=("schema",),
    experiments=("e" * 32,),
    runs=("f" * 32, "penguin"),
    memory=2**30,
    max_workers=3,
    timeout=90.0,
    max_dim=1,
    engine="gudhi",
    baseline=Path("/a/b.json"),
    baseline_write=True,
    sample=Part(2, 7),
    deep=True,
    budget=60.5,
    severity={"schema": Severity("warn", 3), "orphan-run": Severity("off")},
    ray="head:6379",
    reports=(Path("/a/r.json"), Path("/a/r.html")),
    max_quarantine="2%",
    backup=Path("/a/copy.sqlite"),
    demo="elixir",
    shard=Shard(1, 2),
    kinds={"Nomic": "TEXT"},
    embed_cosine=0.5,
    running=0.0,
)


def test_every_setting_travels_as_json_and_keeps_its_form() -> None:
    default = Settings(Path("x.sqlite"))
    assert not [each.name for each in fields(Settings) if getattr(EVERY, each.name) == getattr(default, each.name)]
    plain = json.loads(json.dumps(EVERY.as_dict()))
    assert Settings.from_dict(plain) == EVERY
    assert list(plain) == [each.name for each in fields(Settings)]
    assert (plain["sample"], plain["shard"], plain["baseline"]) == ([2, 7], "1/2", "/a/b.json")
    assert (plain["severity"], plain["reports"]) == (
        {"schema": "warn <= 3", "orphan-run": "off"},
        ["/a/r.json", "/a/r.html"],
    )


@pytest.mark.parametrize("change", [lambda plain: plain.pop("shard"), lambda plain: plain.update(unknown=1)])
def test_settings_of_another_form_are_refused(change: Callable[[dict[str, object]], object]) -> None:
    plain = EVERY.as_dict()
    change(plain)
    with pytest.raises(KeyError):
        Settings.from_dict(plain)
