"""Command line and ini file -> one frozen `Settings`. Imports nothing heavy: pytest reads this in every project."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, Protocol

from pytest_panic_doctor.errors import DoctorError

DEFAULT_DATABASE = "db/trajectory_data.sqlite"
DEMO_DATABASE = "doctor-demo/trajectory_data.sqlite"
GROUP = "panic-doctor"
RAY = "ray"
"""The engine's name that means: the first engine that is there, on Ray."""

TEXT_MODELS = ("Nomic", "JinaClip", "STSBMpnet", "STSBRoberta", "STSBDistilRoberta", "DummyText", "DummyText2")
IMAGE_MODELS = ("NomicVision", "JinaClipVision", "DummyVision", "DummyVision2")

OptionKind = Literal["text", "flag", "list", "several", "optional"]
Value = str | bool | list[str] | None


class BadOption(DoctorError):
    """An option has a value that cannot be; the text is one sentence that names it and says what to do."""


@dataclass(frozen=True, slots=True)
class Option:
    """One option: `--doctor-NAME` on the command line and `doctor_NAME` in the ini file.

    `asks` tells whether the ini key alone makes the doctor examine a database.
    """

    name: str
    kind: OptionKind
    metavar: str
    help: str
    asks: bool = False

    @property
    def flag(self) -> str:
        """As it stands on the command line."""
        return f"--doctor-{self.name}"

    @property
    def key(self) -> str:
        """As it stands in the ini file."""
        return f"doctor_{self.name.replace('-', '_')}"


OPTIONS = (
    Option("db", "text", "PATH", f"examine this trajectory database (default: {DEFAULT_DATABASE})", asks=True),
    Option(
        "fix", "flag", "", "repair what can be repaired; every row is kept in a journal beside the database", asks=True
    ),
    Option("plan", "flag", "", "examine, and say what --doctor-fix would do; writes nothing", asks=True),
    Option("undo", "optional", "ID", "take repair ID back, or all; without ID, list the repairs"),
    Option("rule", "list", "ID", "examine this rule only; may be repeated"),
    Option("experiment", "list", "UUID", "examine this experiment only; may be repeated"),
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
        "engine", "text", "NAME", "giotto-ph, gudhi, or one that a plugin brings (default: the first that is there)"
    ),
    Option("baseline", "text", "FILE", "accept the findings that FILE lists, and fail on new ones only"),
    Option("baseline-write", "flag", "", "accept what is found now: write it to the file of --doctor-baseline"),
    Option("sample", "text", "K/N", "of the items of expensive rules, examine the K-th of N parts"),
    Option("budget", "text", "TIME", "start no item after this time, e.g. 20m; the rest is skipped, never passed"),
    Option(
        "ray",
        "text",
        "ADDRESS",
        "compute on the Ray cluster there; --doctor-engine ray alone: at RAY_ADDRESS, else on a local Ray",
    ),
    Option("report", "list", "PATH", "write a report, .json, .jsonl or .html by suffix; may be repeated"),
    Option("shard", "text", "K/N", "only the K-th of N equal shares of the items, e.g. 2/3"),
    Option("merge", "several", "PATH", "put the .json reports of shards together, write --doctor-report, and leave"),
    Option("rules", "flag", "", "list the rules and leave"),
    Option("demo", "flag", "", "build a small database with known defects in ./doctor-demo and examine it", asks=True),
)

EXTRA_KEYS: Mapping[str, tuple[Literal["linelist", "args"], str]] = {
    "doctor_severity": ("linelist", "RULE: error, warn, warn <= COUNT, or off; one a line"),
    "doctor_text_models": ("args", "more embedding models that embed texts"),
    "doctor_image_models": ("args", "more embedding models that embed images"),
}


class Source(Protocol):
    """Where options come from: pytest's Config, or a test's dictionary."""

    def getoption(self, name: str) -> object:
        """The command line's value, None where the option was not given."""

    def getini(self, name: str) -> object:
        """The ini file's value, None or empty where the key is absent."""


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
    budget: float | None = None
    severity: Mapping[str, str] = field(default_factory=dict)
    ray: str | None = None
    """The address of the Ray cluster that computes; None where this machine does."""
    reports: tuple[Path, ...] = ()
    demo: bool = False
    shard: str | None = None
    kinds: Mapping[str, Literal["TEXT", "IMAGE"]] = field(default_factory=dict)

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


def asked(source: Source) -> bool:
    """Whether the command line, or an ini key that asks for it, wants the doctor at all."""
    given = any(source.getoption(option.key) not in (None, False, []) for option in OPTIONS)
    return given or asked_by_ini(source)


def asked_by_ini(source: Source) -> bool:
    """Whether an ini key asks for an examination by itself."""
    return any(option.asks and truthy(source.getini(option.key)) for option in OPTIONS)


def truthy(value: object) -> bool:
    """Whether an ini value says yes: a non-empty text or list that is not a no."""
    return bool(value) and str(value).lower() not in ("false", "0", "no", "off")


def settings(source: Source, invocation_dir: Path, ini_dir: Path) -> Settings:
    """Read and check all options; raises `BadOption`. Paths on the command line are relative to `invocation_dir`,
    those of the ini file to `ini_dir`."""
    from_line = {option.name: source.getoption(option.key) for option in OPTIONS}
    values: dict[str, object] = {}
    folder: dict[str, Path] = {}
    for option in OPTIONS:
        given = from_line[option.name] not in (None, False, [])
        ini = source.getini(option.key)
        values[option.name] = (
            from_line[option.name] if given else (truthy(ini) if option.kind == "flag" else ini or None)
        )
        folder[option.name] = invocation_dir if given else ini_dir
    database = values["db"]
    if values["demo"] and from_line["db"]:
        raise BadOption(f"--doctor-demo builds a database of its own: leave --doctor-db {database} away")
    named = folder["db"] / str(database) if database else invocation_dir / DEFAULT_DATABASE
    if values["demo"]:
        named = invocation_dir / DEMO_DATABASE
    if values["fix"] and values["plan"]:
        raise BadOption("--doctor-plan says what --doctor-fix would do: give one of them")
    if values["fix"] and from_line["undo"] is not None:
        raise BadOption("--doctor-undo takes back what --doctor-fix did: give one of them")
    if values["baseline-write"] and not values["baseline"]:
        raise BadOption("--doctor-baseline-write needs the file to write: give --doctor-baseline FILE with it")
    return Settings(
        database=absolute(named),
        fix=bool(values["fix"]),
        plan=bool(values["plan"]),
        rules=tuple(texts(values["rule"])),
        experiments=tuple(uuid(text) for text in texts(values["experiment"])),
        memory=size(values["memory"]),
        max_workers=whole("--doctor-max-workers", values["max-workers"], least=1),
        timeout=duration("--doctor-timeout", values["timeout"]),
        baseline=absolute(folder["baseline"] / str(values["baseline"])) if values["baseline"] else None,
        baseline_write=bool(values["baseline-write"]),
        sample=part("--doctor-sample", values["sample"]),
        budget=duration("--doctor-budget", values["budget"]),
        severity=severities(texts(source.getini("doctor_severity"))),
        max_dim=dimension(values["max-dim"]),
        engine="auto" if values["engine"] in (None, RAY) else str(values["engine"]),
        ray=cluster(values["ray"], values["engine"]),
        reports=tuple(report(folder["report"] / text) for text in texts(values["report"])),
        demo=bool(values["demo"]),
        shard=shard(values["shard"]),
        kinds=kinds(texts(source.getini("doctor_text_models")), texts(source.getini("doctor_image_models"))),
    )


def absolute(path: Path) -> Path:
    """The path without `..`, its symbolic links kept, so that a node id reads as the user wrote it."""
    parts: list[str] = []
    for part in path.absolute().parts:
        if part == "..":
            parts.pop()
        else:
            parts.append(part)
    return Path(*parts)


def texts(value: object) -> list[str]:
    """A repeatable option's values; commas separate them too."""
    entries = value if isinstance(value, list) else [value] if value else []
    return [part.strip() for entry in entries for part in str(entry).split(",") if part.strip()]


def uuid(text: str) -> str:
    """A UUID as stored: 32 hex digits without dashes."""
    digits = text.replace("-", "").lower()
    if not re.fullmatch(r"[0-9a-f]{32}", digits):
        raise BadOption(f"--doctor-experiment {text} is no UUID: give 32 hex digits, with or without dashes")
    return digits


def size(value: object) -> int | None:
    """A memory size in bytes; None where none was given."""
    if value is None:
        return None
    from pytest_panic_doctor.topology.memory import SMALLEST, format_size, parse_size

    try:
        given = parse_size(str(value))
    except ValueError as error:
        raise BadOption(f"--doctor-memory {value}: {error}") from error
    if given < SMALLEST:
        least = format_size(SMALLEST)
        raise BadOption(f"--doctor-memory {value} is too little to compute any diagram: give at least {least}")
    return given


def whole(flag: str, value: object, least: int) -> int | None:
    """A whole number of at least `least`; None where none was given."""
    if value is None:
        return None
    if not re.fullmatch(r"\d+", str(value)) or int(str(value)) < least:
        raise BadOption(f"{flag} {value} is no whole number of at least {least}: give one, e.g. {flag} 2")
    return int(str(value))


UNITS = {"s": 1, "m": 60, "h": 3600}


def duration(flag: str, value: object) -> float | None:
    """`90s`, `20m`, `1h30m` or a number of seconds, in seconds; None where none was given."""
    if value is None:
        return None
    text = str(value).strip().lower()
    pieces = re.findall(r"(\d+(?:\.\d+)?)([smh])", f"{text}s" if text[-1:].isdigit() else text)
    whole_text = "".join(number + unit for number, unit in pieces)
    total = sum(float(number) * UNITS[unit] for number, unit in pieces)
    if whole_text not in (text, f"{text}s") or total <= 0:
        raise BadOption(f"{flag} {value} is no time: give one such as 90s, 20m or 1h30m")
    return total


def part(flag: str, value: object) -> tuple[int, int] | None:
    """`K/N` as numbers, 1 <= K <= N; None where none was given."""
    if value is None:
        return None
    match = re.fullmatch(r"\s*(\d+)\s*/\s*(\d+)\s*", str(value))
    if not match or not 1 <= int(match[1]) <= int(match[2]):
        raise BadOption(f"{flag} {value} is no part: give K/N with K from 1 to N, e.g. {flag} 2/7")
    return int(match[1]), int(match[2])


def severities(lines: Iterable[str]) -> dict[str, str]:
    """What `doctor_severity` says of each rule: `error`, `warn`, `warn <= COUNT` or `off`."""
    found: dict[str, str] = {}
    for line in lines:
        name, colon, said = line.partition(":")
        said = re.sub(r"\s*<=\s*", " <= ", " ".join(said.split()))
        if not colon or not re.fullmatch(r"error|warn|off|warn <= \d+", said):
            raise BadOption(
                f"doctor_severity {line!r} is no severity: give RULE: error, warn, off or warn <= COUNT, "
                "e.g. embedding-missing: warn <= 10"
            )
        if name.strip() in found:
            raise BadOption(f"doctor_severity names {name.strip()} twice: leave one of the two lines")
        found[name.strip()] = said
    return found


def dimension(value: object) -> int:
    """The highest homology dimension."""
    number = whole("--doctor-max-dim", value, least=0)
    if number is not None and number > 2:
        raise BadOption(f"--doctor-max-dim {number} is more than the file format holds: give 0, 1 or 2")
    return 2 if number is None else number


def shard(value: object) -> str | None:
    """Which share of the items, as `K/N`; None where none was given."""
    if value is None:
        return None
    from pytest_panic_doctor import share

    try:
        return str(share.shard(str(value)))
    except ValueError as error:
        raise BadOption(f"--doctor-shard {value} {error}") from error


def cluster(given: object, engine: object) -> str | None:
    """The address of the Ray cluster, that of Ray's own RAY_ADDRESS where none was given; None: no Ray is wanted."""
    if given is None and engine != RAY:
        return None
    if find_spec("ray") is None:
        flag = f"--doctor-engine {RAY}" if given is None else f"--doctor-ray {given}"
        raise BadOption(f"{flag} needs Ray, which is not installed: pip install 'pytest-panic-doctor[ray]'")
    return str(given or os.environ.get("RAY_ADDRESS") or "local")


def report(path: Path) -> Path:
    """A report's path, whose suffix says its format."""
    if path.suffix not in REPORT_SUFFIXES:
        allowed = ", ".join(REPORT_SUFFIXES)
        raise BadOption(f"--doctor-report {path} has no known suffix: end it in one of {allowed}")
    if path.is_dir():
        raise BadOption(f"--doctor-report {path} is a folder: name a file in it")
    if not path.parent.is_dir():
        raise BadOption(f"--doctor-report {path} has no folder to be written to: make {path.parent} first")
    return path


REPORT_SUFFIXES = (".json", ".jsonl", ".html")


def kinds(text_models: Iterable[str], image_models: Iterable[str]) -> dict[str, Literal["TEXT", "IMAGE"]]:
    """What each known embedding model embeds, those of the ini file included."""
    known: dict[str, Literal["TEXT", "IMAGE"]] = dict.fromkeys((*TEXT_MODELS, *text_models), "TEXT")
    for name in (*IMAGE_MODELS, *image_models):
        if known.get(name) == "TEXT" and name in tuple(text_models):
            raise BadOption(f"{name} is in both doctor_text_models and doctor_image_models: leave it in one")
        known[name] = "IMAGE"
    return known


def nearest(text: str, names: Iterable[str]) -> str:
    """`: did you mean X?`, or how to see the names where none is near."""
    near = difflib.get_close_matches(text, list(names), n=1, cutoff=0.5)
    return f": did you mean {near[0]}?" if near else ""
