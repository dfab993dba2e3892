"""Turns the command line and the ini file into one frozen `Settings`.

Imports nothing heavy, because pytest loads it in every project.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Literal, Protocol

from pytest_panic_doctor.errors import BadOption
from pytest_panic_doctor.examination.parsing import (
    RAY,
    model_types,
    parse_cluster,
    parse_cosine,
    parse_dimension,
    parse_duration,
    parse_generation,
    parse_int,
    parse_limit,
    parse_memory,
    parse_report,
    parse_running,
    parse_runs,
    parse_sample,
    parse_severities,
    parse_shard,
    parse_uuid,
    resolve_path,
    split_list,
)
from pytest_panic_doctor.examination.settings import Settings

DEFAULT_DATABASE = "db/trajectory_data.sqlite"
"""The database that is examined if none is named, relative to the working directory."""
DEMO_DATABASE = "doctor-demo/trajectory_data.sqlite"
GROUP = "panic-doctor"
"""The heading of the options in `pytest --help`."""
OptionKind = Literal["text", "flag", "list", "several", "optional"]
"""How many values an option takes: one, none, one each time it is given, several at once, or one or none."""
OptionValue = str | bool | list[str] | None
"""The value of an option as argparse or the ini file gives it."""


@dataclass(frozen=True, slots=True)
class Option:
    """One option: `--doctor-NAME` on the command line and `doctor_NAME` in the ini file.

    Attributes:
        name: The name, without its prefix.
        kind: How many values it takes.
        metavar: The placeholder of its value in the help.
        help: The help; a percent sign is doubled.
        asks: Whether the ini key alone makes the plugin examine a database.
    """

    name: str
    kind: OptionKind
    metavar: str
    help: str
    asks: bool = False

    @property
    def flag(self) -> str:
        """The option on the command line."""
        return f"--doctor-{self.name}"

    @property
    def key(self) -> str:
        """The key in the ini file."""
        return f"doctor_{self.name.replace('-', '_')}"


OPTIONS = (
    Option("db", "text", "PATH", f"examine this trajectory database (default: {DEFAULT_DATABASE})", asks=True),
    Option(
        "fix", "flag", "", "repair what can be repaired; every row is kept in a journal beside the database", asks=True
    ),
    Option("plan", "flag", "", "examine, and say what --doctor-fix would do; writes nothing", asks=True),
    Option(
        "max-quarantine",
        "text",
        "N|P%%",
        "quarantine whole runs, and more than 1,000 rows and 1%% of a table: up to N rows a session, or P%% of each "
        "table",
    ),
    Option(
        "backup", "text", "PATH", "copy the database to PATH before the first write of --doctor-fix or --doctor-undo"
    ),
    Option(
        "undo",
        "optional",
        "WHICH",
        "take repairs back: an id, 3-9, session:ID, or all; without a value, list the sessions; with a session's id "
        "alone, list its repairs; --doctor-rule, --doctor-run and --doctor-experiment choose among them",
    ),
    Option("redo", "text", "WHICH", "make repairs again that were taken back: the values of --doctor-undo"),
    Option("journal-export", "text", "FILE", "write the rows in quarantine to FILE, .sqlite or .parquet by suffix"),
    Option("rule", "list", "ID", "examine this rule only; may be repeated"),
    Option("experiment", "list", "UUID", "examine this experiment only; may be repeated"),
    Option(
        "run",
        "list",
        "RUN",
        "examine only what concerns this run: its id, the beginning of it, or words of its prompt and network; may be "
        "repeated",
    ),
    Option(
        "memory",
        "text",
        "SIZE",
        "memory for all workers and computations together, e.g. 12GB (default: 80%% of what is free)",
    ),
    Option("max-workers", "text", "N", "never more xdist workers than this"),
    Option("timeout", "text", "TIME", "end the computation of a diagram after this time, e.g. 90s or 10m"),
    Option(
        "max-dim", "text", "N", "highest homology dimension to compute (default: 2; less is recorded in the diagram)"
    ),
    Option(
        "engine",
        "text",
        "NAME",
        "native, gudhi, giotto-ph, or a plugin's (default: the first that is there)",
    ),
    Option("baseline", "text", "FILE", "accept the findings that FILE lists, and fail on new ones only"),
    Option("baseline-write", "flag", "", "accept what is found now: write it to the file of --doctor-baseline"),
    Option("sample", "text", "K/N", "of the items of expensive rules, examine the K-th of N parts"),
    Option("deep", "flag", "", "also examine by embedding and computing again"),
    Option("budget", "text", "TIME", "start no item after this time, e.g. 20m; the rest is skipped, never passed"),
    Option(
        "ray",
        "text",
        "ADDRESS",
        "compute on the Ray cluster there; --doctor-engine ray alone: at RAY_ADDRESS, else on a local Ray",
    ),
    Option("report", "list", "PATH", "write a report, .json, .jsonl, .html or .md by suffix; may be repeated"),
    Option("shard", "text", "K/N", "only the K-th of N equal shares of the items, e.g. 2/3"),
    Option("merge", "several", "PATH", "put the .json reports of shards together, write --doctor-report, and leave"),
    Option("try-rule", "text", "MODULE:FUNCTION", "run one rule of your own, print what it does, and leave"),
    Option("rules", "flag", "", "list the rules and leave"),
    Option("demo", "flag", "", "build a small database with known defects in ./doctor-demo and examine it", asks=True),
    Option(
        "demo-generation",
        "text",
        "NAME",
        "generation of the research tool that the demo's database is of: python or elixir (default: python)",
    ),
)
"""Every option, in the order of the help."""

EXTRA_KEYS: Mapping[str, tuple[Literal["linelist", "args", "string"], str]] = {
    "doctor_severity": ("linelist", "RULE: error, warn, warn <= COUNT, or off; one a line"),
    "doctor_text_models": ("args", "more embedding models that embed texts"),
    "doctor_image_models": ("args", "more embedding models that embed images"),
    "doctor_embed_cosine": (
        "string",
        "the least cosine of an embedding hook's vectors with stored ones, below which it is not believed "
        "(default: 0.99; 0: it is not compared)",
    ),
    "doctor_running": (
        "string",
        "an experiment that is not completed and has a row younger than this is running, and nothing is embedded or "
        "computed for it (default: 1h; 0: none is running)",
    ),
}
"""Ini keys without an option: pytest's type of each, and its help."""


class Source(Protocol):
    """The source of options: pytest's Config, or a dictionary of a test."""

    def getoption(self, name: str) -> object:
        """Return the value on the command line, None if the option was not given."""

    def getini(self, name: str) -> object:
        """Return the value in the ini file, None or empty if the key is absent."""


def is_requested(source: Source) -> bool:
    """Return whether the command line, or an ini key that is enough by itself, asks for the plugin."""
    given = any(source.getoption(option.key) not in (None, False, []) for option in OPTIONS)
    return given or is_requested_by_ini(source)


def is_requested_by_ini(source: Source) -> bool:
    """Return whether an ini key asks for an examination by itself."""
    return any(option.asks and truthy(source.getini(option.key)) for option in OPTIONS)


def truthy(value: object) -> bool:
    """Return whether an ini value means yes: a text or list that is not empty and not `false`, `0`, `no` or `off`."""
    return bool(value) and str(value).lower() not in ("false", "0", "no", "off")


def settings(source: Source, invocation_dir: Path, ini_dir: Path) -> Settings:
    """Build the settings of a session.

    Args:
        source: The options and ini keys.
        invocation_dir: The folder for relative paths of the command line.
        ini_dir: The folder for relative paths of the ini file.

    Raises:
        BadOption: A value is not allowed, or options exclude each other.
    """
    values, from_line = option_values(source)
    folder = {name: ini_dir if value in (None, False, []) else invocation_dir for name, value in from_line.items()}
    named = database_of(source, invocation_dir, ini_dir)
    if values["baseline-write"] and not values["baseline"]:
        raise BadOption("--doctor-baseline-write needs the file to write: give --doctor-baseline FILE with it")
    if values["baseline-write"] and values["run"]:
        raise BadOption("--doctor-baseline-write accepts the findings of whole experiments: leave out --doctor-run")
    reports = tuple(parse_report(resolve_path(folder["report"], text)) for text in split_list(values["report"]))
    if from_line["backup"] and not (values["fix"] or values["undo"] or values["redo"]):
        raise BadOption(
            "--doctor-backup copies the database before a write: give it with --doctor-fix or --doctor-undo"
        )
    if same := next((path for path in reports if path.resolve() == named.resolve()), None):
        raise BadOption(f"--doctor-report {same} is the database itself: name another file")
    return Settings(
        database=utf8(named),
        fix=bool(values["fix"]),
        plan=bool(values["plan"]),
        rules=tuple(split_list(values["rule"])),
        experiments=tuple(parse_uuid(text) for text in split_list(values["experiment"])),
        runs=parse_runs(values["run"]),
        memory=parse_memory(values["memory"]),
        max_workers=parse_int("--doctor-max-workers", values["max-workers"], least=1),
        timeout=parse_duration("--doctor-timeout", values["timeout"]),
        baseline=absolute(resolve_path(folder["baseline"], str(values["baseline"]))) if values["baseline"] else None,
        baseline_write=bool(values["baseline-write"]),
        sample=parse_sample(values["sample"]),
        deep=bool(values["deep"]),
        budget=parse_duration("--doctor-budget", values["budget"], unit=True),
        severity=parse_severities(split_list(source.getini("doctor_severity"))),
        max_dim=parse_dimension(values["max-dim"]),
        engine="auto" if values["engine"] in (None, RAY) else str(values["engine"]),
        ray=parse_cluster(values["ray"], values["engine"]),
        reports=reports,
        backup=absolute(resolve_path(folder["backup"], str(values["backup"]))) if values["backup"] else None,
        demo=parse_generation(values["demo-generation"]) if values["demo"] else None,
        max_quarantine=parse_limit("--doctor-max-quarantine", values["max-quarantine"]),
        shard=parse_shard(values["shard"]),
        kinds=model_types(
            split_list(source.getini("doctor_text_models")), split_list(source.getini("doctor_image_models"))
        ),
        embed_cosine=parse_cosine(source.getini("doctor_embed_cosine")),
        running=parse_running(source.getini("doctor_running")),
    )


def database_of(source: Source, invocation_dir: Path, ini_dir: Path) -> Path:
    """Return the path of the database that is examined; its symbolic links are kept.

    Raises:
        BadOption: `--doctor-demo` and `--doctor-db` are both given, or the demo's generation without a demo.
    """
    values, from_line = option_values(source)
    database = values["db"]
    if values["demo"] and from_line["db"]:
        raise BadOption(f"--doctor-demo builds a database of its own: leave out --doctor-db {database}")
    if values["demo"]:
        return absolute(invocation_dir / DEMO_DATABASE)
    if from_line["demo-generation"]:
        generation = from_line["demo-generation"]
        raise BadOption(f"--doctor-demo-generation {generation} is about the demo: give --doctor-demo with it")
    folder = ini_dir if from_line["db"] in (None, False, []) else invocation_dir
    return absolute(resolve_path(folder, str(database)) if database else invocation_dir / DEFAULT_DATABASE)


EXCLUSIVE = {
    ("fix", "plan"): "--doctor-plan says what --doctor-fix would do",
    ("fix", "undo"): "--doctor-undo takes back what --doctor-fix did",
    ("plan", "undo"): "--doctor-plan writes nothing, and --doctor-undo does",
    ("fix", "redo"): "--doctor-redo makes repairs of the journal again, and --doctor-fix makes new ones",
    ("plan", "redo"): "--doctor-plan writes nothing, and --doctor-redo does",
    ("undo", "redo"): "--doctor-redo is the reverse of --doctor-undo",
    ("fix", "journal-export"): "--doctor-journal-export only reads the journal",
    ("undo", "journal-export"): "--doctor-journal-export only reads the journal",
    ("redo", "journal-export"): "--doctor-journal-export only reads the journal",
}
"""Pairs of options that exclude each other, and why."""


def resolve_conflicts(values: dict[str, object], from_line: Mapping[str, object]) -> None:
    """Drop one of two options that exclude each other, if only the other is on the command line.

    Args:
        values: The value of each option; changed in place.
        from_line: The value of each option on the command line.

    Raises:
        BadOption: Both are given in the same place.
    """
    for pair, reason in EXCLUSIVE.items():
        if all(values[name] is not None for name in pair):
            kept = [name for name in pair if from_line[name] not in (None, False)]
            if len(kept) != 1:
                raise BadOption(f"{reason}: give one of them")
            values[pair[0] if kept == [pair[1]] else pair[1]] = None


def option_value(source: Source, option: Option) -> object:
    """Return the value of an option, from the command line or else from the ini file; None if neither has it."""
    value = source.getoption(option.key)
    if value not in (None, False, []):
        return value
    ini = source.getini(option.key)
    if option.kind == "flag":
        return truthy(ini) or None
    # In a native TOML file a number is one.
    return str(ini) if isinstance(ini, int | float) and option.kind in ("text", "optional") else ini or None


def check_once(arguments: Sequence[object]) -> None:
    """Check that no option of one value is given twice with different values, since one would be ignored.

    Args:
        arguments: The words that were typed; they replace what `addopts` gives.

    Raises:
        BadOption: An option is given twice.
    """
    typed = [str(each) for each in arguments]
    for option in OPTIONS:
        if option.kind in ("text", "optional"):
            given = [
                after if each == option.flag else each.partition("=")[2]
                for each, after in pairwise([*typed, ""])
                if each.partition("=")[0] == option.flag
            ]
            if len(dict.fromkeys(given)) > 1:
                raise BadOption(f"{option.flag} is given {len(given)} times ({', '.join(given)}): give it once")


def option_values(source: Source) -> tuple[dict[str, object], dict[str, object]]:
    """Return the value of each option, by its name.

    Returns:
        The values, and the values on the command line alone.

    Raises:
        BadOption: Two options exclude each other.
    """
    values = {option.name: option_value(source, option) for option in OPTIONS}
    from_line = {option.name: source.getoption(option.key) for option in OPTIONS}
    resolve_conflicts(values, from_line)
    return values, from_line


def utf8(path: Path) -> Path:
    """Return the path, if its name is UTF-8 and so can be written to reports and terminals.

    Raises:
        BadOption: It is not UTF-8.
    """
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        shown = os.fsencode(path).decode("utf-8", "backslashreplace")
        raise BadOption(f"--doctor-db {shown} is not UTF-8: rename it, or make a symbolic link to it") from error
    return path


def absolute(path: Path) -> Path:
    """Return an absolute path without `..`; symbolic links are kept, so that a node id reads as the user wrote it."""
    parts: list[str] = []
    for name in path.absolute().parts:
        if name == "..":
            parts.pop()
        else:
            parts.append(name)
    return Path(*parts)
