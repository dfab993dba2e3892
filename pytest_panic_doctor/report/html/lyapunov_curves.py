"""The Lyapunov results on the page: how the runs of a network and prompt diverge, and the line that fits it."""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pytest_panic_doctor.database.connection import Unreadable
from pytest_panic_doctor.database.elixir_payload import decode_lyapunov
from pytest_panic_doctor.database.erlang_terms import MAX_TERM_BYTES
from pytest_panic_doctor.database.json_columns import load_json
from pytest_panic_doctor.database.subject import Subject
from pytest_panic_doctor.report.results import shorten_label
from pytest_panic_doctor.rules.experiment import format_network
from pytest_panic_doctor.rules.lyapunov import TABLE
from pytest_panic_doctor.topology.lyapunov import LEAST_DISTANCE, Lyapunov
from pytest_panic_doctor.topology.payload import PayloadError

if TYPE_CHECKING:
    from pytest_panic_doctor.examination.examination import Examination
    from pytest_panic_doctor.examination.outcome import Result

RULES_OF_CURVES = ("lyapunov-missing", "lyapunov-valid", "lyapunov-current")
MOST_STEPS = 200
"""Maximum number of distances of one curve; a longer curve is drawn with so many of its steps."""

MOST_DISTANCES = 80_000
"""Maximum number of distances on the page: about 400 kB."""

STORED = (
    "SELECT id, network, prompt, lyapunov_data IS NULL, CASE WHEN typeof(lyapunov_data) = 'blob' "
    f"AND length(lyapunov_data) <= {MAX_TERM_BYTES} THEN lyapunov_data END "
    f"FROM {TABLE} WHERE experiment_id = ? AND embedding_model = ? ORDER BY id"
)

Items = Sequence[tuple[Subject, "Result"]]


class LyapunovCurves:
    """The Lyapunov results of the examined experiments and embedding models, those with a defect first.

    Attributes:
        listed: Each result, as plain values.
        left: The number of results that the page has no room for.
    """

    def __init__(
        self,
        examination: Examination,
        items: Items,
        number: Callable[[Subject], dict[str, object]],
        repaired: Collection[str] = (),
    ) -> None:
        """Read the results, one experiment and model at a time.

        Args:
            examination: The session.
            items: The items of the rules about Lyapunov results, each with its subject.
            number: Gives a subject as the page knows it.
            repaired: The ids of the results that this session changed or added.
        """
        self.examination = examination
        self.number = number
        self.repaired = repaired
        self.listed: list[dict[str, object]] = []
        self.left = 0
        self._distances = 0
        by_subject: dict[Subject, list[Result]] = {}
        for subject, item in items:
            by_subject.setdefault(subject, []).append(item)
        for sick in (True, False):
            for subject, those in by_subject.items():
                if not sick or sick_rows(those):
                    self._read(subject, those, sick=sick)

    def _read(self, subject: Subject, items: Sequence[Result], *, sick: bool) -> None:
        about = self.number(subject)
        try:
            rows = self.examination.database.read(
                lambda db: db.execute(STORED, (subject.experiment, subject.embedding_model)).fetchall()
            )
        except (Unreadable, sqlite3.DatabaseError) as error:
            self.listed.append(about | {"state": "not examined", "problem": f"SQLite cannot read it: {error}"})
            return
        defective = sick_rows(items)
        otherwise = "not examined"
        if any(item.rule != RULES_OF_CURVES[0] and item.status != "skipped" for item in items):
            otherwise = "healthy"
        for row, network, prompt, is_null, data in rows:
            if (str(row) in defective) is not sick:
                continue
            if self._distances >= MOST_DISTANCES:
                self.left += 1
                continue
            models = load_json(network)
            curve = curve_of(data, is_null=bool(is_null))
            self._distances += len(curve.get("curve", ()))  # type: ignore[arg-type]
            self.listed.append(
                about
                | {
                    "row": str(row),
                    "network": shorten_label(format_network(models if isinstance(models, list) else network)),
                    "prompt": shorten_label(str(prompt)),
                    "state": "sick" if sick else "fixed" if str(row) in self.repaired else otherwise,
                }
                | curve
            )


def sick_rows(items: Sequence[Result]) -> set[str]:
    """Return the ids of the results in which the items found a defect."""
    return {
        row_id
        for item in items
        if item.status == "failed"
        for finding in item.findings
        if finding.table == TABLE
        for row_id in finding.ids
    }


def curve_of(data: object, *, is_null: bool) -> dict[str, object]:
    """Convert a result as stored: its numbers, its curve and the ends of the line, or why it cannot be drawn."""
    if not isinstance(data, bytes):
        return {"problem": "it is NULL" if is_null else "it is not a blob of a Lyapunov result's size"}
    try:
        result = decode_lyapunov(data)
    except PayloadError as error:
        return {"problem": f"it {error}"}
    drawn = {
        "exponent": finite(result.exponent),
        "fit": None if result.r_squared is None else finite(result.r_squared),
        "pairs": result.num_pairs,
        "steps": len(result.divergence_curve),
        "line": ends_of_line(result),
    }
    count = len(result.divergence_curve)
    at = np.unique(np.linspace(0, count - 1, min(count, MOST_STEPS)).round().astype(int)) if count else np.arange(0)
    curve = [finite(each) for each in result.divergence_curve[at].tolist()]
    return drawn | {"curve": curve} | ({"at": at.tolist()} if len(at) < count else {})


def ends_of_line(result: Lyapunov) -> list[float] | None:
    """Return the fitted distances at the first and last step, with the stored exponent; None if they are not finite.

    The line through the mean of the logarithms with this slope is that of the least squares.
    """
    curve: NDArray[np.float64] = result.divergence_curve
    if not len(curve) or not np.isfinite(curve).all() or not math.isfinite(result.exponent):
        return None
    middle = float(np.log(np.maximum(curve, LEAST_DISTANCE)).mean())
    half = result.exponent * (len(curve) - 1) / 2
    with np.errstate(over="ignore"):
        ends = np.exp(np.array([middle - half, middle + half]))
    found = [finite(each) for each in ends.tolist()]
    return [each for each in found if each is not None] if all(found) else None


def finite(value: float) -> float | None:
    """Round a number to four digits; None if it is not finite, since JSON has no such number."""
    return float(f"{value:.4g}") if math.isfinite(value) else None
