"""A diagram to compute, what a computation returns, and why it fails."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from pytest_panic_doctor.topology.cloud import Points
from pytest_panic_doctor.topology.diagram import Diagram

FailureKind = Literal["memory", "timeout", "died", "refused"]


@dataclass(frozen=True, slots=True)
class Task:
    """A diagram to compute.

    Attributes:
        points: The cloud, float32, shape (n, d).
        label: Name for progress displays.
        max_dim: The highest homology dimension.
        tolerance: Merging tolerance; None for the default.
        stored: Number of points before merging; 0 if `points` are not merged.
    """

    points: Points
    label: str = ""
    max_dim: int = 2
    tolerance: float | None = None
    stored: int = 0

    @property
    def count(self) -> int:
        """Number of points for messages."""
        return self.stored or len(self.points)


@dataclass(frozen=True, slots=True)
class Computed:
    """A diagram and what it took: seconds of wall time, and peak resident bytes of the process that computed.

    `distinct` is the number of points after merging, with `tolerance` in the unit of the points.
    """

    diagram: Diagram
    distinct: int
    tolerance: float
    engine: str
    engine_version: str
    seconds: float
    peak_memory: int


class ComputationFailed(Exception):
    """Raised when a diagram was not computed; the message is one sentence with the reason and advice."""

    def __init__(
        self, reason: str, kind: FailureKind, seconds: float = 0.0, peak_memory: int = 0, *, advice: str = ""
    ) -> None:
        """Set the parts of the message; `seconds` and `peak_memory` (bytes) are counted until the end."""
        super().__init__(f"{reason}; {advice}" if advice else reason)
        self.reason = reason
        self.advice = advice
        self.kind = kind
        self.seconds = seconds
        self.peak_memory = peak_memory

    def as_plain(self) -> dict[str, object]:
        """Plain values, to send to another process."""
        return {
            "why": self.kind,
            "happened": self.reason,
            "advice": self.advice,
            "seconds": self.seconds,
            "peak": self.peak_memory,
        }

    @classmethod
    def from_plain(cls, plain: Mapping[str, object]) -> ComputationFailed:
        """Make the exception from the values of `as_plain`."""
        kind: FailureKind = plain["why"]  # type: ignore[assignment]
        return cls(
            str(plain["happened"]),
            kind,
            float(str(plain["seconds"])),
            int(str(plain["peak"])),
            advice=str(plain["advice"]),
        )


def describe_diagram(points: int) -> str:
    """`the diagram of 2,423 points`."""
    return f"the diagram of {points:,} point{'s' if points != 1 else ''}"


def timeout_message(task: Task, timeout: float, progress: str = "") -> str:
    """Message for a diagram that reached the timeout; `progress` is empty if unknown."""
    steps = (10, 30, 60, 120, 300, 600, 1800)
    longer = next((step for step in steps if step >= 10 * timeout), 3600 * math.ceil(timeout / 360))
    place = f", in {progress}" if progress else ""
    message = f"{describe_diagram(task.count)} was ended after {timeout:g} s, its limit{place}"
    return f"{message}; give it more with --doctor-timeout {longer:g}"


def more_memory(reached: int, limit: int) -> str:
    """Suggest a limit of at least three times the bytes reached, and 1.5 times the present limit.

    It is the next of 1, 2, 3, 4, 6, 8, 12, 16 … GB, as `--doctor-memory` takes it.
    """
    least = max(3 * reached, 1.5 * limit) / 1e9
    power = 2.0 ** max(0, math.floor(math.log2(least)))
    return f"{next(size for size in (power, 1.5 * power, 2 * power) if size >= least and size % 1 == 0):g}GB"
