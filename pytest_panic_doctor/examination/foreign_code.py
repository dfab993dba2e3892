"""Run code of others: rules, embedding hooks, listeners. An exception ends at most one item. Does not import pytest.

Every exception is an error of that code, also one with a meaning for pytest or Python (a skip, an exit with status 0):
it must not decide the result. Only KeyboardInterrupt passes: the user may have pressed Ctrl-C, and an interrupted
session is not green.
"""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager

from pytest_panic_doctor.database.subject import Rows
from pytest_panic_doctor.errors import DoctorError, Stopped
from pytest_panic_doctor.rules.base import BUILT_IN, Finding, Rule

TEXT_SHOWN = 200
"""Maximum number of characters of an exception's text, or of a value, in a message."""

MACHINERY = ("_pytest.", "pluggy.", "pytest_panic_doctor.", "contextlib", "importlib.")
"""Modules that are not the cause of an error in foreign code."""

FIELDS: Mapping[str, tuple[type, ...]] = {
    "rule": (str,),
    "message": (str,),
    "experiment": (str, type(None)),
    "run": (str, type(None)),
    "embedding_model": (str, type(None)),
    "table": (str, type(None)),
    "ids": (tuple,),
    "count": (int,),
    "rows": (Rows, type(None)),
    "warning": (bool,),
}
"""The types of the fields of a finding."""


class Misbehaved(DoctorError):
    """Foreign code that raised or returned something invalid; the message names it."""

    def __init__(self, sentence: str, error: BaseException | None = None, *, bug: bool = False) -> None:
        """Keep the traceback as text.

        Args:
            sentence: The message.
            error: What the code raised, if it did.
            bug: Whether the code belongs to this package.
        """
        super().__init__(sentence)
        self.trace = traced(error) if error else ""
        self.bug = bug


@contextmanager
def calling(what: str, *through: type[BaseException], bug: bool = False) -> Iterator[None]:
    """Convert every exception of foreign code to `Misbehaved`.

    Args:
        what: The code, as a sentence begins.
        through: Exceptions that pass unchanged.
        bug: Whether the code belongs to this package, so that an exception is a bug.

    Raises:
        Misbehaved: The code raised another exception.
    """
    passing: tuple[type[BaseException], ...] = (KeyboardInterrupt, Stopped, Misbehaved, *through)
    try:
        yield
    except passing:
        raise
    except BaseException as error:
        raise Misbehaved(f"{what} raised {describe_error(error)}{place(error)}", error, bug=bug) from error


def describe_error(error: BaseException) -> str:
    """Format an exception, e.g. `Skipped('no torch')`, even if its own text cannot be made."""
    text = attempt(lambda: str(error), "its text cannot be read")
    return f"{type(error).__name__}({cut(repr(text)) if text else ''})"


def place(error: BaseException) -> str:
    """Format the innermost foreign line, e.g. ` in conftest.py:12`; empty if there is none."""
    for frame, line in reversed(list(traceback.walk_tb(error.__traceback__))):
        module = f"{frame.f_globals.get('__name__', '')}."
        if not module.startswith(MACHINERY):
            path = frame.f_code.co_filename
            return f" in {min(os.path.relpath(path), path, key=len)}:{line}"
    return place(error.__cause__) if error.__cause__ else ""


def traced(error: BaseException) -> str:
    """Format the traceback of an exception as Python does."""
    return attempt(lambda: "".join(traceback.format_exception(error)).rstrip(), "the traceback cannot be printed")


def repr_foreign(value: object) -> str:
    """Format a value of foreign code for a message."""
    return cut(attempt(lambda: repr(value), f"a {type(value).__name__}"))


def attempt(make: Callable[[], str], otherwise: str) -> str:
    """Make a text by foreign code, such as a `repr`; return another text if it raises."""
    try:
        return make()
    except KeyboardInterrupt:
        raise
    except BaseException:  # noqa: BLE001 - whatever it raises, this is a text about something worse
        return otherwise


def cut(text: str) -> str:
    """Shorten a text to `TEXT_SHOWN` characters on one line."""
    line = " ".join(text.split())
    return line if len(line) <= TEXT_SHOWN else line[: TEXT_SHOWN - 1] + "…"


def findings_of(rule: Rule, given: object) -> Iterator[Finding]:
    """Yield what a check returns or yields, one by one.

    Raises:
        Misbehaved: Something is not a finding.
    """
    whose = f"the rule {rule.id} of {rule.source}"
    if not isinstance(given, Iterable) or isinstance(given, str | bytes | Mapping):
        raise Misbehaved(
            f"{whose} returned {repr_foreign(given)}, which is not a list of findings: yield context.finding(…)"
        )
    for each in given:
        if not isinstance(each, Finding):
            raise Misbehaved(f"{whose} yielded {repr_foreign(each)}, which is not a finding: yield context.finding(…)")
        for name, kinds in FIELDS.items():
            value = getattr(each, name)
            if not isinstance(value, kinds) or (name == "ids" and not all(isinstance(one, str) for one in each.ids)):
                raise Misbehaved(f"{whose} yielded a finding whose {name} is {repr_foreign(value)}: correct it")
        yield each


def checking(rule: Rule, *through: type[BaseException]) -> AbstractContextManager[None]:
    """Run a rule's check; an exception in a built-in rule is a bug."""
    return calling(f"the rule {rule.id} of {rule.source}", *through, bug=rule.source == BUILT_IN)
