"""A database with an odd id, examined by pytest."""

from __future__ import annotations

import pytest
from databases import Built
from odd_ids import SPELLINGS, rename
from pytest_runs import Doctor


@pytest.mark.parametrize("spelling", ["a byte 0xff", "a blob", "empty"])
def test_the_exit_status_is_1_and_every_report_is_written(run_doctor: Doctor, sick: Built, spelling: str) -> None:
    with sick.open() as db:
        rename(db, "run", sick.run(), SPELLINGS[spelling])
    result = run_doctor("--doctor-report=r.json", "--doctor-report=r.html", "--junitxml=r.xml")
    assert result.ret == 1
    result.stdout.no_fnmatch_line("*INTERNALERROR*")
    assert all((sick.path.parent / name).exists() for name in ("r.json", "r.html", "r.xml"))
