"""The hooks by which pytest loads the plugin; they do nothing unless an option or an ini key asks for it."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_panic_doctor.errors import DoctorError
from pytest_panic_doctor.examination import options
from pytest_panic_doctor.formatting import printable, typed
from pytest_panic_doctor.report.command_line import invoked_command
from pytest_panic_doctor.session.chosen_options import check_once, chosen, database_of, ini_folder, is_requested
from pytest_panic_doctor.session.foreign_folder import ForeignFolderHook, foreign_args
from pytest_panic_doctor.session.signals import interrupt_in_a_line

if TYPE_CHECKING:
    from contextlib import ExitStack

RESOURCES: pytest.StashKey[ExitStack] = pytest.StashKey()
"""What a session holds open."""

GROUP = "panic-doctor"
"""The heading of the options in `pytest --help`."""

ACTIONS: dict[str, dict[str, object]] = {
    "flag": {"action": "store_true"},
    "list": {"action": "append"},
    "phrases": {"action": "append"},
    "several": {"action": "extend", "nargs": "+"},
    "optional": {"nargs": "?", "const": ""},
}
"""What argparse does with the kinds of values of an option; without an entry, it stores one."""

NATIVE, UNIONS = (9, 0), (9, 2)
"""The versions of pytest that have native TOML files, and ini keys of several types in them."""


@contextmanager
def usage_errors() -> Iterator[None]:
    """Turn a `DoctorError` into pytest's usage error: one sentence on stderr, exit status 4."""
    try:
        yield
    except DoctorError as error:
        raise pytest.UsageError(printable(str(error))) from error


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare the options and ini keys."""
    group = parser.getgroup(GROUP, "examine and repair a PANIC-TDA trajectory database")
    for option in options.OPTIONS:
        kind = option.value.kind
        if not option.ini_only:
            shown = {} if kind == "flag" else {"metavar": option.value.metavar}
            group.addoption(option.flag, dest=option.key, help=option.help, **ACTIONS.get(kind, {}), **shown)
        of_key = option.help if option.ini_only else f"same as {option.flag}: {option.help.replace('%%', '%')}"
        if kind == "flag" or kind in options.ONE:
            add_value(parser, option.key, of_key, flag=kind == "flag")
        elif kind == "words":
            parser.addini(option.key, of_key, type="args", default=[])
        else:
            parser.addini(option.key, of_key, type="linelist", default=[])


def add_value(parser: pytest.Parser, key: str, text: str, *, flag: bool = False) -> None:
    """Declare an ini key of one value: text in an ini file, in a native TOML file text, a boolean or a number.

    Args:
        parser: Pytest's parser.
        key: The name of the key.
        text: The help of the key.
        flag: Whether the value is a boolean.
    """
    if pytest.version_tuple >= UNIONS:
        parser.addini(key, text, type=str | bool | int | float, default="")
    elif flag and pytest.version_tuple >= NATIVE:
        parser.addini(key, text, type="bool", default=False)
    else:
        parser.addini(key, text, type="string", default="")


def pytest_addhooks(pluginmanager: pytest.PytestPluginManager) -> None:
    """Declare the hooks for rules, embedders, engines and listeners of other people."""
    from pytest_panic_doctor.session import hookspecs

    pluginmanager.add_hookspecs(hookspecs)


@pytest.hookimpl(wrapper=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> Generator[None]:
    """Register the commands after every installed plugin, so that they run before xdist starts its workers.

    If a database is named by a node id and its folder is foreign, no conftest.py of that folder is loaded.
    """
    given = early_config.known_args_namespace.file_or_dir
    source = EarlyOptions(early_config)
    if is_requested(source):
        early_config.pluginmanager.register(Commands(), "panic-doctor-commands")
        interrupt_in_a_line()
        with suppress(DoctorError):  # The session says so, and examines nothing.
            database = database_of(source, early_config.invocation_params.dir, ini_folder(early_config))
            foreign = foreign_args(early_config, source, given, database) or []
            early_config.known_args_namespace.file_or_dir = [arg for arg in given if arg not in foreign]
    try:
        yield
    finally:
        early_config.known_args_namespace.file_or_dir = given


def pytest_configure(config: pytest.Config) -> None:
    """Start a session if an option or an ini key asks for it."""
    if config.getoption("help") or config.getoption("version"):
        return
    if not is_requested(config):
        if databases := [arg for arg in config.args if is_database(config.invocation_params.dir / arg.split("::")[0])]:
            config.pluginmanager.register(UsageHint(databases[0].split("::")[0]), "panic-doctor-hint")
        return
    from pytest_panic_doctor.session.items import EXAMINATION
    from pytest_panic_doctor.session.startup import start

    with usage_errors():
        by_name = config.args if config.args_source is pytest.Config.ArgsSource.ARGS else ()
        foreign = foreign_args(config, config, by_name, chosen(config).settings.database)
        config.stash[RESOURCES] = start(config)
        if foreign is not None:
            database = config.stash[EXAMINATION].settings.database
            config.pluginmanager.register(ForeignFolderHook(database), "panic-doctor-outside")


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> Generator[None, int | None, int | None]:
    """Return the exit status on which the controller decides, even if another plugin set one at the very end."""
    status = yield
    controller = config.pluginmanager.get_plugin("panic-doctor-controller")
    return controller.exit_status(status) if controller and status is not None else status


def pytest_unconfigure(config: pytest.Config) -> None:
    """Release what the session holds, however pytest ends."""
    if resources := config.stash.get(RESOURCES, None):
        resources.close()


class EarlyOptions:
    """Reads options before pytest has parsed the complete command line."""

    def __init__(self, config: pytest.Config) -> None:
        """Store the `config` that `pytest_load_initial_conftests` gets."""
        self.config = config

    def getoption(self, name: str) -> object:
        """Return the value on the command line, None if it is not there."""
        return getattr(self.config.known_args_namespace, name, None)

    def getini(self, name: str) -> object:
        """Return the value in the ini file."""
        return self.config.getini(name)


def is_database(path: Path) -> bool:
    """Return whether a path is a SQLite file."""
    try:
        with path.open("rb") as file:
            return file.read(16) == b"SQLite format 3\0"
    except OSError:
        return False


class UsageHint:
    """Tells a user who passed a database without any --doctor option how to examine it.

    It says nothing if another plugin collected the file.
    """

    def __init__(self, database: str) -> None:
        """Store the path of the `database` as it was typed."""
        self.database = database

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter, exitstatus: int) -> None:
        """Print how the database is examined, if nothing was collected."""
        if exitstatus in (pytest.ExitCode.USAGE_ERROR, pytest.ExitCode.NO_TESTS_COLLECTED):
            command = f"{invoked_command()} --doctor-db {typed(self.database)}"
            terminalreporter.write_line(f"doctor: to examine this database, type {command}", yellow=True)


class Commands:
    """Runs what happens before there is a pytest session."""

    @pytest.hookimpl(tryfirst=True)
    def pytest_cmdline_main(self, config: pytest.Config) -> int | None:
        """Run a command that lists something and ends, or limit the number of workers."""
        from pytest_panic_doctor.session.commands import run
        from pytest_panic_doctor.session.foreign_hooks import add_generations

        if config.getoption("help") or config.getoption("version"):
            return None
        with usage_errors():
            check_once(config.invocation_params.args)
            choice = chosen(config)
            add_generations(config)
            status = run(config, choice)
            if status is None and config.pluginmanager.hasplugin("xdist"):
                from pytest_panic_doctor.session.xdist import limit_workers

                limit_workers(config, choice.settings)
        return status
