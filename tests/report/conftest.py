"""What both kinds of test of the page share, because it takes its time."""

from __future__ import annotations

from pathlib import Path

import pytest
from reports import large

from pytest_panic_doctor.report.html import write_html
from pytest_panic_doctor.report.results import Results


@pytest.fixture(scope="session")
def large_report(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Results]:
    """The page of 3,220 runs and 13,000 items, and what it was made from."""
    folder = tmp_path_factory.mktemp("large")
    examination, results = large(folder)
    write_html(folder / "large.html", examination, results)
    examination.database.close()
    return folder / "large.html", results
