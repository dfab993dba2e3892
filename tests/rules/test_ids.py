"""Ids as the file has them: what cannot be asked for is never healthy, and no value changes on its way."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
from databases import DEFAULT, Built, build
from odd_ids import REFERENCES, SPELLINGS, rename

from pytest_panic_doctor.database.connection import Database
from pytest_panic_doctor.examination import manifest as manifests
from pytest_panic_doctor.examination.examiner import Examiner
from pytest_panic_doctor.examination.outcome import Outcome, to_plain
from pytest_panic_doctor.examination.parsing import model_types


def outcomes_of(built: Built) -> Mapping[str, Outcome]:
    """The outcomes of all items, each of which any report can hold."""
    database, rules = Database(built.path), DEFAULT
    examiner = Examiner(database, rules, model_types([], []))
    entries = list(database.read(manifests.build_manifest).entries(rules.values()))
    outcomes = {entry.name: examiner.examine(rules[entry.rule], entry.subject) for entry in entries}
    database.close()
    for name, outcome in outcomes.items():
        json.dumps(to_plain(name, outcome))
    return outcomes


@pytest.mark.parametrize("table", REFERENCES)
@pytest.mark.parametrize("spelling", SPELLINGS)
def test_what_hangs_on_an_odd_id_is_never_healthy(tmp_path: Path, table: str, spelling: str) -> None:
    built = build(tmp_path / "x.sqlite", runs=1)
    with built.open() as db:
        rename(db, table, built.run() if table == "run" else built.experiment, SPELLINGS[spelling])
    outcomes = outcomes_of(built)
    assert outcomes["id-format"].status == "failed"
    ruined = ("embedding-vector", "diagram-missing", "diagram-valid", "diagram-current", "diagram-duplicate")
    assert not [name for name, each in outcomes.items() if name.startswith(ruined) and each.status == "passed"]
    notes = {outcome.note for outcome in outcomes.values()}
    assert not [note for note in notes if "the run has no" in note], "it has invocations"
    if spelling in ("a byte 0xff", "half a character"):
        noun = "run" if table == "run" else "experiment"
        assert (
            f"not examined: the id of the {noun} is not UTF-8, so that its rows cannot be queried (see id-format)"
            in {outcome.note for outcome in outcomes.values() if outcome.status == "failed"}
        )
