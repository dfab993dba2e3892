"""Everything that the user decided, as one frozen value that travels to every worker. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that the user decided. Sizes in bytes, times in seconds, ids as stored."""

    database: Path
    fix: bool = False
    plan: bool = False
    rules: tuple[str, ...] = ()
    experiments: tuple[str, ...] = ()
    memory: int | None = None
    max_workers: int | None = None
    timeout: float | None = None
    max_dim: int = 2
    engine: str = "auto"
    baseline: Path | None = None
    baseline_write: bool = False
    sample: tuple[int, int] | None = None
    deep: bool = False
    budget: float | None = None
    severity: Mapping[str, str] = field(default_factory=dict)
    ray: str | None = None
    """The address of the Ray cluster that computes; None where this machine does."""
    reports: tuple[Path, ...] = ()
    max_quarantine: str | None = None
    """How many rows one quarantine may take, or which part of each table, as `5000` or `2%`; None: see `consent`."""
    demo: bool = False
    shard: str | None = None
    kinds: Mapping[str, Literal["TEXT", "IMAGE"]] = field(default_factory=dict)
    embed_cosine: float | None = None
    running: float = 3600.0

    def as_dict(self) -> dict[str, object]:
        """Plain values: for JSON, and for the way to an xdist worker."""
        plain = asdict(self)
        plain["database"] = str(self.database)
        plain["reports"] = [str(path) for path in self.reports]
        plain["baseline"] = str(self.baseline) if self.baseline else None
        return {key: list(value) if isinstance(value, tuple) else value for key, value in plain.items()}

    @classmethod
    def from_dict(cls, plain: Mapping[str, object]) -> Settings:
        """The inverse of `as_dict`."""
        values = {key: tuple(value) if isinstance(value, list) else value for key, value in plain.items()}
        reports, baseline = values.pop("reports"), values.pop("baseline")
        return cls(
            database=Path(str(values.pop("database"))),
            baseline=Path(str(baseline)) if baseline else None,
            reports=tuple(Path(str(path)) for path in reports) if isinstance(reports, tuple) else (),
            **values,  # type: ignore[arg-type]
        )
