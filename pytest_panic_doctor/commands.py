"""Commands that do one thing and leave, without a pytest session."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest


def run(config: pytest.Config) -> int | None:
    """Run the command that the options name and return the exit status; None where they name none."""
    if config.getoption("doctor_rules"):
        from pytest_panic_doctor.report.rules import table
        from pytest_panic_doctor.rules import registry

        extra = [rule for rules in config.hook.pytest_doctor_rules() for rule in rules or ()]
        for line in table(registry(extra)):
            print(line)
        return 0
    return None
