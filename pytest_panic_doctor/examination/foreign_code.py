"""Code that others bring: rules, embedding hooks, listeners. What it raises ends one item at most. Knows no pytest.

Whatever is raised, also what means something to pytest or Python (a skip, an exit with status 0), is an error of that
code, since the doctor's verdict is none of its business. Only KeyboardInterrupt goes through: the user may have pressed
Ctrl-C, and a session that was interrupted is not green.
"""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager

from pytest_panic_doctor.database.subject import Rows
from pytest_panic_doctor.errors import DoctorError, Stopped
from pytest_panic_doctor.rules.base import Finding, Rule

SHOWN = 200
"""Characters of an exception's text, or of a value, that a sentence shows."""

MACHINERY = ("_pytest.", "pluggy.", "pytest_panic_doctor.", "contextlib", "importlib.")
"""Modules whose line is not the one where foreign code went wrong."""

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
"""What the fields of a finding are."""


class Misbehaved(DoctorError):
    """Foreign code that raised, or gave what it must not; the text is one sentence that names it."""

    def __init__(self, sentence: str, error: BaseException | None = None, *, bug: bool = False) -> None:
        """`error` is what it raised, if it did: its traceback is kept as text. `bug`: the code is the doctor's own."""
        super().__init__(sentence)
        self.trace = traced(error) if error else ""
        self.bug = bug


@contextmanager
def calling(what: str, *through: type[BaseException], bug: bool = False) -> Iterator[None]:
    """Raise `Misbehaved` for whatever foreign code raises within, except for what goes `through`.

    Args:
        what: The code, as a sentence begins.
        through: Exceptions that mean what they say.
        bug: The code is the doctor's own, so that raising is a bug of it.
    """
    passing: tuple[type[BaseException], ...] = (KeyboardInterrupt, Stopped, Misbehaved, *through)
    try:
        yield
    except passing:
        raise
    except BaseException as error:
        raise Misbehaved(f"{what} raised {named(error)}{place(error)}", error, bug=bug) from error


def named(error: BaseException) -> str:
    """`Skipped('no torch')`, whatever becomes of the exception's own text."""
    text = attempt(lambda: str(error), "its text cannot be read")
    return f"{type(error).__name__}({cut(repr(text)) if text else ''})"


def place(error: BaseException) -> str:
    """` in conftest.py:12`, the innermost line that is foreign; empty where there is none."""
    for frame, line in reversed(list(traceback.walk_tb(error.__traceback__))):
        module = f"{frame.f_globals.get('__name__', '')}."
        if not module.startswith(MACHINERY):
            path = frame.f_code.co_filename
            return f" in {min(os.path.relpath(path), path, key=len)}:{line}"
    return place(error.__cause__) if error.__cause__ else ""


def traced(error: BaseException) -> str:
    """The traceback of an exception, as Python prints it."""
    return attempt(lambda: "".join(traceback.format_exception(error)).rstrip(), "the traceback cannot be printed")


def shown(value: object) -> str:
    """A value that foreign code gave, for a sentence."""
    return cut(attempt(lambda: repr(value), f"a {type(value).__name__}"))


def attempt(make: Callable[[], str], otherwise: str) -> str:
    """A text that foreign code makes, such as a `repr`, or another where it raises."""
    try:
        return make()
    except KeyboardInterrupt:
        raise
    except BaseException:  # noqa: BLE001 - whatever it raises, this is a text about something worse
        return otherwise


def cut(text: str) -> str:
    """A text of at most `SHOWN` characters, on one line."""
    line = " ".join(text.split())
    return line if len(line) <= SHOWN else line[: SHOWN - 1] + "…"


def findings_of(rule: Rule, given: object) -> Iterator[Finding]:
    """What a check returned or yields, one by one; raises `Misbehaved` for what is no finding."""
    whose = f"the rule {rule.id} of {rule.source}"
    if not isinstance(given, Iterable) or isinstance(given, str | bytes | Mapping):
        raise Misbehaved(f"{whose} returned {shown(given)}, which is not a list of findings: yield context.finding(…)")
    for each in given:
        if not isinstance(each, Finding):
            raise Misbehaved(f"{whose} yielded {shown(each)}, which is not a finding: yield context.finding(…)")
        for name, kinds in FIELDS.items():
            value = getattr(each, name)
            if not isinstance(value, kinds) or (name == "ids" and not all(isinstance(one, str) for one in each.ids)):
                raise Misbehaved(f"{whose} yielded a finding whose {name} is {shown(value)}: correct it")
        yield each
