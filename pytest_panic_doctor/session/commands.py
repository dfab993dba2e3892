"""Commands that print something and end, without a pytest session."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_panic_doctor.errors import DoctorError
from pytest_panic_doctor.examination import options
from pytest_panic_doctor.examination.foreign_code import calling, repr_foreign
from pytest_panic_doctor.examination.parsing import resolve_path
from pytest_panic_doctor.formatting import printable
from pytest_panic_doctor.rules import BadRule
from pytest_panic_doctor.rules.base import Rule
from pytest_panic_doctor.session.selection import ini_folder

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pytest

    from pytest_panic_doctor.examination.settings import Settings

DISTRIBUTION = "pytest-panic-doctor"
"""The name of this package at the package index."""


def run(config: pytest.Config, settings: Settings) -> int | None:
    """Run the command that the options name.

    Returns:
        The exit status; None if the options name no command.
    """
    values, from_line = options.option_values(config)
    if isinstance(names := values["merge"], list):
        return merge_lines(config, settings, names)
    if (tried := values["try-rule"]) is not None:
        from pytest_panic_doctor.session.try_rule import run_trial

        printed, status = run_trial(config, settings, str(tried))
        for line in printed:
            write_line(line)
        return status
    lines = option_lines(config, settings, values, from_line)
    if lines is None:
        return None
    for line in lines:
        write_line(line)
    return 0


def write_line(line: str) -> None:
    """Print a line; characters that the terminal's encoding cannot show are escaped, as pytest does it."""
    encoding = sys.stdout.encoding or "utf-8"
    print(printable(line).encode(encoding, "backslashreplace").decode(encoding))


def option_lines(
    config: pytest.Config, settings: Settings, values: Mapping[str, object], from_line: Mapping[str, object]
) -> Iterator[str] | None:
    """Return the lines of the command that the options name.

    Args:
        config: Pytest's config.
        settings: The settings.
        values: The value of each option, by its name.
        from_line: The values on the command line alone.

    Returns:
        The lines; None if the options name no command that prints lines.
    """
    if values["rules"]:
        from pytest_panic_doctor.report.rules import table
        from pytest_panic_doctor.rules import registry

        return table(registry(own_rules(config)))
    if all(values[name] is None for name in ("journal-export", "redo", "undo")):
        return None
    from pytest_panic_doctor.session import journal_commands

    folder = config.invocation_params.dir if from_line["journal-export"] else ini_folder(config)
    if (target := values["journal-export"]) is not None:
        return journal_commands.export_lines(settings, resolve_path(folder, str(target)))
    if (redone := values["redo"]) is not None:
        return journal_commands.undo_lines(settings, str(redone), again=True)
    return journal_commands.undo_or_list(settings, str(values["undo"]))


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
