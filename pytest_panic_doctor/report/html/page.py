"""Writes the HTML report of a session: one file, made of a template, scripts and packed data."""

from __future__ import annotations

import hashlib
from base64 import b64encode
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_panic_doctor.database.files import atomic_write
from pytest_panic_doctor.database.schema import NOUNS
from pytest_panic_doctor.database.subject import DiagramTarget, Subject
from pytest_panic_doctor.errors import DoctorError
from pytest_panic_doctor.formatting import format_size, install_extra, plural
from pytest_panic_doctor.report import terminal
from pytest_panic_doctor.report.html.compression import packed_json
from pytest_panic_doctor.report.html.contents import Contents
from pytest_panic_doctor.report.html.diagrams import Diagrams, Packed
from pytest_panic_doctor.report.html.lyapunov_curves import RULES_OF_CURVES, LyapunovCurves
from pytest_panic_doctor.report.html.repaired import RepairedRows
from pytest_panic_doctor.report.html.run_locations import RunLocator
from pytest_panic_doctor.report.remaining_work import named_runs, tasks
from pytest_panic_doctor.report.results import json_head
from pytest_panic_doctor.rules.lyapunov import TABLE

if TYPE_CHECKING:
    from pytest_panic_doctor.examination.examination import Examination
    from pytest_panic_doctor.report.results import Results

MOST_BYTES = 4_900_000
"""Maximum size of the page in bytes; the plots get what the rest leaves."""

FRAME = 30_000
"""Upper bound of what is neither script nor data."""

HERE = "pytest_panic_doctor.report.html"
SCRIPTS = (
    "data.js",
    "elements.js",
    "findings.js",
    "rules.js",
    "map.js",
    "plots.js",
    "timeline.js",
    "diagrams.js",
    "lyapunov.js",
    "costs.js",
    "main.js",
)


def require_jinja(path: Path) -> None:
    """Raise `DoctorError` unless Jinja2 is installed."""
    if find_spec("jinja2") is None:
        raise DoctorError(f"--doctor-report {path} needs Jinja2, which is not installed: {install_extra('html')}")


def write_html(path: Path, examination: Examination, results: Results, merged: Sequence[str] | None = None) -> None:
    """Write the HTML report atomically. Reads the database in short transactions for the plots.

    Args:
        path: The file.
        examination: The session.
        results: Its results.
        merged: Sentences about merged reports; then no database is read.

    Raises:
        DoctorError: Jinja2 is not installed.
        OSError: The file cannot be written.
    """
    require_jinja(path)
    text = rendered(examination, results, datetime.now().astimezone(), merged)
    with atomic_write(path, like=examination.settings.database) as partial:
        partial.write_text(text, encoding="utf-8", errors="replace")


def rendered(examination: Examination, results: Results, now: datetime, merged: Sequence[str] | None = None) -> str:
    """Render the page as text; `now` is the time that it shows, `merged` as in `write_html`."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    healed = RepairedRows(examination.settings.database, str(examination.repair_run.get("session", "")))
    placer = RunLocator(examination.database) if merged is None else RunLocator(examination.database, 0)
    contents = Contents(examination, results, placer, healed.places(placer))
    of_curves = contents.of_rules(RULES_OF_CURVES) if merged is None else []
    curves = LyapunovCurves(examination, of_curves, contents.numbered, healed.kept(TABLE) if of_curves else ())
    plain = contents.as_plain() | {"lyapunov": curves.listed, "lyapunov_left": curves.left}
    diagrams = Diagrams(examination, contents.by_target(), healed, look=merged is None)
    style, script, library = source("style.css"), own_script(), source("vendor/plot.js")
    fixed = len(style) + len(script) + len(library.encode()) + FRAME

    def number(pair: DiagramTarget) -> dict[str, object]:
        return contents.numbered(Subject(None, *pair))

    def room(pictures: Packed) -> int:
        return MOST_BYTES - fixed - len(packed_json(plain | {"diagrams": pictures.listed}))

    pictures = diagrams.fitting(room, number)
    more = {"diagrams": pictures.listed, "keep": pictures.keep, "mode": mode(examination), "merged": merged is not None}
    data = packed_json(plain | more)
    environment = Environment(
        loader=PackageLoader("pytest_panic_doctor.report", "html"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html").render(
        head=json_head(examination, results),
        database=examination.settings.database,
        size=size_of(examination.settings.database) if merged is None else "",
        rows=[plural(count, NOUNS[table]) for table, count in examination.rows.items()],
        mode=terminal.MODES[examination.settings.fix, examination.settings.plan],
        settings=setting_lines(examination.settings.as_dict()),
        now=now,
        items=plural(len(results.items), "item"),
        counts=item_counts(results),
        todo=[
            (task.text, [*named_runs(examination, task.runs)], task.command)
            for task in tasks(examination, results.items)
        ],
        merged=[*(merged or ()), *results.notes],
        lyapunov=bool(of_curves),
        next=[line.split(": ", 1) for line in terminal.next_command(examination, results)],
        style=style,
        script=script,
        library=library,
        hashes=[hashed(script), hashed(library)],
        data=data,
        bars=pictures.data,
    )


def item_counts(results: Results) -> str:
    """Count the items by outcome; those that were not started or not reached are not examined."""
    counted: Counter[str] = Counter()
    for outcomes in results.by_rule().values():
        counted.update(outcomes)
    words = ["failed", "fixed", "passed", "warned", "skipped"]
    found = {word: counted[word] for word in words} | {"not examined": counted["late"] + counted["unreached"]}
    return ", ".join(f"{count:,} {word}" for word, count in found.items() if count) or "none"


def mode(examination: Examination) -> str:
    """Name what the session did: examine, fix or plan."""
    return "fix" if examination.settings.fix else "plan" if examination.settings.plan else "examine"


def source(name: str) -> str:
    """Read a file of the package."""
    return files(HERE).joinpath(name).read_text(encoding="utf-8")


def own_script() -> str:
    """Return the page's own script in one scope, so that only the library is global."""
    return "(() => {\n'use strict';\n" + "\n".join(source(f"script/{name}") for name in SCRIPTS) + "\n})();\n"


def hashed(script: str) -> str:
    """Return the hash of a script for the page's Content-Security-Policy (https://www.w3.org/TR/CSP3/)."""
    return "sha256-" + b64encode(hashlib.sha256(script.encode()).digest()).decode()


def size_of(path: Path) -> str:
    """Format the file's size, or why it is unknown: the file may have been removed."""
    try:
        return format_size(path.stat().st_size)
    except OSError as error:
        return f"size unknown: {error.strerror}"


def setting_lines(settings: Mapping[str, object]) -> list[tuple[str, str]]:
    """Format the settings, one line each, without those that were not set."""
    kinds = settings["kinds"]
    shown = {key: value for key, value in settings.items() if key not in ("kinds", "database")}
    lines = [
        (key.replace("_", " "), format_setting(value)) for key, value in shown.items() if value not in (None, [], False)
    ]
    if isinstance(kinds, Mapping):
        lines += [
            (f"{kind} models", ", ".join(name for name, each in kinds.items() if each == kind))
            for kind in ("TEXT", "IMAGE")
        ]
    return lines


def format_setting(value: object) -> str:
    """Format a setting's value."""
    return ", ".join(map(str, value)) if isinstance(value, list) else "yes" if value is True else str(value)
