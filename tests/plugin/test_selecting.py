"""What a selection leaves out is not repaired, and what is said of it."""

from __future__ import annotations

import pytest
from damages import plant
from databases import Built, build, dump
from runs import Doctor, outcomes

from pytest_panic_doctor.manifest import dashed
from pytest_panic_doctor.repair.undo import repairs

HOOK = """
import numpy as np

def pytest_doctor_embed(embedding_model, outputs):
    return np.array([[len(text), *range(1, 8)] for text in outputs], dtype=np.float32)
"""


@pytest.mark.parametrize(("how", "mode"), [("-k", ()), ("-m", ("-n0",)), ("node", ("-n2",))])
def test_only_rules_of_chosen_items_are_repaired(
    doctor: Doctor, sick: Built, how: str, mode: tuple[str, ...], pytester: pytest.Pytester
) -> None:
    pytester.makeconftest(HOOK)
    plant(sick, "diagram_null", "embedding_gone")
    before = dump(sick.path)
    name = f"diagram-missing[{dashed(sick.run())}-Nomic]"
    args = {"-k": ["-k", "diagram-missing"], "-m": ["-m", "diagram-missing"], "node": [f"x.sqlite::{name}"]}[how]
    result = doctor("--doctor-fix", *args, *mode)
    assert result.ret == 1
    result.stdout.fnmatch_lines(
        ["not repaired: the point cloud is blocked: * (embedding-missing); blocked by embedding-missing: run that *"]
    )
    assert dump(sick.path) == before
    assert "undo:" not in result.stdout.str()
    more = {"-k": "or embedding-missing", "-m": "or embedding-missing", "node": ""}[how]
    wider = ["x.sqlite::embedding-missing", *args] if how == "node" else [how, f"{args[1]} {more}"]
    result = doctor("--doctor-fix", *wider, "--doctor-report=r.json", *mode)
    assert result.ret == 0, result.stdout.str()
    assert outcomes(pytester.path / "r.json")[name] == "fixed"
    result.stdout.fnmatch_lines(["undo: pytest --doctor-db x.sqlite --doctor-undo"])


def test_one_of_several_diagrams_is_not_computed_in_vain(doctor: Doctor, pytester: pytest.Pytester) -> None:
    built = build(pytester.path / "x.sqlite", older=True)
    plant(built, "diagram_twice", "diagram_stale")
    before = dump(built.path)
    result = doctor("--doctor-fix", "-k", "diagram-current")
    result.stdout.fnmatch_lines(["not repaired: *diagrams instead of 1 (diagram-duplicate); blocked by diagram-dup*"])
    assert dump(built.path) == before
    assert doctor("--doctor-fix", "-k", "diagram-current or diagram-duplicate").ret == 0


def test_what_was_repaired_on_the_way_is_said(doctor: Doctor, sick: Built, pytester: pytest.Pytester) -> None:
    pytester.makeconftest(
        "import pytest\n"
        "def pytest_collection_modifyitems(items):\n"
        "    items.sort(key=lambda item: 'diagram-missing' not in item.name)\n"
        "def pytest_doctor_outcome(item):\n    pytest.exit('enough', returncode=2)\n"
    )
    plant(sick, "text_model_on_an_image")
    result = doctor("--doctor-fix", str(sick.path))
    result.stdout.fnmatch_lines(
        [
            "also fixed   embedding-type        on the way: quarantined 1 row (repair 1)",
            "undo: pytest --doctor-db x.sqlite --doctor-undo",
        ]
    )
    assert [each.rule for each in repairs(sick.path)] == ["embedding-type"]


def test_what_is_left_is_said_as_it_is(doctor: Doctor, sick: Built, mode: tuple[str, ...]) -> None:
    plant(sick, "vector_null")
    with sick.open() as db:
        db.execute("UPDATE persistencediagram SET diagram_data = NULL")
    result = doctor("--doctor-fix", "-k", f"diagram-missing and {dashed(sick.run())} and not Vision", *mode)
    result.stdout.fnmatch_lines(
        [
            "1 diagram of 6 points not computed: the items above say why",
            "3 diagrams of 18 points missing besides: this command did not choose them",
        ]
    )
    assert "the same command" not in result.stdout.str()
