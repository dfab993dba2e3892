"""Decides whether the folder of a database may bring code: a `conftest.py` or an `__init__.py`.

A database is data, and may come from a stranger. Only a database within the user's own project brings code.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from pytest_panic_doctor.examination.parsing import absolute
from pytest_panic_doctor.session.chosen_options import Source


def foreign_args(config: pytest.Config, source: Source, args: Sequence[str], database: Path) -> list[str] | None:
    """Return the arguments that name a database whose folder must not bring code.

    Pytest may find its rootdir from the database itself if the command line names it. Then the rootdir proves
    nothing, unless pytest was started inside it and it has an ini file.

    Args:
        config: Pytest's config.
        source: The options.
        args: The arguments that are paths or node ids.
        database: The database.

    Returns:
        The arguments; None if the folder may bring code.
    """
    folder, root, beside = config.invocation_params.dir, config.rootpath, database.parent
    paths = {arg: absolute(folder / arg.split("::")[0]) for arg in args}
    by_name = [arg for arg in args if paths[arg] == database]
    if within(beside, folder) or any(beside.is_relative_to(paths[arg]) for arg in args if arg not in by_name):
        return None
    named = bool(by_name) or source.getoption("doctor_db") not in (None, [])
    root_is_chosen = bool(source.getoption("rootdir") or source.getoption("inifilename"))
    trusted = root_is_chosen or not named or (within(folder, root) and config.inipath is not None)
    return None if trusted and within(beside, root) else by_name


def within(folder: Path, root: Path) -> bool:
    """Return whether a folder is inside `root`, both as written and with symbolic links resolved."""
    return folder.is_relative_to(root) and folder.resolve().is_relative_to(root.resolve())


class DataFolder(pytest.File):
    """A folder outside of the project, on the way to the database; no code is loaded from it."""

    def collect(self) -> Iterator[pytest.Item | pytest.Collector]:
        """Collect what the command line names in this folder, and the database."""
        config = self.config
        named = [Path(config.invocation_params.dir, arg.split("::")[0]) for arg in config.args]
        below = [path.relative_to(self.path) for path in map(absolute, named) if self.path in path.parents]
        for name in dict.fromkeys(path.parts[0] for path in below):
            path = self.path / name
            if path.is_dir():
                folder = self.session.gethookproxy(self.path).pytest_collect_directory(path=path, parent=self)
                yield from [folder] if folder else []
            else:
                yield from self.session.gethookproxy(path).pytest_collect_file(file_path=path, parent=self)


class ForeignFolderHook:
    """Keeps pytest from loading code of the folder of a database; registered if it is outside of the project."""

    def __init__(self, database: Path) -> None:
        """Store the parent folders of `database`, whose path is the one that is collected."""
        self.folders = frozenset(database.parents)

    @pytest.hookimpl(tryfirst=True)
    def pytest_collect_directory(self, path: Path, parent: pytest.Collector) -> DataFolder | None:
        """Collect a folder on the way to the database as data, not as tests."""
        return DataFolder.from_parent(parent, path=path) if path in self.folders else None
