"""The commands about the journal: list the repairs, take them back, make them again, export what is in quarantine."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_panic_doctor.database.connection import Database, read_file_header
from pytest_panic_doctor.database.memory_room import memory_room
from pytest_panic_doctor.errors import BadOption
from pytest_panic_doctor.examination.manifest import LABEL, NAMED, RUN_COLUMNS, run_label
from pytest_panic_doctor.examination.manifest import names as names_in
from pytest_panic_doctor.examination.run_selection import meant
from pytest_panic_doctor.formatting import format_size, plural
from pytest_panic_doctor.repair.backup import make_backup
from pytest_panic_doctor.repair.journal.choice import (
    ALL,
    IDS,
    SESSION,
    SESSION_SHOWN,
    RepairFilter,
    session_named,
    shortest,
)
from pytest_panic_doctor.repair.journal.export import export
from pytest_panic_doctor.repair.journal.identity import journal_path
from pytest_panic_doctor.repair.journal.journal_schema import layout_of
from pytest_panic_doctor.repair.journal.opening import connect
from pytest_panic_doctor.repair.journal.reading import exists
from pytest_panic_doctor.repair.journal.size import rows_by_table
from pytest_panic_doctor.repair.journal.undo import INTACT, repairs, undo
from pytest_panic_doctor.repair.quarantine_limit import describe_counts
from pytest_panic_doctor.report import text
from pytest_panic_doctor.report.activity import Activity
from pytest_panic_doctor.report.repairs import done_lines, repair_lines, session_lines

if TYPE_CHECKING:
    from pytest_panic_doctor.examination.settings import Settings
    from pytest_panic_doctor.repair.journal.repair_record import Repair

PROMPTS = (
    f"SELECT id, iif(length(prompts) > {500 * LABEL}, '[]', prompts) FROM experimentconfig NOT INDEXED WHERE {NAMED}"
)


def journal_lines(settings: Settings, values: Mapping[str, object]) -> Iterator[str]:
    """Return the lines of the command about the journal that is one of the `values` of the options."""
    if "journal-export" in values:
        return export_lines(settings, Path(str(values["journal-export"])))
    if "redo" in values:
        return undo_lines(settings, str(values["redo"]), again=True)
    return undo_or_list(settings, str(values["undo"]))


def undo_or_list(settings: Settings, which: str) -> Iterator[str]:
    """Return the lines of `--doctor-undo`: of a list without a value or for a session's id, otherwise of an undo."""
    read_file_header(settings.database)
    if not which:
        return session_list(settings)
    bare = which.removesuffix(INTACT)
    long_number = bare.isdecimal() and len(bare) >= SESSION_SHOWN
    if bare == ALL or bare.startswith(SESSION) or (IDS.fullmatch(bare) and not long_number):
        return undo_lines(settings, which)  # Not read here: the journal may be damaged, and be salvaged by the undo.
    found = repairs(settings.database) if exists(settings.database) else []
    is_id = long_number and any(each.id == int(bare) for each in found)
    if not is_id and (session := session_named(found, which)):
        return repair_list(settings, session)
    return undo_lines(settings, which)


def session_list(settings: Settings) -> Iterator[str]:
    """Yield the sessions of a journal, newest first, and the command that lists the repairs of one."""
    everything = repairs(settings.database)
    shown = text.display_path(settings.database)
    if not everything:
        yield f"no repairs yet: --doctor-fix has not changed {shown}"
        return
    only = repair_filter(settings)
    found = list(filter(only.takes, everything))
    if not found:
        yield f"no repair of {shown} is one of those that the other options choose: it has {len(everything):,} others"
        return
    sessions = list(dict.fromkeys(each.session for each in found))
    order = ", newest first" if len(sessions) > 1 else ""
    of = plural(len(found), "repair")
    yield f"{plural(len(sessions), 'session')} with {of} of {shown}{order}, times in UTC"
    yield from session_lines(found, lambda ids: rows_by_table(settings.database, ids))
    newest = shortest(sessions[0], list(dict.fromkeys(each.session for each in everything)))
    yield f"next: {text.command(settings, f'--doctor-undo {newest}')}"
    yield f"(this lists its repairs; {SESSION}{newest}, an id, 3-9 or all takes them back)"


def repair_list(settings: Settings, session: str) -> Iterator[str]:
    """Yield the repairs of one session, newest first, and the command that takes the newest back."""
    found = [each for each in repairs(settings.database) if each.session == session]
    chosen = list(filter(repair_filter(settings).takes, found))
    of = f"{len(chosen):,} of " if len(chosen) < len(found) else ""
    yield (
        f"{of}{plural(len(found), 'repair')} of session {session}, {found[-1].time[:16]} UTC, of "
        f"{text.display_path(settings.database)}"
    )
    if not chosen:
        return
    yield from repair_lines(chosen, known_names(settings.database)[0])
    newest = next((each.id for each in chosen if each.status == "applied"), None)
    if newest is not None:
        yield f"next: {text.command(settings, f'--doctor-undo {newest}')}"
        yield f"(this takes one back; 3-9, {SESSION}{session[:12]} or all takes back several)"


def undo_lines(settings: Settings, which: str, *, again: bool = False) -> Iterator[str]:
    """Undo or redo repairs, and yield what was done."""
    read_file_header(settings.database)
    only = repair_filter(settings)
    left: list[str] = []
    verb = "making repairs again" if again else "taking repairs back"
    with Activity() as activity:
        if settings.backup:
            size = make_backup(settings.database, settings.backup, activity.report)
            yield f"backup: {text.display_path(settings.backup)}, {format_size(size)}"
        done: list[Repair] = undo(
            settings.database,
            which,
            note=left.append,
            space=memory_room(settings.memory),
            only=only,
            again=again,
            progress=partial(activity.count, verb),
        )
    yield from left
    every = repairs(settings.database) if done else []
    yield from done_lines(done, {each.id: each.undoes for each in every}, again=again)
    if not done:
        state = "that is undone" if again else "that is not undone"
        those = "" if only.is_empty else " among those that the other options choose"
        database = text.display_path(settings.database)
        yield f"nothing to {'redo' if again else 'undo'}: {database} has no repair {state}{those}"
        return
    if only.runs and not again:
        yield from shared_lines(settings, every, only)


def shared_lines(settings: Settings, every: Sequence[Repair], only: RepairFilter) -> Iterator[str]:
    """Name the repairs of the runs' experiments, which are of no single run and may have rows of these, too."""
    _, experiment_of = known_names(settings.database)
    experiments = {experiment_of.get(run) for run in only.runs} - {None}
    shared = [
        str(each.id)
        for each in every
        if each.subject.experiment in experiments
        and each.subject.run is None
        and each.status == "applied"
        and not each.undoes
    ]
    if shared:
        yield f"repairs of its whole experiment, which may have rows of it too: {', '.join(shared)}"


def export_lines(settings: Settings, target: Path) -> Iterator[str]:
    """Write the rows in quarantine to a file, and yield how many there are."""
    read_file_header(settings.database)
    with Activity() as activity:
        counts = export(
            settings.database, target, repair_filter(settings), partial(activity.count, "writing rows in quarantine")
        )
    if not counts:
        yield f"nothing is in quarantine: no file was written for {text.display_path(settings.database)}"
        return
    yield f"wrote {describe_counts(counts)}, to {text.display_path(target)}"


def repair_filter(settings: Settings) -> RepairFilter:
    """Return the filter that the options mean.

    Raises:
        BadOption: `--doctor-run` means no run, neither of the database nor of the journal.
    """
    runs: tuple[str, ...] = ()
    if settings.runs:
        labels, experiment_of = known_names(settings.database)
        if not experiment_of:
            raise BadOption(f"--doctor-run {settings.runs[0]}: no run is known: leave it out")
        runs = tuple(meant(each, {run: labels[run] for run in experiment_of}) for each in settings.runs)
    return RepairFilter(settings.rules, runs, settings.experiments)


def known_names(database: Path) -> tuple[dict[str, str], dict[str, str | None]]:
    """Return what runs and experiments are called: of those in the journal, and of those in the database.

    Returns:
        The prompt and network of each run, and the prompts of each experiment, by id; and the experiment of each run.
    """
    runs, experiments = quarantined_runs(database), list[tuple[object, object]]()

    def look(db: sqlite3.Connection) -> None:
        runs.extend(db.execute(f"SELECT {RUN_COLUMNS} FROM run NOT INDEXED WHERE {NAMED}"))
        experiments.extend(db.execute(PROMPTS))

    # Names help, and nothing depends on them.
    with suppress(sqlite3.Error), closing(Database(database)) as reading:
        reading.read(look)
    labels = {str(run): run_label(prompt, network) for run, _, network, prompt in runs}
    labels |= {str(experiment): ", ".join(names_in(prompts)) for experiment, prompts in experiments}
    return labels, {str(run): None if experiment is None else str(experiment) for run, experiment, _, _ in runs}


def quarantined_runs(database: Path) -> list[tuple[object, ...]]:
    """List (id, experiment, network, prompt) of the runs that the journal has."""
    found: list[tuple[object, ...]] = []
    if not exists(database):
        return found
    path = journal_path(database)
    with suppress(sqlite3.Error), closing(connect(path)) as journal:
        numbers = journal.execute("SELECT id FROM layouts WHERE lower(table_name) IN ('run', 'runs')").fetchall()
        for (number,) in numbers:
            layout = layout_of(journal, number)
            if {"id", "experiment_id", "network", "initial_prompt"} <= {column.lower() for column in layout.columns}:
                found += journal.execute(f"SELECT {RUN_COLUMNS} FROM {layout.source} WHERE {NAMED}").fetchall()
    return found
