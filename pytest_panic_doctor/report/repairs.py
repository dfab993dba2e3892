"""The lists of `--doctor-undo`: the sessions of a journal, and the repairs of one session, with names."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence

from pytest_panic_doctor.database.spelling import dashed
from pytest_panic_doctor.database.subject import Subject
from pytest_panic_doctor.formatting import WIDTH, format_size, plural, printable, shorten
from pytest_panic_doctor.repair.journal.choice import SESSION, shortest
from pytest_panic_doctor.repair.journal.repair_record import Repair
from pytest_panic_doctor.repair.quarantine_limit import describe_counts

RUN_LABEL_WIDTH = 100
FEW = 30
"""The number of repairs up to which each has a line of its own after an undo."""

RowsByTable = Callable[[Sequence[int]], Mapping[str, int]]
"""Counts the rows of some repairs by table."""


def by_session(found: Sequence[Repair]) -> dict[str, list[Repair]]:
    """Group repairs by session, in the order in which they are given."""
    sessions: dict[str, list[Repair]] = {}
    for each in found:
        sessions.setdefault(each.session, []).append(each)
    return sessions


def session_lines(found: Sequence[Repair], counted: RowsByTable) -> Iterator[str]:
    """Yield one line for each session, folded at 80 characters: when, what, rows by table, repairs by rule.

    Args:
        found: The repairs, newest first.
        counted: Counts rows by table.
    """
    sessions = by_session(found)
    for session, repairs in sessions.items():
        undone = sum(each.status == "undone" for each in repairs)
        what = plural(len(repairs), verb_of(repairs)) + (f" ({undone:,} undone)" if undone else "")
        rows = describe_counts(counted([each.id for each in repairs]))
        rules = ", ".join(f"{rule} {count:,}" for rule, count in Counter(each.rule for each in repairs).most_common())
        size = format_size(sum(each.bytes for each in repairs))
        name = shortest(session, list(sessions))
        line = f"{name}  {repairs[-1].time[:16]}  {what}, {size}, {rows}; {rules}"
        yield from textwrap.wrap(printable(line), WIDTH, subsequent_indent=" " * 10, break_on_hyphens=False)


def verb_of(repairs: Sequence[Repair]) -> str:
    """Return what the repairs of one session are: `repair` or `undo`; a redo is an undo of an undo."""
    return "undo" if all(each.undoes for each in repairs) else "repair"


def repair_lines(found: Sequence[Repair], labels: Mapping[str, str]) -> Iterator[str]:
    """Yield a table of repairs, newest first, with the name of what each was made for.

    Args:
        found: The repairs.
        labels: The names of runs and experiments by id.
    """
    yield f"{'id':>5}  {'what':<18}{'rows':>8}{'size':>8}  rule"
    before = ""
    for repair in found:
        name = subject_name(repair.subject, labels)
        if name and name != before:
            for part in textwrap.wrap(printable(name), WIDTH - 7, subsequent_indent="  ", break_on_hyphens=False):
                yield f"{'':<7}{part}"
        before = name
        what = f"undo of {repair.undoes}" if repair.undoes else repair.verb
        what = f"undone: {what}" if repair.status == "undone" else what
        model = f" [{repair.subject.embedding_model}]" if repair.subject.embedding_model else ""
        size = format_size(repair.bytes)
        yield printable(f"{repair.id:>5}  {what:<18}{repair.rows:>8,}{size:>8}  {repair.rule}{model}")


def subject_name(subject: Subject, labels: Mapping[str, str]) -> str:
    """Return the prompt and network of a run, or the prompts of an experiment, with its id; empty for the database."""
    noun, name = ("run", subject.run) if subject.run else ("experiment", subject.experiment)
    if not name:
        return ""
    return " ".join(filter(None, (noun, dashed(name), shorten(labels.get(name, ""), RUN_LABEL_WIDTH))))


def done_lines(done: Sequence[Repair], undoes: Mapping[int, int | None], *, again: bool = False) -> Iterator[str]:
    """Yield what was undone or redone: a line for each of a few repairs, otherwise a line for each rule.

    Args:
        done: The undos.
        undoes: What each repair of the journal undoes, by id.
        again: Whether they are undos of undos.
    """
    verb, noun = ("redid", "redo") if again else ("undid", "undo")
    if len(done) <= FEW:
        for each in done:
            number = first_of(each.undoes, undoes) if again else each.undoes
            yield f"{verb} repair {number} ({each.rule}): {plural(each.rows, 'row')}; this {noun} is repair {each.id}"
        return
    for rule, count in Counter(each.rule for each in done).most_common():
        rows = sum(each.rows for each in done if each.rule == rule)
        yield f"{verb} {plural(count, 'repair')} of {rule}: {plural(rows, 'row')}"
    yield f"{SESSION}{done[0].session} names these {plural(len(done), noun)}"


def first_of(number: int | None, undoes: Mapping[int, int | None]) -> int | None:
    """Return the repair that a chain of undos began with."""
    while number is not None and (earlier := undoes.get(number)) is not None:
        number = earlier
    return number
