"""State of one computation in a child, as its worker sees it."""

from __future__ import annotations

import time
from dataclasses import dataclass

from pytest_panic_doctor.compute.task import ComputationFailed, FailureKind


@dataclass(slots=True)
class Attempt:
    """State of a running computation.

    Attributes:
        started_at: When the child began to compute, or before that, when it was asked to (monotonic, s).
        stage: What the child does.
        progress: Progress within the stage, such as `H2, column 1,204 of 1,862`; empty if the engine reports none.
        working: Whether the child has begun to compute.
        exact: Whether the child ends the computation at its limits by itself.
        size: Resident bytes of the child.
        peak: The largest size.
        reported_at: When the size was last written to the ledger (monotonic, s).
        requested_at: When more memory was last requested (monotonic, s).
    """

    started_at: float
    stage: str = "starting"
    progress: str = ""
    working: bool = False
    exact: bool = False
    size: int = 0
    peak: int = 0
    reported_at: float = 0.0
    requested_at: float = 0.0

    @property
    def seconds(self) -> float:
        """Seconds since `started_at`."""
        return time.monotonic() - self.started_at

    def enter(self, stage: str) -> None:
        """Note that the child begins a stage; the first stage starts the clock."""
        if not self.working:
            self.started_at, self.working = time.monotonic(), True
        self.stage, self.progress = stage, ""

    @property
    def place(self) -> str:
        """Progress if known, else the stage."""
        return self.progress or self.stage

    def failure(self, reason: str, kind: FailureKind, *, advice: str = "") -> ComputationFailed:
        """Make the failure of this attempt, with the time and the memory that it took."""
        return ComputationFailed(reason, kind, self.seconds, self.peak, advice=advice)
