"""Atomic file writes that keep owner, group and mode."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

MAX_LENGTH = 60
"""Longest part of a file's name that is made from another name."""


def safe_file_name(name: str) -> str:
    """A part of a file's name that represents `name`, for any characters and any length."""
    safe = quote(name, safe="")
    return safe if len(safe) <= MAX_LENGTH else hashlib.sha256(safe.encode()).hexdigest()[:MAX_LENGTH]


@contextmanager
def atomic_write(path: Path, like: Path | None = None) -> Iterator[Path]:
    """Write a file completely or not at all.

    An existing file keeps its mode, its group and, if permitted, its owner. A symbolic link is followed. If the file
    cannot be replaced (a mount point, a device, a folder without write access), it is written in place.

    Args:
        path: The file to write.
        like: A file whose owner, group and mode a new file gets, as SQLite's side files get those of their database.

    Yields:
        A path to write to. Its file replaces `path` at the end, or is removed after an error.

    Raises:
        OSError: `path` cannot be written; at the beginning if this can be known.
    """
    target = Path(os.path.realpath(path))
    partial = _temporary_file(target, like)
    try:
        yield partial
        _replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)


def check_writable(path: Path) -> None:
    """Raise OSError unless `atomic_write` can write `path` now; changes nothing."""
    target = Path(os.path.realpath(path))
    _temporary_file(target, None).unlink()
    folder = target.parent.stat()
    owners = (0, folder.st_uid, target.stat().st_uid if target.exists() else os.geteuid())
    if folder.st_mode & stat.S_ISVTX and os.geteuid() not in owners and not is_writable(target):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(target))


def check_writable_in_place(path: Path) -> None:
    """Raise OSError unless `path` can be opened for writing, or created, now; changes nothing."""
    target = Path(os.path.realpath(path))
    if target.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(target))
    if not target.exists():
        check_writable(target)
    elif not is_writable(target):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(target))


def is_writable(path: Path) -> bool:
    """Whether this process may write to a file, or create files in a folder, by its effective ids."""
    mode = os.W_OK | os.X_OK if path.is_dir() else os.W_OK
    return os.access(path, mode, effective_ids=os.access in os.supports_effective_ids)


def create_like(path: Path, like: Path) -> None:
    """Create an empty file with the attributes of `like`, unless it exists or `like` is missing."""
    if like.exists() and not os.path.lexists(path):
        with suppress(FileExistsError):
            _create(path, _Attributes(like.stat(), new=True))


@dataclass(frozen=True, slots=True)
class _Attributes:
    """Owner, group and mode for a file: its own as before, or for a `new` file those of another, without execution."""

    status: os.stat_result
    new: bool

    @property
    def mode(self) -> int:
        mode = stat.S_IMODE(self.status.st_mode)
        return mode & 0o666 | 0o600 if self.new else mode & 0o777

    def apply(self, descriptor: int) -> None:
        """Set owner, group and mode of an open file, as far as this process may."""
        mode, group = self.mode, self.status.st_gid
        with suppress(OSError):
            os.fchown(descriptor, -1, group)
        with suppress(OSError):
            os.fchown(descriptor, self.status.st_uid, -1)
        if os.fstat(descriptor).st_gid != group:
            # The file has another group, which gets no more rights than others.
            mode = mode & 0o707 | (mode & 0o007) << 3
        os.fchmod(descriptor, mode)


def _create(path: Path, model: _Attributes | None) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600 if model else 0o666)
    try:
        if model:
            model.apply(descriptor)
    finally:
        os.close(descriptor)


def _temporary_file(target: Path, like: Path | None) -> Path:
    """Create an empty file beside `target` if possible, under a short name of its own."""
    exists = target.exists()
    if exists and not target.is_file():
        if not is_writable(target):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(target))
        return _file_in_tmp()
    digest = hashlib.sha256(os.fsencode(target.name)).hexdigest()[:16]
    beside = target.with_name(f".doctor-{digest}.{os.getpid()}")
    if len(os.fsencode(target.name)) > os.pathconf(target.parent, "PC_NAME_MAX"):
        raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG), str(target))
    other = like if like and like.exists() else None
    model = _Attributes(target.stat(), new=False) if exists else _Attributes(other.stat(), new=True) if other else None
    beside.unlink(missing_ok=True)
    try:
        _create(beside, model)
    except OSError as error:
        if error.errno not in REFUSALS or not exists or not is_writable(target):
            raise
        return _file_in_tmp()
    return beside


REFUSALS = (errno.EACCES, errno.EPERM, errno.EROFS, errno.EBUSY, errno.EXDEV)
"""Errors that prevent creating a file beside another, or replacing it, though that file may be writable."""


def _file_in_tmp() -> Path:
    descriptor, name = tempfile.mkstemp(prefix="panic-doctor-")
    os.close(descriptor)
    return Path(name)


def _replace(partial: Path, target: Path) -> None:
    if partial.parent == target.parent and (target.is_file() or not target.exists()):
        try:
            partial.replace(target)
        except OSError as error:
            if error.errno not in REFUSALS or not target.exists():
                raise
        else:
            return
    with partial.open("rb") as source, target.open("wb") as sink:
        shutil.copyfileobj(source, sink)


def publish_new(partial: Path, target: Path) -> None:
    """Give a complete file its name, unless a file has this name now; then write the folder to the disk.

    Raises:
        OSError: Another program has made a file with this name, or the folder cannot be written.
    """
    descriptor = os.open(partial, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    try:
        os.link(partial, target)  # Unlike a rename, this never replaces a file.
    except FileExistsError:
        raise
    except OSError:  # A file system without hard links.
        if os.path.lexists(target):
            raise
        partial.rename(target)
    with suppress(OSError):
        partial.unlink(missing_ok=True)
        folder = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
