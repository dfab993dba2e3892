"""Repeats the user's own selection of items as words of a command line. Imports no pytest."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_panic_doctor.examination.parsing import absolute
from pytest_panic_doctor.formatting import did_you_mean, typed

if TYPE_CHECKING:
    import pytest


def selection_arguments(config: pytest.Config, database: Path) -> tuple[str, ...]:
    """Return `-k`, `-m`, `--lf`, `--deselect` and the node ids of the command line, quoted for a shell.

    What an ini file adds is left out, since it is added again.
    """
    given = [str(arg) for arg in config.invocation_params.args]
    words: list[str] = []
    for flag, value in (("-k", config.option.keyword), ("-m", config.option.markexpr)):
        if value and any(value in arg for arg in given):
            words += [flag, value]
    if config.getoption("lf", False):
        words.append("--lf")
    for nodeid in config.getoption("deselect", None) or ():
        words += [f"--deselect={nodeid}"] if str(nodeid).startswith("-") else ["--deselect", str(nodeid)]
    folder = config.invocation_params.dir
    words += [arg for arg in config.args if "::" in arg and absolute(folder / arg.split("::")[0]) == database]
    return tuple(map(typed, words))


PYTEST_OPTIONS = ("-c", "--config-file", "--rootdir", "-p", "-o", "--override-ini", "--confcutdir")
"""Options of pytest that set its folder and its code; a command that is shown repeats them."""


def pytest_options(args: Iterable[object]) -> Iterator[str]:
    """Yield the words of a command line that are options of `PYTEST_OPTIONS`, with their values, quoted for a shell."""
    words = iter(map(str, args))
    for word in words:
        flag, equals, _ = word.partition("=")
        if flag in PYTEST_OPTIONS and not equals:
            if (value := next(words, None)) is not None:
                yield from (word, typed(value))
        elif flag in PYTEST_OPTIONS[1:] or (word[:2] in PYTEST_OPTIONS and word[:2] != "--"):
            yield typed(word)


def explain_empty_selection(config: pytest.Config, rules: Collection[str]) -> Iterator[str]:
    """Yield a sentence for each of -m and -k that matches no item, with the rule that may have been meant."""
    for flag, value in (("-m", config.option.markexpr), ("-k", config.option.keyword)):
        words = [word for word in re.findall(r"[\w-]+", value) if word not in ("and", "or", "not")]
        strange = [word for word in words if not any(word in (name, name.replace("-", "_")) for name in rules)]
        meant = next(filter(None, (did_you_mean(word.replace("_", "-"), rules) for word in strange)), "")
        if strange:
            yield f"{flag} {typed(value)} chose no item{meant or ': --doctor-rules lists the rules'}"
