"""What an xdist worker is sent by the controller when it starts, and the session that it makes of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from pytest_panic_doctor.examination.examination import Examination
from pytest_panic_doctor.examination.manifest import Manifest
from pytest_panic_doctor.examination.selection import known_rules
from pytest_panic_doctor.examination.settings import Settings
from pytest_panic_doctor.rules.base import Rule

SENT = (
    "controller",
    "workers",
    "deadline",
    "repair_run",
    "scratch",
    "file",
    "chosen_by",
    "program",
    "origin",
    "repairable",
)
"""The fields that the controller sends to a worker as they are."""


def worker_input(examination: Examination) -> dict[str, object]:
    """Convert a session to plain values from which an xdist worker makes the same one."""
    plain = {"settings": examination.settings.as_dict(), "manifest": examination.manifest.as_plain()}
    return plain | {name: getattr(examination, name) for name in SENT}


def from_worker_input(plain: Mapping[str, object], extra: Iterable[Rule] = ()) -> Examination:
    """Make a worker's session from what the controller sent."""
    settings = Settings.from_dict(plain["settings"])  # type: ignore[arg-type]
    listed = Manifest.from_plain(plain["manifest"])  # type: ignore[arg-type]
    return Examination(settings, known_rules(settings, extra), listed, **{name: plain[name] for name in SENT})  # type: ignore[arg-type]
