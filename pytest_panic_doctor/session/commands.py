"""Commands that print something and end, without a pytest session."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_panic_doctor.errors import DoctorError
from pytest_panic_doctor.examination.foreign_code import calling, repr_foreign
from pytest_panic_doctor.formatting import printable
from pytest_panic_doctor.rules import BadRule
from pytest_panic_doctor.rules.base import Rule

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pytest

    from pytest_panic_doctor.session.chosen_options import Chosen


def run(config: pytest.Config, choice: Chosen) -> int | None:
    """Run the command that the options name.

    Returns:
        The exit status; None if the options name no command.
    """
    settings, values = choice.settings, choice.values
    lines: Iterable[str]
    status = 0
    if "merge" in values:
        from pytest_panic_doctor.report.merge import merge_reports

        paths: Sequence[Path] = values["merge"]  # type: ignore[assignment]
        return merge_reports(paths, settings.reports, own_rules(config))
    if "try-rule" in values:
        from pytest_panic_doctor.session.try_rule import run_trial

        lines, status = run_trial(config, settings, str(values["try-rule"]))
    elif "rules" in values:
        from pytest_panic_doctor.report.rules import table
        from pytest_panic_doctor.rules import registry

        lines = table(registry(own_rules(config)))
    elif values.keys() & {"journal-export", "redo", "undo"}:
        from pytest_panic_doctor.session.journal_commands import journal_lines

        lines = journal_lines(settings, values)
    else:
        return None
    for line in lines:
        write_line(line)
    return status


def write_line(line: str) -> None:
    """Print a line; characters that the terminal's encoding cannot show are escaped, as pytest does it."""
    encoding = sys.stdout.encoding or "utf-8"
    print(printable(line).encode(encoding, "backslashreplace").decode(encoding))


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
