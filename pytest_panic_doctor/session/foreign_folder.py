"""Whether the folder of a database may bring code: a `conftest.py`, an `__init__.py`. Knows no pytest.

A database is data, perhaps a stranger's. Only one within the project, as pytest users understand it, brings code.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pytest_panic_doctor.session.options import absolute


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Where pytest was started: its folder, its rootdir, and the arguments that are paths or node ids.

    `chosen` says whether the user named the rootdir or the ini file, `has_ini` whether there is one, and `by_option`
    whether the database was named by its option on the command line.
    """

    folder: Path
    rootdir: Path
    args: Sequence[str]
    chosen: bool
    has_ini: bool
    by_option: bool

    def named(self, arg: str) -> Path:
        """The path of an argument."""
        return absolute(self.folder / arg.split("::")[0])

    def foreign(self, database: Path) -> list[str] | None:
        """The arguments that name a database whose folder brings no code; None where it may bring some.

        A database that is named on the command line, also by the option, is among what pytest finds its rootdir by:
        then that tells nothing, unless pytest was started within it, too, and an ini file makes it a project.
        """
        beside = database.parent
        by_name = [arg for arg in self.args if self.named(arg) == database]
        others = [self.named(arg) for arg in self.args if arg not in by_name]
        if any(beside.is_relative_to(other) for other in others) or within(beside, self.folder):
            return None
        named = bool(by_name) or self.by_option
        trusted = self.chosen or not named or (within(self.folder, self.rootdir) and self.has_ini)
        return None if trusted and within(beside, self.rootdir) else by_name


def within(folder: Path, root: Path) -> bool:
    """Whether a folder is in another one, both as it is written and where its symbolic links lead."""
    return folder.is_relative_to(root) and folder.resolve().is_relative_to(root.resolve())
