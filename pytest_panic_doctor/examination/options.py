"""Declares every option once: what it takes, where its value goes, and what it means for shards and for commands.

Imports nothing heavy, because pytest loads it in every project.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal

from pytest_panic_doctor.database.spelling import dashed
from pytest_panic_doctor.examination import parsing
from pytest_panic_doctor.examination.parsing import Given, parse_text
from pytest_panic_doctor.examination.settings import Settings

DEFAULT_DATABASE = "db/trajectory_data.sqlite"
"""The database that is examined if none is named, relative to the working directory."""
ValueKind = Literal["flag", "text", "optional", "list", "phrases", "several", "words"]
"""How many values an option takes: none, one, one or none, one each time it is given (with commas between several, or
with commas as a part of it), several at once, or several that are written as in a shell (in the ini file only)."""
ONE = ("text", "optional")
"""The kinds of one value."""


@dataclass(frozen=True, slots=True)
class OptionValue:
    """What an option takes.

    Attributes:
        kind: How many values it takes.
        metavar: The placeholder of its value in the help; empty for an ini key.
        parse: Parses one value.
        gather: Puts the values of an option of several together.
    """

    kind: ValueKind
    metavar: str = ""
    parse: Callable[[Given], object] = parse_text
    gather: Callable[[list[object]], object] = tuple

    def texts(self, given: object) -> list[str]:
        """Return the single values of what was given; commas separate values in a list."""
        entries = list(map(str, given)) if isinstance(given, list) else [str(given)]
        if self.kind not in ("list", "words"):
            return entries
        return [part.strip() for entry in entries for part in entry.split(",") if part.strip()]


SWITCH = OptionValue("flag")
PATH = OptionValue("text", "PATH", parsing.parse_absolute_path)
FILE = OptionValue("text", "FILE", parsing.parse_absolute_path)
UUIDS = OptionValue("list", "UUID", parsing.parse_uuid)
COUNT = OptionValue("text", "N", partial(parsing.parse_int, least=1))
DURATION = OptionValue("text", "TIME", parsing.parse_duration)
DIMENSION = OptionValue("text", "N", parsing.parse_dimension)
SAMPLE = OptionValue("text", "K/N", parsing.parse_sample)
SHARD = OptionValue("text", "K/N", parsing.parse_shard)
PATHS = OptionValue("several", "PATH", parsing.parse_path)
WORDS = OptionValue("words")
PLACE = OptionValue("text", "MODULE:FUNCTION")


@dataclass(frozen=True, slots=True)
class Option:
    """One option: `--doctor-NAME` on the command line and `doctor_NAME` in the ini file.

    Attributes:
        name: The name, without its prefix.
        value: What it takes.
        help: The help; a percent sign is doubled.
        stored_in: The field of `Settings` that has the value; None for the one of the option's name, if there is one.
        ini_only: Whether it is an ini key only.
        asks: Whether the ini key alone makes the plugin examine a database.
        excludes: The options before it that cannot be given with it, and why.
        needs: Options of which one must be given with it, unless it stands in the ini file as a default, and a message
            in which `{}` is the value.
        may_differ: Whether it says where and how a shard runs, not what it examines, so that shards may differ in it.
        again: How a value is written in a command for the same items; None if it is left out there.
    """

    name: str
    value: OptionValue
    help: str
    stored_in: str | None = None
    ini_only: bool = False
    asks: bool = False
    excludes: Mapping[str, str] = field(default_factory=dict)
    needs: tuple[tuple[str, ...], str] = ((), "")
    may_differ: bool = False
    again: Callable[[str], str] | None = None

    @property
    def flag(self) -> str:
        """The option on the command line; the ini key if it has none."""
        return self.key if self.ini_only else f"--doctor-{self.name}"

    @property
    def key(self) -> str:
        """The key in the ini file."""
        return f"doctor_{self.name.replace('-', '_')}"

    @property
    def setting(self) -> str:
        """The field of `Settings` that has the value; empty if none has it."""
        name = self.key.removeprefix("doctor_") if self.stored_in is None else self.stored_in
        return name if name in Settings.__dataclass_fields__ else ""

    def parsed(self, given: object, folder: Path) -> object:
        """Parse what was given; `folder` is the one that relative paths are relative to."""
        if self.value is SWITCH:
            return True
        values = [self.value.parse(Given(self.flag, text, folder)) for text in self.value.texts(given)]
        return values[0] if self.value.kind in ONE else self.value.gather(values)

    def typed_again(self, setting: object) -> Iterator[str]:
        """Yield a setting as it is typed in a command for the same items."""
        if self.again and setting:
            values = setting if isinstance(setting, tuple) else (setting,)
            yield from (self.flag if each is True else f"{self.flag} {self.again(str(each))}" for each in values)


ONLY_READS = "--doctor-journal-export only reads the journal"

OPTIONS: tuple[Option, ...] = (
    Option(
        "db",
        PATH,
        f"examine this trajectory database (default: {DEFAULT_DATABASE})",
        stored_in="database",
        asks=True,
        may_differ=True,
    ),
    Option("fix", SWITCH, "repair what can be repaired; every row is kept in a journal beside the database", asks=True),
    Option(
        "plan",
        SWITCH,
        "examine, and say what --doctor-fix would do; writes nothing",
        asks=True,
        excludes={"fix": "--doctor-plan says what --doctor-fix would do"},
    ),
    Option(
        "max-quarantine",
        OptionValue("text", "N|P%%", parsing.parse_limit),
        "quarantine whole runs, and more than 1,000 rows and 1%% of a table: up to N rows a session, or P%% of each "
        "table",
    ),
    Option(
        "backup",
        PATH,
        "copy the database to PATH before the first write of --doctor-fix or --doctor-undo",
        needs=(
            ("fix", "undo", "redo"),
            "--doctor-backup copies the database before a write: give it with --doctor-fix or --doctor-undo",
        ),
    ),
    Option(
        "undo",
        OptionValue("optional", "WHICH"),
        "take repairs back: an id, 3-9, session:ID, or all; without a value, list the sessions; with a session's id "
        "alone, list its repairs; --doctor-rule, --doctor-run and --doctor-experiment choose among them",
        excludes={
            "fix": "--doctor-undo takes back what --doctor-fix did",
            "plan": "--doctor-plan writes nothing, and --doctor-undo does",
        },
    ),
    Option(
        "redo",
        OptionValue("text", "WHICH"),
        "make repairs again that were taken back: the values of --doctor-undo",
        excludes={
            "fix": "--doctor-redo makes repairs of the journal again, and --doctor-fix makes new ones",
            "plan": "--doctor-plan writes nothing, and --doctor-redo does",
            "undo": "--doctor-redo is the reverse of --doctor-undo",
        },
    ),
    Option(
        "journal-export",
        OptionValue("text", "FILE", parsing.parse_path),
        "write the rows in quarantine to FILE, .sqlite or .parquet by suffix",
        excludes={"fix": ONLY_READS, "undo": ONLY_READS, "redo": ONLY_READS},
    ),
    Option("rule", OptionValue("list", "ID"), "examine this rule only; may be repeated", stored_in="rules", again=str),
    Option("experiment", UUIDS, "examine this experiment only; may be repeated", stored_in="experiments", again=dashed),
    Option(
        "run",
        OptionValue("phrases", "RUN", parsing.parse_run),
        "examine only what concerns this run: its id, the beginning of it, or words of its prompt and network; may be "
        "repeated",
        stored_in="runs",
        again=dashed,
    ),
    Option(
        "memory",
        OptionValue("text", "SIZE", parsing.parse_memory),
        "memory for all workers and computations together, e.g. 12GB (default: 80%% of what is free)",
        may_differ=True,
    ),
    Option("max-workers", COUNT, "never more xdist workers than this", may_differ=True),
    Option("timeout", DURATION, "end the computation of a diagram after this time, e.g. 90s or 10m", may_differ=True),
    Option("max-dim", DIMENSION, "highest homology dimension to compute (default: 2; less is recorded in the diagram)"),
    Option(
        "engine",
        OptionValue("text", "NAME", parsing.parse_engine),
        "native, gudhi, giotto-ph, or a plugin's (default: the first that is there)",
        may_differ=True,
    ),
    Option("baseline", FILE, "accept the findings that FILE lists, and fail on new ones only"),
    Option(
        "baseline-write",
        SWITCH,
        "accept what is found now: write it to the file of --doctor-baseline",
        needs=(("baseline",), "--doctor-baseline-write needs the file to write: give --doctor-baseline FILE with it"),
    ),
    Option("sample", SAMPLE, "of the items of expensive rules, examine the K-th of N parts", again=str),
    Option("deep", SWITCH, "also examine by embedding and computing again", again=str),
    Option(
        "budget",
        OptionValue("text", "TIME", partial(parsing.parse_duration, unit=True)),
        "start no item after this time, e.g. 20m; the rest is skipped, never passed",
        may_differ=True,
    ),
    Option(
        "ray",
        OptionValue("text", "ADDRESS"),
        "compute on the Ray cluster there; --doctor-engine ray alone: at RAY_ADDRESS, else on a local Ray",
        may_differ=True,
    ),
    Option(
        "report",
        OptionValue("list", "PATH", parsing.parse_report),
        "write a report, .json, .jsonl, .html or .md by suffix; may be repeated",
        stored_in="reports",
        may_differ=True,
    ),
    Option("shard", SHARD, "only the K-th of N equal shares of the items, e.g. 2/3", may_differ=True, again=str),
    Option("merge", PATHS, "put the .json reports of shards together, write --doctor-report, and leave"),
    Option("try-rule", PLACE, "run one rule of your own, print what it does, and leave"),
    Option("rules", SWITCH, "list the rules and leave", stored_in=""),
    Option(
        "demo",
        SWITCH,
        "build a small database with known defects in ./doctor-demo and examine it",
        asks=True,
        may_differ=True,
    ),
    Option(
        "demo-generation",
        OptionValue("text", "NAME"),
        "generation of the research tool that the demo's database is of: python or elixir (default: python)",
        needs=(("demo",), "--doctor-demo-generation {} is about the demo: give --doctor-demo with it"),
    ),
    Option(
        "severity",
        OptionValue("list", "", parsing.parse_severity, parsing.severity_by_rule),  # type: ignore[arg-type]
        "RULE: error, warn, warn <= COUNT, or off; one a line",
        ini_only=True,
    ),
    Option("text-models", WORDS, "more embedding models that embed texts", ini_only=True),
    Option("image-models", WORDS, "more embedding models that embed images", ini_only=True),
    Option(
        "embed-cosine",
        OptionValue("text", "", parsing.parse_cosine),
        "the least cosine of an embedding hook's vectors with stored ones, below which it is not believed "
        "(default: 0.99; 0: it is not compared)",
        ini_only=True,
    ),
    Option(
        "running",
        OptionValue("text", "", parsing.parse_running),
        "an experiment that is not completed and has a row younger than this is running, and nothing is embedded or "
        "computed for it (default: 1h; 0: none is running)",
        ini_only=True,
    ),
)
"""Every option, in the order of the help."""


def selection_again(settings: Settings) -> list[str]:
    """Return the options that choose the same items, as they are typed in a command, the flags last."""
    again = sorted((option for option in OPTIONS if option.again), key=lambda option: option.value is SWITCH)
    return [word for option in again for word in option.typed_again(getattr(settings, option.setting))]
