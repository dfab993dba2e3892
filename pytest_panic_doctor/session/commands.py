"""Commands that do one thing and leave, without a pytest session."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_panic_doctor.errors import DoctorError
from pytest_panic_doctor.examination.foreign_code import calling, shown
from pytest_panic_doctor.formatting import format_size, plural, printable
from pytest_panic_doctor.report import text
from pytest_panic_doctor.rules import BadRule
from pytest_panic_doctor.rules.base import Rule
from pytest_panic_doctor.session import options
from pytest_panic_doctor.session.parsing import resolve_path

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pytest

    from pytest_panic_doctor.examination.settings import Settings
    from pytest_panic_doctor.repair.journal.repair_record import Repair

DISTRIBUTION = "pytest-panic-doctor"


def run(config: pytest.Config, settings: Settings) -> int | None:
    """Run the command that the options name and return the exit status; None where they name none."""
    said, _ = options.option_values(config)
    if isinstance(names := said["merge"], list):
        return merge_lines(config, settings, names)
    lines = option_lines(config, settings, said)
    if lines is None:
        return None
    for line in lines:
        write_line(line)
    return 0


def write_line(line: str) -> None:
    """Print a line; what the terminal's encoding has not is escaped, as pytest does it."""
    encoding = sys.stdout.encoding or "utf-8"
    print(printable(line).encode(encoding, "backslashreplace").decode(encoding))


def option_lines(config: pytest.Config, settings: Settings, said: Mapping[str, object]) -> Iterator[str] | None:
    """The lines of the command that the options, which have `said` this, name."""
    if said["rules"]:
        from pytest_panic_doctor.report.rules import table
        from pytest_panic_doctor.rules import registry

        return table(registry(own_rules(config)))
    which = said["undo"]
    if which is None:
        return None
    return undo_lines(settings, str(which)) if which else undo_list_lines(settings)


def own_rules(config: pytest.Config) -> list[Rule]:
    """The rules that plugins and conftest files bring. Raises `BadRule`, in one sentence, where these are none."""
    with calling("pytest_doctor_rules", DoctorError):
        return [rule for rules in config.hook.pytest_doctor_rules() for rule in listed_rules(rules)]


def listed_rules(given: object) -> list[Rule]:
    """What one hook gave, if it is rules; None means that it has none."""
    given = () if given is None else given
    if isinstance(given, str | Rule) or not isinstance(given, Iterable):
        raise BadRule(f"pytest_doctor_rules returned {shown(given)}: return a list of rules, even of one")
    found = list(given)
    for each in found:
        if not isinstance(each, Rule):
            raise BadRule(f"pytest_doctor_rules returned {shown(each)}, which is not a rule: make it one with @rule")
    return found


def merge_lines(config: pytest.Config, settings: Settings, names: Iterable[str]) -> int:
    """Put the reports of shards together."""
    from pytest_panic_doctor.report.merge import merge_reports

    paths = [resolve_path(config.invocation_params.dir, name) for name in names]
    return merge_reports(paths, settings.reports, own_rules(config), version(DISTRIBUTION))


def undo_list_lines(settings: Settings) -> Iterator[str]:
    """The repairs of a database, newest first."""
    from pytest_panic_doctor.database.connection import read_file_header
    from pytest_panic_doctor.repair.journal.undo import repairs

    read_file_header(settings.database)
    found = repairs(settings.database)
    if not found:
        yield f"no repairs yet: --doctor-fix has not changed {text.shown_path(settings)}"
        return
    order = ", newest first" if len(found) > 1 else ""
    yield f"{plural(len(found), 'repair')} of {text.shown_path(settings)}{order}"
    yield f"{'id':>4}  {'when (UTC)':<16}  {'what':<18}{'rows':>8}{'size':>8}  rule"
    for repair in found:
        what = f"undo of {repair.undoes}" if repair.undoes else repair.verb
        what = f"undone: {what}" if repair.status == "undone" else what
        size = format_size(repair.bytes)
        yield f"{repair.id:>4}  {repair.time[:16]:<16}  {what:<18}{repair.rows:>8,}{size:>8}  {repair.rule}"
    newest = next((repair.id for repair in found if repair.status == "applied"), None)
    if newest is not None:
        yield f"next: {text.command(settings, f'--doctor-undo {newest}')}"
        yield "(another id takes that repair back, and all takes back every one)"


def undo_lines(settings: Settings, which: str) -> Iterator[str]:
    """Take one repair back, or all."""
    from pytest_panic_doctor.database.connection import read_file_header
    from pytest_panic_doctor.database.room import memory_room
    from pytest_panic_doctor.repair.journal.undo import undo

    read_file_header(settings.database)
    left: list[str] = []
    done: list[Repair] = undo(settings.database, which, note=left.append, space=memory_room(settings.memory))
    yield from left
    for repair in done:
        rows = plural(repair.rows, "row")
        yield f"undid repair {repair.undoes} ({repair.rule}): {rows}; this undo is repair {repair.id}"
    if not done:
        yield f"nothing to undo: {text.shown_path(settings)} has no repair that is not undone"


def build_demo(database: Path) -> list[str]:
    """Build the demo database, in a process of its own: diagrams are never computed in this one.

    Returns the sentence about a former demo that it replaced, where there was one.

    Raises `DoctorError` with the sentence of the process that could not.
    """
    command = [sys.executable, "-m", "pytest_panic_doctor.session.demo", str(database.parent)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise DoctorError((done.stderr.strip().splitlines() or ["the demo could not be built"])[-1])
    return done.stdout.splitlines()[:-2]
