"""What the processes of a session share in one folder: documents in JSON, and locks."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pytest_panic_doctor.database.files import atomic_write
from pytest_panic_doctor.errors import Stopped

ACTIVE_POLL = 0.2
"""Seconds between two checks whether the session is still active, while a lock is waited for."""

Document = dict[str, object]


@dataclass(frozen=True, slots=True)
class SharedFolder:
    """Documents and locks in a folder.

    Attributes:
        folder: The folder; the one who makes it also deletes it.
        is_active: Whether the session goes on; waiting for a lock ends when it does not.
    """

    folder: Path
    is_active: Callable[[], bool] = lambda: True

    def write(self, name: str, document: Mapping[str, object]) -> None:
        """Write a document atomically; `name` may have folders."""
        path = self.folder / f"{name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as partial:
            partial.write_text(json.dumps(document))

    def read(self, name: str) -> Document | None:
        """Read a document; None if there is none."""
        return _load(self.folder / f"{name}.json")

    def exists(self, name: str) -> bool:
        """Whether there is a document."""
        return (self.folder / f"{name}.json").exists()

    def remove(self, name: str) -> None:
        """Remove a document if there is one."""
        (self.folder / f"{name}.json").unlink(missing_ok=True)

    def find(self, pattern: str) -> list[Document]:
        """Read the documents whose names match a glob pattern, by name."""
        found = map(_load, sorted(self.folder.glob(f"{pattern}.json")))
        return [document for document in found if document is not None]

    def take(self, pattern: str) -> list[Document]:
        """Read and remove documents, the oldest first; only one process may take them."""
        found = []
        for path in sorted(self.folder.glob(f"{pattern}.json"), key=lambda path: path.stat().st_mtime_ns):
            found.append(json.loads(path.read_text()))
            path.unlink()
        return found

    @contextmanager
    def lock(self, name: str, *, wait: bool = True) -> Iterator[None]:
        """Hold a lock against the other processes; the kernel releases it if its holder dies.

        Args:
            name: The name of the lock.
            wait: Whether to wait for it.

        Raises:
            Stopped: The session has ended while the lock was waited for.
            TimeoutError: Another process holds the lock, and `wait` is false.
        """
        from filelock import FileLock, Timeout

        folder = self.folder / "locks"
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / f"{name.replace(os.sep, '_')}.lock")
        while True:
            try:
                lock.acquire(timeout=ACTIVE_POLL if wait else 0)
                break
            except Timeout:
                if not wait:
                    raise
                if not self.is_active():
                    raise Stopped("the controller is gone") from None
        try:
            yield
        finally:
            lock.release()


def _load(path: Path) -> Document | None:
    try:
        plain: Document = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    return plain
