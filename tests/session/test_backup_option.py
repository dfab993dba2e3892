"""`--doctor-backup`: the copy has what was there before the first write, and without it nothing is written."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from databases import Built
from defects import plant
from pytest_runs import Doctor

from pytest_panic_doctor.errors import BadOption
from pytest_panic_doctor.session.chosen_options import read_options


def content(path: Path) -> list[str]:
    with closing(sqlite3.connect(path)) as db:
        return list(db.iterdump())


class Given:
    """Options of a command line, for parsing alone."""

    def __init__(self, **given: object) -> None:
        self.given = given

    def getoption(self, name: str) -> object:
        return self.given.get(name)

    def getini(self, name: str) -> object:
        return {"doctor_backup": "kept.sqlite"}.get(name)


def test_the_database_is_copied_before_it_is_repaired_and_before_an_undo(
    run_doctor: Doctor, sick: Built, pytester: pytest.Pytester
) -> None:
    plant(sick, "embedding_of_lost_invocation")
    before = content(sick.path)
    fixed = run_doctor("--doctor-fix", "--doctor-rule=orphan-embedding", "--doctor-backup=before.sqlite")
    assert fixed.ret == 0
    fixed.stdout.fnmatch_lines(["doctor: backup: before.sqlite, * kB"])
    assert content(pytester.path / "before.sqlite") == before
    repaired = content(sick.path)
    assert repaired != before
    undone = run_doctor("--doctor-undo=1", "--doctor-backup=repaired.sqlite")
    undone.stdout.fnmatch_lines(["backup: repaired.sqlite, * kB", "undid repair 1 *"])
    assert content(pytester.path / "repaired.sqlite") == repaired
    refused = run_doctor("--doctor-fix", "--doctor-backup=before.sqlite")
    assert refused.ret == pytest.ExitCode.USAGE_ERROR
    refused.stderr.fnmatch_lines(["ERROR: --doctor-backup: *before.sqlite exists, and a backup replaces nothing: *"])
    assert content(pytester.path / "before.sqlite") == before


def test_it_is_given_with_what_writes(tmp_path: Path) -> None:
    with pytest.raises(BadOption, match="--doctor-backup copies the database before a write"):
        read_options(Given(doctor_backup="x.sqlite"), tmp_path, tmp_path)
    chosen = read_options(Given(doctor_fix=True, doctor_backup="x.sqlite"), tmp_path, tmp_path / "ini").settings
    assert chosen.backup == tmp_path / "x.sqlite"
    assert read_options(Given(), tmp_path, tmp_path / "ini").settings.backup == tmp_path / "ini" / "kept.sqlite"
