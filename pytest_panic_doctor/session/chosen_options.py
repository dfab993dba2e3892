"""Reads the options of a session from the command line and the ini file into one frozen `Settings`.

Imports nothing heavy, because pytest loads it in every project.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Protocol

import pytest

from pytest_panic_doctor.errors import BadOption
from pytest_panic_doctor.examination import options, parsing
from pytest_panic_doctor.examination.options import DEFAULT_DATABASE, ONE, SWITCH
from pytest_panic_doctor.examination.parsing import RAY, Given, absolute
from pytest_panic_doctor.examination.settings import Settings

DEMO_DATABASE = "doctor-demo/trajectory_data.sqlite"


class Source(Protocol):
    """The source of options: pytest's Config, or a dictionary of a test."""

    def getoption(self, name: str) -> object:
        """Return the value on the command line, None if the option was not given."""

    def getini(self, name: str) -> object:
        """Return the value in the ini file, None or empty if the key is absent."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """What the user chose: the settings, and the parsed value of each option that is given, by its name."""

    settings: Settings
    values: Mapping[str, object]


CHOSEN: pytest.StashKey[Chosen] = pytest.StashKey()


def on_command_line(source: Source) -> dict[str, object]:
    """Return the values of the options on the command line, by name."""
    found = {option.name: source.getoption(option.key) for option in options.OPTIONS if not option.ini_only}
    return {name: value for name, value in found.items() if value not in (None, False, [])}


def in_ini_file(source: Source) -> dict[str, object]:
    """Return the values in the ini file, by name; in a native TOML file a number is one."""
    found = {option.name: source.getini(option.key) for option in options.OPTIONS}
    flags = {option.name for option in options.OPTIONS if option.value is SWITCH}
    return {
        name: str(value) if isinstance(value, int | float) else value
        for name, value in found.items()
        if (truthy(value) if name in flags else value not in (None, "", []))
    }


def truthy(value: object) -> bool:
    """Return whether an ini value means yes: a text or list that is not empty and not `false`, `0`, `no` or `off`."""
    return bool(value) and str(value).lower() not in ("false", "0", "no", "off")


def is_requested(source: Source) -> bool:
    """Return whether the command line, or an ini key that is enough by itself, asks for the plugin."""
    asking = (option.key for option in options.OPTIONS if option.asks)
    return bool(on_command_line(source)) or any(truthy(source.getini(key)) for key in asking)


def ini_folder(config: pytest.Config) -> Path:
    """Return the folder that paths in the ini file are relative to."""
    return config.inipath.parent if config.inipath else config.rootpath


def chosen(config: pytest.Config) -> Chosen:
    """Return what the user chose; the options are read once in a process.

    Raises:
        BadOption: A value is not allowed, or options exclude each other.
    """
    if CHOSEN not in config.stash:
        config.stash[CHOSEN] = read_options(config, config.invocation_params.dir, ini_folder(config))
    return config.stash[CHOSEN]


def given_values(source: Source) -> tuple[dict[str, object], dict[str, object]]:
    """Return the values as they are written, by the option's name: all of them, and those on the command line.

    Raises:
        BadOption: Two options exclude each other.
    """
    typed = on_command_line(source)
    given = in_ini_file(source) | typed
    resolve_conflicts(given, typed)
    return given, typed


def database_of(source: Source, invocation_dir: Path, ini_dir: Path) -> Path:
    """Return the path of the database that is examined; its symbolic links are kept.

    Args:
        source: The options and ini keys.
        invocation_dir: The folder for relative paths of the command line.
        ini_dir: The folder for relative paths of the ini file.

    Raises:
        BadOption: Two options exclude each other.
    """
    return named_database(*given_values(source), invocation_dir, ini_dir)


def named_database(
    given: Mapping[str, object], typed: Mapping[str, object], invocation_dir: Path, ini_dir: Path
) -> Path:
    """Return the same as `database_of`, from the result of `given_values`."""
    if "demo" in given:
        if "db" in typed:
            raise BadOption(f"--doctor-demo builds a database of its own: leave out --doctor-db {given['db']}")
        return absolute(invocation_dir / DEMO_DATABASE)
    folder = invocation_dir if "db" in typed else ini_dir
    named = parsing.parse_absolute_path(Given("--doctor-db", str(given.get("db", "")), folder))
    return named or absolute(invocation_dir / DEFAULT_DATABASE)


def read_options(source: Source, invocation_dir: Path, ini_dir: Path) -> Chosen:
    """Parse every option, and build the settings of a session.

    Args:
        source: The options and ini keys.
        invocation_dir: The folder for relative paths of the command line.
        ini_dir: The folder for relative paths of the ini file.

    Raises:
        BadOption: A value is not allowed, or options exclude each other.
    """
    given, typed = given_values(source)
    database = named_database(given, typed, invocation_dir, ini_dir)
    parsed = {
        option.name: option.parsed(given[option.name], invocation_dir if option.name in typed else ini_dir)
        for option in options.OPTIONS
        if option.name in given
    }
    parsed = {name: value for name, value in parsed.items() if value is not None}
    check_needs(parsed, typed)
    if "baseline-write" in parsed and "run" in parsed:
        raise BadOption("--doctor-baseline-write accepts the findings of whole experiments: leave out --doctor-run")
    fields = {each.setting: parsed[each.name] for each in options.OPTIONS if each.setting and each.name in parsed}
    # These depend on two options, or are not as they were given.
    fields["database"] = utf8(database)
    fields["ray"] = parsing.parse_cluster(parsed.get("ray"), by_engine=given.get("engine") == RAY)  # type: ignore[arg-type]
    fields["kinds"] = parsing.model_types(parsed.get("text-models", ()), parsed.get("image-models", ()))  # type: ignore[arg-type]
    if "demo" in parsed:
        fields["demo"] = parsing.parse_generation(str(parsed.get("demo-generation", "")))
    settings = Settings(**fields)  # type: ignore[arg-type]
    if same := next((path for path in settings.reports if path.resolve() == database.resolve()), None):
        raise BadOption(f"--doctor-report {same} is the database itself: name another file")
    return Chosen(settings, parsed)


def resolve_conflicts(given: dict[str, object], typed: Mapping[str, object]) -> None:
    """Drop one of two options that exclude each other, if only the other is on the command line.

    Args:
        given: The value of each option; changed in place.
        typed: The value of each option on the command line.

    Raises:
        BadOption: Both are given in the same place.
    """
    for option in options.OPTIONS:
        for other, reason in option.excludes.items():
            if option.name in given and other in given:
                if (option.name in typed) == (other in typed):
                    raise BadOption(f"{reason}: give one of them")
                del given[other if option.name in typed else option.name]


def check_needs(parsed: Mapping[str, object], typed: Mapping[str, object]) -> None:
    """Raise `BadOption` if an option is given without one that it needs; in the ini file only a flag needs it."""
    for option in options.OPTIONS:
        needed, message = option.needs
        asked = option.name in parsed and (option.name in typed or option.value is SWITCH)
        if asked and needed and not any(name in parsed for name in needed):
            raise BadOption(message.format(parsed[option.name]))


def check_once(arguments: Sequence[object]) -> None:
    """Check that no option of one value is given twice with different values, since one would be ignored.

    Args:
        arguments: The words that were typed; they replace what `addopts` gives.

    Raises:
        BadOption: An option is given twice.
    """
    words = [str(each) for each in arguments]
    for option in options.OPTIONS:
        if option.value.kind in ONE:
            given = [
                after if each == option.flag else each.partition("=")[2]
                for each, after in pairwise([*words, ""])
                if each.partition("=")[0] == option.flag
            ]
            if len(dict.fromkeys(given)) > 1:
                raise BadOption(f"{option.flag} is given {len(given)} times ({', '.join(given)}): give it once")


def utf8(path: Path) -> Path:
    """Return the path, if its name is UTF-8 and so can be written to reports and terminals.

    Raises:
        BadOption: It is not UTF-8.
    """
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        shown = os.fsencode(path).decode("utf-8", "backslashreplace")
        raise BadOption(f"--doctor-db {shown} is not UTF-8: rename it, or make a symbolic link to it") from error
    return path
