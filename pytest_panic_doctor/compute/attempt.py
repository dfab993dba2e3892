"""A computation in a child while it goes on, as its worker sees it."""

from __future__ import annotations

import time
from dataclasses import dataclass


@dataclass(slots=True)
class Attempt:
    """A computation while it goes on: its child's stage and size (bytes), and when (monotonic, s) what was done.

    `progress` is how far it is, such as `H2, column 1,204 of 1,862`; empty where the engine does not say. `exact`: the
    child ends it at its limits by itself.
    """

    begun: float
    stage: str = "starting"
    progress: str = ""
    working: bool = False
    exact: bool = False
    size: int = 0
    peak: int = 0
    reported: float = 0.0
    asked: float = 0.0

    @property
    def seconds(self) -> float:
        """Since the child began to compute; before that, since it was to."""
        return time.monotonic() - self.begun

    def enter(self, stage: str) -> None:
        """The child begins a stage; the first begins the time."""
        if not self.working:
            self.begun, self.working = time.monotonic(), True
        self.stage, self.progress = stage, ""

    @property
    def place(self) -> str:
        """Where it is, as exactly as is known."""
        return self.progress or self.stage
