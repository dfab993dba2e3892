"""The values in the settings that have a form of their own: parts and severities."""

from __future__ import annotations

import pytest

from pytest_panic_doctor.examination.settings import Part, Severity, Shard


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
