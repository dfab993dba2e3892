"""Computes Lyapunov results from the stored embeddings, and writes them if nothing has changed by then."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from pytest_panic_doctor.database.elixir_payload import encode_lyapunov
from pytest_panic_doctor.database.python_generation import PYTHON
from pytest_panic_doctor.examination.examiner import RepairResult
from pytest_panic_doctor.formatting import plural
from pytest_panic_doctor.repair.journal.errors import RepairFailed
from pytest_panic_doctor.repair.journal.writer import Change
from pytest_panic_doctor.repair.recompute import TRIES
from pytest_panic_doctor.rules import lyapunov as results
from pytest_panic_doctor.rules.base import RuleContext
from pytest_panic_doctor.rules.lyapunov import LyapunovPlace, Stored
from pytest_panic_doctor.rules.lyapunov_values import defects, difference, read
from pytest_panic_doctor.topology.lyapunov import Lyapunov, lyapunov

if TYPE_CHECKING:
    from pytest_panic_doctor.database.subject import Subject
    from pytest_panic_doctor.repair.recompute import RepairContext

RESULTS_KEEP_CHANGING = (
    f"the embeddings changed {TRIES} times while the results were computed: run again when they are at rest"
)
"""The reason if every attempt was overtaken."""
FASTER = RepairResult("another worker was faster")
"""The result if nothing is left to compute."""


@dataclass(frozen=True, slots=True)
class LyapunovTarget:
    """A result to write.

    Attributes:
        place: The network and the prompt.
        runs: The runs with embeddings, with their number.
        row: The stored result; None if there is none.
        digest: The digest of the embeddings that it was computed from.
        result: The computed result.
    """

    place: LyapunovPlace
    runs: Mapping[str, int]
    row: Stored | None
    digest: bytes
    result: Lyapunov


def recompute_results(repairs: RepairContext, rule: str, subject: Subject) -> RepairResult:
    """Compute the results of a subject that a rule finds missing or wrong, and write them.

    Another worker may write the same results, or repair their embeddings, during the computation: what was not written
    is looked at again.

    Args:
        repairs: Reads the embeddings, and writes the results.
        rule: The id of the rule.
        subject: The experiment and the embedding model.

    Raises:
        RepairFailed: The embeddings of all results are incomplete, the experiment is not finished, or nothing was
            written because the embeddings change faster than the results are computed.
    """
    space = repairs.writer.space

    def look(db: sqlite3.Connection) -> list[LyapunovTarget]:
        return computable(RuleContext(db, rule, subject, repairs.kinds, space=space), repairs.busy(db, subject))

    done: list[LyapunovTarget] = []
    for _ in range(TRIES):
        begun = datetime.now()
        found = repairs.database.read(look)
        if not found:
            break
        written = repairs.writer.write([result_change(repairs, rule, subject, each, begun) for each in found])
        done += [each for each, repair in zip(found, written, strict=True) if repair is not None]
        if all(written):
            break
    if not done and found:
        raise RepairFailed(RESULTS_KEEP_CHANGING)
    if not done:
        return FASTER
    pairs = sum(each.result.num_pairs for each in done)
    sentence = f"computed {plural(len(done), 'Lyapunov result')} of {plural(pairs, 'pair')} of runs"
    return RepairResult(sentence, {"results": len(done)})


def computable(context: RuleContext, busy: str) -> list[LyapunovTarget]:
    """Return each result of the subject that the rule finds missing or wrong and that can be computed.

    Args:
        context: The rule and the subject.
        busy: Why nothing is written now; empty if writing is allowed.

    Raises:
        RepairFailed: Results are missing or wrong, and none of them may be computed.
    """
    blocked: dict[str, str] = {}
    found = list(wrong_results(context, blocked))
    if not found and blocked:
        raise RepairFailed(f"embeddings are incomplete: {'; '.join(blocked.values())}", blocked_by=blocked)
    if found and (reason := busy or results.to_come_anyway(context)):
        raise RepairFailed(reason)
    return found


def wrong_results(context: RuleContext, blocked: dict[str, str]) -> Iterator[LyapunovTarget]:
    """Yield each result of the subject that the rule finds missing or wrong, computed.

    Args:
        context: The rule and the subject.
        blocked: Gets what blocks the others, by rule.
    """
    there: dict[LyapunovPlace, list[Stored]] = {}
    for row in results.stored(context):
        there.setdefault(row.place, []).append(row)
    for place, runs in sorted(results.runs_of(context).items()):
        rows = there.get(place, [])
        if not results.has_result(runs) or len(rows) > 1 or bool(rows) == (context.rule == NONE_THERE):
            continue
        if rows and context.rule == NOT_VALID and not defects(rows[0].data):
            continue
        vectors, why = results.trajectories_of(context, place, list(runs))
        if vectors is None:
            blocked.update({name: clause for name, clause in why.items() if name not in blocked})
            continue
        result = lyapunov(vectors)
        if rows and context.rule != NOT_VALID and not is_stale_result(rows[0], result):
            continue
        yield LyapunovTarget(place, runs, rows[0] if rows else None, trajectory_digest(vectors), result)


NONE_THERE, NOT_VALID = "lyapunov-missing", "lyapunov-valid"
"""The ids of the rules whose repair computes results that are missing or not valid; others compute stale ones."""


def is_stale_result(row: Stored, result: Lyapunov) -> bool:
    """Return whether a stored result reads and is not the computed one."""
    stored_result, _ = read(row.data)
    return stored_result is not None and bool(difference(stored_result, result))


def trajectory_digest(vectors: Sequence[object]) -> bytes:
    """Return the SHA-256 of trajectories."""
    total = hashlib.sha256()
    for each in vectors:
        data = bytes(memoryview(each))  # type: ignore[arg-type]
        total.update(b"%d\0" % len(data))
        total.update(data)
    return total.digest()


def result_change(
    repairs: RepairContext, rule: str, subject: Subject, target: LyapunovTarget, begun: datetime
) -> Change:
    """Return what writes one result, unless its embeddings or its row are no longer those that were seen."""
    generation = repairs.database.generation or PYTHON
    place = target.place

    def unchanged(db: sqlite3.Connection) -> bool:
        now = repairs.context(db, rule, subject)
        rows = [row for row in results.stored(now) if row.place == place]
        if repairs.busy(db, subject) or now.unfinished() or rows != ([target.row] if target.row else []):
            return False
        if results.runs_of(now, place).get(place) != target.runs:
            return False
        vectors, _ = results.trajectories_of(now, place, list(target.runs))
        return vectors is not None and trajectory_digest(vectors) == target.digest

    values: dict[str, int | float | str | bytes | None] = {
        "started_at": generation.stamp(begun),
        "completed_at": generation.stamp(datetime.now()),
        "lyapunov_data": encode_lyapunov(target.result),
    }
    if target.row is not None:
        return Change(rule, subject, results.TABLE, values, unchanged, target.row.id)
    network, prompt = place
    new = {
        "id": generation.new_id(),
        "experiment_id": subject.experiment,
        "network": network,
        "prompt": prompt,
        "embedding_model": subject.embedding_model,
    }
    return Change(rule, subject, results.TABLE, new | values, unchanged)
