"""Commands that print something and end, without a pytest session."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_panic_doctor.errors import DoctorError
from pytest_panic_doctor.examination.foreign_code import calling, repr_foreign
from pytest_panic_doctor.formatting import format_size, plural, printable
from pytest_panic_doctor.report import text
from pytest_panic_doctor.report.activity import Activity
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
"""The name of this package at the package index."""


def run(config: pytest.Config, settings: Settings) -> int | None:
    """Run the command that the options name.

    Returns:
        The exit status; None if the options name no command.
    """
    values, _ = options.option_values(config)
    if isinstance(names := values["merge"], list):
        return merge_lines(config, settings, names)
    lines = option_lines(config, settings, values)
    if lines is None:
        return None
    for line in lines:
        write_line(line)
    return 0


def write_line(line: str) -> None:
    """Print a line; characters that the terminal's encoding cannot show are escaped, as pytest does it."""
    encoding = sys.stdout.encoding or "utf-8"
    print(printable(line).encode(encoding, "backslashreplace").decode(encoding))


def option_lines(config: pytest.Config, settings: Settings, values: Mapping[str, object]) -> Iterator[str] | None:
    """Return the lines of the command that the options name.

    Args:
        config: Pytest's config.
        settings: The settings.
        values: The value of each option, by its name.

    Returns:
        The lines; None if the options name no command that prints lines.
    """
    if values["rules"]:
        from pytest_panic_doctor.report.rules import table
        from pytest_panic_doctor.rules import registry

        return table(registry(own_rules(config)))
    which = values["undo"]
    if which is None:
        return None
    return undo_lines(settings, str(which)) if which else undo_list_lines(settings)


def own_rules(config: pytest.Config) -> list[Rule]:
    """Return the rules of plugins and conftest files.

    Raises:
        BadRule: A hook returned something that is not a list of rules.
        Misbehaved: A hook raised an exception.
    """
    with calling("pytest_doctor_rules", DoctorError):
        return [rule for rules in config.hook.pytest_doctor_rules() for rule in listed_rules(rules)]


def listed_rules(given: object) -> list[Rule]:
    """Return what one hook gave as a list of rules; None counts as an empty list.

    Raises:
        BadRule: It is not a list of rules.
    """
    given = () if given is None else given
    if isinstance(given, str | Rule) or not isinstance(given, Iterable):
        raise BadRule(f"pytest_doctor_rules returned {repr_foreign(given)}: return a list of rules, even of one")
    found = list(given)
    for each in found:
        if not isinstance(each, Rule):
            raise BadRule(
                f"pytest_doctor_rules returned {repr_foreign(each)}, which is not a rule: make it one with @rule"
            )
    return found


def merge_lines(config: pytest.Config, settings: Settings, names: Iterable[str]) -> int:
    """Merge the reports of shards, and return the exit status."""
    from pytest_panic_doctor.report.merge import merge_reports

    paths = [resolve_path(config.invocation_params.dir, name) for name in names]
    return merge_reports(paths, settings.reports, own_rules(config), version(DISTRIBUTION))


def undo_list_lines(settings: Settings) -> Iterator[str]:
    """Yield a table of the repairs of a database, newest first, and the command that undoes one."""
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
    """Undo one repair, or all, and yield a sentence for each."""
    from pytest_panic_doctor.database.connection import read_file_header
    from pytest_panic_doctor.database.room import memory_room
    from pytest_panic_doctor.repair.journal.undo import undo

    read_file_header(settings.database)
    if settings.backup:
        yield backup_line(settings, settings.backup)
    left: list[str] = []
    done: list[Repair] = undo(settings.database, which, note=left.append, space=memory_room(settings.memory))
    yield from left
    for repair in done:
        rows = plural(repair.rows, "row")
        yield f"undid repair {repair.undoes} ({repair.rule}): {rows}; this undo is repair {repair.id}"
    if not done:
        yield f"nothing to undo: {text.shown_path(settings)} has no repair that is not undone"


def backup_line(settings: Settings, target: Path) -> str:
    """Copy the database before an undo, and say so."""
    from pytest_panic_doctor.repair.backup import make_backup

    with Activity() as activity:
        size = make_backup(settings.database, target, activity.report)
    return f"backup: {text.display_path(target)}, {format_size(size)}"


def build_demo(database: Path, generation: str) -> list[str]:
    """Build the demo database in a process of its own, since no diagram is computed in this one.

    Args:
        database: Its path.
        generation: The generation of the research tool, by its key.

    Returns:
        The sentences about an earlier demo that was replaced.

    Raises:
        DoctorError: The demo could not be built; the text is the last line of the process.
    """
    command = [sys.executable, "-m", "pytest_panic_doctor.session.demo", str(database.parent)]
    command += ["--generation", generation]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise DoctorError((done.stderr.strip().splitlines() or ["the demo could not be built"])[-1])
    return done.stdout.splitlines()[:-2]
