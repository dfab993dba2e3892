"""What to do next about a sick rule: read from the findings' fields, never from their sentences."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_panic_doctor.examination.examination import Examination
from pytest_panic_doctor.examination.manifest import Manifest
from pytest_panic_doctor.examination.settings import Settings
from pytest_panic_doctor.report.remaining_work import is_unrepairable, next_step
from pytest_panic_doctor.rules import registry
from pytest_panic_doctor.rules.base import Finding


@pytest.mark.parametrize(
    ("message", "blocked_by", "step"),
    [
        ("it is torn (embedding-missing), say doctor_text_models", (), "next: *"),
        ("it is torn", ("embedding-missing",), "blocked by embedding-missing: repair that first"),
        (
            "it is torn",
            ("embedding-missing", "embedding-vector"),
            "blocked by embedding-vector and embedding-missing: repair those first",
        ),
        (
            "it is torn",
            ("doctor_text_models",),
            "blocked: say in doctor_text_models or doctor_image_models what the model embeds",
        ),
        ("it is torn", ("schema",), "next: *"),
    ],
)
def test_only_the_field_blocks(tmp_path: Path, message: str, blocked_by: tuple[str, ...], step: str) -> None:
    examination = Examination(Settings(tmp_path / "x.sqlite"), registry(), Manifest(()))
    rule = examination.rules["diagram-missing"]
    findings = [Finding(rule.id, message, blocked_by=blocked_by)]
    said = next_step(rule, examination, [findings])
    assert said.startswith("next: ") if step == "next: *" else said == step
    assert is_unrepairable(rule, examination, findings) == (step != "next: *")


def test_a_finding_is_the_same_after_its_way_through_a_file() -> None:
    finding = Finding("r", "bad", "e", "u", "m", "run", ("a",), 3, blocked_by=("schema",))
    assert Finding.from_dict(finding.as_dict()) == finding
    assert "blocked_by" not in Finding("r", "bad").as_dict()
